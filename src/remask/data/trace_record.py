"""The types that readers of trace formats produce: records, annotations and rejected records.

A reader is a pure function from one JSON value to items and does not open files. All text in a
record is untrusted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from remask.sanitize import one_line
from remask.types import Role

Kind = Literal["human", "code", "llm", "reward", "unknown"]


class UnreadableRecord(ValueError):
    """A value holds no usable record. `trace_reader` turns it into a RejectedRecord.

    line: the line within the value, from 1, if it is known.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True, slots=True)
class Source:
    """Where a record was read."""

    format: str
    path: str
    line: int | None = None  # the first line of its JSON value, from 1
    entry: str = ""  # a part of the value or a file in an archive, such as "simulations[3]"

    @property
    def location(self) -> str:
        """The id of a record that has none, such as "log.jsonl:7"."""
        parts = (Path(self.path).name, self.line, self.entry)
        return ":".join(str(part) for part in parts if part)

    def reject(self, reason: str, key: str = "") -> "RejectedRecord":
        """Return a RejectedRecord for this place."""
        reason = f"{self.entry}: {reason}" if self.entry else reason
        return RejectedRecord(self.path, self.line, reason, key)


class Turn(NamedTuple):
    """One turn. Tool calls are part of the assistant's text, as `name(key="value")`.

    A tuple, because creating turns takes most of the time when plain chats are read.
    """

    role: Role
    text: str
    name: str = ""  # of the tool or of the speaker


@dataclass(frozen=True, slots=True)
class Rating:
    """A rating of a record's last response, on any scale."""

    name: str
    value: float | bool | str | None
    kind: Kind = "unknown"
    comment: str = ""
    correction: str = ""  # the right response
    scale: tuple[float, float] | None = None  # (worst, best), if the format defines it


@dataclass(frozen=True, slots=True)
class Record:
    """One conversation. The system messages at its start are in `system`, not in `turns`."""

    id: str  # "" if the format has none; then `source.location` is used
    system: str | None
    turns: tuple[Turn, ...]
    ratings: tuple[Rating, ...]
    desired: str | None  # the right response, if the format has one
    source: Source
    model: str = ""
    template: str = ""  # the system prompt with its variables, if the format has it
    keys: tuple[str, ...] = ()  # ids for Annotation.key: its own, then those of its ancestors
    session: str = ""  # the conversation or the user that it belongs to
    # Records with the same thread repeat a growing history. Only rated ones and the longest are
    # kept.
    thread: str = ""
    unused: tuple[str, ...] = ()  # columns with content that the reader did not use


@dataclass(frozen=True, slots=True)
class Annotation:
    """What another line or file adds to the record with `key`: feedback, or a batch result."""

    key: str
    source: Source
    turns: tuple[Turn, ...] = ()  # added after the record's turns
    ratings: tuple[Rating, ...] = ()
    desired: str | None = None


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A value that is not a usable record."""

    path: str
    line: int | None
    reason: str  # on one line, since it may quote the file
    key: str = ""  # of a record; if the files hold it elsewhere, nothing is missing

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", one_line(self.reason))


Item = Record | Annotation | RejectedRecord
Items = Iterator[Item]


@dataclass(frozen=True, slots=True)
class TraceFormat:
    """One trace format.

    `matches` gets any JSON value (a row of a CSV file is an object of strings). It must be fast,
    and true only for values that `read` can read. `read` raises only UnreadableRecord.
    """

    name: str
    matches: Callable[[Any], bool]
    read: Callable[[Any, Source], Items]
    multi_part: bool = False  # `read` yields annotations or threads, so files are read twice


class Value(NamedTuple):
    """One JSON value of a file, and the line where it begins."""

    data: Any
    line: int | None
    entry: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """A binary file type that contains JSON values, recognised by its first bytes.

    `values` limits what it unpacks and yields a RejectedRecord for what it cannot read.
    """

    name: str
    magic: bytes
    values: Callable[[Path], Iterator[Value | RejectedRecord]]
