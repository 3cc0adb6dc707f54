"""The page of a trained adapter, docs/adapter.md, with its loss curve.

    python benchmarks/adapter_report.py --gather FOLDER --about COMMIT MACHINE
    python benchmarks/adapter_report.py

The first form writes benchmarks/results/adapter.json from what adapter.sh, ablation.py, infill.py,
fills.py, domain.py and search.py left in FOLDER (docs/adapter.md lists the names), and from
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

import matplotlib
from matplotlib.figure import Figure

from benchmarks.search.bootstrap import difference
from benchmarks.search.report import Rows, balanced, tables

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "adapter.json"
GRID = ROOT / "benchmarks" / "results" / "search.json"
PAGE, PICTURE = ROOT / "docs" / "adapter.md", ROOT / "docs" / "adapter.svg"
BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"
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
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "remask"}
    figure = Figure(figsize=(8, 3.6))
    axes = figure.subplots()
    steps, losses = zip(*found["losses"], strict=True)
    axes.plot(steps, losses, color="#868e96", label="training, all corruptions")
    for what, colour in (("span 4", "#0b7285"), ("span 8", "#e8590c")):
        points = [
            (row["step"], nats["dlm"], nats["base_left"])
            for row in found["held_out"]
            for nats in row["held_out"]
            if nats["what"] == what
        ]
        at, dlm, base = zip(*points, strict=True)
        axes.plot(at, dlm, color=colour, marker="o", label=f"held out, {what}")
        axes.plot(at, base, color=colour, linestyle=":", label=f"its base, {what}")
    axes.set_xlabel("step")
    axes.set_ylabel("nats per hidden token")
    axes.legend(loc="upper right", frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})


def nats_table(found: dict[str, Any]) -> str:
    first = found.get("infill_first", {})
    head = "| hidden | n | base, left side | first adapter | this one | below the base | "
    head += "no conversations | one step |\n|---|---:|---:|---:|---:|---:|---:|---:|\n"
    rows = []
    for what, one in found["infill"].items():
        before = f"{first[what]['dlm']:.2f}" if what in first else ""
        below = 1 - one["dlm"] / one["base_left"]
        rows.append(
            f"| {what} | {one['n']} | {one['base_left']:.2f} | {before} | {one['dlm']:.2f} | "
            f"{below:.0%} | {one['no_traces']:.2f} | {one['dlm_parallel']:.2f} |"
        )
    return head + "\n".join(rows)


def fills_table(found: dict[str, Any]) -> str:
    rows = []
    first = found.get("fills_first", {})
    named = [*found["fills"].items()]
    named += [(f"{name}, first adapter", row) for name, row in first.items() if "dlm" in name]
    for name, row in named:
        rows.append(
            f"| {name} | {row['nats']:.2f} | {row['chrf']:.1f} | {row['distinct_2']:.2f} | "
            f"{row['doubled']:.0%} | {row['copied']:.0%} | {row['words']:.1f} |"
        )
    head = "| fill | nats | chrF | distinct-2 | word twice | copied | words |\n"
    return head + "|---|---:|---:|---:|---:|---:|---:|\n" + "\n".join(rows)


def domain_table(found: dict[str, Any]) -> str:
    domain, rows = found["domain"], []
    for where in ("domain", "general"):
        for what in ("span 4", "span 8"):
            before, after = (domain[f"{where}, {what}, {when}"] for when in ("before", "after"))
            rows.append(
                f"| {where} | {what} | {before['n']} | {before['base_left']:.2f} | "
                f"{before['dlm']:.2f} | {after['dlm']:.2f} |"
            )
    words = (
        f"{domain['trained']} prompts of tasks that were left out of training, {domain['steps']} "
        f"steps of `remask adapt`, {domain['minutes']:.0f} minutes. `general`: forgetting.\n\n"
    )
    head = "| prompts | hidden | n | base | before | after |\n|---|---|---:|---:|---:|---:|\n"
    return words + head + "\n".join(rows)


def searches_table(found: dict[str, Any]) -> str:
    ends = found["searches"]
    tasks = list(ends["seeds"])
    lines = [f"| denoiser | {' | '.join(tasks)} | mean |", "|---|" + "---:|" * (len(tasks) + 1)]
    for name, scores in ends["scores"].items():
        shown = [f"{score:.1f}" for score in (*scores.values(), mean(scores.values()))]
        lines.append(f"| {SEARCHES[name]} | {' | '.join(shown)} |")
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
    return f"{words}\n\n" + "\n".join(lines)


def arms_table(found: dict[str, Any]) -> str:
    rows = [f"| {arm['arm']} | {arm['loss']:.3f} |" for arm in found["arms"]]
    return "| arm | loss, last 30 of 60 steps |\n|---|---:|\n" + "\n".join(rows)


def figures(found: dict[str, Any]) -> str:
    parts = [
        f"Trained at commit {found['commit']} on {found['machine']}: {found['steps']} steps, "
        f"{found['hours']} hours.",
        "![Loss by step](adapter.svg)",
    ]
    for key, title, table in (
        ("infill", "Nats per hidden token", nats_table),
        ("fills", "What the sampler writes", fills_table),
        ("domain", "A new domain", domain_table),
        ("searches", "In the search", searches_table),
        ("arms", "Arms", arms_table),
    ):
        if key in found:
            parts += [f"### {title}", table(found)]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gather", type=Path, metavar="FOLDER")
    parser.add_argument("--about", nargs=2, metavar=("COMMIT", "MACHINE"), default=("", ""))
    args = parser.parse_args()
    if args.gather:
        RESULTS.write_text(json.dumps(gather(args.gather, *args.about), indent=1) + "\n", "utf-8")
    found = json.loads(RESULTS.read_text("utf-8"))
    picture(found)
    page = PAGE.read_text("utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{figures(found)}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
