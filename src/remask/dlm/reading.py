"""How a model reads regions of a prompt behind a context: two ways that reuse the context exactly.

A reading turns ids into logits at masks. Where the context cannot see the region (read left to
right, or in blocks of which the region begins a new one), its keys and values are computed once and
serve every step, candidate and later call; `bidirectional.py` has the way for models in which
all tokens see each other. Knows token ids, backbones and rows of `families`. Knows nothing of text,
traces, sampling or scores.
"""

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

MEMORIES = 8  # contexts kept: at most 70 MB each for SmolLM2-135M in float32
CHUNK = 256  # positions whose logits are held at once

Ids = tuple[int, ...]
Read = Callable[[Tensor, Tensor, Tensor], Tensor]  # ids, real, masked (N, L) -> hidden (N, L, d)


@dataclass(frozen=True, slots=True)
class ApproximationError:
    """How far approximate logits are from exact ones: what was seen where both were computed.
    Nothing compared: nothing was approximated, or it was never checked. It adds up."""

    positions: int = 0  # masked positions compared
    same: int = 0  # of those, with the same most probable token
    largest: float = 0.0  # |difference| of any two logits

    @property
    def agreement(self) -> float:
        """Share of positions with the same most probable token; 1 where nothing was compared."""
        return self.same / self.positions if self.positions else 1.0

    def measured(self, approximate: Tensor, exact: Tensor) -> "ApproximationError":
        """With a further comparison of logits (N, V)."""
        if not len(exact):
            return self
        same = int((approximate.argmax(-1) == exact.argmax(-1)).sum())
        largest = float((approximate - exact).abs().amax())
        return ApproximationError(
            self.positions + len(exact), self.same + same, max(self.largest, largest)
        )


class DenoisingPass(Protocol):
    """One batch of K regions on its way through the sampler."""

    def logits(self, ids: Tensor) -> Tensor:
        """(K, L) ids -> (masks, V), one row for each mask in reading order; exact at the first
        call of a session."""
        ...

    def nats(self, ids: Tensor, canvases: CanvasBatch, logp: Tensor) -> Tensor:
        """(K,) float64: the summed log-probability of what was written.

        ids: (K, L), finished. logp: (K, L), each token's when it was committed.
        """
        ...


class AttentionMode(Protocol):
    """A way of reading, for one model."""

    @property
    def identity(self) -> str:
        """Everything that can change a logit."""
        ...

    @property
    def approximation_error(self) -> ApproximationError:
        """How far approximate logits were from exact ones, in all sessions so far."""
        ...

    def reread(self, length: int) -> int:
        """How many last tokens of a context of `length` are read with the region: at least one,
        since in a shifted family its logits predict the prompt's first token."""
        ...

    def begin(self, context: Ids, shared: int, attention_mask: Tensor) -> DenoisingPass:
        """A session behind `context`, whose first `shared` tokens many contexts have in common.

        The front of the context belongs to the regions. real: (K, L) bool, False at padding on
        the right.
        """
        ...

    def score(self, context: Ids, shared: int, ids: Ids, wanted: Sequence[int]) -> list[float]:
        """Log-probability (nats) of the `wanted` positions of the prompt `ids`. `context` is
        whole."""
        ...


# -- the two exact ways ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PrefixLM:
    """The context left to right by the base; the region in both directions by the adapted model."""

    base: Backbone
    adapted: Backbone
    gates: Gates
    family: Family
    prefix_cache: "PrefixCache"
    approximation_error = ApproximationError()  # nothing is approximated

    @property
    def identity(self) -> str:
        return self.adapted.identity

    def reread(self, length: int) -> int:
        return 1

    def begin(self, context: Ids, shared: int, attention_mask: Tensor) -> DenoisingPass:
        past = self.prefix_cache.memory(context, shared)
        assert past is not None, "a chat turn stands before every prompt"

        def read(ids: Tensor, attention_mask: Tensor, masked: Tensor) -> Tensor:
            return self.adapted.read_region(ids, attention_mask, masked, past, self.gates)

        return _ExactPass(self.adapted, self.family, attention_mask, read)

    def score(self, context: Ids, shared: int, ids: Ids, wanted: Sequence[int]) -> list[float]:
        """The chain rule of the frozen base, read left to right in one forward. (The adapted
        model's pseudo-likelihood would take many.)"""
        past = self.prefix_cache.memory(context[:-1], shared)
        row = torch.tensor([[context[-1], *ids[:-1]]])
        hidden = self.base.read_hidden(row, torch.ones_like(row, dtype=torch.bool), past)[0]
        nats: list[float] = []
        for begin in range(0, len(wanted), CHUNK):
            at = list(wanted[begin : begin + CHUNK])
            nats += picked(self.base.logits(hidden[at]), torch.tensor([ids[i] for i in at]))
        return nats


@dataclass(frozen=True, slots=True)
class BlockCausal:
    """Blocks of tokens that see themselves and what stands before them (arXiv 2503.09573).

    The region begins where a block begins; context tokens of that block are read with it.
    """

    backbone: Backbone
    family: Family
    prefix_cache: "PrefixCache"
    approximation_error = ApproximationError()  # nothing is approximated

    @property
    def identity(self) -> str:
        return f"{self.backbone.identity}/blocks-{self.family.block}"

    def reread(self, length: int) -> int:
        return (length - 1) % self.family.block + 1

    def begin(self, context: Ids, shared: int, attention_mask: Tensor) -> DenoisingPass:
        past = self.prefix_cache.memory(context, shared)

        def read(ids: Tensor, attention_mask: Tensor, masked: Tensor) -> Tensor:
            blocks = torch.arange(ids.shape[1]).expand(len(ids), -1) // self.family.block
            return self.backbone.read_blocks(ids, attention_mask, blocks, past)[0]

        return _ExactPass(self.backbone, self.family, attention_mask, read)

    def score(self, context: Ids, shared: int, ids: Ids, wanted: Sequence[int]) -> list[float]:
        return pseudo_likelihood(self, self.family.mask, context, shared, ids, wanted)


class PrefixCache:
    """Memories of the contexts that were read last, each under its ids."""

    def __init__(self, backbone: Backbone, block: int) -> None:
        """`block`: tokens that see each other; 1 is left to right."""
        self._backbone = backbone
        self._block = block
        self._kept: OrderedDict[Ids, KVCache] = OrderedDict()

    def memory(self, ids: Ids, shared: int = 0) -> KVCache | None:
        """The memory of `ids`, whole blocks; that of its first `shared` tokens is kept as well."""
        if not ids:
            return None
        memory = self._kept.get(ids)
        if memory is None:
            shared -= shared % self._block
            past = self.memory(ids[:shared]) if shared < len(ids) else None
            new = torch.tensor([ids[shared:] if past else ids])
            blocks = torch.arange(new.shape[1])[None] // self._block
            attention_mask = torch.ones_like(new, dtype=torch.bool)
            _, memory = self._backbone.read_blocks(new, attention_mask, blocks, past, keep=True)
            assert memory is not None
            self._kept[ids] = memory
        self._kept.move_to_end(ids)
        while len(self._kept) > MEMORIES:
            self._kept.popitem(last=False)
        return memory


class _ExactPass:
    """Regions behind a context that does not change."""

    def __init__(
        self, backbone: Backbone, family: Family, attention_mask: Tensor, read: Read
    ) -> None:
        self._backbone = backbone
        self._family = family
        self._real = attention_mask
        self._read = read

    def logits(self, ids: Tensor) -> Tensor:
        """Rows without masks are not read, and equal rows are read once: so the first step of
        many candidates for the same canvas costs as much as one."""
        rows = (ids == self._family.mask).any(1)
        ids, attention_mask = ids[rows], self._real[rows]
        first, inverse = distinct(ids, attention_mask)
        ids, attention_mask = ids[first], attention_mask[first]
        masked = ids == self._family.mask
        found = predict(
            self._backbone, self._family, self._read(ids, attention_mask, masked), masked
        )
        return repeat_rows(found, masked, inverse)

    def nats(self, ids: Tensor, canvases: CanvasBatch, logp: Tensor) -> Tensor:
        return logp.sum(1)


# -- what all ways share --------------------------------------------------------------------------


def distinct(ids: Tensor, attention_mask: Tensor) -> tuple[list[int], list[int]]:
    """Of (N, L) rows the first one of each kind, and for every row the number of its kind."""
    seen: dict[Ids, int] = {}
    rows = torch.cat([ids, attention_mask.long()], 1).tolist()
    inverse = [seen.setdefault(tuple(row), len(seen)) for row in rows]
    return [inverse.index(kind) for kind in range(len(seen))], inverse


def predict(backbone: Backbone, family: Family, hidden: Tensor, masked: Tensor) -> Tensor:
    """(masks, V) logits of the true places of `masked` (N, L), in reading order."""
    return backbone.logits(at_masks(family, hidden, masked.to(hidden.device)))


def at_masks(family: Family, hidden: Tensor, masked: Tensor) -> Tensor:
    """(masks, d): the hidden states (N, L, d) that predict the true places of `masked` (N, L)."""
    return hidden[:, :-1][masked[:, 1:]] if family.shifted else hidden[masked]


def repeat_rows(logits: Tensor, masked: Tensor, inverse: Sequence[int]) -> Tensor:
    """The logits of rows of the kinds `inverse`, from those of one row per kind (`masked`)."""
    if len(inverse) == len(masked):
        return logits
    parts = torch.split(logits, masked.sum(1).tolist())
    return torch.cat([parts[kind] for kind in inverse])


def padded(rows: Sequence[Sequence[int]], pad: int, left: bool = False) -> tuple[Tensor, Tensor]:
    """Rows of unequal length as ids (N, L), and what of them is real; padded on the right, or on
    the `left`."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    attention_mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, place], attention_mask[i, place] = torch.tensor(row), True
    return ids, attention_mask


def picked(logits: Tensor, tokens: Tensor) -> list[float]:
    """The log-probability of one token in each row of logits."""
    logp = logits.log_softmax(-1).gather(1, tokens.to(logits.device)[:, None])[:, 0]
    nats: list[float] = logp.double().tolist()
    return nats


def pseudo_likelihood(
    reading: AttentionMode, mask: int, context: Ids, shared: int, ids: Ids, wanted: Sequence[int]
) -> list[float]:
    """Log-probability of each wanted token when it and every second one of its chunk are masked.

    A bidirectional model has no chain rule, and at a token that it can see its logits mean
    nothing. Two rows hide the tokens in turn, so that each is predicted from its neighbours.
    """
    reread = reading.reread(len(context))
    row = torch.tensor([*context[len(context) - reread :], *ids])
    attention_mask = torch.ones((2, len(row)), dtype=torch.bool)
    nats: dict[int, float] = {}
    for begin in range(0, len(wanted), CHUNK):
        chunk = list(wanted[begin : begin + CHUNK])
        turns = [chunk[::2], chunk[1::2]]
        rows = row.repeat(2, 1)
        for i, turn in enumerate(turns):
            rows[i, [reread + at for at in turn]] = mask
        session = reading.begin(context[: len(context) - reread], shared, attention_mask)
        tokens = torch.tensor([ids[at] for turn in turns for at in turn])
        nats |= zip([*turns[0], *turns[1]], picked(session.logits(rows), tokens), strict=True)
    return [nats[at] for at in wanted]
