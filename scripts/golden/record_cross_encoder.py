#!/usr/bin/env python3
"""Records the logits of `transformers` for two small cross-encoders, with one class and with two.

Needs torch, transformers, tokenizers, safetensors and numpy, which set-up does not install. Run it from the root of
the checkout, with OMP_NUM_THREADS=1:

    record_cross_encoder.py         makes tests/golden/cross-encoder-tiny-1/ and -2/

scripts/provision/bert.py writes the ONNX files from the same weights.
"""

import io
import json
import random
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from provision import bert  # noqa: E402

GOLDEN = Path("tests/golden")
MAX_TOKENS = 64
WORDS = ("the a of in is and what which who where city river painting metal country capital largest flows through "
         "sea oil symbol atomic number written by war peace born king queen mountain lake island town old new first "
         "last book author language people year century famous named after north south east west").split()
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def tokenizer():
    vocabulary = SPECIALS + list(".,?!'-") + list(LETTERS) + ["##" + letter for letter in LETTERS] + WORDS
    ids = {token: number for number, token in enumerate(vocabulary)}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=40))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    return made, len(vocabulary)


def pairs():
    """Returns pairs of query and passage in which neither, the passage, the query, or both are truncated."""
    chance = random.Random(5)

    def words(count):
        return " ".join(chance.choice(WORDS) for _ in range(count))

    sizes = [(3, 8), (5, 20), (8, 40), (4, 55), (6, 200), (30, 30), (31, 31), (90, 3), (90, 90), (1, 1)]
    made = [[words(query), words(passage)] for query, passage in sizes]
    made += [["", "the city"], ["what", ""], ["", ""], ["Größte Stadt?", "Zürich, 東京 — Ålesund."],
             ["who wrote War and Peace?", "War and Peace\nwritten by a famous author"]]
    return made


def record(classes, seed):
    folder = GOLDEN / f"cross-encoder-tiny-{classes}"
    folder.mkdir(parents=True, exist_ok=True)
    text_tokenizer, vocabulary = tokenizer()
    text_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=vocabulary, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=MAX_TOKENS, num_labels=classes, initializer_range=0.4,
    )
    model = transformers.BertForSequenceClassification(config).eval()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=text_tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
    )
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with open(folder / "model.onnx", "wb") as out:
        bert.export(config.to_dict(), io.BytesIO(save(weights)), out)
    logits = []
    for query, passage in pairs():
        # In a list, because the tokenizer treats a single empty passage as missing.
        inputs = fast([(query, passage)], truncation="longest_first", max_length=MAX_TOKENS, return_tensors="pt",
                      return_token_type_ids=True)
        with torch.no_grad():
            logits.append([round(value, 7) for value in model(**inputs).logits[0].tolist()])
    expected = {"max_tokens": MAX_TOKENS, "pairs": pairs(), "logits": logits}
    text = json.dumps(expected, ensure_ascii=False, separators=(",", ":"))
    (folder / "expected.json").write_text(text + "\n", encoding="utf-8")
    (folder / "reranker.toml").write_text(f"max_tokens = {MAX_TOKENS}\n", encoding="utf-8")


if __name__ == "__main__":
    record(1, seed=21)
    record(2, seed=22)
