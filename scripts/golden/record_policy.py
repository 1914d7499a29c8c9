#!/usr/bin/env python3
"""Records logits and gradients of `transformers` for small checkpoints and for the converted model.

Needs torch, transformers, safetensors and numpy, which set-up does not install. Run it from the root of the checkout,
with OMP_NUM_THREADS=1:

    record_policy.py tiny NAME...    makes tests/golden/NAME/ (see TINY below for the names)
    record_policy.py model FOLDER    makes tests/golden/smollm2-reference.json from a model folder

The form of config.json depends on the version of transformers: before 5, `rope_theta` is at the top level; from 5 on,
it is in `rope_parameters`. tests/golden/README.md states the version of each recording. Recordings of other families
than Llama, and of scaled rotary embeddings, need version 5.
"""

import argparse
import copy
import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

GOLDEN = Path("tests/golden")

# Default dimensions of the checkpoints below.
SMALL = {
    "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
}

# The seed of the weights, the model type and the arguments of the configuration, by name.
TINY = {
    "llama-tiny-tied": (11, "llama", {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        "rope_theta": 100000.0,
    }),
    "llama-tiny-untied": (12, "llama", {
        "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 10, "vocab_size": 96,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
        "rope_theta": 10000.0,
    }),
    "llama-tiny-rope-parameters": (13, "llama", {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 64,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    }),
    "llama-tiny-llama3": (14, "llama", SMALL | {
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
        },
    }),
    "llama-tiny-biases": (15, "llama", SMALL | {
        "tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    }),
    "qwen2-tiny": (16, "qwen2", SMALL | {
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    }),
    "qwen2-tiny-window": (17, "qwen2", SMALL | {
        "tie_word_embeddings": False, "num_key_value_heads": 1,
        "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1,
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    }),
    "qwen3-tiny": (18, "qwen3", SMALL | {
        "tie_word_embeddings": True, "head_dim": 12,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    }),
    "mistral-tiny": (19, "mistral", SMALL | {
        "tie_word_embeddings": False, "head_dim": 10, "sliding_window": 7,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }),
    "smollm3-tiny": (20, "smollm3", SMALL | {
        "num_hidden_layers": 4, "tie_word_embeddings": True, "no_rope_layer_interval": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
    }),
    "smollm3-tiny-listed": (21, "smollm3", SMALL | {
        "num_hidden_layers": 3, "intermediate_size": 24, "tie_word_embeddings": True,
        "no_rope_layers": [0, 1, 0], "use_sliding_window": True, "sliding_window": 5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
    }),
}

SENTENCES = [
    "The capital of France is",
    "<|im_start|>user\nWho wrote Hamlet?<|im_end|>\n<|im_start|>assistant\n",
    "def factorial(n):\n    return 1 if n < 2 else n *",
]
CONTINUATION_TOKENS = 12


def sample_ids(generator, vocabulary, count):
    return torch.randint(0, vocabulary, (count,), generator=generator).tolist()


def mean_nll(model, sequences):
    """Returns the mean negative log-likelihood over all tokens except the first of each sequence."""
    terms = []
    for ids in sequences:
        logits = model(torch.tensor([ids])).logits[0].float()
        log_probs = logits[:-1].log_softmax(-1)
        terms.append(-log_probs.gather(1, torch.tensor(ids[1:]).unsqueeze(1)).squeeze(1))
    return torch.cat(terms).mean()


def randomise(model, generator):
    """Draws all weights. The default initialisation gives nearly uniform logits, which hide errors."""
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter_name.endswith(".bias"):
                parameter.copy_(0.5 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(1.0 + 0.2 * noise)
            else:
                parameter.copy_(noise * (0.8 / parameter.shape[1] ** 0.5 + 0.1))


def record_tiny(name):
    seed, model_type, arguments = TINY[name]
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        model_type, bos_token_id=1, eos_token_id=2, pad_token_id=None, **copy.deepcopy(arguments)
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    generator = torch.Generator().manual_seed(seed)
    randomise(model, generator)
    model.eval()
    folder = GOLDEN / name
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "generation_config.json").unlink(missing_ok=True)

    sequences = [sample_ids(generator, config.vocab_size, count) for count in (23, 9)]
    expected = {}
    with torch.no_grad():
        for index, ids in enumerate(sequences):
            expected[f"logits.{index}"] = model(torch.tensor([ids])).logits[0].contiguous()
    loss = mean_nll(model, sequences)
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        expected[f"gradient.{parameter_name}"] = parameter.grad.contiguous()
    save_file(expected, folder / "expected.safetensors")
    write_json(folder / "expected.json", {
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "seed": seed,
        "sequences": sequences,
        "mean_nll": loss.item(),
    })


def record_model(source):
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    cases = []
    for text in SENTENCES:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
            log_probs = logits.log_softmax(-1)
            token_log_probs = log_probs[:-1].gather(1, torch.tensor(ids[1:]).unsqueeze(1)).squeeze(1)
            continuation = list(ids)
            for _ in range(CONTINUATION_TOKENS):
                following = model(torch.tensor([continuation])).logits[0, -1].argmax().item()
                continuation.append(following)
                if following == tokenizer.eos_token_id:
                    break
        top = logits[-1].topk(5)
        cases.append({
            "text": text,
            "ids": ids,
            "log_probs": token_log_probs.tolist(),
            "top": [
                {"id": token, "text": tokenizer.decode([token]), "logit": logit,
                 "probability": log_probs[-1, token].exp().item()}
                for token, logit in zip(top.indices.tolist(), top.values.tolist())
            ],
            "greedy_ids": continuation[len(ids):],
            "greedy_text": tokenizer.decode(continuation[len(ids):], skip_special_tokens=False),
        })
    write_json(GOLDEN / "smollm2-reference.json", {
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "compute": "float32",
        "cases": cases,
    })


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tiny").add_argument("names", nargs="+", choices=sorted(TINY))
    commands.add_parser("model").add_argument("folder", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.command == "tiny":
        for name in arguments.names:
            record_tiny(name)
    else:
        record_model(arguments.folder)


if __name__ == "__main__":
    main()
