#!/usr/bin/env python3
"""Records the prompts of question files as transformers makes them: tests/golden/prompts.

Search-R1's and veRL's loaders call `apply_chat_template` with `add_generation_prompt=True` on a row's messages, or take
the content of the first message if the tokenizer has no template, and encode without adding special tokens. The
tokenizers are small and trained on the rows themselves. Needs transformers, tokenizers and pyarrow. Run it from the root
of the checkout, after record_questions.py.
"""

import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pyarrow.parquet  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

FOLDER = Path("tests/golden/prompts")
QUESTIONS = Path("tests/golden/questions")
SPECIAL = ["<|start|>", "<|end|>"]
# As the template of Qwen2.5: a system message of its own if the row has none.
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|start|>system\nYou are a helpful assistant.<|end|>\n{% endif %}"
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
# As that of Llama 3: contents are trimmed.
TRIMMED = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n\n{{ message['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n\n{% endif %}"
)
MODELS = {"chat": TEMPLATE, "trimmed": TRIMMED, "base": None}
CASES = [("chat", "search_r1"), ("chat", "verl"), ("trimmed", "search_r1"), ("base", "search_r1")]


def rows(name):
    return pyarrow.parquet.read_table(QUESTIONS / f"{name}.parquet").to_pylist()


def write_tokenizer(name, template):
    """Trains a byte-level tokenizer on the contents and writes its folder."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    contents = [message["content"] for row in rows("search_r1") + rows("verl") for message in row["prompt"]]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False)
    tokenizer.train_from_iterator(contents, trainer)
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": SPECIAL[1], "clean_up_tokenization_spaces": False}
    if template:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return AutoTokenizer.from_pretrained(folder)


def main():
    made = {name: write_tokenizer(name, template) for name, template in MODELS.items()}
    expected = {}
    for name, file in CASES:
        tokenizer = made[name]
        recorded = []
        for row in rows(file):
            if tokenizer.chat_template:
                text = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
            else:
                text = row["prompt"][0]["content"]
            recorded.append({"text": text, "ids": tokenizer(text, add_special_tokens=False)["input_ids"]})
        expected[f"{name} {file}.parquet"] = recorded
    text = json.dumps(expected, ensure_ascii=False, separators=(",", ":"))
    (FOLDER / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
