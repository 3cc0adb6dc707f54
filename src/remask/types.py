"""The records that all rooms share: messages, traces, examples, scores, outcomes.

They are frozen. All text that a target or a user wrote is untrusted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from remask.errors import TargetUnreliable

Role = Literal["system", "user", "assistant", "tool", "component"]
TOOL = "tool:"  # begins the name of a component that describes a tool
Split = Literal["train", "validation", "test"]
MAX_FAILED = 0.02  # of the rows of an evaluation


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, or a component of the prompt that is no turn, such as a tool."""

    role: Role
    content: str
    name: str = ""  # of the component that it is; "": it is none


Chat = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Feedback:
    """A comment, label, correction or score that a response got."""

    kind: Literal["label", "correction", "comment", "score"]
    text: str = ""
    score: float | None = None  # 0 (bad) to 1 (good)


@dataclass(frozen=True, slots=True)
class Trace:
    """One interaction: the query, the response, and the right response where it is known."""

    id: str
    query: str
    response: str
    desired: str | None = None  # the right response; None: unknown
    feedback: tuple[Feedback, ...] = ()
    score: float | None = None  # of the response, 0 to 1; None: unknown
    source: str = ""  # the user or session that it came from; "": unknown
    # What single components of the prompt did, by name; empty where that is unknown.
    parts: Mapping[str, "Trace"] = field(default_factory=dict, hash=False)

    @property
    def failing(self) -> bool:
        """Return whether the response has a score below 1 or negative feedback."""
        if self.score is not None and self.score < 1:
            return True
        return any(_is_negative(note, self.score) for note in self.feedback)

    @property
    def explanation(self) -> str:
        """Return the first feedback text, else the right response, else ""."""
        return next((note.text for note in self.feedback if note.text), self.desired or "")


def _is_negative(note: Feedback, score: float | None) -> bool:
    if note.score is not None and note.score < 1:
        return True
    # A comment on a score of 1 is praise, or the reason that a judge gives.
    return note.kind == "correction" or (note.kind == "comment" and score is note.score is None)


@dataclass(frozen=True, slots=True)
class Example:
    """One row of the user's data, with its input template filled."""

    id: str
    split: Split
    input: str  # the user message
    expected: str | None  # the right answer; None: the data has none
    row: Mapping[str, str] = field(default_factory=dict)  # all columns but expected and split
    place: str = field(default="", compare=False)  # where the data has it: file:line; "": unknown
    guard: str = ""  # the guard set that it belongs to; "": it counts in the score


@dataclass(frozen=True, slots=True)
class Score:
    """The value of a metric, from 0 to 1, with an optional explanation."""

    value: float
    feedback: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one prompt on one example: scored, or failed.

    A failed call is no wrong answer, so it has no score.
    """

    example: str  # Example.id
    status: Literal["scored", "failed"]
    score: float = 0.0  # has no meaning where the status is failed
    # Less noisy than the score where the target gives probabilities; elsewhere it is the score.
    ranking_score: float = 0.0
    error: str = ""  # why it failed
    unparsed: bool = False  # the response names no allowed label; scored 0 and counted separately
    trace: Trace | None = None
    cut: bool = False  # the answer was cut off at the limit of tokens
    values: Mapping[str, float] = field(default_factory=dict)  # of the answer, by objective


def describe_cut(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Say how many answers were cut off, where any was."""
    cut = sum(o.cut for o in outcomes)
    said = f"{cut} of {len(outcomes)} answers were cut off at the limit of tokens; raise max_tokens"
    return (said,) if cut else ()


def mean_score(outcomes: Sequence[Outcome], max_failed: float = MAX_FAILED, what: str = "rows") -> float:
    """Return the mean score of the rows that have one. `what` they are, for the message.

    Raises TargetUnreliable where more than the fraction `max_failed` of the rows failed, all of
    them failed, or there are none, since prompts must not be ranked by such rows.
    """
    scored = [o.score for o in outcomes if o.status == "scored"]
    failed = [o for o in outcomes if o.status == "failed"]
    # One failed row is always allowed: of a dozen rows it is already 8 %.
    if not scored or len(failed) > max(1.0, max_failed * len(outcomes)):
        why = f"; the first: {failed[0].error}" if failed else ""
        many = f"{len(failed)} of {len(outcomes)} {what} have no score"
        raise TargetUnreliable(many + (", which is too many to rank prompts" if scored else "") + why)
    return sum(scored) / len(scored)
