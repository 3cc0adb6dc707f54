"""Compare short training runs of an adapter that differ in one setting.

    python -m benchmarks.denoiser.ablation --data CORPUS --out FOLDER [--arms NAME …]

All arms see the same batches with the same masks, so the mean loss of their last steps can be
compared. The nats on held-out prompts stand beside it. A finished arm is not run again: its line is
in FOLDER/arms.jsonl.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean

import torch

from benchmarks.denoiser.fills import add_held_out_options, load_held_out
from benchmarks.record import make_parser
from remask.dlm.build import find_base
from remask.dlm.training.held_out import measure
from remask.dlm.training.recipe import HELD_OUT_PATTERNS
from remask.dlm.training.student import Student, init_parameters
from remask.dlm.training.train import TrainPlan, train

BASE = TrainPlan(steps=60, rate=2e-3)
ARMS = {
    "base": BASE,
    "slower": replace(BASE, rate=1e-3),
    "interior": replace(BASE, interior=2.0),
    "no-distillation": replace(BASE, distil=0.0),
    "more-distillation": replace(BASE, distil=0.6),
    "still-gates": replace(BASE, gates=0.0, embedding=0.0),
    "rank-8": replace(BASE, rank=8, alpha=16.0),
    "rank-64": replace(BASE, rank=64, alpha=128.0),
}
LAST = 30  # steps whose loss is averaged


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__file__, __doc__)
    option = parser.add_argument
    add_held_out_options(parser)
    option("--out", type=Path, required=True, metavar="FOLDER", help="The folder of the results.")
    option("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), help="Default: all arms.")
    option("--steps", type=int, default=BASE.steps, help="Training steps of each arm.")
    args = parser.parse_args(words)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / "arms.jsonl"
    lines = results.read_text("utf-8").splitlines() if results.exists() else []
    done = {json.loads(line)["arm"] for line in lines}
    cases, held = load_held_out(args)
    base = find_base("builtin")
    for name in args.arms:
        if name in done:
            continue
        plan = replace(ARMS[name], steps=args.steps, decay=0.0)
        tensors = init_parameters(base.backbone, plan.rank, plan.seed)
        student = Student(base.backbone, base.family, plan.rank, plan.alpha, tensors)
        checkpoint = args.out / f"{name}.checkpoint.safetensors"
        losses = {one.step: one.loss for one in train(student, cases, plan, checkpoint)}
        adapted = student.to_adapted_model()
        nats = [measure(base.backbone, adapted, held, what) for what in HELD_OUT_PATTERNS]
        row = {
            "arm": name,
            "loss": mean(loss for step, loss in losses.items() if step > args.steps - LAST),
            "losses": losses,
            "held_out": [asdict(n) for n in nats if n is not None],
        }
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(name, f"{row['loss']:.3f}", row["held_out"], flush=True)


if __name__ == "__main__":
    main()
