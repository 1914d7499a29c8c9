#!/usr/bin/env python3
"""Makes episodes, and plays them in a batch-synchronous loop over transformers.

    rollout_peers.py scripts MODEL DATA QUESTIONS SAMPLES      prints episodes with their tokens
    rollout_peers.py synchronous MODEL RECORD URL THREADS      prints a line of JSON
    rollout_peers.py decode MODEL SEQUENCES THREADS            prints a line of JSON

The loop is that of Search-R1's reference. Every turn reads all contexts again from their first token, in one padded
batch. The batch runs until its longest turn has ended, then one request sends all searches. As in our own benchmark, a
token is drawn from the model's distribution and then replaced by the given token of the episode.
"""

import json
import os
import pathlib
import random
import sys
import time
import urllib.request

TEMPLATE = (
    "Work out the answer to the question at the end. Whenever something new is known, first think about it "
    "between <think> and </think>. If a fact is missing, ask the search engine by writing <search> query "
    "</search>; what it finds is then shown between <information> and </information>. There is no need to save "
    "searches: ask again as often as it helps. As soon as nothing is missing, write the answer alone, without "
    "explanations, between <answer> and </answer>, like this: <answer> Beijing </answer>. Question: {}\n"
)
PASSAGES = 3
PROMPT_TOKENS, DECODE_TOKENS = 128, 64


def scripts(model, data, questions, samples):
    """Returns episodes with real questions and words: thoughts of 5 to 80 words, 1 to 3 searches, an answer."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(pathlib.Path(model) / "tokenizer.json"))
    lines = (pathlib.Path(data) / "test.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [json.loads(lines[index * len(lines) // questions]) for index in range(questions)]
    with open(pathlib.Path(data) / "corpus.jsonl", encoding="utf-8") as file:
        words = " ".join(json.loads(next(file))["contents"] for _ in range(200)).split()
    draw = random.Random(1)

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    def thought():
        start = draw.randrange(len(words) - 100)
        return f"<think> {' '.join(words[start:start + draw.randint(5, 80)])} </think>\n"

    made = []
    for prompt, record in enumerate(asked):
        for sample in range(samples):
            titles = [gold.split(":")[-1] for gold in record["gold_ids"]]
            queries = [record["question"], *titles, *titles][: draw.choice([1, 1, 2, 2, 3])]
            turns = [encode(f"{thought()}<search> {query} </search>") for query in queries]
            turns.append(encode(f"{thought()}<answer> {record['golden_answers'][0]} </answer>"))
            text = TEMPLATE.format(record["question"])
            made.append({"prompt": prompt, "sample": sample, "prompt_ids": encode(text), "turns": turns})
    return made


class Model:
    """A model that reads padded batches and decodes one token per step for all rows."""

    def __init__(self, folder, threads):
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self.torch = torch
        # Our own program reads the same variable.
        self.device = os.environ.get("BENCH_DEVICE", "cpu")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval().to(self.device)

    def draw(self, logits):
        probabilities = self.torch.softmax(logits[:, -1].float(), dim=-1)
        # Reading the drawn tokens waits for the device.
        return self.torch.multinomial(probabilities, 1).tolist()

    def read(self, contexts):
        """Runs a pass over left-padded contexts and keeps its cache for `decode_step`."""
        torch = self.torch
        longest = max(map(len, contexts))
        ids = torch.tensor([[0] * (longest - len(context)) + context for context in contexts], device=self.device)
        self.mask = torch.tensor([[0] * (longest - len(context)) + [1] * len(context) for context in contexts],
                                 device=self.device)
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        output = self.model(input_ids=ids, attention_mask=self.mask, position_ids=positions, use_cache=True,
                            logits_to_keep=1)
        self.cache = output.past_key_values
        self.position = positions[:, -1:]
        self.draw(output.logits)

    def decode_step(self, tokens):
        torch = self.torch
        self.mask = torch.cat([self.mask, torch.ones(len(tokens), 1, dtype=self.mask.dtype, device=self.device)], dim=1)
        self.position = self.position + 1
        output = self.model(input_ids=torch.tensor(tokens, device=self.device).unsqueeze(1), attention_mask=self.mask,
                            position_ids=self.position, past_key_values=self.cache, use_cache=True)
        self.draw(output.logits)


def search(url, queries):
    body = json.dumps({"queries": queries, "topk": PASSAGES, "return_scores": True}).encode()
    request = urllib.request.Request(f"{url}/retrieve", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        results = json.load(answer)["result"]
    assert len(results) == len(queries)


def synchronous(folder, record, url, threads):
    recorded = json.loads(pathlib.Path(record).read_text())
    model = Model(folder, threads)
    contexts = [[] for _ in recorded]
    with model.torch.inference_mode():
        model.read([[1] * 16] * 4)
        started = time.monotonic()
        for turn in range(max(len(episode["turns"]) for episode in recorded)):
            active = [row for row, episode in enumerate(recorded) if turn < len(episode["turns"])]
            turns = [recorded[row]["turns"][turn] for row in active]
            for row, part in zip(active, turns):
                contexts[row] += part["append"]
            model.read([contexts[row] for row in active])
            for step in range(max(len(part["sampled"]) for part in turns) - 1):
                # Rows that have ended stay in the batch until all have ended.
                model.decode_step([part["sampled"][min(step, len(part["sampled"]) - 1)] for part in turns])
            for row, part in zip(active, turns):
                contexts[row] += part["sampled"]
            if queries := [part["query"] for part in turns if part["query"]]:
                search(url, queries)
        seconds = time.monotonic() - started
    return {"seconds": seconds, "trajectories": len(recorded)}


def decode(folder, sequences, threads):
    model = Model(folder, threads)

    def token(sequence, position):
        return (sequence * 7919 + position * 104_729) % 40_000 + 100

    with model.torch.inference_mode():
        model.read([[1] * 16] * 4)
        started = time.monotonic()
        model.read([[token(row + 1, position) for position in range(PROMPT_TOKENS)] for row in range(sequences)])
        prefill = time.monotonic() - started
        started = time.monotonic()
        for position in range(DECODE_TOKENS - 1):
            model.decode_step([token(row, position + 1) for row in range(sequences)])
        seconds = time.monotonic() - started
    return {"tokens_per_s": sequences * (DECODE_TOKENS - 1) / seconds,
            "prefill_tokens_per_s": sequences * PROMPT_TOKENS / prefill}


def main():
    match sys.argv[1:]:
        case ["scripts", model, data, questions, samples]:
            result = scripts(model, data, int(questions), int(samples))
        case ["synchronous", model, record, url, threads]:
            result = synchronous(model, record, url, int(threads))
        case ["decode", model, sequences, threads]:
            result = decode(model, int(sequences), int(threads))
        case _:
            sys.exit(__doc__)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
