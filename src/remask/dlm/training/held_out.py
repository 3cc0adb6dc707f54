"""How well a denoiser fills spans of held-out prompts, in nats per token.

Some tokens of each prompt are hidden, everything around them is visible: filled from the left with
one token a step (the chain rule, both sides visible), all at once in one step, and by the base left
to right, which sees the left side only. Knows readings and pieces; knows no training.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import mean

import numpy as np
import torch
from torch import Tensor

from remask.dlm.adapter import Adapted
from remask.dlm.build import builtin_mode
from remask.dlm.layout import Layout
from remask.dlm.reading import PrefixLM
from remask.dlm.training.batches import Piece, cut, fitting
from remask.dlm.training.corpus import TrainingExample
from remask.dlm.training.masking import CorruptionMask
from remask.ids import rng_for
from remask.models.backbone.transformer import Backbone

CONTEXT_TOKENS = 400  # of traces: what the search reads by default
MASKS = 2000  # whose logits are held at once
Choose = Callable[[int, np.random.Generator], list[int]]  # of n tokens those that are hidden


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
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
    base: Backbone, adapted: Adapted, cases: Sequence[TrainingExample], what: str, seed: int = 0
) -> HeldOutLoss | None:
    """The nats of a row of WHATS on those cases that are long enough; None where none is.

    What is hidden depends on `seed`, the prompt and `what` alone.
    """
    reading = builtin_mode(base, adapted)
    layout = Layout(base, adapted.family)
    longest = layout.family.window
    found: dict[str, list[float]] = defaultdict(list)
    for case in cases:
        rng = rng_for(seed, "measure", case.id, what)
        anchor = int(rng.integers(layout.count(case.prompt)))
        traces = fitting(case, CONTEXT_TOKENS, layout, rng)
        piece = cut(case.prompt, anchor, longest, layout, traces)
        hidden = WHATS[what](len(piece.window), rng)
        if not hidden:
            continue
        one_by_one = filled(reading, piece, hidden)
        found["denoiser"] += one_by_one
        found["first"].append(one_by_one[0])
        found["dlm_parallel"] += at_once(reading, piece, hidden)
        logp = reading.score((*piece.context, piece.front), 0, piece.window, hidden)
        found["base_left"] += [-nats for nats in logp]
        alone = cut(case.prompt, anchor, longest, layout, ())
        found["no_traces"] += filled(reading, alone, hidden)
    if not found:
        return None
    means = {name: mean(nats) for name, nats in found.items()}
    return HeldOutLoss(what, n=len(found["first"]), **means)


def filled(reading: PrefixLM, piece: Piece, hidden: Sequence[int]) -> list[float]:
    """Nats of each hidden token, those before it written and those behind it still masked."""
    nats: list[float] = []
    rows = [hidden[k:] for k in range(len(hidden))]
    most = max(1, MASKS // len(hidden))
    for begin in range(0, len(rows), most):
        some = rows[begin : begin + most]
        logp = _logp(reading, piece, some)
        # The first mask of each row is the token to fill.
        at = [0, *accumulate(map(len, some[:-1]))]
        nats += [-float(logp[i, piece.window[row[0]]]) for i, row in zip(at, some, strict=True)]
    return nats


def at_once(reading: PrefixLM, piece: Piece, hidden: Sequence[int]) -> list[float]:
    """Nats of each hidden token while all of them are masked."""
    logp = _logp(reading, piece, [hidden])
    return [-float(logp[k, piece.window[i]]) for k, i in enumerate(hidden)]


def _logp(reading: PrefixLM, piece: Piece, rows: Sequence[Sequence[int]]) -> Tensor:
    """(masks, V) log-probabilities at all masks, in reading order, where each of `rows` hides these
    tokens of the window: of the tokens that a fill of fixed length may contain."""
    family = reading.family
    masks = [CorruptionMask([i in row for i in range(len(piece.window))]) for row in map(set, rows)]
    ids = torch.tensor([piece.rows(mask, family).ids for mask in masks])
    session = reading.begin(piece.context, 0, torch.ones_like(ids, dtype=torch.bool))
    logits = session.logits(ids)
    logits[:, list(family.special)] = float("-inf")
    return logits.log_softmax(-1)
