"""What the readers of trace formats make of a value."""

from typing import Any

from remask.data.trace_reader import Detector
from remask.data.trace_record import Item, Record, Source, TraceFormat


def items_of(format: TraceFormat, source: Source, value: Any) -> list[Item]:
    """The items of a value that this format must know as its own."""
    assert format.matches(value)
    return list(format.read(value, source))


def record_of(format: TraceFormat, source: Source, value: Any) -> Record:
    """The only item, which must be usable."""
    (record,) = items_of(format, source, value)
    assert isinstance(record, Record), record
    return record


def detected_items(file: str, value: Any) -> list[Item]:
    """The items of a value whose format is found out."""
    format = Detector()(value)
    assert format is not None
    return list(format.read(value, Source(format.name, file, 1)))
