"""Files to rows of text: JSON Lines, a JSON array, CSV and TSV; and whole values of JSON and YAML.

Knows bytes, encodings and line numbers; every complaint names file and line and says what to do.
Knows nothing of splits, templates or what a column means. Values become text here once and for
all, so that the same table gives the same rows whether it was saved as JSON or as CSV.
"""

import codecs
import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NoReturn

from remask.errors import DataError, name_missing_extra

_BLANK = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class DataRow:
    """One record: its columns as text, and the line of the file where it begins (from 1)."""

    line: int
    values: Mapping[str, str]


def read_rows(path: str | Path) -> list[DataRow]:
    """All rows of a .jsonl, .ndjson, .json (array of objects), .csv or .tsv file.

    Blank lines are skipped; a byte order mark and CRLF are fine. Raises DataError.
    """
    path = Path(path)
    if not path.exists():
        raise DataError("there is no such file; check the path", path)
    if not path.is_file():
        raise DataError("is not a regular file; name a file with rows", path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise DataError(f"unknown kind of file {path.suffix!r}; its name must end in {known}", path)
    text = _read_text(path)
    if not text.strip():
        raise DataError("the file is empty; give it at least one row", path)
    rows = reader(text, path)
    if not rows:
        raise DataError("the file has no rows; give it at least one", path)
    return rows


def rows_of(records: Iterable[Mapping[str, Any]], path: str | Path) -> list[DataRow]:
    """Rows given from Python. `path` names them in errors; the line is the position from 1."""
    return [_row(record, path, number) for number, record in enumerate(records, 1)]


def read_document(path: Path) -> Any:
    """The value in a .json, .yaml or .yml file. What is no list or mapping in YAML is a text, as it
    is written: `yes` is no truth value and 1.0 no number. Raises DataError and BackendError."""
    kind = path.suffix.lower()
    if kind not in (".json", ".yaml", ".yml"):
        raise DataError(f"unknown kind of file {kind!r}; save it as JSON or YAML", path)
    text = _read_text(path)
    if kind == ".json":
        start, line = _skip(text, 0, 1)
        value, end = _decode(text, start, path, line)
        if text[end:].strip():
            raise DataError("malformed JSON (more text behind the value); remove it", path)
        return value
    with name_missing_extra():
        import yaml  # type: ignore[import-untyped]
    try:
        return yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        at = mark.line + 1 if mark else None
        raise DataError(f"malformed YAML ({problem}); fix it", path, at) from None


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = f"0x{data[error.start]:02x}"
        raise DataError(f"byte {byte} is not UTF-8; save the file as UTF-8", path, line) from error
    nul = text.find("\0")
    if nul >= 0:
        line = text.count("\n", 0, nul) + 1
        raise DataError("holds a NUL character; save the file as plain UTF-8 text", path, line)
    return text


def _read_jsonl(text: str, path: Path) -> list[DataRow]:
    rows = []
    # Not splitlines(): it also breaks at U+2028 and others, which may stand inside a string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            value, end = _decode(line.strip(), 0, path, number)
            if end != len(line.strip()):
                message = f"malformed JSON (more text at column {end + 1}); one object per line"
                raise DataError(message, path, number)
            rows.append(_row(value, path, number))
    return rows


def _read_json(text: str, path: Path) -> list[DataRow]:
    rows = []
    position, line = _skip(text, 0, 1)
    if text[position] != "[":
        raise DataError("expected an array of objects: [{…}, {…}]", path, line)
    position, line = _skip(text, position + 1, line)
    while text[position : position + 1] != "]":
        value, end = _decode(text, position, path, line)
        rows.append(_row(value, path, line))
        position, line = _skip(text, end, line + text.count("\n", position, end))
        if text[position : position + 1] == ",":
            position, line = _skip(text, position + 1, line)
            if text[position : position + 1] == "]":
                raise DataError("malformed JSON (a comma before ]); remove it", path, line)
        elif text[position : position + 1] != "]":
            raise DataError("malformed JSON (expected , or ] here)", path, line)
    position, line = _skip(text, position + 1, line)
    if position != len(text):
        raise DataError("malformed JSON (more text behind the array)", path, line)
    return rows


def _skip(text: str, position: int, line: int) -> tuple[int, int]:
    """Position and line behind the white space at `position`."""
    match = _BLANK.match(text, position)
    assert match is not None  # the pattern also matches nothing
    return match.end(), line + match[0].count("\n")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} appears twice")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _decode(text: str, start: int, path: Path, line: int) -> tuple[Any, int]:
    """One JSON value at `start`, and where it ends. `line` is the line of `start`."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        where = line + text.count("\n", start, error.pos)
        message = f"malformed JSON ({error.msg} at column {error.colno}); mend this line"
        raise DataError(message, path, where) from error
    except RecursionError as error:
        raise DataError("malformed JSON (nested too deeply); flatten it", path, line) from error
    except ValueError as error:
        raise DataError(f"malformed JSON ({error}); mend this line", path, line) from error
    return value, end


def _read_csv(text: str, path: Path, delimiter: str = ",") -> list[DataRow]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: list[DataRow] = []
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return rows
        except csv.Error as error:
            message = f"malformed CSV ({error}); check the quotes from here on"
            raise DataError(message, path, line) from error
        if not "".join(fields).strip() and len(fields) <= 1:
            continue
        if not header:
            header = [name.strip() for name in fields]
            _check_header(header, path, line)
            continue
        if len(fields) != len(header):
            message = (
                f"found {len(fields)} fields where the header has {len(header)}; "
                f"put fields that contain {delimiter!r} in double quotes"
            )
            raise DataError(message, path, line)
        rows.append(_row(dict(zip(header, fields, strict=True)), path, line))


def _check_header(header: Sequence[str], path: Path, line: int) -> None:
    for name in header:
        if header.count(name) > 1:
            message = f"the column {name!r} appears twice in the header; rename one"
            raise DataError(message, path, line)


def _read_tsv(text: str, path: Path) -> list[DataRow]:
    return _read_csv(text, path, delimiter="\t")


_READERS: dict[str, Callable[[str, Path], list[DataRow]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
}


def _row(record: Any, path: str | Path, line: int) -> DataRow:
    if not isinstance(record, Mapping):
        kind = {"list": "an array", "str": "a string", "NoneType": "null"}
        found = kind.get(type(record).__name__, f"the value {record!r:.40}")
        raise DataError(f'expected an object like {{"input": …}}, found {found}', path, line)
    values: dict[str, str] = {}
    for key, value in record.items():
        name = str(key).strip()
        if name in values:
            raise DataError(f"the column {name!r} appears twice; rename one", path, line)
        try:
            values[name] = _as_text(value)
        except RecursionError as error:
            message = f"column {name!r}: nested too deeply; flatten it"
            raise DataError(message, path, line) from error
        except (TypeError, ValueError) as error:
            raise DataError(f"column {name!r}: {error}", path, line) from error
    return DataRow(line, values)


def _as_text(value: Any) -> str:
    """Text as it is, null as "", true/false, 3.0 as 3 (tables with gaps turn integers into
    floats), arrays and objects as JSON. Raises ValueError or TypeError."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"{number} is not a finite number; leave it empty or give a number")
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
    if isinstance(value, list | tuple | dict):
        value = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, str):
        raise TypeError(f"a value of type {type(value).__name__} is no text; turn it into text")
    if "\0" in value:
        raise ValueError("holds a NUL character; remove it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a surrogate pair; save it as proper Unicode") from error
    return value
