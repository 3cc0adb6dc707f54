"""What happens in a run, as values; the state of a search is the fold of its events.

Events hold only strings, numbers and tuples, so that they survive JSON unchanged. Whoever wants to
show, store or resume a run reads events. Knows nothing of files, models or how a search decides.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, get_args

from remask.ports import Proposal
from remask.prompt import Prompt

Rows = tuple[tuple[str, float | None, float], ...]  # (example id, score or None: failed, soft)


@dataclass(frozen=True, slots=True)
class Started:
    """The search begins with this prompt (marked source)."""

    prompt: str
    id: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Proposed:
    """A candidate that may be evaluated."""

    round: int
    id: str
    parent: str
    prompt: str  # marked source
    tokens: int  # of the whole prompt
    masker: str
    masks: tuple[tuple[int, int, int], ...]  # (start, stop, tokens) in the parent's text
    edits: tuple[tuple[int, int, str], ...]  # (start, stop, new text) in the parent's text
    traces: tuple[str, ...]  # ids of the traces that the denoiser read
    logp: float

    @classmethod
    def from_proposal(
        cls, round: int, parent: Prompt, proposal: Proposal, tokens: int
    ) -> "Proposed":
        return cls(
            round=round,
            id=proposal.prompt.id,
            parent=parent.id,
            prompt=proposal.prompt.to_source(),
            tokens=tokens,
            masker=proposal.masker,
            masks=proposal.masks,
            edits=proposal.edits,
            traces=proposal.traces,
            logp=proposal.logp,
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """A candidate that the guard stopped before a target call was spent."""

    round: int
    parent: str
    prompt: str
    masker: str
    reason: str
    edits: tuple[tuple[int, int, str], ...] = ()  # (start, stop, new text) in the parent's text

    @classmethod
    def from_proposal(cls, round: int, parent: Prompt, proposal: Proposal) -> "Refused":
        prompt = proposal.prompt.to_source()
        return cls(round, parent.id, prompt, proposal.masker, proposal.violation, proposal.edits)


@dataclass(frozen=True, slots=True)
class Measured:
    """What held-out conversations say of a candidate, where a likelihood ranks (`refine`)."""

    round: int
    id: str
    fold_gains: tuple[float, ...]  # of each group of conversations: nats over the text it replaces

    @property
    def log_likelihood_gain(self) -> float:
        """Mean over the groups, nats."""
        return sum(self.fold_gains) / len(self.fold_gains)


@dataclass(frozen=True, slots=True)
class Attributed:
    """The traces that an edit rests on: leaving one out makes the new text less probable."""

    round: int
    id: str
    attributions: tuple[
        tuple[str, tuple[float, ...]], ...
    ]  # (trace id, nats of each new text in order)


@dataclass(frozen=True, slots=True)
class Scored:
    """A prompt's results on rows of the train or validation split."""

    round: int
    id: str
    split: str
    rows: Rows


@dataclass(frozen=True, slots=True)
class Accepted:
    """The round's winner is the new incumbent."""

    round: int
    id: str
    parent: str
    gain: float  # over the parent: mean on validation rows ("used for selection"), or nats
    attributions: tuple[str, ...]  # rows or traces that, left out, lower the edit's log p most


@dataclass(frozen=True, slots=True)
class RoundRejected:
    """The round ends and the incumbent stays."""

    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class SearchEnded:
    """The search is over; the sealed test comes next."""

    reason: str


@dataclass(frozen=True, slots=True)
class Tested:
    """The sealed test: baseline and best prompt on the same rows, scored once."""

    baseline: Rows
    best: Rows
    never_predicted: tuple[str, ...] = ()  # labels that the target never gave under the best prompt
    unparsed: int = 0  # responses under the best prompt in which no label was found
    notes: tuple[str, ...] = ()  # what a reader of the result should know of how it was made


@dataclass(frozen=True, slots=True)
class UnlabelledInputs:
    """There were no right answers: what the rows are instead. Comes before Started."""

    basis: str  # "inputs": the user's, without right answers; "prompt": the target wrote them
    metric: str  # what scores the answers
    queries: tuple[str, ...] = ()  # what the target wrote, in order


@dataclass(frozen=True, slots=True)
class ConversationCounts:
    """What was made of the files of conversations."""

    records: int
    rejected: int  # things that are no usable record
    elsewhere: int  # records of other system prompts
    read: int  # traces that candidates are written under
    held: int  # traces that candidates are measured on
    sealed: int  # traces that neither sees, for the test
    redacted: bool
    secrets: Mapping[str, int]  # different ones that were replaced, by label


@dataclass(frozen=True, slots=True)
class TracesRead:
    """The files of conversations are read (`refine`). Comes before Started."""

    counts: ConversationCounts
    notes: tuple[str, ...]  # sentences for the user
    metric: str = ""  # what scores the sealed rows; "" where no target is asked


Event = (
    UnlabelledInputs
    | TracesRead
    | Started
    | Proposed
    | Refused
    | Scored
    | Measured
    | Attributed
    | Accepted
    | RoundRejected
    | SearchEnded
    | Tested
)
KINDS: Mapping[str, type[Event]] = MappingProxyType({c.__name__: c for c in get_args(Event)})


def encode(event: Event) -> dict[str, Any]:
    return {"kind": type(event).__name__, **asdict(event)}


def decode(data: Mapping[str, Any]) -> Event:
    fields = {k: _freeze(v) for k, v in data.items() if k != "kind"}
    if data["kind"] == TracesRead.__name__:
        fields["counts"] = ConversationCounts(**fields["counts"])
    return KINDS[data["kind"]](**fields)


def _freeze(value: Any) -> Any:
    return tuple(_freeze(v) for v in value) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class State:
    """All that a search remembers; grown by `advance`, never changed in place."""

    baseline: str = ""
    incumbent: str = ""
    round: int = 0  # the next round to play
    rounds_without_gain: int = 0  # rounds since the last acceptance
    prompts: Mapping[str, str] = field(default_factory=dict)  # id -> marked source
    tokens: Mapping[str, int] = field(default_factory=dict)
    proposals: tuple[Proposed, ...] = ()
    refusals: tuple[Refused, ...] = ()
    accepted: tuple[Accepted, ...] = ()
    scores: Mapping[tuple[str, str], Mapping[str, float | None]] = field(default_factory=dict)
    stopped: str = ""
    tested: Tested | None = None
    unlabelled_inputs: UnlabelledInputs | None = None
    traces_read: TracesRead | None = None
    measured: tuple[Measured, ...] = ()
    attributed: tuple[Attributed, ...] = ()

    def prompt(self, id: str) -> Prompt:
        return Prompt.parse(self.prompts[id])

    def proposal(self, round: int, id: str) -> Proposed:
        return next(p for p in self.proposals if (p.round, p.id) == (round, id))

    def earlier_prompts(self, round: int) -> frozenset[str]:
        """Prompts of earlier rounds: never proposed again. (The running round is left out, so that
        a round cut in half by a kill is replayed to the same proposals.)"""
        return frozenset(p.id for p in self.proposals if p.round < round) | {self.baseline}


def advance(state: State, event: Event) -> State:
    match event:
        case UnlabelledInputs():
            return replace(state, unlabelled_inputs=event)
        case TracesRead():
            return replace(state, traces_read=event)
        case Started():
            return replace(
                state,
                baseline=event.id,
                incumbent=event.id,
                prompts={**state.prompts, event.id: event.prompt},
                tokens={**state.tokens, event.id: event.tokens},
            )
        case Proposed():
            return replace(
                state,
                proposals=(*state.proposals, event),
                prompts={**state.prompts, event.id: event.prompt},
                tokens={**state.tokens, event.id: event.tokens},
            )
        case Refused():
            return replace(state, refusals=(*state.refusals, event))
        case Scored():
            key = (event.id, event.split)
            rows = {**state.scores.get(key, {}), **{row: score for row, score, _ in event.rows}}
            return replace(state, scores={**state.scores, key: rows})
        case Measured():
            return replace(state, measured=(*state.measured, event))
        case Attributed():
            return replace(state, attributed=(*state.attributed, event))
        case Accepted():
            return replace(
                state,
                incumbent=event.id,
                accepted=(*state.accepted, event),
                round=event.round + 1,
                rounds_without_gain=0,
            )
        case RoundRejected():
            return replace(
                state, round=event.round + 1, rounds_without_gain=state.rounds_without_gain + 1
            )
        case SearchEnded():
            return replace(state, stopped=event.reason)
        case Tested():
            return replace(state, tested=event)


def fold(events: Iterable[Event], state: State | None = None) -> State:
    state = state or State()
    for event in events:
        state = advance(state, event)
    return state
