"""Measure what a quarter of an hour of `remask adapt` does for a new domain.

    python -m benchmarks.denoiser.domain --data CORPUS --only REGEX --out FOLDER [--json]

The domain is all prompts with conversations whose name or text matches REGEX; for the shipped
adapter, take those that its training left out. 150 of them are trained on and 50 others measure.
Forgetting is measured on prompts outside the domain that were held out of the adapter's own
training. The figures are nats per hidden token before and after; lower is better. The same command
continues a run that was cut.
"""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.record import make_parser
from remask.dlm.adapter import SHIPPED_ADAPTER, load_adapter
from remask.dlm.training.corpus import TrainingExample, hold_out, read_examples
from remask.dlm.training.held_out import measure
from remask.dlm.training.recipe import TrainOptions, adapt
from remask.dlm.training.train import TrainPlan
from remask.models.backbone.builtin_weights import load_base

WHATS = ("span 4", "span 8")


def split_domain(
    data: Path, only: str, train: int, others: int
) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Prompts to train on and others of the same domain, by their ids."""
    named = re.compile(only, re.IGNORECASE)
    inside = [c for c in read_examples([data]) if named.search(c.task) or named.search(c.prompt)]
    found = sorted((case for case in inside if case.traces), key=lambda case: case.id)
    return found[others : others + train], found[:others]


def write_rows(cases: list[TrainingExample], path: Path) -> None:
    """Write prompts as `remask adapt --data` reads them."""
    lines = []
    for case in cases:
        examples = [
            {
                "input": trace.query,
                "output": trace.response,
                "feedback": " ".join(f.text for f in trace.feedback),
                "correct": trace.desired is not None,
            }
            for trace in case.traces
        ]
        lines.append(json.dumps({"prompt": case.prompt, "examples": examples}))
    path.write_text("\n".join(lines) + "\n", "utf-8")


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__file__, __doc__)
    option = parser.add_argument
    option("--data", type=Path, required=True, metavar="CORPUS", help="A folder of prompts.")
    option("--only", required=True, metavar="REGEX", help="The prompts of the domain.")
    option("--out", type=Path, required=True, metavar="FOLDER", help="Where the adapter goes.")
    option("--adapter", type=Path, default=SHIPPED_ADAPTER, help="Default: the shipped adapter.")
    option("--steps", type=int, default=110, help="Training steps; 110 take about 15 minutes.")
    option("--train", type=int, default=150, help="Prompts of the domain to train on.")
    option("--others", type=int, default=50, help="Other prompts of the domain, which measure.")
    option("--held-out", type=int, default=120, help="Prompts held out of the adapter's training.")
    option("--general", type=int, default=40, help="How many of the held-out prompts measure.")
    option("--threads", type=int, default=1, help="Threads of the processor.")
    option("--json", action="store_true", help="Print one line of JSON instead of a table.")
    args = parser.parse_args(words)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    train, others = split_domain(args.data, args.only, args.train, args.others)
    _, held = hold_out(read_examples([args.data], args.only), args.held_out)
    write_rows(train, args.out / "domain.jsonl")
    out = args.out / "adapted.safetensors"
    start, done = time.monotonic(), out.exists()
    if not done:
        plan = TrainPlan(args.steps, rate=3e-4)
        rows = (args.out / "domain.jsonl",)
        adapt(TrainOptions(rows, out, plan, start=str(args.adapter), held_out=0))
    minutes = (time.monotonic() - start) / 60
    base, found = load_base(), {}
    for when, path in (("before", args.adapter), ("after", out)):
        adapted = load_adapter(base, path)
        for where, cases in (("domain", others), ("general", held[: args.general])):
            for what in WHATS:
                nats = measure(base, adapted, cases, what)
                assert nats is not None
                found[f"{where}, {what}, {when}"] = asdict(nats)
                if not args.json:
                    print(
                        f"{where:8} {what} {when:6}: {nats.left_to_right:.3f} nats "
                        f"({nats.base:.3f} base, {nats.without_traces:.3f} without conversations; "
                        f"{nats.prompts} prompts)",
                        flush=True,
                    )
    if args.json:
        about = {"steps": args.steps, "trained": len(train), "minutes": round(minutes, 1)}
        print(json.dumps({**about, **found}))


if __name__ == "__main__":
    main()
