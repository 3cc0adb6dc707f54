"""The tests of a promptfoo configuration: defaults put in, variables spread out, assertions read.

Follows promptfoo's documentation of tests, assertions and CSV files (promptfoo.dev/docs; 2026). Of
Nunjucks only {{name}} is filled; whatever needs code, a model or a network is refused with the
place and what to do.
"""

import csv
import io
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remask.data.rows import rows_of
from remask.errors import DataError
from remask.tasks.assertions import KINDS, LISTS, Assertion, Demands, as_python
from remask.tasks.promptfoo_files import (
    SUFFIXES,
    read_config,
    read_json,
    read_text,
    read_value,
    simple,
)

NAME = re.compile(r"\{\{-?\s*([A-Za-z_]\w*)\s*-?\}\}")
_CODE = re.compile(r"\{\{|\{%|\{#")
# What `remask export` writes, too: text in raw blocks, and a brace that stands before a raw block.
_PIECE = re.compile(
    r"\{% raw %\}(?P<raw>.*?)\{% endraw %\}"
    r'|\{\{ "(?P<brace>\{)" \}\}'
    r"|\{\{-?\s*(?P<name>[A-Za-z_]\w*)\s*-?\}\}",
    re.DOTALL,
)
TEXTS = (".txt", ".md")
_STATED = re.compile(rf"(not-)?({'|'.join(sorted(KINDS, key=len, reverse=True))})(?::(.*))?", re.S)
_OTHER = re.compile(r"(?:not-)?([a-z]+(?:-[a-z]+)*)(?:\([\d.]+\))?:")
_FOREIGN = {"javascript", "fn", "eval", "python", "grade", "llm-rubric", "similar", "cost",
            "latency", "rouge-n", "levenshtein", "classifier", "factuality", "webhook",
            "model-graded-closedqa", "perplexity", "contains-json", "ruby", "g-eval"}  # fmt: skip
_CHANGING = ("transform", "prefix", "suffix", "postprocess")  # options that change what is compared


@dataclass(frozen=True, slots=True)
class Test:
    """A test after defaults and variables are put in."""

    where: str  # for errors: "test 3 (capitals)"
    row: Mapping[str, str]
    demands: Demands


def cut(text: str) -> list[tuple[str, re.Match[str] | None]]:
    """A Nunjucks text as plain parts, each with the variable behind it; raw blocks are plain.

    The variable's name is its group "name". Raises ValueError where there is more than that.
    """
    parts: list[tuple[str, re.Match[str] | None]] = []
    plain, at = "", 0
    for piece in _PIECE.finditer(text):
        plain += _only(text[at : piece.start()]) + (piece["raw"] or piece["brace"] or "")
        at = piece.end()
        if piece["name"]:
            parts.append((plain, piece))
            plain = ""
    return [*parts, (plain + _only(text[at:]), None)]


def _only(text: str) -> str:
    if _CODE.search(text):
        raise ValueError("more Nunjucks than {{name}} and raw blocks")
    return text


def read_tests(path: Path) -> list[Test]:
    config = read_config(path)
    if config.get("scenarios"):
        raise DataError("has scenarios, which cannot be read; write them out as tests", path)
    default = config.get("defaultTest") or {}
    if isinstance(default, str):
        default = read_value(default, path)
    if not isinstance(default, dict):
        raise DataError("defaultTest is no mapping; give it vars and assert", path)
    templates = config.get("assertionTemplates") or {}
    found: list[Test] = []
    for number, test in enumerate(_listed(config.get("tests"), path), 1):
        said = test.get("description")
        where = f"test {number}" + (f" ({said})" if isinstance(said, str) else "")
        found += _Reader(path, where, default, test, templates).tests()
    if not found:
        raise DataError("has no tests; give it a list `tests` with vars and assert", path)
    return found


def _listed(tests: Any, path: Path) -> Iterator[dict[str, Any]]:
    """The tests themselves, those in other files too."""
    for number, entry in enumerate(tests if isinstance(tests, list) else [tests], 1):
        if isinstance(entry, dict) and not ("path" in entry and "vars" not in entry):
            yield entry
        elif isinstance(entry, str):
            yield from _file_tests(entry, path)
        elif entry is not None:
            raise DataError(f"tests, entry {number} is no test; give it vars and assert", path)


def _file_tests(said: str, path: Path) -> Iterator[dict[str, Any]]:
    if re.match(r"(?!file:)\w+://", said):
        raise DataError(f"the tests {said!r} are on a network; save them as CSV", path)
    pattern = said.removeprefix("file://")
    files = sorted(path.parent.glob(pattern)) if re.search(r"[*?\[]", pattern) else []
    if not files:
        files = [path.parent / pattern]
    for file in files:
        kind = file.suffix.lower()
        if kind == ".csv":
            yield from map(_csv_test, _csv(file, path))
        elif kind == ".jsonl":
            lines = read_text(file, path).splitlines()
            yield from _only_tests([read_json(line, file, n) for n, line in enumerate(lines, 1)
                                    if line.strip()], file)  # fmt: skip
        elif kind in (".json", *SUFFIXES):
            yield from _only_tests(read_value(str(file), path), file)
        else:
            raise DataError(
                f"the tests {said!r} need code to run or are of another kind; save them as CSV, "
                "JSON or YAML",
                path,
            )


def _only_tests(found: Any, file: Path) -> list[dict[str, Any]]:
    tests = found if isinstance(found, list) else [found]
    for number, test in enumerate(tests, 1):
        if not isinstance(test, dict):
            raise DataError(f"entry {number} is no test; give it vars and assert", file)
    return tests


def _csv(file: Path, path: Path) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(read_text(file, path)), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise DataError(f"malformed CSV ({error}); mend it", file, reader.line_num) from error
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise DataError(f"row {number} has more or fewer fields than the header", file)
    return rows


def _csv_test(row: Mapping[str, str]) -> dict[str, Any]:
    """A row: columns that begin with two underscores say something, all others are variables."""
    test: dict[str, Any] = {"vars": {}, "assert": [], "options": {}}
    for column, value in row.items():
        name = column.strip()
        if name.startswith("__expected"):
            if value.strip():
                test["assert"].append(value.strip())
        elif name in ("__prefix", "__suffix"):
            test["options"][name[2:]] = value
        elif name in ("__description", "__threshold"):
            if value.strip():
                test[name[2:]] = value
        elif not name.startswith("__"):
            test["vars"][name] = value
    return test


def _filled(row: Mapping[str, str]) -> dict[str, str]:
    return {n: NAME.sub(lambda m: row.get(m[1], m[0]), v) for n, v in row.items()}


@dataclass(frozen=True, slots=True)
class _Reader:
    """One test of the file with what it inherits."""

    path: Path
    where: str
    default: Mapping[str, Any]
    test: Mapping[str, Any]
    templates: Mapping[str, Any]

    def tests(self) -> list[Test]:
        """One for each combination of the values of its variables."""
        options = {**self._part(self.default, "options"), **self._part(self.test, "options")}
        for key in _CHANGING:
            if options.get(key) or self.test.get(key) or self.default.get(key):
                raise self.refuse(f"{key} cannot be applied; write the texts out without it")
        if self.test.get("assertScoringFunction") or self.default.get("assertScoringFunction"):
            raise self.refuse("assertScoringFunction runs code; remove it")
        inherited = [] if options.get("disableDefaultAsserts") else self.default.get("assert")
        stated = [*(inherited or []), *(self.test.get("assert") or [])]
        threshold = self.test.get("threshold", self.default.get("threshold"))
        found = []
        for row in self.rows(bool(options.get("disableVarExpansion"))):
            assertions = tuple(self.assertion(entry, row) for entry in stated)
            if not any(a.weight for a in assertions):
                raise self.refuse("no assertion, so every response passes; add one")
            found.append(Test(self.where, row, Demands(assertions, self.number(threshold))))
        return found

    def refuse(self, problem: str) -> DataError:
        return DataError(f"{self.where}: {problem}", self.path)

    def number(self, value: Any) -> float | None:
        try:
            return None if value is None else float(value)
        except (TypeError, ValueError):
            raise self.refuse(f"{value!r:.40} is no number; write one") from None

    def rows(self, whole: bool) -> Iterator[dict[str, str]]:
        merged = {**self._vars(self.default), **self._vars(self.test)}
        choices = []
        for name, value in merged.items():
            if isinstance(value, str) and value.startswith("file://"):
                values = [self._content(file) for file in self._found(value)]
            elif isinstance(value, list) and value and not whole and isinstance(value[0], str):
                values = value
            else:
                values = [value]
            choices.append([(name, self._plain(name, v)) for v in values])
        for combination in itertools.product(*choices):
            row = dict(combination)
            for _ in range(5):  # a variable may name another one
                row = _filled(row)
            yield row

    def _plain(self, name: str, value: Any) -> str:
        if isinstance(value, list | dict):
            raise self.refuse(f"the variable {name} is no text; write it as one")
        (row,) = rows_of([{name: value if simple(value) else str(value)}], self.path)
        return row.values[name.strip()]

    def _vars(self, test: Mapping[str, Any]) -> dict[str, Any]:
        said = test.get("vars") or {}
        if isinstance(said, str):
            said = read_value(said, self.path)
        if not isinstance(said, dict):
            raise self.refuse("vars is no mapping of names to values; write one")
        return {str(name): value for name, value in said.items()}

    def _part(self, test: Mapping[str, Any], key: str) -> dict[str, Any]:
        part = test.get(key) or {}
        if not isinstance(part, dict):
            raise self.refuse(f"{key} is no mapping; write one")
        return part

    def _found(self, value: str) -> list[Path]:
        files = sorted(self.path.parent.glob(value.removeprefix("file://").lstrip("/")))
        if not files:
            raise self.refuse(f"there is no file {value}; check the path")
        return files

    def _content(self, file: Path) -> str:
        if file.suffix.lower() not in TEXTS:
            raise self.refuse(f"{file.name} must be .txt or .md to be a variable; save it so")
        return read_text(file, self.path).strip()

    def assertion(self, entry: Any, row: Mapping[str, str]) -> Assertion:
        """One demand. A text is written as in a CSV file: `contains:Paris`, or just `Paris`."""
        if isinstance(entry, dict) and "$ref" in entry:
            name = str(entry["$ref"]).rpartition("/")[2]
            if name not in self.templates:
                raise self.refuse(f"there is no assertion template {name!r}; define it")
            entry = {**self.templates[name], **{k: v for k, v in entry.items() if k != "$ref"}}
        if isinstance(entry, str):
            entry = self._stated(entry)
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise self.refuse("an assertion has no type; give it one")
        kind = entry["type"].removeprefix("not-")
        if kind not in KINDS:
            raise self.refuse(
                f"the assertion {entry['type']} runs code or a model, or is not plain text "
                f"comparison; use one of {', '.join(KINDS)} (also with not-), or a metric of remask"
            )
        if entry.get("transform"):
            raise self.refuse(f"the assertion {entry['type']} has a transform, which runs code; "
                              "remove it")  # fmt: skip
        weight = self.number(entry.get("weight", 1))
        value = self._value(kind, entry.get("value"), row)
        return Assertion(kind, value, kind != entry["type"], 1.0 if weight is None else weight)

    def _stated(self, text: str) -> dict[str, Any]:
        if match := _STATED.fullmatch(text):
            return {"type": (match[1] or "") + match[2], "value": (match[3] or "").strip() or None}
        other = _OTHER.match(text)
        if other and other[1] in _FOREIGN:
            return {"type": other[1]}
        return {"type": "equals", "value": text}

    def _value(self, kind: str, value: Any, row: Mapping[str, str]) -> Any:
        if kind == "is-json":
            if value not in (None, ""):
                raise self.refuse("is-json with a schema cannot be checked; remove the schema")
            return None
        if kind == "equals" and isinstance(value, dict):
            return value
        if kind == "equals" and isinstance(value, list):
            return [self._text_value(kind, v, row) if isinstance(v, str) else v for v in value]
        if kind in LISTS:
            items = value.split(",") if isinstance(value, str) and '"' not in value else value
            if not isinstance(items, list) or not items:
                raise self.refuse(f"{kind} needs a list of texts as value; write one")
            return [self._text_value(kind, item, row).strip() for item in items]
        return self._text_value(kind, value, row)

    def _text_value(self, kind: str, value: Any, row: Mapping[str, str]) -> str:
        (made,) = rows_of([{"value": value if simple(value) else str(value)}], self.path)
        text = made.values["value"]
        if value is None or (not text and kind != "equals"):
            raise self.refuse(f"{kind} has no value; give it one")
        if text.startswith(("file://", "package:")):
            raise self.refuse(f"the value {text!r} of {kind} is loaded; write the text here")
        try:
            parts = cut(text)
        except ValueError as error:
            raise self.refuse(f"{kind} holds {error}; write the text out") from None
        text = "".join(plain + (row.get(m["name"], "") if m else "") for plain, m in parts)
        if kind == "regex":
            try:
                as_python(text)
            except (re.error, OverflowError) as error:
                raise self.refuse(
                    f"the pattern {text!r:.60} cannot be read ({error}); write it more plainly"
                ) from None
        return text
