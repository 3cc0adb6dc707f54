"""Read OpenTelemetry: OTLP JSON of spans and log records, and single spans of SDKs and Phoenix.

The file exporter of the Collector writes one OTLP object per line. Log records contain ratings, and
the messages if content is stored in events and not in spans; the records of one span make one
operation. An OTLP object can hold parts of a trace, which are joined by `Record.keys`.

Sources: opentelemetry-proto 1.x (trace.proto, logs.proto, common.proto; in JSON, ids are
hexadecimal and 64-bit numbers are strings); opentelemetry-sdk 1.3x `ReadableSpan.to_json`;
OpenInference spec/llm_spans.md.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from remask.data.dialects import as_list, as_object, decode_json
from remask.data.formats.call_tree import Assessment, Operation, build_records, group_by_trace
from remask.data.formats.otel_attributes import (
    ALIAS_KEYS,
    DETAILS_EVENT,
    EVALUATION_EVENT,
    EVENT_ROLES,
    NO_TEXT_REASON,
    Event,
    Span,
    describe_failure,
    operation_from_span,
    parse_annotations,
    parse_evaluation,
)
from remask.data.messages import as_text
from remask.data.trace_record import Annotation, Item, Rating, Source, TraceFormat

_SPAN_PATH = (("resourceSpans", "resource_spans"), ("scopeSpans", "scope_spans",
          "instrumentationLibrarySpans"), ("spans",))  # fmt: skip
_LOG_PATH = (("resourceLogs", "resource_logs"), ("scopeLogs", "scope_logs"),
         ("logRecords", "log_records"))  # fmt: skip


def matches(value: Any) -> bool:
    """Whether `value` is an OTLP object of spans or of log records."""
    if not isinstance(value, dict):
        return False
    return any(isinstance(value.get(key), list) for key in _SPAN_PATH[0] + _LOG_PATH[0])


def read(value: Any, source: Source) -> Iterator[Item]:
    """Yield the records of each trace, and one reject for all spans without a model call."""
    if not isinstance(value, dict):
        yield source.reject("is not an object with resourceSpans or resourceLogs")
        return
    spans = [_parse_span(span) for span in _collect_leaves(value, _SPAN_PATH)]
    logs = [_parse_log(log) for log in _collect_leaves(value, _LOG_PATH)]
    yield from _read_spans(spans, source)
    yield from _read_logs(logs, source)
    if not spans and not logs:
        yield source.reject("holds no spans and no log records")


def matches_span(value: Any) -> bool:
    """Whether `value` is one span as an SDK's console exporter or Phoenix writes it."""
    if not isinstance(value, dict):
        return False
    if "context.span_id" in value and "context.trace_id" in value:
        return True  # a row of the table of Phoenix
    if _is_flat_span(value):
        return True
    if not isinstance(value.get("attributes"), dict):
        return False
    context = value.get("context")
    return isinstance(context, dict) and "span_id" in context and "trace_id" in context


def read_span(value: Any, source: Source) -> Iterator[Item]:
    """Yield the record of one span.

    The calls within a step are on other lines, so a step becomes a record if it is the root.
    """
    if not matches_span(value):
        yield source.reject("is not a span with context and attributes")
        return
    if "context.span_id" in value:
        value = _nest_columns(value)
    elif _is_flat_span(value):
        value = _nest_flat_span(value)
    status = value.get("status")
    code = status.get("status_code") if isinstance(status, dict) else value.get("status_code")
    text = status.get("description") if isinstance(status, dict) else value.get("status_message")
    context = value["context"]
    events = tuple(_parse_event(event) for event in as_list(value.get("events")))
    span = Span(
        trace=_parse_id(context["trace_id"]),
        id=_parse_id(context["span_id"]),
        parent=_parse_id(value.get("parent_id")),
        attributes=value["attributes"],
        events=events,
        error=describe_failure(str(code).upper() in _FAILED, text, events),
        links=tuple(_parse_id(as_object(link.get("context")).get("span_id"))
                    for link in as_list(value.get("links"))),
    )  # fmt: skip
    yield from _read_spans([span], source)


_FAILED = ("ERROR", "STATUS_CODE_ERROR", "2")
# Names of the columns of a span in a table, as databases of spans have it (ClickHouse, Logfire).
_FLAT = {
    "trace": ("trace_id", "traceId", "TraceId"),
    "span": ("span_id", "spanId", "SpanId"),
    "parent": ("parent_span_id", "parentSpanId", "ParentSpanId", "parent_id", "parentId"),
    "attributes": ("attributes", "span_attributes", "spanAttributes", "SpanAttributes"),
    "status": ("status_code", "statusCode", "StatusCode", "otel_status_code"),
    "message": ("status_message", "statusMessage", "StatusMessage", "otel_status_message"),
    "events": ("events", "otel_events"),
}


def _get_flat(row: Mapping[str, Any], what: str) -> Any:
    return next((row[name] for name in _FLAT[what] if row.get(name) is not None), None)


def _is_flat_span(row: Mapping[str, Any]) -> bool:
    """Whether a row has the ids of a span beside its attributes, not in a context."""
    if _get_flat(row, "trace") is None or _get_flat(row, "span") is None:
        return False
    return isinstance(decode_json(_get_flat(row, "attributes")), dict)


def _nest_flat_span(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the span of a row with the ids beside its attributes."""
    status = row.get("status")
    return {
        "context": {"trace_id": _get_flat(row, "trace"), "span_id": _get_flat(row, "span")},
        "parent_id": _get_flat(row, "parent"),
        "attributes": decode_json(_get_flat(row, "attributes")),
        "status": status if isinstance(status, dict) else None,
        "status_code": _get_flat(row, "status"),
        "status_message": _get_flat(row, "message"),
        "events": decode_json(_get_flat(row, "events")),
    }


def _nest_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the span of a row with columns such as `context.span_id` and `attributes.input.value`."""
    found: dict[str, Any] = {**row, "context": {}, "attributes": {}}
    for name, value in row.items():
        group, _, key = name.partition(".")
        if group in ("context", "attributes") and key and value is not None:
            found[group][key] = value
    return found


def _read_spans(spans: list[Span], source: Source) -> Iterator[Item]:
    calls: list[Operation] = []
    overall: dict[str, list[Rating]] = {}  # ratings of a whole trace
    for span in spans:
        call = operation_from_span(span)
        overall.setdefault(span.trace, []).extend(parse_annotations(span.attributes, "trace."))
        if span.links and call.assessment and not call.output:  # a span that only holds ratings
            for link in span.links:
                yield Annotation(link, source, ratings=call.assessment.ratings)
        else:
            calls.append(call)
    skipped = 0
    for trace in group_by_trace(calls):
        assessment = Assessment(tuple(overall[trace[0].trace]))
        if assessment or any(map(_is_conversation, trace)):
            yield from build_records(trace, source, assessment, NO_TEXT_REASON)
        else:
            skipped += len(trace)
    if skipped:
        yield source.reject(f"holds {skipped} spans without a model call")


def _is_conversation(call: Operation) -> bool:
    """Whether this is a model call, a rated operation, or a root with input and output."""
    root = not call.parent and bool(call.input) and bool(call.output)
    return call.model_call or bool(call.assessment) or root


def _read_logs(logs: list[tuple[str, str, Event]], source: Source) -> Iterator[Item]:
    """Yield one operation per span of the log records, and ratings for the spans they name."""
    events_by_span: dict[tuple[str, str], list[Event]] = {}
    ratings: list[tuple[str, tuple[Rating, ...]]] = []
    for trace, id, event in logs:
        if event.name == EVALUATION_EVENT:
            response = as_text(event.attributes.get(ALIAS_KEYS[0]))
            ratings.append((response or id, tuple(parse_evaluation(event.attributes))))
        elif event.name in EVENT_ROLES or event.name == DETAILS_EVENT:
            events_by_span.setdefault((trace, id), []).append(event)
    for (trace, id), events in events_by_span.items():
        yield from build_records(
            [operation_from_span(Span(trace, id, "", {}, tuple(events)))], source, no_text=NO_TEXT_REASON
        )
    for key, found in ratings:
        if key and found:
            yield Annotation(key, source, ratings=found)
        else:
            yield source.reject("holds a rating without a span and without a response")
    if logs and not events_by_span and not ratings:
        yield source.reject(f"holds {len(logs)} log records without messages")


def _collect_leaves(value: Mapping[str, Any], path: tuple[tuple[str, ...], ...]) -> list[dict[str, Any]]:
    """Return the objects in nested lists. `path`: the possible keys of the list at each level."""
    level: list[Mapping[str, Any]] = [value]
    for names in path:
        level = [item for outer in level for name in names for item in as_list(outer.get(name))]
    return [item for item in level if isinstance(item, dict)]


def _parse_span(span: Mapping[str, Any]) -> Span:
    status = as_object(span.get("status"))
    failed = status.get("code") in (2, "2", "STATUS_CODE_ERROR")
    events = tuple(
        Event(as_text(event.get("name")), parse_attributes(event.get("attributes")))
        for event in as_list(span.get("events"))
    )
    return Span(
        trace=_parse_id(_get_field(span, "traceId")),
        id=_parse_id(_get_field(span, "spanId")),
        parent=_parse_id(_get_field(span, "parentSpanId")),
        attributes=parse_attributes(span.get("attributes")),
        events=events,
        error=describe_failure(failed, status.get("message"), events),
        links=tuple(_parse_id(_get_field(link, "spanId")) for link in as_list(span.get("links"))),
    )


def _parse_log(log: Mapping[str, Any]) -> tuple[str, str, Event]:
    """Return (trace id, span id, event) of a log record."""
    attributes = parse_attributes(log.get("attributes"))
    name = as_text(_get_field(log, "eventName") or attributes.get("event.name"))
    body = parse_any_value(log.get("body"))
    event = Event(name, attributes, body)
    return _parse_id(_get_field(log, "traceId")), _parse_id(_get_field(log, "spanId")), event


def _parse_event(event: Mapping[str, Any]) -> Event:
    return Event(as_text(event.get("name")), as_object(event.get("attributes")))


def parse_attributes(pairs: object) -> dict[str, Any]:
    """Convert OTLP's list of `{"key", "value": {"stringValue": …}}` to a dictionary."""
    if isinstance(pairs, dict):
        return pairs
    return {as_text(pair.get("key")): parse_any_value(pair.get("value")) for pair in as_list(pairs)}


def parse_any_value(value: object) -> object:
    """Convert OTLP's AnyValue (common.proto) to plain JSON."""
    if not isinstance(value, dict):
        return value
    for name, inner in value.items():
        match name.replace("_v", "V"):
            case "stringValue" | "boolValue" | "bytesValue" | "doubleValue":
                return inner
            case "intValue":
                return int(inner) if isinstance(inner, str) and _is_number(inner) else inner
            case "arrayValue":
                return [parse_any_value(item) for item in _list_values(inner)]
            case "kvlistValue":
                return parse_attributes(_list_values(inner))
    return None


def _is_number(text: str) -> bool:
    return len(text) < 21 and text.removeprefix("-").isdecimal()


def _list_values(value: object) -> list[Any]:
    items = as_object(value).get("values")
    return items if isinstance(items, list) else []


def _get_field(value: Mapping[str, Any], camel: str) -> object:
    """Return a field by its camelCase key, or by the snake_case key that some tools write."""
    if camel in value:
        return value[camel]
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in camel)
    return value.get(snake)


def _parse_id(value: object) -> str:
    """Return an id as text; "" for an id of zeros, which means none."""
    text = as_text(value).removeprefix("0x")
    return text if text.strip("0") else ""


OTLP = TraceFormat("otlp", matches, read, multi_part=True)
SPAN = TraceFormat("span", matches_span, read_span, multi_part=True)
