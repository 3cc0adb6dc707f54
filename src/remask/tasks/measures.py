"""What is measured of an answer beside its score: tokens, dollars, seconds, further metrics."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from remask.ports import Reply
from remask.tasks.metrics import Grader
from remask.types import Example

Values = dict[str, float]  # by objective
VALUES = "values"  # key of the values in a grade that is stored with its answer


@dataclass(frozen=True, slots=True)
class Measures:
    """The measured objectives of a run, by name. A value that is unknown is left out."""

    usage: Mapping[str, Callable[[Reply], float]] = field(default_factory=dict)
    metrics: Mapping[str, Grader] = field(default_factory=dict)

    def measure(self, examples: Sequence[Example], replies: Sequence[Reply]) -> list[Values]:
        """Return the values of one reply to each example. A failed call has none.

        An answer that was stored without its secrets has the values of the metrics with it.
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
        return [{name: v for name, v in values.items() if math.isfinite(v)} for values in found]

    def pack(self, values: Values) -> dict[str, Values]:
        """Return what to store of the values with a grade: those that the metrics have given."""
        found = {name: value for name, value in values.items() if name in self.metrics}
        return {VALUES: found} if found else {}


def average_values(tries: Sequence[Values]) -> Values:
    """Return the mean of each value over the tries; of those that all of them have."""
    names = [name for name in tries[0] if all(name in values for values in tries)]
    return {name: sum(values[name] for values in tries) / len(tries) for name in names}
