"""A case to what the denoiser reads: context, window, and rows of masks.

The same layout as in use (`dlm.layout`, `dlm.canvas.window`): traces of 64 to 1,000 tokens before
windows of at most the family's length, the rest of a longer prompt told as text. A context is read
once for all corruptions of its window.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from remask.data.prompt_traces import shorten
from remask.dlm.canvas import CanvasRow, sentence_starts, window
from remask.dlm.families import Family
from remask.dlm.layout import Layout
from remask.dlm.reading import Ids, padded
from remask.dlm.training.corpus import TrainingExample, shown
from remask.dlm.training.masking import CorruptionMask, Masks, corrupt
from remask.ids import rng_for
from remask.ports import Context

CONTEXTS = (64, 1000)  # tokens of traces, drawn on a logarithmic scale
MOST_TRACES = 12
SHORTEST_WINDOW = 16
NOWHERE = -1


@dataclass(frozen=True, slots=True)
class Piece:
    """A window of a prompt behind its context."""

    context: Ids  # without the front, the last token, which is read with the region
    front: int
    window: Ids
    close: Ids  # the end of the turn where the window reaches the prompt's end

    @property
    def clean(self) -> list[int]:
        return [self.front, *self.window, *self.close]

    def rows(self, mask: CorruptionMask, family: Family) -> "Rows":
        """The region as `mask` hides it, what it should become, and where that stands."""
        rows = Rows([self.front], [self.front], [0])
        for i, token in enumerate(self.window):
            for hides in mask.spare.get(i, ()):
                rows.add(family.delete, hides, NOWHERE, family)
            rows.add(token, mask.hidden[i], i + 1, family)
        for hides in mask.spare.get(len(self.window), ()):
            rows.add(family.delete, hides, NOWHERE, family)
        for i, token in enumerate(self.close, 1 + len(self.window)):
            rows.add(token, False, i, family)
        return rows


@dataclass(frozen=True, slots=True)
class Rows:
    """One region in three readings, of equal length."""

    ids: list[int]  # with masks
    truth: list[int]  # without
    source: list[int]  # the place in `Piece.clean`; NOWHERE for a deleted place

    def add(self, token: int, hides: bool, source: int, family: Family) -> None:
        self.ids.append(family.mask if hides else token)
        self.truth.append(token)
        self.source.append(source)


@dataclass(frozen=True, slots=True)
class Batch:
    """T contexts with R corruptions each; padded on the left and on the right."""

    contexts: Tensor  # (T, C) long
    contexts_real: Tensor  # (T, C) bool
    clean: Tensor  # (T, W) long: the regions without masks
    clean_real: Tensor  # (T, W) bool
    ids: Tensor  # (T * R, L) long, masks in place
    attention_mask: Tensor  # (T * R, L) bool
    masked: Tensor  # (T * R, L) bool: where the loss is
    truth: Tensor  # (T * R, L) long: what should stand there
    source: Tensor  # (T * R, L) long: the place of that in `clean`; NOWHERE for deleted places


def draw_piece(case: TrainingExample, layout: Layout, rng: np.random.Generator) -> Piece:
    """A window of the case's prompt behind a drawn part of its traces."""
    limit = int(math.exp(rng.uniform(math.log(CONTEXTS[0]), math.log(CONTEXTS[1]))))
    longest = layout.family.window
    if rng.random() < 0.3:
        longest = int(rng.integers(SHORTEST_WINDOW, longest + 1))
    anchor = int(rng.integers(layout.count(case.prompt)))
    return cut(case.prompt, anchor, longest, layout, fitting(case, limit, layout, rng))


def cut(prompt: str, anchor: int, longest: int, layout: Layout, traces: Context) -> Piece:
    """The window of at most `longest` tokens round the token `anchor`, as in use."""
    ids, ranges = layout.backbone.encode_spans(prompt)
    cuts = sorted({0, len(ids), *sentence_starts(prompt, ranges)})
    row = CanvasRow(tuple(ids), (0,) * len(ids), ((anchor, anchor + 1),), tuple(cuts))
    view = window(row, longest)
    decode = layout.backbone.decode
    rest = layout.rest(decode(ids[: view.start]), decode(ids[view.stop :]))
    context, _ = layout.context(traces, rest)
    close = (layout.end,) if view.stop == len(ids) else ()
    return Piece(context[:-1], context[-1], tuple(ids[view.start : view.stop]), close)


def fitting(case: TrainingExample, limit: int, layout: Layout, rng: np.random.Generator) -> Context:
    """Some of the case's traces, shortened as in use, of at most `limit` tokens in all."""
    picked, left = [], limit
    for trace in shown(case, rng)[:MOST_TRACES]:
        short = shorten(trace)
        size = layout.count(f"{short.query} {short.response} {short.desired or ''}")
        if size > left:
            break
        picked.append(short)
        left -= size
    return tuple(picked)


def draw_batch(
    cases: Sequence[Sequence[TrainingExample]],
    shares: Sequence[float],
    layout: Layout,
    tasks: int,
    rows: int,
    seed: int,
    step: int,
    elastic: bool = False,
) -> Batch:
    """The batch of one step; it depends on nothing but its arguments, so a killed run goes on.

    cases: groups, of which a task is drawn by `shares`.
    """
    rng = rng_for(seed, "batch", step)
    pieces, masks = [], []
    for _ in range(tasks):
        group = cases[int(rng.choice(len(cases), p=shares))]
        piece = draw_piece(group[int(rng.integers(len(group)))], layout, rng)
        pieces.append(piece)
        masks.append(corrupt(len(piece.window), rows, rng, elastic))
    return collate(pieces, masks, layout)


def collate(pieces: Sequence[Piece], masks: Sequence[Masks], layout: Layout) -> Batch:
    """Pieces and the masks of their windows as tensors."""
    pad, family = layout.end, layout.family
    rows = [p.rows(m, family) for p, some in zip(pieces, masks, strict=True) for m in some]
    contexts, contexts_real = padded([p.context for p in pieces], pad, left=True)
    clean, clean_real = padded([p.clean for p in pieces], pad)
    ids, attention_mask = padded([r.ids for r in rows], pad)
    truth, _ = padded([r.truth for r in rows], pad)
    source, _ = padded([r.source for r in rows], NOWHERE)
    masked = ids == family.mask
    return Batch(
        contexts, contexts_real, clean, clean_real, ids, attention_mask, masked, truth, source
    )
