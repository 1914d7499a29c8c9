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
    write_json(GOLDEN / "answers.json", {
        "faiss": faiss.__version__,
        "numpy": numpy.__version__,
        "seed": SEED,
        "dimension": DIMENSION,
        "top_k": TOP_K,
        "queries": queries.tolist(),
        "files": files,
    })


def write_json(path, value):
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
