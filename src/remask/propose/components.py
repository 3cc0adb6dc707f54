"""Propose edits of a prompt of several components: which of them a candidate edits.

A component has a proposer of its own, with its own frozen regions, limits and guard. The candidates
of a round are divided among the components by evidence: failing traces in which a component took
part, and feedback that has words of its text. Without evidence the components take turns. Later
rounds give more to a component whose candidates went further in the race.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from remask.ids import seed_for
from remask.ports import (
    NO_REWARDS,
    Attribution,
    Pieces,
    Proposal,
    Proposer,
    Rewards,
    find_new_spans,
    name_reward,
)
from remask.prompt import Prompt
from remask.propose.evidence import TextIndex, join_feedback
from remask.propose.portfolio import clip_reward, deal
from remask.types import TOOL, Trace

EVEN_SHARE = 0.25  # of the candidates that all components share equally, whatever the evidence says
PAIR_EVERY = 4  # every so many candidates edit two components, where two have evidence
PAIR_RATIO = 0.5  # of the weight of the first component, which the second needs for that


@dataclass(frozen=True, slots=True)
class ComponentProposer:
    """Implements ports.Proposer with a proposer for each component that may change."""

    proposers: Mapping[str, Proposer]

    def count(self, text: str) -> int:
        """Count tokens as the denoiser does."""
        return next(iter(self.proposers.values())).count(text)

    def propose(
        self, parent: Prompt, traces: Sequence[Trace], n: int, seed: int, rewards: Rewards = NO_REWARDS
    ) -> list[Proposal]:
        """Return `n` candidates, each of which edits one or two components of `parent`."""
        parts = {name: part for name, part in parent.components.items() if name in self.proposers}
        weights = {
            name: share * clip_reward(rewards.get(name_reward(name), 1.0))
            for name, share in share_by_evidence(parts, traces).items()
        }
        chosen = choose_components(weights, n)
        counts = Counter(name for names in chosen for name in names)
        read = divide_traces(parts, traces)
        drawn = {}
        for name, count in counts.items():
            own_seed = seed_for(seed, "component", name)
            drawn[name] = iter(
                self.proposers[name].propose(parts[name], read[name], count, own_seed, rewards)
            )
        return [_join(parent, {name: next(drawn[name]) for name in names}) for names in chosen]

    def explain(self, proposal: Proposal, traces: Sequence[Trace]) -> tuple[Attribution, ...]:
        """Return up to three traces that support the edit, strongest first, over all its components."""
        found: list[Attribution] = []
        parts = {name: part for name, part in proposal.prompt.components.items() if name in self.proposers}
        read = divide_traces(parts, traces)
        texts = len(find_new_spans(proposal.edits))
        before = 0
        for name, edits in divide_edits(proposal).items():
            own = replace(proposal, prompt=parts[name], edits=edits)
            size = len(find_new_spans(edits))
            for one in self.proposers[name].explain(own, read[name]):
                each = (0.0,) * before + one.each + (0.0,) * (texts - before - size)
                found.append(Attribution(one.trace, each))
            before += size
        found.sort(key=lambda one: (-one.nats, one.trace))
        return tuple({one.trace: one for one in reversed(found)}.values())[::-1][:3]


def choose_components(weights: Mapping[str, float], n: int) -> list[tuple[str, ...]]:
    """Return the components that each of `n` candidates edits, in the shares of their weights.

    >>> choose_components({"system": 3.0, "tool:f": 1.0}, 4)
    [('system',), ('system',), ('tool:f',), ('system',)]
    """
    firsts = deal(weights, n)
    ranked = sorted(weights, key=lambda name: -weights[name])
    chosen: list[tuple[str, ...]] = []
    for i, first in enumerate(firsts):
        second = next((name for name in ranked if name != first), first)
        close = weights[second] >= PAIR_RATIO * weights[first] and second != first
        chosen.append((first, second) if close and i % PAIR_EVERY == PAIR_EVERY - 1 else (first,))
    return chosen


def divide_traces(parts: Mapping[str, Prompt], traces: Sequence[Trace]) -> dict[str, list[Trace]]:
    """Return the traces that the proposer of each component reads.

    These are all but failing ones that speak of other components. A trace with parts of components
    is read as that part.
    """
    spoken = _attribute_all(parts, traces)
    found: dict[str, list[Trace]] = {name: [] for name in parts}
    for name, own in found.items():
        for trace in traces:
            share = spoken.get(trace.id)
            part = trace.parts.get(name) if trace.parts else trace
            if part is not None and (not share or len(parts) * share.get(name, 0.0) >= 1):
                # A row is known by the id of its trace.
                own.append(replace(part, id=trace.id, source=part.source or trace.source))
    return found


def share_by_evidence(parts: Mapping[str, Prompt], traces: Sequence[Trace]) -> dict[str, float]:
    """Return the share of the candidates that edits each component; the shares add up to 1."""
    evidence = dict.fromkeys(parts, 0.0)
    for found in _attribute_all(parts, traces).values():
        for name, value in found.items():
            evidence[name] += value
    even, total = 1 / len(parts), sum(evidence.values())
    if not total:
        return dict.fromkeys(parts, even)
    return {name: EVEN_SHARE * even + (1 - EVEN_SHARE) * value / total for name, value in evidence.items()}


def _attribute_all(parts: Mapping[str, Prompt], traces: Sequence[Trace]) -> dict[str, Mapping[str, float]]:
    """Divide 1 among the components that each failing trace speaks of, by the id of the trace.

    Its feedback counts most, by the rare words and pairs of words that it shares with a component.
    Without such words it is the components that took part: those that the trace has parts of, or
    the tools that the response or the right answer calls.
    """
    index = TextIndex.build([f"{_name_tool(name)} {part.text}" for name, part in parts.items()])
    spoken: dict[str, Mapping[str, float]] = {}
    for trace in traces:
        if trace.failing:
            calls = f"{trace.response}\n{trace.desired or ''}"
            values = dict(zip(parts, index.match(join_feedback(trace)), strict=True))
            if not any(values.values()):
                values = {name: float(_takes_part(name, trace, calls)) for name in parts}
            total = sum(values.values())
            spoken[trace.id] = {name: value / total for name, value in values.items() if value}
    return spoken


def _takes_part(name: str, trace: Trace, calls: str) -> bool:
    return name in trace.parts or _calls_tool(calls, _name_tool(name))


def _calls_tool(calls: str, tool: str) -> bool:
    """Return whether an answer calls a tool, as in `find(name="Ann")`."""
    return bool(tool) and f"{tool}(" in calls


def _name_tool(component: str) -> str:
    """Return the name of the tool that a component describes; "" where it describes none."""
    return component.removeprefix(TOOL).partition("/")[0] if component.startswith(TOOL) else ""


def _join(parent: Prompt, proposals: Mapping[str, Proposal]) -> Proposal:
    """Return one proposal for the whole prompt from one for each of its changed components."""
    spans = parent.component_spans
    ordered = {name: proposals[name] for name in spans if name in proposals}

    starts = {name: start for name, (start, _) in spans.items()}
    first = next(iter(ordered.values()))
    return replace(
        first,
        prompt=parent.replace_components({name: one.prompt for name, one in ordered.items()}),
        masker=", ".join(f"{one.masker} in {name}" for name, one in ordered.items()),
        masks=tuple(
            (a + starts[name], b + starts[name], tokens)
            for name, one in ordered.items()
            for a, b, tokens in one.masks
        ),
        edits=tuple(
            (a + starts[name], b + starts[name], text)
            for name, one in ordered.items()
            for a, b, text in one.edits
        ),
        traces=tuple(dict.fromkeys(id for one in ordered.values() for id in one.traces)),
        logp=sum(one.logp for one in ordered.values()) / len(ordered),
        violation=next((f"{name}: {one.violation}" for name, one in ordered.items() if one.violation), ""),
        demo_rows=tuple(sorted({row for one in ordered.values() for row in one.demo_rows})),
        pieces=_join_pieces(tuple(ordered.values())),
        components=tuple(ordered),
    )


def _join_pieces(proposals: Sequence[Proposal]) -> tuple[Pieces, ...]:
    """Return the pieces of all edits; those of an edit whose steps are unknown are empty."""
    if not any(one.pieces for one in proposals):
        return ()
    return tuple(pieces for one in proposals for pieces in one.pieces or ((),) * len(one.edits))


def divide_edits(proposal: Proposal) -> dict[str, tuple[tuple[int, int, str], ...]]:
    """Return the edits of each component that the proposal changes, at their places in its text."""
    spans = proposal.prompt.component_spans
    found: dict[str, list[tuple[int, int, str]]] = {name: [] for name in proposal.components}
    moved = 0  # by the edits so far
    shift = dict.fromkeys(found, 0)
    for start, stop, text in proposal.edits:
        at = start + moved
        name = next(name for name in found if spans[name][0] <= at <= spans[name][1])
        if not found[name]:
            shift[name] = spans[name][0] - moved
        found[name].append((start - shift[name], stop - shift[name], text))
        moved += len(text) - (stop - start)
    return {name: tuple(edits) for name, edits in found.items()}
