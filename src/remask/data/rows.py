"""Read rows from JSON Lines, JSON, CSV or TSV, and whole documents from JSON or YAML.

Unlike trace files, a row that cannot be read is an error with its file and line, unless the user
leaves such rows out. All values are converted to text, so a table gives the same rows whether it is
saved as JSON or as CSV. A value that cannot be text is an error only where its column is used.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import partial
from itertools import chain
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from remask.data import json_stream, tables
from remask.data.dialects import decode_json
from remask.data.messages import as_text, parse_conversation
from remask.data.strict_json import decode_utf8, parse_exact
from remask.data.trace_record import RejectedRecord, UnreadableRecord, Value
from remask.errors import DataError, name_missing_extra
from remask.types import Split

Reader = Callable[[Iterator[bytes], Path], Iterator[Value | RejectedRecord]]
READERS: Final[dict[str, Reader]] = {
    ".jsonl": partial(json_stream.read_lines, exact=True),
    ".ndjson": partial(json_stream.read_lines, exact=True),
    ".json": partial(json_stream.read_array, exact=True),
    ".csv": partial(tables.read_csv, delimiter=","),
    ".tsv": partial(tables.read_csv, delimiter="\t"),
    ".tab": partial(tables.read_csv, delimiter="\t"),
    ".txt": partial(tables.read_csv, delimiter="\t"),  # as Excel saves Unicode text
}
JSON_TYPES: Final = (".json", ".jsonl", ".ndjson")
LIST_KEYS: Final = ("data", "rows", "examples", "items", "instances", "records")
SPLIT_NAMES: Final[dict[str, Split]] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}
CHAT_KEYS: Final = ("messages", "conversations", "conversation")
CHAT_INPUT, CHAT_ANSWER = "input", "label"  # the columns that a row of chat messages gets
MAX_LISTED_PROBLEMS = 10
MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class DataRow:
    """One row: its columns as text, and the line of the file where it begins (from 1)."""

    line: int | None
    values: Mapping[str, str]
    cells: Mapping[str, Any] = field(default_factory=dict)  # the columns as they are
    problems: Mapping[str, str] = field(default_factory=dict)  # why a column cannot be text
    split: str = ""  # under which it stands in the file

    def has(self, name: str) -> bool:
        """Whether there is such a column. `a.b` is the part b of the column a."""
        return name in self.values or name in self.problems or self._find(name) is not MISSING

    def is_chat(self, name: str) -> bool:
        """Whether a column holds the messages of a chat."""
        return _is_chat(self._find(name))

    def read(self, name: str, role: str = "user") -> str:
        """Return a column, or a part of it, as text; of chat messages the last text of `role`.

        Raises UnreadableRecord with the reason if that is not possible.
        """
        cell = self._find(name)
        if cell is MISSING and name not in self.problems:
            raise UnreadableRecord(f"the row has no column {name!r}, only: {', '.join(self.values)}")
        if _is_chat(cell):
            return _read_chat(cell, role, name)
        if name in self.problems:
            raise UnreadableRecord(f"column {name!r}: {self.problems[name]}")
        try:
            return self.values[name] if name in self.values else _format_strictly(cell)
        except (TypeError, ValueError, RecursionError) as error:
            raise UnreadableRecord(f"column {name!r}: {error}") from error

    def read_message(self, name: str) -> str:
        """Return the answer at the end of a chat as JSON, or another column as text. Raises as `read`."""
        cell, text = self._find(name), self.read(name, "assistant")
        return json.dumps(cell[-1], ensure_ascii=False, default=as_text) if _is_chat(cell) else text

    def list_columns(self) -> Iterator[str]:
        """Yield the columns, and in place of an object its parts, as a user can name them."""
        for name, cell in self.cells.items():
            inner = decode_json(cell)
            yield from (f"{name}.{key}" for key in inner) if isinstance(inner, dict) and inner else [name]
        yield from (name for name in self.values if name not in self.cells)

    def _find(self, name: str) -> Any:
        """Return a column, or a part of one by its path with dots; MISSING if there is none."""
        cells = self.cells or self.values
        if name in cells:
            return cells[name]
        at = name.find(".")
        while at > 0 and name[:at] not in cells:  # the name of a column can have a dot, too
            at = name.find(".", at + 1)
        found: Any = cells[name[:at]] if at > 0 else MISSING
        for step in name[at + 1 :].split(".") if at > 0 else ():
            found = decode_json(found)
            if isinstance(found, list | tuple) and step.isdecimal() and int(step) < len(found):
                found = found[int(step)]
            elif isinstance(found, Mapping) and step in found:
                found = found[step]
            else:
                return MISSING
        return found


class RowProblems:
    """The rows of one file that cannot be used: the first ones and their number."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.count = 0
        self._first: list[tuple[int | None, str]] = []

    def add(self, line: int | None, reason: str) -> None:
        """Add a row."""
        self.count += 1
        if len(self._first) < MAX_LISTED_PROBLEMS:
            self._first.append((line, reason))

    def make_error(self) -> DataError:
        """Return the error that lists the rows and says how to leave them out."""
        offer = "to leave such rows out, set data.skip_invalid (--skip-invalid)"
        line, reason = self._first[0]
        if self.count == 1:
            return DataError(f"{reason}; {offer}", self.path, line)
        listed = "".join(f"\n  line {line}: {reason}" for line, reason in self._first)
        more = self.count - len(self._first)
        rest = f"\n  … and {more} more" if more else ""
        return DataError(f"{self.count} rows cannot be used; {offer}:{listed}{rest}", self.path)

    def describe(self) -> str:
        """Return a sentence that names the number of rows and the first reason."""
        line, reason = self._first[0]
        rows = "1 row" if self.count == 1 else f"{self.count} rows"
        name = Path(self.path).name
        return f"left out {rows} of {name} that cannot be used; the first is line {line}: {reason}"


def read_rows(path: str | Path, problems: RowProblems | None = None) -> list[DataRow]:
    """Read the rows of a .jsonl, .ndjson, .json, .csv, .tsv, .tab or .txt file, also .gz.

    Blank lines and empty rows are skipped. The text is UTF-8 or UTF-16. Rows that cannot be read are
    added to `problems`; without it the first one raises DataError, as a file that cannot be read does.
    """
    path = Path(path)
    json_stream.check_file(path)
    reader = READERS.get(json_stream.file_suffix(path))
    if reader is None:
        known = ", ".join(READERS)
        advice = "save it as CSV or JSON Lines, or read it with pandas and give the DataFrame from Python"
        raise DataError(f"unknown file type {path.suffix!r}; the name must end in {known}; {advice}", path)
    try:
        values = list(_read_values(path, reader))
    except UnreadableRecord as error:  # the file, or the rest of it, cannot be read
        raise DataError(str(error), path, error.line) from error
    found = problems or RowProblems(path)
    rows = []
    for value in _expand(values):
        if isinstance(value, RejectedRecord):
            found.add(value.line, value.reason)
            continue
        try:
            row = _parse_row(value.data, value.line, value.entry)
        except UnreadableRecord as error:
            found.add(value.line, str(error))
        else:
            rows.append(row)
    if problems is None and found.count:
        raise found.make_error()
    if not rows and not found.count:
        raise DataError("the file has no rows; add at least one", path)
    return rows


def _read_values(path: Path, reader: Reader) -> Iterator[Value | RejectedRecord]:
    """Yield the values of a file. JSON may be one value per line, an array, or one object."""
    content = json_stream.read_text_blocks(path)
    head = next(content, b"")
    content = chain([head], content)
    suffix, start = json_stream.file_suffix(path), head.lstrip()[:1]
    if suffix in JSON_TYPES and (start == b"{" or (start == b"[" and suffix != ".json")):
        layout = json_stream.detect_layout(head)
        if layout == "document":
            return json_stream.read_documents(content, path, exact=True)
        reader = READERS[".json" if layout == "array" else ".jsonl"]
    return reader(content, path)


def _expand(values: list[Value | RejectedRecord]) -> Iterator[Value | RejectedRecord]:
    """Yield the values; in place of the only one, which holds all rows, its rows."""
    only = values[0] if len(values) == 1 else None
    rows = list_inner_rows(only.data) if isinstance(only, Value) and isinstance(only.data, dict) else None
    if rows is None:
        yield from values
        return
    for number, (split, row) in enumerate(rows, 1):
        yield Value(row, number, split)


def list_inner_rows(value: Mapping[str, Any]) -> list[tuple[str, Any]] | None:
    """Return the rows in an object that holds all of them, each with the name of its split, or None.

    Such an object has a list per split, one list under a common name, or columns, as pandas and
    Hugging Face write them.
    """
    if value and all(key.strip().lower() in SPLIT_NAMES and _is_rows(inner) for key, inner in value.items()):
        return [(split, row) for split, rows in value.items() for row in rows]
    columns, data = value.get("columns"), value.get("data")
    if isinstance(columns, list) and isinstance(data, list):  # pandas, orient="split"
        return [("", dict(zip(map(str, columns), row, strict=False))) for row in data]
    lists = [key for key in value if _is_rows(value[key]) and value[key] and key not in CHAT_KEYS]
    if len(lists) == 1 and (len(value) == 1 or lists[0] in LIST_KEYS):
        rows = [row.get("row") if "row_idx" in row else row for row in value[lists[0]]]
        return [("", row) for row in rows]
    held = list(value.values())
    if len(held) > 1 and all(isinstance(cells, dict) and cells.keys() == held[0].keys() for cells in held):
        return [("", {name: value[name][key] for name in value}) for key in held[0]]
    return list_column_rows(value)


def list_column_rows(value: Mapping[str, Any]) -> list[tuple[str, Any]] | None:
    """Return the rows of a table that is given as lists by column, or None."""
    held = list(value.values())
    if len(held) < 2 or not all(isinstance(cells, list | tuple) for cells in held):
        return None
    if len({len(cells) for cells in held}) > 1 or any(isinstance(c, dict) for cells in held for c in cells):
        return None
    return [("", dict(zip(value, cells, strict=True))) for cells in zip(*held, strict=True)]


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def rows_from_records(
    records: Any, path: str | Path, pair: Sequence[str] = (), problems: RowProblems | None = None
) -> list[DataRow]:
    """Convert rows from Python: mappings, chats, a DataFrame, a table of Arrow, or tuples.

    The items of a tuple are the columns `pair`. Problems show `path` and the position from 1.
    """
    from_frame = hasattr(records, "to_dicts") or hasattr(records, "notna")
    if hasattr(records, "to_dicts"):  # polars
        records = records.to_dicts()
    elif hasattr(records, "to_pylist"):  # pyarrow
        records = records.to_pylist()
    elif hasattr(records, "notna"):  # pandas; its missing values are NaN
        records = records.astype(object).where(records.notna(), None).to_dict("records")
    found = problems or RowProblems(path)
    rows = []
    for number, record in enumerate(records, 1):
        if from_frame and all(cell is None for cell in record.values()):
            continue  # an empty row of a sheet
        if isinstance(record, tuple) and len(record) == len(pair):
            record = dict(zip(pair, record, strict=True))
        try:
            rows.append(_parse_row(record, number))
        except UnreadableRecord as error:
            found.add(number, str(error))
    if problems is None and found.count:
        raise found.make_error()
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


def _parse_row(record: Any, line: int | None, split: str = "") -> DataRow:
    if _is_chat(record):
        record = {CHAT_KEYS[0]: record}
    if not isinstance(record, Mapping):
        kind = {"list": "an array", "str": "a string", "NoneType": "null"}
        found = kind.get(type(record).__name__, f"the value {record!r:.40}")
        raise UnreadableRecord(f'expected an object like {{"input": …}}, found {found}')
    cells: dict[str, Any] = {}
    for key, value in record.items():
        name = str(key).strip()
        if name in cells:
            raise UnreadableRecord(f"the column {name!r} appears twice; rename one")
        cells[name] = value
    chat = next((cells[key] for key in CHAT_KEYS if _is_chat(cells.get(key))), None)
    if chat is not None:
        cells = {CHAT_INPUT: chat, CHAT_ANSWER: chat} | cells
    values, problems = {}, {}
    for name, value in cells.items():
        try:
            values[name] = _format_strictly(value)
        except RecursionError:
            problems[name] = "nested too deeply; flatten it"
        except (TypeError, ValueError) as error:
            problems[name] = str(error)
    return DataRow(line, values, cells, problems, split)


def _is_chat(cell: object) -> bool:
    """Whether a cell holds the messages of a chat."""
    if not isinstance(cell, list | tuple) or not cell:
        return False
    return all(isinstance(item, Mapping) and ("role" in item or "from" in item) for item in cell)


def _read_chat(cell: Any, role: str, name: str) -> str:
    """Return the message of the user, or the answer behind it. Raises UnreadableRecord."""
    _, turns = parse_conversation([dict(message) for message in cell])
    if role == "assistant":
        if turns and turns[-1].role == "assistant":
            return turns[-1].text
        raise UnreadableRecord(f"column {name!r}: the chat does not end with an answer")
    asked = turns[:-1] if turns and turns[-1].role == "assistant" else turns
    if [turn.role for turn in asked] != ["user"]:
        raise UnreadableRecord(
            f"column {name!r}: the chat has {len(turns)} messages; a row must be one message of a user, "
            "with or without its answer"
        )
    return asked[0].text


def _format_strictly(value: Any) -> str:
    """Convert a value with `as_text`. Raises ValueError or TypeError if that is not possible."""
    if hasattr(value, "tolist"):  # scalars and arrays of numpy
        value = value.tolist()
    if isinstance(value, date | Decimal | UUID):
        value = value.isoformat() if isinstance(value, date) else str(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        value = int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number; write a number or leave it empty")
    if isinstance(value, list | tuple | dict):
        try:
            value = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_format_strictly)
        except ValueError as error:
            words = "holds itself" if "ircular" in str(error) else "holds a number that is not finite"
            raise ValueError(f"{words}; write it as text") from error
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
