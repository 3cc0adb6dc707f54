"""AttentionMode with a model in which every token sees every token.

There the context's keys and values change as the region fills, so reusing them is an approximation
(the prefix cache of Fast-dLLM, arXiv 2505.22618, section 3.2): they are read anew every `refresh`
steps, the error is measured each time, and finished regions are scored by one exact forward.
Ours: steps that read everything are shared by rows with equal canvases, as all candidates of one
canvas have at the first step. Knows token ids, a backbone and a row of `families`. Knows nothing of
text, traces and sampling.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from remask.dlm.families import Family
from remask.dlm.reading import (
    ApproximationError,
    DenoisingPass,
    Ids,
    distinct,
    picked,
    predict,
    pseudo_likelihood,
    repeat_rows,
)
from remask.dlm.sampler import CanvasBatch
from remask.dlm.schedule import MINUS_INF
from remask.errors import ConfigError
from remask.models.backbone.attention import KVCache
from remask.models.backbone.transformer import Backbone

REFRESH = 16  # steps; dLLM-Cache (arXiv 2506.06295) reads the prompt anew every 50 to 100


class Bidirectional:
    """A bidirectional model; `refresh` 1 reads everything at every step and is exact."""

    def __init__(self, backbone: Backbone, family: Family, refresh: int = REFRESH) -> None:
        """Raises ConfigError."""
        if refresh < 1:
            raise ConfigError(f"refresh is {refresh}; it must be at least 1")
        self.backbone = backbone
        self.family = family
        self.refresh = refresh
        self.approximation_error = ApproximationError()

    @property
    def identity(self) -> str:
        return f"{self.backbone.identity}/full-{self.refresh}"

    def reread(self, length: int) -> int:
        return 1

    def begin(self, context: Ids, shared: int, attention_mask: Tensor) -> DenoisingPass:
        return _BidirectionalPass(self, context, attention_mask)

    def score(self, context: Ids, shared: int, ids: Ids, wanted: Sequence[int]) -> list[float]:
        return pseudo_likelihood(self, self.family.mask, context, shared, ids, wanted)


class _BidirectionalPass:
    """Regions, and the context's keys and values as they were at the last refresh."""

    def __init__(self, reading: Bidirectional, context: Ids, attention_mask: Tensor) -> None:
        self._reading = reading
        self._context = torch.tensor([context], dtype=torch.long)
        self._real = attention_mask
        self._step = 0
        self._past: KVCache | None = None  # one row for all, or one for each of _rows
        self._rows: list[int] = []  # of the batch

    def logits(self, ids: Tensor) -> Tensor:
        step, self._step = self._step, self._step + 1
        if step % self._reading.refresh:
            return self._quick(ids, self._open(ids))
        rows = self._open(ids)
        quick = self._quick(ids, rows) if self._past is not None else None
        self._past = None  # so that old and new are not held at once
        exact = self._whole(ids, rows, keep=self._reading.refresh > 1)
        self._measure(quick, exact)
        return exact

    def nats(self, ids: Tensor, canvases: CanvasBatch, logp: Tensor) -> Tensor:
        """One exact forward in which every second written token is masked again.

        The log-probabilities of committed tokens came from approximate logits. And a model says
        nothing about a token that it sees. The mean over these tokens stands for all.
        """
        again = ids.clone()
        for row, canvas in zip(again, canvases.ids, strict=True):
            row[(canvas == canvases.mask).nonzero()[::2, 0]] = canvases.mask
        rows = self._open(again)
        found = self._whole(again, rows, keep=False)
        masked = again == canvases.mask
        if self._past is not None:
            known = [row for row in self._rows if row in rows]
            counts = masked[rows].sum(1).tolist()
            parts = dict(zip(rows, torch.split(found, counts), strict=True))
            self._measure(self._quick(again, known), torch.cat([parts[row] for row in known]))
        banned = canvases.banned[canvases.kinds[masked]].to(found.device)
        found = found.masked_fill(banned, MINUS_INF)
        scored = torch.zeros(ids.shape, dtype=torch.float64)
        scored[masked] = torch.tensor(picked(found, ids[masked]), dtype=torch.float64)
        written = (canvases.ids == canvases.mask).sum(1)
        return scored.sum(1) / masked.sum(1).clamp(min=1) * written

    def _open(self, ids: Tensor) -> list[int]:
        rows: list[int] = (ids == self._reading.family.mask).any(1).nonzero()[:, 0].tolist()
        return rows

    def _measure(self, quick: Tensor | None, exact: Tensor) -> None:
        if quick is not None:
            self._reading.approximation_error = self._reading.approximation_error.measured(
                quick, exact
            )

    def _quick(self, ids: Tensor, rows: list[int]) -> Tensor:
        """Logits of `rows` from the regions alone, behind the kept context."""
        assert self._past is not None
        if len(self._past.attention_mask) > 1 and rows != self._rows:
            at = torch.tensor([self._rows.index(row) for row in rows])
            self._past = self._past.select(at.to(self._past.attention_mask.device))
        self._rows = rows
        ids, attention_mask = ids[rows], self._real[rows]
        backbone, family = self._reading.backbone, self._reading.family
        hidden, _ = backbone.read_blocks(ids, attention_mask, torch.zeros_like(ids), self._past)
        return predict(backbone, family, hidden, ids == family.mask)

    def _whole(self, ids: Tensor, rows: list[int], keep: bool) -> Tensor:
        """Logits of `rows` from context and regions; with `keep` the context is kept."""
        first, inverse = distinct(ids[rows], self._real[rows])
        kinds = [rows[i] for i in first]
        regions = ids[kinds]
        context = self._context.expand(len(kinds), -1)
        joint = torch.cat([context, regions], 1)
        attention_mask = torch.cat(
            [torch.ones_like(context, dtype=torch.bool), self._real[kinds]], 1
        )
        backbone, family = self._reading.backbone, self._reading.family
        hidden, memory = backbone.read_blocks(
            joint, attention_mask, torch.zeros_like(joint), keep=keep
        )
        size = context.shape[1]
        if memory is not None:
            kept = _first_tokens(memory, size)
            if 1 < len(kinds) < len(rows):
                kept = kept.select(torch.tensor(inverse, device=kept.attention_mask.device))
            self._past, self._rows = kept, rows
        masked = regions == family.mask
        found = predict(backbone, family, hidden[:, size:], masked)
        return repeat_rows(found, masked, inverse)


def _first_tokens(memory: KVCache, size: int) -> KVCache:
    """The memory of the first `size` tokens."""
    return replace(
        memory,
        keys=tuple(k[:, :, :size] for k in memory.keys),
        values=tuple(v[:, :, :size] for v in memory.values),
        attention_mask=memory.attention_mask[:, :size],
    )
