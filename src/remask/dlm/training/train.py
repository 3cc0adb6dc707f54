"""The training loop: deterministic by seed, and after kill -9 it goes on where it was.

The loss at masked tokens is a mean of cross-entropy and of distillation from the frozen base, which
reads the clean window left to right: an unbiased target of lower variance for what the left side
says, while only the truth teaches the right side. A row of n masked tokens weighs sqrt(n): between
equal tokens, where whole windows drown the short spans of use, and equal rows, which is the bound
on the likelihood (1/t; arXiv 2502.09992, equation 3) but trembles with small batches. The batch of
a step depends on seed and step alone, so a checkpoint is parameters, optimiser and step.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from remask.dlm.families import EMBEDDED
from remask.dlm.layout import Layout
from remask.dlm.training.batches import NOWHERE, Batch, draw_batch
from remask.dlm.training.corpus import TrainingExample
from remask.dlm.training.student import EMBEDDING, MASKED, RIGHT, Student
from remask.errors import ConfigError, NumericsError
from remask.files import draft
from remask.ids import content_id

SLOWEST = 0.02  # share of the rate that is left at the end


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """Everything that decides a training run, beside base and data."""

    steps: int
    tasks: int = 4  # contexts of a step
    rows: int = 4  # corruptions of each
    rate: float = 1e-3
    warmup: int = 30  # steps in which the rate rises
    decay: float = 0.25  # last share of the steps, in which the rate falls
    distil: float = 0.3  # share of the loss
    elastic: bool = True  # whether the delete token is taught
    balance: float = 0.5  # a token of a row with n weighs n ** -balance
    interior: float = 1.0  # weight of masked tokens whose left neighbour is masked, over others
    # Learning rates over that of the factors: gates are few and must move far. 0: not trained.
    gates: float = 20.0
    embedding: float = 2.0  # of the mask
    with_traces: float = 0.7  # of the tasks, where prompts without conversations are known as well
    rank: int = 32
    alpha: float = 64.0
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """Rising, constant, falling in a straight line (warmup-stable-decay, arXiv 2404.06395)."""
        rising = min(1.0, (step + 1) / max(1, self.warmup))
        last = self.decay * self.steps
        left = (self.steps - step) / last if last else 1.0
        return self.rate * rising * max(SLOWEST, min(1.0, left))


@dataclass(frozen=True, slots=True)
class Progress:
    """One finished step."""

    step: int  # steps done
    loss: float  # cross-entropy, nats per masked token
    rate: float
    seconds: float  # of this step


def train(
    student: Student,
    cases: Sequence[TrainingExample],
    plan: TrainPlan,
    checkpoint: Path,
    every: float = 180.0,
) -> Iterator[Progress]:
    """Train from where `checkpoint` stands, written every so many seconds and at the end.

    A checkpoint belongs to plan, cases, base and the parameters that the student begins with. The
    number of steps may still change while the rate does not fall: both runs are then the same.
    Raises ConfigError where it is of another run, NumericsError where the loss is not a number.
    """
    layout = Layout(student.base, student.family)
    groups, shares = _groups(cases, plan.with_traces)
    began = [float(p.detach().double().sum()) for p in student.parameters.values()]
    # The built-in base is not named, so that checkpoints of older versions stay good.
    base = [] if student.family == EMBEDDED else [student.base.content]
    settings = {key: value for key, value in asdict(plan).items() if key != "steps"}
    name = content_id("plan", settings, sorted(case.id for case in cases), began, *base)
    optimiser = _optimiser(student, plan)
    done = _restore(checkpoint, student, optimiser, name, plan)
    saved = time.monotonic()
    for step in range(done, plan.steps):
        start = time.monotonic()
        batch = draw_batch(
            groups, shares, layout, plan.tasks, plan.rows, plan.seed, step, plan.elastic
        )
        entropy, loss = losses(student, batch, plan)
        if not math.isfinite(loss.item()):
            raise NumericsError(f"the loss of step {step + 1} is not a number; lower the rate")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(student.parameters.values()), 1.0)
        rate = plan.rate_at(step)
        for group in optimiser.param_groups:
            group["lr"] = group["faster"] * rate
        optimiser.step()
        if step + 1 == plan.steps or time.monotonic() - saved > every:
            header = {"plan": name, "steps": str(plan.steps), "step": str(step + 1)}
            _save(checkpoint, student, optimiser, header)
            saved = time.monotonic()
        yield Progress(step + 1, entropy, rate, time.monotonic() - start)


def losses(student: Student, batch: Batch, plan: TrainPlan) -> tuple[float, Tensor]:
    """Cross-entropy (nats per masked token), and the loss to be minimised."""
    base, rows = student.base, torch.arange(len(batch.contexts)).repeat_interleave(plan.rows)
    _, memory = base.read(batch.contexts, batch.contexts_real)
    past = memory.select(rows)
    logits = student.logits(batch.ids, batch.attention_mask, batch.masked, past)
    each = F.cross_entropy(logits, batch.truth[batch.masked], reduction="none")
    entropy, weight = each.mean().item(), token_weights(batch, plan)
    loss = (each * weight).sum()
    if not plan.distil:
        return entropy, loss
    hidden = base.read_hidden(batch.clean, batch.clean_real, memory)
    source = batch.source[batch.masked]
    task = rows[:, None].expand_as(batch.ids)[batch.masked]
    # The left-to-right reader knows nothing of deleted places: there the truth teaches alone.
    taught = base.logits(hidden[task, (source - 1).clamp(min=0)]).softmax(-1)
    soft = F.cross_entropy(logits, taught, reduction="none").where(source != NOWHERE, each)
    return entropy, (1 - plan.distil) * loss + plan.distil * (soft * weight).sum()


def token_weights(batch: Batch, plan: TrainPlan) -> Tensor:
    """(masks,) that sum to 1: by the masks of the row, and whether the left neighbour is one."""
    masked = batch.masked
    inside = masked.roll(1, 1)[masked]  # the front of a row is never masked
    count = masked.sum(1, keepdim=True).expand_as(masked)[masked].float()
    weights = torch.where(inside, plan.interior, 1.0) * count**-plan.balance
    return weights / weights.sum()


def _groups(
    cases: Sequence[TrainingExample], with_traces: float
) -> tuple[list[Sequence[TrainingExample]], tuple[float, ...]]:
    told = [case for case in cases if case.traces]
    bare = [case for case in cases if not case.traces]
    if not told or not bare:
        return [told or bare], (1.0,)
    return [told, bare], (with_traces, 1 - with_traces)


def _optimiser(student: Student, plan: TrainPlan) -> torch.optim.AdamW:
    faster = {RIGHT: plan.gates, MASKED: plan.gates, EMBEDDING: plan.embedding}
    groups = [
        {
            "params": [p],
            "faster": faster.get(name, 1.0),
            "weight_decay": 0.0 if name in faster else 0.01,
        }
        for name, p in student.parameters.items()
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))


def _save(
    path: Path, student: Student, optimiser: torch.optim.AdamW, header: Mapping[str, str]
) -> None:
    """One file that appears by one rename: a kill leaves the old one or the new one."""
    tensors: dict[str, Tensor] = {}
    for key, p in student.parameters.items():
        tensors[f"value/{key}"] = p.detach()
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment}/{key}"] = optimiser.state[p][moment]
    with draft(path) as made:
        save_file(tensors, made, dict(header))


def _restore(
    path: Path, student: Student, optimiser: torch.optim.AdamW, name: str, plan: TrainPlan
) -> int:
    """Steps that were done; 0 where there is no checkpoint."""
    if not path.exists():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            header: Mapping[str, str] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: the checkpoint cannot be read ({error}); delete it") from error
    if header.get("plan") != name:
        raise ConfigError(
            f"{path} is the checkpoint of a run with other settings or data; delete it, or name "
            "another output"
        )
    step, steps = int(header["step"]), int(header["steps"])
    if steps != plan.steps and step > (1 - plan.decay) * min(steps, plan.steps):
        raise ConfigError(
            f"{path} is the checkpoint of {step} of {steps} steps, and at {plan.steps} steps its "
            f"rate would have been another; go on with {steps} steps, or name another output"
        )
    for key, p in student.parameters.items():
        with torch.no_grad():
            p.copy_(tensors[f"value/{key}"])
        optimiser.state[p] = {
            "step": torch.tensor(float(step)),
            "exp_avg": tensors[f"exp_avg/{key}"],
            "exp_avg_sq": tensors[f"exp_avg_sq/{key}"],
        }
    return step
