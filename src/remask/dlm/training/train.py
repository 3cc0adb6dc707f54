"""The training loop. It is deterministic in its seed, and continues after being killed.

The loss at masked tokens is a mean of cross-entropy and of distillation from the frozen base, which
reads the clean window left to right. Distillation is an unbiased target of lower variance for what
the left side predicts; only the true token teaches the right side. A row of n masked tokens has the
weight sqrt(n). That is between equal weights of tokens, where whole windows outweigh the short
spans of use, and equal weights of rows, which give the bound on the likelihood (1/t; arXiv
2502.09992, equation 3) but a high variance in small batches. The batch of a step depends only on
seed and step, so a checkpoint holds parameters, optimiser and step.

Measured edits share the batches of the prompts. Their loss is the cross-entropy times the weight of
the edit, which is negative for edits that were worse than others of the same parent. Tokens
that are improbable already are not made less probable, since that loss has no lower bound. The
prompts, with their likelihood and distillation, keep the model near what it was.
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

from remask.dlm.families import BUILTIN
from remask.dlm.layout import Layout
from remask.dlm.training.batches import NO_SOURCE, Batch, draw_batch
from remask.dlm.training.corpus import TrainingExample
from remask.dlm.training.measured import EditGroup, EditSource
from remask.dlm.training.student import EMBEDDING, MASKED, RIGHT, Student
from remask.errors import ConfigError, NumericsError
from remask.files import draft
from remask.ids import content_id
from remask.ports import report_step

MIN_RATE_SHARE = 0.02  # of the learning rate, at the end
MAX_PUSH_NATS = 6.0  # a token of a worse edit with a higher loss is not made less probable


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """Everything that determines a training run, besides base and data.

    The names of the fields are part of a checkpoint's identity.
    """

    steps: int
    tasks: int = 4  # contexts per step
    rows: int = 4  # masked rows per context
    rate: float = 1e-3  # learning rate of the factors
    warmup: int = 30  # steps in which the rate rises
    decay: float = 0.25  # share of the steps, at the end, in which the rate falls
    distil: float = 0.3  # share of distillation in the loss
    elastic: bool = True  # whether the delete token is trained
    balance: float = 0.5  # a token of a row with n masked tokens has the weight n ** -balance
    interior: float = 1.0  # factor on the weight of masked tokens whose left neighbour is masked
    # Factors on the learning rate; 0: not trained. Gates are few and must change a lot.
    gates: float = 20.0
    embedding: float = 2.0  # of the mask
    with_traces: float = 0.7  # share of tasks with conversations, if there are prompts without any
    rank: int = 32
    alpha: float = 64.0
    seed: int = 0

    def compute_rate(self, step: int) -> float:
        """Return the learning rate: linear warmup, constant, linear decay (arXiv 2404.06395)."""
        warmup = min(1.0, (step + 1) / max(1, self.warmup))
        decay_steps = self.decay * self.steps
        remaining = (self.steps - step) / decay_steps if decay_steps else 1.0
        return self.rate * warmup * max(MIN_RATE_SHARE, min(1.0, remaining))


@dataclass(frozen=True, slots=True)
class TrainStep:
    """One finished step."""

    step: int  # number of finished steps
    loss: float  # cross-entropy, nats per masked token
    rate: float
    seconds: float  # of this step


def train(
    student: Student,
    examples: Sequence[TrainingExample],
    plan: TrainPlan,
    checkpoint: Path,
    every: float = 180.0,
    edits: EditSource | None = None,
) -> Iterator[TrainStep]:
    """Train and yield each step, starting from `checkpoint` if it exists.

    `edits` are a further source of tasks, with their own share of them. The checkpoint is written
    after every `every` seconds and at the end. It is valid for one plan, list of examples, base,
    edits, and initial parameters. The number of steps may change as long as the learning rate is not
    falling yet, since both runs are the same until then. Raises ConfigError if the checkpoint is of
    another run, NumericsError if the loss is not a number.
    """
    layout = Layout(student.base, student.family)
    groups, shares = _split_by_traces(examples, plan.with_traces, edits)
    initial = [float(p.detach().double().sum()) for p in student.parameters.values()]
    # The id leaves out the built-in base, so that checkpoints of older versions stay valid.
    base = [] if student.family == BUILTIN else [student.base.content]
    base += [] if edits is None else [edits.id]
    settings = {key: value for key, value in asdict(plan).items() if key != "steps"}
    run_id = content_id("plan", settings, sorted(example.id for example in examples), initial, *base)
    optimiser = _make_optimiser(student, plan)
    done = _restore_checkpoint(checkpoint, student, optimiser, run_id, plan)
    saved = time.monotonic()
    for step in range(done, plan.steps):
        start = time.monotonic()
        batch = draw_batch(groups, shares, layout, plan.tasks, plan.rows, plan.seed, step, plan.elastic)
        entropy, loss = compute_losses(student, batch, plan)
        if not math.isfinite(loss.item()):
            raise NumericsError(f"the loss of step {step + 1} is not a number; lower the rate")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(student.parameters.values()), 1.0)
        rate = plan.compute_rate(step)
        for group in optimiser.param_groups:
            group["lr"] = group["rate_factor"] * rate
        optimiser.step()
        if step + 1 == plan.steps or time.monotonic() - saved > every:
            header = {"plan": run_id, "steps": str(plan.steps), "step": str(step + 1)}
            _save_checkpoint(checkpoint, student, optimiser, header)
            saved = time.monotonic()
        report_step("training step", step + 1, plan.steps)
        yield TrainStep(step + 1, entropy, rate, time.monotonic() - start)


def compute_losses(student: Student, batch: Batch, plan: TrainPlan) -> tuple[float, Tensor]:
    """Compute the cross-entropy (nats per masked token) and the loss to minimise.

    The cross-entropy is that of the prompts; of a batch of measured edits alone, that of the edits.
    """
    base, rows = student.base, torch.arange(len(batch.contexts)).repeat_interleave(plan.rows)
    _, cache = base.read(batch.contexts, batch.contexts_mask)
    logits = student.logits(batch.ids, batch.attention_mask, batch.masked, cache.select(rows))
    hard = F.cross_entropy(logits, batch.truth[batch.masked], reduction="none")
    weight, task = weigh_tokens(batch, plan), rows[:, None].expand_as(batch.ids)[batch.masked]
    prompts = torch.ones_like(weight, dtype=torch.bool)  # the tokens that are not of measured edits
    entropy = hard.mean().item()
    if batch.edit_weights is not None:
        sign = batch.edit_weights[task]
        prompts = sign.isnan()
        entropy = hard[prompts].mean().item() if prompts.any() else entropy
        hard = torch.where(sign < 0, hard.clamp(max=MAX_PUSH_NATS), hard)
        weight = weight * sign.nan_to_num(nan=1.0)
    loss = (hard * weight).sum()
    if not plan.distil or not prompts.any():
        return entropy, loss
    hidden = base.read_hidden(batch.clean, batch.clean_mask, cache)
    source = batch.source[batch.masked]
    teacher = base.logits(hidden[task, (source - 1).clamp(min=0)]).softmax(-1)
    # The base cannot predict the delete token, so those positions are trained on the truth only. It
    # does not know which edits were good.
    soft = F.cross_entropy(logits, teacher, reduction="none").where(prompts & (source != NO_SOURCE), hard)
    return entropy, (1 - plan.distil) * loss + plan.distil * (soft * weight).sum()


def weigh_tokens(batch: Batch, plan: TrainPlan) -> Tensor:
    """Return the weights (masks,) of the masked tokens, which sum to 1.

    They depend on the number of masks in the row and on whether the left neighbour is masked.
    """
    masked = batch.masked
    interior = masked.roll(1, 1)[masked]  # the first token of a row is never masked
    count = masked.sum(1, keepdim=True).expand_as(masked)[masked].float()
    weights = torch.where(interior, plan.interior, 1.0) * count**-plan.balance
    return weights / weights.sum()


def _split_by_traces(
    examples: Sequence[TrainingExample], with_traces: float, edits: EditSource | None
) -> tuple[list[Sequence[TrainingExample | EditGroup]], tuple[float, ...]]:
    """Split into examples with and without traces and measured edits, with the share of each in the
    tasks."""
    groups, shares = _split_examples(examples, with_traces)
    if edits is None:
        return groups, shares
    rest = 1 - edits.plan.share
    return [*groups, edits.groups], (*(rest * share for share in shares), edits.plan.share)


def _split_examples(
    examples: Sequence[TrainingExample], with_traces: float
) -> tuple[list[Sequence[TrainingExample | EditGroup]], tuple[float, ...]]:
    with_any = [example for example in examples if example.traces]
    without = [example for example in examples if not example.traces]
    if not with_any or not without:
        return [with_any or without], (1.0,)
    return [with_any, without], (with_traces, 1 - with_traces)


def _make_optimiser(student: Student, plan: TrainPlan) -> torch.optim.AdamW:
    factors = {RIGHT: plan.gates, MASKED: plan.gates, EMBEDDING: plan.embedding}
    groups = [
        {
            "params": [p],
            "rate_factor": factors.get(name, 1.0),
            "weight_decay": 0.0 if name in factors else 0.01,
        }
        for name, p in student.parameters.items()
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))


def _save_checkpoint(
    path: Path, student: Student, optimiser: torch.optim.AdamW, header: Mapping[str, str]
) -> None:
    """Write the checkpoint in one atomic step, so a kill leaves the old file or the new one."""
    tensors: dict[str, Tensor] = {}
    for key, p in student.parameters.items():
        tensors[f"value/{key}"] = p.detach()
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment}/{key}"] = optimiser.state[p][moment]
    with draft(path) as temporary:
        save_file(tensors, temporary, dict(header))


def _restore_checkpoint(
    path: Path, student: Student, optimiser: torch.optim.AdamW, run_id: str, plan: TrainPlan
) -> int:
    """Load the checkpoint and return its number of finished steps; 0 if there is none.

    Raises ConfigError if it cannot be read or is of another run.
    """
    if not path.exists():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            header: Mapping[str, str] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: the checkpoint cannot be read ({error}); delete it") from error
    if header.get("plan") != run_id:
        raise ConfigError(
            f"{path} is the checkpoint of a run with other settings or data; delete it, or name "
            "another output"
        )
    step, steps = int(header["step"]), int(header["steps"])
    if steps != plan.steps and step > (1 - plan.decay) * min(steps, plan.steps):
        raise ConfigError(
            f"{path} is the checkpoint of {step} of {steps} steps, and with {plan.steps} steps its "
            f"learning rate would differ; continue with {steps} steps, or name another output"
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
