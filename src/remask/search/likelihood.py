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

from remask import events
from remask.events import Event, State, advance
from remask.ids import rng_for, seed_for
from remask.ports import Choose, Context, Proposal, Proposer, Scorer, find_written_spans
from remask.prompt import Prompt, Span
from remask.stats import accepts
from remask.types import Trace

NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
DEFAULT_CANDIDATES = 8  # of one iteration, where nothing else is said
MAX_FOLDS = 4  # groups of held-out traces on which a candidate is measured
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
MAX_CHARS_BEFORE = 600  # characters in front of an edit that are scored with it …
MAX_CHARS_AFTER = 200  # … and behind it: a long prompt need not be read whole for every candidate


@dataclass(frozen=True, slots=True)
class LikelihoodPlan:
    """How long to go on, and how much is read at a time."""

    iterations: int
    traces: int  # of one panel, at most
    context_tokens: int  # of one panel, at most
    candidates: int  # of one iteration
    free_numbers: bool = False  # whether edits may change figures, which nothing here can check


def search_by_likelihood(
    state: State,
    start: Prompt,
    read: Sequence[Trace],
    held_out: Sequence[Trace],
    plan: LikelihoodPlan,
    proposer: Proposer,
    scorer: Scorer,
    seed: int,
    choose: Choose,
) -> Iterator[Event]:
    """Yield the events of a refinement from `state` on, up to and including events.SearchEnded.

    `read`: what candidates are written under; `held`: what measures them, so that a text cannot win
    by repeating what was read. `choose`: which of them. Ids of traces are unique. As in `search`,
    what is yielded depends on the arguments alone, so that a run that was cut is resumed by folding
    its events and iterating again.

    Raises ConfigError where the prompt does not fit into the scorer.
    """
    if state.stopped:
        return
    if not state.baseline:
        yield (first := events.Started(start.to_source(), start.id, proposer.count(start.text)))
        state = advance(state, first)
    while state.round < plan.iterations:
        for event in _run_round(state, read, held_out, plan, proposer, scorer, seed, choose):
            yield event
            state = advance(state, event)
    yield events.SearchEnded(f"all {plan.iterations} iterations played")


def _run_round(
    state: State,
    read: Sequence[Trace],
    held_out: Sequence[Trace],
    plan: LikelihoodPlan,
    proposer: Proposer,
    scorer: Scorer,
    seed: int,
    choose: Choose,
) -> Iterator[Event]:
    """One iteration: unseen candidates, their gains, and the first that is ahead by a margin."""
    number, parent = state.round, state.prompt(state.incumbent)
    allowed = []
    for proposal in _propose_unseen(state, parent, read, plan, proposer, seed):
        if proposal.violation:
            yield events.Refused.from_proposal(number, parent, proposal)
        else:
            allowed.append(proposal)
            yield events.Proposed.from_proposal(
                number, parent, proposal, proposer.count(proposal.prompt.text)
            )
    contexts = split_folds(held_out, plan, proposer.count, rng_for(seed, number, "panels"), choose)
    found = measure_gains(scorer, contexts, proposer.count, parent, allowed)
    measured = [
        events.Measured(number, p.prompt.id, g) for p, g in zip(allowed, found, strict=True)
    ]
    yield from measured
    order = sorted(measured, key=lambda one: (-one.log_likelihood_gain, one.id))
    winner = next((one for one in order if accepts(one.fold_gains, margin=1.0)), None)
    if not order:
        yield events.RoundRejected(number, "no candidate passed the guard")
        return
    best = winner or order[0]
    drops = proposer.explain(next(p for p in allowed if p.prompt.id == best.id), read)
    yield events.Attributed(number, best.id, tuple((drop.trace, drop.each) for drop in drops))
    if winner:
        yield events.Accepted(
            number,
            best.id,
            parent.id,
            best.log_likelihood_gain,
            tuple(drop.trace for drop in drops),
        )
    else:
        yield events.RoundRejected(
            number,
            f"the best candidate gains {best.log_likelihood_gain:+.1f} nats, too close to chance",
        )


def _propose_unseen(
    state: State,
    parent: Prompt,
    read: Sequence[Trace],
    plan: LikelihoodPlan,
    proposer: Proposer,
    seed: int,
) -> list[Proposal]:
    """What a round proposes and no earlier one did, refused or not."""
    number = state.round
    seen = set(state.earlier_prompts(number))
    seen |= {Prompt.parse(r.prompt).id for r in state.refusals if r.round < number}
    drawn = proposer.propose(parent, read, plan.candidates, seed_for(seed, number, "propose"))
    fresh = {p.prompt.id: p for p in drawn if p.prompt.id not in seen}
    if plan.free_numbers:
        return list(fresh.values())
    return [_check_numbers(parent, proposal) for proposal in fresh.values()]


def _check_numbers(parent: Prompt, proposal: Proposal) -> Proposal:
    """The proposal; with an objection where it changes the parent's numbers."""
    before = Counter(n for a, b, _ in proposal.edits for n in NUMBER.findall(parent.text[a:b]))
    after = Counter(n for _, _, text in proposal.edits for n in NUMBER.findall(text))
    if proposal.violation or before == after:
        return proposal
    gone, new = list((before - after).elements()), list((after - before).elements())
    which = f"new number: {new[0]}" if new else f"a number is gone: {gone[0]}"
    return replace(proposal, violation=which)


def split_folds(
    held_out: Sequence[Trace],
    plan: LikelihoodPlan,
    count: Callable[[str], int],
    rng: np.random.Generator,
    choose: Choose,
) -> tuple[Context, ...]:
    """Up to PANELS disjoint contexts of held-out traces, each chosen as a denoiser's context is."""
    size = min(plan.traces, -(-len(held_out) // MAX_FOLDS))
    left, found = list(held_out), []
    for _ in range(MAX_FOLDS):
        context = choose(left, plan.context_tokens, count, rng, size)
        if not context:
            break
        found.append(context)
        used = {trace.id for trace in context}
        left = [trace for trace in left if trace.id not in used]
    return tuple(found)


def measure_gains(
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
    new = [_Windows.of(p.prompt.text, find_written_spans(p)) for p in proposals]
    lifts = _measure_lifts(scorer, contexts, {*old, *new})
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
            low = max(0, start - MAX_CHARS_BEFORE)
            low = low and (text.find(" ", low, start) + 1 or low)  # not within a word
            high = min(len(text), stop + MAX_CHARS_AFTER)
            if joined and low <= joined[-1][1]:
                joined[-1][1] = max(high, joined[-1][1])
            else:
                joined.append([low, high])
        inside = [
            tuple((a - low, b - low) for a, b in spans if low <= a < b <= high)
            for low, high in joined
        ]
        return cls(
            tuple((text[a:b], held_out) for (a, b), held_out in zip(joined, inside, strict=True))
        )


@dataclass(frozen=True, slots=True)
class _Nats:
    """Log-probability of some spans, and of the windows in which they stand."""

    spans: float
    windows: float

    def __sub__(self, other: "_Nats") -> "_Nats":
        return _Nats(self.spans - other.spans, self.windows - other.windows)


def _measure_lifts(
    scorer: Scorer, contexts: Sequence[Context], texts: Iterable[_Windows]
) -> dict[_Windows, list[_Nats]]:
    """What each context adds to each text, over CONTROL. One context after the other: a scorer
    remembers few."""
    order = list(texts)
    without = [_measure_nats(scorer, CONTROL, text) for text in order]
    lifts: dict[_Windows, list[_Nats]] = {text: [] for text in order}
    for context in contexts:
        for text, bare in zip(order, without, strict=True):
            lifts[text].append(_measure_nats(scorer, context, text) - bare)
    return lifts


def _measure_nats(scorer: Scorer, context: Context, windows: _Windows) -> _Nats:
    found = [
        scorer.score(context, text, [*inside, (0, len(text))]) for text, inside in windows.parts
    ]
    return _Nats(sum(sum(nats[:-1]) for nats in found), sum(nats[-1] for nats in found))
