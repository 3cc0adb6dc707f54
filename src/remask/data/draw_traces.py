"""Draw the traces that are read from many records: a stratified reservoir with a seed.

Half of the traces are failing ones, half are others, where there are enough of both. Within such a
stratum those with the smallest hash of their content and the seed are drawn, so the draw depends
neither on the order of the reading nor on who reads. Only hashes and positions are kept, no texts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from remask.data.ratings import Scale
from remask.data.record_to_trace import trace_from_record
from remask.data.trace_record import Record
from remask.ids import content_id

MAX_TRACES = 5000  # if there are more, these are drawn
MIN_SOURCES = 100  # with at least this many sources, each one's share of the traces is limited
MAX_SOURCE_SHARE = 0.01  # that limit; one trace is always allowed


@dataclass(frozen=True, slots=True)
class DrawRule:
    """Which records are drawn from."""

    prompt: str | None  # only those of a system prompt like this one; None: all
    scales: Mapping[str, Scale]  # of their ratings
    seed: int


class RecordKey(NamedTuple):
    """Stands for a record that may be drawn."""

    hash: str  # of the seed and the content; the smallest are drawn
    part: int  # the number of its part, from 0
    place: int  # the number of its item in the part, from 0
    source: str  # a hash of the conversation or user that it belongs to; "": unknown


@dataclass(slots=True)
class Stratum:
    """The records of one kind with the smallest hashes, and how many there were."""

    bound: str = ""  # later records from this hash on are not drawn; "": none is known
    count: int = 0
    kept: list[RecordKey] = field(default_factory=list)

    def add(self, record: RecordKey) -> None:
        """Count a record that comes after all others."""
        self.count += 1
        if not self.bound or record.hash < self.bound:
            self.kept.append(record)
            if len(self.kept) >= 2 * MAX_TRACES:
                self._shorten()

    def merge(self, later: "Stratum") -> None:
        """Add the records of a stratum, which come after these."""
        self.count += later.count
        self.kept += later.kept
        self._shorten()

    def _shorten(self) -> None:
        self.kept.sort()
        del self.kept[MAX_TRACES:]
        if len(self.kept) == MAX_TRACES:
            self.bound = self.kept[-1].hash


@dataclass(slots=True)
class Strata:
    """The records of some parts."""

    failing: Stratum = field(default_factory=Stratum)
    rest: Stratum = field(default_factory=Stratum)

    @classmethod
    def below(cls, bounds: tuple[str, str]) -> Self:
        """Make empty strata with bounds that are known."""
        return cls(Stratum(bounds[0]), Stratum(bounds[1]))

    @property
    def bounds(self) -> tuple[str, str]:
        """The bounds of both strata."""
        return self.failing.bound, self.rest.bound

    @property
    def count(self) -> int:
        """The number of records."""
        return self.failing.count + self.rest.count

    def add(self, record: Record, rule: DrawRule, part: int, place: int) -> None:
        """Count a record that comes after all others."""
        trace = trace_from_record(record, rule.scales)
        hash = content_id("trace", rule.seed, trace.query, trace.response)
        source = content_id("source", trace.source) if trace.source else ""
        (self.failing if trace.failing else self.rest).add(RecordKey(hash, part, place, source))

    def merge(self, later: "Strata") -> None:
        """Add the records of later parts."""
        self.failing.merge(later.failing)
        self.rest.merge(later.rest)

    def choose(self, seed: int) -> tuple[list[RecordKey], str]:
        """Return the records that are drawn, by their hashes, and a note; "" where all are drawn.

        What one stratum leaves of its half goes to the other.
        """
        failing, rest = self.failing, self.rest
        most = min(failing.count, max(MAX_TRACES // 2, MAX_TRACES - rest.count))
        drawn = [sorted(failing.kept)[:most], sorted(rest.kept)[: MAX_TRACES - most]]
        note = (
            f"drawn with seed {seed}: {len(drawn[0])} of {failing.count} failing conversations and "
            f"{len(drawn[1])} of {rest.count} others"
        )
        return sorted([*drawn[0], *drawn[1]]), note if self.count > MAX_TRACES else ""


def limit_sources(drawn: Sequence[RecordKey]) -> tuple[list[RecordKey], int]:
    """Limit each source to MAX_SOURCE_SHARE; return the records and how many were dropped."""
    counts = Counter(one.source for one in drawn if one.source)
    if len(counts) < MIN_SOURCES:
        return list(drawn), 0
    limit = max(1, int(MAX_SOURCE_SHARE * len(drawn)))
    seen: Counter[str] = Counter()
    kept = []
    for one in drawn:
        seen[one.source] += 1
        if not one.source or seen[one.source] <= limit:
            kept.append(one)
    return kept, len(drawn) - len(kept)
