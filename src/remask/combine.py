"""Two edits at once: which earlier edits were ahead and can be made together.

Reads the state of a search; knows nothing of denoisers, guards or calls. Two edits that were ahead
alone cost nothing to write, but they take the place of new ones; which is better is not shown yet,
so a search does it only where it is told to (search.combine).
"""

from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise

from remask.events import Proposed, State
from remask.ports import Joint
from remask.prompt import Prompt

SHRINK = 8  # rows with a difference of 0 that every lead is averaged with: few rows say little
Edits = Sequence[tuple[int, int, str]]


def joints(state: State, most: int) -> tuple[Joint, ...]:
    """At most `most`, those whose edits were most ahead together first; relative to the incumbent.

    Edits of the incumbent that were ahead of it, in pairs; and edits of the text that the incumbent
    was made from, each on top of the one that was accepted. Rounds that are over alone count, so
    that a round that is played again finds the same.
    """
    last = state.accepted[-1] if state.accepted else None
    accepted = _proposal(state, last.id, last.round) if last else None
    own = _ahead(state, state.incumbent)
    found = [
        (a + b, _joint(state, (one, other), ()))
        for (a, one), (b, other) in combinations(own, 2)
        if apart(one.edits, other.edits)
    ]
    if accepted is not None:
        found += [
            (lead, _joint(state, (one,), accepted.edits))
            for lead, one in _ahead(state, accepted.parent)
            if one.id != accepted.id and apart(one.edits, accepted.edits)
        ]
    found.sort(key=lambda pair: (-pair[0], pair[1].edits))
    return tuple(joint for _, joint in found[:most])


def apart(edits: Edits, others: Edits) -> bool:
    """Whether all of them can be made: none reaches into another or begins where it does."""
    spans = sorted((start, stop) for start, stop, _ in (*edits, *others))
    return all(b <= c and a != c for (a, b), (c, _) in pairwise(spans))


def moved(at: int, done: Edits) -> int:
    """Where the offset `at` of a text lies once `done` edits in front of it are made."""
    return at + sum(len(text) - (stop - start) for start, stop, text in done if stop <= at)


def _joint(state: State, parts: Sequence[Proposed], done: Edits) -> Joint:
    """`parts` side by side, on top of the edits `done`."""
    edits = sorted(edit for part in parts for edit in part.edits)
    masks = sorted(mask for part in parts for mask in part.masks)
    return Joint(
        masks=tuple((moved(a, done), moved(a, done) + b - a, tokens) for a, b, tokens in masks),
        edits=tuple((moved(a, done), moved(a, done) + b - a, text) for a, b, text in edits),
        traces=tuple(dict.fromkeys(id for part in parts for id in part.traces)),
        logp=sum(part.logp for part in parts) / len(parts),
        parts=tuple(Prompt.parse(part.prompt) for part in parts),
    )


def _ahead(state: State, parent: str) -> list[tuple[float, Proposed]]:
    """Edits of `parent` that did better than it on train rows, with their leads."""
    found = [(_lead(state, p), p) for p in _over(state) if p.parent == parent]
    return [(lead, proposal) for lead, proposal in found if lead > 0]


def _over(state: State) -> Iterable[Proposed]:
    """Of rounds that are over, each once: a round that was played again has some twice."""
    return {p.id: p for p in state.proposals if p.round < state.round}.values()


def _lead(state: State, proposal: Proposed) -> float:
    before = state.scores.get((proposal.parent, "train"), {})
    after = state.scores.get((proposal.id, "train"), {})
    gaps = [
        score - old
        for row, score in after.items()
        if score is not None and (old := before.get(row)) is not None
    ]
    return sum(gaps) / (len(gaps) + SHRINK)


def _proposal(state: State, id: str, round: int) -> Proposed:
    return next(p for p in state.proposals if p.id == id and p.round == round)
