"""Convert training examples to batches: context, window of the prompt, and masked rows.

Measured edits are windows too, whose written texts are masked and whose loss has a weight. The
layout is that of a denoiser (`dlm.layout`, `dlm.canvas.choose_window`): 64 to 1,000 tokens of
traces, then a window of at most the family's length; the rest of a longer prompt is text of the
context. All masks of one window share one read of the context.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from remask.data.prompt_traces import shorten
from remask.dlm.canvas import CanvasRow, choose_window, find_sentence_starts
from remask.dlm.families import Family
from remask.dlm.layout import Layout
from remask.dlm.reading import Ids
from remask.dlm.training.corpus import TrainingExample, draw_traces
from remask.dlm.training.masking import CorruptionMask, Masks, apply_corruption, mask_texts
from remask.dlm.training.measured import EditGroup, MeasuredEdit
from remask.ids import rng_for
from remask.models.backbone.transformer import pad_rows
from remask.ports import Context

TRACE_TOKENS = (64, 1000)  # smallest and largest limit, drawn on a logarithmic scale
MAX_TRACES = 12
MIN_WINDOW_TOKENS = 16
NO_SOURCE = -1
TokenRuns = list[list[int]]  # runs of token indices of a window


@dataclass(frozen=True, slots=True)
class TrainingWindow:
    """A window of a prompt and the context before it."""

    context: Ids  # without its last token, which is read with the region
    last_context_id: int
    window: Ids
    close: Ids  # the end of the turn if the window reaches the end of the prompt, else empty
    start: int = 0  # index of the window's first token in the prompt

    @property
    def clean(self) -> list[int]:
        """The ids of the region without masks."""
        return [self.last_context_id, *self.window, *self.close]

    def mask_row(self, mask: CorruptionMask, family: Family) -> "CorruptedRow":
        """Apply `mask` to the region."""
        row = CorruptedRow([self.last_context_id], [self.last_context_id], [0])
        for i in range(len(self.window) + 1):
            for hidden in mask.extra.get(i, ()):
                row.add(family.delete, hidden, NO_SOURCE, family)
            if i < len(self.window):
                row.add(self.window[i], mask.hidden[i], i + 1, family)
        for i, token in enumerate(self.close, 1 + len(self.window)):
            row.add(token, False, i, family)
        return row


@dataclass(frozen=True, slots=True)
class CorruptedRow:
    """A region with masks, and its targets. The lists have equal length."""

    ids: list[int]  # with masks
    truth: list[int]  # without masks
    source: list[int]  # the index in `TrainingWindow.clean`; NO_SOURCE for a delete token

    def add(self, token: int, hidden: bool, source: int, family: Family) -> None:
        """Append one position."""
        self.ids.append(family.mask if hidden else token)
        self.truth.append(token)
        self.source.append(source)


@dataclass(frozen=True, slots=True)
class Batch:
    """T contexts with R masked rows each. Contexts are padded on the left, all else right."""

    contexts: Tensor  # (T, C) long
    contexts_mask: Tensor  # (T, C) bool, the attention mask of `contexts`
    clean: Tensor  # (T, W) long, the regions without masks
    clean_mask: Tensor  # (T, W) bool, the attention mask of `clean`
    ids: Tensor  # (T * R, L) long, with masks
    attention_mask: Tensor  # (T * R, L) bool
    masked: Tensor  # (T * R, L) bool, the positions of the loss
    truth: Tensor  # (T * R, L) long, the target tokens
    source: Tensor  # (T * R, L) long, the index of the target in `clean`, or NO_SOURCE
    # (T,) the weight of a context with a measured edit, NaN for the others; None: there is none.
    edit_weights: Tensor | None = None


def draw_window(example: TrainingExample, layout: Layout, rng: np.random.Generator) -> TrainingWindow:
    """Draw a window of the example's prompt and a part of its traces."""
    limit = int(math.exp(rng.uniform(math.log(TRACE_TOKENS[0]), math.log(TRACE_TOKENS[1]))))
    length = layout.family.window
    if rng.random() < 0.3:
        length = int(rng.integers(MIN_WINDOW_TOKENS, length + 1))
    anchor = int(rng.integers(layout.count(example.prompt)))
    traces = select_traces(example, limit, layout, rng)
    return cut_window(example.prompt, anchor, length, layout, traces)


def cut_window(prompt: str, anchor: int, length: int, layout: Layout, traces: Context) -> TrainingWindow:
    """Cut the window of at most `length` tokens around the token `anchor`, as a denoiser does."""
    ids, ranges = layout.backbone.encode_spans(prompt)
    boundaries = sorted({0, len(ids), *find_sentence_starts(prompt, ranges)})
    row = CanvasRow(tuple(ids), (0,) * len(ids), ((anchor, anchor + 1),), tuple(boundaries))
    window = choose_window(row, length)
    decode = layout.backbone.decode
    rest = layout.render_rest(decode(ids[: window.start]), decode(ids[window.stop :]))
    context, _ = layout.encode_context(traces, rest)
    close = (layout.end,) if window.stop == len(ids) else ()
    text = tuple(ids[window.start : window.stop])
    return TrainingWindow(context[:-1], context[-1], text, close, window.start)


def cut_edit(
    edit: MeasuredEdit, layout: Layout, rng: np.random.Generator
) -> tuple[TrainingWindow, TokenRuns]:
    """Cut the window around a written text of the edit, and find the written tokens in it."""
    _, ranges = layout.backbone.encode_spans(edit.prompt)
    runs = [[i for i, (a, b) in enumerate(ranges) if a < stop and b > start] for start, stop in edit.spans]
    runs = [run for run in runs if run]
    anchor = runs[int(rng.integers(len(runs)))][0]
    window = cut_window(edit.prompt, anchor, layout.family.window, layout, edit.traces)
    inside = range(window.start, window.start + len(window.window))
    found = [[i - window.start for i in run if i in inside] for run in runs]
    return window, [run for run in found if run]


def select_traces(example: TrainingExample, limit: int, layout: Layout, rng: np.random.Generator) -> Context:
    """Draw traces of the example, shortened as in use, of at most `limit` tokens in all."""
    selected, remaining = [], limit
    for trace in draw_traces(example, rng)[:MAX_TRACES]:
        short = shorten(trace)
        size = layout.count(f"{short.query} {short.response} {short.desired or ''}")
        if size > remaining:
            break
        selected.append(short)
        remaining -= size
    return tuple(selected)


def draw_batch(
    groups: Sequence[Sequence[TrainingExample | EditGroup]],
    shares: Sequence[float],
    layout: Layout,
    tasks: int,
    rows: int,
    seed: int,
    step: int,
    elastic: bool = False,
) -> Batch:
    """Draw the batch of one step: `tasks` contexts with `rows` masked rows each.

    Each task is drawn from one of `groups`, with the probabilities `shares`. The batch depends on
    the arguments only, so an interrupted run continues with the same batches.
    """
    rng = rng_for(seed, "batch", step)
    windows, masks, weights = [], [], []
    for _ in range(tasks):
        group = groups[int(rng.choice(len(groups), p=shares))]
        drawn = group[int(rng.integers(len(group)))]
        if isinstance(drawn, EditGroup):
            edit, weight = drawn.draw(rng)
            window, texts = cut_edit(edit, layout, rng)
            masks.append(mask_texts(len(window.window), texts, rows, rng))
        else:
            weight, window = math.nan, draw_window(drawn, layout, rng)
            masks.append(apply_corruption(len(window.window), rows, rng, elastic))
        windows.append(window)
        weights.append(weight)
    batch = collate(windows, masks, layout)
    return batch if all(map(math.isnan, weights)) else replace(batch, edit_weights=torch.tensor(weights))


def collate(windows: Sequence[TrainingWindow], masks: Sequence[Masks], layout: Layout) -> Batch:
    """Convert windows and the masks of each to tensors."""
    pad, family = layout.end, layout.family
    rows = [w.mask_row(m, family) for w, some in zip(windows, masks, strict=True) for m in some]
    contexts, contexts_mask = pad_rows([w.context for w in windows], pad, left=True)
    clean, clean_mask = pad_rows([w.clean for w in windows], pad)
    ids, attention_mask = pad_rows([r.ids for r in rows], pad)
    truth, _ = pad_rows([r.truth for r in rows], pad)
    source, _ = pad_rows([r.source for r in rows], NO_SOURCE)
    masked = ids == family.mask
    return Batch(contexts, contexts_mask, clean, clean_mask, ids, attention_mask, masked, truth, source)
