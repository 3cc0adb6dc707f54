"""Parse ratings under common names, and convert their values to scores from 0 to 1.

Other names are declared with a column map (see `tables.py`).
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from remask.data.dialects import decode_json, find_messages
from remask.data.messages import ID_KEYS, SESSION_KEYS, as_text, join_text
from remask.data.trace_record import Kind, Rating
from remask.errors import ConfigError
from remask.sanitize import remove_thoughts

SCORE_KINDS: Final[dict[str, Kind]] = {
    "reward": "reward",
    "score": "unknown", "grade": "unknown", "quality": "unknown", "verdict": "unknown",
    "rating": "human", "stars": "human", "thumbs": "human", "thumbs_up": "human",
    "user_rating": "human", "user_score": "human",
    "correct": "code", "is_correct": "code", "passed": "code", "pass": "code", "success": "code",
}  # fmt: skip

EXPECTED_KEYS = (
    "correction", "corrected", "corrected_response", "expected", "expected_output", "expectedOutput",
    "expected_outputs", "expected_response", "expected_answer", "ideal", "reference_answer",
    "reference_output", "reference_outputs", "reference", "ground_truth", "gold",
)  # fmt: skip
NAMED_SCORES = ("scores", "feedback_scores")  # objects of scores by name, or lists of feedback

COMMENT_KEYS = ("comment", "comments", "feedback_text", "critique", "explanation", "rationale")
NOTE_KEYS = (*COMMENT_KEYS, "text", "reason", "message")  # comments inside a feedback object
KINDS: Final[dict[str, Kind]] = {
    "human": "human", "code": "code", "llm": "llm", "reward": "reward",
}  # fmt: skip

EMPTY: Final[tuple[object, ...]] = (None, "", [], {}, "[]", "{}", "null")  # what an empty field or cell holds
_MISSING: Final = frozenset({"", "nan", "<na>", "nat", "null", "none", "n/a", "#n/a"})  # as tables write it
VALUE_KEYS = ("score", "value", "rating", "label", "thumbs", "thumbs_up", "passed")


def parse_ratings(value: Mapping[str, Any]) -> tuple[tuple[Rating, ...], str | None]:
    """Return the ratings and the right response in the keys of an object."""
    ratings = [
        Rating(name, score, kind)
        for name, kind in SCORE_KINDS.items()
        if name in value
        for score in list_rating_values(value[name])
    ]
    ratings += parse_feedback(value.get("feedback"))
    for key in NAMED_SCORES:
        ratings += _parse_named_scores(decode_json(value.get(key)))
    if type(value.get("label")) is bool:  # KTO data: whether the completion is desirable
        ratings.append(Rating("label", value["label"], "human"))
    comments = (text for k in COMMENT_KEYS if k in value for text in list_comments(value[k]))
    if comment := next(comments, ""):
        ratings.append(Rating("comment", None, comment=comment))
    return tuple(ratings), find_expected(value)


def list_unused(value: Mapping[str, Any], used: Iterable[str]) -> tuple[str, ...]:
    """Return the keys of `value` with content that neither `used` nor `parse_ratings` has read."""
    known = {*used, *SCORE_KINDS, *EXPECTED_KEYS, *COMMENT_KEYS, *NAMED_SCORES, *SESSION_KEYS, *ID_KEYS}
    known |= {"feedback", "expectations", "model"} | (
        {"label"} if type(value.get("label")) is bool else set()
    )
    return tuple(key for key in list_filled(value) if key not in known)


def list_filled(value: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of `value` that have content."""
    return (key for key, held in value.items() if held not in EMPTY)


def list_rating_values(value: object) -> list[float | bool | str]:
    """Return the values in a field or a cell, which may hold a list of them, also as JSON."""
    value = decode_json(value)
    found = map(parse_rating_value, value if isinstance(value, list) else [value])
    return [item for item in found if item is not None]


def list_comments(value: object) -> list[str]:
    """Return the comments in a field or a cell: a text, or a list of texts or of objects."""
    value = decode_json(value)
    if isinstance(value, str):
        return [value] if value else []
    items = value if isinstance(value, list) else []
    texts = (item.get("content", item.get("text")) if isinstance(item, dict) else item for item in items)
    return [text for text in texts if isinstance(text, str) and text]


def _parse_named_scores(value: object) -> Iterator[Rating]:
    if not isinstance(value, dict):
        yield from parse_feedback(value if isinstance(value, list) else None)
        return
    for name, held in value.items():
        if isinstance(held, dict):
            yield from parse_feedback({"name": name, **held})
        else:
            yield from (Rating(name, score) for score in list_rating_values(held))


def find_expected(value: Mapping[str, Any]) -> str | None:
    """Return the right response, or None."""
    found = (_read_expected(value[k]) for k in EXPECTED_KEYS if k in value)
    if text := next(filter(None, found), None):
        return text
    inner = value.get("expectations")  # of MLflow's data sets
    return find_expected(inner) if isinstance(inner, dict) else None


def _read_expected(value: object) -> str:
    if isinstance(value, str) and value[:1] not in ("{", "["):
        return remove_thoughts(value)
    messages = find_messages(decode_json(value), "assistant")
    if messages is None and isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))  # an answer under any name
    texts = map(join_text, [value] if messages is None else [m.get("content") for m in messages])
    return remove_thoughts("\n".join(filter(None, texts)))


def parse_rating_value(value: object) -> float | bool | str | None:
    """Return a bool, a number or a non-empty string; None for anything else, and for "NaN"."""
    if isinstance(value, bool | int | float):
        return value
    text = value.strip() if isinstance(value, str) else ""
    return None if text.casefold() in _MISSING else text


def parse_feedback(value: object) -> Iterator[Rating]:
    """Yield the ratings in a feedback field: a comment, a value, an object, or a list of these."""
    if isinstance(value, list):
        for item in value:
            if not isinstance(item, list):
                yield from parse_feedback(item)
    elif isinstance(value, dict):
        name = next((value[k] for k in ("name", "key") if isinstance(value.get(k), str)), "feedback")
        score = next((parse_rating_value(value[k]) for k in VALUE_KEYS if k in value), None)
        comment = next((value[k] for k in NOTE_KEYS if isinstance(value.get(k), str)), "")
        correction = as_text(next((value[k] for k in EXPECTED_KEYS if value.get(k)), None))
        if score is not None or comment or correction:
            kind = value.get("kind")
            yield Rating(
                name, score, KINDS.get(kind, "unknown") if isinstance(kind, str) else "unknown",
                comment, correction, _parse_scale(value.get("scale")),
            )  # fmt: skip
    elif isinstance(value, str) and len(value.split()) > 1:
        yield Rating("feedback", None, comment=value)
    elif (score := parse_rating_value(value)) is not None:
        yield Rating("feedback", score)


def _parse_scale(value: object) -> tuple[float, float] | None:
    """Parse a scale written as [worst, best]."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    worst, best = (end if type(end) in (int, float) else None for end in value)
    return None if worst is None or best is None or worst == best else (worst, best)


# --- From values to scores
#
# A 1 is the best value of thumbs and the worst of five stars. So a number is used only if its scale
# is known: declared by the user or by the format, or clear from all values with the same name.


Scale = tuple[float, float]  # (worst, best)
UNIT_SCALE: Final = (0.0, 1.0)
SIGNED_SCALE: Final = (-1.0, 1.0)
_GOOD = """good correct right pass passed yes y true up like liked positive accept accepted approve
approved success successful helpful ok great excellent thumbs_up thumbsup match c 👍 ✅"""

_BAD = """bad incorrect wrong fail failed no n false down dislike disliked negative reject rejected
disapproved failure unhelpful poor terrible thumbs_down thumbsdown mismatch noanswer i 👎 ❌"""

_HALF = "partial partially_correct neutral mixed p"  # Inspect writes c, i, p and n
LABEL_SCORES: Final = {
    label: score for labels, score in ((_GOOD, 1.0), (_BAD, 0.0), (_HALF, 0.5)) for label in labels.split()
}

MAX_DISTINCT_VALUES = 12  # distinct values that are kept for each name


@dataclass(slots=True)
class RatingStats:
    """Statistics of all ratings with the same name."""

    count: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    low: float = math.inf
    high: float = -math.inf
    values: set[float] = field(default_factory=set)  # the first MAX_DISTINCT_VALUES
    words: Counter[str] = field(default_factory=Counter)  # the same for labels without a score
    comments: int = 0
    corrections: int = 0
    scale: Scale | None = None  # declared by the format

    def add(self, rating: Rating) -> None:
        self.count += 1
        self.kinds[rating.kind] += 1
        self.comments += bool(rating.comment)
        self.corrections += bool(rating.correction)
        self.scale = self.scale or rating.scale
        value = parse_number(rating.value)
        if value is not None:
            self.low, self.high = min(self.low, value), max(self.high, value)
            if len(self.values) < MAX_DISTINCT_VALUES:
                self.values.add(value)
        elif isinstance(rating.value, str) and score_label(rating.value) is None:
            merge_counts(self.words, {rating.value[:40]: 1}, MAX_DISTINCT_VALUES)

    def merge(self, later: "RatingStats") -> None:
        """Count ratings after these, as if `add` had got them all in order."""
        self.count += later.count
        self.kinds.update(later.kinds)
        self.comments += later.comments
        self.corrections += later.corrections
        self.scale = self.scale or later.scale
        self.low, self.high = min(self.low, later.low), max(self.high, later.high)
        room = MAX_DISTINCT_VALUES - len(self.values)
        self.values |= set(sorted(later.values - self.values)[:room])
        merge_counts(self.words, later.words, MAX_DISTINCT_VALUES)

    def infer_scale(self) -> Scale | None:
        """Return the scale if the numbers make it clear, else None."""
        if not self.values:
            return None
        if UNIT_SCALE[0] <= self.low and self.high <= UNIT_SCALE[1]:
            return UNIT_SCALE
        return SIGNED_SCALE if self.values <= {-1.0, 0.0, 1.0} else None


def merge_counts(counts: Counter[str], later: Mapping[str, int], limit: int) -> None:
    """Add counts; of new names only so many that at most `limit` are known."""
    for name, count in later.items():
        if name in counts or len(counts) < limit:
            counts[name] += count


def parse_scales(pairs: Sequence[str]) -> dict[str, Scale]:
    """Parse `("stars=1..5",)` into {"stars": (1.0, 5.0)}; 5..1 means that lower is better.

    Raises ConfigError.
    """
    scales: dict[str, Scale] = {}
    for pair in (pair.strip() for text in pairs for pair in text.split(",")):
        name, _, ends = pair.rpartition("=")
        try:
            worst, best = (float(end) for end in ends.split(".."))
        except ValueError:
            worst = best = math.nan
        if not name or not math.isfinite(worst - best) or worst == best:
            raise ConfigError(f"--scale {pair!r}: write NAME=WORST..BEST, such as rating=1..5")
        scales[name.strip()] = (worst, best)
    return scales


def require_scales(declared: Mapping[str, Scale], seen: Mapping[str, RatingStats]) -> None:
    """Raise ConfigError where a scale is declared for a rating that no record has."""
    unknown = next((name for name in declared if name not in seen), None)
    if unknown is not None:
        known = f"the ratings are {', '.join(map(repr, seen))}" if seen else "no record has a rating"
        raise ConfigError(f"--scale names {unknown!r}, a rating that no record has; {known}")


def find_scales(seen: Mapping[str, RatingStats], declared: Mapping[str, Scale]) -> dict[str, Scale]:
    """Return the known scales by name: declared, then of the format, then inferred."""
    found = {name: s.scale or s.infer_scale() for name, s in seen.items()}
    return {**{name: scale for name, scale in found.items() if scale}, **declared}


def normalize_score(rating: Rating, scales: Mapping[str, Scale]) -> float | None:
    """Convert a rating to a score from 0 (worst) to 1 (best); None if its scale is unknown."""
    if isinstance(rating.value, bool):
        return float(rating.value)
    value = parse_number(rating.value)
    if value is None:
        return score_label(rating.value) if isinstance(rating.value, str) else None
    scale = scales.get(rating.name, rating.scale)
    if scale is None:
        return None
    worst, best = scale
    place = (value - worst) / (best - worst)
    return place if 0 <= place <= 1 else None


def parse_number(value: object) -> float | None:
    """Return a finite number, also one written as a string; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def score_label(value: str) -> float | None:
    """Return the score of a common label such as "good"; None for other labels."""
    label = value.strip().replace("\ufe0f", "").casefold().replace(" ", "_").replace("-", "_")
    return LABEL_SCORES.get(label)
