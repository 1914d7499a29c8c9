"""The tables of docs/benchmarks.md that `scripts/bench-training` measures."""

from page import number, table

NAMES = {
    "ours": "ours", "layers": "ours, layers computed again", "trl": "TRL's GRPOTrainer",
    "transformers": "transformers, plain loop",
}
MODELS = {"small": "four layers, 15.7M parameters, random", "135m": "SmolLM2-135M-Instruct"}
# Of a parameter and a token: 2 forward, 4 backward.
FLOP = 6


def tables(results):
    found = results["trajectories"]
    device = next(iter(results["peak"].values()))["device"]
    memory = "device_peak_mib" if device == "cuda" else "peak_mib"
    text = (
        f"\n{found['trajectories']} trajectories of {found['shortest']} to {found['longest']} tokens, "
        f"{found['tokens']:,} in all, {found['sampled']} of them sampled, {found['prompt_tokens']} in prompts. "
        f"Device: {device}. {results.get('processor', 'an Intel Xeon (AMX)')}, {results['date']}, load before it {results['load_before']}. Utilisation: "
        f"{FLOP} FLOP a parameter and token, of the rate of a large matrix product in PyTorch in the same run ("
        + ", ".join(f"{dtype} {one['flop_s'] / 1e9:,.0f} GFLOP/s" for dtype, one in results["peak"].items())
        + ").\n\n"
    )
    rows = []
    for model, types in results["models"].items():
        for dtype, programs in types.items():
            ours = programs["ours"]
            for program, one in programs.items():
                seconds = min(one["seconds"])
                flop_s = FLOP * one["parameters"] * one["tokens"] / seconds
                rows.append([
                    MODELS[model], dtype, NAMES[program], number(one["tokens"] / seconds),
                    f"{seconds / min(ours['seconds']):.2f}", number(one[memory]),
                    f"{ours[memory] / one[memory]:.2f}", f"{flop_s / results['peak'][dtype]['flop_s']:.0%}",
                    f"{one['loss'][0]:.5f}", f"{one['gradient_norm'][0]:.4f}",
                ])
    head = ["model", "type", "program", "tokens/s", "ours / it", "peak MiB", "ours / it", "utilisation", "loss",
            "gradient norm"]
    return text + table(head, rows)
