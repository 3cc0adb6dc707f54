"""The events of a run. The state of a search is the fold of its events.

Events hold only strings, numbers and tuples, so that they can be stored as JSON and read back
unchanged. Everything that shows, stores or resumes a run reads events.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args

import orjson

from remask.errors import ConfigError
from remask.ports import Proposal
from remask.prompt import Prompt
from remask.sanitize import one_line

if TYPE_CHECKING:
    from pydantic import TypeAdapter

# (example id, score or None, ranking score). JSON has no infinity and no NaN: read back, these are None.
Rows = tuple[tuple[str, float | None, float | None], ...]
PROMPT_TOKENS = "prompt_tokens"  # the objective that needs no row


@dataclass(frozen=True, slots=True)
class GuardSet:
    """Rows that are not part of the score, and on which no loss above a margin is accepted."""

    name: str
    margin: float  # points of 100 of score that may be lost
    validation: tuple[str, ...]  # ids of the rows that an edit is tested on before it is accepted
    test: tuple[str, ...]  # ids of the sealed rows


@dataclass(frozen=True, slots=True)
class GoalsSet:
    """What counts beside the score. Comes before Started, where anything does."""

    objectives: tuple[tuple[str, bool], ...] = ()  # (name, whether more is better)
    prefer: str = ""  # the objective that chooses among prompts; "": the score does
    within: float = 0.0  # points of 100 of score that may be lost for it
    only_preferred: bool = False  # an edit is accepted only for the preferred objective
    guards: tuple[GuardSet, ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """The search begins with this prompt."""

    prompt: str  # with its [[keep]] marks
    id: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Proposed:
    """A candidate that may be evaluated."""

    round: int
    id: str
    parent: str
    prompt: str  # with its [[keep]] marks
    tokens: int  # of the whole prompt
    masker: str
    masks: tuple[tuple[int, int, int], ...]  # (start, stop, tokens) in the parent's text
    edits: tuple[tuple[int, int, str], ...]  # (start, stop, new text) in the parent's text
    traces: tuple[str, ...]  # ids of the traces that the denoiser read
    logp: float | None  # mean log-probability of the written tokens, nats; None where it is not finite
    pieces: tuple[tuple[tuple[str, int], ...], ...] = ()  # of each new text: (piece, denoising step from 1)
    components: tuple[str, ...] = ()  # that it edits; () where the prompt is one text

    @classmethod
    def from_proposal(cls, round: int, parent: Prompt, proposal: Proposal, tokens: int) -> "Proposed":
        """Make the event of a proposal that the guard allows."""
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
            pieces=proposal.pieces,
            components=proposal.components,
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """A candidate that the guard rejected before a target call was spent."""

    round: int
    parent: str
    prompt: str
    masker: str
    reason: str
    edits: tuple[tuple[int, int, str], ...] = ()  # (start, stop, new text) in the parent's text

    @classmethod
    def from_proposal(cls, round: int, parent: Prompt, proposal: Proposal) -> "Refused":
        """Make the event of a proposal that violates the guard."""
        prompt = proposal.prompt.to_source()
        return cls(round, parent.id, prompt, proposal.masker, proposal.violation, proposal.edits)


@dataclass(frozen=True, slots=True)
class Measured:
    """How a candidate changes the log-likelihood of held-out conversations (`refine`)."""

    round: int
    id: str
    fold_gains: tuple[float, ...]  # nats over the replaced text, of each fold of conversations

    @property
    def log_likelihood_gain(self) -> float:
        """Return the mean gain over the folds, in nats."""
        return sum(self.fold_gains) / len(self.fold_gains)


@dataclass(frozen=True, slots=True)
class Attributed:
    """The evidence for an edit: traces without which the new text is less probable."""

    round: int
    id: str
    # (trace id, nats that each new text loses, in order)
    attributions: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """The results of a prompt on rows of a split, or on the guard rows of the validation split."""

    round: int
    id: str
    split: str  # "train", "validation" or "guard"
    rows: Rows
    values: tuple[tuple[str, tuple[float | None, ...]], ...] = ()  # (objective, its value on each row)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The round's winner is the new incumbent."""

    round: int
    id: str
    parent: str
    gain: float  # over the parent: mean score on validation rows ("used for selection"), or nats
    attributions: tuple[str, ...]  # the evidence: ids of the rows or traces that support the edit most
    objective: str = ""  # the preferred one, where it decided and the score is not worse; "": the score


@dataclass(frozen=True, slots=True)
class Chosen:
    """At the end of the search, an earlier prompt is best on the preferred objective."""

    id: str


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
class TestPostponed:
    """Too many rows of the sealed test failed. A resumed run asks them once more."""

    __test__ = False  # pytest: this is no test

    failed: int  # rows without scores of both prompts
    reason: str  # of the first failure


@dataclass(frozen=True, slots=True)
class Tested:
    """The sealed test: baseline and best prompt on the same rows, scored once."""

    baseline: Rows
    best: Rows
    never_predicted: tuple[str, ...] = ()  # labels that the target never gave under the best prompt
    unparsed: int = 0  # responses under the best prompt in which no label was found
    notes: tuple[str, ...] = ()  # warnings for the reader of the result
    earlier_tests: int = 0  # of these rows by other runs in the same folder, when the test was made
    # (objective, rows under the seed prompt, rows under the best one) with values in place of scores
    objectives: tuple[tuple[str, Rows, Rows], ...] = ()
    # (guard set, rows under the seed prompt, rows under the best one)
    guards: tuple[tuple[str, Rows, Rows], ...] = ()


@dataclass(frozen=True, slots=True)
class UnlabelledInputs:
    """The rows have no right answers. Comes before Started."""

    basis: str  # "inputs": the user gave the inputs; "prompt": the target wrote them
    metric: str  # scores the answers
    queries: tuple[str, ...] = ()  # the messages that the target wrote, in order


@dataclass(frozen=True, slots=True)
class ConversationCounts:
    """Counts of the records and traces in files of conversations."""

    records: int
    rejected: int  # entries that are no usable record
    elsewhere: int  # records of other system prompts
    read: int  # traces that the denoiser reads
    held: int  # traces that candidates are measured on
    sealed: int  # traces that are used only in the test
    redacted: bool
    secrets: Mapping[str, int]  # number of distinct secrets that were replaced, by kind


@dataclass(frozen=True, slots=True)
class TracesRead:
    """The files of conversations are read (`refine`). Comes before Started."""

    counts: ConversationCounts
    notes: tuple[str, ...]  # sentences for the user
    metric: str = ""  # scores the sealed rows; "" where no target is called


Event = (
    UnlabelledInputs
    | TracesRead
    | GoalsSet
    | Started
    | Proposed
    | Refused
    | Scored
    | Measured
    | Attributed
    | Accepted
    | RoundRejected
    | Chosen
    | SearchEnded
    | TestPostponed
    | Tested
)
KINDS: Mapping[str, type[Event]] = MappingProxyType({c.__name__: c for c in get_args(Event)})


def encode(event: Event) -> dict[str, Any]:
    """Convert an event to values of JSON."""
    return {"kind": type(event).__name__, **asdict(event)}


def decode(data: Mapping[str, Any]) -> Event:
    """Convert values of JSON back to the event that `encode` converted.

    Raises ValueError, whose message goes on after the word "event", where it is no event.
    """
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"is of the unknown kind {one_line(repr(kind), 40)}")
    fields = {name: value for name, value in data.items() if name != "kind"}
    if fields.keys() - KINDS[kind].__dataclass_fields__.keys():
        raise ValueError(f"is no {kind}: it has an unknown value")
    try:
        event: Event = _find_adapter(kind).validate_json(orjson.dumps(fields), strict=True)
    except ValueError:  # of pydantic
        raise ValueError(f"is no {kind}: a value is missing or of a wrong type") from None
    return event


@cache
def _find_adapter(kind: str) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter  # imported here because it is slow

    return TypeAdapter(KINDS[kind])


@dataclass(frozen=True)
class State:
    """The state of a search. A state never changes: `advance` and `Fold` return new ones."""

    baseline: str = ""
    incumbent: str = ""
    round: int = 0  # the next round
    rounds_without_gain: int = 0  # rounds since the last acceptance
    prompts: Mapping[str, str] = field(default_factory=dict)  # id -> text with [[keep]] marks
    tokens: Mapping[str, int] = field(default_factory=dict)
    proposals: Mapping[tuple[int, str], Proposed] = field(default_factory=dict)  # by round and id, in order
    refusals: tuple[Refused, ...] = ()
    accepted: tuple[Accepted, ...] = ()
    scores: Mapping[tuple[str, str], Mapping[str, float | None]] = field(default_factory=dict)
    goals: GoalsSet = GoalsSet()
    # (prompt, split, objective) -> row -> value
    values: Mapping[tuple[str, str, str], Mapping[str, float | None]] = field(default_factory=dict)
    stopped: str = ""
    postponed: TestPostponed | None = None
    tested: Tested | None = None
    unlabelled_inputs: UnlabelledInputs | None = None
    traces_read: TracesRead | None = None
    measured: tuple[Measured, ...] = ()
    attributed: tuple[Attributed, ...] = ()

    @property
    def leader(self) -> str:
        """The prompt that was last accepted for its score: none may be worse than it."""
        return next((e.id for e in reversed(self.accepted) if not e.objective), self.baseline)

    def measure(self, id: str, objective: str = "") -> float | None:
        """Return the mean of an objective on validation rows, or that of the score; None: unknown."""
        if objective == PROMPT_TOKENS:
            return float(self.tokens[id])
        key = (id, "validation")
        rows = self.values.get((*key, objective), {}) if objective else self.scores.get(key, {})
        known = [value for value in rows.values() if value is not None]
        return sum(known) / len(known) if known else None

    def prompt(self, id: str) -> Prompt:
        """Return the prompt with this id."""
        return Prompt.parse(self.prompts[id])

    def proposal(self, round: int, id: str) -> Proposed:
        """Return the proposal of a prompt in a round."""
        return self.proposals[round, id]

    def earlier_prompts(self, round: int) -> frozenset[str]:
        """Return the ids of the prompts before `round`, which are never proposed again."""
        # The running round is left out: where a kill interrupted it, it must be replayed to the
        # same proposals.
        return frozenset(id for number, id in self.proposals if number < round) | {self.baseline}


def advance(state: State, event: Event) -> State:
    """Return the state after `event`."""
    return fold((event,), state)


def fold(events: Iterable[Event], state: State | None = None) -> State:
    """Return the state after all `events`, in order."""
    found = Fold(state)
    for event in events:
        found.take(event)
    return found.state


class Fold:
    """Folds events one by one, without a copy of the whole state for each of them."""

    def __init__(self, state: State | None = None) -> None:
        # The collections that grow with each event are changed in place, and `state` copies them.
        self._rest = state = state or State()  # all that changes seldom
        self._prompts, self._tokens = dict(state.prompts), dict(state.tokens)
        self._scores, self._values = dict(state.scores), dict(state.values)
        self._proposals, self._refusals = dict(state.proposals), list(state.refusals)

    def add(self, event: Event) -> None:
        """Take an event of a file.

        Raises ValueError where it cannot follow; the message is as that of `decode`.
        """
        self._check(event)
        self.take(event)

    def take(self, event: Event) -> None:
        """Take an event of the search, which is not checked."""
        state = self._rest
        match event:
            case Started():
                self._add_prompt(event)
                self._rest = replace(state, baseline=event.id, incumbent=event.id)
            case Proposed():
                self._add_prompt(event)
                self._proposals[event.round, event.id] = event
            case Refused():
                self._refusals.append(event)
            case Scored():
                key = (event.id, event.split)
                new = {row: score for row, score, _ in event.rows}
                self._scores[key] = {**self._scores.get(key, {}), **new}
                for name, values in event.values:
                    of = dict(zip((row for row, _, _ in event.rows), values, strict=True))
                    self._values[*key, name] = {**self._values.get((*key, name), {}), **of}
            case Accepted():
                accepted, next_round = (*state.accepted, event), event.round + 1
                self._rest = replace(
                    state, incumbent=event.id, accepted=accepted, round=next_round, rounds_without_gain=0
                )
            case GoalsSet():
                self._rest = replace(state, goals=event)
            case Chosen():
                self._rest = replace(state, incumbent=event.id)
            case RoundRejected():
                without = state.rounds_without_gain + 1
                self._rest = replace(state, round=event.round + 1, rounds_without_gain=without)
            case Measured():
                self._rest = replace(state, measured=(*state.measured, event))
            case Attributed():
                self._rest = replace(state, attributed=(*state.attributed, event))
            case SearchEnded():
                self._rest = replace(state, stopped=event.reason)
            case UnlabelledInputs():
                self._rest = replace(state, unlabelled_inputs=event)
            case TracesRead():
                self._rest = replace(state, traces_read=event)
            case TestPostponed():
                self._rest = replace(state, postponed=event)
            case Tested():
                self._rest = replace(state, tested=event)

    def _add_prompt(self, event: Started | Proposed) -> None:
        self._prompts[event.id] = event.prompt
        self._tokens[event.id] = event.tokens

    def _check(self, event: Event) -> None:
        if getattr(event, "round", 0) < 0:
            raise ValueError("has a negative round")
        if isinstance(event, Started | Proposed):
            try:
                same = Prompt.parse(event.prompt).id == event.id
            except ConfigError:
                same = False
            if not same or event.tokens < 0:
                raise ValueError("has a prompt that does not match its id")
        if isinstance(event, Proposed | Refused | Accepted) and event.parent not in self._prompts:
            raise ValueError("has an unknown parent")
        if isinstance(event, Proposed | Refused) and not _is_in_order(
            event.edits, Prompt.parse(self._prompts[event.parent]).text
        ):
            raise ValueError("has an edit outside of its prompt")
        if isinstance(event, Scored) and (
            event.id not in self._prompts or event.split not in ("train", "validation", "guard")
        ):
            raise ValueError("scores an unknown prompt or split")
        if isinstance(event, Scored) and any(len(v) != len(event.rows) for _, v in event.values):
            raise ValueError("has another number of values than rows")
        if isinstance(event, Chosen) and event.id not in self._prompts:
            raise ValueError("chooses an unknown prompt")
        if (
            isinstance(event, Accepted | Measured | Attributed)
            and (event.round, event.id) not in self._proposals
        ):
            raise ValueError("is of a prompt that was not proposed")
        if isinstance(event, Tested) and [r[0] for r in event.baseline] != [r[0] for r in event.best]:
            raise ValueError("has other rows for the two prompts")
        if isinstance(event, Tested) and event.earlier_tests < 0:
            raise ValueError("has a negative number of earlier tests")

    @property
    def state(self) -> State:
        """The state after all events so far."""
        return replace(
            self._rest,
            prompts=dict(self._prompts),
            tokens=dict(self._tokens),
            scores=dict(self._scores),
            values=dict(self._values),
            proposals=dict(self._proposals),
            refusals=tuple(self._refusals),
        )


def _is_in_order(edits: Iterable[tuple[int, int, str]], text: str) -> bool:
    end = 0
    for start, stop, _ in edits:
        if not end <= start <= stop <= len(text):
            return False
        end = stop
    return True
