"""Read rows of one call each, as gateways and tracing tools export them.

Each tool has its own keys for the request, the response, ids and scores. What stands in a request
or a response is read by `dialects.py`. Sources (2026): Amazon Bedrock "Model invocation logging" and
"Batch inference", Gemini API `generateContent`, Helicone `POST /v1/request/query`, LiteLLM
`StandardLoggingPayload`, Braintrust `fetch` of logs, W&B Weave `calls_query`, PostHog LLM events,
Datadog LLM Observability spans, Opik `search_traces`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from remask.data.dialects import as_list, as_object, decode_json, extract_messages
from remask.data.formats.call_tree import Assessment, Operation, build_records
from remask.data.messages import ROLES, as_text, find_model, find_session, join_text
from remask.data.ratings import parse_ratings
from remask.data.streams import is_chunk
from remask.data.trace_record import Item, Rating, Source, TraceFormat

ONE_CALL: Final = "holds no request and no response of a model"


@dataclass(frozen=True, slots=True)
class _Tool:
    """The keys of one tool. A path with dots leads into objects."""

    name: str
    marks: tuple[str, ...]  # a row has all of these
    request: tuple[str, ...]  # the first that holds something counts
    response: tuple[str, ...]
    id: tuple[str, ...] = ("id",)
    trace: str = ""
    parent: str = ""
    error: tuple[str, ...] = ("error",)
    kind: str = ""  # says which operation it is
    model_kinds: tuple[str, ...] = ()  # parts of `kind` that mean a model call; () means always
    sends_body: bool = False  # the response is the body of an HTTP response, so JSON in it is no text


_TOOLS: Final = (
    _Tool("bedrock", ("input.inputBodyJson", "output"), ("input.inputBodyJson",), ("output.outputBodyJson",),
          ("requestId",), error=("errorCode",), sends_body=True),
    _Tool("bedrock-batch", ("modelInput",), ("modelInput",), ("modelOutput",), ("recordId",),
          sends_body=True),
    _Tool("gemini-call", ("request.contents", "response"), ("request",), ("response",), ("id", "key"),
          sends_body=True),
    _Tool("gemini", ("contents",), ("",), ("response", "candidates")),
    _Tool("helicone", ("request_body", "response_body"), ("request_body",), ("response_body",),
          ("request_id",), sends_body=True),
    _Tool("braintrust", ("span_attributes", "root_span_id"), ("input",), ("output",), ("span_id", "id"),
          "root_span_id", "span_parents", kind="span_attributes.type", model_kinds=("llm",)),
    _Tool("weave", ("op_name", "inputs"), ("inputs",), ("output",), ("id",), "trace_id", "parent_id",
          ("exception",), "op_name", ("completions.create", "responses.create", "messages.create",
          "generate_content", "completion", "chat.complete", "invoke_model", "converse")),
    _Tool("posthog", ("properties.$ai_input",), ("properties.$ai_input",), ("properties.$ai_output_choices",
          "properties.$ai_output"), ("properties.$ai_span_id", "uuid"), "properties.$ai_trace_id",
          "properties.$ai_parent_id", ("properties.$ai_error",)),
    _Tool("datadog", ("meta.input", "span_id"), ("meta.input",), ("meta.output",), ("span_id",), "trace_id",
          "parent_id", ("meta.error.message",), "meta.kind", ("llm",)),
    _Tool("opik-rows", ("feedback_scores", "input", "output"), ("input",), ("output",), ("id",),
          error=("error_info.message", "error_info.exception_type")),
    _Tool("litellm", ("call_type", "response"), ("messages", "proxy_server_request"), ("response",),
          ("id", "request_id"), error=("error_str",)),
)  # fmt: skip


def _make_format(tool: _Tool) -> TraceFormat:
    def matches(value: Any) -> bool:
        return isinstance(value, dict) and all(_get(value, mark) is not None for mark in tool.marks)

    def read(value: Any, source: Source) -> Iterator[Item]:
        yield from build_records([_build_operation(tool, value)], source, no_text=ONE_CALL)

    return TraceFormat(tool.name, matches, read, multi_part=True)


def _build_operation(tool: _Tool, row: Mapping[str, Any]) -> Operation:
    request, response = _get_first(row, tool.request), _get_first(row, tool.response)
    if tool.sends_body:
        response = decode_json(response)
    kind = as_text(_get(row, tool.kind)).lower() if tool.kind else ""
    parents = _get(row, tool.parent) if tool.parent else None
    parent = as_text(parents[0] if isinstance(parents, list) and parents else parents or "")
    trace, id = as_text(_get(row, tool.trace)) if tool.trace else "", as_text(_get_first(row, tool.id))
    failed = _get_first(row, tool.error)
    metadata = as_object(row.get("metadata"))
    model = find_model(row, request, response, metadata) or as_text(row.get("modelId"))
    ratings, desired = parse_ratings(row)
    asked = tuple(extract_messages(decode_json(request), "user"))
    answered = tuple(extract_messages(response, "assistant"))
    if not answered and asked and ROLES.get(asked[-1]["role"]) == "assistant":  # the answer ends the request
        asked, answered = (), asked
    return Operation(
        trace or id,
        id,
        "" if parent == trace else parent,
        not tool.kind or any(name in kind for name in tool.model_kinds),
        asked,
        answered,
        error=join_text(failed)[:200] if failed else "",
        assessment=Assessment((*ratings, *_list_weave_feedback(row), *_read_rating(row)), desired),
        model=model,
        session=find_session(row, metadata) or as_text(_get(row, "properties.$ai_session_id")),
    )


def _read_rating(row: Mapping[str, Any]) -> Iterator[Rating]:
    """Yield the thumb of a user that Helicone stores beside its scores."""
    if isinstance(value := row.get("feedback_rating"), bool):
        yield Rating("feedback_rating", value, "human")


def _list_weave_feedback(row: Mapping[str, Any]) -> Iterator[Rating]:
    for item in as_list(_get(row, "summary.weave.feedback")):
        payload, kind = as_object(item.get("payload")), as_text(item.get("feedback_type"))
        if emoji := as_text(payload.get("emoji")):
            yield Rating("reaction", emoji, "human")
        elif note := as_text(payload.get("note")):
            yield Rating("note", None, "human", note)
        elif isinstance(value := payload.get("value", payload.get("output")), bool | int | float | str):
            yield Rating(
                kind.removeprefix("wandb.annotation."), value, "human" if "annotation" in kind else "llm"
            )


def _get_first(row: Mapping[str, Any], paths: tuple[str, ...]) -> Any:
    found = (_get(row, path) for path in paths)
    return next((value for value in found if value not in (None, "", "{}", "[]")), None)


def _get(row: Any, path: str) -> Any:
    """Return the value at a path with dots, also within JSON in a string; None if there is none."""
    if not path:
        return row
    for key in path.split("."):
        row = decode_json(row)
        row = row.get(key) if isinstance(row, Mapping) else None
    return row


def matches_incomplete(value: Any) -> bool:
    """Whether `value` is a response, or a chunk of one, without its request."""
    if not isinstance(value, dict) or "messages" in value or "input" in value or "request" in value:
        return False
    return (
        is_chunk(value)
        or value.get("object") == "chat.completion"
        or "candidates" in value
        or (value.get("type") == "message" and value.get("role") == "assistant")
    )


def read_incomplete(value: Any, source: Source) -> Iterator[Item]:
    """Yield one reject: nobody can tell what a response without a request answers."""
    what = "a chunk of a streamed response" if is_chunk(value) else "a response"
    yield source.reject(f"is {what} without its request; log each request with its whole response")


FORMATS = (*map(_make_format, _TOOLS), TraceFormat("responses", matches_incomplete, read_incomplete))
