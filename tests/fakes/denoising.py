"""Toy logits and canvases for tests of the denoising loop."""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from remask.dlm.sampler import Canvases, CommitRule, Step, denoise

MASK = 0
VOCABULARY = 24


def batch(rows: list[list[int]], banned: Collection[int] = ()) -> Canvases:
    ids = torch.tensor(rows)
    table = torch.zeros(1, VOCABULARY, dtype=torch.bool)
    table[0, [MASK, *banned]] = True
    return Canvases(ids, torch.zeros_like(ids), table, MASK)


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
    canvases: Canvases,
    steps: Sequence[int | None],
    rule: CommitRule,
    seed: int,
    logits: Callable[[Tensor], Tensor] | None = None,
) -> list[Step]:
    return list(denoise(canvases, logits or toy(), steps, rule, generators(len(steps), seed)))
