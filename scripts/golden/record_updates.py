#!/usr/bin/env python3
"""Records gradients of whole updates through the model: tests/golden/updates-tiny/.

Needs torch, transformers, safetensors and numpy, which set-up does not install. Run it from the root of the checkout,
with OMP_NUM_THREADS=1:

    record_updates.py

The model is tests/golden/llama-tiny-untied. The losses are implemented here independently, over padded rows with masks,
from the papers that docs/algorithms.md cites. PyTorch's autograd computes the gradients in f32.
"""

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

GOLDEN = Path("tests/golden")
CHECKPOINT = "llama-tiny-untied"
TEMPERATURE = 0.8
# Lengths in each sequence: the prompt, then sampled and observed tokens alternately.
SHAPES = [[4, 5, 3, 6], [6, 3, 4, 2, 2, 5], [3, 8], [5, 2, 6, 7, 3], [4, 1, 2, 9]]
ADVANTAGES = [1.2, -0.7, 0.4, -1.1, 0.9]

CASES = {
    "grpo": {"loss": "clip", "aggregation": "token-mean", "clip": [0.2, 0.2], "kl": "k3",
             "kl_coefficient": 0.05, "entropy_coefficient": 0.01},
    "ppo": {"loss": "clip", "aggregation": "token-mean", "clip": [0.2, 0.28], "dual": 1.5,
            "token_advantages": True},
    "gspo": {"loss": "gspo", "aggregation": "seq-mean-token-mean", "clip": [0.1, 0.15]},
    "cispo": {"loss": "cispo", "aggregation": "token-mean", "clip": [0.2, 0.3], "importance": 1.2},
    "sapo": {"loss": "sapo", "aggregation": "seq-mean-token-mean", "steepness": [1.0, 1.05]},
    "gmpo": {"loss": "gmpo", "aggregation": "seq-mean-token-mean", "clip": [0.2, 0.2]},
    "llds": {"loss": "clip", "aggregation": "seq-mean-token-mean", "clip": [0.2, 0.2],
             "likelihood_coefficient": 0.5},
}
VALUE_CLIP = 0.2


def make_batch(generator, vocabulary):
    sequences, masks = [], []
    for shape in SHAPES:
        sequences.append(torch.randint(0, vocabulary, (sum(shape),), generator=generator).tolist())
        masks.append([part % 2 == 1 for part, count in enumerate(shape) for _ in range(count)])
    return sequences, masks


def padded(rows, fill=0.0):
    width = max(len(row) for row in rows)
    return torch.tensor([list(row) + [fill] * (width - len(row)) for row in rows])


def scores(model, sequences, masks):
    """Returns log-probs and entropies of all tokens except the first, and the mask of sampled tokens.

    Rows are padded. Values of tokens that were not sampled are 0.
    """
    log_probs, entropies = [], []
    for ids in sequences:
        logits = model(torch.tensor([ids])).logits[0, :-1] / TEMPERATURE
        all_log_probs = logits.log_softmax(-1)
        log_probs.append(all_log_probs.gather(1, torch.tensor(ids[1:]).unsqueeze(1)).squeeze(1))
        entropies.append(-(all_log_probs.exp() * all_log_probs).sum(-1))
    mask = padded([[float(flag) for flag in mask[1:]] for mask in masks])
    pad = torch.nn.utils.rnn.pad_sequence
    rows = [pad(part, batch_first=True) * mask for part in (log_probs, entropies)]
    return rows[0], rows[1], mask


def spread(packed, mask):
    """Puts lists of values of the sampled tokens into padded rows, at the tokens' positions."""
    rows = torch.zeros_like(mask)
    for row, numbers in enumerate(packed):
        rows[row, mask[row] > 0] = torch.tensor(numbers)
    return rows


def token_losses(case, new, old, advantages, mask):
    ratio = torch.exp((new - old).clamp(-20, 20))
    tokens = mask.sum(1)
    if case["loss"] == "sapo":
        positive, negative = case["steepness"]
        steepness = torch.where(advantages > 0, positive, negative)
        return -advantages * torch.sigmoid(steepness * (ratio - 1)) * 4 / steepness
    low, high = case["clip"]
    if case["loss"] == "clip":
        losses = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high))
        if "dual" in case:
            bounded = torch.minimum(losses, -case["dual"] * advantages)
            losses = torch.where(advantages < 0, bounded, losses)
        return losses
    if case["loss"] == "cispo":
        return -ratio.clamp(1 - low, 1 + high).detach() * advantages * new
    mean = (((new - old) * mask).sum(1) / tokens).unsqueeze(1)
    if case["loss"] == "gspo":
        ratio = torch.exp(new - new.detach() + mean.detach())
        return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high))
    assert case["loss"] == "gmpo"
    sign = advantages.sign()
    kept = sign * torch.minimum(sign * (new - old), sign * (new - old).clamp(-low, high))
    ratio = torch.exp((kept * mask).sum(1) / tokens)
    advantage = (advantages * mask).sum(1) / tokens
    return (-advantage * ratio).unsqueeze(1).expand_as(mask)


def aggregated(case, losses, mask):
    if case["aggregation"] == "token-mean":
        return (losses * mask).sum() / mask.sum()
    return ((losses * mask).sum(1) / mask.sum(1)).mean()


def actions(mask):
    """Yields row, start and end position of each run of sampled tokens."""
    for row in range(mask.shape[0]):
        start = None
        for position, flag in enumerate([*mask[row].tolist(), 0.0]):
            if flag > 0 and start is None:
                start = position
            if flag == 0 and start is not None:
                yield row, start, position
                start = None


def likelihood(new, old, advantages, mask):
    total = torch.zeros(())
    for row, start, end in actions(mask):
        lost = old[row, start:end] - new[row, start:end]
        good = (advantages[row] * mask[row]).sum() / mask[row].sum() >= 0
        if good and lost.sum() > 0:
            total = total + lost.clamp(min=0).sum()
    return total / mask.sum()


def policy_case(model, case, batch):
    new, entropies, mask = scores(model, batch["sequences"], batch["masks"])
    rows = {name: spread(batch[name], mask) for name in ("old", "reference", "sampler")}
    name = "token_advantages" if case.get("token_advantages") else "advantages"
    advantages = spread(batch[name], mask)
    losses = token_losses(case, new, rows["old"], advantages, mask)
    if "importance" in case:
        weight = torch.exp(rows["old"] - rows["sampler"]).clamp(max=case["importance"])
        losses = losses * weight
    policy_loss = aggregated(case, losses, mask)
    loss = policy_loss
    if "kl" in case:
        difference = rows["reference"] - new
        divergence = (torch.exp(difference) - difference - 1).clamp(-10, 10)
        loss = loss + case["kl_coefficient"] * aggregated(case, divergence, mask)
    if "entropy_coefficient" in case:
        loss = loss - case["entropy_coefficient"] * aggregated(case, entropies, mask)
    if "likelihood_coefficient" in case:
        kept = likelihood(new, rows["old"], advantages, mask)
        loss = loss + case["likelihood_coefficient"] * kept
    return loss, policy_loss


def critic_case(model, weight, bias, batch):
    terms = []
    for row, (ids, mask) in enumerate(zip(batch["sequences"], batch["masks"])):
        hidden = model.model(torch.tensor([ids])).last_hidden_state[0, :-1]
        flags = torch.tensor(mask[1:])
        values = (hidden @ weight.T + bias).squeeze(1)[flags]
        old, returns = torch.tensor(batch["old_values"][row]), torch.tensor(batch["returns"][row])
        bounded = old + (values - old).clamp(-VALUE_CLIP, VALUE_CLIP)
        terms.append(torch.maximum((values - returns) ** 2, (bounded - returns) ** 2))
    return 0.5 * torch.cat(terms).mean()


def main():
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(5)
    model = LlamaForCausalLM.from_pretrained(
        GOLDEN / CHECKPOINT, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    sequences, masks = make_batch(generator, model.config.vocab_size)
    batch = {"sequences": sequences, "masks": masks}
    with torch.no_grad():
        own, _, mask = scores(model, sequences, masks)
    for name, size in (("old", 0.3), ("reference", 0.6), ("sampler", 0.4)):
        noise = size * torch.randn(own.shape, generator=generator)
        batch[name] = [row[flag > 0].tolist() for row, flag in zip(own + noise, mask)]
    counts = [int(flags.sum()) for flags in mask]
    batch["advantages"] = [[value] * count for value, count in zip(ADVANTAGES, counts)]
    for name in ("token_advantages", "old_values", "returns"):
        batch[name] = [torch.randn(count, generator=generator).tolist() for count in counts]

    tensors, losses = {}, {}
    for name, case in CASES.items():
        model.zero_grad()
        loss, policy_loss = policy_case(model, case, batch)
        loss.backward()
        losses[name] = policy_loss.item()
        for parameter, tensor in model.named_parameters():
            tensors[f"{name}.{parameter}"] = tensor.grad.clone().contiguous()
    model.zero_grad()
    weight = (0.3 * torch.randn((1, model.config.hidden_size), generator=generator)).requires_grad_()
    bias = torch.tensor([0.1], requires_grad=True)
    loss = critic_case(model, weight, bias, batch)
    loss.backward()
    losses["critic"] = loss.item()
    for parameter, tensor in model.named_parameters():
        if parameter != "lm_head.weight":
            tensors[f"critic.{parameter}"] = tensor.grad.clone().contiguous()
    tensors["critic.value_head.weight"], tensors["critic.value_head.bias"] = weight.grad, bias.grad
    tensors["head.weight"], tensors["head.bias"] = weight.detach(), bias.detach()

    folder = GOLDEN / "updates-tiny"
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "gradients.safetensors")
    record = {
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "checkpoint": CHECKPOINT,
        "temperature": TEMPERATURE,
        "value_clip": VALUE_CLIP,
        "losses": losses,
        "batch": batch,
    }
    text = json.dumps(record, ensure_ascii=False) + "\n"
    (folder / "batch.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
