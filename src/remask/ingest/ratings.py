"""Feedback that stands beside a conversation under a plain name, as home-made logs write it.

A table of the usual names; what is called otherwise is named by a column map (`table`). Scores
stay on the scale they have: what is good and what is bad is decided by `scales`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from remask.ingest.messages import as_text, text_of
from remask.ingest.record import Kind, Rating

SCORES: Final[dict[str, Kind]] = {
    "reward": "reward",
    "score": "unknown", "grade": "unknown", "quality": "unknown", "verdict": "unknown",
    "rating": "human", "stars": "human", "thumbs": "human", "thumbs_up": "human",
    "user_rating": "human", "user_score": "human",
    "correct": "code", "is_correct": "code", "passed": "code", "pass": "code", "success": "code",
}  # fmt: skip
RIGHT = (
    "correction", "corrected", "corrected_response", "expected", "expected_output",
    "expected_response", "ideal", "reference_answer", "reference", "ground_truth", "gold",
)  # fmt: skip
COMMENTS = ("comment", "comments", "feedback_text", "critique", "explanation", "rationale")
NOTES = (*COMMENTS, "text", "reason", "message")  # inside an object that is feedback
KINDS: Final[dict[str, Kind]] = {
    "human": "human", "code": "code", "llm": "llm", "reward": "reward",
}  # fmt: skip
VALUES = ("score", "value", "rating", "label", "thumbs", "thumbs_up", "passed")


def ratings_of(value: Mapping[str, Any]) -> tuple[tuple[Rating, ...], str | None]:
    """Ratings and the right response among the keys of an object."""
    ratings = [
        Rating(name, score, kind)
        for name, kind in SCORES.items()
        if name in value and (score := plain(value[name])) is not None
    ]
    ratings += feedback(value.get("feedback"))
    if type(value.get("label")) is bool:  # beside a prompt and a completion, as KTO has it
        ratings.append(Rating("label", value["label"], "human"))
    comment = next((value[k] for k in COMMENTS if isinstance(value.get(k), str)), "")
    if comment:
        ratings.append(Rating("comment", None, comment=comment))
    return tuple(ratings), right(value)


def right(value: Mapping[str, Any]) -> str | None:
    """The right response, where a key says it."""
    return next((text for k in RIGHT if k in value and (text := text_of(value[k]))), None)


def plain(value: object) -> float | bool | str | None:
    """A value that a rating can have; None for anything else."""
    if isinstance(value, bool | int | float):
        return value
    return value.strip() or None if isinstance(value, str) else None


def feedback(value: object) -> Iterator[Rating]:
    """Ratings in what is called feedback: words, a value, an object, or a list of these."""
    if isinstance(value, list):
        for item in value:
            if not isinstance(item, list):
                yield from feedback(item)
    elif isinstance(value, dict):
        name = next(
            (value[k] for k in ("name", "key") if isinstance(value.get(k), str)), "feedback"
        )
        score = next((plain(value[k]) for k in VALUES if k in value), None)
        comment = next((value[k] for k in NOTES if isinstance(value.get(k), str)), "")
        correction = as_text(next((value[k] for k in RIGHT if value.get(k)), None))
        if score is not None or comment or correction:
            kind = value.get("kind")
            yield Rating(
                name, score, KINDS.get(kind, "unknown") if isinstance(kind, str) else "unknown",
                comment, correction, _scale(value.get("scale")),
            )  # fmt: skip
    elif isinstance(value, str) and len(value.split()) > 1:
        yield Rating("feedback", None, comment=value)
    elif (score := plain(value)) is not None:
        yield Rating("feedback", score)


def _scale(value: object) -> tuple[float, float] | None:
    """A scale as [worst, best]."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    worst, best = (end if type(end) in (int, float) else None for end in value)
    return None if worst is None or best is None or worst == best else (worst, best)
