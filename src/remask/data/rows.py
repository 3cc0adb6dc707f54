"""Read rows from JSON Lines, a JSON array, CSV or TSV, and whole documents from JSON or YAML.

Unlike trace files, the first broken row raises an error with its file and line. All values are
converted to text, so a table gives the same rows whether it is saved as JSON or as CSV.
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
    """One row: its columns as text, and the line of the file where it begins (from 1)."""

    line: int | None
    values: Mapping[str, str]


def read_rows(path: str | Path) -> list[DataRow]:
    """Read the rows of a .jsonl, .ndjson, .json (array of objects), .csv or .tsv file, also .gz.

    Blank lines are skipped. The text is UTF-8, or UTF-16 with a byte order mark. Raises DataError.
    """
    path = Path(path)
    json_stream.check_file(path)
    reader = READERS.get(json_stream.file_suffix(path))
    if reader is None:
        known = ", ".join(READERS)
        raise DataError(f"unknown file type {path.suffix!r}; the name must end in {known}", path)
    rows = []
    try:
        for value in reader(json_stream.read_text_blocks(path), path):
            if isinstance(value, RejectedRecord):
                raise DataError(value.reason, path, value.line)
            rows.append(_parse_row(value.data, path, value.line))
    except UnreadableRecord as error:  # the file, or the rest of it, cannot be read
        raise DataError(str(error), path, error.line) from error
    if not rows:
        raise DataError("the file has no rows; add at least one", path)
    return rows


def rows_from_records(records: Any, path: str | Path, pair: Sequence[str] = ()) -> list[DataRow]:
    """Convert rows from Python: mappings, a DataFrame of pandas or polars, or tuples.

    The items of a tuple are the columns `pair`. Errors show `path` and the position from 1.
    """
    if hasattr(records, "to_dicts"):  # polars
        records = records.to_dicts()
    elif hasattr(records, "notna"):  # pandas; its missing values are NaN
        records = records.astype(object).where(records.notna(), None).to_dict("records")
    rows = []
    for number, record in enumerate(records, 1):
        if isinstance(record, tuple) and len(record) == len(pair):
            record = dict(zip(pair, record, strict=True))
        rows.append(_parse_row(record, path, number))
    return rows


def read_document(path: Path) -> Any:
    """Read the value in a .json, .yaml or .yml file.

    Scalars of YAML stay text as written: `yes` is not a bool and 1.0 is not a number. Raises
    DataError, and BackendError if PyYAML is missing.
    """
    kind = json_stream.file_suffix(path)
    if kind not in (".json", ".yaml", ".yml"):
        raise DataError(f"unknown file type {kind!r}; save it as JSON or YAML", path)
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
    """Convert a value with `as_text`. Raises ValueError or TypeError if that is not possible."""
    if isinstance(value, Real) and not isinstance(value, bool):  # numpy's numbers too
        value = int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number; write a number or leave it empty")
    if isinstance(value, list | tuple | dict):
        value = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, str | bool | int | float | None):
        raise TypeError(f"the type {type(value).__name__} is not supported; convert it to text")
    text = as_text(value)
    if "\0" in text:
        raise ValueError("holds a NUL character; remove it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a surrogate pair; save it as proper Unicode") from error
    return text
