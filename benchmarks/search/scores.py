"""Scores of optimisers from the rows of results files, paired by task and seed."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.search.bootstrap import Table
from benchmarks.search.cells import unpack

Rows = Sequence[Mapping[str, Any]]  # one per task, optimiser, seed and calls
Seeds = dict[str, list[int]]  # by task


def collect_scores(
    rows: Rows, optimiser: str, calls: int, key: str, seeds: Mapping[str, list[int]]
) -> dict[str, Table]:
    """Scores (seeds, rows) by task, for the seeds of `seeds`."""
    found = {
        (r["task"], r["seed"]): unpack(r[key])
        for r in rows
        if r["optimiser"] == optimiser and r["calls"] == calls and key in r
    }
    return {
        task: np.array([found[task, s] for s in chosen], dtype=float)
        for task, chosen in seeds.items()
        if all((task, s) in found for s in chosen)
    }


def find_shared_seeds(rows: Rows, optimisers: Sequence[str]) -> Seeds:
    """The seeds of each task that every one of `optimisers` has finished."""
    have: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        have[row["task"]][row["optimiser"]].add(row["seed"])
    shared = {t: sorted(set.intersection(*(by[o] for o in optimisers))) for t, by in have.items()}
    return {task: seeds for task, seeds in shared.items() if seeds}


def find_whole(rows: Rows, optimisers: Sequence[str], needed: Sequence[str]) -> list[str]:
    """Those of `optimisers` that have every pair of task and seed which all of `needed` have."""
    seeds = find_shared_seeds(rows, needed)
    return [name for name in optimisers if find_shared_seeds(rows, [*needed, name]) == seeds]


def average_tasks(scores: Mapping[str, Table]) -> float:
    """The mean over tasks of the means of their tables."""
    return float(np.mean([np.nanmean(table) for table in scores.values()]))
