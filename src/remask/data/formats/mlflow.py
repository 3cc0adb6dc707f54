"""Read MLflow traces (schema 3 and 2): spans with MLflow's keys, and assessments as feedback.

Every attribute is JSON inside a string. Span ids are base64 in spans and hexadecimal in
assessments. Previews and the inputs in the metadata are truncated, so they are not read. Source:
mlflow 3.17 (entities/trace.py, entities/span.py `to_dict`, entities/assessment.py).
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from remask.data.dialects import as_list, as_object, decode_json, extract_messages, extract_text
from remask.data.formats.call_tree import NO_ASSESSMENT, Assessment, Operation, build_records
from remask.data.formats.otel_attributes import Event, Span, describe_failure, operation_from_span
from remask.data.messages import as_text
from remask.data.trace_record import Item, Kind, Rating, Source, TraceFormat

_KINDS_BY_SOURCE: Final[dict[str, Kind]] = {"HUMAN": "human", "LLM_JUDGE": "llm", "AI_JUDGE": "llm",
                                   "CODE": "code"}  # fmt: skip
_EXPECTED: Final = ("expected_response", "expected_output", "expected_answer", "expected",
                    "ground_truth", "answer")  # fmt: skip
_INFO_COLUMNS: Final = ("trace_id", "request_id", "trace_metadata", "request_metadata", "assessments")


def matches(value: Any) -> bool:
    """Whether `value` is a trace: `info`, and `data` with spans or with the request of schema 2.

    A row of the table that `mlflow.search_traces` returns is one, too.
    """
    if not isinstance(value, dict):
        return False
    if _is_row(value):
        return True
    if not isinstance(value.get("info"), dict):
        return False
    info, data = value["info"], value.get("data")
    known = "trace_id" in info or "request_id" in info
    return known and (isinstance(data, dict) or "request_preview" in info)


def read(value: Any, source: Source) -> Iterator[Item]:
    """Yield the records of one trace."""
    if not matches(value):
        yield source.reject("is not an MLflow trace with info and data")
        return
    if _is_row(value):
        value = _trace_from_row(value)
        if value is None:
            yield source.reject(
                "holds Python text in place of JSON; save the table with to_json(orient='records')"
            )
            return
    info, data = value["info"], as_object(value.get("data"))
    trace = as_text(info.get("trace_id") or info.get("request_id"))
    overall, assessments = _group_assessments(info.get("assessments"))
    spans = [_build_span(span, trace) for span in as_list(data.get("spans"))]
    calls = [operation_from_span(span, assessments.get(span.id, NO_ASSESSMENT)) for span in spans]
    if not calls and (data.get("request") or data.get("response")):  # schema 2 without its spans
        asked, answered = (decode_json(data.get(key)) for key in ("request", "response"))
        inputs = tuple(extract_messages(asked, "user"))
        outputs = tuple(extract_messages(answered, "assistant"))
        calls = [Operation(trace, trace, "", False, inputs, outputs)]
    if not calls:
        yield source.reject("holds no spans, only truncated previews; export the whole trace")
        return
    metadata = as_object(info.get("trace_metadata") or info.get("request_metadata"))
    session = as_text(metadata.get("mlflow.trace.session"))
    calls = [replace(call, session=call.session or session) for call in calls]
    yield from build_records(calls, source, overall)


def _is_row(value: Mapping[str, Any]) -> bool:
    named = "trace_id" in value or "request_id" in value
    return named and "spans" in value and ("trace_metadata" in value or "request_metadata" in value)


def _trace_from_row(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the trace of a row: the column `trace`, or its parts; None if neither is JSON."""
    # The columns with parts are newer than the trace, which has no feedback that was given later.
    if not isinstance(spans := decode_json(row["spans"]), list):
        return None
    whole = as_object(row.get("trace"))
    info = {**as_object(whole.get("info")), **{key: row[key] for key in _INFO_COLUMNS if key in row}}
    if row.get("assessments") is not None and not isinstance(decode_json(row["assessments"]), list):
        return None
    return {"info": info, "data": {**as_object(whole.get("data")), "spans": spans}}


def _build_span(span: Mapping[str, Any], trace: str) -> Span:
    context = as_object(span.get("context")) or span
    old = {"code": span.get("status_code"), "message": span.get("status_message")}
    status = as_object(span.get("status")) or old
    failed = as_text(status.get("code")).removeprefix("STATUS_CODE_") == "ERROR"
    events = tuple(
        Event(as_text(event.get("name")), as_object(event.get("attributes")))
        for event in as_list(span.get("events"))
    )
    return Span(
        trace=trace,
        id=_parse_id(context.get("span_id")),
        parent=_parse_id(span.get("parent_span_id", span.get("parent_id"))),
        attributes=as_object(span.get("attributes")),
        events=events,
        error=describe_failure(failed, status.get("message"), events),
    )


def _parse_id(value: object) -> str:
    """Return an id of 8 bytes in hexadecimal. It is base64 in schema 3 and `0x…` in schema 2."""
    text = as_text(value).removeprefix("0x")
    if len(text) != 12:
        return text
    try:
        return base64.b64decode(text, validate=True).hex()
    except (binascii.Error, ValueError):
        return text


def _group_assessments(items: object) -> tuple[Assessment, dict[str, Assessment]]:
    """Return the assessment of the trace, and those of its spans by id."""
    found: dict[str, Assessment] = {}
    for item in as_list(items):
        if item.get("valid") is not False:
            id = _parse_id(item.get("span_id"))
            before, new = found.get(id, NO_ASSESSMENT), _assess(item)
            desired = before.desired if new.desired is None else new.desired
            found[id] = Assessment(before.ratings + new.ratings, desired)
    return found.pop("", NO_ASSESSMENT), found


def _assess(item: Mapping[str, Any]) -> Assessment:
    """Parse one assessment. Some expectations are the right response, others become a comment."""
    name = as_text(item.get("assessment_name") or item.get("name"))
    maker = as_text(as_object(item.get("source")).get("source_type"))
    judge = _KINDS_BY_SOURCE.get(maker, "unknown")
    words = as_text(item.get("rationale"))
    if expected := as_object(item.get("expectation")):
        value = expected.get("value")
        if value is None:
            value = decode_json(as_object(expected.get("serialized_value")).get("value"))
        if name in _EXPECTED and (text := extract_text(value, "assistant")):
            return Assessment(desired=text)
        words = "; ".join(map(as_text, value)) if isinstance(value, list) else as_text(value)
        return Assessment((Rating(name, None, judge, words),) if words else ())
    held = as_object(item.get("feedback"))
    value = None if held.get("error") else held.get("value")
    if isinstance(value, dict | list):
        value, words = None, f"{as_text(value)} {words}".strip()
    return Assessment((Rating(name, value, judge, words),) if value is not None or words else ())


MLFLOW = TraceFormat("mlflow", matches, read, multi_part=True)
