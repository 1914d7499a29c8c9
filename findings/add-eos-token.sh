#!/usr/bin/env bash
# Shows that transformers 5.24.0 ignores add_eos_token and add_bos_token in tokenizer_config.json if the folder has a
# tokenizer.json, and drops both keys when it saves. Texts then silently lack the end token on which an embedding
# model with last-token pooling relies (e5-mistral's form). Version 4 obeyed the keys.
#
# Needs Python 3.10 or later and the package index. Installs into a temporary folder, and needs no torch.
# Exits with 0 if the behaviour is as described.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 tokenizers==0.23.3

"$folder/venv/bin/python" - "$folder/model" <<'PYTHON'
import json
import os
import sys

import tokenizers
import transformers
from tokenizers import Tokenizer, models, normalizers, processors
from transformers import AutoTokenizer

print("transformers", transformers.__version__, "tokenizers", tokenizers.__version__)
folder = sys.argv[1]
os.makedirs(folder)
# A Llama tokenizer with a small vocabulary: its own post-processor begins texts with <s> and does not end them.
vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4, "b": 5}
made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
made.add_special_tokens(["<unk>", "<s>", "</s>"])
made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
made.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
made.save(folder + "/tokenizer.json")
with open(folder + "/config.json", "w") as file:
    json.dump({"model_type": "mistral"}, file)

expected = [1, 3, 4, 5]
failed = False
for flags in ({}, {"add_eos_token": True}, {"add_bos_token": False, "add_eos_token": True}):
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    with open(folder + "/tokenizer_config.json", "w") as file:
        json.dump(config | flags, file)
    loaded = AutoTokenizer.from_pretrained(folder)
    ids = loaded("ab").input_ids
    loaded.save_pretrained(folder + "/saved")
    with open(folder + "/saved/tokenizer_config.json") as file:
        kept = sorted(key for key in json.load(file) if key.startswith("add_") and key.endswith("os_token"))
    print(f"{flags}: ids of \"ab\" {ids}, keys kept when saved: {kept}")
    failed |= ids != expected or kept != []
if failed:
    sys.exit("the behaviour has changed")
print("the keys change nothing: no text ends with </s> (2)")
PYTHON
