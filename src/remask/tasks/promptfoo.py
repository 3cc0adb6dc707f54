"""The tests of a promptfooconfig.yaml as rows, and their assertions as a metric.

Follows promptfoo's documentation of tests and assertions (promptfoo.dev/docs; 2026). Nothing in the
file is run, and only {{name}} is filled. Every key and value that is not known here is refused by
name. Prompts and providers are skipped: remask has settings of its own for both.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from remask.data.placeholders import JINJA, LANGFUSE, list_variables, substitute
from remask.data.rows import read_document, read_rows, rows_from_records
from remask.errors import ConfigError, DataError
from remask.tasks.metrics import Grade, Grader, JudgeMetric
from remask.types import Example

METRIC = "promptfoo"  # the name of this metric in settings
ASSERT = "assert"  # the column of a row's assertions: a list in JSON, as promptfoo writes it
RUBRIC = "llm-rubric"
_CHECKS: dict[str, Callable[[str, str], bool]] = {  # of (value, response)
    "equals": lambda value, response: response == value,
    "contains": lambda value, response: value in response,
    "icontains": lambda value, response: value.lower() in response.lower(),
    "starts-with": lambda value, response: response.startswith(value),
    "regex": lambda value, response: re.search(value, response) is not None,
    "is-json": lambda value, response: _is_json(response),
}
_CONFIG = {"tests": list | str, "defaultTest": dict, "description": str}
_SKIPPED = dict.fromkeys(("prompts", "providers", "targets"), object)
_TEST = {"vars": dict, "assert": list, "description": str}
# Of a CSV file: `contains: Paris`, `is-json`, or `Paris` alone for equals.
_TYPED = re.compile(r"(?:([a-z-]+(?:\(.*?\))?)(?::\s*|(?<=is-json)$))?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Assertions(Grader):
    """1 where all assertions of a row hold, else 0. Where the others hold and the row has an
    llm-rubric, the score is that of `judge`."""

    judge: JudgeMetric | None = None

    def grade(self, examples: Sequence[Example], responses: Sequence[str]) -> list[Grade]:
        grades = list(map(_checked, examples, responses))
        asked = [i for i, e in enumerate(examples) if grades[i].score and values(e, RUBRIC)]
        if self.judge is not None and asked:
            rubrics = ["\n".join(values(examples[i], RUBRIC)) for i in asked]
            rows = [replace(examples[i], expected=self.desired(examples[i])) for i in asked]
            found = self.judge.grade(rows, [responses[i] for i in asked], rubrics)
            for i, grade in zip(asked, found, strict=True):
                grades[i] = grade
        return grades

    def desired(self, example: Example) -> str | None:
        """What `equals` says, or else the only text that the response is to contain."""
        said = values(example, "equals") or values(example, "contains", "icontains")
        return said[0] if len(said) == 1 else None


def values(example: Example, *kinds: str) -> list[str]:
    """Those of a row's assertions of some kinds."""
    return [a["value"] for a in json.loads(example.expected or "[]") if a["type"] in kinds]


def _checked(example: Example, response: str) -> Grade:
    failed = [f"the response fails {kind} {value}".rstrip() for kind, holds in _CHECKS.items()
              for value in values(example, kind) if not holds(value, response)]  # fmt: skip
    return Grade(float(not failed), "; ".join(failed))


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=int)  # int refuses NaN and Infinity
    except (ValueError, RecursionError):
        return False
    return True


def is_config(path: str | Path) -> bool:
    """Whether `path` is read as a configuration of promptfoo, by the end of its name."""
    return str(path).lower().endswith((".yaml", ".yml"))


def read_tests(path: Path) -> list[dict[str, Any]]:
    """The tests as records: their variables and, as `assert`, their assertions. DataError."""
    config = _part(read_document(path), _CONFIG | _SKIPPED, "config", path)
    default = _part(config.get("defaultTest", {}), _TEST, "defaultTest", path)
    tests = config.get("tests", [])
    if isinstance(tests, str):
        file = path.parent / tests.removeprefix("file://")
        csv = file.suffix.lower() == ".csv"
        tests = [_csv_test(row.values) for row in read_rows(file)] if csv else read_document(file)
    records = []
    for number, said in enumerate(tests):
        key, test = f"tests[{number}]", _part(said, _TEST, f"tests[{number}]", path)
        vars = default.get("vars", {}) | test.get("vars", {})
        for name, value in vars.items():  # lists, files and {{name}} mean something to promptfoo
            plain = not isinstance(value, list | dict) and not str(value).startswith("file://")
            if not plain or list_variables(LANGFUSE.read(str(value), None)):
                raise _refused(path, f"{key}.vars.{name}", value, "write one plain text")
        stated = default.get("assert", []) + test.get("assert", [])
        if not stated:
            raise _refused(path, f"{key}.assert", stated, "write some, or every response is right")
        (row,) = rows_from_records([vars], path)
        assertions = [_assertion(said, row.values, f"{key}.assert", path) for said in stated]
        records.append({**row.values, ASSERT: assertions})
    return records


def _csv_test(row: Mapping[str, str]) -> dict[str, Any]:
    """Columns that begin with two underscores say something, all others are variables."""
    said = {name: text for name, text in row.items() if name.startswith("__") and text}
    texts = [said.pop(name) for name in list(said) if name.startswith("__expected")]
    stated = [{"type": m[1] or "equals", "value": m[2]} for m in map(_TYPED.fullmatch, texts) if m]
    return {"vars": {n: row[n] for n in row if not n.startswith("__")}, "assert": stated, **said}


def _assertion(said: Any, row: Mapping[str, str], key: str, path: Path) -> dict[str, str]:
    """With the variables of its value filled in."""
    found = _part(said, {"type": str, "value": str}, key, path)
    kind, value = found.get("type", ""), found.get("value", "")
    if kind not in (*_CHECKS, RUBRIC):
        raise _refused(path, f"{key}.type", kind, f"write one of {', '.join(_CHECKS)}, {RUBRIC}")
    try:
        text = substitute(JINJA.read(value, None), row)
        usable = bool(text) != (kind == "is-json") and not value.startswith(("file://", "package:"))
        usable &= kind != "regex" or re.compile(text).flags == re.UNICODE  # no flags of its own
    except (ConfigError, KeyError, OverflowError, re.error):
        usable = False
    if not usable:
        remedy = "write one text (a pattern of Python's re, no flags; none for is-json) where only "
        raise _refused(path, f"{key}.{kind}", value, remedy + "{{name}} of the same test is filled")
    return {"type": kind, "value": text}


def _part(said: Any, kinds: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    """A mapping in which each name is known, and its value of the kind that goes with it."""
    for name, value in said.items() if isinstance(said, dict) else [("", said)]:
        if not isinstance(value, kinds.get(name, ())):
            words: dict[Any, str] = {dict: "a mapping", list: "a list", str: "one text"}
            remedy = words.get(kinds.get(name), f"only {', '.join(kinds)}")
            raise _refused(path, f"{key}.{name}".strip("."), value, f"write {remedy}")
    return dict(said)


def _refused(path: Path, key: str, value: Any, remedy: str) -> DataError:
    return DataError(f"{key} = {value!r:.60} cannot be read; {remedy}", path)
