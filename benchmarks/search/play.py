"""Play one cell: the search under its cap, then the withheld rows, then the sealed test once."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.search.cells import Cell, CellFile, Protocol, pack, write_whole
from benchmarks.search.lab import Optimiser, make_task, open_lab
from benchmarks.search.splits import search_rows, test_rows, withheld_rows
from benchmarks.tasks import BenchTask, load_task
from remask.errors import BudgetSpent
from remask.identity import content_id
from remask.ports import Target
from remask.prompt import Prompt
from remask.trace import Example, mean_score

Load = Callable[[str], Optimiser]
MakeTarget = Callable[[BenchTask], Target]


def embedded_target(bench: BenchTask) -> Target:
    """The frozen target of the whole grid, on one thread."""
    import torch

    from remask.backbone.weights import load_base
    from remask.target.embedded import EmbeddedTarget

    torch.set_num_threads(1)
    return EmbeddedTarget(load_base(), max_tokens=bench.max_tokens)


def play(
    cell: Cell,
    protocol: Protocol,
    data: Path,
    runs: Path,
    *,
    commit: str,
    test: bool,
    make_target: MakeTarget,
    load: Load,
) -> dict[str, float]:
    """Bring a cell to its end from whatever stage it has; seconds by stage.

    Without `test` the sealed rows are not even read from disk.
    """
    bench, file, seconds = load_task(cell.task), CellFile(runs, cell, protocol), {}
    if file.has("withheld") and (file.has("test_begun") or not test):
        return {}
    target, since = make_target(bench), time.perf_counter()
    if not file.has("search"):
        rows = search_rows(bench, data, cell.seed, protocol)
        lab = open_lab(bench, rows, target, protocol.calls, cell.seed, protocol.dlm)
        stopped, cpu = "done", time.process_time()
        try:
            load(cell.optimiser)(lab)
        except BudgetSpent:
            stopped = "budget"
        seconds["search"] = time.perf_counter() - since
        file.put(
            search={
                "prompts": {str(calls): lab.at(calls) for calls in protocol.upto},
                "incumbents": lab.incumbents,
                "calls": lab.counted.spent,
                "seconds": round(seconds["search"], 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
                "stopped": stopped,
                "commit": commit,
            }
        )
    prompts = file.record["search"]["prompts"]
    if not file.has("withheld"):
        since, rows = time.perf_counter(), withheld_rows(bench, data, protocol)
        file.put(
            withheld={c: scored(bench, rows, target, p, runs) for c, p in prompts.items()},
        )
        seconds["withheld"] = time.perf_counter() - since
    if test:
        since = time.perf_counter()
        file.begin_test()
        rows, last = test_rows(bench, data, protocol), prompts[str(protocol.calls)]
        file.put(
            test=scored(bench, rows, target, last, runs),
            seed_test=scored(bench, rows, target, bench.seed_prompt, runs),
        )
        seconds["test"] = time.perf_counter() - since
    return seconds


def scored(
    bench: BenchTask, rows: tuple[Example, ...], target: Target, prompt: str, runs: Path
) -> str:
    """Packed scores of a prompt on rows that no search sees; equal questions are asked once for
    all optimisers, because the target is deterministic. Raises TargetUnreliable."""
    key = content_id(
        "scores", target.identity, bench.name, bench.answer, prompt, [e.id for e in rows]
    )
    path = runs / "scores" / f"{key}.json"
    if not path.exists():
        outcomes = make_task(bench, rows, target).evaluate(Prompt(prompt), [e.id for e in rows])
        mean_score(outcomes)
        write_whole(path, json.dumps(pack(outcomes)))
    text: str = json.loads(path.read_text("utf-8"))
    return text
