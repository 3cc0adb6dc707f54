"""Read the parts of trace files in this process, or let workers read them.

The driver merges what was found in the order of the parts. So the results are the same for any
number of workers.
"""

import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import lru_cache
from itertools import chain, islice
from typing import Any

from remask.data.draw_traces import DrawRule, RecordKey, Strata
from remask.data.overview import Overview
from remask.data.parts import Part
from remask.data.prompt_templates import make_similarity
from remask.data.tables import ColumnUse
from remask.data.trace_reader import Place, make_parts, read_part
from remask.data.trace_record import Record, RejectedRecord
from remask.errors import DataError
from remask.ports import Executor, Item, report_step, wait_for

ITEMS_PER_WORKER = 2  # in flight, so that no worker waits while the driver merges
REPORT_SECONDS = 0.2  # between two reports of the progress
Columns = Mapping[str, str]


class PartReader:
    """Reads parts, each result depending on the arguments alone."""

    def __init__(self) -> None:
        self._make_similarity = lru_cache(maxsize=1)(make_similarity)

    def attempt(self, method: str, part: Part, *arguments: Any) -> Any:
        """Return what the method returns, in a form that can be sent; None where the files are elsewhere."""
        if not part.is_here:
            return None
        found = getattr(self, method)(part, *arguments)
        return list(found) if isinstance(found, Iterator) else found

    def count(self, part: Part, columns: Columns, before: int) -> tuple[Overview, ColumnUse]:
        """Count the items of a part, which follow on so many others."""
        found, use = Overview(), ColumnUse(set(columns.values()))
        for item in report_items(read_part(part, columns, use), before):
            found.add(item)
        return found, use

    def draw(
        self, part: Part, columns: Columns, rule: DrawRule, number: int, bounds: tuple[str, str]
    ) -> Strata:
        """Draw from the records of a part, which has this number."""
        found = Strata.below(bounds)
        belongs = None if rule.prompt is None else self._make_similarity(rule.prompt)
        for place, item in enumerate(read_part(part, columns)):
            if isinstance(item, Record):
                system = item.template or item.system or ""
                if belongs is None or (system and belongs(system)):
                    found.add(item, rule, number, place)
        return found

    def fetch(self, part: Part, columns: Columns, places: Sequence[int]) -> Iterator[Record]:
        """Yield the records at these places of a part, in order."""
        wanted = set(places)
        items = islice(enumerate(read_part(part, columns)), max(places) + 1)
        return (item for place, item in items if place in wanted and isinstance(item, Record))


def report_items(
    items: Iterable[Record | RejectedRecord], before: int = 0
) -> Iterator[Record | RejectedRecord]:
    """Report how many items are read, some times a second; their number is not known before."""
    said = time.monotonic()
    for number, item in enumerate(items, before + 1):
        yield item
        if (now := time.monotonic()) - said > REPORT_SECONDS:
            report_step("record", number, 0)
            said = now


def count_records(
    files: Sequence[Place], columns: Columns, executor: Executor | None = None
) -> tuple[list[Part], Overview]:
    """Count the items of the files; also return the parts, which are read again.

    Raises DataError and ConfigError as `trace_reader.read_records`.
    """
    parts: list[Part] = []
    found, use = Overview(), ColumnUse(set(columns.values()))

    def list_items() -> Iterator[Item]:
        for part in make_parts(files, columns):
            parts.append(part)
            yield Item("reader", "count", (part, columns, found.items))

    for counted, used in read_in_order(list_items(), executor):
        found.merge(counted)
        use.merge(used)
        report_step("record", found.items, 0)
    use.require_all()
    return parts, found


def draw_records(
    parts: Sequence[Part], columns: Columns, rule: DrawRule, executor: Executor | None = None
) -> Strata:
    """Draw from the records of all parts."""
    found = Strata()
    items = (
        Item("reader", "draw", (part, columns, rule, number, found.bounds))
        for number, part in enumerate(parts)
    )
    for drawn in read_in_order(items, executor):
        found.merge(drawn)
    return found


def fetch_records(
    parts: Sequence[Part], columns: Columns, drawn: Sequence[RecordKey], executor: Executor | None = None
) -> Iterator[Record]:
    """Yield the records that were drawn, in the order of the files.

    Raises DataError where the files are not what they were.
    """
    places: dict[int, list[int]] = defaultdict(list)  # by the number of the part
    for one in sorted(drawn, key=lambda one: (one.part, one.place)):
        places[one.part].append(one.place)
    items = (Item("reader", "fetch", (parts[number], columns, some)) for number, some in places.items())
    for (number, some), records in zip(places.items(), read_in_order(items, executor), strict=True):
        count = 0
        for record in records:
            count += 1
            yield record
        if count != len(some):
            name = ", ".join(dict.fromkeys(str(piece) for piece in parts[number].pieces))
            raise DataError("was changed while it was read; run the command again", name)


def read_in_order(items: Iterable[Item], executor: Executor | None = None) -> Iterator[Any]:
    """Yield the results of items for a PartReader, in order.

    A single item is done in this process, and so is an item whose files a worker does not have. Each
    item is taken only when it can be sent, a few ahead of its result.
    """
    items = iter(items)
    if executor is not None:
        first = list(islice(items, 2))
        items = chain(first, items)
        executor = executor if len(first) > 1 else None
    reader = PartReader()
    if executor is None:
        for item in items:
            yield getattr(reader, item.method)(*item.arguments)
        return
    waiting: deque[tuple[Item, Future[Any]]] = deque()
    try:
        for item in items:
            order = Item(item.role, "attempt", (item.method, *item.arguments))
            waiting.append((item, executor.submit(order)))
            if len(waiting) >= ITEMS_PER_WORKER * executor.workers:
                yield _finish(*waiting.popleft(), reader)
        while waiting:
            yield _finish(*waiting.popleft(), reader)
    finally:
        for _, future in waiting:
            future.cancel()


def _finish(item: Item, future: Future[Any], reader: PartReader) -> Any:
    found = wait_for(future)
    return getattr(reader, item.method)(*item.arguments) if found is None else found
