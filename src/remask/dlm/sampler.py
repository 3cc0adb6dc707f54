"""Iterative unmasking of a batch of canvases, given a function from token ids to logits.

The loop is that of LLaDA (arXiv 2502.09992, section 2.4): each step draws a token for every mask
and commits some of them. A `CommitRule` names the functions of `schedule.py` that decide which
masks come first and how many are committed at once. Token noise and position noise are Gumbel noise
in float64, because a lower precision acts like a lower temperature (arXiv 2409.02908). The loop
differs from LLaDA's in four points:

- Quotas are per row.
- A mask directly after another mask gets a lower score, since an adapted left-to-right model
  predicts it poorly.
- A token that would repeat its neighbourhood is replaced by the next best draw.
- Every row has its own random generator, so its result does not depend on its batch.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from remask.dlm.schedule import (
    COMMITS,
    MAX_LOGP_DIFFERENCE,
    MINUS_INF,
    ORDERS,
    Predictions,
    rank_positions,
    scatter_to_grid,
)
from remask.errors import ConfigError, NumericsError

MAX_REPEAT_TOKENS = 4

Logits = Callable[[Tensor], Tensor]  # (K, L) ids -> (masks, V), masks in reading order
# (ids, logp, positions), each (K, L) -> ids and logp after written tokens at positions were corrected
Correct = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class CommitRule:
    """How tokens are drawn and in which order they are committed. Raises ConfigError.

    The names of the fields are part of a denoiser's identity.
    """

    temperature: float = 0.7  # of tokens; 0 takes the most probable one
    position_temperature: float = 0.3  # of the order; 0 follows the order strictly
    left_bias: float = 4.0  # nats subtracted from the score of a mask directly after a mask
    threshold: float | None = None  # probability for commit "threshold"; None: quotas only
    candidates: int = 64  # number of most probable tokens to draw from
    order: str = "confidence"  # a name of ORDERS
    commit: str = "threshold"  # a name of COMMITS
    factor: float = 1.0  # for commit "factor"
    entropy_bound: float = 0.1  # nats, for commit "entropy_bound"
    block: int | None = None  # tokens of a canvas that are finished before the next ones begin
    top_p: float = 1.0  # probability of the nucleus to draw from

    def __post_init__(self) -> None:
        for name, known in (("order", ORDERS), ("commit", COMMITS)):
            if (chosen := getattr(self, name)) not in known:
                raise ConfigError(f"{name} {chosen!r} is unknown; use one of {', '.join(known)}")
        positive = "must not be negative"
        for name, holds, demand in (
            ("temperature", self.temperature >= 0, positive),
            ("position_temperature", self.position_temperature >= 0, positive),
            ("factor", self.factor >= 0, positive),
            ("entropy_bound", self.entropy_bound >= 0, positive),
            ("candidates", self.candidates >= 1, "must be at least 1"),
            ("block", self.block is None or self.block >= 1, "must be at least 1 token"),
            ("threshold", self.threshold is None or 0 <= self.threshold <= 1, "must be between 0 and 1"),
            ("top_p", 0 < self.top_p <= 1, "must be above 0 and at most 1"),
        ):
            if not holds:
                raise ConfigError(f"{name} is {getattr(self, name)}; it {demand}")

    @property
    def bound(self) -> float:
        """The setting that belongs to `commit` and has its name; infinite if there is none."""
        bound = getattr(self, self.commit, None)
        return float("inf") if bound is None else bound


@dataclass(frozen=True, slots=True)
class CanvasBatch:
    """A batch to denoise: K rows of L tokens, on the CPU."""

    ids: Tensor  # (K, L) long, `mask` at positions to fill
    constraints: Tensor  # (K, L) long, the row of `banned` that applies at a position
    banned: Tensor  # (constraints, V) bool, tokens that may not be drawn
    mask: int
    repeatable: Collection[int] = ()  # ids that may be repeated, such as digits


@dataclass(frozen=True, slots=True)
class Step:
    """The batch after one step."""

    ids: Tensor  # (K, L) long
    logp: Tensor  # (K, L) float64, nats of each token when it was committed, 0 elsewhere


def split_quotas(masked: int, steps: int) -> list[int]:
    """Split `masked` evenly into at most `steps` positive quotas, the tokens to commit per step.

    The larger quotas come last, when more of the canvas is known.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    count = min(steps, masked)
    if count == 0:
        return []
    share, extra = divmod(masked, count)
    return [share] * (count - extra) + [share + 1] * extra


def plan_quotas(masked: Sequence[int], steps: int | None) -> list[int]:
    """Return the quotas of blocks with `masked` masks each, one block after the other.

    Each block with masks gets one step; the remaining steps are divided in proportion to the
    remaining masks. So there are `steps` quotas, fewer if there are fewer masks, or more if there
    are more blocks. With `steps=None` there is one for each mask.
    """
    if steps is None:
        return [1] * sum(masked)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    blocks = [n for n in masked if n]
    rest = sum(blocks) - len(blocks)
    remaining_steps = min(rest, max(0, steps - len(blocks)))
    quotas: list[int] = []
    before = 0
    for n in blocks:
        after = before + n - 1
        share = remaining_steps * after // rest - remaining_steps * before // rest if rest else 0
        quotas += split_quotas(n, 1 + share)
        before = after
    return quotas


def denoise(
    canvases: CanvasBatch,
    logits: Logits,
    steps: Sequence[int | None],
    rule: CommitRule,
    generators: Sequence[torch.Generator],
    correct: Correct | None = None,
) -> Iterator[Step]:
    """Yield the batch after each step, until no mask is left; other tokens never change.

    `correct` gets the written tokens of each block that a step finished, and may change them.

    `logits` maps (K, L) ids to (masks, V), one row for each mask in reading order, on any device.
    `steps` and `generators` have one item for each of the K rows. The commit rule may need fewer
    steps, never more. Raises NumericsError if logits are NaN or +inf, or if every token of a
    position is impossible.
    """
    ids = canvases.ids
    logp = torch.zeros(ids.shape, dtype=torch.float64)
    order, commit = ORDERS[rule.order], COMMITS[rule.commit]
    counts = _count_masks_per_block(ids == canvases.mask, rule.block)
    plans = [plan_quotas(row, s) for row, s in zip(counts, steps, strict=True)]
    for done in range(max(map(len, plans), default=0)):
        masked = ids == canvases.mask
        if not bool(masked.any()):  # the commit rule needed fewer steps than planned
            return
        positions = _select_first_block(masked, rule.block)
        draws, predictions = _draw_tokens(canvases, logits(ids), masked, positions, rule, generators)
        score = order(predictions) + rule.position_temperature * predictions.noise
        score = score - rule.left_bias * (predictions.masks_to_left > 0).double()
        rank = rank_positions(score, positions)
        # The quota is what the plan leaves to this step, less what the commit rule did before.
        remaining = masked.sum(1).tolist()
        quota = [max(1, n - sum(p[done + 1 :])) for n, p in zip(remaining, plans, strict=True)]
        chosen = rank < torch.tensor(quota)[:, None]
        chosen |= commit(predictions, rank, rule.bound)
        ids, logp = ids.clone(), logp.clone()
        _write_tokens(ids, logp, chosen, rank, draws.select(chosen[positions]), canvases)
        if correct is not None:
            ids, logp = correct(ids, logp, _find_finished_block(canvases, positions, ids, rule.block))
        yield Step(ids, logp)


# -- drafts, remasking and deletion ---------------------------------------------------------------


def start_from_draft(
    canvases: CanvasBatch, drafts: Tensor, level: float, generators: Sequence[torch.Generator]
) -> CanvasBatch:
    """Fill the masks with the tokens of `drafts` (K, L), and mask some of these again.

    With t = `level`, max(1, round(t · n)) of the n tokens of a row that come from its draft become
    masks; all choices have the same probability. This is the forward process of LLaDA (arXiv
    2502.09992, section 2.1) with the exact count of its likelihood estimate (section 2.4), which
    has a lower variance than an independent choice for each token. Denoising from t < 1 keeps the
    rest of the draft fixed, as SDEdit does with images (arXiv 2108.01073). Masks in a draft stay
    masks and do not count. `generators` has one item for each row. Raises ConfigError if `level` is
    outside 0 to 1.
    """
    _check_fraction("noise level", level)
    ids = torch.where(canvases.ids == canvases.mask, drafts, canvases.ids)
    drafted = ids != canvases.ids
    for row, (in_row, generator) in enumerate(zip(drafted, generators, strict=True)):
        positions = in_row.nonzero()[:, 0]
        count = max(1, round(level * len(positions)))
        chosen = torch.randperm(len(positions), generator=generator)[:count]
        ids[row, positions[chosen]] = canvases.mask
    return replace(canvases, ids=ids)


def remask(canvases: CanvasBatch, finished: Step, threshold: float) -> CanvasBatch:
    """Mask the tokens of a finished batch again whose probability was below `threshold` when they
    were committed. Tokens that were not masked in `canvases` stay.

    Tokens are reset to masks and not overwritten (token-to-mask, arXiv 2604.18738), by the
    confidence stored at decoding (ReMDM-conf, arXiv 2503.00307). A caller that repeats this must
    bound the number of repeats, since a token may stay improbable. Raises ConfigError if
    `threshold` is outside 0 to 1.
    """
    _check_fraction("threshold", threshold)
    min_logp = math.log(threshold) if threshold else MINUS_INF
    uncertain = (canvases.ids == canvases.mask) & (finished.logp < min_logp)
    return replace(canvases, ids=finished.ids.masked_fill(uncertain, canvases.mask))


def allow_delete(canvases: CanvasBatch, positions: Tensor, delete: int) -> CanvasBatch:
    """Allow the token `delete`, which decodes to no text, at the true `positions` (K, L) only.

    It may be repeated any number of times. So the length of a hole is the largest length of its
    fill, as `remask adapt` trains it.
    """
    count = len(canvases.banned)
    banned = canvases.banned.repeat(2, 1)
    banned[:count, delete], banned[count:, delete] = True, False
    return replace(
        canvases,
        constraints=canvases.constraints + count * positions,
        banned=banned,
        repeatable={*canvases.repeatable, delete},
    )


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is {value}; it must be between 0 and 1")


# -- one step -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _TokenDraws:
    """Candidate tokens of N masks, the drawn one first."""

    tokens: Tensor  # (N, c) long
    logp: Tensor  # (N, c) float64, nats at temperature 1

    def select(self, rows: Tensor) -> "_TokenDraws":
        return _TokenDraws(self.tokens[rows], self.logp[rows])


def _count_masks_per_block(masked: Tensor, block: int | None) -> list[list[int]]:
    """Count for each row the masks in each block of `block` columns, or in the whole canvas."""
    length = masked.shape[1]
    starts = range(0, length, block or max(1, length))
    blocks = [masked[:, at : at + starts.step].sum(1).tolist() for at in starts]
    return [[block[row] for block in blocks] for row in range(len(masked))]


def _select_first_block(masked: Tensor, block: int | None) -> Tensor:
    """Return (K, L) bool: the masks of the first block of each row that has any."""
    if block is None:
        return masked
    number = torch.arange(masked.shape[1]) // block
    first = number.expand_as(masked).masked_fill(~masked, masked.shape[1]).amin(1, keepdim=True)
    return masked & (number == first)


def _find_finished_block(canvases: CanvasBatch, open: Tensor, ids: Tensor, block: int | None) -> Tensor:
    """Return (K, L) bool: the written tokens of the blocks whose last masks, of those `open` before
    the step, were committed by it."""
    written = canvases.ids == canvases.mask
    finished = open.any(1) & ~(open & (ids == canvases.mask)).any(1)
    if block is None:
        return written & finished[:, None]
    number = torch.arange(ids.shape[1]) // block
    current = number.expand_as(open).masked_fill(~open, 0).amax(1, keepdim=True)
    return written & (number == current) & finished[:, None]


def _draw_tokens(
    canvases: CanvasBatch,
    logits: Tensor,
    masked: Tensor,
    positions: Tensor,
    rule: CommitRule,
    generators: Sequence[torch.Generator],
) -> tuple[_TokenDraws, Predictions]:
    """Draw a token for each of the true `positions`, and collect what orders and commit rules need.

    `logits` is (masks, V), one row for each mask of `masked` in reading order.
    """
    device = logits.device
    constraints = canvases.constraints[positions].to(device)
    is_open = positions[masked].to(device)
    logits = logits if bool(is_open.all()) else logits[is_open]
    logits = logits.float().masked_fill(canvases.banned.to(device)[constraints], MINUS_INF)
    _check_logits(logits)
    log_probs = logits.log_softmax(-1)
    size = min(rule.candidates, log_probs.shape[-1])
    top = log_probs.topk(min(max(2, size), log_probs.shape[-1]), dim=-1)
    best, tokens = top.values.double().cpu(), top.indices.cpu()
    counts = positions.sum(1).tolist()
    token_noise, position_noise = _draw_noise(counts, size, generators)
    draws = _rank_candidates(tokens[:, :size], best[:, :size], token_noise, rule)
    pair = best[:, :2].exp()
    predictions = Predictions(
        open=positions,
        log_probs=log_probs,
        confidence=scatter_to_grid(draws.logp[:, 0], positions),
        margin=scatter_to_grid(pair[:, 0] - pair[:, 1:].sum(1), positions),
        masks_to_left=_count_masks_to_left(masked),
        noise=scatter_to_grid(position_noise, positions),
    )
    return draws, predictions


def _check_logits(logits: Tensor) -> None:
    largest = logits.amax(-1)  # NaN if any logit of the row is NaN
    if bool((largest.isnan() | (largest == float("inf"))).any()):
        raise NumericsError("the denoiser's logits are NaN or infinite")
    if bool((largest == MINUS_INF).any()):
        raise NumericsError("the denoiser has no possible token for a mask (all logits are -inf)")


def _rank_candidates(tokens: Tensor, logp: Tensor, noise: Tensor, rule: CommitRule) -> _TokenDraws:
    """Rank candidates by the Gumbel-max trick: the first is a sample, the second a sample of the
    others, and so on.

    `tokens`, `logp` and `noise` are (N, c), the candidates of each mask, most probable first.
    Tokens outside the nucleus come last, so they are used only if all others are refused.
    """
    noisy = logp + rule.temperature * noise
    if rule.top_p < 1 and rule.temperature > 0:
        noisy = noisy - MAX_LOGP_DIFFERENCE * ~_find_nucleus(logp / rule.temperature, rule.top_p)
    rank = noisy.argsort(dim=-1, descending=True, stable=True)
    return _TokenDraws(tokens.gather(-1, rank), logp.gather(-1, rank))


def _find_nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Return (N, c) bool: the fewest candidates whose probabilities sum to `top_p` (arXiv
    1904.09751, section 3.1). `logits` (N, c) are in falling order."""
    probability = logits.softmax(-1)
    return probability.cumsum(-1) - probability < top_p


def _count_masks_to_left(masked: Tensor) -> Tensor:
    """Return (K, L) long: the length of the run of masks directly to the left of a mask; 0 at other
    positions."""
    count = masked.long().cumsum(1)
    before_run = count.masked_fill(masked, 0).cummax(1).values
    return (count - before_run - 1).masked_fill(~masked, 0)


def _draw_noise(
    counts: Sequence[int], size: int, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """Draw standard Gumbel noise for candidates (N, size) and positions (N,), row by row."""
    tokens, positions = [], []
    for count, generator in zip(counts, generators, strict=True):
        tokens.append(torch.rand((count, size), generator=generator, dtype=torch.float64))
        positions.append(torch.rand((count,), generator=generator, dtype=torch.float64))
    return _to_gumbel(torch.cat(tokens)), _to_gumbel(torch.cat(positions))


def _to_gumbel(uniform: Tensor) -> Tensor:
    tiny = torch.finfo(torch.float64).tiny
    return -(-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()


def _write_tokens(
    ids: Tensor, logp: Tensor, chosen: Tensor, rank: Tensor, draws: _TokenDraws, canvases: CanvasBatch
) -> None:
    """Write the tokens of the `chosen` masks into `ids` and `logp`, in place.

    They are written in the order of their rank, so each is checked for repeats of the earlier ones.
    """
    rows = ids.tolist()
    order = rank[chosen].argsort(stable=True).tolist()
    positions = chosen.nonzero().tolist()
    tokens, nats = draws.tokens.tolist(), draws.logp.tolist()
    for index in order:
        row, column = positions[index]
        refused = find_repeats(rows[row], column, canvases.mask).difference(canvases.repeatable)
        choice = _pick_allowed(tokens[index], nats[index], refused)
        rows[row][column] = ids[row, column] = tokens[index][choice]
        logp[row, column] = nats[index][choice]


def _pick_allowed(tokens: Sequence[int], logp: Sequence[float], refused: set[int]) -> int:
    """Return the index of the first possible candidate that is not refused; 0 if there is none."""
    draws = enumerate(zip(tokens, logp, strict=True))
    return next((i for i, (token, nats) in draws if token not in refused and nats != MINUS_INF), 0)


def find_repeats(ids: Sequence[int], position: int, mask: int) -> set[int]:
    """Return the tokens that at `position` would complete an immediate repeat of 1 to
    MAX_REPEAT_TOKENS written tokens."""
    found = set()
    for size in range(1, MAX_REPEAT_TOKENS + 1):
        first = max(0, position - 2 * size + 1)
        for start in range(first, min(position, len(ids) - 2 * size) + 1):
            partner = position + size if position < start + size else position - size
            pairs = [(i, i + size) for i in range(start, start + size)]
            others = [(a, b) for a, b in pairs if position not in (a, b)]
            same = all(ids[a] == ids[b] != mask for a, b in others)
            if same and ids[partner] != mask:
                found.add(ids[partner])
    return found
