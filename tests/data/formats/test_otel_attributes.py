"""Spans and log records: every generation of the conventions gives the same conversation.

Shapes: opentelemetry-proto 1.x JSON mapping; opentelemetry semantic-conventions v1.36.0
docs/gen-ai/gen-ai-events.md (events per message) and v1.37+ docs/gen-ai/non-normative/
examples-llm-calls.md, gen-ai-events.md; Arize-ai/openinference spec/llm_spans.md, annotations.md
(10e86fc3, 2026); OpenLLMetry `gen_ai.prompt.0.…`; pydantic-ai `all_messages_events`.
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from fakes.records import items_of, record_of
from remask.data.formats.otel_attributes import get_value
from remask.data.formats.otlp import OTLP, SPAN
from remask.data.trace_record import Annotation, Rating, Record, RejectedRecord, Source, Turn

HERE = Source("otlp", "spans.jsonl", 7)
SYSTEM, QUESTION, ANSWER = "You are terse.", "Weather in Paris?", "Rainy, 57°F."
PARTS = [{"role": "user", "parts": [{"type": "text", "content": QUESTION}]}]
SAID = [{"role": "assistant", "parts": [{"type": "text", "content": ANSWER}], "finish_reason": "stop"}]
INSTRUCTIONS = [{"type": "text", "content": SYSTEM}]

BY_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "1.37 JSON text on spans": {
        "gen_ai.operation.name": "chat",
        "gen_ai.system_instructions": json.dumps(INSTRUCTIONS),
        "gen_ai.input.messages": json.dumps(PARTS),
        "gen_ai.output.messages": json.dumps(SAID),
    },
    "1.37 structured": {
        "gen_ai.system_instructions": INSTRUCTIONS,
        "gen_ai.input.messages": PARTS,
        "gen_ai.output.messages": [*SAID, {"role": "assistant", "parts": []}],
    },
    "OpenLLMetry indexed": {
        "gen_ai.prompt.0.role": "system",
        "gen_ai.prompt.0.content": SYSTEM,
        "gen_ai.prompt.1.role": "user",
        "gen_ai.prompt.1.content": QUESTION,
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": ANSWER,
        "gen_ai.completion.1.content": "a second choice that was not used",
    },
    "one JSON text": {
        "gen_ai.prompt": json.dumps(
            [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
        ),
        "gen_ai.completion": json.dumps([{"role": "assistant", "content": ANSWER}]),
    },
    "OpenInference flattened": {
        "openinference.span.kind": "LLM",
        "llm.input_messages.0.message.role": "system",
        "llm.input_messages.0.message.content": SYSTEM,
        "llm.input_messages.1.message.role": "user",
        "llm.input_messages.1.message.contents.0.message_content.type": "text",
        "llm.input_messages.1.message.contents.0.message_content.text": QUESTION,
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": ANSWER,
    },
    "OpenInference as Phoenix saves it": {
        "openinference.span.kind": "LLM",
        "llm.input_messages": [
            {"message.role": "system", "message.content": SYSTEM},
            {"message.role": "user", "message.content": QUESTION},
        ],
        "llm.output_messages": [{"message.role": "assistant", "message.content": ANSWER}],
    },
    "Logfire": {
        "all_messages_events": json.dumps(
            [
                {"content": SYSTEM, "role": "system", "event.name": "gen_ai.system.message"},
                {"content": QUESTION, "role": "user", "event.name": "gen_ai.user.message"},
                {"content": ANSWER, "role": "assistant", "event.name": "gen_ai.assistant.message"},
            ]
        )
    },
    "Vercel AI SDK": {
        "ai.prompt.messages": json.dumps(
            [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
            ]
        ),
        "ai.response.text": ANSWER,
    },
    "input.value and output.value": {
        "openinference.span.kind": "LLM",
        "input.value": json.dumps({"system": SYSTEM, "messages": [{"role": "user", "content": QUESTION}]}),
        "output.value": json.dumps({"choices": [{"message": {"role": "assistant", "content": ANSWER}}]}),
    },
}


def any_value(value: object) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(item) for item in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": pairs(value)}}
    return {"stringValue": value}


def pairs(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": any_value(value)} for key, value in attributes.items()]


def span(id: str, attributes: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    known = {"traceId": "ab" * 16, "spanId": id * 8, "name": "chat", "attributes": pairs(attributes)}
    return known | more


def otlp(*spans: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}


def logs(*records: dict[str, Any]) -> dict[str, Any]:
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": list(records)}]}]}


read = partial(items_of, OTLP, HERE)
one = partial(record_of, OTLP, HERE)


@pytest.mark.parametrize("name", BY_ATTRIBUTES)
def test_conventions_give_the_same_conversation(name: str) -> None:
    record = one(otlp(span("a1", BY_ATTRIBUTES[name])))
    assert record.system == SYSTEM
    assert record.turns == (Turn("user", QUESTION), Turn("assistant", ANSWER))


@pytest.mark.parametrize("name", BY_ATTRIBUTES)
def test_single_span_reads_like_one_in_otlp(name: str) -> None:
    """opentelemetry-sdk ReadableSpan.to_json: plain attributes, ids in `context` with 0x."""
    value = {
        "context": {"trace_id": "0x" + "ab" * 16, "span_id": "0x" + "a1" * 8},
        "parent_id": None,
        "status": {"status_code": "UNSET"},
        "attributes": BY_ATTRIBUTES[name],
        "events": [],
    }
    assert SPAN.matches(value) and not OTLP.matches(value)
    (record,) = SPAN.read(value, HERE)
    assert isinstance(record, Record)
    same = one(otlp(span("a1", BY_ATTRIBUTES[name])))
    assert (record.id, record.system, record.turns) == (same.id, same.system, same.turns)


def test_span_events_with_one_message_each() -> None:
    """v1.36.0: attributes of span events; azure-ai-inference puts JSON in gen_ai.event.content."""
    events = [
        {"name": "gen_ai.system.message", "attributes": pairs({"content": SYSTEM})},
        {
            "name": "gen_ai.user.message",
            "attributes": pairs({"gen_ai.event.content": json.dumps({"role": "user", "content": QUESTION})}),
        },
        {
            "name": "gen_ai.choice",
            "attributes": pairs({"index": 0, "message": json.dumps({"content": ANSWER})}),
        },
        {"name": "gen_ai.choice", "attributes": pairs({"index": 1, "message": "{}"})},
    ]
    record = one(otlp(span("a1", {"gen_ai.operation.name": "chat"}, events=events)))
    assert (record.system, [turn.text for turn in record.turns]) == (SYSTEM, [QUESTION, ANSWER])


def test_log_records_one_message_each_with_tool_calls() -> None:
    """opentelemetry-instrumentation-openai-v2: bodies of log events, joined by their span."""
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    bodies = [
        ("gen_ai.user.message", {"content": QUESTION}),
        ("gen_ai.assistant.message", {"tool_calls": [call]}),
        ("gen_ai.tool.message", {"content": "57°F", "id": "c1"}),
        ("gen_ai.choice", {"index": 0, "message": {"role": "assistant", "content": ANSWER}}),
    ]
    records = [
        {"traceId": "ab" * 16, "spanId": "a1" * 8, "eventName": name, "body": any_value(body)}
        for name, body in bodies
    ]
    record = one(logs(*records))
    assert [turn.role for turn in record.turns] == ["user", "assistant", "tool", "assistant"]
    assert record.turns[1].text == "weather()"


def test_details_event_and_rating_of_its_span() -> None:
    details = {
        "traceId": "ab" * 16,
        "spanId": "a1" * 8,
        "eventName": "gen_ai.client.inference.operation.details",
        "attributes": pairs(BY_ATTRIBUTES["1.37 structured"] | {"gen_ai.response.id": "chatcmpl-1"}),
    }
    result = {
        "traceId": "ab" * 16,
        "spanId": "a1" * 8,
        "attributes": pairs(
            {
                "event.name": "gen_ai.evaluation.result",
                "gen_ai.evaluation.name": "Relevance",
                "gen_ai.evaluation.score.value": 0.25,
                "gen_ai.evaluation.score.label": "not relevant",
                "gen_ai.evaluation.explanation": "it rambles",
                "gen_ai.response.id": "chatcmpl-1",
            }
        ),
    }
    record, rating = read(logs(details, result))
    assert isinstance(record, Record) and isinstance(rating, Annotation)
    assert record.system == SYSTEM
    assert rating.key in record.keys and rating.key == "chatcmpl-1"
    assert rating.ratings == (Rating("Relevance", 0.25, "unknown", "not relevant: it rambles"),)


def test_tool_result_in_both_spellings() -> None:
    for key in ("response", "result"):  # schema and example table of v1.37 differ
        history = [
            *PARTS,
            {"role": "assistant", "parts": [{"type": "tool_call", "id": "1", "name": "find",
                                             "arguments": {"city": "Paris"}}]},
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", key: "57°F"}]},
        ]  # fmt: skip
        attributes = {"gen_ai.input.messages": history, "gen_ai.output.messages": SAID}
        turns = one(otlp(span("a1", attributes))).turns
        assert turns[1:3] == (Turn("assistant", 'find(city="Paris")'), Turn("tool", "57°F", "find"))


def test_annotations_in_both_forms_count_once() -> None:
    said = {
        f"{plural}.0.{single}.{key}": value
        for plural, single in (("annotations", "annotation"), ("evaluations", "evaluation"))
        for key, value in {"name": "correctness", "score": 0, "annotator_kind": "HUMAN"}.items()
    }
    record = one(otlp(span("a1", BY_ATTRIBUTES["OpenInference flattened"] | said)))
    assert record.ratings == (Rating("correctness", 0, "human"),)


def test_evaluation_in_an_event_of_the_span() -> None:
    said = {"gen_ai.evaluation.name": "ok", "gen_ai.evaluation.score.label": "fail"}
    event = {"name": "gen_ai.evaluation.result", "attributes": pairs(said)}
    record = one(otlp(span("a1", BY_ATTRIBUTES["1.37 structured"], events=[event])))
    assert record.ratings == (Rating("ok", "fail"),)


def test_feedback_on_a_step_beside_the_calls_is_rejected() -> None:
    said = {"annotations.0.annotation.name": "relevance", "annotations.0.annotation.score": 0}
    step = span("b2", {"openinference.span.kind": "RETRIEVER"} | said)
    record, rejected = read(otlp(span("a1", BY_ATTRIBUTES["1.37 structured"]), step))
    assert isinstance(record, Record) and not record.ratings
    assert isinstance(rejected, RejectedRecord) and "which has no model call" in rejected.reason


def test_span_with_only_annotations_rates_the_linked_span() -> None:
    said = {"annotations.0.annotation.name": "thumb", "annotations.0.annotation.label": "down"}
    link = {"traceId": "ab" * 16, "spanId": "a1" * 8}
    (addition,) = read(otlp(span("b2", said, links=[link])))
    assert addition == Annotation("a1" * 8, HERE, (), (Rating("thumb", "down"),))


def test_ratings_of_a_step_or_trace_go_to_its_last_call() -> None:
    agent = {"openinference.span.kind": "AGENT", "annotations.0.annotation.name": "good",
             "annotations.0.annotation.score": 1, "trace.annotations.0.annotation.name": "whole",
             "trace.annotations.0.annotation.label": "poor"}  # fmt: skip
    words = BY_ATTRIBUTES["OpenInference flattened"]
    other = words | {"llm.output_messages.0.message.content": "Elsewhere."}
    items = read(
        otlp(
            span("f0", {"openinference.span.kind": "CHAIN"}),
            span("a1", agent, parentSpanId="f0" * 8),
            span("b2", words, parentSpanId="a1" * 8),
            span("c3", words, parentSpanId="a1" * 8),
            span("d4", other, parentSpanId="f0" * 8),
        )
    )
    records = {item.id: item for item in items if isinstance(item, Record)}
    assert len(records) == len(items) == 3
    assert records["b2" * 8].ratings == ()
    assert [r.name for r in records["c3" * 8].ratings] == ["good"]
    assert [r.name for r in records["d4" * 8].ratings] == ["whole"]
    assert "ab" * 16 in records["d4" * 8].keys, "what is said of the trace later on finds it"


def test_calls_with_the_same_beginning_share_a_thread() -> None:
    first = BY_ATTRIBUTES["1.37 structured"]
    second = first | {"gen_ai.input.messages": [*PARTS, *SAID, *PARTS]}
    other = first | {"gen_ai.input.messages": [{"role": "user", "content": "Something else"}]}
    a, b, c = read(otlp(span("a1", first), span("b2", second), span("c3", other)))
    assert isinstance(a, Record) and isinstance(b, Record) and isinstance(c, Record)
    assert a.thread == b.thread != c.thread
    elsewhere = one(otlp(span("d4", first | {"gen_ai.conversation.id": "s"}, traceId="cd" * 16)))
    assert elsewhere.thread not in (a.thread, "")


def test_topmost_step_is_the_conversation_without_model_calls() -> None:
    step = {"input.value": QUESTION, "output.value": '{"answer": 57}'}
    record = one(otlp(span("a1", step), span("b2", step, parentSpanId="a1" * 8)))
    assert record.id == "a1" * 8
    assert record.turns[-1].text == '{"answer": 57}', "an answer may be JSON itself"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (span("a1", {"gen_ai.operation.name": "chat"}), "CAPTURE_MESSAGE_CONTENT=SPAN_ONLY"),
        (span("a1", BY_ATTRIBUTES["1.37 structured"], status={"code": 2, "message": "429"}), "429"),
        (span("a1", {"gen_ai.input.messages": json.dumps(PARTS)}), "no answer"),
        (span("a1", {"gen_ai.output.messages": json.dumps(SAID)}), "no message of a user"),
        (
            span("a1", BY_ATTRIBUTES["1.37 structured"] | {"gen_ai.input.messages": '[{"role": "u'}),
            "gen_ai.input.messages is truncated",
        ),
        (span("a1", {"http.route": "/"}), "holds 1 spans without a model call"),
    ],
)
def test_unusable_span_is_rejected_with_a_reason(value: dict[str, Any], reason: str) -> None:
    (item,) = read(otlp(value))
    assert isinstance(item, RejectedRecord)
    assert reason in item.reason and item.line == 7 and item.path == "spans.jsonl"


def test_indexed_attributes_keep_their_order() -> None:
    attributes = {f"k.{n}.content": str(n) for n in (10, 2, 999_999_999)}
    assert get_value(attributes, "k") == [{"content": "2"}, {"content": "10"}, {"content": "999999999"}]


def test_inner_call_of_two_instrumentations_is_kept() -> None:
    words = BY_ATTRIBUTES["1.37 structured"]
    record = one(otlp(span("a1", words), span("b2", words, parentSpanId="a1" * 8)))
    assert record.keys == ("b2" * 8, "a1" * 8, "ab" * 16)
    silent = span("b2", {"gen_ai.operation.name": "chat"}, parentSpanId="a1" * 8)
    outer, rejected = read(otlp(span("a1", words), silent))
    assert isinstance(outer, Record) and outer.id == "a1" * 8 and isinstance(rejected, RejectedRecord)
