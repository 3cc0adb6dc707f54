"""Tables and picture of the first grid, whose runs of 800 calls are read at four checkpoints.

Only pairs of task and seed that every compared optimiser has are compared.
"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.optimisers import NAMES
from benchmarks.record import format_table
from benchmarks.search.bootstrap import Difference, Table, compare_tables, find_calls_to_share, measure_spread
from benchmarks.search.scores import Rows, Seeds, average_tasks, collect_scores, find_shared_seeds, find_whole

PRIMARY = (("remask", "random_edits"), ("remask", "few_shot"))  # fixed before the grid was run
BESIDE = (
    ("remask", "rewriter"),
    ("remask", "gepa_reflector"),
    ("remask", "gepa_remask"),
    ("remask_demos", "few_shot"),
)
ENDPOINT = {name for pair in PRIMARY for name in pair}
BASELINE = {"remask", "nothing"}  # beside optimisers that ran on a part of the grid
SUMMARY = ("nothing", "random_edits", "gepa_reflector", "rewriter", "few_shot")  # of the README
SAME = ("remask", "remask_again")  # A/A: the noise of a comparison without a difference
COLOURS = (
    "#0b7285", "#3bc9db", "#e8590c", "#5f3dc4", "#2b8a3e", "#c2255c", "#1864ab", "#868e96",
    "#212529", "#82c91e",
)  # fmt: skip
LINES = ("solid", "dashed")  # with the colours, more than there are optimisers
BEHIND = "Optimisers that were played on fewer seeds, and remask on the same:"
Curves = dict[str, dict[int, float]]  # points by calls, for each optimiser


def format_report(data: dict[str, Any]) -> tuple[str, Curves]:
    """The text with its tables, and the curves for the picture. Raises SystemExit.

    Optimisers that lack a pair of task and seed which the endpoint has come after it, on the pairs
    that all of them share with remask and the seed prompt.
    """
    rows: Rows = data["rows"]
    optimisers = [name for name in NAMES if any(r["optimiser"] == name for r in rows)]
    endpoint = [name for name in optimisers if name in ENDPOINT] or optimisers
    seeds = find_shared_seeds(rows, endpoint)
    if not seeds:
        raise SystemExit("no task has a seed that all optimisers finished; continue the grid")
    whole = find_whole(rows, optimisers, endpoint)
    words, curves = format_section(rows, whole, seeds)
    about = f"Commit {data['commit']}, {data['machine']}, `{data['command']}`."
    parts = [f"Mean score in points over tasks; curves on withheld rows. {about}", "", words]
    behind = [name for name in optimisers if name not in whole]
    beside = [name for name in whole if name in BASELINE] + behind
    if behind and (fewer := find_shared_seeds(rows, beside)):
        parts += ["", BEHIND, "", format_section(rows, beside, fewer)[0]]
    return "\n".join(parts), curves


def format_section(rows: Rows, optimisers: list[str], seeds: Seeds) -> tuple[str, Curves]:
    """Tables and differences of `optimisers` on `seeds`, which all of them have; their curves."""
    calls = sorted({r["calls"] for r in rows})
    last = calls[-1]
    curves = {
        name: {c: 100 * average_tasks(collect_scores(rows, name, c, "withheld_rows", seeds)) for c in calls}
        for name in optimisers
    }
    ends = [r for r in rows if r["calls"] == last and r["optimiser"] in optimisers]
    ends = [r for r in ends if r["seed"] in seeds.get(r["task"], ())]
    tested = all("test" in r for r in ends)
    key = "test_rows" if tested else "withheld_rows"
    scores = {name: collect_scores(rows, name, last, key, seeds) for name in optimisers}
    said = f"Pairs of task and seed: {sum(map(len, seeds.values()))}."
    if tested:
        sizes = {r["task"]: r["n_test"] for r in ends}
        said += f" Test rows: {', '.join(f'{task} {sizes[task]:,}' for task in seeds)}."
    where = f"{'test' if tested else 'withheld'} rows at {last} calls"
    lines = tabulate_calls(curves, {n: average_tasks(s) for n, s in scores.items()} if tested else {})
    parts = [said, "", lines, "", f"By task, {where}:", "", tabulate_tasks(scores, list(seeds))]
    return "\n".join([*parts, "", *describe_differences(scores, where)]), curves


def tabulate_calls(curves: Curves, test: dict[str, float]) -> str:
    """One line per optimiser: its curve, its mean on test rows, and how soon it gained."""
    start = curves.get("nothing")
    calls = list(next(iter(curves.values())))
    head = ["optimiser", *(f"{c} calls" for c in calls), *(["test"] if test else [])]
    if start:
        head.append("calls to 90 % of the gain")
    lines = []
    for name, curve in curves.items():
        line = [NAMES[name], *(f"{curve[c]:.1f}" for c in calls)]
        if test:
            line.append(f"{100 * test[name]:.1f}")
        if start:
            line.append(str(find_calls_to_share(curve, start[calls[-1]]) or "–"))
        lines.append(line)
    return format_table(head, lines)


def tabulate_tasks(scores: dict[str, dict[str, Table]], tasks: list[str]) -> str:
    """One line per optimiser, one column per task: means hide how much tasks differ."""
    return format_table(
        ["optimiser", *tasks],
        [
            [NAMES[name], *(f"{100 * float(np.nanmean(known[task])):.1f}" for task in tasks)]
            for name, known in scores.items()
        ],
    )


def describe_differences(scores: dict[str, dict[str, Table]], where: str) -> list[str]:
    """The primary endpoint, the other comparisons, and how much two runs of remask differ."""

    def said(ours: str, theirs: str) -> str:
        gap = _format_difference(compare_tables(scores[ours], scores[theirs]))
        return f"- {NAMES[ours]} minus {NAMES[theirs]}, {where}: {gap}"

    out: list[str] = []
    for title, pairs in (("Primary endpoint:", PRIMARY), ("Beside it:", BESIDE)):
        if lines := [said(*pair) for pair in pairs if set(pair) <= set(scores)]:
            out += [*([""] if out else []), title, "", *lines]
    if set(SAME) <= set(scores):
        floor = measure_spread(*(scores[name] for name in SAME))
        one = f"two runs on the same rows differ by {floor:.1f} points (root mean square)"
        out += ["", f"Noise floor: {one}.", "", said(*SAME)]
    return out


def choose_style(optimiser: str) -> tuple[str, str]:
    """Colour and line of an optimiser, the same in every picture and different for each."""
    i = list(NAMES).index(optimiser)
    return COLOURS[i % len(COLOURS)], LINES[i // len(COLOURS)]


def draw_curves(curves: Curves) -> Figure:
    """Draw score in points over target calls, on a logarithmic axis; the best name stands first."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    ends = {name: curve[max(curve)] for name, curve in curves.items()}
    for name in sorted(curves, key=lambda name: -ends[name]):
        colour, line = choose_style(name)
        calls = sorted(curves[name])
        points = [curves[name][c] for c in calls]
        # The dot shows a curve of one point, where the other runs are not finished yet.
        axes.plot(
            calls, points, color=colour, linestyle=line, marker=".", label=f"{NAMES[name]} ({ends[name]:.1f})"
        )
    ticks = sorted({c for curve in curves.values() for c in curve})
    axes.set_xscale("log")
    axes.set_xticks(ticks, labels=map(str, ticks))
    axes.minorticks_off()
    axes.set(xlabel="target calls", ylabel="score on withheld rows")
    axes.grid(axis="y", color="#dee2e6")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, labelcolor="linecolor")
    return figure


def summarize(rows: Rows) -> str:
    """The table of the README: remask minus others on the sealed test rows."""
    seeds = find_shared_seeds(rows, ["remask", *SUMMARY])
    calls = max(r["calls"] for r in rows)
    ours = collect_scores(rows, "remask", calls, "test_rows", seeds)
    theirs = {name: collect_scores(rows, name, calls, "test_rows", seeds) for name in SUMMARY}
    gaps = {NAMES[name]: compare_tables(ours, scores) for name, scores in theirs.items()}
    lines = [[name, f"{g.mean:+.1f}", f"{g.low:+.1f} to {g.high:+.1f}"] for name, g in gaps.items()]
    return format_table(["remask minus …", "points", "95 % interval"], lines)


def _format_difference(gap: Difference) -> str:
    return f"{gap.mean:+.1f} points (95 % interval {gap.low:+.1f} to {gap.high:+.1f})"
