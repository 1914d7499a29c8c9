#!/usr/bin/env python3
"""Records low-rank adapters: tests/golden/lora-tiny-*/.

Needs torch, transformers, peft, safetensors and numpy, which set-up does not install. Run it from the root of the
checkout, with OMP_NUM_THREADS=1:

    record_lora.py

PEFT adds random adapters to a recorded model, saves them and computes logits. Autograd in f32 computes the gradients of
A and B for the mean negative log-likelihood and, for the model of updates-tiny, for its updates.
"""

import json
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


def own_name(name):
    return name.removeprefix("base_model.model.").replace(".default.", ".")


def gradients(model, prefix):
    by_name = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            by_name[f"{prefix}.{own_name(name)}"] = parameter.grad.clone().contiguous()
    model.zero_grad()
    return by_name


def record(name):
    seed, checkpoint, settings = RECORDINGS[name]
    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(
        GOLDEN / checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if ".lora_" in parameter_name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    folder = GOLDEN / name
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    written = json.loads(path.read_text("utf-8"))
    written["base_model_name_or_path"] = f"../{checkpoint}"
    # PEFT keeps a set and writes it in no fixed order.
    written["target_modules"] = sorted(written["target_modules"])
    write_json(path, written)

    sequences = json.loads((GOLDEN / checkpoint / "expected.json").read_text("utf-8"))["sequences"]
    expected = {}
    with torch.no_grad():
        for index, ids in enumerate(sequences):
            expected[f"logits.{index}"] = model(torch.tensor([ids])).logits[0].contiguous()
    loss = mean_nll(model, sequences)
    loss.backward()
    expected |= gradients(model, "gradient")
    losses = {}
    if checkpoint == record_updates.CHECKPOINT:
        recording = json.loads((GOLDEN / "updates-tiny" / "batch.json").read_text("utf-8"))
        for case_name, case in record_updates.CASES.items():
            loss_of_case, policy_loss = record_updates.policy_case(model, case, recording["batch"])
            loss_of_case.backward()
            losses[case_name] = policy_loss.item()
            expected |= gradients(model, f"update.{case_name}")
    save_file(expected, folder / "expected.safetensors")
    write_json(folder / "expected.json", {
        "peft": peft.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "seed": seed,
        "checkpoint": checkpoint,
        "sequences": sequences,
        "mean_nll": loss.item(),
        "losses": losses,
    })


def main():
    torch.set_num_threads(1)
    for name in RECORDINGS:
        record(name)


if __name__ == "__main__":
    main()
