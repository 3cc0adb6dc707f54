"""MLflow traces. Shape: mlflow-skinny 3.17.2 `Trace.to_dict` (entities/span.py, assessment.py);
schema 2: mlflow 2.x entities/trace.py and span.py `from_dict_v2`."""

import base64
import json
from functools import partial
from typing import Any

import pytest

from fakes.records import items_of
from remask.data.formats.mlflow import MLFLOW
from remask.data.trace_record import Rating, Record, RejectedRecord, Source

HERE = Source("mlflow", "trace.json", 1)
MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]


def span_id(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


def span(kind: str, id: str, parent: str | None, asked: object, said: object) -> dict[str, Any]:
    attributes = {"mlflow.spanType": kind, "mlflow.spanInputs": asked, "mlflow.spanOutputs": said}
    return {
        "trace_id": base64.b64encode(bytes(16)).decode(),
        "span_id": span_id(id),
        "parent_span_id": span_id(parent) if parent else None,
        "name": "chat",
        "events": [],
        "status": {"code": "STATUS_CODE_OK", "message": ""},
        "attributes": {key: json.dumps(value) for key, value in attributes.items()},
    }


def assessment(name: str, **more: Any) -> dict[str, Any]:
    maker = {"source_type": "HUMAN", "source_id": "u1"}
    return {"assessment_id": "a-1", "assessment_name": name, "source": maker, "valid": True} | more


CHAT = span(
    "CHAT_MODEL", "aa" * 8, "bb" * 8,
    {"messages": MESSAGES, "model": "gpt-4o"},
    {"choices": [{"message": {"role": "assistant", "content": "hello"}}]},
)  # fmt: skip
ROOT = span("CHAIN", "bb" * 8, None, {"question": "hi"}, "hello")


def trace(*spans: dict[str, Any], assessments: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    info = {
        "trace_id": "tr-1",
        "state": "OK",
        "trace_metadata": {"mlflow.trace_schema.version": "3", "mlflow.trace.session": "s1"},
        "assessments": list(assessments),
        "request_preview": "CUT",
        "response_preview": "CUT",
    }
    return {"info": info, "data": {"spans": list(spans)}}


read = partial(items_of, MLFLOW, HERE)


def test_model_call_gets_the_feedback_on_the_trace() -> None:
    said = assessment("user_satisfaction", feedback={"value": False}, rationale="too short")
    (record,) = read(trace(ROOT, CHAT, assessments=(said,)))
    assert isinstance(record, Record)
    assert (record.system, [t.text for t in record.turns]) == ("Be kind.", ["hi", "hello"])
    assert record.ratings == (Rating("user_satisfaction", False, "human", "too short"),)
    assert record.keys == ("aa" * 8, "bb" * 8, "tr-1") and record.thread


def test_rating_of_a_span_stays_with_the_span() -> None:
    other = span("LLM", "cc" * 8, "bb" * 8, "hi again", "hello again")
    said = assessment("ok", feedback={"value": 4.0}, span_id="aa" * 8)
    first, second = read(trace(ROOT, CHAT, other, assessments=(said,)))
    assert isinstance(first, Record) and isinstance(second, Record)
    assert [rating.value for rating in first.ratings] == [4.0] and not second.ratings


@pytest.mark.parametrize(
    "held",
    [
        {"value": "Hello there!"},
        {"serialized_value": {"value": '"Hello there!"', "serialization_format": "JSON_FORMAT"}},
    ],
)
def test_expected_response_is_the_desired_response(held: dict[str, Any]) -> None:
    (record,) = read(trace(CHAT, assessments=(assessment("expected_response", expectation=held),)))
    assert isinstance(record, Record) and record.desired == "Hello there!" and not record.ratings


def test_other_expectations_become_comments() -> None:
    said = (
        assessment("expected_facts", expectation={"value": ["says hello", "is kind"]}),
        assessment("old", feedback={"value": 1}, valid=False),
        assessment("broken", feedback={"value": None, "error": {"error_code": "TIMEOUT"}}),
    )
    (record,) = read(trace(CHAT, assessments=said))
    assert isinstance(record, Record) and record.desired is None
    assert record.ratings == (Rating("expected_facts", None, "human", "says hello; is kind"),)


def test_trace_of_schema_2() -> None:
    old = {
        "name": "chat",
        "context": {"span_id": "0x" + "aa" * 8, "trace_id": "0x1"},
        "parent_id": None,
        "status_code": "OK",
        "status_message": "",
        "attributes": CHAT["attributes"],
        "events": [],
    }
    info = {"request_id": "tr-2", "timestamp_ms": 1, "status": "OK"}
    data = {"spans": [old], "request": '{"question": "hi"}', "response": '"hello"'}
    (record,) = read({"info": info, "data": data})
    assert isinstance(record, Record) and record.system == "Be kind."
    (bare,) = read({"info": info, "data": data | {"spans": []}})
    assert isinstance(bare, Record) and [turn.text for turn in bare.turns] == ["hi", "hello"]


def test_previews_are_not_read() -> None:
    value = trace()
    for broken in (value, {"info": value["info"]}):
        (item,) = read(broken)
        assert isinstance(item, RejectedRecord) and "previews" in item.reason


def test_failed_call_is_rejected() -> None:
    failed = CHAT | {"status": {"code": "STATUS_CODE_ERROR", "message": "rate limit"}}
    (item,) = read(trace(failed))
    assert isinstance(item, RejectedRecord) and "rate limit" in item.reason
