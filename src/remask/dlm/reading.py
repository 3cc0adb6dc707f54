"""How a model reads regions of a prompt after a context: modes that reuse the context exactly.

An attention mode turns ids into logits at masks. If the context cannot see the region, because it
is read left to right or in blocks and the region begins a new block, its keys and values are
computed once and reused by every step, candidate and later call. `bidirectional.py` has the mode of
models in which all tokens see each other.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from remask.dlm.families import Family
from remask.dlm.sampler import CanvasBatch
from remask.models.backbone.attention import Gates, KVCache
from remask.models.backbone.transformer import Backbone
from remask.ports import report_step

MAX_CACHED_CONTEXTS = 8  # each takes up to 70 MB for SmolLM2-135M in float32
MAX_SCORED_POSITIONS = 256  # whose logits are in memory at once

Ids = tuple[int, ...]
# (ids, attention_mask, masked), each (N, L) -> hidden states (N, L, d)
ReadRegions = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class ApproximationError:
    """The differences between approximate and exact logits where both were computed.

    With no positions compared, nothing was approximated or nothing was checked.
    """

    positions: int = 0  # masked positions compared
    same: int = 0  # of those, with the same most probable token
    largest: float = 0.0  # largest |difference| of two logits

    @property
    def agreement(self) -> float:
        """Share of positions with the same most probable token; 1 if nothing was compared."""
        return self.same / self.positions if self.positions else 1.0

    def add_comparison(self, approximate: Tensor, exact: Tensor) -> "ApproximationError":
        """Return the error that includes a further comparison of logits (N, V)."""
        if not len(exact):
            return self
        same = int((approximate.argmax(-1) == exact.argmax(-1)).sum())
        largest = float((approximate - exact).abs().amax())
        return ApproximationError(self.positions + len(exact), self.same + same, max(self.largest, largest))

    def __add__(self, other: "ApproximationError") -> "ApproximationError":
        largest = max(self.largest, other.largest)
        return ApproximationError(self.positions + other.positions, self.same + other.same, largest)

    def count_since(self, before: "ApproximationError") -> "ApproximationError":
        """Return the comparisons that came after `before`; the largest difference is of all of them."""
        return ApproximationError(self.positions - before.positions, self.same - before.same, self.largest)

    def describe(self) -> str:
        """Describe the error in one sentence; "" if nothing was approximated."""
        if not self.positions:
            return ""
        return (
            "the denoiser works with an approximation that makes it faster; "
            f"{self.agreement:.1%} of {self.positions} words that were checked came out the same "
            f"without it (logits differ by up to {self.largest:.2g}); "
            'where fewer than 90 % do, set denoiser.cache = "exact"'
        )


class DenoisingPass(Protocol):
    """The denoising of one batch of K regions."""

    def logits(self, ids: Tensor) -> Tensor:
        """Map (K, L) ids to (masks, V) logits, one row for each mask in reading order.

        The logits of the first call are exact.
        """

    def sum_log_probs(self, ids: Tensor, canvases: CanvasBatch, logp: Tensor) -> Tensor:
        """Return (K,) float64, the summed log-probability of the written tokens in nats.

        `ids` (K, L) are finished; `logp` (K, L) is that of each token when it was committed.
        """


class AttentionMode(ABC):
    """How one model reads a context and regions.

    The defaults are those of a mode that approximates nothing, of a model that has no chain rule.
    """

    family: Family
    # The error of approximate logits, over all passes so far.
    approximation_error = ApproximationError()

    @property
    @abstractmethod
    def identity(self) -> str:
        """A name that contains everything that can change a logit."""

    def reread(self, length: int) -> int:
        """Return how many of the last tokens of a context of `length` are read with the region.

        In a shifted family at least one is, since its logits predict the prompt's first token.
        """
        return 1

    @abstractmethod
    def begin(self, context: Ids, shared: int, attention_mask: Tensor) -> DenoisingPass:
        """Begin a pass after `context`, whose first `shared` tokens many contexts have in common.

        `context` is without the tokens that `reread` counts; they are part of the regions.
        `attention_mask` is (K, L) bool, False at padding on the right.
        """

    def score(self, context: Ids, shared: int, ids: Ids, positions: Sequence[int]) -> list[float]:
        """Return the log-probability (nats) at `positions` of the prompt `ids` after the whole
        `context`: by default of the token at each position, with it and every second position of
        its chunk masked.

        A bidirectional model has no chain rule, and its logits at a token that it can see say
        nothing about that token. So two rows mask the positions alternately, and each token is
        predicted from its neighbours.
        """
        reread = self.reread(len(context))
        row = torch.tensor([*context[len(context) - reread :], *ids])
        attention_mask = torch.ones((2, len(row)), dtype=torch.bool)
        nats: dict[int, float] = {}
        for begin in range(0, len(positions), MAX_SCORED_POSITIONS):
            chunk = list(positions[begin : begin + MAX_SCORED_POSITIONS])
            halves = [chunk[::2], chunk[1::2]]
            rows = row.repeat(2, 1)
            for i, half in enumerate(halves):
                rows[i, [reread + position for position in half]] = self.family.mask
            denoising_pass = self.begin(context[: len(context) - reread], shared, attention_mask)
            tokens = torch.tensor([ids[position] for half in halves for position in half])
            logp = pick_log_probs(denoising_pass.logits(rows), tokens)
            nats |= zip([*halves[0], *halves[1]], logp, strict=True)
            report_step("token scored", len(nats), len(positions))
        return [nats[position] for position in positions]


# -- the exact modes ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PrefixLM(AttentionMode):
    """The base reads the context left to right, the adapted model the region in both directions."""

    base: Backbone
    adapted: Backbone
    gates: Gates
    family: Family
    prefix_cache: "PrefixCache"

    @property
    def identity(self) -> str:
        return self.adapted.identity

    def begin(self, context: Ids, shared: int, attention_mask: Tensor) -> DenoisingPass:
        past = self.prefix_cache.get_cache(context, shared)
        assert past is not None, "a chat turn precedes every prompt"

        def read(ids: Tensor, attention_mask: Tensor, masked: Tensor) -> Tensor:
            return self.adapted.read_region(ids, attention_mask, masked, past, self.gates)

        return ExactPass(self.adapted, self.family, attention_mask, read)

    def score(self, context: Ids, shared: int, ids: Ids, positions: Sequence[int]) -> list[float]:
        """Score by the chain rule with the frozen base, in one left-to-right forward pass.

        The adapted model's pseudo-likelihood would take many forward passes.
        """
        past = self.prefix_cache.get_cache(context[:-1], shared)
        row = torch.tensor([[context[-1], *ids[:-1]]])
        hidden = self.base.read_hidden(row, torch.ones_like(row, dtype=torch.bool), past)[0]
        nats: list[float] = []
        for begin in range(0, len(positions), MAX_SCORED_POSITIONS):
            chunk = list(positions[begin : begin + MAX_SCORED_POSITIONS])
            tokens = torch.tensor([ids[i] for i in chunk])
            nats += pick_log_probs(self.base.logits(hidden[chunk]), tokens)
            report_step("token scored", len(nats), len(positions))
        return nats


@dataclass(frozen=True, slots=True)
class BlockCausal(AttentionMode):
    """Each block of tokens sees itself and all blocks before it (arXiv 2503.09573).

    The region begins at the start of a block; the context tokens of that block are read with it.
    """

    backbone: Backbone
    family: Family
    prefix_cache: "PrefixCache"

    @property
    def identity(self) -> str:
        edit = self.family.edit_threshold
        corrected = "" if edit is None else f"/edit-{edit}"
        return f"{self.backbone.identity}/blocks-{self.family.block}{corrected}"

    def reread(self, length: int) -> int:
        return (length - 1) % self.family.block + 1

    def begin(self, context: Ids, shared: int, attention_mask: Tensor) -> DenoisingPass:
        past = self.prefix_cache.get_cache(context, shared)

        def read(ids: Tensor, attention_mask: Tensor, masked: Tensor) -> Tensor:
            blocks = torch.arange(ids.shape[1]).expand(len(ids), -1) // self.family.block
            return self.backbone.read_blocks(ids, attention_mask, blocks, past)[0]

        return ExactPass(self.backbone, self.family, attention_mask, read)


@dataclass(frozen=True, slots=True)
class CausalContext(AttentionMode):
    """One model reads the context left to right, and the region in both directions.

    Nemotron-Labs-Diffusion does so for each block, and reads a finished block again left to right.
    """

    backbone: Backbone
    family: Family
    prefix_cache: "PrefixCache"

    @property
    def identity(self) -> str:
        return f"{self.backbone.identity}/canvas"

    def reread(self, length: int) -> int:
        return 0  # a token is predicted at its own position

    def begin(self, context: Ids, shared: int, attention_mask: Tensor) -> DenoisingPass:
        past = self.prefix_cache.get_cache(context, shared)

        def read(ids: Tensor, attention_mask: Tensor, masked: Tensor) -> Tensor:
            return self.backbone.read_blocks(ids, attention_mask, torch.zeros_like(ids), past)[0]

        return ExactPass(self.backbone, self.family, attention_mask, read)


class PrefixCache:
    """The keys and values of the contexts that were read last, by their ids."""

    def __init__(self, backbone: Backbone, block: int) -> None:
        """`block` is the number of tokens that see each other; 1 is left to right."""
        self._backbone = backbone
        self._block = block
        self._kept: OrderedDict[Ids, KVCache] = OrderedDict()

    def get_cache(self, ids: Ids, shared: int = 0) -> KVCache | None:
        """Return the cache of `ids`, a whole number of blocks, reading them if needed.

        The cache of the first `shared` tokens, rounded down to whole blocks, is kept as well. None
        if there are no ids.
        """
        if not ids:
            return None
        cache = self._kept.get(ids)
        if cache is None:
            shared -= shared % self._block
            past = self.get_cache(ids[:shared]) if shared < len(ids) else None
            new = torch.tensor([ids[shared:] if past else ids])
            blocks = torch.arange(new.shape[1])[None] // self._block
            attention_mask = torch.ones_like(new, dtype=torch.bool)
            _, cache = self._backbone.read_blocks(new, attention_mask, blocks, past, keep=True)
            assert cache is not None
            self._kept[ids] = cache
        self._kept.move_to_end(ids)
        while len(self._kept) > MAX_CACHED_CONTEXTS:
            self._kept.popitem(last=False)
        return cache


class ExactPass:
    """A batch of regions after a context that does not change."""

    def __init__(self, backbone: Backbone, family: Family, attention_mask: Tensor, read: ReadRegions) -> None:
        self._backbone = backbone
        self._family = family
        self._attention_mask = attention_mask
        self._read = read

    def logits(self, ids: Tensor) -> Tensor:
        """Rows without masks are not read, and equal rows are read once, so the first step of many
        candidates for the same canvas costs as much as one."""
        rows = (ids == self._family.mask).any(1)
        ids, attention_mask = ids[rows], self._attention_mask[rows]
        first, inverse = find_distinct_rows(ids, attention_mask)
        ids, attention_mask = ids[first], attention_mask[first]
        masked = ids == self._family.mask
        hidden = self._read(ids, attention_mask, masked)
        return repeat_rows(predict(self._backbone, self._family, hidden, masked), masked, inverse)

    def read_at(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Return (positions, V), the logits of the tokens at the true `positions` (K, L)."""
        rows = positions.any(1)
        ids, attention_mask, positions = ids[rows], self._attention_mask[rows], positions[rows]
        hidden = self._read(ids, attention_mask, ids == self._family.mask)
        return predict(self._backbone, self._family, hidden, positions)

    def sum_log_probs(self, ids: Tensor, canvases: CanvasBatch, logp: Tensor) -> Tensor:
        return logp.sum(1)


# -- shared by all modes --------------------------------------------------------------------------


def find_distinct_rows(ids: Tensor, attention_mask: Tensor) -> tuple[list[int], list[int]]:
    """Return the index of the first of each set of equal (N, L) rows, and for each of the N rows
    the number of its set."""
    seen: dict[Ids, int] = {}
    rows = torch.cat([ids, attention_mask.long()], 1).tolist()
    inverse = [seen.setdefault(tuple(row), len(seen)) for row in rows]
    return [inverse.index(number) for number in range(len(seen))], inverse


def predict(backbone: Backbone, family: Family, hidden: Tensor, masked: Tensor) -> Tensor:
    """Return (masks, V) logits for the true positions of `masked` (N, L), in reading order."""
    return backbone.logits(select_at_masks(family, hidden, masked.to(hidden.device)))


def select_at_masks(family: Family, hidden: Tensor, masked: Tensor) -> Tensor:
    """Return (masks, d), the hidden states of (N, L, d) that predict the true positions of `masked`
    (N, L)."""
    return hidden[:, :-1][masked[:, 1:]] if family.shifted else hidden[masked]


def repeat_rows(logits: Tensor, masked: Tensor, inverse: Sequence[int]) -> Tensor:
    """Repeat the logits of distinct rows, whose masks are `masked`, for all rows (see
    `find_distinct_rows`)."""
    if len(inverse) == len(masked):
        return logits
    parts = torch.split(logits, masked.sum(1).tolist())
    return torch.cat([parts[number] for number in inverse])


def pick_log_probs(logits: Tensor, tokens: Tensor) -> list[float]:
    """Return the log-probability (nats) of one token in each row of logits (N, V)."""
    logp = logits.log_softmax(-1).gather(1, tokens.to(logits.device)[:, None])[:, 0]
    nats: list[float] = logp.double().tolist()
    return nats
