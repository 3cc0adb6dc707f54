"""Read Opik: one trace with its spans per file, as `opik export` writes it.

Sources: opik 1.9–2.2, sdks/python/src/opik/cli/exports/utils.py (`trace`, `spans`),
rest_api/types/trace_public.py, span_public.py and feedback_score_public.py (2026).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from remask.data.dialects import as_list, as_object, extract_messages
from remask.data.formats.call_tree import Assessment, Operation, build_records
from remask.data.messages import as_text
from remask.data.trace_record import Item, Kind, Rating, Source, TraceFormat

_KINDS_BY_SOURCE: Final[dict[str, Kind]] = {"ui": "human", "online_scoring": "llm"}


def matches(value: Any) -> bool:
    """Whether `value` is an exported trace."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("trace"), dict)
        and isinstance(value.get("spans"), list)
    )


def read(value: Any, source: Source) -> Iterator[Item]:
    """Yield the records of one trace."""
    if not matches(value):
        yield source.reject("is not an object with trace and spans")
        return
    trace = value["trace"]
    id, session = as_text(trace.get("id")), as_text(trace.get("thread_id"))
    calls = [_build_operation(span, id, session) for span in as_list(value["spans"])]
    root = _build_operation({**trace, "id": id, "type": "general"}, id, session, root=True)
    yield from build_records([*calls, root], source)


def _build_operation(operation: Mapping[str, Any], trace: str, session: str, root: bool = False) -> Operation:
    failure = operation.get("error_info")
    said = as_object(failure).get("message") or as_object(failure).get("exception_type")
    return Operation(
        trace,
        as_text(operation.get("id")),
        "" if root else as_text(operation.get("parent_span_id")) or trace,
        operation.get("type") == "llm",
        tuple(extract_messages(operation.get("input"), "user")),
        tuple(extract_messages(operation.get("output"), "assistant")),
        error=(as_text(said) or "no reason given") if failure else "",
        assessment=Assessment(tuple(_build_ratings(operation))),
        model=as_text(operation.get("model")),
        session=session,
    )


def _build_ratings(operation: Mapping[str, Any]) -> Iterator[Rating]:
    for score in as_list(operation.get("feedback_scores")):
        name, reason = as_text(score.get("name")), as_text(score.get("reason"))
        kind = _KINDS_BY_SOURCE.get(as_text(score.get("source")), "unknown")
        value = as_text(score.get("category_name")) or score.get("value")
        if isinstance(value, bool | int | float | str) or reason:
            yield Rating(name, value, kind, reason)
    for comment in as_list(operation.get("comments")):
        if text := as_text(comment.get("text")):
            yield Rating("comment", None, "human", text)


OPIK = TraceFormat("opik", matches, read, multi_part=True)
