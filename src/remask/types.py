"""The records that travel between rooms: messages, traces, examples, outcomes.

Frozen, ordered, free of files and models. Everything a target or a user wrote is untrusted text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from remask.errors import TargetUnreliable

Role = Literal["system", "user", "assistant", "tool"]
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


Chat = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Feedback:
    """What somebody or something said of a response."""

    kind: Literal["label", "correction", "comment", "score"]
    text: str = ""
    score: float | None = None  # 0 (bad) to 1 (good)


@dataclass(frozen=True, slots=True)
class Trace:
    """One interaction: what was asked, what was answered, and what would have been right."""

    id: str
    query: str
    response: str
    desired: str | None = None  # the right response, where it is known
    feedback: tuple[Feedback, ...] = ()
    score: float | None = None  # of the response, 0 to 1; None: unknown
    source: str = ""  # the user or session it came from, where that is known

    @property
    def failing(self) -> bool:
        """Whether the response was wrong, or somebody had something to say against it."""
        if self.score is not None and self.score < 1:
            return True
        return any(_is_negative(note, self.score) for note in self.feedback)

    @property
    def said(self) -> str:
        """The feedback in words, or the right response; "" where there is neither."""
        return next((note.text for note in self.feedback if note.text), self.desired or "")


def _is_negative(note: Feedback, score: float | None) -> bool:
    if note.score is not None and note.score < 1:
        return True
    # A comment on a full score is praise or a judge's reasons.
    return note.kind == "correction" or (note.kind == "comment" and score is note.score is None)


@dataclass(frozen=True, slots=True)
class Example:
    """One row of the user's data, already rendered into messages."""

    id: str
    split: Split
    input: str  # the user message
    expected: str | None  # the right answer, where the data has one
    row: Mapping[str, str] = field(default_factory=dict)  # the columns, less expected and split


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's value, 0 to 1 for the built-in metrics, with optional words about it."""

    value: float
    feedback: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One (prompt, example): scored, or failed. An outage is not a wrong answer."""

    example: str  # Example.id
    status: Literal["scored", "failed"]
    score: float = 0.0  # meaningful only when scored
    ranking_score: float = (
        0.0  # less noisy stand-in for the score where the target gives one, else the score
    )
    error: str = ""  # why it failed
    unparsed: bool = False  # no allowed label found in the response (scored 0, counted apart)
    trace: Trace | None = None


def mean_score(outcomes: Sequence[Outcome], max_failed: float = 0.02) -> float:
    """Mean score of the rows that have one.

    Raises TargetUnreliable where more than `max_failed` (a fraction) of the rows failed, or all,
    or there is no row: prompts must not be ranked on that. One failed row never stops a run: of a
    dozen rows it would already be 8 %.
    """
    scored = [o.score for o in outcomes if o.status == "scored"]
    failed = [o for o in outcomes if o.status == "failed"]
    if not scored or len(failed) > max(1.0, max_failed * len(outcomes)):
        why = f"; the first: {failed[0].error}" if failed else ""
        raise TargetUnreliable(
            f"{len(failed)} of {len(outcomes)} rows have no score, which is too many to rank "
            f"prompts{why}"
        )
    return sum(scored) / len(scored)
