"""Convert records of other optimisers to traces.

gepa and DSPy pass dicts with "Inputs", "Generated Outputs" and "Feedback". MLflow passes inputs,
outputs, expectations and rationales. With optimize_anything of gepa, users choose the keys. Unknown
keys become feedback. Everything in a record is untrusted, as in every trace.
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
# The feedback of ContainsAnswerEvaluator, the default evaluator of gepa 0.1.4.
_GRADE_SENTENCE = re.compile(
    r"The generated response is (?P<how>correct|incorrect)\."
    r".*?the correct answer (?:is )?'(?P<answer>.*?)'(?:\.|$)",
    re.DOTALL | re.IGNORECASE,
)


def read_record(record: Mapping[str, Any]) -> Trace:
    """Convert a record to a trace. Ignores the case of keys, and empty values."""
    left = {str(key): value for key, value in record.items() if value not in (None, "", {}, [])}
    query = _take(left, QUERY)
    response = _take(left, RESPONSE)
    desired = _take(left, DESIRED)
    scores = _take(left, SCORE, mean_number)
    comments = [to_text(value) if key.lower() == "feedback" else f"{key}: {to_text(value)}"
                for key, value in left.items()]  # fmt: skip
    score = scores[0] if scores else None
    feedback = " ".join(comments)
    if (graded := _GRADE_SENTENCE.search(feedback)) and not desired:
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


def to_text(value: Any) -> str:
    """Write a value as text: a single field as its value, several fields with their names."""
    if isinstance(value, Mapping):
        if len(value) == 1:
            return to_text(next(iter(value.values())))
        return "\n".join(f"{key}: {to_text(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return "\n".join(to_text(part) for part in value)
    return str(value)


def mean_number(value: Any) -> float | None:
    """Return the mean of the numbers in a value; None where it has none."""
    if isinstance(value, Mapping):
        found = [n for part in value.values() if (n := mean_number(part)) is not None]
        return sum(found) / len(found) if found else None
    return float(value) if isinstance(value, int | float) else None


def _take(left: dict[str, Any], names: tuple[str, ...], read: Callable[[Any], Any] = to_text) -> list[Any]:
    """Remove the keys `names` from `left` and return their values."""
    keys = [key for name in names for key in left if key.lower() == name]
    values = [read(left.pop(key)) for key in dict.fromkeys(keys)]
    return [value for value in values if value is not None]
