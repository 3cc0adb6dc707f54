"""Search by likelihood, without a target: accept edits that held-out conversations support.

Candidates are written from some of the conversations and measured on others. The idea (mask,
denoise with traces as context, a fixed number of iterations) is from arXiv 2602.18449. The measure,
its penalty for growth and the acceptance rule are our own, because the paper publishes none.

The measure of a text is

    log p(text | traces) - log p(text | CONTROL),

where CONTROL is a set of neutral conversations. It does not show whether a target does better
(docs/log.md: on SST-2 it was no indicator).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from remask import events
from remask.errors import BudgetSpent
from remask.events import Event, State, advance
from remask.ids import rng_for, seed_for
from remask.ports import (
    Choose,
    Context,
    Proposal,
    Proposer,
    Scorer,
    ScoreRequest,
    find_written_spans,
    score_all,
)
from remask.prompt import Prompt, Span
from remask.search.scores import record_proposal
from remask.stats import accepts
from remask.types import Trace

NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
DEFAULT_CANDIDATES = 8  # per iteration
MAX_FOLDS = 4  # groups of held-out traces on which a candidate is measured
# Neutral conversations. A text that any conversation makes more probable is not supported by the
# given ones: without this control "The answer:" was better than every rule.
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
# Characters before and after an edit that are scored with it. A long prompt is not read completely
# for every candidate.
MAX_CHARS_BEFORE = 600
MAX_CHARS_AFTER = 200

# Windows of a text around some spans, each with the positions of its spans.
_Windows = tuple[tuple[str, tuple[Span, ...]], ...]


@dataclass(frozen=True, slots=True)
class LikelihoodPlan:
    """The number of iterations, and how much is read in each."""

    iterations: int
    traces: int  # maximum per context
    context_tokens: int  # maximum per context
    candidates: int  # per iteration
    free_numbers: bool = False  # whether edits may change numbers, which cannot be verified here


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
    """Yield the events of a refinement from `state` on, up to events.SearchEnded.

    read: traces from which candidates are written. held_out: traces on which they are measured, so
    that a text cannot win by repeating what was read. Ids of traces are unique. choose: selects the
    traces of a context. Events depend only on the arguments, so a run can be resumed, see `search`.

    Raises ConfigError if the prompt is too long for the scorer.
    """
    if state.stopped:
        return
    if not state.baseline:
        yield (first := events.Started(start.to_source(), start.id, proposer.count(start.text)))
        state = advance(state, first)
    try:
        while state.round < plan.iterations:
            for event in _run_round(state, read, held_out, plan, proposer, scorer, seed, choose):
                yield event
                state = advance(state, event)
    except BudgetSpent as spent:  # the time limit
        yield events.SearchEnded(str(spent))
        return
    yield events.SearchEnded(
        f"all {plan.iterations} iterations were run" if plan.iterations > 1 else "the iteration was run"
    )


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
    """Run one iteration: measure new candidates and accept the best one above the margin."""
    number, parent = state.round, state.prompt(state.incumbent)
    proposals = _propose_unseen(state, parent, read, plan, proposer, seed)
    yield from (record_proposal(number, parent, proposal, proposer) for proposal in proposals)
    allowed = [proposal for proposal in proposals if not proposal.violation]
    contexts = split_folds(held_out, plan, proposer.count, rng_for(seed, number, "panels"), choose)
    found = measure_gains(scorer, contexts, proposer.count, parent, allowed)
    measured = [events.Measured(number, p.prompt.id, g) for p, g in zip(allowed, found, strict=True)]
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
            number, best.id, parent.id, best.log_likelihood_gain, tuple(drop.trace for drop in drops)
        )
    else:
        yield events.RoundRejected(
            number, f"the best candidate gains {best.log_likelihood_gain:+.1f} nats, which may be chance"
        )


def _propose_unseen(
    state: State, parent: Prompt, read: Sequence[Trace], plan: LikelihoodPlan, proposer: Proposer, seed: int
) -> list[Proposal]:
    """Return the proposals of a round that no earlier round made, refused ones too."""
    number = state.round
    seen = set(state.earlier_prompts(number))
    seen |= {Prompt.parse(r.prompt).id for r in state.refusals if r.round < number}
    drawn = proposer.propose(parent, read, plan.candidates, seed_for(seed, number, "propose"))
    fresh = {p.prompt.id: p for p in drawn if p.prompt.id not in seen}
    if plan.free_numbers:
        return list(fresh.values())
    return [_check_numbers(parent, proposal) for proposal in fresh.values()]


def _check_numbers(parent: Prompt, proposal: Proposal) -> Proposal:
    """Return the proposal, with a violation if it changes the numbers of the parent."""
    before = Counter(n for a, b, _ in proposal.edits for n in NUMBER.findall(parent.text[a:b]))
    after = Counter(n for _, _, text in proposal.edits for n in NUMBER.findall(text))
    if proposal.violation or before == after:
        return proposal
    gone, new = list((before - after).elements()), list((after - before).elements())
    violation = f"new number: {new[0]}" if new else f"removed number: {gone[0]}"
    return replace(proposal, violation=violation)


def split_folds(
    held_out: Sequence[Trace],
    plan: LikelihoodPlan,
    count: Callable[[str], int],
    rng: np.random.Generator,
    choose: Choose,
) -> tuple[Context, ...]:
    """Split held-out traces into up to MAX_FOLDS contexts, each selected by `choose`."""
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
    """Return the gain of each proposal in each context, in nats.

    With lift(s) = log p(s | context) - log p(s | CONTROL), the gain is

        lift(new) - max(0, lift(old)) - growth * max(0, lift(window) / tokens(window)),

    where old and new are the replaced and the new texts, growth is by how many tokens the new texts
    are longer (at least 0), and window is the parent's text around the edits.

    A text that was written from conversations is more probable in similar ones, so additions would
    always win without the last term: each additional token must be supported as well as the text
    around it. Deletions have no bonus, because a rule that conversations do not mention may still
    be needed.
    """
    old = [_cut_windows(parent.text, sorted((a, b) for a, b, _ in p.edits)) for p in proposals]
    new = [_cut_windows(p.prompt.text, find_written_spans(p)) for p in proposals]
    lifts = _measure_lifts(scorer, contexts, {*old, *new})
    found = []
    for proposal, then, now in zip(proposals, old, new, strict=True):
        before = sum(count(parent.text[start:stop]) for start, stop, _ in proposal.edits)
        growth = max(0, sum(count(text) for _, _, text in proposal.edits) - before)
        around = max(1, sum(count(text) for text, _ in then))
        pairs = zip(lifts[then], lifts[now], strict=True)
        found.append(
            tuple(b.spans - max(0.0, a.spans) - growth * max(0.0, a.windows / around) for a, b in pairs)
        )
    return found


def _cut_windows(text: str, spans: Sequence[Span]) -> _Windows:
    """Cut windows of a text around `spans`, which are in order.

    An empty span has a window, but no position.
    """
    joined: list[list[int]] = []
    for start, stop in spans:
        low = max(0, start - MAX_CHARS_BEFORE)
        low = low and (text.find(" ", low, start) + 1 or low)  # begin at a word
        high = min(len(text), stop + MAX_CHARS_AFTER)
        if joined and low <= joined[-1][1]:
            joined[-1][1] = max(high, joined[-1][1])
        else:
            joined.append([low, high])
    inside = [tuple((a - low, b - low) for a, b in spans if low <= a < b <= high) for low, high in joined]
    return tuple((text[a:b], at) for (a, b), at in zip(joined, inside, strict=True))


@dataclass(frozen=True, slots=True)
class _Nats:
    """The log-probability of some spans and of their windows, in nats."""

    spans: float
    windows: float

    def __sub__(self, other: "_Nats") -> "_Nats":
        return _Nats(self.spans - other.spans, self.windows - other.windows)


def _measure_lifts(
    scorer: Scorer, contexts: Sequence[Context], texts: Iterable[_Windows]
) -> dict[_Windows, list[_Nats]]:
    """Return the lift of each text in each context: its log-probability minus that with CONTROL."""
    order = list(texts)
    requests = [  # the contexts are the outer loop: a scorer caches few of them
        ScoreRequest(context, text, (*inside, (0, len(text))))
        for context in (CONTROL, *contexts)
        for windows in order
        for text, inside in windows
    ]
    scored = iter(score_all(scorer, requests))
    nats = [[_add_up([next(scored) for _ in windows]) for windows in order] for _ in (CONTROL, *contexts)]
    without, *within = nats
    return {windows: [row[place] - without[place] for row in within] for place, windows in enumerate(order)}


def _add_up(found: Sequence[Sequence[float]]) -> _Nats:
    """Return the sums over the windows of a text; the last number of each is of the whole window."""
    return _Nats(sum(sum(nats[:-1]) for nats in found), sum(nats[-1] for nats in found))
