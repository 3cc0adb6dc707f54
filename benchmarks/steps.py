"""How many denoising steps: `remask study steps` on tasks of the search benchmark.

    python benchmarks/steps.py --data FOLDER --runs FOLDER [--tasks NAME …] [--rounds 6]

--data as for search.py; only train.jsonl and validation.jsonl are opened. --runs keeps the answers
of the target: the same command goes on where it was cut. Writes benchmarks/results/steps.json, in
which tasks that are not named keep their figures, docs/steps.svg, and the tables between the marks
in docs/steps.md. Seconds are processor seconds of one thread, so that other work on the machine
does not count.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout

import torch
from pydantic import TypeAdapter

from benchmarks.record import hidden
from benchmarks.search.lab import embedded_target
from benchmarks.tasks import BenchTask, load_task
from remask.api.build_models import Respond
from remask.api.build_task import Given
from remask.config import make_config
from remask.report.steps import HEAD, cells, picture, remarks
from remask.study import STEPS, Cell, Study
from remask.studying import Order, play, prepared
from remask.trace import Message

ROOT = Path(__file__).parent.parent
TASKS = ("sst2", "mrpc", "snli", "letters", "reviews")
BEGIN, END = "<!-- steps:begin -->", "<!-- steps:end -->"


def order(name: str, args: argparse.Namespace) -> Order:
    """The task's terse seed prompt and the embedded models, as shipped."""
    task, splits = load_task(name), ("train", "validation")
    rows = [{**row, "split": split} for split in splits for row in task.read(args.data, split)]
    config = make_config(
        {
            "prompt": task.seed_prompt,
            "data": {"input": task.input, "split": "split"},
            "metric": {"answer": task.answer, "labels": task.labels},
            "target": {
                "model": "function" if task.free else "embedded",
                "max_tokens": task.max_tokens,
            },
            "budget": {"calls": None},
            "seed": args.seed,
        },
        name,
    )
    parts = Given(
        respond=in_its_own_words(task) if task.free else None,
        metric=None if isinstance(task.metric, str) else task.metric,
        rows=rows,
    )
    return Order(config, args.steps, args.candidates, args.rounds, args.rows, parts)


def in_its_own_words(task: BenchTask) -> Respond:
    """The embedded target as a function: it cannot choose between labels.

    Raises RuntimeError where it cannot answer, so that the call counts as failed, not as wrong.
    """
    target = embedded_target(task)

    def respond(messages: list[dict[str, str]]) -> str:
        chat = tuple(Message(m["role"], m["content"]) for m in messages)
        (reply,) = target.respond([chat])
        if reply.error:
            raise RuntimeError(reply.error)
        return reply.text

    return respond


def studied(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """The study of one task, and how it came about."""
    record = about(args)
    ready, since = prepared(order(name, args)), time.perf_counter()
    print(f"{name}: {ready.sentence}", flush=True)

    def tell(cell: Cell) -> None:
        minutes = (time.perf_counter() - since) / 60
        print(f"{name} round {cell.round + 1}, {cell.steps} steps ({minutes:.1f} min)", flush=True)

    study = play(ready, args.runs / name, tell, clock=time.process_time)
    minutes = (time.perf_counter() - since) / 60
    return {**record, "minutes": round(minutes, 1), "study": study.to_dict()}


def tables(studies: dict[str, Study]) -> str:
    """What stands in the page."""
    parts = []
    for name, study in studies.items():
        lines = [HEAD, ["---:"] * len(HEAD), *cells(study)]
        parts += [f"### {name}: “{study.prompt}”", "\n".join(map(_line, lines))]
        parts.append("\n".join(f"- {remark}" for remark in remarks(study)))
    return "\n\n".join([*parts, "![The same as curves](steps.svg)"])


def _line(words: Any) -> str:
    return "| " + " | ".join(words) + " |"


def about(args: argparse.Namespace) -> dict[str, Any]:
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return {
        "command": hidden(
            "python benchmarks/steps.py " + " ".join(sys.argv[1:]), args.data, args.runs
        ),
        "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip(),
        "machine": args.machine,
    }


def main() -> None:
    arg = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arg.add_argument("--data", type=Path, required=True)
    arg.add_argument("--runs", type=Path, required=True)
    arg.add_argument("--tasks", nargs="+", default=list(TASKS), help=f"default: {' '.join(TASKS)}")
    arg.add_argument("--steps", type=int, nargs="+", default=STEPS)
    arg.add_argument("--candidates", type=int, default=8)
    arg.add_argument("--rounds", type=int, default=6)
    arg.add_argument("--rows", type=int, default=40, help="validation rows")
    arg.add_argument("--seed", type=int, default=0)
    arg.add_argument("--machine", default="", help="said in the results")
    args = arg.parse_args()
    torch.set_num_threads(1)
    results = ROOT / "benchmarks/results/steps.json"
    known = json.loads(results.read_text("utf-8")) if results.exists() else {}
    wanted, kept = sorted(set(args.steps)), [name for name in known if name not in args.tasks]
    if differ := [n for n in kept if known[n]["study"]["design"]["steps"] != wanted]:
        raise SystemExit(f"--steps: not those of {', '.join(differ)}; study all with the same")
    found = known | {name: studied(name, args) for name in args.tasks}
    results.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    # Through JSON, so that old and new figures are drawn alike.
    studies = {
        name: TypeAdapter(Study).validate_json(json.dumps(found[name]["study"])) for name in found
    }
    (ROOT / "docs" / "steps.svg").write_text(picture(studies), "utf-8")
    page = ROOT / "docs" / "steps.md"
    head, _, rest = page.read_text("utf-8").partition(BEGIN)
    page.write_text(f"{head}{BEGIN}\n{tables(studies)}\n{END}{rest.partition(END)[2]}", "utf-8")
    print(tables(studies))


if __name__ == "__main__":
    main()
