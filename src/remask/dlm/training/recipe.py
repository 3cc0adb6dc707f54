"""Train an adapter from files and write it with its model card: the work of `remask adapt`."""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from remask.dlm.adapter import SHIPPED_ADAPTER, read_adapter
from remask.dlm.build import Base, find_base
from remask.dlm.training.corpus import TrainingExample, hold_out, read_examples
from remask.dlm.training.held_out import HeldOutLoss, measure
from remask.dlm.training.measured import (
    EditPlan,
    EditSource,
    list_parents,
    make_source,
    measure_diversity,
    read_edits,
)
from remask.dlm.training.student import Student, init_parameters
from remask.dlm.training.train import TrainPlan, TrainStep, train
from remask.errors import ConfigError
from remask.files import write

HELD_OUT_PATTERNS = ("span 4", "span 8")  # measured on held-out prompts
MAX_MEASURED_PROMPTS = 40  # benchmarks/denoiser/fills.py measures more
MIN_TRAINING_PROMPTS = 4


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """The options of one adaptation."""

    data: tuple[Path, ...]
    out: Path
    plan: TrainPlan
    base: str = "builtin"  # or local:FOLDER, or local:HUB_ID
    revision: str | None = None  # of a local:HUB_ID
    start: str = "shipped"  # shipped, fresh, or the path of an adapter of that base
    leave_out: str = ""  # regular expression for names and prompts
    held_out: int = 20  # prompts, at most a tenth of all
    measure_every: int = 200  # steps; 0: only before and after
    runs: tuple[Path, ...] = ()  # directories of runs whose measured edits are learned
    edits: EditPlan = field(default_factory=EditPlan)

    @property
    def checkpoint(self) -> Path:
        return self.out.with_suffix(".checkpoint.safetensors")

    @property
    def log(self) -> Path:
        """The log, one JSON object a line for each step and measurement.

        A resumed run appends to it.
        """
        return self.out.with_suffix(".log.jsonl")

    @property
    def card(self) -> Path:
        return self.out.with_suffix(".md")


@dataclass(frozen=True, slots=True)
class AdaptResult:
    """The result of one adaptation."""

    out: Path
    trained: int  # number of training prompts
    before: tuple[HeldOutLoss, ...]
    after: tuple[HeldOutLoss, ...]
    edits: EditSource | None = None
    # Shares of distinct word pairs in fills before and after; () without measured edits.
    diversity: tuple[float, ...] = ()


def adapt(
    options: TrainOptions,
    on_progress: Callable[[TrainStep], None] = lambda progress: None,
    on_measured: Callable[[int, tuple[HeldOutLoss, ...]], None] = lambda step, losses: None,
    on_diversity: Callable[[int, float], None] = lambda step, share: None,
) -> AdaptResult:
    """Train an adapter, measure it and write it with its card.

    The same call continues an interrupted run. Raises ConfigError, DataError, BackendError and
    NumericsError.
    """
    kept, held, edits = _read_data(options)
    base = find_base(options.base, options.revision, device="cpu")
    student, plan = make_student(options, base)
    options.out.parent.mkdir(parents=True, exist_ok=True)

    def measure_all(step: int) -> tuple[HeldOutLoss, ...]:
        adapted, measured = student.to_adapted_model(), held[:MAX_MEASURED_PROMPTS]
        found = [measure(base.backbone, adapted, measured, name) for name in HELD_OUT_PATTERNS]
        losses = tuple(loss for loss in found if loss is not None)
        _append_log(options.log, {"step": step, "held_out": [asdict(loss) for loss in losses]})
        on_measured(step, losses)
        return losses

    def measure_fills(step: int) -> tuple[float, ...]:
        if edits is None:
            return ()
        share = measure_diversity(base.backbone, student.to_adapted_model(), edits.groups)
        _append_log(options.log, {"step": step, "distinct_2": share})
        on_diversity(step, share)
        return (share,)

    before, diversity = measure_all(0), measure_fills(0)
    for progress in train(student, kept, plan, options.checkpoint, edits=edits):
        _append_log(options.log, asdict(progress))
        on_progress(progress)
        due = options.measure_every and progress.step % options.measure_every == 0
        if due and progress.step < plan.steps:
            measure_all(progress.step)
    after = measure_all(plan.steps)
    diversity += measure_fills(plan.steps)
    notes = {
        "base": base.name,
        "steps": str(plan.steps),
        "start": Path(options.start).name,  # no folder, since adapters are passed on to others
        "elastic": str(plan.elastic).lower(),
        "license": _list_licences(kept),
    }
    student.save(options.out, notes)
    result = AdaptResult(options.out, len(kept), before, after, edits, diversity)
    write(options.card, render_card(options, base, plan, kept, result), force=True)
    options.checkpoint.unlink(missing_ok=True)
    return result


def _read_data(
    options: TrainOptions,
) -> tuple[list[TrainingExample], list[TrainingExample], EditSource | None]:
    """Read the prompts to train on, those that are held out, and the measured edits.

    Without data, the prompts are the parents of the edits.
    """
    groups = read_edits(options.runs) if options.runs else []
    edits = make_source(groups, options.edits) if options.runs else None
    examples = read_examples(options.data, options.leave_out) if options.data else list_parents(groups)
    kept, held = hold_out(examples, min(options.held_out, len(examples) // 10))
    if len(kept) < MIN_TRAINING_PROMPTS:
        raise ConfigError(
            f"{len(kept)} prompts are too few to train on; give at least {MIN_TRAINING_PROMPTS}, "
            "each with its conversations" + ("" if options.data else ", as --data beside the runs")
        )
    return kept, held, edits


def make_student(options: TrainOptions, base: Base) -> tuple[Student, TrainPlan]:
    """Make the student, and the plan with the settings of the adapter that is continued, if any."""
    plan, backbone = options.plan, base.backbone
    if options.start == "fresh":
        tensors = init_parameters(backbone, plan.rank, plan.seed)
        return Student(backbone, base.family, plan.rank, plan.alpha, tensors), plan
    path = SHIPPED_ADAPTER if options.start == "shipped" else Path(options.start)
    header, tensors, _ = read_adapter(path, backbone, base.family)
    plan = replace(
        plan, rank=int(header["rank"]), alpha=float(header["alpha"]), elastic=header.get("elastic") == "true"
    )
    return Student(backbone, base.family, plan.rank, plan.alpha, tensors), plan


def render_card(
    options: TrainOptions, base: Base, plan: TrainPlan, kept: Sequence[TrainingExample], result: AdaptResult
) -> str:
    """Render the model card as Markdown."""
    rows = []
    for b, a in zip(result.before, result.after, strict=True):
        losses = (b.base, b.left_to_right, a.left_to_right, a.first_token, a.without_traces)
        cells = [f"{loss:.2f}" for loss in (*losses, a.at_once)]
        rows.append(f"| {' | '.join([b.pattern, str(b.prompts), *cells])} |")
    table = "\n".join(rows)
    with_traces = sum(bool(example.traces) for example in kept)
    flags = f"--denoiser builtin:{options.out.name}"
    if options.base != "builtin":  # the folder's name without its path: cards are passed on
        place = options.base.partition(":")[2] if options.revision else base.name
        flags = f"--denoiser local:{place} --adapter {options.out.name}"
    commit = f" at {options.revision}" if options.revision else ""
    edits = _describe_edits(result)
    settings = ", ".join(f"{key} {value}" for key, value in asdict(plan).items())
    return f"""# Model card: {options.out.stem}

An adapter that turns {base.name} into a masked diffusion model for system prompts, written by
`remask adapt`. Use it with `{flags}`.

- Base: {base.name}{commit}, by content `{base.backbone.content}`. Its licence applies here as well.
- Started from: {Path(options.start).name}. Settings: {settings}.
- Data: {len(kept)} prompts, {with_traces} of them with conversations. Left out by name or text:
  `{options.leave_out or "nothing"}`. Licences as the data names them: {_list_licences(kept)}.{edits}
- Written {time.strftime("%Y-%m-%d")}. On held-out prompts, nats per token, lower is better:

| masked | n | base, left to right | before | after | first token | no traces | one step |
|---|---:|---:|---:|---:|---:|---:|---:|
{table}
"""


def _describe_edits(result: AdaptResult) -> str:
    """Describe the measured edits of the training on a line of the card; "" if there are none."""
    if result.edits is None:
        return ""
    plan, parents = result.edits.plan, len(result.edits.groups)
    before, after = result.diversity
    return (
        f"\n- Measured edits: {result.edits.edits} of {parents} prompts (share {plan.share}, negative "
        f"{plan.negative}, sharpness {plan.sharpness}). Distinct word pairs in fills: {before:.2f} before, "
        f"{after:.2f} after."
    )


def _list_licences(examples: Sequence[TrainingExample]) -> str:
    named = Counter(example.licence or "not named" for example in examples)
    return "; ".join(f"{name} ({n})" for name, n in named.most_common())


def _append_log(log: Path, value: dict[str, object]) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")
