#!/usr/bin/env python3
"""Records retrieval measures as trec_eval's code computes them.

Needs pytrec_eval-terrier and ir-measures, which set-up does not install. Run it from the root of the checkout:

    record_metrics.py    makes tests/golden/retrieval-metrics.json

Values of single queries come from pytrec_eval, means from ir-measures. pytrec_eval has no cut-off for reciprocal ranks,
and the one of ir-measures orders ties differently, so this script sets the value to 0 beyond rank 10.
"""

import json
import random
from pathlib import Path

import ir_measures
import pytrec_eval

OUT = Path("tests/golden/retrieval-metrics.json")
SEED = 21
CUTOFFS = (1, 3, 10, 100)
MEASURES = {
    "nDCG@10": ir_measures.nDCG @ 10,
    "nDCG@3": ir_measures.nDCG @ 3,
    # Every run has fewer passages than this cut-off.
    "MRR@1000": ir_measures.RR,
    **{f"recall@{k}": ir_measures.R @ k for k in CUTOFFS},
}


def by_hand():
    """Returns hand-made cases: grades, negative judgements, ties, a missing query, one without relevant passages."""
    qrels = {
        "graded": {"a": 3, "b": 1, "c": 0, "d": 2},
        "ties": {"a": 1, "m": 1, "z": 0},
        "missing": {"a": 1},
        "nothing-relevant": {"a": 0, "b": 0},
        "negative": {"a": -1, "b": 2},
        "nothing-found": {"a": 1, "b": 1},
    }
    run = {
        "graded": {"c": 5.0, "b": 4.0, "x": 3.0, "a": 2.0, "d": 1.0},
        "ties": {"z": 1.0, "a": 1.0, "m": 1.0, "q": 1.0},
        "nothing-relevant": {"a": 2.0, "c": 1.0},
        "negative": {"a": 2.0, "b": 1.0},
        "nothing-found": {"x": 2.0, "y": 1.0},
        "not-judged": {"a": 1.0},
    }
    return qrels, run


def drawn(generator, grades):
    """Returns random runs of 1 to 120 passages. Their scores take few values, so that ties occur."""
    qrels, run = {}, {}
    for number in range(12):
        passages = [f"p{index}" for index in generator.sample(range(200), generator.randint(1, 120))]
        judged = generator.sample(range(200), generator.randint(1, 30))
        qrels[f"q{number}"] = {f"p{index}": generator.choice(grades) for index in judged}
        grades_here = qrels[f"q{number}"]
        run[f"q{number}"] = {
            passage: generator.randint(0, 60) / 4 + 4 * max(grades_here.get(passage, 0), 0) for passage in passages
        }
    return qrels, run


def record(name, qrels, run):
    asked = {"recip_rank"} | {f"ndcg_cut.{k}" for k in (3, 10)} | {f"recall.{k}" for k in CUTOFFS}
    evaluated = pytrec_eval.RelevanceEvaluator(qrels, asked).evaluate(run)
    per_query = {
        query: {
            "nDCG@3": values["ndcg_cut_3"],
            "nDCG@10": values["ndcg_cut_10"],
            "MRR@10": values["recip_rank"] if values["recip_rank"] >= 1 / 10 else 0.0,
            "MRR@1000": values["recip_rank"],
            **{f"recall@{k}": values[f"recall_{k}"] for k in CUTOFFS},
        }
        for query, values in evaluated.items()
    }
    answerable = {query: judged for query, judged in qrels.items() if max(judged.values()) > 0}
    means = ir_measures.calc_aggregate(list(MEASURES.values()), answerable, run)
    return {
        "name": name,
        "qrels": qrels,
        "run": run,
        "per_query": per_query,
        "means": {name: means[measure] for name, measure in MEASURES.items()},
    }


def main():
    generator = random.Random(SEED)
    cases = [
        record("by hand", *by_hand()),
        record("binary", *drawn(generator, [0, 1])),
        record("graded", *drawn(generator, [-1, 0, 0, 1, 2, 3])),
    ]
    OUT.write_text(json.dumps({"cases": cases}, separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8")
    print(OUT, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
