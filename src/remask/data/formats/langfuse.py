"""Read Langfuse: a trace of the UI or the API, pages of the API, and rows of its exports.

The API has camelCase keys. The blob export has snake_case keys, with inputs and outputs as strings
("" if not set). Scores are in the trace, or in separate rows that name a trace or an observation.
"Export from UI" writes one row per trace or observation, with each score in a column of its own.
Sources: langfuse 3–5, fern/apis/server/definition/commons.yml and scores-v3.yml (2026); "Blob
storage export field reference" (langfuse.com, 2026-10).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from remask.data.dialects import as_list, as_object, decode_json, extract_messages, extract_text, is_truncated
from remask.data.formats.call_tree import NO_ASSESSMENT, Assessment, Operation, build_records
from remask.data.messages import as_text
from remask.data.ratings import list_comments, list_filled, list_rating_values
from remask.data.trace_record import Annotation, Item, Kind, Rating, Record, Source, TraceFormat

_TYPES: Final = frozenset({"GENERATION", "SPAN", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER",
                           "EVALUATOR", "EMBEDDING", "GUARDRAIL"})  # fmt: skip
_KINDS_BY_SOURCE: Final[dict[str, Kind]] = {"ANNOTATION": "human", "EVAL": "llm"}
_SCORE_TYPES: Final = frozenset({"NUMERIC", "CATEGORICAL", "BOOLEAN", "TEXT", "CORRECTION"})
# Columns of the tables in the UI (langfuse 3, packages/shared/src/tableDefinitions, 2026). All others
# are names of scores. A row of the export has at least one of _EXPORT_MARKS.
_EXPORT_MARKS: Final = frozenset({"userId", "sessionId", "bookmarked", "observationCount", "traceTags",
                                  "promptTokens", "levelCounts", "latency", "traceName"})  # fmt: skip
_EXPORT_COLUMNS: Final = _EXPORT_MARKS | {
    "id", "name", "input", "output", "metadata", "tags", "version", "release", "environment", "public",
    "comments", "commentCount", "scores", "timestamp", "startTime", "endTime", "createdAt", "updatedAt",
    "level", "errorCount", "warningCount", "defaultCount", "debugCount", "completionTokens",
    "totalTokens", "usage", "usageDetails", "costDetails", "tokens", "inputCost", "outputCost", "totalCost",
    "traceId", "type", "parentObservationId", "statusMessage", "timeToFirstToken", "tokensPerSecond",
    "model", "modelId", "providedModelName", "modelParameters", "promptName", "promptVersion", "promptId",
    "projectId", "toolDefinitions", "toolCalls", "toolCallNames", "availableTools", "calledTools",
}  # fmt: skip


def matches(value: Any) -> bool:
    """Whether `value` is a trace with observations, an observation, a score, or a page of them."""
    if not isinstance(value, dict):
        return False
    page = value.get("data")
    if isinstance(page, list) and "meta" in value:
        return bool(page) and matches(page[0])
    return _is_trace(value) or _is_observation(value) or _is_score(value) or _is_export_row(value)


def read(value: Any, source: Source) -> Iterator[Item]:
    """Yield the records of a trace or of an observation, or the annotation of a score."""
    if not isinstance(value, dict):
        yield source.reject("is not an object")
    elif isinstance(page := value.get("data"), list):
        for item in page:
            yield from read(item, source)
    elif _is_trace(value):
        yield from _read_trace(value, source)
    elif _is_score(value):
        yield _build_annotation(value, source)
    elif _is_observation(value) and _get_text(value, "type") == "GENERATION":
        call = _build_operation(value, _get_text(value, "trace_id"), "", {})
        if _has_export_keys(value):
            call = replace(call, assessment=_assess_columns(value))
        yield from build_records([call], source)
    elif _is_observation(value):
        yield source.reject(f"is a {_get_text(value, 'type').lower()}, not a model call")
    elif _is_export_row(value):
        yield from _read_export_row(value, source)
    else:
        yield source.reject("is not a trace with observations, an observation or a score")


def _read_export_row(value: Mapping[str, Any], source: Source) -> Iterator[Item]:
    """Yield the record of a trace as "Export from UI" writes it, with a column for each score."""
    call = _build_operation(value, "", "", {})
    read = (
        "id",
        "input",
        "output",
        "sessionId",
        "session_id",
        "scores",
        "comments",
        "level",
        "statusMessage",
    )
    for item in build_records([replace(call, parent="", assessment=_assess_columns(value))], source):
        if isinstance(item, Record):
            unused = (
                key for key in list_filled(value) if key not in read and not _is_score_column(key, value)
            )
            item = replace(item, unused=tuple(unused))
        yield item


def _assess_columns(row: Mapping[str, Any]) -> Assessment:
    """Return the scores of a row: lists of values in columns with the scores' names."""
    ratings = [
        Rating(name, value)
        for name in row
        if _is_score_column(name, row)
        for value in list_rating_values(row[name])
    ]
    ratings += (Rating("comment", None, comment=text) for text in list_comments(row.get("comments")))
    listed = [_assess(score) for score in as_list(row.get("scores"))]
    desired = next((found.desired for found in listed if found.desired is not None), None)
    return Assessment((*ratings, *(rating for found in listed for rating in found.ratings)), desired)


def _is_score_column(name: str, row: Mapping[str, Any]) -> bool:
    """Whether a column holds scores: a list of numbers or of words in a column that is not Langfuse's."""
    held = decode_json(row[name])
    if name in _EXPORT_COLUMNS or not isinstance(held, list) or not held:
        return False
    return all(isinstance(item, bool | int | float | str) for item in held)


def _read_trace(value: Mapping[str, Any], source: Source) -> Iterator[Item]:
    trace = as_object(value.get("trace")) or value
    id = _get_text(trace, "id")
    scores = as_list(trace.get("scores"))
    if trace is not value:
        scores += as_list(value.get("scores"))
    assessments: dict[str, Assessment] = {}  # by observation; "" is the trace
    for score in scores:
        at, new = _get_text(score, "observation_id"), _assess(score)
        before = assessments.get(at, NO_ASSESSMENT)
        desired = before.desired if new.desired is None else new.desired
        assessments[at] = Assessment(before.ratings + new.ratings, desired)
    overall = assessments.pop("", NO_ASSESSMENT)
    observations = as_list(value.get("observations")) or as_list(trace.get("observations"))
    session = _get_text(trace, "session_id")
    calls = [_build_operation(row, id, session, assessments) for row in observations]
    calls.append(Operation(id, id, "", False, *_extract_messages(trace), session=session))
    yield from build_records(calls, source, overall)


def _build_operation(
    row: Mapping[str, Any], trace: str, session: str, assessments: Mapping[str, Assessment]
) -> Operation:
    id = _get_text(row, "id")
    failed = _get_text(row, "level") == "ERROR"
    cut = any(is_truncated(row.get(key)) for key in ("input", "output"))
    error = "its input or output is truncated" if cut else ""
    return Operation(
        trace,
        id,
        _get_text(row, "parent_observation_id") or trace,
        _get_text(row, "type") == "GENERATION",
        *_extract_messages(row),
        error=(_get_text(row, "status_message") or "no reason given") if failed else error,
        assessment=assessments.get(id, NO_ASSESSMENT),
        model=_get_text(row, "model") or _get_text(row, "provided_model_name"),
        session=session or _get_text(row, "session_id"),
    )


def _extract_messages(row: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return (input, output). JSON in the input is parsed; in the output it can be the answer."""
    asked = extract_messages(decode_json(row.get("input")), "user")
    return tuple(asked), tuple(extract_messages(row.get("output"), "assistant"))


def _build_annotation(score: Mapping[str, Any], source: Source) -> Item:
    subject = as_object(score.get("subject"))  # of version 3
    key = _get_text(score, "observation_id") or _get_text(score, "trace_id")
    if subject.get("kind") in ("trace", "observation"):
        key = _get_text(subject, "id")
    assessment = _assess(score)
    if not key:
        return source.reject("is a score of a session or of a dataset run, not of a response")
    if not assessment:
        return source.reject("is a score without value and comment")
    return Annotation(key, source, (), assessment.ratings, assessment.desired)


def _assess(score: Mapping[str, Any]) -> Assessment:
    """Parse a score. Version 3 of the API has only `value`, older ones also `stringValue`."""
    name, kind = _get_text(score, "name"), _get_text(score, "data_type")
    text, number = _get_text(score, "string_value"), score.get("value")
    comment = _get_text(score, "comment")
    judge = _KINDS_BY_SOURCE.get(_get_text(score, "source"), "unknown")
    if isinstance(number, str):
        text = text or number
    if kind == "CORRECTION":
        return Assessment(desired=extract_text(text, "assistant") or None)
    if kind == "TEXT":
        words = "\n".join(filter(None, (text, comment)))
        return Assessment((Rating(name, None, judge, words),) if words else ())
    value: float | bool | str | None = number if isinstance(number, int | float) else None
    if kind == "CATEGORICAL" and text:
        value = text
    elif kind == "BOOLEAN":
        value = bool(number) if value is not None else text.lower() in ("true", "1")
    elif value is None:
        value = _parse_number(text)
    if value is None and not comment:
        return NO_ASSESSMENT
    return Assessment((Rating(name, value, judge, comment),))


def _parse_number(text: str) -> float | str | None:
    """Return a number of a CSV row; the text itself if it is not a number."""
    try:
        return float(text)
    except ValueError:
        return text or None


def _is_trace(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("observations"), list) and (
        isinstance(value.get("trace"), dict) or "id" in value
    )


def _is_observation(value: Mapping[str, Any]) -> bool:
    return _get_text(value, "type") in _TYPES and bool(_get_text(value, "trace_id"))


def _is_score(value: Mapping[str, Any]) -> bool:
    return _get_text(value, "data_type") in _SCORE_TYPES and "name" in value and "source" in value


def _is_export_row(value: Mapping[str, Any]) -> bool:
    timed = "timestamp" in value or "startTime" in value
    return "id" in value and "input" in value and "output" in value and timed and _has_export_keys(value)


def _has_export_keys(value: Mapping[str, Any]) -> bool:
    return not _EXPORT_MARKS.isdisjoint(value)


def _get_text(row: Mapping[str, Any], snake: str) -> str:
    """Return a field as text; its key may be in snake_case or camelCase."""
    value = row.get(snake)
    if value is None and "_" in snake:
        first, *rest = snake.split("_")
        value = row.get(first + "".join(part.title() for part in rest))
    return as_text(value)


LANGFUSE = TraceFormat("langfuse", matches, read, multi_part=True)
