"""Read the score and the reason from the reply of a judge."""

import re
from typing import Any

from remask.data.messages import as_text
from remask.sanitize import normalise, remove_thoughts
from remask.tasks.parse_label import find_objects
from remask.types import Score

MAX_REASON_CHARS = 400

_VULGAR = {"½": 0.5, "¼": 0.25, "¾": 0.75, "⅓": 1 / 3, "⅔": 2 / 3}
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER = (
    r"(?P<number>-?\d+(?:[.,]\d+)?(?:[½¼¾⅓⅔])?|[½¼¾⅓⅔])(?!\.?\d)"
    r"(?:\s{0,3}(?:/|out of|of|von|sur|de|分?中)\s{0,3}(?P<maximum>\d+(?:[.,]\d+)?)|\s?(?P<percent>%))?"
)
_ANY = rf"(?:{_NUMBER}|(?P<word>{'|'.join(_WORDS)})\b)"
# What judges call the score, in the languages that they answer in.
_NAMES = (
    "score|rating|punktzahl|puntuación|puntuacion|calificación|pontuação|punteggio|оценка|балл(?:ы|ов)?|ocena"
    "|得分|分数|分數|评分|評分|打分|スコア|点数|評価|점수|평점|puan|स्कोर|अंक|الدرجة|النتيجة|التقييم"
)
_OTHER_NAMES = "grade|points?|punkte|bewertung|note|nota|cijfer|verdict"  # which also mean other things


def _name(names: str) -> re.Pattern[str]:
    between = r"(?:[\s\"'*_:=|>\[(–—]|-\s)"
    verb = r"(?:\s(?:for|of)\s[^.:\d\n]{1,60}?)?\s{1,3}(?:is|ist|es|est|è)"
    return re.compile(
        rf"(?:{names})(?:\s?\([^()\n]{{0,40}}\))?"
        rf"(?:[はが是为은는이가]{between}{{0,12}}|(?:{verb})?{between}{{1,12}})(?:\$?\\+boxed\{{|\$)?{_ANY}",
        re.IGNORECASE,
    )


_NAMED, _ALSO_NAMED = _name(_NAMES), _name(_OTHER_NAMES)
# A number of the scale, and not of the response: "the maximum score is 10".
_OF_SCALE = re.compile(
    r"\b(?:max(?:imum|imal)?|highest|perfect|full|best|top|possible|lowest|min(?:imum)?)\W{1,3}\Z",
    re.IGNORECASE,
)
# "8 out of 10" and "8/10" in prose; whether 10 is the best score is checked.
_OF_MAXIMUM = re.compile(
    r"(?<![\w.,/-])(?P<number>-?\d+(?:[.,]\d+)?)(?:\s{0,3}(?:/|out of)\s{0,3})(?P<maximum>\d+)(?![\w/])"
    r"(?P<percent>)(?P<word>)",
    re.IGNORECASE,
)
_GIVEN = re.compile(
    r"\b(?:give|gave|giving|award|assign|rate|rated|score|scored|grade|graded|deserves|merits|earns)\b[^.\n]{0,60}?"
    rf"(?:\b(?:an?|of|as|at|with)\s|[:*\"]){{1,2}}[*_\"]{{0,2}}{_ANY}",
    re.IGNORECASE,
)
_ALONE = re.compile(
    rf"^[^\w\n½¼¾⅓⅔-]{{0,12}}(?:boxed\{{)?{_ANY}\s?[点分]?[^\w\n]{{0,12}}$", re.IGNORECASE | re.MULTILINE
)
_REASON = re.compile(
    r"(?:reason\w*|begründung|raison|razón|motivo|理由|原因|이유)[\"'*_\s]{0,6}[:=][\"'*_ \t]{0,6}([^\n]+)",
    re.IGNORECASE,
)
_STARS = re.compile(r"(★{1,10})(☆{0,10})")
_SCORE_KEYS = (
    "score",
    "rating",
    "grade",
    "points",
    "punktzahl",
    "得分",
    "分数",
    "评分",
    "スコア",
    "점수",
    "value",
)
_REASON_KEYS = ("reason", "reasoning", "explanation", "rationale", "feedback", "comment", "理由")


def parse_verdict(text: str, low: float, high: float) -> Score | None:
    """Parse the reply of a judge: the score, scaled to 0..1, and its reason; None without a score.

    Reads the last JSON object with a score, else the last "Score: 7" (also "7/10", "70 %",
    "**Score:** 7.5", full-width marks, "rating is 7"), else the last "8 out of 10" or "I give it an
    8", else the last line that is only a number. Thoughts do not count. A score outside of the
    scale is none.
    """
    found = find_score(text, low, high)
    if found is None:
        return None
    number, reason = found
    return Score((number - low) / (high - low), " ".join(reason.split())[:MAX_REASON_CHARS])


def find_score(text: str, low: float, high: float) -> tuple[float, str] | None:
    """Return the score on the scale of the judge, and the reason; None where there is none."""
    text = normalise(remove_thoughts(text))
    for found in reversed(list(find_objects(text))):
        if verdict := _read_object(found, low, high):
            score, reason = verdict
            return None if score is None else (score, reason)
    for form in (_NAMED, _ALSO_NAMED, _OF_MAXIMUM, _GIVEN, _ALONE):
        found = form.finditer(text)
        if matches := [m for m in found if not _OF_SCALE.search(text, max(0, m.start() - 20), m.start())]:
            last = matches[-1]
            number = _read_number(last, low, high)
            if number is None:
                return None
            named = _REASON.search(text)
            return number, named[1] if named else text[: last.start()] + text[last.end() :]
    if (stars := _STARS.search(text)) and stars[2]:
        share = len(stars[1]) / len(stars[0])
        return low + share * (high - low), text.replace(stars[0], "")
    return None


def _read_number(match: re.Match[str], low: float, high: float) -> float | None:
    """Return the number of a match, where it is on the scale."""
    if match["word"]:
        number = float(_WORDS.index(match["word"].lower()))
    else:
        written = match["number"]
        number = _VULGAR.get(written[-1], 0.0)
        whole = written.rstrip("".join(_VULGAR))
        number = float(whole.replace(",", ".") or 0) + number
    if match["percent"]:
        number = low + number / 100 * (high - low)
    maximum = match["maximum"]
    if maximum and float(maximum.replace(",", ".")) != high:
        return None
    return number if low <= number <= high else None


def _read_object(found: dict[str, Any], low: float, high: float) -> tuple[float | None, str] | None:
    """Return score and reason of a JSON object; None where it has no score."""
    values = {key.casefold(): value for key, value in found.items()}
    score = next((values[key] for key in _SCORE_KEYS if key in values), None)
    reason = as_text(next((values[key] for key in _REASON_KEYS if key in values), None))
    if isinstance(score, dict):
        score = next((score[key] for key in _SCORE_KEYS if key in score), None)
    if isinstance(score, str):
        match = re.fullmatch(rf"\s*{_ANY}\s*", score, re.IGNORECASE)
        return (_read_number(match, low, high), reason) if match else None
    if isinstance(score, bool) or not isinstance(score, int | float):
        return None
    return (float(score) if low <= score <= high else None), reason
