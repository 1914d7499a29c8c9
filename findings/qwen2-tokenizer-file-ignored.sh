#!/usr/bin/env bash
# transformers: `AutoTokenizer` does not split text as tokenizer.json says where config.json names the model type qwen2.
# It builds the tokenizer anew with Qwen2's own expression and normalizer and takes only vocabulary, merges and added
# tokens from the file, whatever `tokenizer_class` says. Other programs that read tokenizer.json (tokenizers, vLLM's and
# SGLang's fast paths, Rust) then see other token ids than transformers. Nothing is logged.
#
# Installs pinned packages into a temporary folder, and fails if the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'transformers==5.24.0' 'tokenizers==0.23.3'
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import sys
from pathlib import Path

import tokenizers
import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)])
tokenizer.train_from_iterator(["in 2024 and 2025", "123 456"] * 9, trainers.BpeTrainer(
    vocab_size=290, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False))
text = "in 2024"
print(f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}, text {text!r}")
expected = tokenizer.encode(text).ids
print("tokenizer.json by tokenizers:      ", expected)
found = {}
for model_type in ["llama", "qwen2"]:
    folder = Path(sys.argv[1], model_type)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}))
    read = AutoTokenizer.from_pretrained(folder)
    found[model_type] = read(text)["input_ids"]
    print(f"AutoTokenizer, model_type {model_type}: {type(read).__name__}", found[model_type])
assert found["llama"] == expected, "the file is used for llama"
assert found["qwen2"] != expected, "the behaviour has changed: the file is used for qwen2"
PYTHON
