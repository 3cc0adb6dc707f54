"""The endpoint of the second grid: remask against the best other row, at two budgets of separate runs.

The best other row is chosen on withheld rows and compared on test rows, so its choice does not
favour it there. Both budgets are tested, and their p-values are corrected by Holm's method (1979).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.optimisers import NAMES
from benchmarks.search.bootstrap import Difference, compare_tables
from benchmarks.search.cells import unpack

OURS = "remask"
# No other row: remask itself, what is built on it, and its control.
KIN = frozenset(
    (OURS, "remask_again", "remask_plain", "remask_demos", "remask_strong", "gepa_remask", "random_edits")
)
HARMED = 0.01  # a run is harmed that ends more than this below the seed prompt on test rows
LEVEL = 0.05
Rows = Sequence[Mapping[str, Any]]
Tables = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """remask minus the best other row after separate runs with one budget."""

    budget: int
    other: str
    gap: Difference
    p: float  # corrected over the budgets

    def __str__(self) -> str:
        said = "above zero" if self.p <= LEVEL and self.gap.mean > 0 else "not above zero"
        gap = self.gap
        return (
            f"remask minus {NAMES[self.other]}, {self.budget} calls: {gap.mean:+.1f} points "
            f"(95 % interval {gap.low:+.1f} to {gap.high:+.1f}; p = {self.p:.3f} after Holm: {said})"
        )


def judge_endpoints(rows_by_budget: Mapping[int, Rows]) -> list[Endpoint]:
    """Judge the endpoint of every budget. Raises SystemExit where rows to compare are missing."""
    found = [(budget, *compare_best(rows, budget)) for budget, rows in sorted(rows_by_budget.items())]
    corrected = correct_by_holm([gap.p for _, _, gap in found])
    return [Endpoint(*one, p) for one, p in zip(found, corrected, strict=True)]


def compare_best(rows: Rows, budget: int) -> tuple[str, Difference]:
    """Return the best other row by its mean on withheld rows, and the difference on test rows."""
    ends = [row for row in rows if row["calls"] == budget and "test_rows" in row]
    others = {row["optimiser"] for row in ends} - KIN
    pairs = {name: {(r["task"], r["seed"]) for r in ends if r["optimiser"] == name} for name in others}
    ours = {(r["task"], r["seed"]) for r in ends if r["optimiser"] == OURS}
    whole = sorted(name for name in others if ours and pairs[name] >= ours)
    if not whole:
        raise SystemExit(f"{budget} calls: no other row has all tasks and seeds of remask; continue the grid")
    best = max(whole, key=lambda name: _average(_collect(ends, name, ours, "withheld_rows")))
    mine, theirs = (_collect(ends, name, ours, "test_rows") for name in (OURS, best))
    return best, compare_tables(mine, theirs)


def correct_by_holm(p: Sequence[float]) -> list[float]:
    """Correct p-values by Holm's method; they keep their order.

    >>> correct_by_holm([0.04, 0.01])
    [0.04, 0.02]
    """
    corrected, least = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = least
    return corrected


def count_harmed(rows: Rows, optimiser: str = OURS) -> tuple[int, int]:
    """Return how many runs of an optimiser are harmed, and how many have a test."""
    gains = [r["test"] - r["seed_test"] for r in rows if r["optimiser"] == optimiser and "test" in r]
    return sum(gain < -HARMED for gain in gains), len(gains)


def _collect(rows: Rows, optimiser: str, pairs: set[tuple[str, int]], key: str) -> Tables:
    """Return the scores (seeds, rows) of an optimiser by task, on these pairs of task and seed."""
    found = {(r["task"], r["seed"]): unpack(r[key]) for r in rows if r["optimiser"] == optimiser}
    tasks = sorted({task for task, _ in pairs})
    return {t: np.array([found[p] for p in sorted(pairs) if p[0] == t], dtype=float) for t in tasks}


def _average(scores: Tables) -> float:
    return float(np.mean([np.nanmean(table) for table in scores.values()]))
