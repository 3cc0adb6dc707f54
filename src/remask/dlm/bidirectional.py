"""The attention mode of models in which every token sees every other token.

In such a model the keys and values of the context change while the region is filled, so reusing
them is an approximation (prefix cache of Fast-dLLM, arXiv 2505.22618, section 3.2). They are
computed again every `refresh` steps, and the error of the reuse is measured each time. Finished
regions are scored by one exact forward. Beyond the paper, a step that reads context and region
reads rows with equal canvases once; all candidates of one canvas are equal at the first step.
"""

from dataclasses import replace

import torch
from torch import Tensor

from remask.dlm.families import Family
from remask.dlm.reading import (
    AttentionMode,
    DenoisingPass,
    Ids,
    find_distinct_rows,
    pick_log_probs,
    predict,
    repeat_rows,
)
from remask.dlm.sampler import CanvasBatch
from remask.dlm.schedule import MINUS_INF
from remask.errors import ConfigError
from remask.models.backbone.attention import KVCache
from remask.models.backbone.transformer import Backbone

# Steps between two reads of the context. dLLM-Cache (arXiv 2506.06295) reads the prompt again every
# 50 to 100 steps.
REFRESH_STEPS = 16


class Bidirectional(AttentionMode):
    """The attention mode of a bidirectional model. With `refresh=1` every step is exact."""

    def __init__(self, backbone: Backbone, family: Family, refresh: int = REFRESH_STEPS) -> None:
        """Raises ConfigError if `refresh` is less than 1."""
        if refresh < 1:
            raise ConfigError(f"refresh is {refresh}; it must be at least 1")
        self.backbone = backbone
        self.family = family
        self.refresh = refresh

    @property
    def identity(self) -> str:
        return f"{self.backbone.identity}/full-{self.refresh}"

    def begin(self, context: Ids, shared: int, attention_mask: Tensor) -> DenoisingPass:
        return _BidirectionalPass(self, context, attention_mask)


class _BidirectionalPass:
    """A batch of regions, and the keys and values of the context as of the last refresh."""

    def __init__(self, mode: Bidirectional, context: Ids, attention_mask: Tensor) -> None:
        self._mode = mode
        self._context = torch.tensor([context], dtype=torch.long)
        self._attention_mask = attention_mask
        self._step = 0
        self._past: KVCache | None = None  # one row for all rows, or one for each of _rows
        self._rows: list[int] = []  # indices of batch rows

    def logits(self, ids: Tensor) -> Tensor:
        step, self._step = self._step, self._step + 1
        rows = self._find_open_rows(ids)
        if step % self._mode.refresh:
            return self._read_regions(ids, rows)
        approximate = self._read_regions(ids, rows) if self._past is not None else None
        self._past = None  # frees the old cache before the new one is computed
        exact = self._read_all(ids, rows, keep=self._mode.refresh > 1)
        self._record_error(approximate, exact)
        return exact

    def sum_log_probs(self, ids: Tensor, canvases: CanvasBatch, logp: Tensor) -> Tensor:
        """Score finished regions by one exact forward in which every second written token is
        masked again.

        The log-probabilities of committed tokens came from approximate logits, and a model's logits
        at a token that it can see say nothing about that token. The sum over all written tokens is
        estimated as their number times the mean over the masked ones.
        """
        masked_ids = ids.clone()
        for row, canvas in zip(masked_ids, canvases.ids, strict=True):
            row[(canvas == canvases.mask).nonzero()[::2, 0]] = canvases.mask
        rows = self._find_open_rows(masked_ids)
        logits = self._read_all(masked_ids, rows, keep=False)
        masked = masked_ids == canvases.mask
        if self._past is not None:
            cached = [row for row in self._rows if row in rows]
            counts = masked[rows].sum(1).tolist()
            by_row = dict(zip(rows, torch.split(logits, counts), strict=True))
            approximate = self._read_regions(masked_ids, cached)
            self._record_error(approximate, torch.cat([by_row[row] for row in cached]))
        banned = canvases.banned[canvases.constraints[masked]].to(logits.device)
        logits = logits.masked_fill(banned, MINUS_INF)
        scored = torch.zeros(ids.shape, dtype=torch.float64)
        scored[masked] = torch.tensor(pick_log_probs(logits, ids[masked]), dtype=torch.float64)
        written = (canvases.ids == canvases.mask).sum(1)
        return scored.sum(1) / masked.sum(1).clamp(min=1) * written

    def _find_open_rows(self, ids: Tensor) -> list[int]:
        """Return the indices of the rows that contain a mask."""
        rows: list[int] = (ids == self._mode.family.mask).any(1).nonzero()[:, 0].tolist()
        return rows

    def _record_error(self, approximate: Tensor | None, exact: Tensor) -> None:
        if approximate is not None:
            error = self._mode.approximation_error
            self._mode.approximation_error = error.add_comparison(approximate, exact)

    def _read_regions(self, ids: Tensor, rows: list[int]) -> Tensor:
        """Return the logits of `rows`, reading the regions only, after the cached context."""
        assert self._past is not None
        if len(self._past.attention_mask) > 1 and rows != self._rows:
            indices = torch.tensor([self._rows.index(row) for row in rows])
            self._past = self._past.select(indices.to(self._past.attention_mask.device))
        self._rows = rows
        ids, attention_mask = ids[rows], self._attention_mask[rows]
        backbone, family = self._mode.backbone, self._mode.family
        hidden, _ = backbone.read_blocks(ids, attention_mask, torch.zeros_like(ids), self._past)
        return predict(backbone, family, hidden, ids == family.mask)

    def _read_all(self, ids: Tensor, rows: list[int], keep: bool) -> Tensor:
        """Return the logits of `rows`, reading context and regions; `keep` caches the context."""
        first, inverse = find_distinct_rows(ids[rows], self._attention_mask[rows])
        distinct = [rows[i] for i in first]
        regions = ids[distinct]
        context = self._context.expand(len(distinct), -1)
        joint = torch.cat([context, regions], 1)
        attention_mask = torch.cat(
            [torch.ones_like(context, dtype=torch.bool), self._attention_mask[distinct]], 1
        )
        backbone, family = self._mode.backbone, self._mode.family
        hidden, cache = backbone.read_blocks(joint, attention_mask, torch.zeros_like(joint), keep=keep)
        size = context.shape[1]
        if cache is not None:
            kept = _cut_cache(cache, size)
            if 1 < len(distinct) < len(rows):
                kept = kept.select(torch.tensor(inverse, device=kept.attention_mask.device))
            self._past, self._rows = kept, rows
        masked = regions == family.mask
        logits = predict(backbone, family, hidden[:, size:], masked)
        return repeat_rows(logits, masked, inverse)


def _cut_cache(cache: KVCache, size: int) -> KVCache:
    """Keep the keys and values of the first `size` tokens."""
    return replace(
        cache,
        keys=tuple(k[:, :, :size] for k in cache.keys),
        values=tuple(v[:, :, :size] for v in cache.values),
        attention_mask=cache.attention_mask[:, :size],
    )
