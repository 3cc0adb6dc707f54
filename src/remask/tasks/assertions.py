"""Plain assertions on a response, as promptfoo's configurations state them.

Each is a row of a table: a kind, what it compares with, and a function. Their meaning is that of
promptfoo's own handlers (src/assertions; 0.121.20, 2026), case and white space included. Whatever
runs code or asks a model has no row. Knows nothing of files.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remask.types import Example, Score

Check = Callable[[Any, str], bool]  # (value, response)


@dataclass(frozen=True, slots=True)
class Assertion:
    """One demand. `value` is a text, a list of texts, or for `equals` any JSON value."""

    kind: str  # a key of KINDS
    value: Any
    negated: bool = False
    weight: float = 1.0

    def holds(self, response: str) -> bool:
        return KINDS[self.kind](self.value, response) != self.negated

    @property
    def name(self) -> str:
        return f"not-{self.kind}" if self.negated else self.kind

    @property
    def stated(self) -> dict[str, Any]:
        """As promptfoo reads it, but for templates in its value."""
        value = {} if self.value is None else {"value": self.value}
        weight = {} if self.weight == 1 else {"weight": self.weight}
        return {"type": self.name, **value, **weight}

    @property
    def complaint(self) -> str:
        """What is wrong with a response that fails, in words."""
        verb = "must not" if self.negated else "must"
        shown = "" if self.value is None else f" {json.dumps(self.value, ensure_ascii=False)}"
        return f"the response {verb} {_VERBS[self.kind]}{shown}"


@dataclass(frozen=True, slots=True)
class Demands:
    """All that a test asks of a response."""

    assertions: tuple[Assertion, ...]
    threshold: float | None = None  # the weighted share that must hold; None: all

    def grade(self, response: str) -> Score:
        """1 where promptfoo lets the test pass, else 0, with what failed as feedback. What has the
        weight 0 always passes there."""
        failed = [a for a in self.assertions if a.weight and not a.holds(response)]
        total = sum(a.weight for a in self.assertions)
        share = 1 - sum(a.weight for a in failed) / total if total else 1.0
        passed = not failed if self.threshold is None else share >= self.threshold - 1e-12
        words = "" if passed else "; ".join(a.complaint for a in failed)
        return Score(float(passed), words)

    @property
    def stated(self) -> dict[str, Any]:
        """The part of promptfoo's test that grades, but for templates in its values."""
        share = {} if self.threshold is None else {"threshold": self.threshold}
        return {"assert": [a.stated for a in self.assertions], **share}

    @property
    def desired(self) -> str | None:
        """The right response, where one assertion states it."""
        for kinds in (("equals",), ("contains", "icontains")):
            said = [a.value for a in self.assertions if a.kind in kinds and not a.negated]
            if len(said) == 1 and isinstance(said[0], str):
                return said[0]
        return None


@dataclass(frozen=True, slots=True)
class Suite:
    """Implements ports.Metric: each example by the demands of its test."""

    demands: Mapping[str, Demands]  # by the example's id

    def __call__(self, example: Example, response: str) -> Score:
        return self.demands[example.id].grade(response)


def as_python(source: str) -> str:
    """A regular expression of JavaScript (no flags) in Python's spelling, for re.ASCII.

    Raises re.error where Python has nothing that means the same.
    """
    out: list[str] = []
    inside = False  # a class of characters
    at = 0
    while at < len(source):
        two = source[at : at + 2]
        if two[0] == "\\":
            if two[1:] in ("Z", "A", "p", "P"):
                raise re.error(f"{two} means something else in Python")
            if two == "\\k":
                name = re.compile(r"\\k<(\w+)>").match(source, at)
                if name is None:
                    raise re.error("\\k without a name")
                out.append(f"(?P={name[1]})")
                at = name.end()
                continue
            out.append("/" if two == "\\/" else two)
            at += 2
            continue
        if inside:
            inside = two[0] != "]"
            out.append("\\[" if two[0] == "[" else two[0])
        elif two[0] == "[":
            inside = True
            out.append("[")
        elif two[0] == "$":
            out.append(r"\Z")  # Python's $ also stands before a line end at the end
        elif re.compile(r"\(\?<(?![=!])").match(source, at):
            out.append("(?P<")
            at += 3
            continue
        else:
            out.append(two[0])
        at += 1
    result = "".join(out)
    re.compile(result, re.ASCII)
    return result


def _contains(value: Any, response: str) -> bool:
    return str(value) in response


def _icontains(value: Any, response: str) -> bool:
    return str(value).lower() in response.lower()


def _any_of(check: Check) -> Check:
    return lambda values, response: any(check(value, response) for value in values)


def _all_of(check: Check) -> Check:
    return lambda values, response: all(check(value, response) for value in values)


def _equals(value: Any, response: str) -> bool:
    if isinstance(value, str):
        return value == response
    try:
        return bool(_strict(json.loads(response)) == _strict(value))
    except (ValueError, RecursionError):
        return False


def _strict(value: Any) -> Any:
    """So that true is not 1, which Python holds to be equal."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, list):
        return [_strict(item) for item in value]
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    return value


def _regex(value: Any, response: str) -> bool:
    return re.search(as_python(value), response, re.ASCII) is not None


def _is_json(value: Any, response: str) -> bool:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(response, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return True


KINDS: dict[str, Check] = {
    "equals": _equals,
    "contains": _contains,
    "icontains": _icontains,
    "contains-any": _any_of(_contains),
    "contains-all": _all_of(_contains),
    "icontains-any": _any_of(_icontains),
    "icontains-all": _all_of(_icontains),
    "starts-with": lambda value, response: response.startswith(value),
    "regex": _regex,
    "is-json": _is_json,
}
LISTS: Sequence[str] = ("contains-any", "contains-all", "icontains-any", "icontains-all")
_VERBS = {
    "equals": "be exactly",
    "contains": "contain",
    "icontains": "contain",
    "contains-any": "contain one of",
    "contains-all": "contain all of",
    "icontains-any": "contain one of",
    "icontains-all": "contain all of",
    "starts-with": "begin with",
    "regex": "match the pattern",
    "is-json": "be JSON",
}
