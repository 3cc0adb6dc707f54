"""Iterative unmasking of a batch of canvases.

Knows token ids and a function from canvases to logits. Knows nothing of text, traces, models or
scores. The loop is that of LLaDA (arXiv 2502.09992, section 2.4): each step draws a token for every
mask and commits some of them. Which come first and how many at once are functions of `schedule.py`,
named by a `CommitRule`. Token noise and position noise are Gumbel in float64, because
lower precision acts like a lower temperature (arXiv 2409.02908). Differs in four points: quotas are
per row; masks behind a mask wait, since an adapted left-to-right model knows little of them; a
commit that would repeat its neighbourhood is replaced by the next best draw; and every row draws
from its own generator, so that it does not depend on its batch.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from remask.dlm.schedule import COMMITS, FAR, MINUS_INF, ORDERS, Guesses, ranks, spread
from remask.errors import ConfigError, NumericsError

LONGEST_REPEAT = 4  # tokens

Logits = Callable[[Tensor], Tensor]  # (K, L) ids -> (masks, V), masks in reading order


@dataclass(frozen=True, slots=True)
class CommitRule:
    """How tokens are drawn and in which order they are committed. Raises ConfigError."""

    temperature: float = 0.7  # of tokens; 0 takes the most probable one
    position_temperature: float = 0.3  # of the order; 0 is strictly by the order
    left_bias: float = 4.0  # nats that a mask behind another mask is less sure than it seems
    threshold: float | None = None  # probability for commit "threshold"; None: quotas only
    candidates: int = 64  # most probable tokens drawn from
    order: str = "confidence"  # a name of ORDERS
    commit: str = "threshold"  # a name of COMMITS
    factor: float = 1.0  # for commit "factor"
    entropy_bound: float = 0.1  # nats, for commit "entropy_bound"
    block: int | None = None  # tokens of a canvas that are finished before the next ones begin
    top_p: float = 1.0  # probability of the nucleus of candidates that is drawn from

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
            (
                "threshold",
                self.threshold is None or 0 <= self.threshold <= 1,
                "must be between 0 and 1",
            ),
            ("top_p", 0 < self.top_p <= 1, "must be above 0 and at most 1"),
        ):
            if not holds:
                raise ConfigError(f"{name} is {getattr(self, name)}; it {demand}")

    @property
    def bound(self) -> float:
        """The number that belongs to `commit`."""
        never = float("inf")
        numbers = {
            "threshold": never if self.threshold is None else self.threshold,
            "factor": self.factor,
            "entropy_bound": self.entropy_bound,
        }
        return numbers.get(self.commit, never)


@dataclass(frozen=True, slots=True)
class CanvasBatch:
    """A batch to denoise: K rows of L tokens, on the CPU."""

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


def plan(masked: Sequence[int], steps: int | None) -> list[int]:
    """The quotas of blocks with `masked` masks each, one block after the other.

    Each block that has masks takes one step; the other steps go to blocks in proportion to the
    masks that then remain. So there are `steps` quotas, or fewer where there are fewer masks, or
    more where there are more blocks. steps None: as many as masks.
    """
    if steps is None:
        return [1] * sum(masked)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    blocks = [n for n in masked if n]
    rest = sum(blocks) - len(blocks)
    spare = min(rest, max(0, steps - len(blocks)))
    made: list[int] = []
    before = 0
    for n in blocks:
        after = before + n - 1
        share = spare * after // rest - spare * before // rest if rest else 0
        made += quotas(n, 1 + share)
        before = after
    return made


def denoise(
    canvases: CanvasBatch,
    logits: Logits,
    steps: Sequence[int | None],
    rule: CommitRule,
    generators: Sequence[torch.Generator],
) -> Iterator[Step]:
    """Yield the batch after each step, until no mask is left; other tokens never change.

    logits: (K, L) ids -> (masks, V), one row for each mask in reading order, on any device. steps
    and generators: one for each of the K rows; the commit rule may need fewer steps than given,
    never more. Raises NumericsError where logits are NaN or +inf, or where every token of a
    position is impossible.
    """
    ids = canvases.ids
    logp = torch.zeros(ids.shape, dtype=torch.float64)
    order, commit = ORDERS[rule.order], COMMITS[rule.commit]
    counts = _masks_per_block(ids == canvases.mask, rule.block)
    plans = [plan(row, s) for row, s in zip(counts, steps, strict=True)]
    for done in range(max(map(len, plans), default=0)):
        masked = ids == canvases.mask
        if not bool(masked.any()):  # the commit rule was quicker than the plan
            return
        places = _first_block(masked, rule.block)
        draw, guesses = _guess(canvases, logits(ids), masked, places, rule, generators)
        score = order(guesses) + rule.position_temperature * guesses.noise
        rank = ranks(score - rule.left_bias * (guesses.depth > 0).double(), places)
        # What the plan wants done by now, less what the commit rule has done before.
        left = masked.sum(1).tolist()
        wanted = [max(1, n - sum(p[done + 1 :])) for n, p in zip(left, plans, strict=True)]
        chosen = rank < torch.tensor(wanted)[:, None]
        chosen |= commit(guesses, rank, rule.bound)
        ids, logp = ids.clone(), logp.clone()
        _write(ids, logp, chosen, rank, draw.at(chosen[places]), canvases)
        yield Step(ids, logp)


# -- what families of today do beside filling masks -----------------------------------------------


def start_from_draft(
    canvases: CanvasBatch, drafts: Tensor, level: float, generators: Sequence[torch.Generator]
) -> CanvasBatch:
    """The batch with the tokens of `drafts` (K, L) where it has masks, at noise level t = `level`:
    of the n tokens of a row that come from its draft, round(t · n), at least one, become masks
    again; all choices are equally probable.

    The forward process of LLaDA (arXiv 2502.09992, section 2.1), with the exact count of its
    likelihood estimate (section 2.4), which varies less than a coin for each token. Denoising from
    t < 1 keeps the rest of a text as its anchor, as SDEdit does with images (arXiv 2108.01073).
    Where a draft has a mask there is none: it stays a mask and does not count. generators: one for
    each row. Raises ConfigError for a level outside 0 to 1.
    """
    _check_share("noise level", level)
    ids = torch.where(canvases.ids == canvases.mask, drafts, canvases.ids)
    written = ids != canvases.ids
    for row, (here, generator) in enumerate(zip(written, generators, strict=True)):
        places = here.nonzero()[:, 0]
        count = max(1, round(level * len(places)))
        chosen = torch.randperm(len(places), generator=generator)[:count]
        ids[row, places[chosen]] = canvases.mask
    return replace(canvases, ids=ids)


def remask(canvases: CanvasBatch, finished: Step, threshold: float) -> CanvasBatch:
    """The finished batch with those tokens masked again whose probability was below `threshold`
    when they were committed; what `canvases` did not mask stays.

    Resets, never overwrites (token-to-mask, arXiv 2604.18738), by the confidence stored at decoding
    (ReMDM-conf, arXiv 2503.00307). One pass: whoever repeats it bounds the repeats, since a token
    may stay improbable. Raises ConfigError for a threshold outside 0 to 1.
    """
    _check_share("threshold", threshold)
    least = math.log(threshold) if threshold else MINUS_INF
    doubtful = (canvases.ids == canvases.mask) & (finished.logp < least)
    return replace(canvases, ids=finished.ids.masked_fill(doubtful, canvases.mask))


def allow_delete(canvases: CanvasBatch, places: Tensor, delete: int) -> CanvasBatch:
    """The batch in which the true `places` (K, L) may be left empty, and no others: the token
    `delete`, which leaves no text, may be drawn there and may stand many times in a row.

    So a hole's length is the most that may be written, as `remask adapt` teaches it.
    """
    kinds = len(canvases.banned)
    banned = canvases.banned.repeat(2, 1)
    banned[:kinds, delete], banned[kinds:, delete] = True, False
    return replace(
        canvases,
        kinds=canvases.kinds + kinds * places,
        banned=banned,
        repeatable={*canvases.repeatable, delete},
    )


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ConfigError(f"{name} is {share}; it must be between 0 and 1")


# -- one step -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Draw:
    """Candidate tokens of N masks, the drawn one first."""

    tokens: Tensor  # (N, c) long
    logp: Tensor  # (N, c) float64 at temperature 1

    def at(self, which: Tensor) -> "_Draw":
        return _Draw(self.tokens[which], self.logp[which])


def _masks_per_block(masked: Tensor, block: int | None) -> list[list[int]]:
    """For each row the masks of each block of `block` columns, or of the whole canvas."""
    length = masked.shape[1]
    starts = range(0, length, block or max(1, length))
    blocks = [masked[:, at : at + starts.step].sum(1).tolist() for at in starts]
    return [[block[row] for block in blocks] for row in range(len(masked))]


def _first_block(masked: Tensor, block: int | None) -> Tensor:
    """(K, L) bool: the masks of each row's first block that has any."""
    if block is None:
        return masked
    number = torch.arange(masked.shape[1]) // block
    first = number.expand_as(masked).masked_fill(~masked, masked.shape[1]).amin(1, keepdim=True)
    return masked & (number == first)


def _guess(
    canvases: CanvasBatch,
    logits: Tensor,
    masked: Tensor,
    places: Tensor,
    rule: CommitRule,
    generators: Sequence[torch.Generator],
) -> tuple[_Draw, Guesses]:
    """Draw a token for each of `places`, and say what an order or a commit rule may ask.

    logits: (masks, V), one row for each of `masked` in reading order.
    """
    device = logits.device
    kinds = canvases.kinds[places].to(device)
    turn = places[masked].to(device)
    found = logits if bool(turn.all()) else logits[turn]
    found = found.float().masked_fill(canvases.banned.to(device)[kinds], MINUS_INF)
    _check(found)
    full = found.log_softmax(-1)
    size = min(rule.candidates, full.shape[-1])
    top = full.topk(min(max(2, size), full.shape[-1]), dim=-1)
    best, tokens = top.values.double().cpu(), top.indices.cpu()
    counts = places.sum(1).tolist()
    noise, position = _noise(counts, size, generators)
    draw = _draw(tokens[:, :size], best[:, :size], noise, rule)
    pair = best[:, :2].exp()
    guesses = Guesses(
        open=places,
        full=full,
        confidence=spread(draw.logp[:, 0], places),
        lead=spread(pair[:, 0] - pair[:, 1:].sum(1), places),
        depth=_depth(masked),
        noise=spread(position, places),
    )
    return draw, guesses


def _check(logits: Tensor) -> None:
    most = logits.amax(-1)  # NaN where any is
    if bool((most.isnan() | (most == float("inf"))).any()):
        raise NumericsError("the denoiser's logits are NaN or infinite")
    if bool((most == MINUS_INF).any()):
        raise NumericsError("the denoiser has no possible token for a mask (all logits are -inf)")


def _draw(tokens: Tensor, logp: Tensor, noise: Tensor, rule: CommitRule) -> _Draw:
    """Rank candidates by Gumbel-max: the first is a sample, the next one a sample without it.

    tokens, logp, noise: (N, c), the candidates of each mask, most probable first. Tokens outside
    the nucleus come last: only a refusal of all others leads to them.
    """
    noisy = logp + rule.temperature * noise
    if rule.top_p < 1 and rule.temperature > 0:
        noisy = noisy - FAR * ~_nucleus(logp / rule.temperature, rule.top_p)
    rank = noisy.argsort(dim=-1, descending=True, stable=True)
    return _Draw(tokens.gather(-1, rank), logp.gather(-1, rank))


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """(N, c) bool: the fewest candidates that hold `top_p` of the probability (arXiv 1904.09751,
    section 3.1). logits: (N, c), falling."""
    share = logits.softmax(-1)
    return share.cumsum(-1) - share < top_p


def _depth(masked: Tensor) -> Tensor:
    """(K, L) long: how many masks stand directly to the left of a mask; 0 elsewhere."""
    count = masked.long().cumsum(1)
    before_run = count.masked_fill(masked, 0).cummax(1).values
    return (count - before_run - 1).masked_fill(~masked, 0)


def _noise(
    counts: Sequence[int], size: int, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """Standard Gumbel noise of candidates (N, size) and positions (N,), each row's own."""
    tokens, positions = [], []
    for count, generator in zip(counts, generators, strict=True):
        tokens.append(torch.rand((count, size), generator=generator, dtype=torch.float64))
        positions.append(torch.rand((count,), generator=generator, dtype=torch.float64))
    return _gumbel(torch.cat(tokens)), _gumbel(torch.cat(positions))


def _gumbel(uniform: Tensor) -> Tensor:
    tiny = torch.finfo(torch.float64).tiny
    return -(-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()


def _write(
    ids: Tensor, logp: Tensor, chosen: Tensor, rank: Tensor, draw: _Draw, canvases: CanvasBatch
) -> None:
    """Write the draws of the `chosen` masks into fresh tensors, by rank: each sees those before."""
    rows = ids.tolist()
    order = rank[chosen].argsort(stable=True).tolist()
    places = chosen.nonzero().tolist()
    tokens, nats = draw.tokens.tolist(), draw.logp.tolist()
    for index in order:
        row, column = places[index]
        refused = repeats(rows[row], column, canvases.mask).difference(canvases.repeatable)
        pick = _first_allowed(tokens[index], nats[index], refused)
        rows[row][column] = ids[row, column] = tokens[index][pick]
        logp[row, column] = nats[index][pick]


def _first_allowed(tokens: Sequence[int], logp: Sequence[float], refused: set[int]) -> int:
    """The best possible candidate that is not refused; the draw itself where there is none."""
    for pick, (token, nats) in enumerate(zip(tokens, logp, strict=True)):
        if token not in refused and nats != MINUS_INF:
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
