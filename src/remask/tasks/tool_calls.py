"""Compare the calls of tools in a response with the right ones.

A target gives calls as text, one a line, after any words: `find(name="Ann", limit=3)`
(`sanitize.format_call`). Calls that a model writes as JSON count too.

Right calls are JSON: `{"name": …, "arguments": {…}}`, a call of OpenAI (`{"function": …}`, arguments
as an object or as text), of Anthropic (`{"type": "tool_use", "name": …, "input": …}`), or a list of
such calls, which are then wanted in that order. A message (`{"tool_calls": […]}`, or `content` with
parts of the type tool_use) wants its calls in any order, since they are made at once. `null`, an empty
list and a message without calls mean that no tool may be called.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remask.sanitize import clip, format_call
from remask.tasks.compare_answers import Comparison, compose, find_difference, find_json

NAME_SHARE = 0.5  # of the score of a call, for the right name; the rest for its arguments
MAX_CALLS = 50  # of a response that are compared
_MAX_SHOWN_CHARS = 80  # of a value in a sentence
_ARGUMENT_KEYS = ("arguments", "input", "args", "parameters")
Pairs = tuple[tuple[int, int], ...]  # positions of right calls and of calls made
_CALLERS = ("assistant", "model", "gpt")  # roles of a message with calls
_OTHER_PARTS = ("text", "thinking", "redacted_thinking", "reasoning", "message")
_CALL = re.compile(r"([\w.:/-]+)\((.*)\)")
_JSON_CALL = re.compile(rf'"(?:{"|".join(_ARGUMENT_KEYS)}|tool_calls)"')
_KEY = re.compile(r"([^=,()\"]+)=")
_COMMA = re.compile(r", *(?=.)")
_FORMS = 'write {"name": …, "arguments": {…}}, a list of such calls, or null for no call'


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool. arguments: None where they are no JSON object."""

    name: str
    arguments: Mapping[str, Any] | None

    def __str__(self) -> str:
        return format_call(self.name, self.arguments or {})


@dataclass(frozen=True, slots=True)
class RightCalls:
    """The right calls of a row; `ordered`: in this order."""

    calls: tuple[Call, ...]
    ordered: bool = False


def compare_calls(expected: str, response: str, names: bool = True) -> Comparison:
    """Return how right the calls of a response are, from 0 to 1, and what is wrong.

    A call with the right name scores half, and the other half by the share of the stated arguments
    that are equal: as JSON values, numbers by value. Arguments beyond the stated ones are ignored.
    The score of a row is the sum over its calls, divided by the number of right calls or of calls made,
    whichever is larger. Where no call is right, a response without calls scores 1.

    names: whether the sentence may name tools and arguments. Raises ValueError if `expected` is none.
    """
    right, made = parse_right_calls(expected), [_compose_call(call) for call in parse_calls(response)]
    right = RightCalls(tuple(map(_compose_call, right.calls)), right.ordered)
    if not right.calls and not made:
        return 1.0, ""
    if not right.calls:
        words = f"{_list_names(made)} {_say_was(made)} called" if names else "a tool was called"
        return 0.0, f"No tool is needed here, but {words}."
    total, pairs = _match(right.calls, made[:MAX_CALLS], right.ordered)
    score = total / max(len(right.calls), len(made))
    if right.ordered and _match(right.calls, made[:MAX_CALLS], ordered=False)[0] > total + 1e-9:
        return score, "The calls are in a wrong order."
    return score, " ".join(_explain(right.calls, made, pairs, names))


def _compose_call(call: Call) -> Call:
    """Return a call in which each letter and its marks are one character."""
    name, arguments = compose([call.name, call.arguments])
    return Call(name, arguments)


def parse_calls(response: str) -> list[Call]:
    """Return the calls in a response, in order."""
    lines = response.split("\n")  # not splitlines: JSON texts may hold other line separators
    found = [call for line in lines if (call := _parse_line(line.strip())) is not None]
    if found or not _JSON_CALL.search(response):
        return found
    for value in find_json(response):
        try:
            found += _read_calls(value).calls
        except ValueError:
            continue
    return found


def parse_right_calls(text: str) -> RightCalls:
    """Return the right calls of a row. Raises ValueError with a sentence where there are none."""
    if not text.strip():
        return RightCalls(())
    lines = [line for line in text.split("\n") if line.strip()]
    written = [_parse_line(line.strip()) for line in lines]
    if all(call is not None and call.arguments is not None for call in written):
        return RightCalls(tuple(call for call in written if call is not None))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"the right call {clip(text, 60)!r} is no JSON; {_FORMS}") from None
    return _read_calls(value)


def format_right_calls(text: str) -> str:
    """Return right calls as a target would give them, one a line; "" for no call."""
    return "\n".join(map(str, parse_right_calls(text).calls))


def normalise_right_calls(text: str) -> str:
    """Return right calls as JSON of one form. Raises ValueError as `parse_right_calls`."""
    right = parse_right_calls(text)
    calls = [{"name": call.name, "arguments": call.arguments} for call in right.calls]
    value = None if not calls else calls if right.ordered else {"tool_calls": calls}
    return json.dumps(value, ensure_ascii=False)


def _parse_line(line: str) -> Call | None:
    """Parse a call that stands alone on a line, as `format_call` writes it."""
    match = _CALL.fullmatch(line)
    if match is None:
        return None
    name, rest = match[1], match[2]
    if rest.startswith("{"):  # what the model gave is no JSON
        return Call(name, None)
    decoder, arguments, at = json.JSONDecoder(), {}, 0
    while at < len(rest):
        key = _KEY.match(rest, at)
        try:
            arguments[key[1] if key else ""], at = decoder.raw_decode(rest, key.end() if key else len(rest))
        except (ValueError, RecursionError):
            return None
        comma = _COMMA.match(rest, at)
        if at < len(rest) and comma is None:
            return None
        at = comma.end() if comma else at
    return Call(name, arguments)


def _read_calls(value: Any) -> RightCalls:
    """Read the calls of a JSON value. Raises ValueError where it is none of the forms."""
    if value is None or isinstance(value, list):
        return RightCalls(tuple(_list_calls(value or [])), ordered=True)
    if not isinstance(value, dict):
        raise ValueError(f"the right call {clip(json.dumps(value), 60)} is no call of a tool; {_FORMS}")
    if value.get("from") == "function_call" and isinstance(value.get("value"), str):  # ShareGPT
        return _read_calls(_load(value["value"]))
    if value.get("role", value.get("from")) in _CALLERS or "tool_calls" in value:
        parts = value.get("content")
        given = value.get("tool_calls") or []
        called = [*(given if isinstance(given, list) else [given])]
        called += filter(None, [value.get("function_call")])
        called += [part for part in parts if _is_call(part)] if isinstance(parts, list) else []
        return RightCalls(tuple(_list_calls(called)))
    return RightCalls((_read_call(value),))


def _list_calls(items: Sequence[Any]) -> Iterator[Call]:
    for item in items:
        if not isinstance(item, dict) or item.get("type") not in _OTHER_PARTS:
            yield _read_call(item)


def _is_call(part: Any) -> bool:
    return isinstance(part, dict) and "name" in part


def _read_call(value: Any) -> Call:
    inner = value.get("function") if isinstance(value, dict) else None
    said = inner if isinstance(inner, dict) else value
    if not isinstance(said, dict) or not isinstance(said.get("name"), str) or not said["name"].strip():
        shown = clip(json.dumps(value, ensure_ascii=False), 60)
        raise ValueError(f"the right call {shown} has no name of a tool; {_FORMS}")
    given = next((said[key] for key in _ARGUMENT_KEYS if key in said), None)
    arguments = _load(given or "{}") if isinstance(given, str) else {} if given in (None, []) else given
    if not isinstance(arguments, dict):
        shown = clip(json.dumps(arguments, ensure_ascii=False), 60)
        raise ValueError(f"the arguments {shown} of the right call {said['name']} are no object; {_FORMS}")
    return Call(said["name"], arguments)


def _load(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(
            f"the arguments {clip(text, 60)!r} of the right call are no JSON; fix them"
        ) from None


# --- comparing


def _score(right: Call, made: Call) -> float:
    if right.name != made.name or made.arguments is None:
        return NAME_SHARE * (right.name == made.name)
    wrong = len(_find_wrong(right, made)) / len(right.arguments or [0])
    return NAME_SHARE + (1 - NAME_SHARE) * (1 - wrong)


def _find_wrong(right: Call, made: Call) -> list[str]:
    """Return the stated arguments that a call lacks or has with another value."""
    given = made.arguments or {}
    return [
        key
        for key, value in (right.arguments or {}).items()
        if key not in given or find_difference(value, given[key], "$")
    ]


def _match(right: Sequence[Call], made: Sequence[Call], ordered: bool) -> tuple[float, Pairs]:
    """Pair right calls and calls made so that the sum of their scores is largest. Returns it too."""
    scores = [[_score(one, other) for other in made] for one in right]
    if not ordered and made:
        from scipy.optimize import linear_sum_assignment

        pairs = list(zip(*map(list, linear_sum_assignment(scores, maximize=True)), strict=True))
        kept = tuple((int(i), int(j)) for i, j in pairs if scores[i][j] > 0)
        return sum(scores[i][j] for i, j in kept), kept

    # best[i][j]: the largest sum of the right calls from i on and the calls made from j on.
    best = [[0.0] * (len(made) + 1) for _ in range(len(right) + 1)]
    for i in reversed(range(len(right))):
        for j in reversed(range(len(made))):
            both = best[i + 1][j + 1] + scores[i][j]
            best[i][j] = max(both, best[i + 1][j], best[i][j + 1])
    i = j = 0
    paired = []
    while i < len(right) and j < len(made):
        if scores[i][j] and best[i][j] == best[i + 1][j + 1] + scores[i][j]:
            paired.append((i, j))
            i, j = i + 1, j + 1
        elif best[i + 1][j] >= best[i][j + 1]:
            i += 1
        else:
            j += 1
    return best[0][0], tuple(paired)


def _explain(right: Sequence[Call], made: Sequence[Call], pairs: Pairs, names: bool) -> Iterator[str]:
    """Yield sentences about what is wrong with calls that were paired."""
    for i, j in pairs:
        one, other = right[i], made[j]
        owner = f" of {one.name}" if names else ""
        if other.arguments is None:
            yield f"The arguments{owner} are no JSON."
            continue
        for key in _find_wrong(one, other):
            if key not in other.arguments:
                yield f"The argument {key}{owner} is missing." if names else "An argument is missing."
            else:
                value = clip(json.dumps(other.arguments[key], ensure_ascii=False), _MAX_SHOWN_CHARS)
                yield f"The argument {key}{owner} must not be {value}." if names else "An argument is wrong."
    missing = [call for i, call in enumerate(right) if i not in {i for i, _ in pairs}]
    spare = [call for j, call in enumerate(made) if j not in {j for _, j in pairs}]
    if missing and spare:
        yield (
            f"{_list_names(spare)} {_say_was(spare)} called in place of {_list_names(missing)}."
            if names
            else "Another tool is the right one."
        )
    elif missing:
        yield f"{_list_names(missing)} {_say_was(missing)} not called." if names else "A tool was not called."
    elif spare:
        again = {call.name for call in spare} <= {call.name for call in right}
        words = "too often" if again else "too"
        yield (
            f"{_list_names(spare)} {_say_was(spare)} called {words}."
            if names
            else "A tool was called too often."
        )


def _list_names(calls: Sequence[Call]) -> str:
    *names, last = dict.fromkeys(call.name for call in calls[:MAX_CALLS])
    return f"{', '.join(names)} and {last}" if names else last


def _say_was(calls: Sequence[Call]) -> str:
    return "were" if len({call.name for call in calls[:MAX_CALLS]}) > 1 else "was"
