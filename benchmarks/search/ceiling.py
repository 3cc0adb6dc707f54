"""Where the target's ceiling lies: the best of many prompts on the withheld rows.

The maximum of many means is too high by chance; it bounds what a search could show there.
"""

from pathlib import Path

from benchmarks.optimisers.rewriter import Writer
from benchmarks.record import write_json
from benchmarks.search.cells import mean, scored
from benchmarks.search.lab import Protocol, embedded_target, withheld_rows
from benchmarks.tasks import BenchTask, load_task
from remask.models.backbone.builtin_weights import load_base

BATCH = 20  # prompts sampled at a time


def ceiling(task: str, data: Path, runs: Path, n: int, sizes: Protocol) -> str:
    """Score the human templates and `n` sampled rewordings of them; resumable prompt by prompt."""
    bench = load_task(task)
    target, rows = embedded_target(bench), withheld_rows(bench, data, sizes)
    found = {}
    for kind, prompts in (("human", list(bench.templates)), ("sampled", sampled(bench, n))):
        means = {p: mean(scored(bench, rows, target, p, runs)) for p in prompts}
        best = max(means, key=lambda p: means[p])
        found[kind] = {"best": means[best], "prompt": best, "prompts": len(prompts)}
    found["seed"] = {"best": mean(scored(bench, rows, target, bench.seed_prompt, runs))}
    write_json(runs / "ceiling" / f"{task}.json", found)
    return f"{task}: " + ", ".join(f"{kind} {value['best']:.3f}" for kind, value in found.items())


def sampled(bench: BenchTask, n: int) -> list[str]:
    """Up to `n` different prompts by the autoregressive model, each from one human template."""
    writer, texts = Writer(load_base(), temperature=1.0), dict[str, None]()
    for turn in range(-(-n // BATCH)):
        template = bench.templates[turn % len(bench.templates)]
        ask = f"Say this instruction in other words, and write nothing else:\n{template}"
        texts |= dict.fromkeys(t for t in writer.write(ask, BATCH, turn) if t)
    return list(texts)[:n]
