"""Compare numbers of denoising steps on tasks of the search benchmark.

    python -m benchmarks.denoiser.steps --data FOLDER [--tasks NAME …] [--rounds 6]
    python -m benchmarks.denoiser.steps --page

The data folder is that of `python -m benchmarks.search`; only train.jsonl and validation.jsonl are
opened. After each task benchmarks/results/steps.json is written, where tasks that are not named
keep their figures; then the page docs/results/steps.md with its tables and picture. Seconds are
processor seconds of one thread, so other work on the machine does not count.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from benchmarks.denoiser.step_report import draw_picture, format_report
from benchmarks.denoiser.step_study import Cell, Design, Study, run_study
from benchmarks.record import (
    DOCS,
    RESULTS,
    add_page_option,
    describe_run,
    link_picture,
    make_parser,
    read_json,
    write_blocks,
    write_json,
    write_whole,
)
from benchmarks.search.lab import Lab, load_target, open_lab
from benchmarks.tasks import load_task
from remask.data.dataset import Columns, load
from remask.dlm.adapter import SHIPPED_ADAPTER, load_adapter
from remask.dlm.build import ADAPTED_RULE, BuiltinDenoiser
from remask.models.backbone.builtin_weights import load_base

FIGURES = RESULTS / "steps.json"
PAGE = DOCS / "results" / "steps.md"
PICTURE = PAGE.with_name("steps.svg")
TASKS = ("sst2", "mrpc", "snli", "letters", "reviews")
STEPS = (1, 2, 4, 8, 16, 32)
TRAIN = 16  # rows that candidates are ranked on
ENDLESS = 10**9  # target calls: a study has no budget


def make_denoisers(adapter: Path, steps: Sequence[int]) -> dict[int, BuiltinDenoiser]:
    """One built-in denoiser for each number of steps; nothing ends a window sooner."""
    base = load_base()
    adapted, rule = load_adapter(base, adapter), replace(ADAPTED_RULE, commit="steps")
    return {n: BuiltinDenoiser(base, adapted, n, rule) for n in steps}


def make_lab(name: str, data: Path, seed: int) -> Lab:
    """The task with its terse seed prompt and all its rows except those of the test."""
    task = load_task(name)
    rows = [{**r, "split": split} for split in ("train", "validation") for r in task.read(data, split)]
    examples = load(rows, Columns(task.input, "label", "split")).examples
    return open_lab(task, examples, load_target(task), ENDLESS, seed)


def study_task(name: str, args: argparse.Namespace, about: dict[str, str]) -> dict[str, Any]:
    """Run the study of one task; its results with their origin."""
    since = time.perf_counter()
    lab = make_lab(name, args.data, args.seed)

    def tell(cell: Cell) -> None:
        minutes = (time.perf_counter() - since) / 60
        print(f"{name} round {cell.round + 1}, {cell.steps} steps ({minutes:.1f} min)", flush=True)

    rows = min(args.rows, len(lab.task.ids("validation")))
    design = Design(tuple(args.steps), args.candidates, args.rounds, TRAIN, rows)
    study = run_study(lab, make_denoisers(args.adapter, design.steps), design, tell)
    minutes = round((time.perf_counter() - since) / 60, 1)
    return {**about, "minutes": minutes, "calls": lab.counted.spent, "study": asdict(study)}


def write_page() -> str:
    """Write tables and picture of the page from the committed results; returns the tables."""
    found = read_json(FIGURES)
    studies = {n: TypeAdapter(Study).validate_python(found[n]["study"]) for n in found}
    tables = f"{format_report(studies)}\n\n{link_picture('The same as curves', PICTURE, PAGE)}"
    write_whole(PICTURE, draw_picture(studies))
    write_blocks(PAGE, {"steps": tables})
    return tables


def read_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    option = parser.add_argument
    option("--data", type=Path, help="The folder of the data sets.")
    option("--tasks", nargs="+", default=list(TASKS), help=f"Default: {' '.join(TASKS)}.")
    option("--steps", type=int, nargs="+", default=STEPS, help="The numbers of steps to compare.")
    option("--candidates", type=int, default=8, help="Candidates of each round.")
    option("--rounds", type=int, default=6, help="Rounds, each with another draw.")
    option("--rows", type=int, default=40, help="Validation rows, at most.")
    option("--seed", type=int, default=0, help="The seed of everything that is drawn.")
    option("--adapter", type=Path, default=SHIPPED_ADAPTER, help="Default: the shipped adapter.")
    add_page_option(parser)
    args = parser.parse_args(words)
    args.steps = sorted(set(args.steps))
    if min(*args.steps, args.candidates, args.rounds, args.rows) < 1:
        parser.error("--steps, --candidates, --rounds and --rows must be at least 1")
    if not args.page and args.data is None:
        parser.error("--data is needed to measure; --page does without it")
    return args


def main(words: Sequence[str] | None = None) -> None:
    args = read_arguments(words)
    if not args.page:
        about = describe_run(__file__, words, args.data, args.adapter)
        found = read_json(FIGURES) if FIGURES.exists() else {}
        kept = [name for name in found if name not in args.tasks]
        if differ := [n for n in kept if found[n]["study"]["design"]["steps"] != args.steps]:
            raise SystemExit(f"--steps: not those of {', '.join(differ)}; study all with the same")
        for name in args.tasks:
            found[name] = json.loads(json.dumps(study_task(name, args, about)))
            write_json(FIGURES, found)
    print(write_page())


if __name__ == "__main__":
    main()
