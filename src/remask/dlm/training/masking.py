"""Which tokens of a window are masked: the corruptions of training.

Knows counts and randomness; knows no tokens and no text. The distribution is that of use: mostly
a few short spans with everything around them visible, some of them half written already as in the
middle of denoising. Where lengths are elastic, half of the lone spans end with places too many,
which the delete token fills. Complementary pairs (LLaDA 2.0, arXiv 2512.15745: each text once with
a mask and once with its complement) make sure that every token is learnt from; whole windows are
rare.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class CorruptionMask:
    """How one row hides a window of n tokens; at least one place is hidden."""

    hidden: list[bool]  # of n tokens
    # Places too many that stand before the token at an index, and which of them are hidden.
    spare: dict[int, list[bool]] = field(default_factory=dict)


Masks = list[CorruptionMask]

SPANS = (1, 2, 3, 4, 4, 6, 8, 8, 8, 12, 16, 24, 32)  # tokens, as holes in use are long
MEAN_RUN = 8.0  # tokens of a run where runs alternate
SPARE = 0.5  # of rows with one span, how many have places too many where lengths are elastic


def spans(n: int, rows: int, rng: Rng, elastic: bool) -> Masks:
    """One to three spans a row, untouched, or written in part: from the left, or anywhere."""
    return [_spans(n, rng, elastic) for _ in range(rows)]


def alternating(n: int, rows: int, rng: Rng, elastic: bool) -> Masks:
    """Pairs of rows: runs of about eight tokens, every second one masked, and the others."""
    return _pairs(rows, lambda: _runs(n, rng))


def tokens(n: int, rows: int, rng: Rng, elastic: bool) -> Masks:
    """Pairs of rows: each token masked by itself at a drawn ratio, and the others."""
    return _pairs(rows, lambda: (rng.random(n) < rng.uniform(0.15, 0.85)).tolist())


def whole(n: int, rows: int, rng: Rng, elastic: bool) -> Masks:
    """Everything, or all behind a drawn place."""
    return [CorruptionMask([i >= start for i in range(n)]) for start in _starts(n, rows, rng)]


Corruption = Callable[[int, int, Rng, bool], Masks]
CORRUPTIONS: dict[str, tuple[float, Corruption]] = {  # how often, and what
    "spans": (0.55, spans),
    "alternating": (0.25, alternating),
    "tokens": (0.15, tokens),
    "whole": (0.05, whole),
}


def corrupt(n: int, rows: int, rng: Rng, elastic: bool = False) -> Masks:
    """`rows` ways to mask the same n tokens (n > 0), at least one token masked in each."""
    shares = np.array([share for share, _ in CORRUPTIONS.values()])
    names = list(CORRUPTIONS)
    _, chosen = CORRUPTIONS[names[int(rng.choice(len(names), p=shares / shares.sum()))]]
    masks = chosen(n, rows, rng, elastic)
    return [mask if _hides(mask) else _spans(n, rng, False) for mask in masks]


def _hides(mask: CorruptionMask) -> bool:
    return any(mask.hidden) or any(any(places) for places in mask.spare.values())


def _spans(n: int, rng: Rng, elastic: bool) -> CorruptionMask:
    hidden = [False] * n
    count = int(rng.integers(1, 4))
    for _ in range(count):
        length = min(n, SPANS[int(rng.integers(len(SPANS)))])
        start = int(rng.integers(n - length + 1))
        stretched = elastic and count == 1 and rng.random() < SPARE
        spare = int(rng.integers(1, 3 + length // 2)) if stretched else 0
        places = _span(length + spare, rng)
        for i in range(length):
            hidden[start + i] |= places[i]
        if spare:
            return CorruptionMask(hidden, {start + length: places[length:]})
    return CorruptionMask(hidden)


def _span(length: int, rng: Rng) -> list[bool]:
    """Which places of a span are hidden; at least one is."""
    written, left = rng.random(), int(rng.integers(length))
    if written < 0.35:  # denoised from the left so far
        return [i >= left for i in range(length)]
    if written < 0.6:  # denoised here and there
        return [i == left or rng.random() < 0.6 for i in range(length)]
    return [True] * length


def _runs(n: int, rng: Rng) -> list[bool]:
    mask: list[bool] = []
    on = bool(rng.random() < 0.5)
    while len(mask) < n:
        mask += [on] * (1 + int(rng.geometric(1 / MEAN_RUN)))
        on = not on
    return mask[:n]


def _pairs(rows: int, draw: Callable[[], list[bool]]) -> Masks:
    masks: Masks = []
    while len(masks) < rows:
        mask = draw()
        masks += [CorruptionMask(mask), CorruptionMask([not masked for masked in mask])]
    return masks[:rows]


def _starts(n: int, rows: int, rng: Rng) -> list[int]:
    return [0 if i == 0 else int(rng.integers(n)) for i in range(rows)]
