"""The best of many prompts on the withheld rows: a bound for what a search could show.

The maximum of many means is too high by chance, so it bounds from above.
"""

from pathlib import Path

from benchmarks.optimisers.rewriter import Writer
from benchmarks.record import write_json
from benchmarks.search.cells import average, score_rows
from benchmarks.search.lab import Protocol, load_target, load_withheld_rows
from benchmarks.tasks import BenchTask, load_task
from remask.models.backbone.builtin_weights import load_base

BATCH = 20  # prompts sampled at a time


def measure_ceiling(task: str, data: Path, runs: Path, n: int, sizes: Protocol, place: str) -> str:
    """Score the human templates and `n` sampled rewordings of them; resumable prompt by prompt.

    place: of the target, as in load_target.
    """
    bench = load_task(task)
    target, rows = load_target(bench, place), load_withheld_rows(bench, data, sizes)
    found = {}
    for kind, prompts in (("human", list(bench.templates)), ("sampled", sample_prompts(bench, n))):
        means = {p: average(score_rows(bench, rows, target, p, runs)) for p in prompts}
        best = max(means, key=lambda p: means[p])
        found[kind] = {"best": means[best], "prompt": best, "prompts": len(prompts)}
    found["seed"] = {"best": average(score_rows(bench, rows, target, bench.seed_prompt, runs))}
    write_json(runs / "ceiling" / f"{task}.json", found)
    return f"{task}: " + ", ".join(f"{kind} {value['best']:.3f}" for kind, value in found.items())


def sample_prompts(bench: BenchTask, n: int) -> list[str]:
    """Up to `n` different prompts by the autoregressive model, each from one human template."""
    writer, texts = Writer(load_base(), temperature=1.0), dict[str, None]()
    for turn in range(-(-n // BATCH)):
        template = bench.templates[turn % len(bench.templates)]
        ask = f"Say this instruction in other words, and write nothing else:\n{template}"
        texts |= dict.fromkeys(t for t in writer.write(ask, BATCH, turn) if t)
    return list(texts)[:n]
