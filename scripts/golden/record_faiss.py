#!/usr/bin/env python3
"""Records index files that faiss writes, and its answers from them.

Needs faiss-cpu and numpy, which set-up does not install. Run it from the root of the checkout:

    record_faiss.py    makes tests/golden/faiss/

One thread builds the graphs, so that equal versions write equal files.
"""

import json
from pathlib import Path

import faiss
import numpy

GOLDEN = Path("tests/golden/faiss")

SEED = 21
ROWS = 240
DIMENSION = 18
QUERIES = 12
TOP_K = 10
# Below, at and above the number of hits; faiss treats the first case specially.
EFS = [4, 10, 16, 64]
# Few links, so that a search with a small ef misses rows and the answers differ between searches.
LINKS = 4

# Rows of the files of other kinds, which are recorded with fewer.
FEW_ROWS = 60
LISTS = 4
# The types of scalar quantisers that the retriever reads, and one that it refuses.
QUANTISERS = ["8bit", "8bit_uniform", "fp16", "bf16", "8bit_direct_signed", "8bit_direct", "4bit"]

METRICS = {"ip": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}


def flat(metric):
    return faiss.IndexFlatIP(DIMENSION) if metric == "ip" else faiss.IndexFlatL2(DIMENSION)


def hnsw(metric):
    return faiss.IndexHNSWFlat(DIMENSION, LINKS, METRICS[metric])


def answers(index, queries, parameters=None):
    scores, rows = index.search(queries, TOP_K, params=parameters)
    return [
        [[int(row), float(score)] for row, score in zip(*pair) if row >= 0]
        for pair in zip(rows, scores)
    ]


def quantised(name):
    return faiss.IndexScalarQuantizer(
        DIMENSION, getattr(faiss.ScalarQuantizer, f"QT_{name}"), faiss.METRIC_INNER_PRODUCT
    )


def inverted(quantiser, metric):
    index = faiss.IndexIVFFlat(quantiser, DIMENSION, LISTS, METRICS[metric])
    index.nprobe = LISTS
    # Lists are assigned at random otherwise, and some of them stay empty then.
    index.cp.min_points_per_centroid = 1
    return index


def graph_of_bytes():
    quantiser = faiss.ScalarQuantizer.QT_8bit
    return faiss.IndexHNSWSQ(DIMENSION, quantiser, LINKS, faiss.METRIC_INNER_PRODUCT)


def other_kinds(vectors, queries):
    """Writes files of other kinds, and returns their answers from a comparison with all rows."""
    few = vectors[:FEW_ROWS]
    # Numbers that bytes can hold as they are.
    whole = numpy.round(few * 20).clip(-120, 120)
    shuffled = numpy.random.default_rng(SEED).permutation(FEW_ROWS).astype(numpy.int64)
    kinds = [(f"sq-{name}", quantised(name), None) for name in QUANTISERS]
    kinds += [
        ("ivf-ip", inverted(flat("ip"), "ip"), None),
        ("ivf-l2", inverted(flat("l2"), "l2"), None),
        ("hnsw-sq", graph_of_bytes(), None),
        ("idmap", faiss.IndexIDMap(flat("ip")), numpy.arange(FEW_ROWS)),
        ("idmap2-shuffled", faiss.IndexIDMap2(flat("l2")), shuffled),
        ("idmap-hnsw", faiss.IndexIDMap2(hnsw("ip")), shuffled),
        ("idmap-ivf", faiss.IndexIDMap(inverted(flat("ip"), "ip")), shuffled),
        ("idmap-sq", faiss.IndexIDMap(quantised("fp16")), shuffled),
    ]
    files = []
    for name, index, ids in kinds:
        rows = few
        if "direct" in name:
            rows = whole + 128 if name == "sq-8bit_direct" else whole
        index.train(rows)
        if ids is None:
            index.add(rows)
        else:
            index.add_with_ids(rows, ids)
        file = f"{name}.index"
        faiss.write_index(index, str(GOLDEN / file))
        if "hnsw" in name:
            graph = index if ids is None else faiss.downcast_index(index.index)
            graph.hnsw.efSearch = FEW_ROWS
        found = answers(index, queries)
        files.append({"file": file, "metric": metric_of(index), "count": FEW_ROWS, "exact": found})
    numpy.save(GOLDEN / "f32.npy", few)
    numpy.save(GOLDEN / "f16.npy", few.astype(numpy.float16))
    numpy.save(GOLDEN / "fortran.npy", numpy.asfortranarray(few))
    numpy.save(GOLDEN / "f64.npy", few[:3].astype(numpy.float64))
    return files


def metric_of(index):
    return "ip" if index.metric_type == faiss.METRIC_INNER_PRODUCT else "l2"


def main():
    faiss.omp_set_num_threads(1)
    generator = numpy.random.default_rng(SEED)
    vectors = generator.standard_normal((ROWS, DIMENSION), dtype=numpy.float32)
    queries = generator.standard_normal((QUERIES, DIMENSION), dtype=numpy.float32)
    GOLDEN.mkdir(parents=True, exist_ok=True)
    files = []
    for metric in METRICS:
        for name, index, count in [
            ("flat", flat(metric), ROWS),
            ("hnsw", hnsw(metric), ROWS),
            ("hnsw-empty", hnsw(metric), 0),
            ("flat-empty", flat(metric), 0),
            ("hnsw-one", hnsw(metric), 1),
            ("flat-one", flat(metric), 1),
        ]:
            index.add(vectors[:count])
            file = f"{name}-{metric}.index"
            faiss.write_index(index, str(GOLDEN / file))
            if name.startswith("hnsw"):
                by_ef = {
                    ef: answers(index, queries, faiss.SearchParametersHNSW(efSearch=ef))
                    for ef in EFS
                }
                files.append({"file": file, "metric": metric, "count": count, "by_ef": by_ef})
            else:
                exact = answers(index, queries)
                files.append({"file": file, "metric": metric, "count": count, "exact": exact})
    head = {
        "faiss": faiss.__version__,
        "numpy": numpy.__version__,
        "seed": SEED,
        "dimension": DIMENSION,
        "top_k": TOP_K,
        "queries": queries.tolist(),
    }
    write_json(GOLDEN / "other-kinds.json", head | {"files": other_kinds(vectors, queries)})
    write_json(GOLDEN / "answers.json", head | {"files": files})


def write_json(path, value):
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
