"""Records of other optimisers become traces: whatever they call query, answer and feedback.

gepa and DSPy hand over dicts with "Inputs", "Generated Outputs" and "Feedback"; MLflow has inputs,
outputs, expectations and rationales; gepa's optimize_anything lets users choose the keys. What has
no place of its own is feedback. Everything in a record is untrusted, as in every trace.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from remask.ids import content_id
from remask.types import Feedback, Trace

Reader = Callable[[Mapping[str, Any]], Trace]

QUERY = ("inputs", "input", "context", "question", "query", "prompt")
RESPONSE = ("generated outputs", "outputs", "output", "response", "generated output")
DESIRED = ("expectations", "expected", "expected_response", "answer", "label")
SCORE = ("score", "scores", "scores (higher is better)")
_GRADED = re.compile(  # gepa's ContainsAnswerEvaluator (0.1.4) says so where no evaluator is given
    r"The generated response is (?P<how>correct|incorrect)\."
    r".*?the correct answer (?:is )?'(?P<answer>.*?)'(?:\.|$)",
    re.DOTALL | re.IGNORECASE,
)


def read_record(record: Mapping[str, Any]) -> Trace:
    """The trace in a record. Keys are taken case-insensitively; empty values say nothing."""
    left = {str(key): value for key, value in record.items() if value not in (None, "", {}, [])}
    query = _taken(left, QUERY)
    response = _taken(left, RESPONSE)
    desired = _taken(left, DESIRED)
    scores = _taken(left, SCORE, number)
    comments = [as_text(value) if key.lower() == "feedback" else f"{key}: {as_text(value)}"
                for key, value in left.items()]  # fmt: skip
    score = scores[0] if scores else None
    feedback = " ".join(comments)
    if (graded := _GRADED.search(feedback)) and not desired:
        desired, comments = [graded["answer"]], [feedback[graded.end() :].strip()]
        score = float(graded["how"].lower() == "correct") if score is None else score
    return Trace(
        id=content_id("record", query, response, comments),
        query="\n".join(query),
        response="\n".join(response),
        desired="\n".join(desired) if desired else None,
        feedback=tuple(Feedback("comment", text) for text in comments if text),
        score=score,
    )


def as_text(value: Any) -> str:
    """A value as a person would write it: one field alone by its value, several by name."""
    if isinstance(value, Mapping):
        if len(value) == 1:
            return as_text(next(iter(value.values())))
        return "\n".join(f"{key}: {as_text(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return "\n".join(as_text(part) for part in value)
    return str(value)


def number(value: Any) -> float | None:
    """The mean of the numbers in a value; None where it holds none."""
    if isinstance(value, Mapping):
        found = [n for part in value.values() if (n := number(part)) is not None]
        return sum(found) / len(found) if found else None
    return float(value) if isinstance(value, int | float) else None


def _taken(
    left: dict[str, Any], names: tuple[str, ...], read: Callable[[Any], Any] = as_text
) -> list[Any]:
    """The values of these keys, which are then no longer left."""
    keys = [key for name in names for key in left if key.lower() == name]
    values = [read(left.pop(key)) for key in dict.fromkeys(keys)]
    return [value for value in values if value is not None]
