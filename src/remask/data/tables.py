"""Read CSV and TSV, and convert rows of any file to records by the names of their columns.

The user can map columns to fields; otherwise common names are used. A path with dots, such as
`output.message.0.content`, selects a part of an object, so any JSON Lines file can be mapped.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

from remask.data.dialects import Message, as_object, decode_json, find_messages
from remask.data.json_stream import MAX_VALUE_BYTES, read_line_batches, too_large_reason
from remask.data.messages import as_text, find_session, join_text, parse_conversation
from remask.data.ratings import find_expected, list_filled, list_unused, parse_rating_value, parse_ratings
from remask.data.strict_json import decode_utf8
from remask.data.trace_record import (
    Item,
    Rating,
    Record,
    RejectedRecord,
    Source,
    TraceFormat,
    UnreadableRecord,
    Value,
)
from remask.errors import ConfigError

FIELDS: Final = (
    "id", "input", "output", "messages", "system", "expected", "correction", "score", "comment",
    "model",
)  # fmt: skip
DEFAULT_COLUMNS: Final[dict[str, tuple[str, ...]]] = {  # the first column that exists counts
    "id": ("id", "trace_id", "request_id"),
    "input": ("input", "question", "query", "user", "user_message", "prompt", "request", "inputs"),
    "output": ("output", "response", "answer", "assistant", "completion", "reply", "outputs"),
    "system": ("system", "system_prompt", "instructions"),
    "model": ("model", "model_name"),
}
DELIMITERS: Final = (",", ";", "\t", "|")
SAMPLED_LINES = 50  # of a table, to find its delimiter
MAX_FIELD_CHARS = 32 << 20  # characters of one field of a CSV file


def parse_column_map(pairs: Sequence[str]) -> dict[str, str]:
    """Parse `("input=question,score=thumbs",)` into {"input": "question", "score": "thumbs"}.

    Raises ConfigError.
    """
    columns: dict[str, str] = {}
    for pair in (pair.strip() for text in pairs for pair in text.split(",")):
        field, equals, column = (part.strip() for part in pair.partition("="))
        if not equals or not column or field not in FIELDS:
            raise ConfigError(f"--map {pair!r}: write FIELD=COLUMN; FIELD: {', '.join(FIELDS)}")
        columns[field] = column
    if columns and not columns.keys() & {"input", "messages"}:
        raise ConfigError("--map has neither input nor messages; add input=COLUMN")
    return columns


@dataclass(slots=True)
class ColumnUse:
    """Which mapped columns were found in the records that were read."""

    missing: set[str]
    first_keys: tuple[str, ...] = ()  # of the first record

    def add(self, value: Mapping[str, Any]) -> None:
        """Count the columns of a record."""
        self.first_keys = self.first_keys or tuple(value)
        for column in tuple(self.missing):
            if column in value or _get_column(value, column) is not None:
                self.missing.discard(column)

    def merge(self, later: "ColumnUse") -> None:
        """Add what was found in records after these."""
        self.missing &= later.missing
        self.first_keys = self.first_keys or later.first_keys

    def require_all(self) -> None:
        """Raise ConfigError where a mapped column is in no record."""
        if self.missing and self.first_keys:
            keys = ", ".join(self.first_keys)[:200]
            raise ConfigError(
                f"the column map names {min(self.missing)!r}, a column that no record has; "
                f"the columns are {keys}"
            )


def build_mapped_format(columns: Mapping[str, str], use: ColumnUse | None = None) -> TraceFormat:
    """Return the format of rows with the user's column map, which records the columns in `use`."""

    def matches(value: Any) -> bool:
        return type(value) is dict

    def read(value: Any, source: Source) -> Iterator[Item]:
        if use is not None:
            use.add(value)
        row = {field: _get_column(value, column) for field, column in columns.items()}
        source_field = "messages" if "messages" in columns else "input"
        if row[source_field] in (None, ""):
            raise UnreadableRecord(f"the column {columns[source_field]!r} is empty or missing")
        ratings = []
        if (score := parse_rating_value(row.get("score"))) is not None:
            ratings.append(Rating(columns["score"], score))
        if comment := join_text(row.get("comment")):
            ratings.append(Rating(columns["comment"], None, comment=comment))
        desired = join_text(row.get("correction")) or join_text(row.get("expected")) or None
        record = _build_record(row, tuple(ratings), desired, source, columns)
        used = {part for name in columns.values() for part in (name, name.split(".")[0])}
        yield replace(record, unused=tuple(key for key in list_filled(value) if key not in used))

    return TraceFormat("table (mapped)", matches, read)


def matches_table(value: Any) -> bool:
    if type(value) is not dict:
        return False
    return any(k in value for k in DEFAULT_COLUMNS["input"]) and (
        any(k in value for k in DEFAULT_COLUMNS["output"]) or parse_ratings(value)[1] is not None
    )


def read_table(value: Any, source: Source) -> Iterator[Item]:
    chosen = {
        field: next((name for name in names if value.get(name) not in (None, "")), "")
        for field, names in DEFAULT_COLUMNS.items()
    }
    row = {field: value.get(name) for field, name in chosen.items()}
    if chosen["output"] == "outputs":  # results of a program by name, and not the text of an answer
        row["output"] = decode_json(row["output"])
    ratings, desired = parse_ratings(value)
    if _is_dataset_row(value) and desired is None:
        # The outputs of an example of a data set are the right answer, and no model has answered.
        desired, row["output"] = find_expected({"expected": row["output"]}), None
    record = _build_record(row, ratings, desired, source)
    session = find_session({**value, chosen["input"]: None})  # a column "user" can be the message
    yield replace(record, session=session, unused=list_unused(value, chosen.values()))


def _is_dataset_row(value: Mapping[str, Any]) -> bool:
    """Whether a row is an example of a LangSmith data set."""
    metadata = as_object(value.get("metadata"))
    return "outputs" in value and ("dataset_id" in value or "dataset_split" in metadata)


def read_csv(content: Iterator[bytes], path: Path, delimiter: str) -> Iterator[Value | RejectedRecord]:
    """Yield the rows of a CSV file as objects of strings, without rows that are empty.

    The delimiter is found in the first lines; `delimiter` is the one that the name of the file
    suggests. Reading stops at a broken quote, because the rows after it may be wrong. Raises
    UnreadableRecord.
    """
    head = next(content, b"")
    delimiter, skipped = find_delimiter(head.decode("utf-8", "replace"), delimiter)
    reader = csv.reader(_decode_lines(chain([head], content)), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            fields = _read_next(reader)
        except csv.Error as error:
            raise UnreadableRecord(f"malformed CSV ({error}); check the quotes from here on", line) from error
        if fields is None:
            return
        if not "".join(fields).strip() or line <= skipped:
            continue
        if not header:
            header = _name_columns(fields)
            continue
        while len(fields) > len(header) and not fields[-1].strip():
            fields.pop()
        if len(fields) != len(header):
            reason = f"found {len(fields)} fields where the header has {len(header)}"
            reason += f"; put fields with {delimiter!r} in quotes"
            yield RejectedRecord(str(path), line, reason)
        else:
            cells = zip(header, fields, strict=True)
            named = ((name or f"column {n}", name, text) for n, (name, text) in enumerate(cells, 1))
            yield Value({key: text for key, name, text in named if name or text}, line)


def find_delimiter(head: str, usual: str) -> tuple[str, int]:
    """Return the delimiter of a table that begins with `head`, and how many lines precede the header.

    The delimiter is the one that gives the rows the same number of fields as the header, at least
    two; of several, the usual one. Excel can name it in a first line such as "sep=;".
    """
    named = re.match(r"\ufeff?[\"']?sep=(.)[\"']?\r?\n", head, re.IGNORECASE)
    if named:
        return named[1], 1
    best, found = (0.0, 0, False), usual
    for delimiter in DELIMITERS:
        widths = _count_fields(head, delimiter)
        if not widths or widths[0] < 2:
            continue
        share = sum(width == widths[0] for width in widths) / len(widths)
        rank = (share, int(delimiter == usual), widths[0] > 1)
        if rank > best:
            best, found = rank, delimiter
    return found, 0


def _count_fields(head: str, delimiter: str) -> list[int]:
    """Return the number of fields of the first rows that are complete and not empty."""
    lines = head.splitlines(keepends=True)
    if len(lines) > 1 and not head.endswith(("\n", "\r")):
        lines.pop()
    widths: list[int] = []
    try:
        for fields in csv.reader(lines[:SAMPLED_LINES], delimiter=delimiter):
            if "".join(fields).strip():
                widths.append(len(fields))
    except csv.Error:
        pass
    return widths


def _name_columns(header: list[str]) -> list[str]:
    """Return the names of the columns; "" for one without a name. A name that occurs twice is numbered."""
    names = [name.strip() for name in header]
    seen: Counter[str] = Counter()
    for number, name in enumerate(names):
        if name and names.count(name) > 1:
            seen[name] += 1
            header[number] = f"{name} ({seen[name]})"
        else:
            header[number] = name
    return header


def _read_next(reader: Any) -> list[str] | None:
    """Return the next row. The size limit of a field is global to the process, so it is reset."""
    before = csv.field_size_limit(MAX_FIELD_CHARS)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _decode_lines(content: Iterator[bytes]) -> Iterator[str]:
    """Yield lines with their ends; a single \\r also ends a line. Raises UnreadableRecord."""
    for number, whole, lines in read_line_batches(content):
        if lines is None:
            raise UnreadableRecord(too_large_reason(MAX_VALUE_BYTES), number)
        try:
            text = decode_utf8(whole)
        except UnreadableRecord as error:
            raise UnreadableRecord(str(error), number + (error.line or 1) - 1) from error
        yield from io.StringIO(f"{text}\n", newline="")


def _build_record(
    row: Mapping[str, Any],
    ratings: tuple[Rating, ...],
    desired: str | None,
    source: Source,
    named: Mapping[str, str] | None = None,
) -> Record:
    """Build the record of a row. `named`: the user's columns; JSON in them is a text if it must be."""
    request = decode_json(row.get("messages") or row.get("input"))
    asked = _read_cell(request, "user", "input", bool(named))
    answer = row.get("output")
    if isinstance(answer, str) and isinstance(inner := decode_json(answer), dict) and len(inner) == 1:
        answer = inner
    answered = [] if answer in (None, "", [], {}) else _read_cell(answer, "assistant", "output", bool(named))
    prompt, turns = parse_conversation([*asked, *answered], row.get("system"))
    id, model = join_text(row.get("id")), join_text(row.get("model"))
    return Record(id, prompt, turns, ratings, desired, source, model)


def _read_cell(cell: object, role: str, field: str, named: bool) -> list[Message]:
    """Return the messages in a cell: a text, messages, or an object that holds one of these.

    Raises UnreadableRecord for an object without a known key, unless the user named the column.
    """
    found = find_messages(cell, role)
    if found is not None:
        return found
    if isinstance(cell, dict) and len(cell) == 1 and isinstance(only := next(iter(cell.values())), str):
        return [{"role": role, "content": only}]  # a question or an answer under any name
    if isinstance(cell, dict | list) and cell and not named:
        keys = ", ".join(cell)[:80] if isinstance(cell, dict) else ""
        which = f"only JSON (its keys: {keys})" if keys else "a list without messages"
        raise UnreadableRecord(f"the {field} is {which}; name its part with --map {field}=COLUMN.KEY")
    return [{"role": role, "content": as_text(cell)}]


def _get_column(value: Mapping[str, Any], column: str) -> Any:
    """Return the value of a column or of a path with dots; None if it does not exist."""
    if column in value:
        return value[column]
    found: Any = value
    for step in column.split("."):
        if isinstance(found, list) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        elif isinstance(found, dict):
            found = found.get(step)
        else:
            return None
    return found


FORMATS = (TraceFormat("table", matches_table, read_table),)
