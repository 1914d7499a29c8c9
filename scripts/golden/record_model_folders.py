#!/usr/bin/env python3
"""Records what `transformers` computes from folders with odd keys in config.json, and the keys that it knows.

Needs torch 2.11.0 and transformers 5.24.0, which set-up does not install. Run it from the root of the checkout, with
OMP_NUM_THREADS=1 and without a network:

    record_model_folders.py      makes tests/golden/model-folders.json and tests/golden/transformers-keys.json

Each folder is a recorded checkpoint of tests/golden with a changed config.json, and in two cases with a head of its own.
"""

import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import tokenizers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerBase  # noqa: E402

GOLDEN = Path("tests/golden")
IDS = [5, 9, 3, 22, 41, 7, 30, 2, 17, 11, 60, 33, 8, 8, 21, 50, 13]
GREEDY_TOKENS = 6
FAMILIES = ["llama", "qwen2", "qwen3", "mistral", "smollm3"]

LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 300.0}

# Name, checkpoint, changed keys, removed keys, and what `lm_head.weight` holds.
CASES = [
    ("a head that differs", "llama-tiny-tied", {}, [], "reversed"),
    ("a head that is equal", "llama-tiny-tied", {}, [], "equal"),
    ("a head that differs in a sharded file", "qwen3-tiny", {}, [], "reversed"),
    ("original length at the top", "llama-tiny-llama3", {"original_max_position_embeddings": 16}, [], None),
    ("original length at the top, for yarn", "qwen3-tiny",
     {"rope_parameters": YARN | {"original_max_position_embeddings": 64}, "original_max_position_embeddings": 12}, [],
     None),
    ("original length at the top, unscaled", "llama-tiny-tied", {"original_max_position_embeddings": 16}, [], None),
    ("no original length", "llama-tiny-llama3", {"rope_parameters": LLAMA3}, [], None),
    ("yarn with a factor of null", "qwen3-tiny",
     {"rope_parameters": YARN | {"factor": None, "original_max_position_embeddings": 16}}, [], None),
    ("an empty rope_scaling", "llama-tiny-llama3", {"rope_scaling": {}}, [], None),
    ("a rope_scaling of null", "llama-tiny-llama3", {"rope_scaling": None}, [], None),
    ("rope_scaling beside rope_parameters", "llama-tiny-llama3",
     {"rope_scaling": {"type": "linear", "factor": 4.0}}, [], None),
    ("rope_scaling and rope_theta beside rope_parameters", "llama-tiny-llama3",
     {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "rope_theta": 700.0}, [], None),
    ("a base in rope_scaling", "llama-tiny-tied",
     {"rope_scaling": {"rope_type": "linear", "factor": 4.0, "rope_theta": 700.0}}, [], None),
    ("two bases", "llama-tiny-rope-parameters", {"rope_theta": 77.0}, [], None),
    ("the default base of smollm3", "smollm3-tiny", {}, ["rope_parameters"], None),
    ("an empty rope_parameters", "qwen2-tiny", {"rope_parameters": {}, "rope_theta": 50.0}, [], None),
    ("layer types of mistral", "mistral-tiny", {"layer_types": ["sliding_attention", "full_attention"]}, [], None),
    ("full layers of mistral", "mistral-tiny", {"layer_types": ["full_attention", "full_attention"]}, [], None),
    ("no window of mistral", "mistral-tiny", {"sliding_window": None}, [], None),
    ("layer types of smollm3 without the flag", "smollm3-tiny",
     {"layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
      "sliding_window": 5, "use_sliding_window": False}, [], None),
    ("a window of smollm3 without the flag", "smollm3-tiny",
     {"layer_types": None, "sliding_window": 5, "use_sliding_window": False}, [], None),
    ("the older name of full attention", "qwen2-tiny-window",
     {"layer_types": ["sliding_attention", "attention"]}, [], None),
    ("a window that is not used", "qwen2-tiny-window", {"use_sliding_window": False, "layer_types": None}, [], None),
    ("keys of generation", "llama-tiny-tied", {"temperature": 0.1, "top_k": 1, "repetition_penalty": 3.0}, [], None),
    ("keys of other families", "llama-tiny-tied",
     {"use_sliding_window": True, "max_window_layers": 0, "chunk_size_feed_forward": 2}, [], None),
    ("biases that the class does not have", "qwen2-tiny", {"attention_bias": False, "mlp_bias": True}, [], None),
    ("layers of llama by name", "llama-tiny-tied", {"layer_types": ["full_attention", "full_attention"]}, [], None),
    ("another name of silu", "mistral-tiny", {"hidden_act": "swish"}, [], None),
    ("causal", "qwen2-tiny", {"is_causal": True, "is_decoder": True, "tie_encoder_decoder": True}, [], None),
]


def write_folder(folder, checkpoint, changes, removed, head):
    source = GOLDEN / checkpoint
    config = json.loads((source / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in removed} | changes
    (folder / "config.json").write_text(json.dumps(config))
    if head is None:
        shutil.copy(source / "model.safetensors", folder)
        return
    tensors = load_file(source / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = (embedding.flip(0) if head == "reversed" else embedding).clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def compute(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    ids = list(IDS)
    with torch.no_grad():
        log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        scored = log_probs[:-1].gather(1, torch.tensor(ids[1:]).unsqueeze(1)).squeeze(1)
        for _ in range(GREEDY_TOKENS):
            ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
    return {"log_probs": [round(value, 7) for value in scored.tolist()], "greedy": ids[len(IDS):]}


def known_keys():
    """Returns the fields of the configuration classes with their defaults, and the keys of tokenizers."""
    families = {}
    for family in FAMILIES:
        fields = dataclasses.fields(AutoConfig.for_model(family))
        families[family] = {field.name: field.default for field in fields}
    # The arguments that the initialisation takes by name, and the attributes that it sets.
    tokenizer = PreTrainedTokenizerBase()
    named = set(tokenizer.SPECIAL_TOKENS_ATTRIBUTES) | {
        "additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens", "name_or_path",
        "processor_class", "verbose", "model_max_length", "max_len", "padding_side", "truncation_side",
        "model_input_names", "clean_up_tokenization_spaces",
        "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", "split_special_tokens",
        "chat_template", "response_template", "response_schema", "chat_control_tokens", "backend", "files_loaded",
    }
    attributes = {name for name in vars(tokenizer) if not name.startswith("_")}
    components = {}
    for name in ["models", "normalizers", "pre_tokenizers", "decoders", "processors"]:
        module = getattr(tokenizers, name)
        base = {"models": "Model", "normalizers": "Normalizer", "pre_tokenizers": "PreTokenizer", "decoders": "Decoder",
                "processors": "PostProcessor"}[name]
        kinds = [kind for kind in vars(module).values() if isinstance(kind, type)]
        components[name] = sorted(kind.__name__ for kind in kinds
                                  if issubclass(kind, getattr(module, base)) and kind is not getattr(module, base))
    return {
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "families": families,
        "generation": sorted(GenerationConfig._get_default_generation_params()),
        "tokenizer": sorted(named | (attributes - {"init_inputs", "init_kwargs", "deprecation_warnings"})),
        "components": components,
    }


def main():
    torch.set_num_threads(1)
    recorded = []
    for name, checkpoint, changes, removed, head in CASES:
        with tempfile.TemporaryDirectory() as folder:
            write_folder(Path(folder), checkpoint, changes, removed, head)
            expected = compute(folder)
        recorded.append({"name": name, "checkpoint": checkpoint, "changes": changes, "removed": removed, "head": head}
                        | expected)
    cases = ",\n".join(json.dumps(case) for case in recorded)
    head = json.dumps({"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "ids": IDS})
    (GOLDEN / "model-folders.json").write_text(f'{head[:-1]},\n"cases": [\n{cases}\n]}}\n')
    keys = json.dumps(known_keys(), indent=1, sort_keys=True, default=str)
    (GOLDEN / "transformers-keys.json").write_text(keys + "\n")


if __name__ == "__main__":
    main()
