"""Iterative unmasking of a batch of canvases.

Knows token ids and a function from canvases to logits. Knows nothing of text, traces, models or
scores. Follows low-confidence remasking of LLaDA (arXiv 2502.09992): each step draws a token for
every mask and commits those it is surest of. Token noise and position noise are Gumbel in float64,
because lower precision acts like a lower temperature (arXiv 2409.02908). Differs in four points:
quotas are per row; masks behind a mask wait, since an adapted left-to-right model knows little of
them; a commit that would repeat its neighbourhood is replaced by the next best draw; and every row
draws from its own generator, so that it does not depend on its batch.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from remask.errors import NumericsError

MINUS_INF = float("-inf")
LONGEST_REPEAT = 4  # tokens


@dataclass(frozen=True, slots=True)
class Rule:
    """How tokens are drawn and in which order they are committed."""

    temperature: float = 0.7  # of tokens; 0 takes the most probable one
    position_temperature: float = 0.3  # of the order; 0 is strictly by confidence
    left_bias: float = 4.0  # nats that a mask behind another mask is less sure than it seems
    threshold: float | None = None  # commit all draws at least this probable, beside the quota
    candidates: int = 64  # most probable tokens drawn from


@dataclass(frozen=True, slots=True)
class Canvases:
    """A batch to denoise: K rows of L tokens."""

    ids: Tensor  # (K, L) long, `mask` where to write
    kinds: Tensor  # (K, L) long, row of `banned` that holds at a position
    banned: Tensor  # (kinds, V) bool, tokens that may not be drawn
    mask: int
    repeatable: Collection[int] = ()  # ids that may stand twice in a row, such as digits


@dataclass(frozen=True, slots=True)
class Step:
    """The batch after one step."""

    ids: Tensor  # (K, L) long
    logp: Tensor  # (K, L) float64, nats of each token when it was committed, 0 elsewhere


def quotas(masked: int, steps: int) -> list[int]:
    """Tokens to commit per step: at most `steps` positive numbers whose sum is `masked`.

    An even split; the larger shares come last, when more is known.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    count = min(steps, masked)
    if count == 0:
        return []
    share, extra = divmod(masked, count)
    return [share] * (count - extra) + [share + 1] * extra


def denoise(
    canvases: Canvases,
    logits: Callable[[Tensor], Tensor],
    steps: Sequence[int],
    rule: Rule,
    generators: Sequence[torch.Generator],
) -> Iterator[Step]:
    """Yield the batch after each step, until no mask is left; other tokens never change.

    logits: (K, L) ids -> (masks, V), one row for each mask in reading order. steps and
    generators: one for each of the K rows. Raises NumericsError where logits are NaN or +inf, or
    where every token of a position is impossible.
    """
    ids = canvases.ids
    logp = torch.zeros(ids.shape, dtype=torch.float64)
    plans = [quotas(int(n), s) for n, s in zip((ids == canvases.mask).sum(1), steps, strict=True)]
    for done in range(max(map(len, plans), default=0)):
        rows, columns = (ids == canvases.mask).nonzero(as_tuple=True)
        if len(rows) == 0:  # the threshold was quicker than the plan
            return
        kinds = canvases.kinds[rows, columns]
        found = logits(ids).float().masked_fill(canvases.banned[kinds], MINUS_INF)
        _check(found)
        best, tokens = found.log_softmax(-1).topk(min(rule.candidates, found.shape[-1]), dim=-1)
        ids, logp = ids.clone(), logp.clone()
        for row in sorted(set(rows.tolist())):
            here = rows == row
            draw = _draw(tokens[here], best[here].double(), rule, generators[row])
            draw.order.sub_(rule.left_bias * _behind_mask(ids[row], columns[here], canvases.mask))
            # What the plan wants done by now, less what the threshold has done before.
            left = int(here.sum())
            quota = max(1, left - sum(plans[row][done + 1 :]))
            _commit(ids[row], logp[row], columns[here], draw, quota, rule, canvases)
        yield Step(ids, logp)


@dataclass(frozen=True, slots=True)
class _Draw:
    """Per mask of a row: candidate tokens, the drawn one first."""

    tokens: Tensor  # (n, c) long
    logp: Tensor  # (n, c) float64 at temperature 1
    order: Tensor  # (n,) float64, what to commit first


def _check(logits: Tensor) -> None:
    if bool((logits.isnan() | (logits == float("inf"))).any()):
        raise NumericsError("the denoiser's logits are NaN or infinite")
    if bool((logits == MINUS_INF).all(-1).any()):
        raise NumericsError("the denoiser has no possible token for a mask (all logits are -inf)")


def _draw(tokens: Tensor, logp: Tensor, rule: Rule, generator: torch.Generator) -> _Draw:
    """Rank candidates by Gumbel-max: the first is a sample, the next one a sample without it.

    tokens, logp: (n, c), the candidates of each mask.
    """
    noise = _gumbel(logp.shape, generator)
    noisy = logp + rule.temperature * noise
    rank = noisy.argsort(dim=-1, descending=True, stable=True)
    tokens, logp = tokens.gather(-1, rank), logp.gather(-1, rank)
    order = logp[:, 0] + rule.position_temperature * _gumbel((len(logp),), generator)
    return _Draw(tokens, logp, order)


def _behind_mask(ids: Tensor, columns: Tensor, mask: int) -> Tensor:
    """(n,) bool: whether the left neighbour is a mask too."""
    return (columns > 0) & (ids[(columns - 1).clamp(min=0)] == mask)


def _gumbel(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    tiny = torch.finfo(torch.float64).tiny
    return -(-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()


def _commit(
    ids: Tensor,
    logp: Tensor,
    columns: Tensor,
    draw: _Draw,
    quota: int,
    rule: Rule,
    canvases: Canvases,
) -> None:
    """Write the surest draws into one row ((L,) views of fresh tensors)."""
    for rank, index in enumerate(draw.order.argsort(descending=True, stable=True).tolist()):
        sure = rule.threshold is not None and float(draw.logp[index, 0].exp()) >= rule.threshold
        if rank >= quota and not sure:
            continue
        column = int(columns[index])
        refused = repeats(ids.tolist(), column, canvases.mask) - set(canvases.repeatable)
        pick = _first_allowed(draw, index, refused)
        ids[column] = draw.tokens[index, pick]
        logp[column] = draw.logp[index, pick]


def _first_allowed(draw: _Draw, index: int, refused: set[int]) -> int:
    """The best possible candidate that is not refused; the draw itself where there is none."""
    possible = zip(draw.tokens[index].tolist(), draw.logp[index].tolist(), strict=True)
    for pick, (token, logp) in enumerate(possible):
        if token not in refused and logp != MINUS_INF:
            return pick
    return 0


def repeats(ids: Sequence[int], position: int, mask: int) -> set[int]:
    """Tokens that at `position` would complete an immediate repeat of 1 to 4 written tokens."""
    found = set()
    for size in range(1, LONGEST_REPEAT + 1):
        first = max(0, position - 2 * size + 1)
        for start in range(first, min(position, len(ids) - 2 * size) + 1):
            partner = position + size if position < start + size else position - size
            pairs = [(i, i + size) for i in range(start, start + size)]
            others = [(a, b) for a, b in pairs if position not in (a, b)]
            same = all(ids[a] == ids[b] != mask for a, b in others)
            if same and ids[partner] != mask:
                found.add(ids[partner])
    return found
