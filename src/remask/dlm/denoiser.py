"""A denoiser around a model of any family that runs on this machine.

It combines layout, canvas, sampler and attention mode. A long prompt is denoised window by window,
and the text outside a window becomes part of the context. It may be used from one thread at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from remask.dlm.canvas import (
    CanvasRow,
    TokenConstraint,
    Window,
    apply_fills,
    choose_window,
    cut_batches,
    encode_canvas,
    limit_to_first_hole,
    make_vocabulary_rules,
    trim_dangling,
)
from remask.dlm.corrections import correct_blocks
from remask.dlm.families import Family
from remask.dlm.guidance import apply_guidance
from remask.dlm.layout import Layout
from remask.dlm.pooled_denoiser import DenoiserFacts
from remask.dlm.reading import ApproximationError, AttentionMode, DenoisingPass, ExactPass, Ids
from remask.dlm.sampler import CanvasBatch, CommitRule, Logits, denoise
from remask.errors import ConfigError
from remask.ids import content_id, seed_for
from remask.models.backbone.transformer import Backbone, pad_rows
from remask.ports import Canvas, Context, Fill, Hole, Pieces, fit_pieces, report_step


@dataclass(slots=True)
class _CanvasJob:
    """The state of one canvas while its holes are filled."""

    canvas: Canvas
    fills: list[str | None]
    logp: float = 0.0  # summed log-probability of the written tokens, nats
    tokens: int = 0  # number of written tokens
    pieces: dict[int, Pieces] = field(default_factory=dict)  # by hole
    steps: int = 0  # of the windows so far


@dataclass(frozen=True, slots=True)
class _WindowJob:
    """The next window of a canvas."""

    job: _CanvasJob
    number: int  # of the canvas in its call; seeds its generator
    row: CanvasRow
    window: Window
    rest: str  # the rendered prompt outside the window

    @property
    def holes(self) -> list[tuple[int, int]]:
        """[start, stop) of each hole of the window, relative to the window."""
        offset = self.window.start
        holes = self.row.holes[: self.window.holes]
        return [(start - offset, stop - offset) for start, stop in holes]


class LocalDenoiser:
    """A denoiser and scorer around an AttentionMode."""

    def __init__(
        self,
        name: str,
        backbone: Backbone,
        family: Family,
        mode: AttentionMode,
        rule: CommitRule,
        steps: int | None = None,
        guidance: float = 0.0,
    ) -> None:
        """`backbone` gives the tokenizer and the chat frame. `steps` is the number of denoising
        steps per window; by default one for every mask, at most those of the family. `guidance` is the scale
        of `apply_guidance`; above 0 each step takes a second forward pass. Raises ConfigError."""
        if steps is not None and steps < 1:
            raise ConfigError(f"steps is {steps}; it must be at least 1")
        self.name = name
        self.backbone = backbone
        self.family = family
        self.mode = mode
        self.steps = steps
        self.guidance = guidance
        # In training a block never saw masks of an earlier one, so blocks are finished in order.
        self.rule = replace(rule, block=family.block) if family.attention == "blocks" else rule
        self._layout = Layout(backbone, family)
        texts = backbone.tokenizer.decode_batch(
            [[i] for i in range(backbone.vocab_size)], skip_special_tokens=True
        )
        rules = make_vocabulary_rules(texts, family.special)
        self._banned, self._repeatable = torch.from_numpy(rules.banned), rules.repeatable

    @property
    def identity(self) -> str:
        """A name that contains everything that can change a fill."""
        rule = content_id("rule", asdict(self.rule), self.steps, self.guidance)
        return f"{self.name}/{self.mode.identity}/{rule}"

    @property
    def approximation_error(self) -> ApproximationError:
        """The error of logits with a cached context, over all calls so far."""
        return self.mode.approximation_error

    def describe_approximation(self) -> str:
        """Describe the approximation error in one sentence; "" if nothing was approximated."""
        return self.approximation_error.describe()

    @property
    def context_length(self) -> int:
        """The tokens that the model reads at once, at most."""
        return self.backbone.context_length

    def count_context(self, tokens: int, traces: int) -> int:
        """Return how many tokens may precede a prompt, with traces of so many tokens in all."""
        return self._layout.count_context(tokens, traces)

    def count(self, text: str) -> int:
        """Count the tokens of `text`."""
        return self._layout.count(text)

    def infill(self, context: Context, canvases: Sequence[Canvas], seed: int) -> list[Fill]:
        """Denoise every canvas under `context`; deterministic in (context, canvases, seed).

        Each canvas has its own random generator, so equal canvases get different fills. Traces
        that exceed the family's context limit are dropped from the end. Raises NumericsError.
        """
        fills: dict[int, Fill] = {}
        for numbers in cut_batches(canvases):
            report_step("candidate", len(fills), len(canvases))
            batch = [canvases[number] for number in numbers]
            fills |= zip(numbers, self.infill_batch(context, batch, numbers, seed), strict=True)
        report_step("candidate", len(fills), len(canvases))
        return [fills[number] for number in range(len(canvases))]

    def infill_batch(
        self, context: Context, canvases: Sequence[Canvas], numbers: Sequence[int], seed: int
    ) -> list[Fill]:
        """Denoise one batch of `cut_batches`. `numbers` seed the generators of the canvases."""
        jobs = [_make_job(canvas) for canvas in canvases]
        turn = 0
        while windows := [
            w for job, number in zip(jobs, numbers, strict=True) if (w := self._cut_next_window(job, number))
        ]:
            for rest in dict.fromkeys(window.rest for window in windows):
                same_context = [window for window in windows if window.rest == rest]
                ids, shared = self._layout.encode_context(context, rest)
                self._denoise_windows(same_context, ids, shared, seed_for(seed, "infill", turn))
            turn += 1
        return [_finish_job(job) for job in jobs]

    def describe(self) -> DenoiserFacts:
        """Return what a driver must know of this denoiser, where workers have it."""
        return DenoiserFacts(self.identity, self.context_length, self._layout.without_weights())

    def infill_counted(
        self, context: Context, canvases: Sequence[Canvas], numbers: Sequence[int], seed: int
    ) -> tuple[list[Fill], ApproximationError]:
        """Return `infill_batch` with the error of what it approximated."""
        before = self.approximation_error
        fills = self.infill_batch(context, canvases, numbers, seed)
        return fills, self.approximation_error.count_since(before)

    def score(self, context: Context, text: str, spans: Sequence[tuple[int, int]]) -> list[float]:
        """Return the log-probability (nats) of each character span of the prompt `text` under
        `context`: the sum over the tokens that overlap the span.

        The attention mode decides how: the built-in base uses the chain rule, bidirectional models
        a pseudo-likelihood. Raises ConfigError if prompt and traces do not fit into the model.
        """
        before, shared = self._layout.encode_context(context, "")
        ids, ranges = self.backbone.encode_spans(text)
        if len(before) + len(ids) > self.backbone.context_length:
            raise ConfigError(
                f"the prompt has {len(ids)} tokens and its traces {len(before)}, but the model "
                f"{self.name} reads {self.backbone.context_length} in all; shorten the prompt, or lower "
                "search.context_tokens"
            )
        by_span = [[i for i, (start, stop) in enumerate(ranges) if start < b and stop > a] for a, b in spans]
        positions = sorted({i for span in by_span for i in span})
        nats = self.mode.score(before, shared, tuple(ids), positions)
        logp = dict(zip(positions, nats, strict=True))
        return [sum(logp[i] for i in span) for span in by_span]

    def _cut_next_window(self, job: _CanvasJob, number: int) -> _WindowJob | None:
        """Cut the window around the first open holes; None if all holes are filled."""
        if None not in job.fills:
            return None
        family = self.family
        parts = apply_fills(job.canvas, job.fills)
        row = encode_canvas(parts, self.backbone.encode_spans, family.mask)
        window = choose_window(row, family.window)
        seen = window.stop
        if family.attention == "blocks":
            window, seen = limit_to_first_hole(row, window, family.block), row.holes[0][1]
        before = self.backbone.decode(row.ids[: window.start])
        after = self.backbone.decode(row.ids[seen:])
        return _WindowJob(job, number, row, window, self._layout.render_rest(before, after))

    def _denoise_windows(self, windows: Sequence[_WindowJob], context: Ids, shared: int, seed: int) -> None:
        """Fill the holes of `windows`, which have the same context."""
        canvases, denoising_pass, reread = self._begin_pass(windows, context, shared)
        logits: Logits = denoising_pass.logits
        if self.guidance:
            logits = apply_guidance(logits, self._make_plain_logits(windows), self.guidance)
        generators = [
            torch.Generator().manual_seed(seed_for(seed, "row", window.number)) for window in windows
        ]
        masked = (canvases.ids == canvases.mask).sum(1).tolist()
        steps = [self.steps or min(self.family.steps, n) for n in masked]
        written_at = (canvases.ids == canvases.mask).long()  # the step that writes each token; 0: none
        correct = None
        if self.family.edit_threshold is not None:
            assert isinstance(denoising_pass, ExactPass), "only models that read by blocks correct"
            correct = correct_blocks(canvases, denoising_pass.read_at, self.family.edit_threshold)
        done_steps = denoise(canvases, logits, steps, self.rule, generators, correct)
        for number, done in enumerate(done_steps, 1):
            written_at += done.ids == canvases.mask
            report_step("denoising step", number, max(steps))
        nats = denoising_pass.sum_log_probs(done.ids, canvases, done.logp).tolist()
        finished = zip(windows, done.ids.tolist(), written_at.tolist(), nats, masked, strict=True)
        for window, row, at, total, tokens in finished:
            self._store_fills(window, row[reread:], at[reread:])
            window.job.logp += total
            window.job.tokens += tokens

    def _make_plain_logits(self, windows: Sequence[_WindowJob]) -> Logits:
        """Return a function that computes the logits of the same windows without traces."""
        context, shared = self._layout.encode_context((), windows[0].rest)
        plain, denoising_pass, reread = self._begin_pass(windows, context, shared)

        def logits(ids: Tensor) -> Tensor:
            # The reread parts of both contexts may differ in length; the windows do not.
            length = plain.ids.shape[1] - reread
            return denoising_pass.logits(torch.cat([plain.ids[:, :reread], ids[:, -length:]], 1))

        return logits

    def _begin_pass(
        self, windows: Sequence[_WindowJob], context: Ids, shared: int
    ) -> tuple[CanvasBatch, DenoisingPass, int]:
        """Return the windows as canvases, a denoising pass for them, and the number of context
        tokens at the beginning of each canvas."""
        reread = self.mode.reread(len(context))
        cached = len(context) - reread
        canvases, attention_mask = self._make_batch(windows, context[cached:])
        denoising_pass = self.mode.begin(context[:cached], min(shared, cached), attention_mask)
        return canvases, denoising_pass, reread

    def _make_batch(self, windows: Sequence[_WindowJob], reread: Ids) -> tuple[CanvasBatch, Tensor]:
        """Put `reread` before each window and pad on the right; also return the attention mask.

        A window that reaches the end of its prompt ends with the end of the turn, as in training.
        """
        end = self._layout.end
        rows, constraints = [], []
        for window in windows:
            start, stop = window.window.start, window.window.stop
            close = [end] if stop == len(window.row.ids) else []
            rows.append([*reread, *window.row.ids[start:stop], *close])
            inner = window.row.constraints[start:stop]
            constraints.append([*[0] * len(reread), *inner, *[0] * len(close)])
        (ids, attention_mask), (grid, _) = pad_rows(rows, end), pad_rows(constraints, 0)
        batch = CanvasBatch(ids, grid, self._banned, self.family.mask, self._repeatable)
        return batch, attention_mask

    def _store_fills(self, window: _WindowJob, row: Sequence[int], written_at: Sequence[int]) -> None:
        """Decode the fills of a finished window into its job, with the steps that wrote them.

        `row` and `written_at` have no context tokens.
        """
        open_holes = [i for i, fill in enumerate(window.job.fills) if fill is None]
        constraints = window.row.constraints[window.window.start :]
        for hole, (start, stop) in zip(open_holes, window.holes, strict=False):
            pieces = split_pieces(self.backbone.decode, row[start:stop], written_at[start:stop])
            text = self.backbone.decode(row[start:stop]).strip()
            if constraints[stop - 1] & TokenConstraint.SENTENCE_END:
                text = trim_dangling(text)
            window.job.fills[hole] = text
            earlier = window.job.steps
            window.job.pieces[hole] = tuple((t, earlier + n) for t, n in fit_pieces(pieces, text))
        window.job.steps += max(written_at)


def split_pieces(
    decode: Callable[[Sequence[int]], str], ids: Sequence[int], written_at: Sequence[int]
) -> Pieces:
    """Split the text of `ids` into the texts of its tokens, each with the step that wrote it.

    Tokens that are parts of one character are one piece, written when the last of them was.
    """
    text = decode(ids)
    found: list[tuple[str, int]] = []
    at, step = 0, 0
    for end, written in enumerate(written_at, 1):
        step = max(step, written)
        start = decode(ids[:end])
        if text.startswith(start):
            if len(start) > at:
                found.append((text[at : len(start)], step))
            at, step = max(at, len(start)), 0
    return tuple(found)


def _finish_job(job: _CanvasJob) -> Fill:
    pieces = tuple(job.pieces.get(hole, ()) for hole in range(len(job.fills)))
    texts = tuple(text or "" for text in job.fills)
    return Fill(texts, job.logp / max(1, job.tokens), pieces if any(pieces) else ())


def _make_job(canvas: Canvas) -> _CanvasJob:
    """Start with holes of no tokens already filled: they delete their old text."""
    holes = [part for part in canvas if isinstance(part, Hole)]
    return _CanvasJob(canvas, [None if hole.tokens else "" for hole in holes])
