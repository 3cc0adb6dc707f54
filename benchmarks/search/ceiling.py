"""Where the target's ceiling lies: the best of many prompts on the withheld rows.

The maximum of many means is too high by chance; it bounds what a search could show there.
"""

import json
from pathlib import Path

from benchmarks.optimisers.writer import Writer
from benchmarks.search.cells import Protocol, mean, write_whole
from benchmarks.search.play import embedded_target, scored
from benchmarks.search.splits import withheld_rows
from benchmarks.tasks import BenchTask, load_task

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
    write_whole(runs / "ceiling" / f"{task}.json", json.dumps(found, indent=1))
    return f"{task}: " + ", ".join(f"{kind} {value['best']:.3f}" for kind, value in found.items())


def sampled(bench: BenchTask, n: int) -> list[str]:
    """Up to `n` different prompts by the autoregressive model, each from one human template."""
    from remask.backbone.weights import load_base

    writer, texts = Writer(load_base(), temperature=1.0), dict[str, None]()
    for turn in range(-(-n // BATCH)):
        template = bench.templates[turn % len(bench.templates)]
        ask = f"Say this instruction in other words, and write nothing else:\n{template}"
        texts |= dict.fromkeys(t for t in writer.write(ask, BATCH, turn) if t)
    return list(texts)[:n]
