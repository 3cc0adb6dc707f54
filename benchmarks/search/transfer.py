"""Prompts that a search found for one target, scored on the withheld rows of the other target.

The prompts come from the results files of both targets. No test row is read. The scores are kept in
the runs folder, so the same command continues what was cut.
"""

import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.optimisers import NAMES
from benchmarks.record import format_table, write_json
from benchmarks.search.cells import average, score_rows
from benchmarks.search.lab import BUILTIN, Protocol, load_target, load_withheld_rows, name_target
from benchmarks.tasks import BenchTask, load_task
from remask.ports import TargetModel

NOT_RUN = "No prompt has been scored on the other target yet."


@dataclass(frozen=True, slots=True)
class Found:
    """The prompt at the end of a run, and its mean on the withheld rows of its own target."""

    task: str
    optimiser: str
    seed: int
    calls: int
    prompt: str
    score: float
    rows: int  # how many withheld rows


@dataclass(frozen=True, slots=True)
class Transfer:
    """Means on withheld rows: of the seed prompt and of a found prompt, on both targets."""

    found_for: str  # the target of the search
    calls: int
    task: str
    optimiser: str
    seed: int
    seed_own: float
    found_own: float
    seed_other: float
    found_other: float


def list_found(results: Mapping[int, Mapping[str, Any]]) -> list[Found]:
    """The prompts at the end of all runs. results: of a results file, by its budget."""
    return [
        Found(
            row["task"], row["optimiser"], row["seed"], calls,
            row["prompt"], row["withheld"], len(row["withheld_rows"]),
        )
        for calls, data in sorted(results.items())
        for row in data["rows"]
        if row["calls"] == calls
    ]  # fmt: skip


def score_found(
    found: Sequence[Found],
    own: str,
    other: str,
    data: Path,
    runs: Path,
    load: Callable[[BenchTask, str], TargetModel] = load_target,
) -> list[Transfer]:
    """Score prompts of one task that were found for the target `own` on the target `other`."""
    bench = load_task(found[0].task)
    targets = {place: load(bench, place) for place in (own, other)}

    def score(place: str, prompt: str, n: int) -> float:
        rows = load_withheld_rows(bench, data, Protocol(withheld=n))
        return round(average(score_rows(bench, rows, targets[place], prompt, runs)), 4)

    return [
        Transfer(
            name_target(own), one.calls, one.task, one.optimiser, one.seed,
            seed_own=score(own, bench.seed_prompt, one.rows),
            found_own=one.score,
            seed_other=score(other, bench.seed_prompt, one.rows),
            found_other=score(other, one.prompt, one.rows),
        )
        for one in found
    ]  # fmt: skip


def measure_transfer(
    found: Mapping[str, Sequence[Found]], data: Path, runs: Path, out: Path, jobs: int, about: dict[str, str]
) -> None:
    """Score the prompts found for each of two targets on the other one; `out` is written task by task.

    found: by the target, with its place on this machine.
    """
    first, second = found
    groups = [(part, own, other) for own, other in ((first, second), (second, first))
              for part in _group_by_task(found[own])]  # fmt: skip
    prompts = {(other, one.task, one.prompt) for part, _, other in groups for one in part}
    print(f"{len(prompts)} different prompts to score in {len(groups)} groups", flush=True)
    scored: list[Transfer] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting = [pool.submit(score_found, *group, data, runs) for group in groups]
        for n, future in enumerate(as_completed(waiting), 1):
            scored += future.result()
            rows = sorted(map(asdict, scored), key=lambda row: tuple(row.values()))
            write_json(out, {**about, "rows": rows})
            print(f"{n}/{len(groups)} groups", flush=True)


def _group_by_task(found: Iterable[Found]) -> list[list[Found]]:
    groups: dict[str, list[Found]] = defaultdict(list)
    for one in found:
        groups[one.task].append(one)
    return list(groups.values())


def format_transfer(rows: Iterable[Mapping[str, Any]]) -> str:
    """Gains by optimiser on both targets, and below them every prompt."""
    found = [Transfer(**row) for row in rows]
    if not found:
        return NOT_RUN
    parts = [
        "Mean gain over the seed prompt on withheld rows, in points:",
        tabulate_gains(found),
        "Every prompt, on withheld rows:",
        tabulate_prompts(found),
    ]
    return "\n\n".join(parts)


def tabulate_gains(found: Sequence[Transfer]) -> str:
    """One line per target, calls and optimiser: the mean gain over its runs."""
    groups: dict[tuple[str, int, str], list[Transfer]] = defaultdict(list)
    for one in found:
        groups[one.found_for, one.calls, one.optimiser].append(one)
    order = sorted(groups, key=lambda key: (key[0] != BUILTIN, key[1], list(NAMES).index(key[2])))
    lines = []
    for target, calls, optimiser in order:
        group = groups[target, calls, optimiser]
        gains = [
            100 * mean(one.found_own - one.seed_own for one in group),
            100 * mean(one.found_other - one.seed_other for one in group),
        ]
        lines.append(
            [f"`{target}`", NAMES[optimiser], calls, len(group), *(f"{gain:+.1f}" for gain in gains)]
        )
    head = ["found for", "optimiser", "calls", "runs", "gain on its own target", "gain on the other target"]
    return format_table(head, lines)


def tabulate_prompts(found: Sequence[Transfer]) -> str:
    """One line per run: seed prompt and found prompt on both targets."""
    head = [
        "found for", "task", "optimiser", "seed", "calls", "own target: seed prompt", "found",
        "other target: seed prompt", "found",
    ]  # fmt: skip
    lines = []
    for one in found:
        scores = (one.seed_own, one.found_own, one.seed_other, one.found_other)
        points = [f"{100 * score:.1f}" for score in scores]
        lines.append([f"`{one.found_for}`", one.task, NAMES[one.optimiser], one.seed, one.calls, *points])
    return format_table(head, lines)
