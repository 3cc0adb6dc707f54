"""A denoiser around a model that runs here, of any family.

Ties together layout, canvas, sampler and reading. A long prompt is denoised window by window, and
what lies outside a window enters the context as text. How the model reads is a value
(`reading.AttentionMode`). Knows nothing of scores, targets and search. Use it from one thread at
a time.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from remask.dlm.canvas import (
    CanvasRow,
    Kind,
    Window,
    first_hole,
    settle,
    to_row,
    trim_dangling,
    vocabulary,
    window,
)
from remask.dlm.families import Family
from remask.dlm.guidance import guided
from remask.dlm.layout import Layout
from remask.dlm.reading import ApproximationError, AttentionMode, DenoisingPass, Ids, padded
from remask.dlm.sampler import CanvasBatch, CommitRule, Logits, denoise
from remask.errors import ConfigError
from remask.ids import content_id, seed_for
from remask.models.backbone.transformer import Backbone
from remask.ports import Canvas, Context, Fill, Hole

ROWS = 16  # canvases denoised in one forward
MOST_STEPS = 24


@dataclass(slots=True)
class _Job:
    """One canvas on its way: which holes are filled, and how sure the tokens were."""

    canvas: Canvas
    fills: list[str | None]
    logp: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Piece:
    """The next window of a job."""

    job: _Job
    index: int  # of the job in its call: names its randomness
    row: CanvasRow
    window: Window
    tail: str  # what of the prompt lies outside the window

    @property
    def holes(self) -> list[tuple[int, int]]:
        """[start, stop) of those that are filled now, in the window."""
        at = self.window.start
        return [(start - at, stop - at) for start, stop in self.row.holes[: self.window.holes]]


class LocalDenoiser:
    """A Denoiser and Scorer: text and layout around a AttentionMode."""

    def __init__(
        self,
        name: str,
        backbone: Backbone,
        family: Family,
        reading: AttentionMode,
        rule: CommitRule,
        steps: int | None = None,
        guidance: float = 0.0,
    ) -> None:
        """`backbone`: whose tokens and chat frame are used. `steps` per window: without it one for
        every mask, at most 24. `guidance`: how far to lean towards what only the traces say, at
        the price of a second forward per step. Raises ConfigError."""
        if steps is not None and steps < 1:
            raise ConfigError(f"steps is {steps}; it must be at least 1")
        self.name = name
        self.backbone = backbone
        self.family = family
        self.reading = reading
        self.steps = steps
        self.guidance = guidance
        # A later block must not see masks of an earlier one, which it never did in training.
        self.rule = replace(rule, block=family.block) if family.attention == "blocks" else rule
        self._layout = Layout(backbone, family)
        texts = backbone.tokenizer.decode_batch(
            [[i] for i in range(backbone.size)], skip_special_tokens=True
        )
        words = vocabulary(texts, family.special)
        self._banned, self._repeatable = torch.from_numpy(words.banned), words.repeatable

    @property
    def identity(self) -> str:
        """Everything that can change a fill."""
        rule = content_id("rule", asdict(self.rule), self.steps, self.guidance)
        return f"{self.name}/{self.reading.identity}/{rule}"

    @property
    def approximation_error(self) -> ApproximationError:
        """How far cached context led logits astray, in all calls so far."""
        return self.reading.approximation_error

    def describe_approximation(self) -> str:
        """The drift, one sentence; "" where nothing was approximated."""
        error = self.approximation_error
        if not error.positions:
            return ""
        return (
            f"the denoiser reused its context: {error.agreement:.1%} of {error.positions} masks "
            f"checked had the same first choice, logits differed by {error.largest:.2g} at most"
        )

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        return self._layout.count(text)

    def infill(self, context: Context, canvases: Sequence[Canvas], seed: int) -> list[Fill]:
        """Denoise every canvas under `context`; deterministic in (context, canvases, seed).

        Canvas k draws from its own stream, so equal canvases get different fills. Traces that
        pass the family's context limit are dropped from the end. Raises NumericsError.
        """
        jobs = [_job(canvas) for canvas in canvases]
        turn = 0
        while pieces := [p for i, job in enumerate(jobs) if (p := self._next(job, i))]:
            for tail in dict.fromkeys(piece.tail for piece in pieces):
                alike = [piece for piece in pieces if piece.tail == tail]
                ids, shared = self._layout.context(context, tail)
                for begin in range(0, len(alike), ROWS):
                    batch = alike[begin : begin + ROWS]
                    self._denoise(batch, ids, shared, seed_for(seed, "infill", turn))
            turn += 1
        return [
            Fill(tuple(text or "" for text in job.fills), job.logp / max(1, job.tokens))
            for job in jobs
        ]

    def score(self, context: Context, text: str, spans: Sequence[tuple[int, int]]) -> list[float]:
        """Log-probability (nats) of each character span of the prompt `text` under `context`: the
        sum over the tokens that overlap the span.

        The reading says how: by the chain rule of the built-in base, else from both sides. Raises
        ConfigError where prompt and traces do not fit into the model.
        """
        before, shared = self._layout.context(context, "")
        ids, ranges = self.backbone.encode_spans(text)
        if len(before) + len(ids) > self.backbone.window:
            raise ConfigError(
                f"the prompt has {len(ids)} tokens and its traces {len(before)}, but the model "
                f"{self.name} reads {self.backbone.window} in all; shorten the prompt"
            )
        inside = [
            [i for i, (start, stop) in enumerate(ranges) if start < b and stop > a]
            for a, b in spans
        ]
        wanted = sorted({i for span in inside for i in span})
        nats = self.reading.score(before, shared, tuple(ids), wanted)
        logp = dict(zip(wanted, nats, strict=True))
        return [sum(logp[i] for i in span) for span in inside]

    def _next(self, job: _Job, index: int) -> _Piece | None:
        """The window round the first open holes, or None where all are filled."""
        if None not in job.fills:
            return None
        family = self.family
        parts = settle(job.canvas, job.fills)
        row = to_row(parts, self.backbone.encode_spans, family.mask)
        view = window(row, family.window)
        seen = view.stop
        if family.attention == "blocks":
            view, seen = first_hole(row, view, family.block), row.holes[0][1]
        before = self.backbone.decode(row.ids[: view.start])
        after = self.backbone.decode(row.ids[seen:])
        return _Piece(job, index, row, view, self._layout.rest(before, after))

    def _denoise(self, pieces: Sequence[_Piece], context: Ids, shared: int, seed: int) -> None:
        """Fill the holes of one window of each piece."""
        canvases, session, reread = self._begin(pieces, context, shared)
        logits: Logits = session.logits
        if self.guidance:
            logits = guided(logits, self._without_traces(pieces), self.guidance)
        generators = [
            torch.Generator().manual_seed(seed_for(seed, "row", piece.index)) for piece in pieces
        ]
        masked = (canvases.ids == canvases.mask).sum(1).tolist()
        steps = [self.steps or min(MOST_STEPS, n) for n in masked]
        *_, done = denoise(canvases, logits, steps, self.rule, generators)
        nats = session.nats(done.ids, canvases, done.logp).tolist()
        for piece, row, total, tokens in zip(pieces, done.ids.tolist(), nats, masked, strict=True):
            self._write(piece, row[reread:])
            piece.job.logp += total
            piece.job.tokens += tokens

    def _without_traces(self, pieces: Sequence[_Piece]) -> Logits:
        """Logits of the same windows behind a context without traces, from the same ids."""
        own, session, reread = self._begin(pieces, *self._layout.context((), pieces[0].tail))

        def logits(ids: Tensor) -> Tensor:
            # Fronts may differ in length; windows do not.
            length = own.ids.shape[1] - reread
            return session.logits(torch.cat([own.ids[:, :reread], ids[:, -length:]], 1))

        return logits

    def _begin(
        self, pieces: Sequence[_Piece], context: Ids, shared: int
    ) -> tuple[CanvasBatch, DenoisingPass, int]:
        """The windows behind `context` as canvases, a session for them, and how many tokens of the
        context stand at the front of each."""
        reread = self.reading.reread(len(context))
        known = len(context) - reread
        canvases, attention_mask = self._batch(pieces, context[known:])
        return (
            canvases,
            self.reading.begin(context[:known], min(shared, known), attention_mask),
            reread,
        )

    def _batch(self, pieces: Sequence[_Piece], reread: Ids) -> tuple[CanvasBatch, Tensor]:
        """Canvases behind the front of the context, padded on the right, and what is real.

        A window that reaches the end of its prompt ends with the end of the turn, as in training.
        """
        end = self._layout.end
        rows, kinds = [], []
        for piece in pieces:
            start, stop = piece.window.start, piece.window.stop
            close = [end] if stop == len(piece.row.ids) else []
            rows.append([*reread, *piece.row.ids[start:stop], *close])
            kinds.append([*[0] * len(reread), *piece.row.kinds[start:stop], *[0] * len(close)])
        (ids, attention_mask), (marks, _) = padded(rows, end), padded(kinds, 0)
        return CanvasBatch(
            ids, marks, self._banned, self.family.mask, self._repeatable
        ), attention_mask

    def _write(self, piece: _Piece, row: Sequence[int]) -> None:
        """Take the fills of a finished window over into its job. row: without the front."""
        open_holes = [i for i, fill in enumerate(piece.job.fills) if fill is None]
        kinds = piece.row.kinds[piece.window.start :]
        for hole, (start, stop) in zip(open_holes, piece.holes, strict=False):
            text = self.backbone.decode(row[start:stop]).strip()
            piece.job.fills[hole] = trim_dangling(text) if kinds[stop - 1] & Kind.FINAL else text


def _job(canvas: Canvas) -> _Job:
    """Holes of no tokens are filled from the start: they delete."""
    holes = [part for part in canvas if isinstance(part, Hole)]
    return _Job(canvas, [None if hole.tokens else "" for hole in holes])
