"""The endpoint of the second grid: remask against the best other row, at two budgets of separate runs.

The best other row is chosen on withheld rows and compared on test rows, so its choice does not
favour it there. Both budgets are tested, and their p-values are corrected by Holm's method (1979).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import beta

from benchmarks.optimisers import NAMES
from benchmarks.search.bootstrap import Difference, compare_tables
from benchmarks.search.scores import Rows, average_tasks, collect_scores, find_shared_seeds, find_whole

OURS = "remask"
# No other row: remask itself, what is built on it, and its control.
KIN = frozenset(
    (OURS, "remask_again", "remask_plain", "remask_demos", "remask_strong", "gepa_remask", "random_edits")
)
BUDGETS = (200, 800)  # target calls of the separate runs, fixed before the grid was run
HARMED = 0.01  # a run is harmed that ends more than this below the seed prompt on test rows
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Endpoint:
    """remask minus the best other row after separate runs with one budget."""

    budget: int
    other: str
    among: int  # how many other rows the best one was chosen from
    gap: Difference
    p: float  # corrected over the budgets

    def __str__(self) -> str:
        said = "above zero" if self.p <= LEVEL and self.gap.mean > 0 else "not above zero"
        gap = self.gap
        return (
            f"remask minus {NAMES[self.other]} (best of {self.among} other rows), {self.budget} calls: "
            f"{gap.mean:+.1f} points "
            f"(95 % interval {gap.low:+.1f} to {gap.high:+.1f}; p = {self.p:.3f} after Holm: {said})"
        )


def judge_endpoints(rows_by_budget: Mapping[int, Rows], planned: int = len(BUDGETS)) -> list[Endpoint]:
    """Judge the endpoint of every budget that has rows to compare.

    planned: the number of budgets that are tested in the end. A budget that cannot be judged yet
    counts in the correction too, with p = 1, so the first result is not better for being first.
    """
    found = []
    for budget, rows in sorted(rows_by_budget.items()):
        if ranked := rank_others(rows, budget):
            found.append((budget, ranked[0], len(ranked), compare_rows(rows, budget, ranked[0])))
    corrected = correct_by_holm([gap.p for *_, gap in found] + [1.0] * (planned - len(found)))
    return [Endpoint(*one, p) for one, p in zip(found, corrected, strict=False)]


def find_tested(rows: Rows, budget: int) -> Rows:
    """The rows at the end of runs with this budget whose test is finished."""
    return [row for row in rows if row["calls"] == budget and "test_rows" in row]


def rank_others(rows: Rows, budget: int) -> list[str]:
    """The other rows that have all tasks and seeds of remask, by their mean on withheld rows."""
    ends = find_tested(rows, budget)
    seeds = find_shared_seeds(ends, [OURS])
    others = sorted({row["optimiser"] for row in ends} - KIN)
    whole = find_whole(ends, others, [OURS]) if seeds else []
    means = {n: average_tasks(collect_scores(ends, n, budget, "withheld_rows", seeds)) for n in whole}
    return sorted(means, key=lambda name: -means[name])


def compare_rows(rows: Rows, budget: int, other: str) -> Difference:
    """remask minus `other` on test rows, on the pairs of task and seed that both have."""
    ends = find_tested(rows, budget)
    seeds = find_shared_seeds(ends, [OURS, other])
    ours, theirs = (collect_scores(ends, name, budget, "test_rows", seeds) for name in (OURS, other))
    return compare_tables(ours, theirs)


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


def count_harmed(rows: Rows, optimisers: Sequence[str] = (OURS,)) -> tuple[int, int]:
    """Return how many runs of these optimisers are harmed, and how many have a test."""
    # Stored means have four digits, so rounding leaves a run that lost exactly a point where it is.
    gains = [
        round(r["test"] - r["seed_test"], 4) for r in rows if r["optimiser"] in optimisers and "test" in r
    ]
    return sum(gain < -HARMED for gain in gains), len(gains)


def bound_share(count: int, n: int, level: float = 0.95) -> float:
    """The exact upper bound of a share (Clopper and Pearson 1934), one-sided.

    >>> round(bound_share(0, 100), 4)
    0.0295
    """
    return 1.0 if count == n else float(beta.ppf(level, count + 1, n - count))
