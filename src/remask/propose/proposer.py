"""From traces to candidates: condition → mask → denoise → guard.

The one middle room that knows the text rooms and the denoiser's port, so that the search needs
neither. A control (random word edits, an autoregressive rewriter) is another Proposer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from remask.data.prompt_traces import shorten
from remask.ids import rng_for, seed_for
from remask.ports import (
    Attribution,
    Canvas,
    Choose,
    Context,
    DenoiserModel,
    Fill,
    Proposal,
    Scorer,
    written_spans,
)
from remask.prompt import Prompt, sentences
from remask.propose import guard
from remask.propose.edits import Mask, canvas, edits
from remask.propose.maskers import MASKERS, MAX_CANVAS
from remask.propose.select_traces import select
from remask.types import Trace


@dataclass(frozen=True, slots=True)
class ProposerConfig:
    """What a proposer reads and writes; one row of settings, derived from the configuration."""

    maskers: tuple[str, ...]
    traces: int  # read at a time
    context_tokens: int
    max_growth: float
    answers: tuple[str, ...] = ()  # the user's own: their words may enter the prompt
    choose: Choose = select  # which traces are read
    max_tokens: int | None = None  # of a candidate


@dataclass(frozen=True, slots=True)
class ProposalBatch:
    """What is to be filled: all of a proposal but the denoising itself."""

    parent: Prompt
    context: Context
    masks: tuple[tuple[str, tuple[Mask, ...]], ...]  # of each candidate: masker, masks
    canvases: tuple[Canvas, ...]
    seed: int  # of the denoising


@dataclass(frozen=True, slots=True)
class DiffusionProposer:
    """Candidates from a denoiser. `baseline` is what the guard compares with."""

    baseline: Prompt
    denoiser: DenoiserModel
    config: ProposerConfig

    def count(self, text: str) -> int:
        return self.denoiser.count(text)

    def propose(self, parent: Prompt, traces: Sequence[Trace], n: int, seed: int) -> list[Proposal]:
        drawn = self.plan(parent, traces, n, seed)
        return self.collect(drawn, self.denoiser.infill(drawn.context, drawn.canvases, drawn.seed))

    def explain(self, proposal: Proposal, traces: Sequence[Trace]) -> tuple[Attribution, ...]:
        """Leave one trace out at a time: where the prompt's log-probability drops most, that trace
        speaks for the edit. Only the written text counts, not what stood there before. () where the
        denoiser gives no probabilities."""
        by_id = {t.id: shorten(t) for t in traces}
        context = tuple(by_id[id] for id in proposal.traces if id in by_id)
        text = proposal.prompt.text
        spans = written_spans(proposal)
        if not spans or not isinstance(self.denoiser, Scorer):
            return ()
        whole = self.denoiser.score(context, text, spans)
        drops = []
        for trace in context:
            rest = tuple(t for t in context if t.id != trace.id)
            less = self.denoiser.score(rest, text, spans)
            drops.append(
                Attribution(trace.id, tuple(a - b for a, b in zip(whole, less, strict=True)))
            )
        drops.sort(key=lambda drop: (-drop.nats, drop.trace))
        return tuple(drop for drop in drops[:3] if drop.nats > 0)

    def plan(self, parent: Prompt, traces: Sequence[Trace], n: int, seed: int) -> ProposalBatch:
        """Traces to read and `n` canvases to fill; deterministic in its arguments."""
        context = self._context(traces, seed)
        support = self._support(parent, context)
        # `rewrite` writes one canvas; in place of a longer prompt that would be a fragment of it.
        long = self.count(parent.text) > MAX_CANVAS
        drawn: list[tuple[str, tuple[Mask, ...]]] = []
        for i in range(n):
            name = self.config.maskers[i % len(self.config.maskers)]
            if name == "rewrite" and long:
                name = "sentence"
            rng = rng_for(seed, "mask", i)
            drawn.append((name, MASKERS[name](parent, self.count, rng, support)))
        canvases = tuple(canvas(parent, masks) for _, masks in drawn)
        return ProposalBatch(parent, context, tuple(drawn), canvases, seed_for(seed, "infill"))

    def collect(self, drawn: ProposalBatch, fills: Sequence[Fill]) -> list[Proposal]:
        """The candidates that the fills of a draw make, with the guard's objections."""
        untrusted = _untrusted(drawn.context) - guard.ngrams(self.config.answers)
        return [
            self._proposal(drawn.parent, name, masks, fill, drawn.context, untrusted)
            for (name, masks), fill in zip(drawn.masks, fills, strict=True)
        ]

    def _objection(self, prompt: Prompt, untrusted: frozenset[guard.Gram], parent: Prompt) -> str:
        config = self.config
        return guard.too_long(prompt.text, self.count, config.max_tokens) or guard.violation(
            prompt,
            self.baseline,
            untrusted,
            parent,
            max_growth=config.max_growth,
            answers=config.answers,
        )

    def _context(self, traces: Sequence[Trace], seed: int) -> Context:
        rng = rng_for(seed, "context")
        config = self.config
        return config.choose(traces, config.context_tokens, self.count, rng, config.traces)

    def _support(self, parent: Prompt, context: Context) -> list[float] | None:
        """Log-probability per token that the traces add to each sentence, for `attribution`."""
        if "attribution" not in self.config.maskers or not isinstance(self.denoiser, Scorer):
            return None
        spans = sentences(parent)
        with_traces = self.denoiser.score(context, parent.text, spans)
        without = self.denoiser.score((), parent.text, spans)
        return [
            (a - b) / max(1, self.count(parent.text[start:stop]))
            for a, b, (start, stop) in zip(with_traces, without, spans, strict=True)
        ]

    def _proposal(
        self,
        parent: Prompt,
        masker: str,
        masks: tuple[Mask, ...],
        fill: Fill,
        context: Context,
        untrusted: frozenset[guard.Gram],
    ) -> Proposal:
        changes = edits(parent, masks, fill.texts)
        prompt = parent.apply(changes)
        return Proposal(
            prompt=prompt,
            masker=masker,
            masks=tuple((m.start, m.stop, m.tokens) for m in masks),
            edits=tuple((e.start, e.stop, e.text) for e in changes),
            traces=tuple(t.id for t in context),
            logp=fill.logp,
            violation=self._objection(prompt, untrusted, parent),
        )


def _untrusted(context: Context) -> frozenset[guard.Gram]:
    """The words of the traces that are read, the right answers too: anybody may have given them."""
    return guard.ngrams(
        text
        for t in context
        for text in (t.query, t.response, t.desired or "", *(note.text for note in t.feedback))
    )
