"""The page of a trained adapter, docs/adapter.md, with its loss curve.

    python benchmarks/denoiser/adapter_report.py --gather FOLDER --about COMMIT MACHINE
    python benchmarks/denoiser/adapter_report.py

The first form writes benchmarks/results/adapter.json from what adapter.sh, ablation.py, fills.py,
domain.py and search/run.py left in FOLDER (docs/adapter.md lists the names), and from
benchmarks/results/search.json; the second writes the page and the picture from it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the checkout

from matplotlib.figure import Figure

from benchmarks.record import DOCS, RESULTS, placed, table, write_json, write_svg
from benchmarks.search.bootstrap import difference
from benchmarks.search.report import Rows, balanced, tables

ADAPTER, GRID, PAGE = RESULTS / "adapter.json", RESULTS / "search.json", DOCS / "adapter.md"
SMOOTH = 20  # steps whose mean loss is one point of the curve
PARTS = {  # of the results: the file that holds it
    "infill": "infill.json",
    "infill_first": "infill-first.json",
    "fills": "fills.json",
    "fills_first": "fills-first.json",
    "domain": "domain.json",
}
SEARCHES = {  # whose prompts are compared on withheld rows: what the table calls it
    "nothing": "the seed prompt",
    "random_edits": "random words",
    "first": "first adapter",
    "remask": "this one",
}
SEARCHED = ("sst2", "sst5", "snli", "mrpc")
# The fields of HeldOutLoss in results that were written before they were renamed.
OLD_LOSS_FIELDS = {
    "what": "pattern",
    "dlm": "left_to_right",
    "dlm_parallel": "at_once",
    "base_left": "base",
    "no_traces": "without_traces",
    "first": "first_token",
    "n": "prompts",
}


def rename_old_fields(results: Any) -> Any:
    """Give the held-out losses in `results` their present field names."""
    if isinstance(results, list):
        return [rename_old_fields(item) for item in results]
    if not isinstance(results, dict):
        return results
    names = OLD_LOSS_FIELDS if "dlm_parallel" in results else {}
    return {names.get(key, key): rename_old_fields(value) for key, value in results.items()}


def gather(folder: Path, commit: str, machine: str) -> dict[str, Any]:
    """All figures of one adapter; parts that were not run are missing."""
    log = stages(sorted(folder.glob("run*.log.jsonl")))
    steps = [row for row in log if "loss" in row]
    losses = [row["loss"] for row in steps]
    found: dict[str, Any] = {
        "commit": commit,
        "machine": machine,
        "steps": len(steps),
        "hours": round(sum(row["seconds"] for row in steps) / 3600, 2),
        "losses": [
            [i + SMOOTH, round(mean(losses[i : i + SMOOTH]), 3)]
            for i in range(0, len(losses) - SMOOTH + 1, SMOOTH)
        ],
        "held_out": [row for row in log if "held_out" in row],
    }
    for key, name in PARTS.items():
        if (folder / name).exists():
            found[key] = json.loads((folder / name).read_text("utf-8").splitlines()[-1])
    if (folder / "search-first.json").exists():
        found["searches"] = searches(folder / "search-first.json", GRID)
    if (folder / "arms.jsonl").exists():
        lines = (folder / "arms.jsonl").read_text("utf-8").splitlines()
        found["arms"] = [
            {key: value for key, value in json.loads(line).items() if key != "losses"}
            for line in lines
        ]
    return found


def searches(first: Path, grid: Path) -> dict[str, Any]:
    """Mean score of the prompts that searches end with, by task and denoiser, and the differences
    of the mean over SEARCHED in points; on the (task, seed) pairs that all of them have."""
    ours, theirs = (json.loads(path.read_text("utf-8")) for path in (grid, first))
    rows: Rows = ours["rows"]
    rows += [{**r, "optimiser": "first"} for r in theirs["rows"] if r["optimiser"] == "remask"]
    calls = max(row["calls"] for row in rows)
    seeds = {t: s for t, s in balanced(rows, list(SEARCHES)).items() if t in SEARCHED}
    scores = {name: tables(rows, name, calls, "withheld_rows", seeds) for name in SEARCHES}
    gaps = {
        other: difference(scores["remask"], scores[other]) for other in ("random_edits", "first")
    }
    return {
        "calls": calls,
        "seeds": seeds,
        "scores": {
            name: {task: round(100 * float(table.mean()), 1) for task, table in by_task.items()}
            for name, by_task in scores.items()
        },
        "differences": {
            o: [round(g.mean, 1), round(g.low, 1), round(g.high, 1)] for o, g in gaps.items()
        },
        "commits": {"grid": ours["commit"], "first": theirs["commit"]},
    }


def stages(logs: Sequence[Path]) -> list[dict[str, Any]]:
    """The lines of one stage after another with steps that go on; of a step that a kill let be done
    twice the later line."""
    found: list[dict[str, Any]] = []
    for path in logs:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        latest = {("loss" in row, row["step"]): row for row in rows}
        before = found[-1]["step"] if found else 0
        later = [{**row, "step": before + row["step"]} for row in latest.values()]
        found += sorted(later, key=lambda row: row["step"])
    return found


def picture(found: dict[str, Any]) -> None:
    """Training loss and held-out nats over steps."""
    figure = Figure(figsize=(8, 3.6))
    axes = figure.subplots()
    steps, losses = zip(*found["losses"], strict=True)
    axes.plot(steps, losses, color="#868e96", label="training, all corruptions")
    for what, colour in (("span 4", "#0b7285"), ("span 8", "#e8590c")):
        points = [
            (row["step"], nats["left_to_right"], nats["base"])
            for row in found["held_out"]
            for nats in row["held_out"]
            if nats["pattern"] == what
        ]
        at, dlm, base = zip(*points, strict=True)
        axes.plot(at, dlm, color=colour, marker="o", label=f"held out, {what}")
        axes.plot(at, base, color=colour, linestyle=":", label=f"its base, {what}")
    axes.set_xlabel("step")
    axes.set_ylabel("nats per hidden token")
    axes.legend(loc="upper right", frameon=False, fontsize=8)
    figure.tight_layout()
    write_svg(figure, DOCS / "adapter.svg")


def nats_table(found: dict[str, Any]) -> str:
    head = "hidden|n|base, left side|first adapter|this one|below the base|no conversations"
    first, rows = found.get("infill_first", {}), []
    for what, one in found["infill"].items():
        before = f"{first[what]['left_to_right']:.2f}" if what in first else ""
        below = f"{1 - one['left_to_right'] / one['base']:.0%}"
        rest = [f"{one[key]:.2f}" for key in ("without_traces", "at_once")]
        base, after = f"{one['base']:.2f}", f"{one['left_to_right']:.2f}"
        rows.append([what, one["prompts"], base, before, after, below, *rest])
    return table([*head.split("|"), "one step"], rows)


def fills_table(found: dict[str, Any]) -> str:
    first = found.get("fills_first", {})
    named = [*found["fills"].items()]
    named += [(f"{name}, first adapter", row) for name, row in first.items() if "denoiser" in name]
    form = "{nats:.2f}|{chrf:.1f}|{distinct_2:.2f}|{doubled:.0%}|{copied:.0%}|{words:.1f}"
    head = "fill|nats|chrF|distinct-2|word twice|copied|words"
    return table(head.split("|"), [[name, *form.format(**row).split("|")] for name, row in named])


def domain_table(found: dict[str, Any]) -> str:
    domain, rows = found["domain"], []
    for where in ("domain", "general"):
        for what in ("span 4", "span 8"):
            before, after = (domain[f"{where}, {what}, {when}"] for when in ("before", "after"))
            nats = (before["base"], before["left_to_right"], after["left_to_right"])
            rows.append([f"{where}, {what}", before["prompts"], *(f"{n:.2f}" for n in nats)])
    words = (
        f"{domain['trained']} prompts of tasks that were left out of training, {domain['steps']} "
        f"steps of `remask adapt`, {domain['minutes']:.0f} minutes. `general`: forgetting.\n\n"
    )
    return words + table(["prompts, hidden", "n", "base", "before", "after"], rows)


def searches_table(found: dict[str, Any]) -> str:
    ends = found["searches"]
    rows = [
        [SEARCHES[name], *(f"{score:.1f}" for score in (*scores.values(), mean(scores.values())))]
        for name, scores in ends["scores"].items()
    ]
    gaps = [
        f"this one minus {SEARCHES[other]} {at:+.1f} points (95 %: {low:+.1f} to {high:+.1f})"
        for other, (at, low, high) in ends["differences"].items()
    ]
    runs = ", ".join(f"{task} {len(seeds)}" for task, seeds in ends["seeds"].items())
    words = (
        f"Score of the prompt after {ends['calls']} target calls, withheld rows; seeds: {runs}. "
        f"Mean over the tasks: {'; '.join(gaps)}. Commits {ends['commits']['grid']} (grid) and "
        f"{ends['commits']['first']} (first adapter)."
    )
    return f"{words}\n\n" + table(["denoiser", *ends["seeds"], "mean"], rows)


def arms_table(found: dict[str, Any]) -> str:
    rows = [[arm["arm"], f"{arm['loss']:.3f}"] for arm in found["arms"]]
    return table(["arm", "loss, last 30 of 60 steps"], rows)


def figures(found: dict[str, Any]) -> str:
    parts = [
        f"Trained at commit {found['commit']} on {found['machine']}: {found['steps']} steps, "
        f"{found['hours']} hours.",
        "![Loss by step](adapter.svg)",
    ]
    for key, title, shown in (
        ("infill", "Nats per hidden token", nats_table),
        ("fills", "What the sampler writes", fills_table),
        ("domain", "A new domain", domain_table),
        ("searches", "In the search", searches_table),
        ("arms", "Arms", arms_table),
    ):
        if key in found:
            parts += [f"### {title}", shown(found)]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gather", type=Path, metavar="FOLDER")
    parser.add_argument("--about", nargs=2, metavar=("COMMIT", "MACHINE"), default=("", ""))
    args = parser.parse_args()
    if args.gather:
        write_json(ADAPTER, gather(args.gather, *args.about))
    found = rename_old_fields(json.loads(ADAPTER.read_text("utf-8")))
    picture(found)
    PAGE.write_text(placed(PAGE.read_text("utf-8"), "figures", figures(found)), "utf-8")


if __name__ == "__main__":
    main()
