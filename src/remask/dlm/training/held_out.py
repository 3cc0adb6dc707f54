"""How well a denoiser fills spans of held-out prompts, in nats per token.

Some tokens of each prompt are hidden, everything around them is visible: filled from the left with
one token a step (the chain rule, both sides visible), all at once in one step, and by the base left
to right, which sees the left side only. Knows readings and pieces; knows no training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
import torch
from torch import Tensor

from remask.dlm.adapter import Adapted
from remask.dlm.layout import Layout
from remask.dlm.reading import Prefixes, RegionReading
from remask.dlm.training.batches import Piece, cut, fitting
from remask.dlm.training.corpus import Case
from remask.dlm.training.masking import CorruptionMask, Masks
from remask.ids import rng_for
from remask.models.backbone.transformer import Backbone

CONTEXT_TOKENS = 400  # of traces: what the search reads by default
MASKS = 2000  # whose logits are held at once
Choose = Callable[[int, np.random.Generator], list[int]]  # of n tokens those that are hidden


@dataclass(frozen=True, slots=True)
class Nats:
    """Per hidden token, mean over all of them; lower is better."""

    what: str  # "span 8", "ratio 0.2"
    dlm: float  # from the left, one token a step
    dlm_parallel: float  # all in one step
    base_left: float  # the frozen base, left context only
    no_traces: float  # as `dlm`, without conversations
    first: float  # the first hidden token of each prompt alone, as `dlm`
    n: int  # prompts


def span(length: int) -> Choose:
    """A contiguous span of `length` tokens; none where the window is not two tokens longer."""

    def choose(n: int, rng: np.random.Generator) -> list[int]:
        if n < length + 2:
            return []
        start = int(rng.integers(n - length))
        return list(range(start, start + length))

    return choose


def ratio(share: float) -> Choose:
    """Each token by itself with probability `share`; all for 1."""
    return lambda n, rng: [i for i in range(n) if rng.random() < share]


WHATS: dict[str, Choose] = {
    **{f"span {n}": span(n) for n in (4, 8, 16, 32)},
    **{f"ratio {share}": ratio(share) for share in (0.2, 0.5, 1.0)},
}


def measure(
    base: Backbone, adapted: Adapted, cases: Sequence[Case], what: str, seed: int = 0
) -> Nats | None:
    """The nats of a row of WHATS on those cases that are long enough; None where none is.

    What is hidden depends on `seed`, the prompt and `what` alone.
    """
    reading = RegionReading(
        base, adapted.backbone, adapted.gates, adapted.family, Prefixes(base, 1)
    )
    layout = Layout(base, adapted.family)
    told: list[float] = []
    parallel: list[float] = []
    left: list[float] = []
    bare: list[float] = []
    first: list[float] = []
    for case in cases:
        rng = rng_for(seed, "measure", case.id, what)
        ids, ranges = layout.backbone.encode_spans(case.prompt)
        anchor = int(rng.integers(len(ids)))
        traces = fitting(case, CONTEXT_TOKENS, layout, rng)
        longest = layout.family.window
        piece = cut(case.prompt, ids, ranges, anchor, longest, layout, traces)
        hidden = WHATS[what](len(piece.window), rng)
        if not hidden:
            continue
        one_by_one = filled(reading, piece, hidden)
        told += one_by_one
        first.append(one_by_one[0])
        parallel += at_once(reading, piece, hidden)
        left += [
            -logp for logp in reading.score((*piece.context, piece.front), 0, piece.window, hidden)
        ]
        alone = cut(case.prompt, ids, ranges, anchor, longest, layout, ())
        bare += filled(reading, alone, hidden)
    if not told:
        return None
    return Nats(what, mean(told), mean(parallel), mean(left), mean(bare), mean(first), len(first))


def filled(reading: RegionReading, piece: Piece, hidden: Sequence[int]) -> list[float]:
    """Nats of each hidden token, those before it written and those behind it still masked."""
    size, nats = len(piece.window), []
    rows = [set(hidden[k:]) for k in range(len(hidden))]
    most = max(1, MASKS // len(hidden))
    for begin in range(0, len(rows), most):
        some = rows[begin : begin + most]
        masks = [CorruptionMask([i in row for i in range(size)]) for row in some]
        logp = _logp(reading, piece, masks)
        at = 0
        for k, row in enumerate(some, begin):
            nats.append(-float(logp[at, piece.window[hidden[k]]]))
            at += len(row)
    return nats


def at_once(reading: RegionReading, piece: Piece, hidden: Sequence[int]) -> list[float]:
    """Nats of each hidden token while all of them are masked."""
    chosen = set(hidden)
    mask = CorruptionMask([i in chosen for i in range(len(piece.window))])
    logp = _logp(reading, piece, [mask])
    return [-float(logp[k, piece.window[i]]) for k, i in enumerate(hidden)]


def _logp(reading: RegionReading, piece: Piece, masks: Masks) -> Tensor:
    """(masks, V) log-probabilities at all masks of the rows, in reading order: of the tokens that
    a fill of fixed length may contain."""
    family = reading.family
    ids = torch.tensor([piece.rows(mask, family).ids for mask in masks])
    session = reading.begin(piece.context, 0, torch.ones_like(ids, dtype=torch.bool))
    logits = session.logits(ids)
    logits[:, list(family.special)] = float("-inf")
    return logits.log_softmax(-1)
