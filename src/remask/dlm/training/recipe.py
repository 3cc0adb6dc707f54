"""One adaptation from files to an adapter with its model card: the work behind `remask adapt`."""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from remask.dlm.adapter import SHIPPED, read_adapter
from remask.dlm.build import Base, find_base
from remask.dlm.training.corpus import TrainingExample, hold_out, read_cases
from remask.dlm.training.held_out import HeldOutLoss, measure
from remask.dlm.training.student import Student, fresh
from remask.dlm.training.train import Progress, TrainPlan, train
from remask.errors import ConfigError
from remask.files import write

MEASURED = ("span 4", "span 8")  # on held-out prompts
LOOKED = 40  # held-out prompts at most that are measured; benchmarks/denoiser/fills.py has more
LEAST = 4  # prompts to train on


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What is to be made of what."""

    data: tuple[Path, ...]
    out: Path
    plan: TrainPlan
    base: str = "builtin"  # or local:PLACE
    revision: str | None = None  # of a local:HUB_ID
    start: str = "shipped"  # shipped, fresh, or the path of an adapter of that base
    leave_out: str = ""  # regular expression over names and prompts
    held_out: int = 20  # prompts, at most a tenth
    measure_every: int = 200  # steps; 0: only before and after

    @property
    def checkpoint(self) -> Path:
        return self.out.with_suffix(".checkpoint.safetensors")

    @property
    def log(self) -> Path:
        """One JSON object a line: steps and measurements. Appended, so a resumed run goes on."""
        return self.out.with_suffix(".log.jsonl")

    @property
    def card(self) -> Path:
        return self.out.with_suffix(".md")


@dataclass(frozen=True, slots=True)
class Made:
    """What came out."""

    out: Path
    trained: int  # prompts
    before: tuple[HeldOutLoss, ...]  # on held-out prompts
    after: tuple[HeldOutLoss, ...]


def adapt(
    order: TrainOptions,
    tell: Callable[[Progress], None] = lambda progress: None,
    measured: Callable[[int, tuple[HeldOutLoss, ...]], None] = lambda step, nats: None,
) -> Made:
    """Train, measure and write; the same call again goes on after a kill. Raises ConfigError,
    DataError, BackendError and NumericsError."""
    cases = read_cases(order.data, order.leave_out)
    kept, held = hold_out(cases, min(order.held_out, len(cases) // 10))
    if len(kept) < LEAST:
        raise ConfigError(
            f"{len(kept)} prompts are too few to train on; give at least {LEAST}, each with its "
            "conversations"
        )
    base = find_base(order.base, order.revision, device="cpu")
    student, plan = begin(order, base)
    order.out.parent.mkdir(parents=True, exist_ok=True)

    def look(step: int) -> tuple[HeldOutLoss, ...]:
        adapted = student.adapted()
        found = tuple(
            n
            for n in (measure(base.backbone, adapted, held[:LOOKED], what) for what in MEASURED)
            if n is not None
        )
        _note(order.log, {"step": step, "held_out": [asdict(n) for n in found]})
        measured(step, found)
        return found

    before = look(0)
    for progress in train(student, kept, plan, order.checkpoint):
        _note(order.log, asdict(progress))
        tell(progress)
        due = order.measure_every and progress.step % order.measure_every == 0
        if due and progress.step < plan.steps:
            look(progress.step)
    after = look(plan.steps)
    notes = {
        "base": base.name,
        "steps": str(plan.steps),
        "start": Path(order.start).name,  # without its folder: adapters and cards are passed on
        "elastic": str(plan.elastic).lower(),
        "license": _licences(kept),
    }
    student.save(order.out, notes)
    write(order.card, card(order, base, plan, kept, before, after), force=True)
    order.checkpoint.unlink(missing_ok=True)
    return Made(order.out, len(kept), before, after)


def begin(order: TrainOptions, base: Base) -> tuple[Student, TrainPlan]:
    """The student, and the plan with the rank and lengths of the adapter that is continued."""
    plan, backbone = order.plan, base.backbone
    if order.start == "fresh":
        tensors = fresh(backbone, plan.rank, plan.seed)
        return Student(backbone, base.family, plan.rank, plan.alpha, tensors), plan
    path = SHIPPED if order.start == "shipped" else Path(order.start)
    header, tensors, _ = read_adapter(path, backbone, base.family)
    plan = replace(
        plan,
        rank=int(header["rank"]),
        alpha=float(header["alpha"]),
        elastic=header.get("elastic") == "true",
    )
    return Student(backbone, base.family, plan.rank, plan.alpha, tensors), plan


def card(
    order: TrainOptions,
    base: Base,
    plan: TrainPlan,
    kept: Sequence[TrainingExample],
    before: Sequence[HeldOutLoss],
    after: Sequence[HeldOutLoss],
) -> str:
    """The model card, Markdown."""
    table = "\n".join(
        f"| {b.what} | {b.n} | {b.base_left:.2f} | {b.dlm:.2f} | {a.dlm:.2f} | {a.first:.2f} | "
        f"{a.no_traces:.2f} | {a.dlm_parallel:.2f} |"
        for b, a in zip(before, after, strict=True)
    )
    told = sum(bool(case.traces) for case in kept)
    used = f"--denoiser builtin:{order.out.name}"
    if order.base != "builtin":  # a folder by its name alone: cards are passed on
        place = order.base.partition(":")[2] if order.revision else base.name
        used = f"--denoiser local:{place} --adapter {order.out.name}"
    commit = f" at {order.revision}" if order.revision else ""
    settings = ", ".join(f"{key} {value}" for key, value in asdict(plan).items())
    return f"""# Model card: {order.out.stem}

An adapter that turns {base.name} into a masked diffusion model for system prompts, written by
`remask adapt`. Use it with `{used}`.

- Base: {base.name}{commit}, by content `{base.backbone.content}`. Its licence holds here as well.
- Started from: {Path(order.start).name}. Settings: {settings}.
- Data: {len(kept)} prompts, {told} of them with conversations. Left out by name or text:
  `{order.leave_out or "nothing"}`. Licences as the data names them: {_licences(kept)}.
- Written {time.strftime("%Y-%m-%d")}. On held-out prompts, nats per token, lower is better:

| hidden | n | base, left to right | before | after | first token | no traces | one step |
|---|---:|---:|---:|---:|---:|---:|---:|
{table}
"""


def _licences(cases: Sequence[TrainingExample]) -> str:
    named = Counter(case.licence or "not named" for case in cases)
    return "; ".join(f"{name} ({n})" for name, n in named.most_common())


def _note(log: Path, value: dict[str, object]) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")
