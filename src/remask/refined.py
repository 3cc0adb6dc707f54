"""What a refinement ends with: the prompt, every edit with the conversations that speak for it,
what the guard refused, and whether anything was verified.

Without a target nothing is: the verdict is then "unverified", whatever the likelihoods say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from remask.budget import Spend
from remask.evidence import Comparison, Verdict
from remask.ports import Drop, Proposal
from remask.prompt import Change, Prompt, diff
from remask.refinement import Judged, Round
from remask.trace import Trace


@dataclass(frozen=True, slots=True)
class Speaks:
    """A conversation that speaks for a step: leaving it out lowers the log-probability of what was
    written."""

    trace: str  # its id
    query: str
    said: str  # the right response or the feedback, where there is any
    drop: float  # nats, of all that was written
    drops: tuple[float, ...]  # … and of each change in order; 0 of a deletion


@dataclass(frozen=True, slots=True)
class RefinedEdit:
    """One step: accepted, or the best of an iteration in which nothing was."""

    iteration: int  # from 1
    masker: str
    changes: tuple[tuple[str, str], ...]  # (before, after)
    places: tuple[int, ...]  # of the changes: characters into the prompt of this iteration
    gain: float  # nats: of the held-out conversations' log-probability, mean over `gains`
    gains: tuple[float, ...]
    because: tuple[Speaks, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A candidate that the guard refused."""

    iteration: int
    masker: str
    changes: tuple[tuple[str, str], ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Conversations:
    """What was made of the trace files."""

    records: int
    rejected: int  # things that are no usable record
    elsewhere: int  # records of other system prompts
    read: int  # traces that candidates were written under
    held: int  # traces that candidates were measured on
    sealed: int  # traces that neither has seen, for the verification
    redacted: bool
    secrets: Mapping[str, int]  # replaced, by label


@dataclass(frozen=True, slots=True)
class Refined:
    """The outcome of `refine`."""

    verdict: Verdict | Literal["unverified"]
    prompt: str
    baseline: str
    edits: tuple[RefinedEdit, ...]
    proposals: tuple[RefinedEdit, ...]  # what came closest where nothing was accepted
    refused: tuple[Refusal, ...]
    iterations: int
    candidates: int  # measured
    conversations: Conversations
    warnings: tuple[str, ...]
    run_dir: str
    marked: str  # the prompt with its [[keep]] marks
    test: Comparison | None = None  # of the sealed rows, where a target was named
    metric: str = ""
    spend: Spend | None = None

    def diff(self) -> tuple[Change, ...]:
        """Words of the baseline and of the refined prompt side by side."""
        return diff(self.baseline, self.prompt)

    def to_dict(self) -> dict[str, Any]:
        """What `result.json` holds."""
        return asdict(self)


def make_refined(
    start: Prompt,
    rounds: Sequence[Round],
    traces: Sequence[Trace],
    conversations: Conversations,
    warnings: Sequence[str],
    run_dir: str,
) -> Refined:
    """The unverified outcome of `rounds`. `traces`: those that candidates were written under."""
    by_id = {trace.id: trace for trace in traces}
    prompt = start
    for one in rounds:
        prompt = one.accepted.proposal.prompt if one.accepted else prompt
    return Refined(
        verdict="unverified",
        prompt=prompt.text,
        baseline=start.text,
        edits=tuple(_edit(one, one.best, by_id) for one in rounds if one.best and one.accepted),
        proposals=tuple(
            _edit(one, one.best, by_id) for one in rounds if one.best and not one.accepted
        ),
        refused=tuple(
            Refusal(one.number + 1, p.masker, changes(one.parent, p), p.objection)
            for one in rounds
            for p in one.refused
        ),
        iterations=len(rounds),
        candidates=sum(len(one.judged) for one in rounds),
        conversations=conversations,
        warnings=tuple(warnings),
        run_dir=run_dir,
        marked=prompt.marked(),
    )


def changes(parent: Prompt, proposal: Proposal) -> tuple[tuple[str, str], ...]:
    """(before, after) of every edit."""
    return tuple((parent.text[start:stop], text) for start, stop, text in proposal.edits)


def _edit(one: Round, best: Judged, traces: Mapping[str, Trace]) -> RefinedEdit:
    proposal = best.proposal
    return RefinedEdit(
        iteration=one.number + 1,
        masker=proposal.masker,
        changes=changes(one.parent, proposal),
        places=tuple(start for start, _, _ in proposal.edits),
        gain=best.gain,
        gains=best.gains,
        because=tuple(_speaks(traces[d.trace], d, proposal) for d in one.because),
    )


def _speaks(trace: Trace, drop: Drop, proposal: Proposal) -> Speaks:
    each = iter(drop.each)
    drops = tuple(next(each) if text else 0.0 for _, _, text in proposal.edits)
    said = next((note.text for note in trace.feedback if note.text), trace.desired or "")
    return Speaks(trace.id, trace.query, said, drop.nats, drops)
