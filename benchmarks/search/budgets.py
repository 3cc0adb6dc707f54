"""Tables of the second grid: separate runs of 200 and of 800 target calls, each scored on test rows.

Any part of the grid can be shown. An optimiser that lacks a task or a seed of remask is compared
with remask on the pairs of task and seed that both have, and stands in a table of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from benchmarks.optimisers import NAMES
from benchmarks.record import format_table
from benchmarks.search.bootstrap import Difference, Table, measure_spread
from benchmarks.search.endpoint import (
    BUDGETS,
    OURS,
    bound_share,
    compare_rows,
    count_harmed,
    find_tested,
    judge_endpoints,
    rank_others,
)
from benchmarks.search.report import SAME, Curves, tabulate_tasks
from benchmarks.search.scores import Rows, Seeds, average_tasks, collect_scores, find_shared_seeds, find_whole
from benchmarks.tasks import DRAWN, FREE

NOT_RUN = "This grid has not been run yet."
BEHIND = (
    "Optimisers that have not finished all tasks and seeds of remask, and remask on those that they have:"
)
NONE = "–"
PLAIN, START = "remask_plain", "nothing"
README_ROWS = 5


@dataclass(frozen=True)
class Runs:
    """The finished runs of one budget. `rows` also has their earlier checkpoints."""

    budget: int
    rows: Rows
    about: Mapping[str, str]  # commit, machine, command

    @cached_property
    def ends(self) -> Rows:
        return find_tested(self.rows, self.budget)

    @cached_property
    def optimisers(self) -> list[str]:
        return [name for name in NAMES if self.find_seeds(name)]

    @cached_property
    def whole(self) -> list[str]:
        return find_whole(self.ends, self.optimisers, [OURS])

    @cached_property
    def gaps(self) -> dict[str, Difference]:
        """remask minus every other row on test rows, on the pairs that both have."""
        return {name: compare_rows(self.rows, self.budget, name) for name in self.optimisers if name != OURS}

    def find_seeds(self, optimiser: str) -> Seeds:
        """The pairs of task and seed that this optimiser shares with remask."""
        return find_shared_seeds(self.ends, [OURS, optimiser])

    def count_pairs(self, optimiser: str) -> int:
        return sum(map(len, self.find_seeds(optimiser).values()))

    def collect_test(self, optimiser: str, seeds: Seeds) -> dict[str, Table]:
        return collect_scores(self.ends, optimiser, self.budget, "test_rows", seeds)

    def average_test(self, optimiser: str, beside: str) -> float:
        """Points of `optimiser` on test rows, on the pairs that `beside` shares with remask."""
        return 100 * average_tasks(self.collect_test(optimiser, self.find_seeds(beside)))

    def draw_curve(self, optimiser: str, after: int) -> dict[int, float]:
        """Points on withheld rows at the checkpoints of these runs above `after` calls."""
        seeds = self.find_seeds(optimiser)
        calls = sorted({row["calls"] for row in self.rows if after < row["calls"] <= self.budget})
        scores = {c: collect_scores(self.rows, optimiser, c, "withheld_rows", seeds) for c in calls}
        return {c: 100 * average_tasks(known) for c, known in scores.items()}


def read_runs(results: Mapping[int, Mapping[str, Any]]) -> list[Runs]:
    """The budgets in which remask has a finished run. results: of a results file, by its budget."""
    runs = [Runs(budget, data["rows"], data) for budget, data in sorted(results.items())]
    return [one for one in runs if one.find_seeds(OURS)]


def format_grid(runs: Sequence[Runs]) -> tuple[str, Curves]:
    """The text with its tables, and the curves for the picture."""
    if not runs:
        return NOT_RUN, {}
    curves = join_curves(runs)
    parts = [
        describe_grid(runs),
        tabulate_optimisers(runs, curves),
        *tabulate_behind(runs),
        *(_tabulate_by_task(one) for one in reversed(runs)),
        "Endpoint:",
        list_endpoints(runs),
        "remask minus every other row on test rows, in points with the 95 % interval:",
        tabulate_gaps(runs),
        *describe_noise(runs),
        describe_harm(runs),
    ]
    return "\n\n".join(parts), curves


def describe_grid(runs: Sequence[Runs]) -> str:
    missing = [str(b) for b in BUDGETS if b not in {one.budget for one in runs}]
    sizes = {row["task"]: row["n_test"] for one in runs for row in one.ends}
    tests = ", ".join(f"{task} {n:,}" for task, n in sorted(sizes.items()))
    pairs = ", ".join(f"{one.count_pairs(OURS)} at {one.budget} calls" for one in runs)
    target = runs[0].about.get("target", "builtin")
    lines = [
        f"Mean score in points over tasks. Target: `{target}`. The columns of each budget are of separate "
        "runs: curves on withheld rows, test at the end.",
        *(f"The runs of {budget} calls have not been made yet." for budget in missing),
        f"Pairs of task and seed that remask has: {pairs}. Test rows: {tests}.",
    ]
    if any(one.find_seeds(OURS) != runs[0].find_seeds(OURS) for one in runs):
        lines.append("The two budgets have different pairs so far, so their columns cannot be compared.")
    abouts = [
        f"{one.budget} calls: commit {one.about['commit']}, {one.about['machine']}, `{one.about['command']}`."
        for one in runs
    ]
    return "\n".join([*lines, "", *abouts])


def join_curves(runs: Sequence[Runs]) -> Curves:
    """Curves of the optimisers that are whole, each checkpoint from the runs of the nearest budget above."""
    curves: Curves = {}
    for after, one in zip([0, *(one.budget for one in runs)], runs, strict=False):
        for name in one.whole:
            curves.setdefault(name, {}).update(one.draw_curve(name, after))
    return {name: curves[name] for name in NAMES if name in curves}


def tabulate_optimisers(runs: Sequence[Runs], curves: Curves) -> str:
    """One line per optimiser: its curve on withheld rows, and its means on test rows."""
    calls = sorted({c for curve in curves.values() for c in curve})
    lines = []
    for name, curve in curves.items():
        points = [f"{curve[c]:.1f}" if c in curve else NONE for c in calls]
        tests = [f"{one.average_test(name, name):.1f}" if name in one.whole else NONE for one in runs]
        lines.append([NAMES[name], *points, *tests])
    head = ["optimiser", *(f"{c} calls" for c in calls), *(f"test, {one.budget} calls" for one in runs)]
    return format_table(head, lines)


def tabulate_behind(runs: Sequence[Runs]) -> list[str]:
    """Test means of optimisers that lack pairs of remask, with remask on the pairs that they have."""
    lines = [
        [
            NAMES[name], one.budget, f"{one.count_pairs(name)} of {one.count_pairs(OURS)}",
            f"{one.average_test(name, name):.1f}", f"{one.average_test(OURS, name):.1f}",
        ]
        for one in runs
        for name in one.optimisers
        if name not in one.whole
    ]  # fmt: skip
    if not lines:
        return []
    return [BEHIND, format_table(["optimiser", "calls", "pairs", "test", "remask on the same"], lines)]


def _tabulate_by_task(one: Runs) -> str:
    seeds = one.find_seeds(OURS)
    scores = {name: one.collect_test(name, seeds) for name in one.whole}
    title = f"By task, test rows at {one.budget} calls:"
    return f"{title}\n\n{tabulate_tasks(scores, list(seeds))}"


def list_endpoints(runs: Sequence[Runs]) -> str:
    """remask minus the best other row at each budget, or that no other row is as far as remask."""
    judged = judge_endpoints({one.budget: one.rows for one in runs})
    lines = [f"- {endpoint}" for endpoint in judged]
    for budget in BUDGETS:
        if budget not in {endpoint.budget for endpoint in judged}:
            lines.append(f"- {budget} calls: no other row has all tasks and seeds of remask yet")
    return "\n".join(lines)


def tabulate_gaps(runs: Sequence[Runs]) -> str:
    """One line per other row: remask minus it, and on how many pairs of task and seed."""
    head = ["remask minus …"]
    for one in runs:
        head += [f"{one.budget} calls", "pairs"]
    lines = []
    for name in NAMES:
        if not any(name in one.gaps for one in runs):
            continue
        line = [NAMES[name]]
        for one in runs:
            known = name in one.gaps
            line += [_format_gap(one.gaps[name]), str(one.count_pairs(name))] if known else [NONE, "0"]
        lines.append(line)
    return format_table(head, lines)


def _format_gap(gap: Difference) -> str:
    return f"{gap.mean:+.1f} ({gap.low:+.1f} to {gap.high:+.1f})"


def describe_noise(runs: Sequence[Runs]) -> list[str]:
    """How much two runs of remask differ by chance alone."""
    ours, again = SAME
    found = []
    for one in runs:
        if seeds := one.find_seeds(again):
            spread = measure_spread(*(one.collect_test(name, seeds) for name in (ours, again)))
            found.append(f"{spread:.1f} points at {one.budget} calls")
    if not found:
        return []
    return [f"Noise floor: two runs on the same rows differ by {' and '.join(found)} (root mean square)."]


def describe_harm(runs: Sequence[Runs]) -> str:
    """How many runs of all budgets end more than a point below the seed prompt."""
    said = []
    for name, optimisers in (("remask", (OURS,)), ("remask and its A/A runs", SAME)):
        counts = [count_harmed(one.ends, optimisers) for one in runs]
        harmed, n = (sum(column) for column in zip(*counts, strict=True))
        share, bound = 100 * harmed / n, 100 * bound_share(harmed, n)
        said.append(f"- {name}: {harmed} of {n} ({share:.1f} %; upper bound {bound:.1f} %)")
    title = "Runs that end more than a point below the seed prompt on test rows, exact one-sided 95 % bound:"
    return "\n".join([title, "", *said])


def summarize_grid(runs: Sequence[Runs], tasks: Sequence[str] = (*FREE, *DRAWN)) -> str | None:
    """The five rows of the README; None before remask and others have all `tasks` at both budgets.

    These are remask, remask without demonstrations, the seed prompt, and the best other rows in the
    ranking on withheld rows after the most calls.
    """
    whole = [one.budget for one in runs if set(tasks) <= set(one.find_seeds(OURS))]
    if whole != list(BUDGETS):
        return None
    last = runs[-1]
    others = [name for name in rank_others(last.rows, last.budget) if name != START]
    if not others:
        return None
    fixed = [name for name in (PLAIN, START) if name in last.whole]
    best = others[: README_ROWS - 1 - len(fixed)]
    shown = [name for name in (OURS, PLAIN, *best, START) if name in (OURS, *fixed, *best)]
    head = [""]
    for one in runs:
        head += [f"{one.budget} calls", "remask minus it"]
    lines = []
    for name in shown:
        line = [NAMES[name]]
        for one in runs:
            line.append(f"{one.average_test(name, name):.1f}" if name in one.whole else NONE)
            line.append(_format_gap(one.gaps[name]) if name in one.gaps and name in one.whole else NONE)
        lines.append(line)
    return f"{_describe_summary(runs)}\n\n{format_table(head, lines)}"


def _describe_summary(runs: Sequence[Runs]) -> str:
    tasks = len(runs[-1].find_seeds(OURS))
    pairs = " and ".join(f"{one.count_pairs(OURS)} runs of {one.budget} calls" for one in runs)
    return (
        f"Mean score in points on sealed test rows over {tasks} tasks that the target answers in its own "
        f"words, {pairs} for each row; in brackets the 95 % interval:"
    )
