#!/usr/bin/env bash
# transformers 5.24.0: one named template in additional_chat_templates/ makes the chat_template of
# tokenizer_config.json disappear. Without that file the tokenizer renders the conversation; with it, it refuses to
# choose, although the folder still holds the configured template. Fails if the behaviour changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3 jinja2==3.1.6
cat >"$work/run.py" <<'PYTHON'
import json, sys
from pathlib import Path
import tokenizers, transformers
from transformers import AutoTokenizer

folder = Path(sys.argv[1])
folder.mkdir()
model = tokenizers.models.WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>")
tokenizers.Tokenizer(model).save(str(folder / "tokenizer.json"))
config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "chat_template": "configured"}
(folder / "tokenizer_config.json").write_text(json.dumps(config))

def rendered():
    try:
        chat = [{"role": "user", "content": "x"}]
        return AutoTokenizer.from_pretrained(str(folder)).apply_chat_template(chat, tokenize=False)
    except ValueError as error:
        return f"ValueError: {error}"

before = rendered()
(folder / "additional_chat_templates").mkdir()
(folder / "additional_chat_templates" / "rag.jinja").write_text("named")
after = rendered()
print("transformers", transformers.__version__)
print("chat_template of tokenizer_config.json alone:", before)
print("with additional_chat_templates/rag.jinja beside it:", after)
assert before == "configured", before
assert "no default specified" in after and "['rag']" in after, after
PYTHON
"$work/venv/bin/python" "$work/run.py" "$work/model" 2>/dev/null
