#!/usr/bin/env python3
"""Records the vectors of `sentence-transformers` for small random models, in folders as it saves them.

Needs torch, transformers, sentence-transformers, tokenizers, onnx, onnxscript and onnxruntime, which set-up does not
install. Run it from the root of the checkout, with OMP_NUM_THREADS=1:

    record_sentence_transformers.py     makes tests/golden/sentence-transformers/

Each folder holds what the library saves, with an ONNX file instead of the weights: a BERT with prompts and unit
vectors, also with dynamic quantisation; an XLM-RoBERTa in the layout of version 5 and with weights outside the ONNX
file; a ModernBERT with a dense layer; a Qwen3 with an instruction, a token that ends every text and shorter vectors.
"""

import io
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

import numpy
import onnx
import torch
import transformers
from onnxruntime.quantization import QuantType, quantize_dynamic
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from provision import bert  # noqa: E402

GOLDEN = Path("tests/golden/sentence-transformers")
HIDDEN = 8
# The number of texts whose vectors as documents are recorded too.
DOCUMENTS = 72
WORDS = ("the a of in is and what which who where city river capital country largest through sea symbol number war "
         "peace king lake new first book language year century").split()
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SMALL = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
         "initializer_range": 0.4}


def texts():
    """Returns 200 texts: words, other scripts, white space, names of special tokens, long words and long texts."""
    chance = random.Random(7)
    made = ["", " ", "\t\n", "\r\n", "a", "?", "ß", "É", "İstanbul", "Ångström", "co\u00adoperate", "zero\u200bwidth",
            "中文", "東京は大きい", "한국어", "สวัสดี", "नमस्ते", "שלום", "مرحبا", "🦀", "🏔️ the lake", "👩‍👩‍👧",
            "e\u0301 and \u00e9", "\u0000", "\ufffd", "\ufeffthe city", "a\u00a0b", "x" * 100, "x" * 101, "y" * 3000,
            "[CLS]", "[SEP] the [PAD]", "[MASK]", "</s>", "<s>the</s>", "<pad>", "<|endoftext|>", "<|im_end|> war",
            "[cls]", "query: the city", "passage: the city", "the  city", " the city", "the city ", "THE CITY",
            "The City!", "the-city", "the_city", "don't", "U.S.A.", "C++", "1,000.50", "0x1F", "a/b\\c", "\"quoted\"",
            "tab\tseparated", "line\nbreak", "line\r\nbreak", "line\u2028separator", "ﬁne", "①②③", "½", "ﷺ", "𝔸𝕓",
            "\u0301", "a" + "\u0301" * 20, "…", "—", "the " * 60, "what " * 23, "word " * 22, "7 " * 40, "é" * 60]
    while len(made) < 200:
        words = [chance.choice(WORDS) for _ in range(chance.choice((1, 2, 3, 5, 8, 13, 21, 40)))]
        if chance.random() < 0.4:
            words[chance.randrange(len(words))] = "".join(chance.choice(LETTERS) for _ in range(chance.randint(1, 9)))
        if chance.random() < 0.2:
            words[0] = words[0].title()
        made.append(" ".join(words) + chance.choice(("", "", ".", "?", " !")))
    return made


def word_pieces():
    vocabulary = SPECIALS + list(".,?!':-") + list(LETTERS) + ["##" + letter for letter in LETTERS]
    vocabulary += ["query", "passage"] + [word for word in WORDS if word not in LETTERS]
    ids = {token: number for number, token in enumerate(vocabulary)}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    names = {name: f"[{short}]" for name, short in
             [("pad_token", "PAD"), ("unk_token", "UNK"), ("cls_token", "CLS"), ("sep_token", "SEP"),
              ("mask_token", "MASK")]}
    return made, len(vocabulary), names


def sentence_pieces():
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -5.0) for letter in LETTERS + ".,?!':-éß"] + [("▁" + word, -3.0) for word in WORDS]
    return [*pieces, ("<mask>", 0.0)]


def byte_pieces():
    ids = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("a", "n"), ("Ġ", "c"), ("e", "r")]
    for left, right in merges:
        ids[left + right] = len(ids)
    made = Tokenizer(models.BPE(vocab=ids, merges=merges))
    made.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    end = "<|endoftext|>"
    # As in the tokenizer.json of Qwen3-Embedding: the post-processor ends every text with the padding token.
    made.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"$A {end}", pair=f"$A $B {end}",
                                      special_tokens=[(end, made.token_to_id(end))]),
    ])
    return made, made.get_vocab_size()


def export(model, inputs, path, external=False):
    """Writes the graph of a model with free sizes, by torch's exporter."""
    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, position_ids=None):
            more = {} if position_ids is None else {"position_ids": position_ids, "use_cache": False}
            return self.model(input_ids=input_ids, attention_mask=attention_mask, **more).last_hidden_state

    ids = torch.randint(5, 60, (2, 7))
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids),
               "position_ids": torch.arange(7).expand(2, 7).contiguous()}
    free = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("tokens", min=2, max=40)}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.onnx"
        torch.onnx.export(Tokens(), kwargs={name: example[name] for name in inputs}, f=str(made), dynamo=True,
                          input_names=inputs, output_names=["last_hidden_state"], external_data=False,
                          dynamic_shapes={name: free for name in inputs})
        graph = onnx.load(made)
    graph.metadata_props.clear()
    del graph.graph.value_info[:]
    del graph.functions[:]
    for part in [graph.graph, *graph.graph.node, *graph.graph.initializer, *graph.graph.input, *graph.graph.output]:
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            part.metadata_props.clear()
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(graph, path, save_as_external_data=external, location=path.name + ".data", size_threshold=256)


def transformer(config, tokenizer, max_tokens, build=transformers.AutoModel.from_config):
    """Returns a Transformer module of a random model."""
    with tempfile.TemporaryDirectory() as folder:
        build(config).eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return Transformer(folder, processor_kwargs={"model_max_length": max_tokens},
                           model_kwargs={"attn_implementation": "eager"})


def save(name, model):
    """Saves the folder without weights, and the vectors of all texts as query and as document."""
    folder = GOLDEN / name
    model.eval()
    model.save_pretrained(str(folder), create_model_card=False)
    for unneeded in ["README.md", "model.safetensors", "sparse.json"]:
        (folder / unneeded).unlink(missing_ok=True)
    queries = model.encode_query(texts(), batch_size=1)
    documents = model.encode_document(texts()[:DOCUMENTS], batch_size=1)
    together = model.encode_query(texts(), batch_size=32)
    print(name, queries.shape, "alone and together:", numpy.abs(together - queries).max())
    numpy.concatenate([queries, documents]).astype("<f4").tofile(folder / "vectors.f32")
    return folder


def record_bert():
    made, size, names = word_pieces()
    tokenizer = transformers.BertTokenizer(vocab=made.get_vocab(), model_max_length=24, **names)
    config = transformers.BertConfig(vocab_size=size, max_position_embeddings=24, **SMALL)
    first = transformer(config, tokenizer, 24, lambda config: transformers.BertModel(config, add_pooling_layer=False))
    model = SentenceTransformer(modules=[first, Pooling(HIDDEN, "mean"), Normalize()],
                                prompts={"query": "query: ", "document": "passage: "})
    folder = save("bert", model)
    (folder / "onnx").mkdir()
    weights = {name: tensor.contiguous() for name, tensor in first.model.state_dict().items()}
    from safetensors.torch import save as save_weights
    with open(folder / "onnx/model.onnx", "wb") as out:
        bert.export(first.model.config.to_dict(), io.BytesIO(save_weights(weights)), out)
    quantize_dynamic(folder / "onnx/model.onnx", folder / "onnx/model_quantized.onnx", weight_type=QuantType.QInt8)
    return first


def record_variants(first):
    """Records some vectors for every pooling of the same BERT: modules.json and its folders, and two roles."""
    cases = {mode: (mode, True) for mode in Pooling.POOLING_MODES}
    cases |= {mode + " without the prompt": (mode, False) for mode in Pooling.POOLING_MODES}
    cases["three poolings"] = (("cls", "mean", "max"), False)
    recorded = []
    for name, (mode, include) in cases.items():
        model = SentenceTransformer(modules=[first, Pooling(HIDDEN, mode, include_prompt=include)],
                                    prompts={"query": "what is the city? ", "passage": "never used"}).eval()
        recorded.append((name, model))
    odd = SentenceTransformer(modules=[first, Pooling(HIDDEN, "mean"), Normalize()], default_prompt_name="other",
                              prompts={"other": "the other: ", "query": "", "document": ""}, truncate_dim=5).eval()
    recorded.append(("truncated after the norm", odd))
    chosen = texts()[:60:10] + texts()[90:120:10]
    variants = []
    for name, model in recorded:
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder, create_model_card=False)
            paths = [*Path(folder).glob("*/config.json"), Path(folder) / "modules.json",
                     Path(folder) / "config_sentence_transformers.json"]
            files = {str(path.relative_to(folder)): json.loads(path.read_text()) for path in sorted(paths)}
        vectors = [[[round(float(value), 7) for value in vector] for vector in method(chosen, batch_size=1)]
                   for method in (model.encode_query, model.encode_document)]
        variants.append({"name": name, "files": files, "vectors": vectors})
    write_json("variants.json", {"texts": chosen, "variants": variants})


def record_xlm_roberta():
    tokenizer = transformers.XLMRobertaTokenizer(vocab=sentence_pieces(), model_max_length=22)
    config = transformers.XLMRobertaConfig(vocab_size=len(sentence_pieces()), max_position_embeddings=24, pad_token_id=1,
                                           type_vocab_size=1, **SMALL)
    first = transformer(config, tokenizer, 22)
    norm = LayerNorm(HIDDEN)
    torch.nn.init.uniform_(norm.norm.weight, 0.5, 2.0)
    torch.nn.init.uniform_(norm.norm.bias, -1.0, 1.0)
    folder = save("xlm-roberta", SentenceTransformer(modules=[first, Pooling(HIDDEN, "mean"), norm]))
    export(first.model, ["input_ids", "attention_mask"], folder / "onnx/model.onnx", external=True)
    old_layout(folder, 22)


def old_layout(folder, max_tokens):
    """Rewrites the files of a folder as sentence-transformers 5.2 saves them, whose values 6.2 reads to the same."""
    types = {"Transformer": "", "Pooling": "1_Pooling", "LayerNorm": "2_LayerNorm"}
    modules = [{"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
               for number, (kind, path) in enumerate(types.items())]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2))
    modes = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    pooling = {"word_embedding_dimension": HIDDEN} | {f"pooling_mode_{mode}": mode == "mean_tokens" for mode in modes}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling | {"include_prompt": True}, indent=4))
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": max_tokens, "do_lower_case": False}, indent=4))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"model_max_length": 512}, indent=2))


def record_modernbert():
    made, size, names = word_pieces()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=[
        "input_ids", "attention_mask"], **names)
    config = transformers.ModernBertConfig(
        vocab_size=size, max_position_embeddings=32, local_attention=8, global_attn_every_n_layers=2, pad_token_id=0,
        cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3, reference_compile=False, **SMALL)
    first = transformer(config, tokenizer, 32)
    dense = Dense(HIDDEN, 6, activation_function=torch.nn.GELU())
    folder = save("modernbert", SentenceTransformer(modules=[first, Pooling(HIDDEN, "cls"), dense],
                                                    prompts={"query": "search: "}, similarity_fn_name="dot"))
    export(first.model, ["input_ids", "attention_mask"], folder / "onnx/model.onnx")


def record_qwen3():
    made, size = byte_pieces()
    end = "<|endoftext|>"
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token=end, eos_token="<|im_end|>",
                                                     padding_side="left")
    config = transformers.Qwen3Config(vocab_size=size, max_position_embeddings=40, head_dim=8, num_key_value_heads=1,
                                      pad_token_id=None, bos_token_id=None, eos_token_id=None, **SMALL)
    first = transformer(config, tokenizer, 40)
    instruction = "Instruct: find the city\nQuery:"
    model = SentenceTransformer(modules=[first, Pooling(HIDDEN, "lasttoken"), Normalize()],
                                prompts={"query": instruction, "document": ""})
    folder = save("qwen3", model)
    export(first.model, ["input_ids", "attention_mask", "position_ids"], folder / "onnx/model.onnx")


def write_json(name, value):
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    (GOLDEN / name).write_text(text + "\n", encoding="utf-8")


def main():
    shutil.rmtree(GOLDEN, ignore_errors=True)
    GOLDEN.mkdir(parents=True)
    torch.manual_seed(31)
    write_json("texts.json", texts())
    record_variants(record_bert())
    record_xlm_roberta()
    record_modernbert()
    record_qwen3()


if __name__ == "__main__":
    main()
