"""What is measured of an answer beside its score: tokens, dollars, seconds, further metrics."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from remask.errors import TargetUnreliable
from remask.ports import Reply
from remask.tasks.metrics import Grader
from remask.types import Example

Values = dict[str, float]  # by objective
MIN_ASKED = 5  # answers that show that an objective cannot be measured
VALUES = "values"  # key of the values in a grade that is stored with its answer


@dataclass(slots=True)
class Missing:
    """The answers that an objective has no value on."""

    asked: int = 0  # answers that were measured
    count: int = 0  # of these, without a value
    reason: str = ""  # of the first one

    def add(self, reasons: Sequence[str]) -> None:
        """Count answers; "" where one has a value."""
        self.asked += len(reasons)
        self.count += sum(map(bool, reasons))
        self.reason = self.reason or next(filter(None, reasons), "")


@dataclass(frozen=True, slots=True)
class Measures:
    """The measured objectives of a run, by name. A value that is unknown is left out.

    `missing` counts these answers, with the first reason. An objective that has no value on the
    first answers of a run is an error.
    """

    usage: Mapping[str, Callable[[Reply], float]] = field(default_factory=dict)
    metrics: Mapping[str, Grader] = field(default_factory=dict)
    missing: dict[str, Missing] = field(default_factory=dict, compare=False)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Say which objectives have no value on some answers."""
        return tuple(
            f"the objective {name} has no value on {one.count} of {one.asked} answers, which do not count in "
            f"it; the first: {one.reason}"
            for name, one in self.missing.items()
            if one.count
        )

    def measure(self, examples: Sequence[Example], replies: Sequence[Reply]) -> list[Values]:
        """Return the values of one reply to each example. A failed call has none.

        An answer that was stored without its secrets has the values of the metrics with it. Raises
        TargetUnreliable where an objective has had no value so far.
        """
        found: list[Values] = [{} for _ in replies]
        given = [i for i, reply in enumerate(replies) if not reply.error]
        for i in given:
            found[i] |= {name: read(replies[i]) for name, read in self.usage.items()}
            if (stored := replies[i].grade) is not None:
                found[i] |= stored.get(VALUES, {})
        new = [i for i in given if replies[i].grade is None]
        for name, grader in self.metrics.items():
            grades = grader.grade([examples[i] for i in new], [replies[i].text for i in new]) if new else []
            for i, grade in zip(new, grades, strict=True):
                if not grade.error:
                    found[i][name] = grade.score
            self._count(name, [grade.error for grade in grades])
        known = [{name: v for name, v in values.items() if math.isfinite(v)} for values in found]
        for name in self.usage:
            self._count(name, ["" if name in known[i] else "the target did not report it" for i in given])
        return known

    def _count(self, name: str, reasons: Sequence[str]) -> None:
        missing = self.missing.setdefault(name, Missing())
        missing.add(reasons)
        if missing.count == missing.asked >= MIN_ASKED:
            raise TargetUnreliable(
                f"the objective {name} has no value on any of {missing.asked} answers; the first: "
                f"{missing.reason}"
            )

    def pack(self, values: Values) -> dict[str, Values]:
        """Return what to store of the values with a grade: those that the metrics have given."""
        found = {name: value for name, value in values.items() if name in self.metrics}
        return {VALUES: found} if found else {}


def average_values(tries: Sequence[Values]) -> Values:
    """Return the mean of each value over the tries; of those that all of them have."""
    names = [name for name in tries[0] if all(name in values for values in tries)]
    return {name: sum(values[name] for values in tries) / len(tries) for name in names}
