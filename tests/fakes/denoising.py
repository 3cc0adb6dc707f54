"""Toy logits and canvases for tests of the denoising loop, and a recording attention mode.

A run with the same seed is the same to the bit, whatever other rows are in its batch.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from remask.dlm.denoiser import LocalDenoiser
from remask.dlm.reading import AttentionMode, DenoisingPass, Ids
from remask.dlm.sampler import CanvasBatch, CommitRule, Step, denoise

MASK = 0
VOCABULARY = 24


def batch(rows: list[list[int]], banned: Collection[int] = ()) -> CanvasBatch:
    ids = torch.tensor(rows)
    table = torch.zeros(1, VOCABULARY, dtype=torch.bool)
    table[0, [MASK, *banned]] = True
    return CanvasBatch(ids, torch.zeros_like(ids), table, MASK)


def toy(seed: int = 0) -> Callable[[Tensor], Tensor]:
    """Logits that depend on position and on the tokens of the row, as a model's do."""
    table = torch.randn(64, VOCABULARY, generator=torch.Generator().manual_seed(seed))

    def logits(ids: Tensor) -> Tensor:
        rows, columns = (ids == MASK).nonzero(as_tuple=True)
        return table[columns] * 2 + table[ids.sum(1)[rows] % 64]

    return logits


def generators(count: int, seed: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed * 100 + i) for i in range(count)]


def run(
    canvases: CanvasBatch,
    steps: Sequence[int | None],
    rule: CommitRule,
    seed: int,
    logits: Callable[[Tensor], Tensor] | None = None,
) -> list[Step]:
    return list(denoise(canvases, logits or toy(), steps, rule, generators(len(steps), seed)))


class RecordedMode:
    """An attention mode that records the context and the width of the regions of each pass."""

    def __init__(self, mode: AttentionMode) -> None:
        self.mode = mode
        self.contexts: list[Ids] = []
        self.widths: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.mode, name)

    def begin(self, context: Ids, shared: int, attention_mask: Tensor) -> DenoisingPass:
        self.contexts.append(context)
        self.widths.append(attention_mask.shape[1])
        return self.mode.begin(context, shared, attention_mask)


def record_passes(denoiser: LocalDenoiser, **changed: Any) -> tuple[LocalDenoiser, RecordedMode]:
    """The same denoiser with the `changed` arguments, and its attention mode, which records."""
    names = ("name", "backbone", "family", "rule", "steps")
    mode = RecordedMode(denoiser.mode)
    parts = {name: getattr(denoiser, name) for name in names} | {"mode": mode} | changed
    return LocalDenoiser(**parts), mode
