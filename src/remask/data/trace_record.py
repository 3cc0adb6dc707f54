"""What a reader of a foreign format makes: records, late additions to them, and rejects.

The one vocabulary of the readers. A reader is a pure function from one JSON value to items; it
never opens a file. Knows nothing of where values come from (`stream`), which reader gets them
(`detect`), or what becomes of a record (`traces`). Everything in a record is untrusted text.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from remask.types import Role

Kind = Literal["human", "code", "llm", "reward", "unknown"]


class UnreadableRecord(ValueError):
    """Raised by a reader: the value holds no usable record, and why. Never leaves the room: the
    core turns it into one RejectedRecord. `line`, where it is known, counts from 1 at the start of
    what was read."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True, slots=True)
class Source:
    """Where a record stands."""

    format: str
    path: str
    line: int | None = None  # where its JSON value begins, from 1
    entry: str = ""  # a part of the value, or a file in an archive: "simulations[3]"

    @property
    def location(self) -> str:
        """What a record without a name of its own is called: "log.jsonl:7"."""
        parts = (Path(self.path).name, self.line, self.entry)
        return ":".join(str(part) for part in parts if part)

    def reject(self, reason: str) -> "RejectedRecord":
        """One reject for what stands here."""
        return RejectedRecord(
            self.path, self.line, f"{self.entry}: {reason}" if self.entry else reason
        )


class Turn(NamedTuple):
    """One turn. Calls of tools are part of the assistant's text, as `name(key="value")`.

    A tuple, because most of the time of reading plain chats goes into making these.
    """

    role: Role
    text: str
    name: str = ""  # of the tool that answers, or of the speaker


@dataclass(frozen=True, slots=True)
class Rating:
    """What somebody or something said of the record's last response, on a scale of its own."""

    name: str
    value: float | bool | str | None
    kind: Kind = "unknown"
    comment: str = ""
    correction: str = ""  # the response that would have been right
    scale: tuple[float, float] | None = None  # (worst, best), only where the format defines it


@dataclass(frozen=True, slots=True)
class Record:
    """One conversation. System messages that lead it are in `system`, not in `turns`."""

    id: str  # "" where the format has none: it is then called by its source
    system: str | None
    turns: tuple[Turn, ...]
    ratings: tuple[Rating, ...]
    desired: str | None  # the right response, where the format says it
    source: Source
    model: str = ""
    template: str = ""  # of the system prompt, with its variables, where the format says it
    # Names by which an Addition may mean this record: its own id, then those of what is around it.
    keys: tuple[str, ...] = ()
    session: str = ""  # the conversation or user that it is part of
    thread: str = ""  # where records repeat a growing history: only the longest unrated one stays


@dataclass(frozen=True, slots=True)
class Annotation:
    """What another line or file says about the record that bears `key`: feedback on a run, or the
    answer to a batch request."""

    key: str
    source: Source
    turns: tuple[Turn, ...] = ()  # put behind the record's turns
    ratings: tuple[Rating, ...] = ()
    desired: str | None = None


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """Something that is not a usable record, and why."""

    path: str
    line: int | None
    reason: str


Item = Record | Annotation | RejectedRecord
Items = Iterator[Item]


@dataclass(frozen=True, slots=True)
class TraceFormat:
    """One foreign format: a row of the table in `detect`.

    `sniff` must be cheap and true only for values that `read` understands; it sees any JSON value
    (a row of a CSV file is an object of strings). `read` never raises anything but Unusable.
    """

    name: str
    matches: Callable[[Any], bool]
    read: Callable[[Any, Source], Items]
    multi_part: bool = False  # yields Additions or threads: the files are read twice


class Value(NamedTuple):
    """One JSON value of a file, and where it begins."""

    data: Any
    line: int | None
    entry: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """A binary kind of file that holds JSON values, told by its first bytes.

    `values` caps what it unpacks and yields a RejectedRecord for what it cannot read.
    """

    name: str
    magic: bytes
    values: Callable[[Path], Iterator[Value | RejectedRecord]]
