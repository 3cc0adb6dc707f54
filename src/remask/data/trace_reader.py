"""Read trace files into records: detect the format of each value and join records of several parts.

Some formats spread one record over several lines or files: feedback apart from runs, results apart
from requests, or calls that repeat a growing chat. These files are read twice: the first pass
indexes the parts, the second yields the records. All other files are read once, one value at a
time. All are read part by part (see `parts.py`), so that workers can share them.

Values that are in memory, such as those of a server, are read as a file that holds them would be.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any

from remask.data import tables
from remask.data.formats import chat, openai_batch, tau_bench, vendor_rows
from remask.data.formats.inspect_log import ARCHIVE, INSPECT
from remask.data.formats.langfuse import LANGFUSE
from remask.data.formats.langsmith import LANGSMITH
from remask.data.formats.mlflow import MLFLOW
from remask.data.formats.opik import OPIK
from remask.data.formats.otlp import OTLP, SPAN
from remask.data.formats.promptfoo import PROMPTFOO
from remask.data.json_stream import check_file, file_suffix, read_raw_blocks, read_text_blocks, read_values
from remask.data.messages import name_kind
from remask.data.parts import PART_BYTES, Download, Part, Piece, cut_files, take_whole
from remask.data.strict_json import TOO_DEEP
from remask.data.tables import ColumnUse, build_mapped_format, read_csv
from remask.data.trace_record import (
    Annotation,
    Container,
    Item,
    Record,
    RejectedRecord,
    Source,
    TraceFormat,
    UnreadableRecord,
    Value,
)
from remask.errors import DataError

# --- Detecting the format of a value

# Special formats come before general ones: a span can have messages like a chat, and nearly every
# object could be a row of a table.
FORMATS: tuple[TraceFormat, ...] = (
    OTLP,
    MLFLOW,
    SPAN,
    *tau_bench.FORMATS,
    INSPECT,
    PROMPTFOO,
    OPIK,
    LANGSMITH,
    LANGFUSE,
    *vendor_rows.FORMATS,
    *openai_batch.FORMATS,
    *chat.FORMATS,
    *tables.FORMATS,
)

CONTAINERS: tuple[Container, ...] = (ARCHIVE,)
# Keys of which a value of Langfuse has at least two, also where it is not in a form that is read.
LANGFUSE_KEYS = frozenset(
    {"traceId", "trace_id", "observations", "observationId", "observation_id", "parentObservationId"}
    | {"parent_observation_id", "projectId", "project_id", "sessionId", "session_id", "scores", "htmlPath"}
)
MAX_SHAPES = 1000  # sets of keys whose format is cached


class Detector:
    """Find the format of values; quickly for values with the same keys as an earlier one."""

    def __init__(self, formats: tuple[TraceFormat, ...] = FORMATS) -> None:
        self._formats = formats
        self._seen: dict[tuple[str, ...], TraceFormat] = {}  # by the keys of an object

    def __call__(self, value: Any) -> TraceFormat | None:
        """Return the format of `value`, or None if no format matches."""
        if type(value) is not dict:
            return self._search(value)
        shape = tuple(value)
        known = self._seen.get(shape)
        if known is not None and known.matches(value):
            return known
        found = self._search(value)
        if found is not None and len(self._seen) < MAX_SHAPES:
            self._seen[shape] = found
        return found

    def _search(self, value: Any) -> TraceFormat | None:
        return next((format for format in self._formats if format.matches(value)), None)


DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
NO_RECORDS = "holds no records"  # of a file
MAX_SAMPLED_VALUES = 20  # values of a file that decide whether the files are read twice


@dataclass(slots=True)
class _PartIndex:
    """The result of the first of two passes."""

    annotations: dict[str, list[Annotation]] = field(default_factory=lambda: defaultdict(list))
    longest: dict[str, tuple[int, int]] = field(default_factory=dict)  # thread: (turns, position)
    # The position of the last record with a key that is not its own id but one of its ancestors'.
    owners: dict[str, int] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)  # records that are wanted by a reject with a key


Place = str | Path | Download


def read_records(
    paths: Sequence[Place], columns: Mapping[str, str] | None = None
) -> Iterator[Record | RejectedRecord]:
    """Yield all records of the files in order, and a RejectedRecord for every other value.

    A folder stands for its files, and so does a pattern such as `logs/*.jsonl` (see `find_files`).
    With `columns` (see `parse_column_map`) every value is read as a row of a table. Raises
    DataError if a file does not exist, before anything is read, and ConfigError at the end for a
    mapped column that no record has.
    """
    use = ColumnUse(set((columns or {}).values()))
    for part in make_parts(paths, columns):
        yield from read_part(part, columns, use)
    use.require_all()


def make_parts(paths: Sequence[Place], columns: Mapping[str, str] | None = None) -> Iterator[Part]:
    """Yield the parts of the files, in order. Raises DataError as `read_records`.

    Files in which a record may have something in another place are one part.
    """
    named = [path for path in paths if not isinstance(path, Download)]
    files: list[Path | Download] = [path for path in paths if isinstance(path, Download)]
    files += find_files(named)
    for file in files:
        if isinstance(file, Path):
            check_file(file)
    formats = (build_mapped_format(columns),) if columns else FORMATS
    whole = tuple(take_whole(file) for file in files)
    if any(_is_multi_part(piece, formats) for piece in whole):
        yield Part(whole, joined=True)
    else:
        yield from cut_files(files, PART_BYTES)


def read_part(
    part: Part, columns: Mapping[str, str] | None = None, use: ColumnUse | None = None
) -> Iterator[Record | RejectedRecord]:
    """Yield all records of a part in order, and a RejectedRecord for every other value.

    `use` gets the columns that were found, where `columns` are given. Raises DataError.
    """
    formats = (build_mapped_format(columns, use),) if columns else FORMATS
    index = _index_parts(part.pieces, formats) if part.joined else None
    taken: set[str] = set()
    for place, item in enumerate(_read_items(part.pieces, formats)):
        if isinstance(item, Record):
            found = item if index is None else _merge_parts(item, place, index, taken)
            if found is not None:
                yield _require_response(found)
        elif isinstance(item, RejectedRecord):
            if index is None or not item.key or item.key not in index.ids:
                yield item
        elif index is None:
            yield item.source.reject(f"belongs to {item.key[:60]!r}; move such rows to the start")
    for key, annotations in index.annotations.items() if index else ():
        if key not in taken:
            reason = f"belongs to {key[:60]!r}, which is not in these files"
            yield from (annotation.source.reject(reason) for annotation in annotations)


def find_files(places: Iterable[str | Path]) -> list[Path]:
    """Return the files of each place: a file, a folder (its files) or a pattern, sorted by name.

    A file in several places is returned once. Hidden files and folders in a folder are left out.
    Raises DataError for a place without a file.
    """
    found: dict[str, Path] = {}  # by the place that it stands for
    for place in map(Path, places):
        if place.is_dir():
            files = sorted(p for p in place.iterdir() if p.is_file() and not p.name.startswith("."))
        elif any(mark in str(place) for mark in "*?[") and not place.exists():
            files = sorted(Path(name) for name in glob(str(place), recursive=True) if Path(name).is_file())
        else:
            files = [place]
        if not files:
            raise DataError("there is no file in this folder or of this pattern; check the path", place)
        for file in files:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def _read_items(pieces: Iterable[Piece | Download], formats: tuple[TraceFormat, ...]) -> Iterator[Item]:
    detect = Detector(formats)
    for piece in pieces:
        path = str(piece)
        empty = isinstance(piece, Download) or not piece.line  # lines of a file may all be blank
        for value in _read_piece(piece):
            empty = False
            if isinstance(value, RejectedRecord):
                yield value
                continue
            format = detect(value.data)
            if format is None:
                yield _reject_unknown(value, path)
                continue
            source = Source(format.name, path, value.line, value.entry)
            try:
                yield from format.read(value.data, source)
            except UnreadableRecord as error:
                yield source.reject(str(error))
            except RecursionError:
                yield source.reject(TOO_DEEP)
        if empty:
            yield RejectedRecord(path, None, NO_RECORDS)


def _read_piece(piece: Piece | Download) -> Iterator[Value | RejectedRecord]:
    if isinstance(piece, Download):
        return (Value(value, None) for value in piece.values)
    path = piece.path
    if piece.line:
        return piece.read_lines()
    head = next(read_raw_blocks(path), b"")
    for container in CONTAINERS:
        if head.startswith(container.magic):
            return container.values(path)
    delimiter = DELIMITERS.get(file_suffix(path))
    return read_values(path) if delimiter is None else _read_table(path, delimiter)


def _read_table(path: Path, delimiter: str) -> Iterator[Value | RejectedRecord]:
    try:
        yield from read_csv(read_text_blocks(path), path, delimiter)
    except UnreadableRecord as error:
        yield RejectedRecord(str(path), error.line, str(error))


def _reject_unknown(value: Value, path: str) -> RejectedRecord:
    data = value.data
    if isinstance(data, dict):
        keys = ", ".join(list(data)[:6])[:80]
        near = LANGFUSE_KEYS & data.keys()
        reason = f"no known format (its keys: {keys}); name its columns with --map"
        if len(near) > 1:
            reason = (
                f"looks like Langfuse (its keys: {keys}), but is neither a trace (id, observations as a "
                "list), nor an observation (traceId, type), nor a score (name, source, dataType); "
                "export whole traces, or name its columns with --map"
            )
    else:
        reason = f"expected an object, found {name_kind(data)}"
    return Source("", path, value.line, value.entry).reject(reason)


def _is_multi_part(piece: Piece | Download, formats: tuple[TraceFormat, ...]) -> bool:
    detect = Detector(formats)
    sample = islice(_read_piece(piece), MAX_SAMPLED_VALUES)
    found = (detect(value.data) for value in sample if isinstance(value, Value))
    return any(format.multi_part for format in found if format is not None)


def _index_parts(pieces: Sequence[Piece | Download], formats: tuple[TraceFormat, ...]) -> _PartIndex:
    index = _PartIndex()
    without_text: set[str] = set()
    for place, item in enumerate(_read_items(pieces, formats)):
        if isinstance(item, Annotation):
            index.annotations[item.key].append(item)
        elif isinstance(item, RejectedRecord):
            without_text |= {item.key} - {""}
        elif isinstance(item, Record):
            index.ids |= set(item.keys[:1])
            index.owners.update((key, place) for key in item.keys[1:])
            if item.thread:
                size = (len(item.turns), place)
                index.longest[item.thread] = max(index.longest.get(item.thread, size), size)
    index.ids &= without_text
    return index


def _merge_parts(record: Record, place: int, index: _PartIndex, taken: set[str]) -> Record | None:
    """Add the annotations to a record; None if a longer record repeats it."""
    if record.keys and index.owners.get(record.keys[0], place) != place:
        return None  # a step around a call that has its own record
    for key in dict.fromkeys(record.keys):
        if index.owners.get(key, place) != place:
            continue  # annotations of a whole trace belong to its last call
        taken.add(key)
        for annotation in index.annotations.get(key, ()):
            record = replace(
                record,
                turns=record.turns + annotation.turns,
                ratings=record.ratings + annotation.ratings,
                desired=annotation.desired if record.desired is None else record.desired,
            )
    rated = record.ratings or record.desired is not None
    if record.thread and not rated and index.longest[record.thread][1] != place:
        return None
    return record


def _require_response(record: Record) -> Record | RejectedRecord:
    """Reject a record that has neither a response nor a right answer."""
    answers = [turn.text for turn in record.turns if turn.role == "assistant"]
    if any(answers) or record.desired is not None:
        return record
    if answers:
        return record.source.reject("holds no response of the model (it is empty or holds only thoughts)")
    return record.source.reject("holds no response of the model and no right answer")
