"""Measures one peer of the trainer's update and prints its figures as JSON.

`scripts/bench-training` runs this in an environment with the peers:

    training.py trl MODEL TRAJECTORIES DTYPE UPDATES
    training.py transformers MODEL TRAJECTORIES DTYPE UPDATES
    training.py trajectories MODEL CORPUS QUESTIONS FILE GROUPS SAMPLES
    training.py small MODEL FOLDER
    training.py peak DTYPE

An update is forward, backward, clipping and AdamW over all trajectories, padded to the longest of their pass as users
of the peers do it. A trajectory is one line of JSON: `ids`, `mask` (1 at sampled tokens), `prompt` (its number of
tokens), `advantage`.
"""

import json
import pathlib
import random
import sys
import tempfile
import time

LEARNING_RATE = 1e-6
MAX_NORM = 1.0
# The default batch size of the trainers of TRL and transformers.
PASS_TRAJECTORIES = 8
SEED = 7
# Share of passages among the tokens after the prompt.
OBSERVED_SHARE = 0.7
PROMPT_TOKENS = (60, 120)
TOTAL_TOKENS = (250, 700)
SEARCHES = (1, 3)


def read(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def device():
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def wait():
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_mib():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def passes(trajectories, size=PASS_TRAJECTORIES):
    return [trajectories[start : start + size] for start in range(0, len(trajectories), size)]


def padded(rows, value, left=False):
    import torch

    width = max(map(len, rows))
    lines = [[value] * (width - len(row)) + row if left else row + [value] * (width - len(row)) for row in rows]
    return torch.tensor(lines, device=device())


def measure(updates, trajectories, parameters, update):
    """Times calls of `update`, which returns the loss and the norm of the gradient."""
    seconds, losses, norms = [], [], []
    for _ in range(updates):
        wait()
        started = time.perf_counter()
        loss, norm = update()
        wait()
        seconds.append(time.perf_counter() - started)
        losses.append(float(loss))
        norms.append(float(norm))
    return {
        "tokens": sum(len(trajectory["ids"]) for trajectory in trajectories), "seconds": seconds, "loss": losses,
        "gradient_norm": norms, "parameters": parameters, "peak_mib": peak_mib(),
    }


def trl(model, path, dtype, updates):
    """Measures `compute_loss` of TRL's GRPOTrainer on passes laid out as by its own generation, then its optimizer."""
    import datasets
    from trl import GRPOConfig, GRPOTrainer

    trajectories = read(path)
    batches = passes(trajectories)
    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            output_dir=folder, use_cpu=device() == "cpu", bf16=dtype == "bf16", fp16=False, report_to=[],
            learning_rate=LEARNING_RATE, max_grad_norm=MAX_NORM, beta=0.0, loss_type="dapo",
            per_device_train_batch_size=PASS_TRAJECTORIES, num_generations=PASS_TRAJECTORIES,
            gradient_accumulation_steps=len(batches), model_init_kwargs={"dtype": "float32"},
        )
        trainer = GRPOTrainer(
            model=model, args=arguments, reward_funcs=lambda completions, **_: [0.0] * len(completions),
            train_dataset=datasets.Dataset.from_list([{"prompt": "question"}] * PASS_TRAJECTORIES),
        )
        optimizer = trainer.create_optimizer()
        trainer.current_gradient_accumulation_steps = len(batches)
        pad = trainer.processing_class.pad_token_id
        trained = sum(sum(trajectory["mask"]) for trajectory in trajectories)
        inputs = [inputs_of_trl(batch, pad, trained) for batch in batches]
        trainer.model.train()

        def update():
            total = 0.0
            for batch in inputs:
                with trainer.compute_loss_context_manager():
                    loss = trainer.compute_loss(trainer.model, batch)
                trainer.accelerator.backward(loss)
                total += float(loss.detach())
            norm = trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), MAX_NORM)
            optimizer.step()
            trainer.model.zero_grad()
            return total, norm

        return measure(int(updates), trajectories, trainer.model.num_parameters(), update)


def inputs_of_trl(batch, pad, trained):
    import torch

    prompts = [trajectory["ids"][: trajectory["prompt"]] for trajectory in batch]
    completions = [trajectory["ids"][trajectory["prompt"] :] for trajectory in batch]
    ones = lambda rows: [[1] * len(row) for row in rows]  # noqa: E731
    return {
        "prompt_ids": padded(prompts, pad, left=True), "prompt_mask": padded(ones(prompts), 0, left=True),
        "completion_ids": padded(completions, pad), "completion_mask": padded(ones(completions), 0),
        "tool_mask": padded([trajectory["mask"][trajectory["prompt"] :] for trajectory in batch], 0),
        "advantages": torch.tensor([trajectory["advantage"] for trajectory in batch], device=device()),
        "num_items_in_batch": torch.tensor(float(trained), device=device()),
    }


def transformers(model, path, dtype, updates):
    """Measures a plain loop: padded batches, logits of all tokens, and PyTorch's AdamW."""
    import torch
    from transformers import AutoModelForCausalLM

    trajectories = read(path)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device()).train()
    optimizer = torch.optim.AdamW(loaded.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    trained = sum(sum(trajectory["mask"]) for trajectory in trajectories)
    batches = [
        (padded([trajectory["ids"] for trajectory in batch], 0),
         padded([[1] * len(trajectory["ids"]) for trajectory in batch], 0),
         padded([trajectory["mask"] for trajectory in batch], 0),
         torch.tensor([trajectory["advantage"] for trajectory in batch], device=device()).unsqueeze(1))
        for batch in passes(trajectories)
    ]

    def update():
        total = 0.0
        for ids, attention, mask, advantages in batches:
            with torch.autocast(device(), dtype=torch.bfloat16, enabled=dtype == "bf16"):
                logits = loaded(input_ids=ids, attention_mask=attention, use_cache=False).logits
            log_probs = logits[:, :-1].float().log_softmax(-1)
            log_probs = log_probs.gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)
            ratio = (log_probs - log_probs.detach()).exp()
            losses = -torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
            loss = (losses * mask[:, 1:]).sum() / trained
            loss.backward()
            total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(loaded.parameters(), MAX_NORM)
        optimizer.step()
        optimizer.zero_grad()
        return total, norm

    return measure(int(updates), trajectories, loaded.num_parameters(), update)


def trajectories(model, corpus, questions, path, groups, samples):
    """Writes groups of trajectories that share a prompt: sampled tokens alternate with passages of the corpus."""
    from tokenizers import Tokenizer

    chance = random.Random(SEED)
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    ids = lambda text: tokenizer.encode(text, add_special_tokens=False).ids  # noqa: E731
    passages = [passage["contents"] for passage in chance.sample(read(corpus), 2_000)]
    asked = [example["question"] for example in chance.sample(read(questions), int(groups))]
    instruction = ids(
        "Answer the question. Think first; whenever something is missing, ask the search engine by writing "
        "<search> query </search>, and read what it found between <information> and </information>. You can "
        "search as often as you like. As soon as you know enough, write <answer> the answer </answer>. "
        "Thoughts stay short and end with a search or an answer. Every answer is a name, a number or a year."
    )

    def text_of(count):
        tokens_of_text = []
        while len(tokens_of_text) < count:
            tokens_of_text += ids(" " + chance.choice(passages))
        start = chance.randrange(len(tokens_of_text) - count + 1)
        return tokens_of_text[start : start + count]

    def shares(total, parts):
        """Splits `total` into random parts, each at least half of an equal share."""
        least = total // (2 * parts)
        cuts = sorted(chance.randint(0, total - parts * least) for _ in range(parts - 1))
        ends = [*cuts, total - parts * least]
        return [least + end - start for start, end in zip([0, *cuts], ends)]

    lines = []
    for question in asked:
        ending = ids(f" Question: {question}\n")
        prompt = instruction[: chance.randint(*PROMPT_TOKENS) - len(ending)] + ending
        advantages = [chance.gauss(0.0, 1.0) for _ in range(int(samples))]
        for advantage in advantages:
            rest = chance.randint(*TOTAL_TOKENS) - len(prompt)
            searches = chance.randint(*SEARCHES)
            observed = round(rest * OBSERVED_SHARE)
            actions, observations = shares(rest - observed, searches + 1), shares(observed, searches)
            tokens, mask = list(prompt), [0] * len(prompt)
            for index, count in enumerate(actions):
                tokens += text_of(count)
                mask += [1] * count
                if index < searches:
                    tokens += text_of(observations[index])
                    mask += [0] * observations[index]
            lines.append({"ids": tokens, "mask": mask, "prompt": len(prompt), "advantage": round(advantage, 4)})
    pathlib.Path(path).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    lengths = [len(line["ids"]) for line in lines]
    return {"trajectories": len(lines), "tokens": sum(lengths), "shortest": min(lengths), "longest": max(lengths),
            "prompt_tokens": sum(line["prompt"] for line in lines), "sampled": sum(sum(line["mask"]) for line in lines)}


def small(model, folder):
    """Saves a random Llama of four layers with the vocabulary of `model`."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(model)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=768, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"folder": folder}


def peak(dtype):
    """Measures the FLOP per second of a large matrix product, at 2 FLOP per multiply-add."""
    import torch

    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    size = 8192 if device() == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device(), dtype=kind) for _ in range(2))
    shortest = float("inf")
    for _ in range(6):
        wait()
        started = time.perf_counter()
        left @ right
        wait()
        shortest = min(shortest, time.perf_counter() - started)
    return {"flop_s": 2 * size**3 / shortest, "device": device()}


if __name__ == "__main__":
    known = {"trl": trl, "transformers": transformers, "trajectories": trajectories, "small": small, "peak": peak}
    if len(sys.argv) < 2 or sys.argv[1] not in known:
        sys.exit(__doc__)
    print(json.dumps(known[sys.argv[1]](*sys.argv[2:])))
