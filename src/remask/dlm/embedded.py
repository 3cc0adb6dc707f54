"""The embedded denoiser: a small Llama model with an adapter that fills holes of a prompt.

Ties together layout, canvas, sampler and backbone. Traces are read left to right by the base
weights, so their keys and values are computed once per context and reused exactly for every step,
candidate and later call; only a window of the prompt is read again, in both directions, with the
adapter. Knows nothing of scores, targets and search. Use it from one thread at a time.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from remask.backbone.model import Backbone, Memory
from remask.dlm.adapter import SHIPPED, Adapted, load_adapter
from remask.dlm.canvas import Kind, Row, Window, clip_middle, settle, to_row, window
from remask.dlm.ending import mend_end
from remask.dlm.families import render, render_rest
from remask.dlm.sampler import Canvases, Rule, denoise
from remask.dlm.vocabulary import Vocabulary, vocabulary
from remask.errors import ConfigError
from remask.identity import content_id, seed_for
from remask.ports import Canvas, Context, Fill, Hole

MEMORIES = 8  # contexts kept: at most 35 MB each for SmolLM2-135M
ROWS = 16  # canvases denoised in one forward
MOST_STEPS = 24
CHUNK = 256  # positions whose logits are held at once


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
    row: Row
    window: Window
    tail: str  # what of the prompt lies outside the window

    @property
    def masked(self) -> int:
        return sum(stop - start for start, stop in self.row.holes[: self.window.holes])


class EmbeddedDenoiser:
    """A Denoiser and Scorer around `backbone` and an adapter trained for it."""

    def __init__(
        self,
        backbone: Backbone,
        adapter: Path | Adapted = SHIPPED,
        steps: int | None = None,
        temperature: float = 0.7,
        position_temperature: float = 0.3,
        threshold: float | None = 0.9,
    ) -> None:
        """`steps` per window: without it one for every mask, at most 24.

        Two tokens written at once seldom fit each other: the base's mean log-probability of the
        prompts written in seven cases, one seed, was -3.55 with one per step and -4.09 with two.
        `threshold`: tokens at least this probable are written beside those of the step.
        Raises ConfigError and BackendError.
        """
        if steps is not None and steps < 1:
            raise ConfigError(f"steps is {steps}; it must be at least 1")
        if temperature < 0 or position_temperature < 0:
            raise ConfigError("temperatures of the denoiser must not be negative")
        self._base = backbone
        loaded = adapter if isinstance(adapter, Adapted) else load_adapter(backbone, adapter)
        self._adapted = loaded
        self._steps = steps
        self._rule = Rule(temperature, position_temperature, threshold=threshold)
        self._vocabulary = _vocabulary_of(self._adapted)
        self._memories: OrderedDict[tuple[int, ...], Memory] = OrderedDict()

    @property
    def identity(self) -> str:
        """Everything that can change a fill."""
        rule = content_id("rule", asdict(self._rule), self._steps)
        return f"embedded-dlm/{self._adapted.backbone.identity}/{rule}"

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        return len(self._base.encode(text))

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
                memory, last = self._context(context, tail)
                for begin in range(0, len(alike), ROWS):
                    batch = alike[begin : begin + ROWS]
                    self._denoise(batch, memory, last, seed_for(seed, "infill", turn))
            turn += 1
        return [
            Fill(tuple(text or "" for text in job.fills), job.logp / max(1, job.tokens))
            for job in jobs
        ]

    def score(self, context: Context, text: str, spans: Sequence[tuple[int, int]]) -> list[float]:
        """Log-probability (nats) of each character span of the prompt `text` under `context`.

        The chain rule of the frozen base, read left to right in one forward: the sum over the
        tokens that overlap the span. (The adapted model's pseudo-likelihood would take many
        forwards.) Raises ConfigError where prompt and traces do not fit into the model.
        """
        memory, last = self._context(context, "")
        ids, ranges = self._base.encode_spans(text)
        if memory.real.shape[1] + len(ids) > self._base.window:
            raise ConfigError(
                f"the prompt has {len(ids)} tokens and its traces {memory.real.shape[1]}, but the "
                f"embedded model reads {self._base.window} in all; shorten the prompt"
            )
        read = torch.tensor([[last, *ids[:-1]]])
        hidden = self._base.read_hidden(read, torch.ones_like(read, dtype=torch.bool), memory)[0]
        inside = [
            [i for i, (start, stop) in enumerate(ranges) if start < b and stop > a]
            for a, b in spans
        ]
        wanted = sorted({i for span in inside for i in span})
        logp: dict[int, float] = {}
        for begin in range(0, len(wanted), CHUNK):
            at = wanted[begin : begin + CHUNK]
            found = self._base.logits(hidden[at]).log_softmax(-1)
            picked = found.gather(1, torch.tensor([[ids[i]] for i in at]))[:, 0]
            logp.update(zip(at, picked.double().tolist(), strict=True))
        return [sum(logp[i] for i in span) for span in inside]

    def _next(self, job: _Job, index: int) -> _Piece | None:
        """The window round the first open holes, or None where all are filled."""
        if None not in job.fills:
            return None
        family = self._adapted.family
        encode = self._base.encode_spans
        row = to_row(settle(job.canvas, job.fills), encode, family.mask)
        view = window(row, family.window)
        before = self._base.decode(row.ids[: view.start])
        after = self._base.decode(row.ids[view.stop :])
        return _Piece(job, index, row, view, render_rest(self._clip(before), self._clip(after)))

    def _clip(self, text: str) -> str:
        """At most half of the tokens that the rest of a prompt may take, from both its ends."""
        limit = self._adapted.family.rest // 2
        words = limit
        while self.count(clipped := clip_middle(text, words)) > limit and words > 1:
            words = words * 3 // 4
        return clipped

    def _context(self, context: Context, tail: str) -> tuple[Memory, int]:
        """Memory of all but the last token of the context, and that token.

        The last one is read with the region, because its logits predict the prompt's first token.
        """
        family = self._adapted.family
        limit = family.context - (family.rest if tail else 0)
        while len(traces := self._base.encode(f"user\n{render(context)}")) > limit and context:
            context = context[:-1]
        start, end = self._base.token_id("<|im_start|>"), self._base.token_id("<|im_end|>")
        opening = [end, *self._base.encode("\n"), *self._base.opening("assistant")]
        head = (start, *traces)
        rest = (*self._base.encode(tail), *opening[:-1])
        memory = self._remember(head + rest, len(head))
        return memory, opening[-1]

    def _remember(self, ids: tuple[int, ...], head: int) -> Memory:
        """The memory of `ids`, whose first `head` tokens many contexts share."""
        memory = self._memories.get(ids)
        if memory is None:
            past = self._remember(ids[:head], 0) if head else None
            new = torch.tensor([ids[head:]])
            _, memory = self._base.read(new, torch.ones_like(new, dtype=torch.bool), past)
            self._memories[ids] = memory
        self._memories.move_to_end(ids)
        while len(self._memories) > MEMORIES:
            self._memories.popitem(last=False)
        return memory

    def _denoise(self, pieces: Sequence[_Piece], memory: Memory, last: int, seed: int) -> None:
        """Fill the holes of one window of each piece."""
        canvases, real = self._batch(pieces, last)

        def logits(ids: Tensor) -> Tensor:
            masked = ids == canvases.mask
            open_rows = masked.any(1)
            hidden = self._adapted.backbone.read_region(
                ids[open_rows],
                real[open_rows],
                masked[open_rows],
                memory,
                self._adapted.gates,
            )
            wanted = masked[open_rows]
            if self._adapted.family.shifted:
                hidden, wanted = hidden[:, :-1], wanted[:, 1:]
            return self._adapted.backbone.logits(hidden[wanted])

        steps = [self._steps or min(MOST_STEPS, piece.masked) for piece in pieces]
        generators = [
            torch.Generator().manual_seed(seed_for(seed, "row", piece.index)) for piece in pieces
        ]
        ids = canvases.ids
        logp = torch.zeros(ids.shape, dtype=torch.float64)
        for step in denoise(canvases, logits, steps, self._rule, generators):
            ids, logp = step.ids, step.logp
        for piece, row, nats in zip(pieces, ids.tolist(), logp.sum(1).tolist(), strict=True):
            self._write(piece, row)
            piece.job.logp += nats
            piece.job.tokens += piece.masked

    def _batch(self, pieces: Sequence[_Piece], last: int) -> tuple[Canvases, Tensor]:
        """Canvases with the context's last token in front, padded on the right, and what is real.

        A window that reaches the end of its prompt ends with the end of the turn, as in training.
        """
        end = self._base.token_id("<|im_end|>")
        rows, kinds = [], []
        for piece in pieces:
            start, stop = piece.window.start, piece.window.stop
            close = [end] if stop == len(piece.row.ids) else []
            rows.append([last, *piece.row.ids[start:stop], *close])
            kinds.append([0, *piece.row.kinds[start:stop], *[0] * len(close)])
        width = max(map(len, rows))
        ids = torch.tensor([row + [end] * (width - len(row)) for row in rows])
        real = torch.tensor([[i < len(row) for i in range(width)] for row in rows])
        marks = torch.tensor([row + [0] * (width - len(row)) for row in kinds])
        words = self._vocabulary
        mask = self._adapted.family.mask
        return Canvases(ids, marks, words.banned, mask, words.repeatable), real

    def _write(self, piece: _Piece, row: Sequence[int]) -> None:
        open_holes = [i for i, fill in enumerate(piece.job.fills) if fill is None]
        shift = 1 - piece.window.start  # the context's last token stands in front
        for hole, (start, stop) in zip(
            open_holes, piece.row.holes[: piece.window.holes], strict=False
        ):
            text = self._base.decode(row[start + shift : stop + shift]).strip()
            final = piece.row.kinds[stop - 1] & Kind.FINAL
            piece.job.fills[hole] = mend_end(text) if final else text


def _job(canvas: Canvas) -> _Job:
    """Holes of no tokens are filled from the start: they delete."""
    holes = [part for part in canvas if isinstance(part, Hole)]
    return _Job(canvas, [None if hole.tokens else "" for hole in holes])


def _vocabulary_of(adapted: Adapted) -> Vocabulary:
    size = adapted.backbone.tokenizer.get_vocab_size()
    texts = adapted.backbone.tokenizer.decode_batch(
        [[i] for i in range(size)], skip_special_tokens=True
    )
    return vocabulary(texts, adapted.family.special)
