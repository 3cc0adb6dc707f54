"""Read the tests of a promptfooconfig.yaml as rows, and their assertions as a metric.

Follows the documentation of tests and assertions by promptfoo (promptfoo.dev/docs; 2026). Nothing
in the file is executed, and only {{name}} is filled. An unknown key or value is an error that names
it. Prompts and providers are skipped, since remask has settings of its own for both.
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
ASSERT = "assert"  # the column with the assertions of a row: a JSON list, as promptfoo writes it
RUBRIC = "llm-rubric"
_CHECKS: dict[str, Callable[[str, str], bool]] = {  # type -> function of (value, response)
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
# An assertion in a CSV file: `contains: Paris`, `is-json`, or `Paris` for equals.
_TYPED = re.compile(r"(?:([a-z-]+(?:\(.*?\))?)(?::\s*|(?<=is-json)$))?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Assertions(Grader):
    """Scores 1 where all assertions of a row hold, else 0.

    Where a row has an llm-rubric and its other assertions hold, `judge` gives the score.
    """

    judge: JudgeMetric | None = None

    def grade(self, examples: Sequence[Example], responses: Sequence[str]) -> list[Grade]:
        """Return one Grade per response, in order."""
        grades = list(map(_check_response, examples, responses))
        judged = [i for i, e in enumerate(examples) if grades[i].score and find_values(e, RUBRIC)]
        if self.judge is not None and judged:
            rubrics = ["\n".join(find_values(examples[i], RUBRIC)) for i in judged]
            rights = [self.find_right_response(examples[i]) for i in judged]
            rows = [replace(examples[i], expected=e) for i, e in zip(judged, rights, strict=True)]
            found = self.judge.grade(rows, [responses[i] for i in judged], rubrics)
            for i, grade in zip(judged, found, strict=True):
                grades[i] = grade
        return grades

    def find_right_response(self, example: Example) -> str | None:
        """Return the value of `equals`, else the only text that the response must contain."""
        values = find_values(example, "equals") or find_values(example, "contains", "icontains")
        return values[0] if len(values) == 1 else None


def find_values(example: Example, *kinds: str) -> list[str]:
    """Return the values of the assertions of a row that have one of these types."""
    return [a["value"] for a in json.loads(example.expected or "[]") if a["type"] in kinds]


def _check_response(example: Example, response: str) -> Grade:
    failed = [f"the response fails {kind} {value}".rstrip() for kind, holds in _CHECKS.items()
              for value in find_values(example, kind) if not holds(value, response)]  # fmt: skip
    return Grade(float(not failed), "; ".join(failed))


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=int)  # int refuses NaN and Infinity
    except (ValueError, RecursionError):
        return False
    return True


def is_config(path: str | Path) -> bool:
    """Return whether the name of a file ends as that of a promptfoo configuration does."""
    return str(path).lower().endswith((".yaml", ".yml"))


def read_tests(path: Path) -> list[dict[str, Any]]:
    """Read the tests as records: their variables, and their assertions in the column `assert`.

    Raises DataError for everything that is not supported.
    """
    config = _check_mapping(read_document(path), _CONFIG | _SKIPPED, "config", path)
    default = _check_mapping(config.get("defaultTest", {}), _TEST, "defaultTest", path)
    tests = config.get("tests", [])
    if isinstance(tests, str):
        file = path.parent / tests.removeprefix("file://")
        if file.suffix.lower() == ".csv":
            tests = [_read_csv_test(row.values) for row in read_rows(file)]
        else:
            tests = read_document(file)
    records = []
    for number, entry in enumerate(tests):
        key, test = f"tests[{number}]", _check_mapping(entry, _TEST, f"tests[{number}]", path)
        vars = default.get("vars", {}) | test.get("vars", {})
        for name, value in vars.items():
            # promptfoo would expand lists, files and {{name}}.
            plain = not isinstance(value, list | dict) and not str(value).startswith("file://")
            if not plain or list_variables(LANGFUSE.read(str(value), None)):
                raise _make_error(path, f"{key}.vars.{name}", value, "write one plain text")
        entries = default.get("assert", []) + test.get("assert", [])
        if not entries:
            remedy = "write an assertion: without one every response is right"
            raise _make_error(path, f"{key}.assert", entries, remedy)
        (row,) = rows_from_records([vars], path)
        assertions = [_read_assertion(one, row.values, f"{key}.assert", path) for one in entries]
        records.append({**row.values, ASSERT: assertions})
    return records


def _read_csv_test(row: Mapping[str, str]) -> dict[str, Any]:
    """Read a row of a CSV file: names with two underscores first are keys, others variables."""
    keys = {name: text for name, text in row.items() if name.startswith("__") and text}
    texts = [keys.pop(name) for name in list(keys) if name.startswith("__expected")]
    found = [{"type": m[1] or "equals", "value": m[2]} for m in map(_TYPED.fullmatch, texts) if m]
    return {"vars": {n: row[n] for n in row if not n.startswith("__")}, "assert": found, **keys}


def _read_assertion(entry: Any, row: Mapping[str, str], key: str, path: Path) -> dict[str, str]:
    """Check an assertion and fill the variables of its value."""
    found = _check_mapping(entry, {"type": str, "value": str}, key, path)
    kind, value = found.get("type", ""), found.get("value", "")
    if kind not in (*_CHECKS, RUBRIC):
        raise _make_error(path, f"{key}.type", kind, f"write one of {', '.join(_CHECKS)}, {RUBRIC}")
    try:
        text = substitute(JINJA.read(value, None), row)
        usable = bool(text) != (kind == "is-json") and not value.startswith(("file://", "package:"))
        usable &= kind != "regex" or re.compile(text).flags == re.UNICODE  # no inline flags
    except (ConfigError, KeyError, OverflowError, re.error):
        usable = False
    if not usable:
        remedy = (
            "write one text (none for is-json, for regex a pattern of Python's re without flags); "
            "only {{name}} of the same test is filled"
        )
        raise _make_error(path, f"{key}.{kind}", value, remedy)
    return {"type": kind, "value": text}


def _check_mapping(entry: Any, kinds: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    """Return a mapping as a dict. Raises DataError for an unknown name or a value of a wrong type.

    `kinds`: name -> type of its value.
    """
    for name, value in entry.items() if isinstance(entry, dict) else [("", entry)]:
        if not isinstance(value, kinds.get(name, ())):
            words: dict[Any, str] = {dict: "a mapping", list: "a list", str: "one text"}
            remedy = words.get(kinds.get(name), f"only {', '.join(kinds)}")
            raise _make_error(path, f"{key}.{name}".strip("."), value, f"write {remedy}")
    return dict(entry)


def _make_error(path: Path, key: str, value: Any, remedy: str) -> DataError:
    return DataError(f"{key} = {value!r:.60} cannot be read; {remedy}", path)
