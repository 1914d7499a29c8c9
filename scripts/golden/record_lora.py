#!/usr/bin/env python3
"""Records low-rank adapters: tests/golden/lora-tiny-*/ and tests/golden/lora-kinds/*/.

Needs torch, transformers, peft, safetensors and numpy, which set-up does not install. Run it from the root of the
checkout, with OMP_NUM_THREADS=1:

    record_lora.py            makes lora-tiny-*
    record_lora.py kinds      makes lora-kinds/*

PEFT adds random adapters to a recorded model, saves them and computes logits. Autograd in f32 computes the gradients of
the trained parameters for the mean negative log-likelihood and, for the model of updates-tiny, for its updates. The
kinds are adapters with sizes by pattern, on chosen modules, with magnitudes, of the head or the embedding, or with
parameters that are trained whole; one short sequence of each is recorded.
"""

import json
import re
import sys
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import record_updates
from record_policy import mean_nll, write_json

GOLDEN = Path("tests/golden")
# Adapters on some of the fused maps, and on all maps.
RECORDINGS = {
    "lora-tiny-llama": (31, "llama-tiny-untied", {
        "r": 3, "lora_alpha": 7, "use_rslora": False,
        "target_modules": ["q_proj", "v_proj", "o_proj", "up_proj"],
    }),
    "lora-tiny-qwen2": (32, "qwen2-tiny", {
        "r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": "all-linear",
    }),
}
# A model of one layer with tied embeddings keeps the recordings with whole matrices small.
TIED = "llama-tiny-rope-parameters"
KINDS = {
    "expression": (41, "llama-tiny-untied", {
        "r": 2, "lora_alpha": 5, "use_rslora": True,
        "target_modules": r"(?P<before>.*)\.(?:layers\.(?!0\.)\d+\..*_proj|0\.self_attn\.[qk]_proj)",
        "rank_pattern": {r"self_attn\.k_proj": 1, "down_proj": 4, "layers.1.self_attn.q_proj": 3},
        "alpha_pattern": {"^model.layers.1.mlp.up_proj": 9, "o_proj": 2.5},
    }),
    "layers": (42, "qwen2-tiny", {
        "r": 2, "lora_alpha": 4, "layers_to_transform": [1], "layers_pattern": "layers",
        "target_modules": ["self_attn.q_proj", "v_proj", "model.layers.0.mlp.up_proj", "not_there"],
        "exclude_modules": ["1.self_attn.v_proj"], "bias": "lora_only",
    }),
    "excluded": (43, "llama-tiny-untied", {
        "r": 1, "lora_alpha": 1, "target_modules": "all-linear",
        "exclude_modules": r".*\.mlp\..*|.*[kv]_proj",
    }),
    "biases": (44, "llama-tiny-biases", {
        "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"], "bias": "all",
        "use_dora": True,
    }),
    "saved": (45, "qwen3-tiny", {
        "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"],
        "modules_to_save": ["norm", "1.self_attn.v_proj"],
    }),
    "saved-head": (46, TIED, {
        "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"],
    }),
    "saved-embedding": (47, TIED, {
        "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"],
    }),
    "saved-shared": (48, TIED, {
        "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"],
        "ensure_weight_tying": True,
    }),
    "head": (49, TIED, {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "lm_head"]}),
    "embedding": (50, TIED, {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "embed_tokens"]}),
    "embedding-shared": (51, TIED, {
        "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "lm_head"], "ensure_weight_tying": True,
    }),
    "magnitudes": (52, TIED, {
        "r": 2, "lora_alpha": 4, "use_dora": True,
        "target_modules": ["q_proj", "gate_proj", "embed_tokens", "lm_head"],
    }),
    "head-apart": (53, "llama-tiny-untied", {
        "r": 2, "lora_alpha": 4, "target_modules": ["lm_head"],
    }),
}


def own_name(name):
    name = name.removeprefix("base_model.model.").replace(".modules_to_save.default.", ".")
    name = re.sub(r"\.default(\.|$)", r"\1", name).replace(".base_layer.", ".")
    return name.replace("lora_magnitude_vector.weight", "lora_magnitude_vector")


def gradients(model, prefix):
    by_name = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            by_name[f"{prefix}.{own_name(name)}"] = parameter.grad.clone().contiguous()
    model.zero_grad()
    return by_name


def share_gradients(expected):
    """Adds the gradients of a head that shares the adapter of the embedding, which PEFT keeps twice, to the latter's."""
    by_down = expected.pop("gradient.lm_head.lora_A.weight")
    by_up = expected.pop("gradient.lm_head.lora_B.weight")
    for name, other in (("A", by_up), ("B", by_down)):
        key = f"gradient.model.embed_tokens.lora_embedding_{name}"
        expected[key] = (expected[key] + other.T).contiguous()


def load_base(checkpoint):
    return AutoModelForCausalLM.from_pretrained(
        GOLDEN / checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def adapted(seed, checkpoint, settings):
    torch.manual_seed(seed)
    model = get_peft_model(load_base(checkpoint), LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            change = 0.1 * torch.randn(parameter.shape, generator=generator)
            if ".lora_" in name and "magnitude" not in name:
                parameter.copy_(change)
            else:
                parameter.add_(change)
    return model


def save(model, folder, base):
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    written = json.loads(path.read_text("utf-8"))
    written["base_model_name_or_path"] = base
    # PEFT keeps sets and writes them in no fixed order.
    for key in ("target_modules", "exclude_modules", "modules_to_save"):
        if isinstance(written.get(key), list):
            written[key] = sorted(written[key])
    write_json(path, written)


def versions():
    return {
        "peft": peft.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
    }


def compute(model, sequences):
    """Returns logits, the gradients of the mean negative log-likelihood, and its value."""
    expected = {}
    with torch.no_grad():
        for index, ids in enumerate(sequences):
            expected[f"logits.{index}"] = model(torch.tensor([ids])).logits[0].contiguous()
    loss = mean_nll(model, sequences)
    loss.backward()
    return expected | gradients(model, "gradient"), loss.item()


def record(name):
    seed, checkpoint, settings = RECORDINGS[name]
    model = adapted(seed, checkpoint, settings)
    folder = GOLDEN / name
    save(model, folder, f"../{checkpoint}")
    sequences = json.loads((GOLDEN / checkpoint / "expected.json").read_text("utf-8"))["sequences"]
    expected, loss = compute(model, sequences)
    losses = {}
    if checkpoint == record_updates.CHECKPOINT:
        recording = json.loads((GOLDEN / "updates-tiny" / "batch.json").read_text("utf-8"))
        for case_name, case in record_updates.CASES.items():
            loss_of_case, policy_loss = record_updates.policy_case(model, case, recording["batch"])
            loss_of_case.backward()
            losses[case_name] = policy_loss.item()
            expected |= gradients(model, f"update.{case_name}")
    save_file(expected, folder / "expected.safetensors")
    write_json(folder / "expected.json", versions() | {
        "seed": seed, "checkpoint": checkpoint, "sequences": sequences, "mean_nll": loss, "losses": losses,
    })


def record_kind(name):
    seed, checkpoint, settings = KINDS[name]
    model = adapted(seed, checkpoint, settings)
    folder = GOLDEN / "lora-kinds" / name
    save(model, folder, f"../../{checkpoint}")
    vocabulary = model.config.vocab_size
    sequences = [[(7 * position + seed) % vocabulary for position in range(9)]]
    expected, loss = compute(model, sequences)
    if name == "embedding-shared":
        share_gradients(expected)
    reloaded = peft.PeftModel.from_pretrained(load_base(checkpoint), folder).eval()
    with torch.no_grad():
        gap = (reloaded(torch.tensor(sequences)).logits[0] - expected["logits.0"]).abs().max().item()
    assert gap < 1e-6, f"{name}: PEFT reads other adapters than it wrote, {gap}"
    save_file(expected, folder / "expected.safetensors")
    write_json(folder / "expected.json", versions() | {
        "seed": seed, "checkpoint": checkpoint, "sequences": sequences, "mean_nll": loss, "losses": {},
    })


def main():
    torch.set_num_threads(1)
    if sys.argv[1:] == ["kinds"]:
        for name in KINDS:
            record_kind(name)
    else:
        for name in RECORDINGS:
            record(name)


if __name__ == "__main__":
    main()
