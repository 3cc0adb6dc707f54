"""Write the page of a trained adapter, docs/results/adapter.md, with its loss curve.

    python -m benchmarks.denoiser.adapter_report --gather FOLDER --about COMMIT MACHINE
    python -m benchmarks.denoiser.adapter_report --page

The first form collects what adapter.sh, the benchmarks ablation, fills and domain, and the search
benchmark left in FOLDER (docs/results/adapter.md lists the names of the files), and writes it to
benchmarks/results/adapter.json. Both forms write the page and the picture from that file.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure

from benchmarks.record import (
    DOCS,
    RESULTS,
    add_page_option,
    format_table,
    link_picture,
    make_parser,
    read_json,
    write_blocks,
    write_json,
    write_svg,
)
from benchmarks.search.bootstrap import compare_tables
from benchmarks.search.scores import Rows, collect_scores, find_shared_seeds

FIGURES, GRID = RESULTS / "adapter.json", RESULTS / "search.json"
PAGE = DOCS / "results" / "adapter.md"
PICTURE = PAGE.with_name("adapter.svg")
SMOOTH = 20  # steps whose mean loss is one point of the curve
PARTS = {  # part of the results: the file that holds it
    "infill": "infill.json",
    "infill_first": "infill-first.json",
    "fills": "fills.json",
    "fills_first": "fills-first.json",
    "domain": "domain.json",
}
SEARCHES = {  # optimisers whose prompts are compared on withheld rows: their names in the table
    "nothing": "the seed prompt",
    "random_edits": "random words",
    "first": "first adapter",
    "remask": "this one",
}
SEARCHED = ("sst2", "sst5", "snli", "mrpc")


def gather(folder: Path, commit: str, machine: str) -> dict[str, Any]:
    """Collect all figures of one adapter; parts that were not run are missing."""
    log = join_stages(sorted(folder.glob("run*.log.jsonl")))
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
        found["searches"] = compare_searches(folder / "search-first.json", GRID)
    if (folder / "arms.jsonl").exists():
        lines = (folder / "arms.jsonl").read_text("utf-8").splitlines()
        found["arms"] = [
            {key: value for key, value in json.loads(line).items() if key != "losses"} for line in lines
        ]
    return found


def compare_searches(first: Path, grid: Path) -> dict[str, Any]:
    """Mean score of the final prompts of searches, by task and denoiser, and the differences of the
    mean over SEARCHED, in points. Only pairs of task and seed that all of them have count."""
    ours, theirs = read_json(grid), read_json(first)
    rows: Rows = ours["rows"]
    rows += [{**r, "optimiser": "first"} for r in theirs["rows"] if r["optimiser"] == "remask"]
    calls = max(row["calls"] for row in rows)
    seeds = {t: s for t, s in find_shared_seeds(rows, list(SEARCHES)).items() if t in SEARCHED}
    scores = {name: collect_scores(rows, name, calls, "withheld_rows", seeds) for name in SEARCHES}
    gaps = {other: compare_tables(scores["remask"], scores[other]) for other in ("random_edits", "first")}
    return {
        "calls": calls,
        "seeds": seeds,
        "scores": {
            name: {task: round(100 * float(table.mean()), 1) for task, table in by_task.items()}
            for name, by_task in scores.items()
        },
        "differences": {o: [round(g.mean, 1), round(g.low, 1), round(g.high, 1)] for o, g in gaps.items()},
        "commits": {"grid": ours["commit"], "first": theirs["commit"]},
    }


def join_stages(logs: Sequence[Path]) -> list[dict[str, Any]]:
    """The lines of all stages, with steps that are counted through.

    A step that was repeated after a kill keeps its later line.
    """
    found: list[dict[str, Any]] = []
    for path in logs:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        latest = {("loss" in row, row["step"]): row for row in rows}
        before = found[-1]["step"] if found else 0
        later = [{**row, "step": before + row["step"]} for row in latest.values()]
        found += sorted(later, key=lambda row: row["step"])
    return found


def draw_picture(found: dict[str, Any]) -> Figure:
    """Draw training loss and held-out nats over steps."""
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
        at, denoiser, base = zip(*points, strict=True)
        axes.plot(at, denoiser, color=colour, marker="o", label=f"held out, {what}")
        axes.plot(at, base, color=colour, linestyle=":", label=f"its base, {what}")
    axes.set_xlabel("step")
    axes.set_ylabel("nats per hidden token")
    axes.legend(loc="upper right", frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def tabulate_nats(found: dict[str, Any]) -> str:
    """Nats per hidden token of held-out prompts, by what is hidden."""
    head = "hidden|n|base, left side|first adapter|this one|below the base|no conversations"
    first, rows = found.get("infill_first", {}), []
    for what, one in found["infill"].items():
        before = f"{first[what]['left_to_right']:.2f}" if what in first else ""
        below = f"{1 - one['left_to_right'] / one['base']:.0%}"
        rest = [f"{one[key]:.2f}" for key in ("without_traces", "at_once")]
        base, after = f"{one['base']:.2f}", f"{one['left_to_right']:.2f}"
        rows.append([what, one["prompts"], base, before, after, below, *rest])
    return format_table([*head.split("|"), "one step"], rows)


def tabulate_fills(found: dict[str, Any]) -> str:
    """Properties of fills by denoiser and base, beside those of the text itself."""
    first = found.get("fills_first", {})
    fills = [*found["fills"].items()]
    fills += [(f"{name}, first adapter", row) for name, row in first.items() if "denoiser" in name]
    form = "{nats:.2f}|{chrf:.1f}|{distinct_2:.2f}|{doubled:.0%}|{copied:.0%}|{words:.1f}"
    head = "fill|nats|chrF|distinct-2|word twice|copied|words"
    rows = [[name, *form.format(**row).split("|")] for name, row in fills]
    return format_table(head.split("|"), rows)


def tabulate_domain(found: dict[str, Any]) -> str:
    """Nats before and after an adaptation to a new domain."""
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
    return words + format_table(["prompts, hidden", "n", "base", "before", "after"], rows)


def tabulate_searches(found: dict[str, Any]) -> str:
    """Scores of the prompts that searches with this adapter and others found."""
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
    return f"{words}\n\n" + format_table(["denoiser", *ends["seeds"], "mean"], rows)


def tabulate_arms(found: dict[str, Any]) -> str:
    """Training loss of short runs that differ in one setting."""
    rows = [[arm["arm"], f"{arm['loss']:.3f}"] for arm in found["arms"]]
    return format_table(["arm", "loss, last 30 of 60 steps"], rows)


def format_figures(found: dict[str, Any]) -> str:
    """The generated block of the page: all tables whose part was run."""
    parts = [
        f"Trained at commit {found['commit']} on {found['machine']}: {found['steps']} steps, "
        f"{found['hours']} hours.",
        link_picture("Loss by step", PICTURE, PAGE),
    ]
    for key, title, shown in (
        ("infill", "Nats per hidden token", tabulate_nats),
        ("fills", "What the sampler writes", tabulate_fills),
        ("domain", "A new domain", tabulate_domain),
        ("searches", "In the search", tabulate_searches),
        ("arms", "Arms", tabulate_arms),
    ):
        if key in found:
            parts += [f"### {title}", shown(found)]
    return "\n\n".join(parts)


def write_page() -> None:
    """Write figures and picture of the page from the committed results."""
    found = read_json(FIGURES)
    write_svg(draw_picture(found), PICTURE)
    write_blocks(PAGE, {"figures": format_figures(found)})


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__file__, __doc__)
    option = parser.add_argument
    option("--gather", type=Path, metavar="FOLDER", help="Collect the figures of this folder first.")
    option(
        "--about", nargs=2, metavar=("COMMIT", "MACHINE"), default=("", ""),
        help="The commit and the machine of the training run.",
    )  # fmt: skip
    add_page_option(parser)
    args = parser.parse_args(words)
    if bool(args.gather) == args.page:
        parser.error("give either --gather FOLDER or --page")
    if args.gather:
        write_json(FIGURES, gather(args.gather, *args.about))
    write_page()


if __name__ == "__main__":
    main()
