"""Draw which tokens of a window are masked in training.

The distribution is that of use: mostly a few short spans with all other tokens visible, some of
them partly written, as in the middle of denoising. With elastic lengths, half of the rows with one
span have extra positions after it, which the delete token fills. Complementary pairs of rows make
sure that every token is trained (LLaDA 2.0, arXiv 2512.15745: each text once with a mask and once
with its complement). Whole windows are rare.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class CorruptionMask:
    """The positions of one row of n tokens that are masked. At least one is."""

    hidden: list[bool]  # for each of the n tokens
    # For a token index, which of the extra positions before that token are masked.
    extra: dict[int, list[bool]] = field(default_factory=dict)


Masks = list[CorruptionMask]

SPAN_TOKENS = (1, 2, 3, 4, 4, 6, 8, 8, 8, 12, 16, 24, 32)  # the lengths of holes in use
MEAN_RUN_TOKENS = 8.0  # of alternating runs
EXTRA_SHARE = 0.5  # of rows with one span that get extra positions, with elastic lengths


def mask_spans(n: int, rows: int, rng: Rng, elastic: bool) -> Masks:
    """Mask one to three spans of each row, whole or partly: from the left, or anywhere."""
    return [_draw_spans(n, rng, elastic) for _ in range(rows)]


def mask_runs(n: int, rows: int, rng: Rng, elastic: bool) -> Masks:
    """Make pairs of rows: every second run of about eight tokens, and the other runs."""
    return _make_pairs(rows, lambda: _draw_runs(n, rng))


def mask_tokens(n: int, rows: int, rng: Rng, elastic: bool) -> Masks:
    """Make pairs of rows: each token independently with a drawn probability, and the others."""
    return _make_pairs(rows, lambda: (rng.random(n) < rng.uniform(0.15, 0.85)).tolist())


def mask_all(n: int, rows: int, rng: Rng, elastic: bool) -> Masks:
    """Mask all tokens of the first row, and of the others all from a drawn position on."""
    starts = [0 if row == 0 else int(rng.integers(n)) for row in range(rows)]
    return [CorruptionMask([i >= start for i in range(n)]) for start in starts]


Corruption = Callable[[int, int, Rng, bool], Masks]
CORRUPTIONS: dict[str, tuple[float, Corruption]] = {  # probability and function
    "spans": (0.55, mask_spans),
    "alternating": (0.25, mask_runs),
    "tokens": (0.15, mask_tokens),
    "whole": (0.05, mask_all),
}


def apply_corruption(n: int, rows: int, rng: Rng, elastic: bool = False) -> Masks:
    """Draw `rows` masks of the same n > 0 tokens, each with at least one masked token."""
    shares = np.array([share for share, _ in CORRUPTIONS.values()])
    names = list(CORRUPTIONS)
    _, corrupt = CORRUPTIONS[names[int(rng.choice(len(names), p=shares / shares.sum()))]]
    masks = corrupt(n, rows, rng, elastic)
    return [mask if _hides_any(mask) else _draw_spans(n, rng, False) for mask in masks]


def mask_texts(n: int, texts: Sequence[Sequence[int]], rows: int, rng: Rng) -> Masks:
    """Mask given runs of token indices, each of them whole or partly; all other tokens are visible."""
    masks: Masks = []
    for _ in range(rows):
        hidden = [False] * n
        for run in texts:
            for i, is_masked in zip(run, draw_span(len(run), rng), strict=True):
                hidden[i] = is_masked
        masks.append(CorruptionMask(hidden))
    return masks


def _hides_any(mask: CorruptionMask) -> bool:
    return any(mask.hidden) or any(any(positions) for positions in mask.extra.values())


def _draw_spans(n: int, rng: Rng, elastic: bool) -> CorruptionMask:
    hidden = [False] * n
    count = int(rng.integers(1, 4))
    for _ in range(count):
        length = min(n, SPAN_TOKENS[int(rng.integers(len(SPAN_TOKENS)))])
        start = int(rng.integers(n - length + 1))
        stretched = elastic and count == 1 and rng.random() < EXTRA_SHARE
        extra = int(rng.integers(1, 3 + length // 2)) if stretched else 0
        positions = draw_span(length + extra, rng)
        for i in range(length):
            hidden[start + i] |= positions[i]
        if extra:
            return CorruptionMask(hidden, {start + length: positions[length:]})
    return CorruptionMask(hidden)


def draw_span(length: int, rng: Rng) -> list[bool]:
    """Draw which positions of a span are masked; at least one is."""
    kind, first = rng.random(), int(rng.integers(length))
    if kind < 0.35:  # as if denoised from the left so far
        return [i >= first for i in range(length)]
    if kind < 0.6:  # as if denoised at random positions so far
        return [i == first or rng.random() < 0.6 for i in range(length)]
    return [True] * length


def _draw_runs(n: int, rng: Rng) -> list[bool]:
    hidden: list[bool] = []
    on = bool(rng.random() < 0.5)
    while len(hidden) < n:
        hidden += [on] * (1 + int(rng.geometric(1 / MEAN_RUN_TOKENS)))
        on = not on
    return hidden[:n]


def _make_pairs(rows: int, draw: Callable[[], list[bool]]) -> Masks:
    masks: Masks = []
    while len(masks) < rows:
        hidden = draw()
        masks += [CorruptionMask(hidden), CorruptionMask([not masked for masked in hidden])]
    return masks[:rows]
