"""The loop without a target: edits that conversations speak for, ranked by likelihood.

A generator of Rounds that depends only on its arguments: candidates are written under some of the
conversations and measured on others. Knows nothing of files, targets or faces.

The idea (mask, denoise under traces, a fixed number of iterations) is that of arXiv 2602.18449;
the figure, its price for growth and the rule of acceptance are our own, since the paper publishes
none. The figure of a text is log p(text | traces) - log p(text | other conversations): how much
more these conversations speak for it than conversations of no concern do.
It says nothing of whether a target does better (docs/log.md: on SST-2 it did not tell).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from remask.condition import select
from remask.evidence import accepts
from remask.identity import rng_for, seed_for
from remask.ports import Context, Drop, Proposal, Proposer, Scorer
from remask.prompt import Prompt, Span
from remask.propose import Choose, written
from remask.trace import Trace

NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
PANELS = 4  # groups of held-out traces on which a candidate is measured
# Conversations about nothing in particular. What any conversation makes more probable says nothing
# of those at hand: without this measure "The answer:" beat every rule.
CONTROL: Context = tuple(
    Trace(f"control {i}", query, response)
    for i, (query, response) in enumerate(
        (
            ("Hello, how are you today?", "Hello! I am fine, thank you. What can I do for you?"),
            ("What is the capital of France?", "The capital of France is Paris."),
            ("Can you help me with something?", "Of course. Please tell me what you need."),
            ("Thank you, that is all.", "You are welcome. Have a nice day!"),
        )
    )
)
BEFORE = 600  # characters in front of an edit that are scored with it …
BEHIND = 200  # … and behind it: a long prompt need not be read whole for every candidate


@dataclass(frozen=True, slots=True)
class Loop:
    """How long to go on, and how much is read at a time."""

    iterations: int
    candidates: int  # of one iteration
    traces: int  # of one panel, at most
    context_tokens: int  # of one panel, at most
    free_numbers: bool = False  # whether edits may change figures, which nothing here can check


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate that passed the guard, measured."""

    proposal: Proposal
    gains: tuple[float, ...]  # nats over the text it replaces, one for each panel

    @property
    def gain(self) -> float:
        """Mean over the panels, nats."""
        return sum(self.gains) / len(self.gains)


@dataclass(frozen=True, slots=True)
class Round:
    """One iteration, over."""

    number: int  # from 0
    parent: Prompt
    judged: tuple[Judged, ...]  # best first
    refused: tuple[Proposal, ...]  # by the guard
    accepted: Judged | None
    because: tuple[Drop, ...]  # of up to three traces that speak for the best candidate

    @property
    def best(self) -> Judged | None:
        """What was accepted, else what came closest."""
        return self.accepted or next(iter(self.judged), None)


def refinements(
    start: Prompt,
    read: Sequence[Trace],
    held: Sequence[Trace],
    loop: Loop,
    proposer: Proposer,
    scorer: Scorer,
    seed: int,
    choose: Choose = select,
) -> Iterator[Round]:
    """Yield each iteration. `read`: what candidates are written under; `held`: what measures them,
    so that a text cannot win by repeating what was read. `choose`: which of them. Ids of traces are
    unique.

    Raises ConfigError where the prompt does not fit into the scorer.
    """
    parent = start
    seen = {start.id}
    for number in range(loop.iterations):
        drawn = proposer.propose(parent, read, loop.candidates, seed_for(seed, number, "propose"))
        fresh = {p.prompt.id: p for p in drawn if p.prompt.id not in seen}
        seen |= fresh.keys()
        if not loop.free_numbers:
            fresh = {id: _with_its_numbers(parent, p) for id, p in fresh.items()}
        allowed = [p for p in fresh.values() if not p.objection]
        rng = rng_for(seed, number, "panels")
        contexts = panels(held, loop, proposer.count, rng, choose)
        measured = gains(scorer, contexts, proposer.count, parent, allowed)
        judged = [Judged(p, gain) for p, gain in zip(allowed, measured, strict=True)]
        judged.sort(key=lambda one: (-one.gain, one.proposal.prompt.id))
        accepted = next((one for one in judged if accepts(one.gains, margin=1.0)), None)
        refused = tuple(p for p in fresh.values() if p.objection)
        found = Round(number, parent, tuple(judged), refused, accepted, ())
        if found.best:
            found = replace(found, because=proposer.explain(found.best.proposal, read))
        yield found
        if accepted:
            parent = accepted.proposal.prompt


def _with_its_numbers(parent: Prompt, proposal: Proposal) -> Proposal:
    """The proposal; with an objection where it changes the parent's numbers."""
    before = Counter(n for a, b, _ in proposal.edits for n in NUMBER.findall(parent.text[a:b]))
    after = Counter(n for _, _, text in proposal.edits for n in NUMBER.findall(text))
    if proposal.objection or before == after:
        return proposal
    gone, new = list((before - after).elements()), list((after - before).elements())
    which = f"new number: {new[0]}" if new else f"a number is gone: {gone[0]}"
    return replace(proposal, objection=which)


def panels(
    held: Sequence[Trace],
    loop: Loop,
    count: Callable[[str], int],
    rng: np.random.Generator,
    choose: Choose = select,
) -> tuple[Context, ...]:
    """Up to PANELS disjoint contexts of held-out traces, each chosen as a denoiser's context is."""
    size = min(loop.traces, -(-len(held) // PANELS))
    left, found = list(held), []
    for _ in range(PANELS):
        context = choose(left, loop.context_tokens, count, rng, size)
        if not context:
            break
        found.append(context)
        used = {trace.id for trace in context}
        left = [trace for trace in left if trace.id not in used]
    return tuple(found)


def gains(
    scorer: Scorer,
    contexts: Sequence[Context],
    count: Callable[[str], int],
    parent: Prompt,
    proposals: Sequence[Proposal],
) -> list[tuple[float, ...]]:
    """For each proposal what each context adds to the log-probability of the new texts, less what
    it adds to those they replace, in nats.

    Text drawn under conversations is more probable under any like them, so additions would always
    win. Hence growth has a price: every token more than before must be supported as well as the
    parent's text around is on average. Shrinking earns nothing: that conversations do not speak of
    a rule is no evidence against it.
    """
    old = [_Windows.of(parent.text, sorted((a, b) for a, b, _ in p.edits)) for p in proposals]
    new = [_Windows.of(p.prompt.text, written(p)) for p in proposals]
    lifts = _lifts(scorer, contexts, {*old, *new})
    found = []
    for proposal, then, now in zip(proposals, old, new, strict=True):
        before = sum(count(parent.text[start:stop]) for start, stop, _ in proposal.edits)
        growth = max(0, sum(count(text) for _, _, text in proposal.edits) - before)
        around = max(1, sum(count(text) for text, _ in then.parts))
        pairs = zip(lifts[then], lifts[now], strict=True)
        found.append(
            tuple(
                b.spans - max(0.0, a.spans) - growth * max(0.0, a.windows / around)
                for a, b in pairs
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class _Windows:
    """The surroundings of some spans of a text, each with where the spans stand in it."""

    parts: tuple[tuple[str, tuple[Span, ...]], ...]

    @classmethod
    def of(cls, text: str, spans: Sequence[Span]) -> "_Windows":
        """`spans` are in order; those without text get a window and are left out of it."""
        joined: list[list[int]] = []
        for start, stop in spans:
            low = max(0, start - BEFORE)
            low = low and (text.find(" ", low, start) + 1 or low)  # not within a word
            high = min(len(text), stop + BEHIND)
            if joined and low <= joined[-1][1]:
                joined[-1][1] = max(high, joined[-1][1])
            else:
                joined.append([low, high])
        inside = [
            tuple((a - low, b - low) for a, b in spans if low <= a < b <= high)
            for low, high in joined
        ]
        return cls(tuple((text[a:b], held) for (a, b), held in zip(joined, inside, strict=True)))


@dataclass(frozen=True, slots=True)
class _Nats:
    """Log-probability of some spans, and of the windows in which they stand."""

    spans: float
    windows: float

    def __sub__(self, other: "_Nats") -> "_Nats":
        return _Nats(self.spans - other.spans, self.windows - other.windows)


def _lifts(
    scorer: Scorer, contexts: Sequence[Context], texts: Iterable[_Windows]
) -> dict[_Windows, list[_Nats]]:
    """What each context adds to each text, over CONTROL. One context after the other: a scorer
    remembers few."""
    order = list(texts)
    without = [_nats(scorer, CONTROL, text) for text in order]
    lifts: dict[_Windows, list[_Nats]] = {text: [] for text in order}
    for context in contexts:
        for text, bare in zip(order, without, strict=True):
            lifts[text].append(_nats(scorer, context, text) - bare)
    return lifts


def _nats(scorer: Scorer, context: Context, windows: _Windows) -> _Nats:
    found = [
        scorer.score(context, text, [*inside, (0, len(text))]) for text, inside in windows.parts
    ]
    return _Nats(sum(sum(nats[:-1]) for nats in found), sum(nats[-1] for nats in found))
