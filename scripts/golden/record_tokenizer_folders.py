#!/usr/bin/env python3
"""Records the token ids of small tokenizer folders, as `transformers` reads them.

Needs transformers 5.24.0 and tokenizers 0.23.3, which set-up does not install. Run it from the root of the checkout,
without a network:

    record_tokenizer_folders.py      makes tests/golden/tokenizer-folders.json

Each folder is one of two tokenizers with changed keys of tokenizer.json, and other files. The tokenizers are trained on
the sentences below, so they do not depend on chance.
"""

import base64
import copy
import json
import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import tokenizers  # noqa: E402
import transformers  # noqa: E402
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers  # noqa: E402
from tokenizers import processors, trainers  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

GOLDEN = Path("tests/golden/tokenizer-folders.json")

CORPUS = [
    "The capital of France is Paris, and the river in Paris is the Seine.",
    "Who wrote the play? In 1601 the author wrote it; 1601 and 2024 are years.",
    "We'll see the sea, she sells it, they've 12345 shells and 67890 more of them.",
    "  two  spaces\n\nand lines\n and \ttabs, don't they?  the the the  ",
]
TEXTS = [
    "The capital of France is",
    " leading and  double   spaces \n\n\nlines",
    "don't WE'LL in 12345 of 1601, 7 88",
    "<|start|>user\nWho <|tool|> wrote<|end|> it? <s>Paris</s> <pad> <image> <extra> [x]",
    "e\u0301 \u00e9 日本 🙂 ½²",
    "the the the river in Paris is the Seine, and the river in Paris is the Seine",
]

# The folder's files by name: the base, keys to change in tokenizer.json (null removes nothing), other files.
SPECIAL = [{"id": 0, "content": "<|start|>", "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True},
           {"id": 1, "content": "<|end|>", "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True}]
TRUNCATION = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
PADDING = {"strategy": {"Fixed": 40}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 5,
           "pad_type_id": 0, "pad_token": "<pad>"}


def token(content, **properties):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": True} | properties


def cases():
    """Yields the name, the base, the changes of tokenizer.json and the other files of each folder."""
    eos = {"eos_token": "<|end|>"}
    bare = {"tokenizer_class": "PreTrainedTokenizerFast"} | eos
    yield "plain", "bytes", {}, {"tokenizer_config.json": bare}
    yield "truncation", "bytes", {"truncation": TRUNCATION}, {"tokenizer_config.json": bare}
    yield "padding", "bytes", {"padding": PADDING}, {"tokenizer_config.json": bare}
    yield "truncation and padding", "bytes", {"truncation": TRUNCATION, "padding": PADDING}, {
        "tokenizer_config.json": bare, "config.json": {"model_type": "llama"}}
    for model_type in [None, "llama", "qwen2", "qwen3", "mistral", "smollm3"]:
        for name in [None, "PreTrainedTokenizerFast", "TokenizersBackend", "LlamaTokenizerFast", "GPT2Tokenizer",
                     "Qwen2Tokenizer"]:
            config = {"tokenizer_class": name} if name else {}
            files = {"tokenizer_config.json": config | eos}
            if model_type:
                files["config.json"] = {"model_type": model_type}
            yield f"class {name} of {model_type}", "bytes", {}, files
    yield "class in config.json", "bytes", {}, {
        "tokenizer_config.json": eos, "config.json": {"model_type": "llama", "tokenizer_class": "GPT2Tokenizer"}}
    yield "prefix space of GPT-2", "bytes", {}, {
        "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}}
    yield "prefix space of Qwen2", "bytes", {}, {
        "tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": True}}
    yield "prefix space of a file", "bytes", {}, {"tokenizer_config.json": bare | {"add_prefix_space": True}}
    llama = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    for model_type in ["llama", "mistral", "qwen3"]:
        yield f"Llama 2 of {model_type}", "metaspace", {}, {
            "tokenizer_config.json": llama, "config.json": {"model_type": model_type}}
    for key, values in {"legacy": [True, False, None], "add_prefix_space": [True, False, None]}.items():
        for value in values:
            yield f"Llama 2 with {key} {value}", "metaspace", {}, {
                "tokenizer_config.json": llama | {key: value}, "config.json": {"model_type": "llama"}}
    yield "Llama 2 as a file", "metaspace", {}, {
        "tokenizer_config.json": llama | {"tokenizer_class": "PreTrainedTokenizerFast"}}
    yield "flags of the first token", "bytes", {}, {
        "tokenizer_config.json": bare | {"add_bos_token": True, "add_eos_token": True, "bos_token": "<|start|>"}}
    for name in ["PreTrainedTokenizerFast", "Qwen2Tokenizer", "GPT2Tokenizer"]:
        kind = {"tokenizer_class": name} | eos
        yield f"extra tokens as a list, {name}", "bytes", {}, {
            "tokenizer_config.json": kind | {"extra_special_tokens": ["<|tool|>", "<extra>"]}}
        yield f"extra tokens as an object, {name}", "bytes", {}, {
            "tokenizer_config.json": kind | {"extra_special_tokens": {"tool_token": "<|tool|>"}}}
        yield f"additional tokens, {name}", "bytes", {}, {
            "tokenizer_config.json": kind | {"additional_special_tokens": ["<|tool|>", "<|end|>"]}}
        yield f"tokens by name, {name}", "bytes", {}, {
            "tokenizer_config.json": kind | {"image_token": "<image>", "pad_token": "<pad>"}}
        yield f"added tokens by id, {name}", "bytes", {}, {"tokenizer_config.json": kind | {
            "added_tokens_decoder": {"0": token("<|start|>"), "1": token("<|end|>", lstrip=True),
                                     "900": token("<|tool|>"), "901": token("<extra>", special=False)}}}
        yield f"added tokens by id without those of the file, {name}", "bytes", {}, {
            "tokenizer_config.json": kind | {"added_tokens_decoder": {"900": token("<|tool|>")}}}
        yield f"special_tokens_map.json, {name}", "bytes", {}, {"tokenizer_config.json": kind,
            "special_tokens_map.json": {"pad_token": {"content": "<pad>", "lstrip": True, "normalized": False,
                                                       "rstrip": False, "single_word": False},
                                        "additional_special_tokens": ["<|tool|>"]}}
        yield f"special_tokens_map.json beside added tokens, {name}", "bytes", {}, {
            "tokenizer_config.json": kind | {"added_tokens_decoder": {"1": token("<|end|>")}},
            "special_tokens_map.json": {"pad_token": "<pad>"}}
        yield f"added_tokens.json, {name}", "bytes", {}, {"tokenizer_config.json": kind | {"pad_token": "<pad>"},
            "added_tokens.json": {"<pad>": 903, "<extra>": 904}}
    yield "a named token of the vocabulary", "bytes", {}, {
        "tokenizer_config.json": bare | {"additional_special_tokens": ["the"]}}
    yield "a normalized added token", "bytes", {"normalizer": {"type": "Lowercase"}}, {
        "tokenizer_config.json": bare | {"added_tokens_decoder": {"0": token("<|start|>"), "1": token("<|end|>"),
            "700": token("PARIS", normalized=True, special=False)}}}
    yield "a name that is null", "bytes", {}, {
        "tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer", "unk_token": None, "pad_token": None} | eos}


def component_cases():
    """Yields a folder for every kind of part that tokenizer.json can have."""
    sea = tokenizers.Regex("sea")
    kinds = {
        "normalizer": [
            normalizers.BertNormalizer(), normalizers.ByteLevel(), normalizers.Lowercase(), normalizers.NFC(),
            normalizers.NFD(), normalizers.NFKC(), normalizers.NFKD(), normalizers.Nmt(), normalizers.Prepend("_"),
            normalizers.Replace(sea, "lake"), normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents()]),
            normalizers.Strip(left=True, right=True), normalizers.StripAccents(),
        ],
        "pre_tokenizer": [
            pre_tokenizers.BertPreTokenizer(), pre_tokenizers.ByteLevel(add_prefix_space=True),
            pre_tokenizers.CharDelimiterSplit("e"), pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.FixedLength(3), pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation("contiguous"),
            pre_tokenizers.Sequence([pre_tokenizers.Split(sea, "removed"), pre_tokenizers.ByteLevel(False)]),
            pre_tokenizers.Split(sea, "merged_with_next"), pre_tokenizers.UnicodeScripts(),
            pre_tokenizers.Whitespace(), pre_tokenizers.WhitespaceSplit(),
        ],
        "decoder": [
            decoders.BPEDecoder(), decoders.ByteFallback(), decoders.ByteLevel(), decoders.CTC("t", " ", True),
            decoders.Fuse(), decoders.Metaspace(), decoders.Replace(sea, "lake"),
            decoders.Sequence([decoders.Fuse(), decoders.Strip("T", 1, 0)]), decoders.Strip("T", 1, 0),
            decoders.WordPiece("th", True),
        ],
        "post_processor": [
            processors.BertProcessing(("<|end|>", 1), ("<|start|>", 0)), processors.ByteLevel(trim_offsets=True),
            processors.RobertaProcessing(("<|end|>", 1), ("<|start|>", 0)),
            processors.Sequence([processors.ByteLevel(trim_offsets=False)]),
            processors.TemplateProcessing(single="<|start|> $A", special_tokens=[("<|start|>", 0)]),
        ],
    }
    names = {"normalizer": "normalizer", "pre_tokenizer": "pre_tokenizer", "decoder": "decoder",
             "post_processor": "post_processor"}
    files = {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}}
    for key, parts in kinds.items():
        for part in parts:
            tokenizer = Tokenizer(models.BPE())
            setattr(tokenizer, names[key], part)
            yield f"{key} {type(part).__name__}", "bytes", {key: json.loads(tokenizer.to_str())[key]}, files
    # A table without replacements: its length in bytes, and 256 empty nodes.
    table = base64.b64encode((1024).to_bytes(4, "little") + bytes(1024)).decode()
    precompiled = {"type": "Precompiled", "precompiled_charsmap": table}
    yield "normalizer Precompiled", "bytes", {"normalizer": precompiled}, files
    words = ["<unk>", "<|end|>", "the", "sea", "The", "##s", "is", "in", "▁the", "▁", "e", "h", "t"]
    numbered = {word: index for index, word in enumerate(words)}
    parts = {"added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": None}
    for model in [
        models.WordLevel(numbered, unk_token="<unk>"),
        models.WordPiece(numbered, unk_token="<unk>", max_input_chars_per_word=100),
        models.Unigram([(word, -1.0 - 0.1 * index) for index, word in enumerate(words)], unk_id=0),
    ]:
        written = json.loads(Tokenizer(model).to_str())["model"]
        yield f"model {type(model).__name__}", "bytes", parts | {"model": written}, files


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    # `Ġ7` and `ĠĠ` tell the classes apart.
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=340, special_tokens=["<|start|>", "<|end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return json.loads(tokenizer.to_str())


def metaspace():
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=360, special_tokens=special, show_progress=False))
    file = json.loads(tokenizer.to_str())
    file["added_tokens"] = file["added_tokens"][:3]
    return file


def record(folder, base, changes, files):
    (folder / "tokenizer.json").write_text(json.dumps(copy.deepcopy(base) | changes))
    for name, contents in files.items():
        (folder / name).write_text(json.dumps(contents))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = {"add_special_tokens": False}
    ids = [tokenizer(text, **plain)["input_ids"] for text in TEXTS]
    decoded = [tokenizer.decode(each) for each in ids]
    return type(tokenizer).__name__, {
        "ids": ids,
        "split": [tokenizer(text, split_special_tokens=True, **plain)["input_ids"] for text in TEXTS],
        # Null is the text itself.
        "decoded": [None if again == text else again for again, text in zip(decoded, TEXTS)],
    }


def main():
    bases = {"bytes": byte_level(), "metaspace": metaspace()}
    recorded, results = [], []
    for name, base, changes, files in [*cases(), *component_cases()]:
        with tempfile.TemporaryDirectory() as folder:
            kind, result = record(Path(folder), bases[base], changes, files)
        if result not in results:
            results.append(result)
        recorded.append({"name": name, "base": base, "changes": changes, "files": files, "class": kind,
                         "result": results.index(result)})

    def lines(values):
        return ",\n".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values)

    head = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__, "texts": TEXTS,
            "bases": bases}
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":"))[:-1]
    GOLDEN.write_text(f'{text},\n"results":[\n{lines(results)}\n],\n"cases":[\n{lines(recorded)}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
