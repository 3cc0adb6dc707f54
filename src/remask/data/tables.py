"""Read CSV and TSV, and convert rows of any file to records by the names of their columns.

The user can map columns to fields; otherwise common names are used. A path with dots, such as
`output.message.0.content`, selects a part of an object, so any JSON Lines file can be mapped.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from remask.data.json_stream import MAX_VALUE_BYTES, read_line_batches, too_large_reason
from remask.data.messages import join_text, parse_conversation
from remask.data.ratings import parse_rating_value, parse_ratings
from remask.data.strict_json import decode_utf8
from remask.data.trace_record import (
    Item,
    Rating,
    Record,
    RejectedRecord,
    Source,
    TraceFormat,
    Turn,
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

    def require_all(self) -> None:
        """Raise ConfigError where a mapped column is in no record."""
        if self.missing and self.first_keys:
            keys = ", ".join(self.first_keys)[:200]
            raise ConfigError(
                f"--map names {min(self.missing)!r}, a column that no record has; the columns are {keys}"
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
        yield _build_record(row, tuple(ratings), desired, source)

    return TraceFormat("table (mapped)", matches, read)


def matches_table(value: Any) -> bool:
    if type(value) is not dict:
        return False
    return any(k in value for k in DEFAULT_COLUMNS["input"]) and (
        any(k in value for k in DEFAULT_COLUMNS["output"]) or parse_ratings(value)[1] is not None
    )


def read_table(value: Any, source: Source) -> Iterator[Item]:
    row = {
        field: next((value[name] for name in names if value.get(name) not in (None, "")), None)
        for field, names in DEFAULT_COLUMNS.items()
    }
    ratings, desired = parse_ratings(value)
    yield _build_record(row, ratings, desired, source)


def read_csv(content: Iterator[bytes], path: Path, delimiter: str) -> Iterator[Value | RejectedRecord]:
    """Yield the rows of a CSV file as objects of strings.

    Reading stops at a broken quote, because the rows after it may be wrong. Raises
    UnreadableRecord.
    """
    reader = csv.reader(_decode_lines(content), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            fields = _read_next(reader)
        except csv.Error as error:
            reason = f"malformed CSV ({error}); check the quotes from here on"
            yield RejectedRecord(str(path), line, reason)
            return
        if fields is None:
            return
        if not "".join(fields).strip() and len(fields) <= 1:
            continue
        if not header:
            header = [name.strip() for name in fields]
            if len(set(header)) < len(header):
                twice = next(name for name in header if header.count(name) > 1)
                reason = f"the column {twice[:40]!r} appears twice in the header; rename one"
                raise UnreadableRecord(reason, line)
        elif len(fields) != len(header):
            reason = f"found {len(fields)} fields where the header has {len(header)}"
            reason += f"; put fields with {delimiter!r} in quotes"
            yield RejectedRecord(str(path), line, reason)
        else:
            yield Value(dict(zip(header, fields, strict=True)), line)


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
    row: Mapping[str, Any], ratings: tuple[Rating, ...], desired: str | None, source: Source
) -> Record:
    request = _decode_cell(row.get("messages") or row.get("input"))
    answer = join_text(_decode_cell(row.get("output")))
    system = row.get("system")
    if isinstance(request, list) and request and all(type(item) is dict for item in request):
        prompt, turns = parse_conversation(request, system)
    else:
        prompt, turns = join_text(system) or None, (Turn("user", join_text(request)),)
    if answer:
        turns = (*turns, Turn("assistant", answer))
    id, model = join_text(row.get("id")), join_text(row.get("model"))
    return Record(id, prompt, turns, ratings, desired, source, model)


def _decode_cell(cell: object) -> object:
    """Parse a cell that holds a list of messages or an object as JSON."""
    if not isinstance(cell, str) or not cell.startswith(('[{"', '{"')):
        return cell
    try:
        return orjson.loads(cell)
    except orjson.JSONDecodeError:
        return cell


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
