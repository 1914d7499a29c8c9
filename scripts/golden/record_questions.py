#!/usr/bin/env python3
"""Records question files in the forms of Search-R1, veRL and SkyRL: tests/golden/questions.

The columns are those that these preparations write: Search-R1's scripts/data_process/nq_search.py,
veRL's examples/data_preprocess/preprocess_search_r1_dataset.py (through pandas), and SkyRL's searchr1_dataset.py. The
rows are our own. Needs pyarrow and pandas. Run it from the root of the checkout.
"""

from pathlib import Path

import pandas
import pyarrow
import pyarrow.parquet

FOLDER = Path("tests/golden/questions")
INSTRUCTION = (
    "Answer the given question. You must conduct reasoning inside <think> and </think> first. You can call a search "
    "engine by <search> query </search> and it will return results between <information> and </information>. Write the "
    "answer inside <answer> and </answer>. For example, <answer> Beijing </answer>. Question: "
)
ROWS = [
    ("train_0", "nq", "who wrote Hamlet?", ["Shakespeare", "William Shakespeare"]),
    ("train_1", "nq", "what is the theme of Question: Time?", ["politics"]),
    # The ids of two sources overlap in a merged file.
    ("train_0", "hotpotqa", "Are Lima and Quito capitals?", ["yes"]),
]


def search_r1(index, name, source, question, answers):
    """Returns a row with the columns of FlashRAG's sets and those that Search-R1 adds."""
    return {
        "id": name, "question": question, "golden_answers": answers, "data_source": source,
        "prompt": [{"role": "user", "content": INSTRUCTION + question + "\n"}], "ability": "fact-reasoning",
        "reward_model": {"style": "rule", "ground_truth": {"target": answers}},
        "extra_info": {"split": "train", "index": index},
    }


def verl(index, source, question, answers):
    """Returns a row as veRL makes it of Search-R1's."""
    tagged = "searchR1_" + source
    truth = {"target": answers}
    tools = {"search": {"create_kwargs": {"ground_truth": truth, "question": question, "data_source": tagged}}}
    return {
        "data_source": tagged,
        "prompt": [
            {"role": "system", "content": "You are a helpful and harmless assistant."},
            {"role": "user", "content": INSTRUCTION + question},
        ],
        "ability": "fact-reasoning",
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {
            "index": index, "need_tools_kwargs": True, "question": question, "split": "train", "tools_kwargs": tools,
        },
        "metadata": None,
    }


def skyrl(index, source, question, answers):
    """Returns veRL's row under the names of SkyRL."""
    row = verl(index, source, question, answers)
    row["reward_spec"] = row.pop("reward_model")
    row["env_class"] = "search"
    return row


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = [search_r1(index, *row) for index, row in enumerate(ROWS)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), FOLDER / "search_r1.parquet")
    # Without the mark at the end, as the raw questions of Natural Questions are.
    bare = [(source, question.rstrip("?"), answers) for _, source, question, answers in ROWS]
    for name, form in [("verl", verl), ("skyrl", skyrl)]:
        frame = pandas.DataFrame([form(index, *row) for index, row in enumerate(bare)])
        frame.to_parquet(FOLDER / f"{name}.parquet", index=False)


if __name__ == "__main__":
    main()
