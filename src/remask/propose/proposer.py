"""Propose candidates: choose traces, mask the prompt, fill the masks, check the result.

The search sees only the protocol `Proposer`. A control condition of an experiment, such as random
word edits or an autoregressive rewriter, is another implementation of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from remask.data.prompt_traces import shorten
from remask.ids import rng_for, seed_for
from remask.ports import (
    NO_REWARDS,
    Attribution,
    Canvas,
    Choose,
    Context,
    DenoiserModel,
    Fill,
    Pieces,
    Proposal,
    Rewards,
    Scorer,
    ScoreRequest,
    find_written_spans,
    fit_pieces,
    score_all,
)
from remask.prompt import Edit, Prompt, find_sentences
from remask.propose import guard
from remask.propose.anchors import find_failures, find_hints
from remask.propose.edits import Mask, join_parts, make_canvas, make_edits
from remask.propose.maskers import MASKERS, MAX_CANVAS_TOKENS
from remask.propose.portfolio import divide, favour_library
from remask.propose.select_traces import select
from remask.propose.structure import hold_like, hold_structure
from remask.sanitize import split_words
from remask.types import Trace


@dataclass(frozen=True, slots=True)
class ProposerConfig:
    """The settings of a proposer, derived from the configuration."""

    maskers: tuple[str, ...]
    traces: int  # maximum number that the denoiser reads at a time
    context_tokens: int  # maximum of all these traces
    max_growth: float  # words of a candidate over words of the baseline
    answers: tuple[str, ...] = ()  # allowed answers of the task, which a prompt may quote
    labels: tuple[str, ...] = ()  # of the task; frozen where the baseline names them
    choose: Choose = select  # chooses the traces to read
    max_tokens: int | None = None  # of a candidate


@dataclass(frozen=True, slots=True)
class ProposalBatch:
    """Canvases to fill, and what `collect` needs to turn the fills into proposals."""

    parent: Prompt
    context: Context
    masks: tuple[tuple[str, tuple[Mask, ...]], ...]  # (masker, masks) of each candidate
    canvases: tuple[Canvas, ...]
    seed: int  # of the denoising


@dataclass(frozen=True, slots=True)
class DiffusionProposer:
    """Implements ports.Proposer with a denoiser. The guard compares with `baseline`.

    The structure of the baseline is frozen in every parent (structure.py).
    """

    baseline: Prompt
    denoiser: DenoiserModel
    config: ProposerConfig

    def count(self, text: str) -> int:
        """Count tokens as the denoiser does."""
        return self.denoiser.count(text)

    def propose(
        self, parent: Prompt, traces: Sequence[Trace], n: int, seed: int, rewards: Rewards = NO_REWARDS
    ) -> list[Proposal]:
        """Return `n` candidates that edit `parent`; deterministic in its arguments."""
        batch = self.plan(parent, traces, n, seed, rewards)
        return self.collect(batch, self.denoiser.infill(batch.context, batch.canvases, batch.seed))

    def explain(self, proposal: Proposal, traces: Sequence[Trace]) -> tuple[Attribution, ...]:
        """Attribute an edit to traces by leaving them out one at a time.

        The traces whose absence lowers the log-probability of the written text most come first.
        Returns () where the denoiser gives no probabilities.
        """
        by_id = {t.id: shorten(t) for t in traces}
        context = tuple(by_id[id] for id in proposal.traces if id in by_id)
        text = proposal.prompt.text
        spans = find_written_spans(proposal)
        if not spans or not isinstance(self.denoiser, Scorer):
            return ()
        rests = [tuple(t for t in context if t.id != trace.id) for trace in context]
        requests = [ScoreRequest(read, text, tuple(spans)) for read in (context, *rests)]
        whole, *without = score_all(self.denoiser, requests)
        drops = [
            Attribution(trace.id, tuple(a - b for a, b in zip(whole, less, strict=True)))
            for trace, less in zip(context, without, strict=True)
        ]
        drops.sort(key=lambda drop: (-drop.nats, drop.trace))
        return tuple(drop for drop in drops[:3] if drop.nats > 0)

    def plan(
        self, parent: Prompt, traces: Sequence[Trace], n: int, seed: int, rewards: Rewards = NO_REWARDS
    ) -> ProposalBatch:
        """Choose traces to read and draw `n` canvases to fill; deterministic in its arguments."""
        parent = self._hold(parent)
        context = self._select_context(traces, seed)
        hints = find_hints(traces, parent.text, self.config.labels, self._score_support(parent, context))
        hints = replace(hints, failures=find_failures(traces, parent, self.config.labels))
        # `rewrite` fills one canvas, which would hold only a fragment of a longer prompt.
        long = self.count(parent.text) > MAX_CANVAS_TOKENS
        masks_of: list[tuple[str, tuple[Mask, ...]]] = []
        order = self.config.maskers
        if hints.beginning or hints.words:
            order = favour_library(order)
        for i, name in enumerate(divide(order, n, rewards)):
            if name == "rewrite" and long:
                name = "sentence"
            rng = rng_for(seed, "mask", i)
            masks_of.append((name, MASKERS[name](parent, self.count, rng, hints.focus(rng))))
        canvases = tuple(make_canvas(parent, masks) for _, masks in masks_of)
        return ProposalBatch(parent, context, tuple(masks_of), canvases, seed_for(seed, "infill"))

    def collect(self, batch: ProposalBatch, fills: Sequence[Fill]) -> list[Proposal]:
        """Turn the fills of a batch into candidates, each with its violation of the guard."""
        listed = {word for label in self.config.labels for word in split_words(label)}
        untrusted = frozenset(
            gram
            for gram in _find_untrusted(batch.context) - guard.find_ngrams(self.config.answers)
            if not listed.issuperset(gram)
        )
        return [
            self._make_proposal(batch.parent, name, masks, fill, batch.context, untrusted)
            for (name, masks), fill in zip(batch.masks, fills, strict=True)
        ]

    def _hold(self, parent: Prompt) -> Prompt:
        """Return the parent with the structure of the baseline held.

        A parent that another tool has changed may have lost some of it. Then its own is held.
        """
        return hold_like(parent, self._held_baseline) or hold_structure(parent, self.config.labels)

    @property
    def _held_baseline(self) -> Prompt:
        return hold_structure(self.baseline, self.config.labels)

    def _find_violation(self, prompt: Prompt, untrusted: frozenset[guard.Gram], parent: Prompt) -> str:
        config = self.config
        too_long = guard.check_length(prompt.text, self.count, config.max_tokens)
        return too_long or guard.find_violation(
            prompt,
            self._held_baseline,
            untrusted,
            parent,
            max_growth=config.max_growth,
            answers=config.answers,
            labels=config.labels,
        )

    def _select_context(self, traces: Sequence[Trace], seed: int) -> Context:
        rng = rng_for(seed, "context")
        config = self.config
        return config.choose(traces, config.context_tokens, self.count, rng, config.traces)

    def _score_support(self, parent: Prompt, context: Context) -> list[float] | None:
        """Score each sentence for the masker `attribution`: nats per token that the traces add.

        Returns None where that masker is not used or the denoiser gives no probabilities.
        """
        if "attribution" not in self.config.maskers or not isinstance(self.denoiser, Scorer):
            return None
        spans = tuple(find_sentences(parent))
        requests = [ScoreRequest(read, parent.text, spans) for read in (context, ())]
        with_traces, without = score_all(self.denoiser, requests)
        return [
            (a - b) / max(1, self.count(parent.text[start:stop]))
            for a, b, (start, stop) in zip(with_traces, without, spans, strict=True)
        ]

    def _make_proposal(
        self,
        parent: Prompt,
        masker: str,
        masks: tuple[Mask, ...],
        fill: Fill,
        context: Context,
        untrusted: frozenset[guard.Gram],
    ) -> Proposal:
        changes = make_edits(parent, masks, join_parts(masks, fill.texts))
        prompt = parent.apply(changes)
        return Proposal(
            prompt=prompt,
            masker=masker,
            masks=tuple((m.start, m.stop, m.tokens) for m in masks),
            edits=tuple((e.start, e.stop, e.text) for e in changes),
            traces=tuple(t.id for t in context),
            logp=fill.logp,
            violation=self._find_violation(prompt, untrusted, parent),
            pieces=_fit_fills(masks, fill, changes),
        )


def _fit_fills(masks: Sequence[Mask], fill: Fill, changes: Sequence[Edit]) -> tuple[Pieces, ...]:
    """Return the pieces of the new text of each edit; () where no step is known."""
    if not fill.pieces:
        return ()
    left = iter(fill.pieces)
    by_hole = {}
    for mask in masks:
        # Fixed words of an anchored mask stand there before the first step.
        found = [((f" {p}", 0),) if isinstance(p, str) else next(left) for p in mask.parts or (0,)]
        by_hole[mask.start, mask.stop] = tuple(piece for pieces in found for piece in pieces)
    fitted = tuple(fit_pieces(by_hole.get((edit.start, edit.stop), ()), edit.text) for edit in changes)
    return fitted if any(fitted) else ()


def _find_untrusted(context: Context) -> frozenset[guard.Gram]:
    """Return the n-grams of the traces. Right answers are untrusted too: a user may write them."""
    return guard.find_ngrams(
        text
        for t in context
        for text in (t.query, t.response, t.desired or "", *(note.text for note in t.feedback))
    )
