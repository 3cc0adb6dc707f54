"""Files to rows of text: JSON Lines, a JSON array, CSV and TSV; and whole values of JSON and YAML.

The bytes, encodings and line numbers are those of the trace files (`json_stream`, `tables`), but
the first broken row ends the reading, and every complaint names file and line and says what to do.
Knows nothing of splits, templates or what a column means. Values become text here once and for
all, so that the same table gives the same rows whether it was saved as JSON or as CSV.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Final

from remask.data import json_stream, tables
from remask.data.messages import as_text
from remask.data.strict_json import decode_utf8, parse_exact
from remask.data.trace_record import RejectedRecord, UnreadableRecord, Value
from remask.errors import DataError, name_missing_extra

READERS: Final[dict[str, Callable[[Iterator[bytes], Path], Iterator[Value | RejectedRecord]]]] = {
    ".jsonl": partial(json_stream.read_lines, exact=True),
    ".ndjson": partial(json_stream.read_lines, exact=True),
    ".json": partial(json_stream.read_array, exact=True),
    ".csv": partial(tables.read_csv, delimiter=","),
    ".tsv": partial(tables.read_csv, delimiter="\t"),
}


@dataclass(frozen=True, slots=True)
class DataRow:
    """One record: its columns as text, and the line of the file where it begins (from 1)."""

    line: int | None
    values: Mapping[str, str]


def read_rows(path: str | Path) -> list[DataRow]:
    """All rows of a .jsonl, .ndjson, .json (array of objects), .csv or .tsv file, also with .gz.

    Blank lines are skipped; a byte order mark, UTF-16 with one and CRLF are fine. Opens the file
    once. Raises DataError.
    """
    path = Path(path)
    json_stream.check_file(path)
    reader = READERS.get(json_stream.file_suffix(path))
    if reader is None:
        known = ", ".join(READERS)
        raise DataError(f"unknown kind of file {path.suffix!r}; its name must end in {known}", path)
    rows = []
    try:
        for value in reader(json_stream.read_text_blocks(path), path):
            if isinstance(value, RejectedRecord):
                raise DataError(value.reason, path, value.line)
            rows.append(_parse_row(value.data, path, value.line))
    except UnreadableRecord as error:  # of the whole file, or of the rest of it
        raise DataError(str(error), path, error.line) from error
    if not rows:
        raise DataError("the file is empty or has no rows; give it at least one", path)
    return rows


def rows_from_records(records: Any, path: str | Path, pair: Sequence[str] = ()) -> list[DataRow]:
    """Rows given from Python: mappings, a DataFrame of pandas or polars, or tuples, whose items
    are the columns `pair`. `path` names them in errors; the line is the position from 1."""
    if hasattr(records, "to_dicts"):  # polars
        records = records.to_dicts()
    elif hasattr(records, "notna"):  # pandas, where a missing value is NaN
        records = records.astype(object).where(records.notna(), None).to_dict("records")
    rows = []
    for number, record in enumerate(records, 1):
        if isinstance(record, tuple) and len(record) == len(pair):
            record = dict(zip(pair, record, strict=True))
        rows.append(_parse_row(record, path, number))
    return rows


def read_document(path: Path) -> Any:
    """The value in a .json, .yaml or .yml file. What is no list or mapping in YAML is a text, as it
    is written: `yes` is no truth value and 1.0 no number. Raises DataError and BackendError."""
    kind = json_stream.file_suffix(path)
    if kind not in (".json", ".yaml", ".yml"):
        raise DataError(f"unknown kind of file {kind!r}; save it as JSON or YAML", path)
    json_stream.check_file(path)
    try:
        content = b"".join(json_stream.read_text_blocks(path))
        if kind == ".json":
            return parse_exact(content)
        text = decode_utf8(content)
    except UnreadableRecord as error:
        raise DataError(str(error), path, error.line) from error
    with name_missing_extra():
        import yaml  # type: ignore[import-untyped]
    try:
        return yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        at = mark.line + 1 if mark else None
        raise DataError(f"malformed YAML ({problem}); fix it", path, at) from None


def _parse_row(record: Any, path: str | Path, line: int | None) -> DataRow:
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
            values[name] = _format_strictly(value)
        except RecursionError as error:
            message = f"column {name!r}: nested too deeply; flatten it"
            raise DataError(message, path, line) from error
        except (TypeError, ValueError) as error:
            raise DataError(f"column {name!r}: {error}", path, line) from error
    return DataRow(line, values)


def _format_strictly(value: Any) -> str:
    """`as_text`, where `value` has a text. Raises ValueError or TypeError where it has none."""
    if isinstance(value, Real) and not isinstance(value, bool):
        value = int(value) if isinstance(value, Integral) else float(value)  # numpy's own, too
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number; leave it empty or give a number")
    if isinstance(value, list | tuple | dict):
        value = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, str | bool | int | float | None):
        raise TypeError(f"a value of type {type(value).__name__} is no text; turn it into text")
    text = as_text(value)
    if "\0" in text:
        raise ValueError("holds a NUL character; remove it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a surrogate pair; save it as proper Unicode") from error
    return text
