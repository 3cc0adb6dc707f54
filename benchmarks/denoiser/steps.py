"""How many denoising steps: the study of docs/steps.md on tasks of the search benchmark.

    python benchmarks/denoiser/steps.py --data FOLDER [--tasks NAME …] [--rounds 6]

--data as for search/run.py; only train.jsonl and validation.jsonl are opened. Writes
benchmarks/results/steps.json after each task, in which tasks that are not named keep their figures;
then docs/steps.svg and the tables between the marks in docs/steps.md. `--tasks` without a name only
draws these again. Seconds are processor seconds of one thread, so that other work on the machine
does not count.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

sys.path.insert(0, str(Path(__file__).parents[2]))  # the checkout

from benchmarks.denoiser.step_report import picture, report
from benchmarks.denoiser.step_study import Cell, Design, Study, play
from benchmarks.record import hidden, write_whole
from benchmarks.search.lab import Lab, embedded_target, open_lab
from benchmarks.tasks import load_task
from remask.data.dataset import Columns, load
from remask.dlm.adapter import SHIPPED_ADAPTER, load_adapter
from remask.dlm.build import ADAPTED_RULE, BuiltinDenoiser
from remask.models.backbone.builtin_weights import load_base

ROOT = Path(__file__).parents[2]
TASKS = ("sst2", "mrpc", "snli", "letters", "reviews")
STEPS = (1, 2, 4, 8, 16, 32)
TRAIN = 16  # rows that candidates are ranked on
ENDLESS = 10**9  # target calls: a study has no budget
BEGIN, END = "<!-- steps:begin -->", "<!-- steps:end -->"


def make_denoisers(adapter: Path, steps: Sequence[int]) -> dict[int, BuiltinDenoiser]:
    """The built-in denoiser with so many steps a window, whatever else would end it sooner."""
    base = load_base()
    adapted, rule = load_adapter(base, adapter), replace(ADAPTED_RULE, commit="steps")
    return {n: BuiltinDenoiser(base, adapted, n, rule) for n in steps}


def make_lab(name: str, data: Path, seed: int) -> Lab:
    """The task with its terse seed prompt and all its rows but those of the test."""
    task = load_task(name)
    rows = [
        {**r, "split": split} for split in ("train", "validation") for r in task.read(data, split)
    ]
    examples = load(rows, Columns(task.input, "label", "split")).examples
    return open_lab(task, examples, embedded_target(task), ENDLESS, seed)


def study_task(name: str, args: argparse.Namespace, about: dict[str, Any]) -> dict[str, Any]:
    """The study of one task, and how it came about."""
    since = time.perf_counter()
    lab = make_lab(name, args.data, args.seed)

    def tell(cell: Cell) -> None:
        minutes = (time.perf_counter() - since) / 60
        print(f"{name} round {cell.round + 1}, {cell.steps} steps ({minutes:.1f} min)", flush=True)

    rows = min(args.rows, len(lab.task.ids("validation")))
    design = Design(tuple(args.steps), args.candidates, args.rounds, TRAIN, rows)
    study = play(lab, make_denoisers(args.adapter, design.steps), design, tell)
    minutes = round((time.perf_counter() - since) / 60, 1)
    return {**about, "minutes": minutes, "calls": lab.counted.spent, "study": asdict(study)}


def made_by(words: Sequence[str], args: argparse.Namespace) -> dict[str, Any]:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    command = "python benchmarks/denoiser/steps.py " + " ".join(words)
    return {
        "command": hidden(command, args.data, args.adapter),
        "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip(),
        "machine": args.machine,
    }


def arguments(words: Sequence[str]) -> argparse.Namespace:
    arg = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arg.add_argument("--data", type=Path, required=True)
    arg.add_argument("--tasks", nargs="*", default=list(TASKS), help=f"default: {' '.join(TASKS)}")
    arg.add_argument("--steps", type=int, nargs="+", default=STEPS)
    arg.add_argument("--candidates", type=int, default=8)
    arg.add_argument("--rounds", type=int, default=6)
    arg.add_argument("--rows", type=int, default=40, help="validation rows, at most")
    arg.add_argument("--seed", type=int, default=0)
    arg.add_argument(
        "--adapter", type=Path, default=SHIPPED_ADAPTER, help="default: the shipped one"
    )
    arg.add_argument("--machine", default="", help="said in the results")
    args = arg.parse_args(words)
    args.steps = sorted(set(args.steps))
    if min(*args.steps, args.candidates, args.rounds, args.rows) < 1:
        arg.error("--steps, --candidates, --rounds and --rows must be at least 1")
    return args


def main(words: Sequence[str] | None = None) -> None:
    words = sys.argv[1:] if words is None else words
    args = arguments(words)
    about = made_by(words, args)
    results, page = ROOT / "benchmarks/results/steps.json", ROOT / "docs/steps.md"
    found = json.loads(results.read_text("utf-8")) if results.exists() else {}
    kept = [name for name in found if name not in args.tasks]
    if differ := [n for n in kept if found[n]["study"]["design"]["steps"] != args.steps]:
        raise SystemExit(f"--steps: not those of {', '.join(differ)}; study all with the same")
    for name in args.tasks:
        found[name] = json.loads(json.dumps(study_task(name, args, about)))
        write_whole(results, json.dumps(found, indent=1))
    studies = {n: TypeAdapter(Study).validate_python(found[n]["study"]) for n in found}
    write_whole(ROOT / "docs/steps.svg", picture(studies))
    tables = f"{report(studies)}\n\n![The same as curves](steps.svg)"
    head, _, rest = page.read_text("utf-8").partition(BEGIN)
    write_whole(page, f"{head}{BEGIN}\n{tables}\n{END}{rest.partition(END)[2]}".rstrip("\n"))
    print(tables)


if __name__ == "__main__":
    main()
