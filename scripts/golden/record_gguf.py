#!/usr/bin/env python3
"""Writes small GGUF files of Llama 3, Qwen2 and Qwen3, and records how `transformers` reads them.

Needs torch 2.11.0, transformers 5.24.0, tokenizers 0.23.3 and gguf 0.19.0, which set-up does not install. Run it from
the root of the checkout, with OMP_NUM_THREADS=1 and without a network:

    record_gguf.py      makes tests/golden/gguf/

The models are random, with a fixed seed; the tokenizers are trained on the sentences of record_tokenizer_folders.py.
Query and key rows of Llama are reordered as llama.cpp's converter does. transformers skips `rope_freqs.weight`, so the
log-probs of Llama 3 are those of its reading of the weights with the scaling from which the tensor was computed.
"""

import hashlib
import json
import math
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import gguf  # noqa: E402
import numpy  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from record_policy import randomise  # noqa: E402
from record_tokenizer_folders import CORPUS  # noqa: E402

FOLDER = Path("tests/golden/gguf")
SPLITS = {
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                 r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
             r"|\s*[\r\n]+|\s+(?!\S)|\s+",
}
TEXTS = [
    "The capital of France is",
    " leading and  double   spaces \n\n\nlines\t1",
    "don't WE'LL in 12345 of 1601, 7 88  9",
    "<|start|>user\nWho <tool> wrote<|end|> it? <pad>",
    "\u00e9 日本 🙂 ½² don’t",
    "",
]
IDS = [5, 9, 3, 22, 41, 7, 30, 2, 17, 11, 60, 33, 8, 8, 21, 50, 13, 88, 120, 4]
SPECIAL = ["<|start|>", "<|end|>", "<pad>"]
USER = ["<tool>"]
SHARED = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
          "max_position_embeddings": 128, "eos_token_id": 1, "pad_token_id": 2}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}

# Name, seed, architecture, splitting, type of matrices, configuration.
FILES = [
    ("llama3", 71, "llama", "llama-bpe", gguf.GGMLQuantizationType.Q8_0, SHARED | {
        "num_key_value_heads": 1, "head_dim": 16, "rms_norm_eps": 1e-5, "bos_token_id": 0, "tie_word_embeddings": False,
        "rope_parameters": LLAMA3 | {"rope_theta": 500.0}}),
    ("llama-biases", 72, "llama", "smaug-bpe", gguf.GGMLQuantizationType.F16, SHARED | {
        "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-5, "bos_token_id": 0, "tie_word_embeddings": True,
        "attention_bias": True, "mlp_bias": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    ("qwen2", 73, "qwen2", "qwen2", gguf.GGMLQuantizationType.Q8_0, SHARED | {
        "num_key_value_heads": 1, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0,
                            "original_max_position_embeddings": 32}}),
    ("qwen3", 74, "qwen3", "qwen2", gguf.GGMLQuantizationType.Q8_0, SHARED | {
        "num_key_value_heads": 1, "head_dim": 128, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 1e6, "factor": 2.0}}),
]
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def tokenizer(split):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLITS[split]), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=319, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return json.loads(tokenizer.to_str())["model"]


def gguf_name(name):
    module, kind = name.rsplit(".", 1)
    if module.startswith("model.layers."):
        _, _, layer, part = module.split(".", 3)
        return f"blk.{layer}.{NAMES[part]}.{kind}"
    return f"{NAMES[module]}.{kind}"


def interleave(rows, heads):
    """Reorders rows of queries or keys, as `LlamaModel.permute` of llama.cpp's converter does."""
    shape = rows.shape
    return rows.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def rope_factors(config):
    """Computes the divisors of frequencies, as llama.cpp's converter does."""
    base, width, scaling = config.rope_parameters["rope_theta"], config.head_dim, config.rope_parameters
    frequencies = 1.0 / (base ** (torch.arange(0, width, 2, dtype=torch.float32) / width))
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    length = scaling["original_max_position_embeddings"]
    factors = []
    for frequency in frequencies:
        wavelength = 2 * math.pi / frequency
        if wavelength < length / high:
            factors.append(1)
        elif wavelength > length / low:
            factors.append(factor)
        else:
            smooth = (length / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return numpy.array(factors, dtype=numpy.float32)


def write_metadata(writer, name, config, split, vocabulary):
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_name(name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_vocab_size(config.vocab_size)
    scaling = config.rope_parameters
    if scaling["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(scaling["factor"])
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    if scaling["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])
    ordered = sorted(vocabulary["vocab"], key=vocabulary["vocab"].get) + USER
    kinds = [gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.USER_DEFINED if token in USER
             else gguf.TokenType.NORMAL for token in ordered]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(ordered)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in vocabulary["merges"]])
    if config.bos_token_id is not None:
        writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_pad_token_id(config.pad_token_id)
    writer.add_add_bos_token(name == "llama3")
    writer.add_chat_template("{{ messages[0].content }}" if name != "qwen3" else [
        {"name": "default", "template": "{{ messages[0].content }}"},
        {"name": "tool_use", "template": "{{ messages[0].role }}"}])


def write_file(path, name, seed, architecture, split, kind, arguments):
    vocabulary = tokenizer("qwen2" if split == "qwen2" else "llama-bpe")
    config = AutoConfig.for_model(architecture, vocab_size=len(vocabulary["vocab"]) + len(USER), **arguments)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    generator = torch.Generator().manual_seed(seed)
    randomise(model, generator)
    writer = gguf.GGUFWriter(path, architecture)
    write_metadata(writer, name, config, split, vocabulary)
    for parameter_name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        if architecture == "llama" and ".q_proj." in parameter_name:
            values = interleave(values, config.num_attention_heads)
        if architecture == "llama" and ".k_proj." in parameter_name:
            values = interleave(values, config.num_key_value_heads)
        values = numpy.ascontiguousarray(values)
        if values.ndim == 1:
            writer.add_tensor(gguf_name(parameter_name), values)
        else:
            writer.add_tensor(gguf_name(parameter_name), gguf.quantize(values, kind), raw_dtype=kind)
    if config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", rope_factors(config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return config, model


def record(path, config, original):
    read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    weights = read.state_dict()
    # transformers takes no biases from a file of Llama: the configuration that it makes has none.
    biases = {name: tensor for name, tensor in original.state_dict().items() if name not in weights}
    assert all(name.endswith(".bias") for name in biases), biases.keys()
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    model.load_state_dict(weights | biases)
    with torch.no_grad():
        log_probs = model(torch.tensor([IDS])).logits[0].log_softmax(-1)
    scored = log_probs[:-1].gather(1, torch.tensor(IDS[1:]).unsqueeze(1)).squeeze(1)
    kept = {name: tensor for name, tensor in (weights | biases).items()
            if name != "lm_head.weight" or not config.tie_word_embeddings}
    tokens = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return {
        "file": path.name,
        "tensors": {name: hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
                    for name, tensor in sorted(kept.items())},
        "rope": {key: value for key, value in config.rope_parameters.items()},
        "log_probs": [round(value, 7) for value in scored.tolist()],
        "token_ids": [tokens(text, add_special_tokens=False)["input_ids"] for text in TEXTS],
        "whole_ids": [tokens(text)["input_ids"] for text in TEXTS],
    }


def main():
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    recorded = []
    for name, *rest in FILES:
        path = FOLDER / f"{name}.gguf"
        config, model = write_file(path, name, *rest)
        recorded.append(record(path, config, model))
    head = {"transformers": transformers.__version__, "gguf": "0.19.0", "ids": IDS, "texts": TEXTS}
    cases = ",\n".join(json.dumps(case, ensure_ascii=False) for case in recorded)
    text = json.dumps(head, ensure_ascii=False)[:-1]
    (FOLDER / "expected.json").write_text(f'{text},\n"cases": [\n{cases}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
