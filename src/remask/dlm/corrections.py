"""Tokens that are already written are corrected, by models that were trained on it.

LLaDA2.1 (arXiv 2602.08676) was trained to find wrong tokens as well as to fill masks. A finished
block is read again: a written token is replaced by the most probable one, if that is another token
and its probability is above a threshold. This is repeated until nothing changes, at most as often
as in the model's own sampler. That sampler also corrects a block before it is finished.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from remask.dlm.sampler import CanvasBatch, Correct, find_repeats
from remask.dlm.schedule import MINUS_INF

MAX_PASSES = 16  # over a finished block, max_post_steps of the model's own sampler

# (ids, positions), each (K, L) -> (positions, V) logits of the tokens at the true positions
ReadAt = Callable[[Tensor, Tensor], Tensor]


def correct_blocks(canvases: CanvasBatch, read_at: ReadAt, threshold: float) -> Correct:
    """Return a function that corrects the written tokens of finished blocks."""

    def correct(ids: Tensor, logp: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        ids, logp, positions = ids.clone(), logp.clone(), positions.clone()
        for _ in range(MAX_PASSES):
            if not bool(positions.any()):
                break
            logits = read_at(ids, positions).float()
            banned = canvases.banned.to(logits.device)[canvases.constraints[positions].to(logits.device)]
            best = logits.masked_fill(banned, MINUS_INF).log_softmax(-1).max(-1)
            changed = _write_best(
                canvases, ids, logp, positions, best.values.cpu(), best.indices.cpu(), threshold
            )
            positions &= changed[:, None]  # a row in which nothing changed would be read as before
        return ids, logp

    return correct


def _write_best(
    canvases: CanvasBatch,
    ids: Tensor,
    logp: Tensor,
    positions: Tensor,
    nats: Tensor,
    tokens: Tensor,
    threshold: float,
) -> Tensor:
    """Write the most probable `tokens` (N,) at the N true `positions`, in place, where their
    probability, whose logarithms are `nats` (N,), is above `threshold`.

    Returns (K,) bool, the rows in which a token changed.
    """
    changed = torch.zeros(len(ids), dtype=torch.bool)
    found = zip(positions.nonzero().tolist(), nats.tolist(), tokens.tolist(), strict=True)
    for (row, column), value, token in found:
        if token == int(ids[row, column]) or value <= math.log(threshold):
            continue
        refused = find_repeats(ids[row].tolist(), column, canvases.mask)
        if token in refused.difference(canvases.repeatable):
            continue
        ids[row, column], logp[row, column], changed[row] = token, value, True
    return changed
