"""Compare answers that are JSON, a number or a list of labels with the right ones.

Each function returns a score from 0 to 1 and a sentence that says what is wrong, "" if nothing is.
"""

import ast
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from remask.sanitize import normalise

Comparison = tuple[float, str]

# A number with separators of thousands, a decimal part and an exponent, or a fraction.
_NUMBER = re.compile(r"[-+]?(?:\d[\d.,']*|[.,]\d+)(?:[eE][-+]?\d{1,3})?(?:\s?/\s?\d+(?![\d.,]))?")
_FRACTION = re.compile(r"(\d{1,15})?\s?([¼-¾⅐-⅞])")  # 7½
# What comes before the final answer, as data sets of mathematics and models write it.
_FINAL = re.compile(r"(?i)####|\\boxed\{|(?:answer|result|total|antwort|respuesta|réponse|答案)\W{0,9}")
# A final number directly behind such a mark, before any others of the line.
_DIRECT = re.compile(r"(?i)\W{0,9}(?:is|ist|es|est)?\W{0,9}\d")
_FENCE = re.compile(r"```(?:json)?\s*\n?(.*?)```", re.DOTALL | re.IGNORECASE)
MAX_STARTS = 200  # places of a response at which JSON is looked for
TOLERANCE = 1e-6  # relative difference of equal numbers; whole numbers must be equal
_EXACT = 2**53  # whole numbers below it are exact as floats


def compare_json(expected: str, response: str) -> Comparison:
    """Return 1 where the JSON in the response equals the expected JSON, else 0.

    The order of keys and the notation of numbers do not matter. JSON may stand in a code fence or
    within other text. Raises ValueError if the expected answer is no JSON.
    """
    right = _load(expected)
    found = list(find_json(response))
    if not found:
        return 0.0, "The answer holds no JSON."
    difference = min((find_difference(right, value, "$") for value in found), key=bool)
    return float(not difference), difference


def find_json(text: str) -> Iterator[Any]:
    """Yield the whole text, else the code fences, else the largest values within the text."""
    for candidates in ([text], _FENCE.findall(text)):
        values = [value for candidate in candidates for value in _decode(candidate)]
        if values:
            yield from values
            return
    at, starts = 0, 0
    decoder = json.JSONDecoder()
    while (match := re.compile(r"[\[{]").search(text, at)) and starts < MAX_STARTS:
        starts += 1
        try:
            value, at = decoder.raw_decode(text, match.start())
            yield compose(value)
        except (ValueError, RecursionError):
            at = match.end()


def _decode(text: str) -> list[Any]:
    try:
        return [_load(text)]
    except (ValueError, RecursionError):
        return []


def _load(text: str) -> Any:
    return compose(json.loads(text))


def compose(value: Any) -> Any:
    """Return a JSON value in which each letter and its marks are one character, in keys too."""
    return json.loads(unicodedata.normalize("NFC", json.dumps(value, ensure_ascii=False)))


def find_difference(right: Any, found: Any, path: str) -> str:
    """Return a sentence about the first difference; "" if the values are equal."""
    if isinstance(right, dict) and isinstance(found, dict):
        for key in right:
            if key not in found:
                return f"At {path} the key {key!r} is missing."
            if words := find_difference(right[key], found[key], f"{path}.{key}"):
                return words
        more = [key for key in found if key not in right]
        return f"At {path} the key {more[0]!r} is not wanted." if more else ""
    if isinstance(right, list) and isinstance(found, list):
        if len(right) != len(found):
            return f"At {path} there are {len(found)} items in place of {len(right)}."
        pairs = zip(right, found, strict=True)
        found_words = (find_difference(r, f, f"{path}[{i}]") for i, (r, f) in enumerate(pairs))
        return next(filter(None, found_words), "")
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (right, found))
    if numbers or type(right) is type(found):
        equal = _are_close(right, found) if numbers else right == found
        if equal:
            return ""
    return f"At {path} the answer has {json.dumps(found, ensure_ascii=False)[:80]}."


def compare_numbers(expected: str, response: str) -> Comparison:
    """Return 1 where the final number of the response equals the expected one, else 0.

    The final number is the last one behind a mark such as "####", "\\boxed{" or "answer", else the
    last one. Raises ValueError if the expected answer holds no number.
    """
    right, found = find_number(expected), find_number(response)
    if right is None:
        raise ValueError(f"the right answer {expected[:40]!r} holds no number")
    if found is None:
        return 0.0, "The answer holds no number."
    return (1.0, "") if _are_close(right, found) else (0.0, f"The answer says {found:.15g}.")


def find_number(text: str) -> float | None:
    """Return the final number of a text, or None."""
    text = re.sub(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3})", "", text)  # spaces between thousands
    text = _join_spaced_thousands(text)
    text = normalise(text).replace("\u2212", "-").replace("\u2044", "/")
    text = _FRACTION.sub(lambda m: repr(float(m[1] or 0) + unicodedata.numeric(m[2])), text)
    for mark in reversed(list(_FINAL.finditer(text))):
        line = text[mark.end() :].partition("\n")[0]
        if numbers := _list_numbers(line):
            first = mark[0].startswith(("#", "\\")) or (_DIRECT.match(line) and "=" not in line)
            return numbers[0] if first else numbers[-1]
    numbers = _list_numbers(text)
    return numbers[-1] if numbers else None


def _join_spaced_thousands(text: str) -> str:
    """Remove ordinary spaces between thousands: of 1 000 000, and of 12 500 if it is the only number."""
    text = re.sub(r"(?<![\d.,])[1-9]\d{0,2}(?: \d{3}){2,}(?!\d)", lambda m: m[0].replace(" ", ""), text)
    alone = re.fullmatch(r"(\D*[1-9]\d{0,2}) (\d{3}(?:[.,]\d*)?\D*)", text)
    return alone[1] + alone[2] if alone else text


def _list_numbers(text: str) -> list[float]:
    return [value for match in _NUMBER.finditer(text) if (value := _parse_number(match[0])) is not None]


def _parse_number(text: str) -> float | None:
    top, _, bottom = re.sub(r"['\s]", "", text).rstrip(".,").partition("/")
    try:
        value = float(_remove_thousands(top))
        value = value / float(bottom) if bottom else value
    except (ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) else None


def _remove_thousands(text: str) -> str:
    """Return a number with a point as its decimal mark: 1,234.5 and 1.234,5 become 1234.5."""
    comma, point = text.rfind(","), text.rfind(".")
    if comma >= 0 and point >= 0:
        thousands, decimal = (",", ".") if point > comma else (".", ",")
        return text.replace(thousands, "").replace(decimal, ".")
    if comma >= 0:
        grouped = re.fullmatch(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:[eE].*)?", text)
        return text.replace(",", "") if grouped or text.count(",") > 1 else text.replace(",", ".")
    return text.replace(".", "") if text.count(".") > 1 else text


def _are_close(one: float, other: float) -> bool:
    if all(isinstance(value, int) or (value.is_integer() and abs(value) < _EXACT) for value in (one, other)):
        return one == other  # numbers of orders, years
    try:
        return one == other or math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-12)
    except OverflowError:  # an integer beyond all floats
        return False


def parse_list(text: str) -> tuple[str, ...] | None:
    """Return the labels of a right answer that is a list, written as JSON or as Python does; else None."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
    if not isinstance(found, list) or not all(isinstance(item, str | int | float) for item in found):
        return None
    return tuple(dict.fromkeys(str(item).strip() for item in found))


def collect_labels(answers: Iterable[str | None]) -> tuple[str, ...]:
    """Return the labels of all right answers that are lists, sorted."""
    return tuple(sorted({label for text in answers if text for label in parse_list(text) or ()}))


def compare_labels(right: Sequence[str], response: str, allowed: Sequence[str]) -> Comparison:
    """Return the F1 score of the labels: 2 × right ones found / (right ones + found ones).

    Both empty scores 1. The labels of a response are those in its JSON list, else the allowed labels
    that occur in it as whole words.
    """
    wanted = {_normalise(label): label for label in right}
    found = {_normalise(label): label for label in _find_labels(response, allowed)}
    shared = wanted.keys() & found.keys()
    score = 2 * len(shared) / (len(wanted) + len(found)) if wanted or found else 1.0
    missing = ", ".join(wanted[key] for key in sorted(wanted.keys() - shared))
    wrong = ", ".join(found[key] for key in sorted(found.keys() - shared))
    parts = (f"Missing: {missing}." if missing else "", f"Wrong: {wrong}." if wrong else "")
    return score, " ".join(filter(None, parts))


def _find_labels(response: str, allowed: Sequence[str]) -> list[str]:
    for value in find_json(response):
        inner = next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else value
        if isinstance(inner, list) and all(isinstance(item, str | int | float) for item in inner):
            return [str(item) for item in inner]
    if not allowed:
        return []
    known = {_normalise(label): label for label in allowed}
    longest_first = sorted(known, key=lambda label: (-len(label), label))
    pattern = "|".join(re.escape(label).replace("\\ ", r"[\s_\-]+") for label in longest_first)
    text = " ".join(normalise(response).casefold().split())
    return [known[_normalise(match[0])] for match in re.finditer(rf"(?<!\w)(?:{pattern})(?!\w)", text)]


def _normalise(label: str) -> str:
    text = normalise(label).casefold()
    return " ".join(text.replace("_", " ").replace("-", " ").split())
