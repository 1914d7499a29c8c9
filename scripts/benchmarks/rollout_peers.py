#!/usr/bin/env python3
"""Episodes to be played, and how a batch-synchronous loop over transformers plays them.

    rollout_peers.py scripts MODEL DATA QUESTIONS SAMPLES      episodes with their tokens, on stdout
    rollout_peers.py synchronous MODEL RECORD URL THREADS      a line of JSON
    rollout_peers.py decode MODEL SEQUENCES THREADS            a line of JSON

The loop is the one of Search-R1's reference: in every turn all contexts are read again from their first
token in one padded batch, the batch goes on until its longest turn has ended, then all searches are sent
in one request. As in our own engine, a token is drawn from the model's distribution and then replaced by
the one that the episode is known to have.
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
    """Real questions, real words: thoughts of 5 to 80 words, one to three searches, then an answer."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(pathlib.Path(model) / "tokenizer.json"))
    lines = (pathlib.Path(data) / "test.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [json.loads(lines[place * len(lines) // questions]) for place in range(questions)]
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
    """Padded batches, and one token more for all of them at a time."""

    def __init__(self, folder, threads):
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self.torch = torch
        # The same variable as that of our own program.
        self.device = os.environ.get("BENCH_DEVICE", "cpu")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval().to(self.device)

    def draw(self, logits):
        probabilities = self.torch.softmax(logits[:, -1].float(), dim=-1)
        # A device is waited for by asking what was drawn.
        return self.torch.multinomial(probabilities, 1).tolist()

    def read(self, contexts):
        """What a pass over left-padded contexts leaves behind."""
        torch = self.torch
        longest = max(map(len, contexts))
        ids = torch.tensor([[0] * (longest - len(one)) + one for one in contexts], device=self.device)
        self.mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in contexts],
                                 device=self.device)
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        found = self.model(input_ids=ids, attention_mask=self.mask, position_ids=positions, use_cache=True,
                           logits_to_keep=1)
        self.cache = found.past_key_values
        self.position = positions[:, -1:]
        self.draw(found.logits)

    def go_on(self, tokens):
        torch = self.torch
        self.mask = torch.cat([self.mask, torch.ones(len(tokens), 1, dtype=self.mask.dtype, device=self.device)], dim=1)
        self.position = self.position + 1
        found = self.model(input_ids=torch.tensor(tokens, device=self.device).unsqueeze(1), attention_mask=self.mask,
                           position_ids=self.position, past_key_values=self.cache, use_cache=True)
        self.draw(found.logits)


def search(url, queries):
    body = json.dumps({"queries": queries, "topk": PASSAGES, "return_scores": True}).encode()
    request = urllib.request.Request(f"{url}/retrieve", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        found = json.load(answer)["result"]
    assert len(found) == len(queries)


def synchronous(folder, record, url, threads):
    recorded = json.loads(pathlib.Path(record).read_text())
    model = Model(folder, threads)
    contexts = [[] for _ in recorded]
    with model.torch.inference_mode():
        model.read([[1] * 16] * 4)
        started = time.monotonic()
        for turn in range(max(len(one["turns"]) for one in recorded)):
            active = [place for place, one in enumerate(recorded) if turn < len(one["turns"])]
            turns = [recorded[place]["turns"][turn] for place in active]
            for place, one in zip(active, turns):
                contexts[place] += one["append"]
            model.read([contexts[place] for place in active])
            for step in range(max(len(one["sampled"]) for one in turns) - 1):
                # Who has ended is carried along until all have.
                model.go_on([one["sampled"][min(step, len(one["sampled"]) - 1)] for one in turns])
            for place, one in zip(active, turns):
                contexts[place] += one["sampled"]
            if queries := [one["query"] for one in turns if one["query"]]:
                search(url, queries)
        seconds = time.monotonic() - started
    return {"seconds": seconds, "trajectories": len(recorded)}


def decode(folder, sequences, threads):
    model = Model(folder, threads)

    def token(sequence, place):
        return (sequence * 7919 + place * 104_729) % 40_000 + 100

    with model.torch.inference_mode():
        model.read([[1] * 16] * 4)
        started = time.monotonic()
        model.read([[token(one + 1, place) for place in range(PROMPT_TOKENS)] for one in range(sequences)])
        prefill = time.monotonic() - started
        started = time.monotonic()
        for place in range(DECODE_TOKENS - 1):
            model.go_on([token(one, place + 1) for one in range(sequences)])
        seconds = time.monotonic() - started
    return {"tokens_per_s": sequences * (DECODE_TOKENS - 1) / seconds,
            "prefill_tokens_per_s": sequences * PROMPT_TOKENS / prefill}


def main():
    match sys.argv[1:]:
        case ["scripts", model, data, questions, samples]:
            found = scripts(model, data, int(questions), int(samples))
        case ["synchronous", model, record, url, threads]:
            found = synchronous(model, record, url, int(threads))
        case ["decode", model, sequences, threads]:
            found = decode(model, int(sequences), int(threads))
        case _:
            sys.exit(__doc__)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
