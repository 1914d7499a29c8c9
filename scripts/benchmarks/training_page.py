"""Makes the tables of docs/benchmarks.md from the results of `scripts/bench-training`."""

from page import number, table

NAMES = {
    "ours": "ours", "layers": "ours, layers computed again", "trl": "TRL's GRPOTrainer",
    "transformers": "transformers, plain loop",
}
MODELS = {"small": "four layers, 15.7M parameters, random", "135m": "SmolLM2-135M-Instruct"}
# FLOP per parameter and token: 2 forward, 4 backward.
FLOP = 6


def tables(results):
    counts = results["trajectories"]
    device = next(iter(results["peak"].values()))["device"]
    memory = "device_peak_mib" if device == "cuda" else "peak_mib"
    text = (
        f"\n{counts['trajectories']} trajectories of {counts['shortest']} to {counts['longest']} tokens, "
        f"{counts['tokens']:,} in all, {counts['sampled']} of them sampled, {counts['prompt_tokens']} in prompts. "
        f"Device: {device}. {results.get('processor', 'an Intel Xeon (AMX)')}, {results['date']}, load before it {results['load_before']}. Utilisation: "
        f"{FLOP} FLOP a parameter and token, of the rate of a large matrix product in PyTorch in the same run ("
        + ", ".join(f"{dtype} {figures['flop_s'] / 1e9:,.0f} GFLOP/s" for dtype, figures in results["peak"].items())
        + ").\n\n"
    )
    rows = []
    for model, types in results["models"].items():
        for dtype, programs in types.items():
            ours = programs["ours"]
            for program, figures in programs.items():
                seconds = min(figures["seconds"])
                flop_s = FLOP * figures["parameters"] * figures["tokens"] / seconds
                rows.append([
                    MODELS[model], dtype, NAMES[program], number(figures["tokens"] / seconds),
                    f"{seconds / min(ours['seconds']):.2f}", number(figures[memory]),
                    f"{ours[memory] / figures[memory]:.2f}", f"{flop_s / results['peak'][dtype]['flop_s']:.0%}",
                    f"{figures['loss'][0]:.5f}", f"{figures['gradient_norm'][0]:.4f}",
                ])
    head = ["model", "type", "program", "tokens/s", "ours / it", "peak MiB", "ours / it", "utilisation", "loss",
            "gradient norm"]
    return text + table(head, rows)
