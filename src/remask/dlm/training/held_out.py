"""Measure how well a denoiser fills spans of held-out prompts, in nats per token.

Some tokens of each prompt are masked and everything else is visible. They are filled in three ways:
from left to right with one token a step (the chain rule, with both sides visible), all at once in
one step, and by the base, which sees the left side only.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import mean

import numpy as np
import torch
from torch import Tensor

from remask.dlm.adapter import AdaptedModel
from remask.dlm.build import make_builtin_mode
from remask.dlm.layout import Layout
from remask.dlm.reading import PrefixLM
from remask.dlm.training.batches import TrainingWindow, cut_window, select_traces
from remask.dlm.training.corpus import TrainingExample
from remask.dlm.training.masking import CorruptionMask
from remask.ids import rng_for
from remask.models.backbone.transformer import Backbone
from remask.ports import report_step

CONTEXT_TOKENS = 400  # of traces, the default of the search
MAX_LOGIT_ROWS = 2000  # masks whose logits are in memory at once
# Chooses which of n tokens are masked.
ChoosePositions = Callable[[int, np.random.Generator], list[int]]


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """Nats per masked token, the mean over all of them; lower is better."""

    pattern: str  # a name of MASK_PATTERNS
    left_to_right: float  # one token a step
    at_once: float  # all tokens in one step
    base: float  # the frozen base, with the left context only
    without_traces: float  # as left_to_right, without conversations
    first_token: float  # as left_to_right, for the first masked token of each prompt
    prompts: int  # number of prompts


def choose_span(length: int) -> ChoosePositions:
    """Choose a contiguous span of `length` tokens; none if the window has fewer than length + 2."""

    def choose(n: int, rng: np.random.Generator) -> list[int]:
        if n < length + 2:
            return []
        start = int(rng.integers(n - length))
        return list(range(start, start + length))

    return choose


def choose_ratio(share: float) -> ChoosePositions:
    """Choose each token independently with probability `share`."""
    return lambda n, rng: [i for i in range(n) if rng.random() < share]


MASK_PATTERNS: dict[str, ChoosePositions] = {
    **{f"span {n}": choose_span(n) for n in (4, 8, 16, 32)},
    **{f"ratio {share}": choose_ratio(share) for share in (0.2, 0.5, 1.0)},
}


def measure(
    base: Backbone, adapted: AdaptedModel, examples: Sequence[TrainingExample], pattern: str, seed: int = 0
) -> HeldOutLoss | None:
    """Measure the loss under a mask pattern on the examples that are long enough for it.

    Which tokens are masked depends only on `seed`, the prompt and `pattern`. Returns None if no
    example is long enough.
    """
    mode = make_builtin_mode(base, adapted)
    layout = Layout(base, adapted.family)
    length = layout.family.window
    losses: dict[str, list[float]] = defaultdict(list)
    for number, example in enumerate(examples):
        report_step("prompt", number, len(examples))
        rng = rng_for(seed, "measure", example.id, pattern)
        anchor = int(rng.integers(layout.count(example.prompt)))
        traces = select_traces(example, CONTEXT_TOKENS, layout, rng)
        window = cut_window(example.prompt, anchor, length, layout, traces)
        masked = MASK_PATTERNS[pattern](len(window.window), rng)
        if not masked:
            continue
        left_to_right = score_left_to_right(mode, window, masked)
        losses["left_to_right"] += left_to_right
        losses["first_token"].append(left_to_right[0])
        losses["at_once"] += score_at_once(mode, window, masked)
        context = (*window.context, window.last_context_id)
        losses["base"] += [-logp for logp in mode.score(context, 0, window.window, masked)]
        without_traces = cut_window(example.prompt, anchor, length, layout, ())
        losses["without_traces"] += score_left_to_right(mode, without_traces, masked)
    if not losses:
        return None
    means = {name: mean(nats) for name, nats in losses.items()}
    return HeldOutLoss(pattern, prompts=len(losses["first_token"]), **means)


def score_left_to_right(mode: PrefixLM, window: TrainingWindow, masked: Sequence[int]) -> list[float]:
    """Return the nats of each masked token, with earlier ones written and later ones masked."""
    nats: list[float] = []
    rows = [masked[k:] for k in range(len(masked))]
    chunk_size = max(1, MAX_LOGIT_ROWS // len(masked))
    for begin in range(0, len(rows), chunk_size):
        chunk = rows[begin : begin + chunk_size]
        logp = _compute_log_probs(mode, window, chunk)
        # The first mask of each row is the token to score.
        firsts = [0, *accumulate(map(len, chunk[:-1]))]
        scored = zip(firsts, chunk, strict=True)
        nats += [-float(logp[i, window.window[row[0]]]) for i, row in scored]
    return nats


def score_at_once(mode: PrefixLM, window: TrainingWindow, masked: Sequence[int]) -> list[float]:
    """Return the nats of each masked token with all of them masked."""
    logp = _compute_log_probs(mode, window, [masked])
    return [-float(logp[k, window.window[i]]) for k, i in enumerate(masked)]


def _compute_log_probs(mode: PrefixLM, window: TrainingWindow, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return (masks, V) log-probabilities at all masks, in reading order.

    Each of `rows` masks these tokens of the window. Tokens that a fill cannot contain are excluded.
    """
    family, length = mode.family, len(window.window)
    masks = [CorruptionMask([i in row for i in range(length)]) for row in map(set, rows)]
    ids = torch.tensor([window.mask_row(mask, family).ids for mask in masks])
    attention_mask = torch.ones_like(ids, dtype=torch.bool)
    logits = mode.begin(window.context, 0, attention_mask).logits(ids)
    logits[:, list(family.special)] = float("-inf")
    return logits.log_softmax(-1)
