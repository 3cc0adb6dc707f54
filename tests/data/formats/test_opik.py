"""Opik. Shape: comet-ml/opik sdks/python/src/opik/cli/exports/utils.py (03a31a3e: `trace`, `spans`)
and rest_api/types/trace_public.py, feedback_score_public.py (007d11a5, 2148258e)."""

from typing import Any

from fakes.records import items_of
from remask.data.formats.opik import OPIK
from remask.data.trace_record import Item, Rating, Record, RejectedRecord, Source

HERE = Source("opik", "trace_1.json", 1)
SPAN: dict[str, Any] = {
    "id": "s1",
    "trace_id": "t1",
    "parent_span_id": None,
    "type": "llm",
    "model": "gpt-4o",
    "input": {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]},
    "output": {"choices": [{"message": {"role": "assistant", "content": "hello"}}]},
    "error_info": None,
}
TRACE: dict[str, Any] = {
    "id": "t1",
    "name": "chat",
    "input": {"question": "hi"},
    "output": {"answer": "hello"},
    "thread_id": "chat-7",
    "feedback_scores": [
        {"name": "thumb", "value": 0.0, "reason": "cold", "source": "ui"},
        {"name": "tone", "value": 1.0, "category_name": "warm", "source": "online_scoring"},
    ],
    "comments": [{"text": "could be warmer"}],
}


def read(trace: dict[str, Any], *spans: dict[str, Any]) -> list[Item]:
    value = {"trace": trace, "spans": list(spans), "downloaded_at": "2026-08-01T10:00:00"}
    return items_of(OPIK, HERE, value)


def test_model_call_gets_the_feedback_on_the_trace() -> None:
    (record,) = read(TRACE, SPAN, SPAN | {"id": "s2", "type": "tool", "parent_span_id": "s1"})
    assert isinstance(record, Record)
    assert (record.id, record.system, record.model) == ("s1", "Be kind.", "gpt-4o")
    assert record.ratings == (
        Rating("thumb", 0.0, "human", "cold"),
        Rating("tone", "warm", "llm"),
        Rating("comment", None, "human", "could be warmer"),
    )
    assert record.thread


def test_trace_without_a_call_is_the_conversation() -> None:
    (record,) = read(TRACE)
    assert isinstance(record, Record) and len(record.ratings) == 3
    assert [turn.text for turn in record.turns] == ["hi", "hello"]


def test_failed_call_is_rejected_with_its_rating() -> None:
    failed = SPAN | {"error_info": {"exception_type": "RateLimit"}}
    failed |= {"feedback_scores": [{"name": "thumb", "value": 0.0, "source": "ui"}]}
    items = read(TRACE | {"feedback_scores": [], "comments": []}, failed, SPAN | {"id": "s2"})
    assert [type(item) for item in items] == [Record, RejectedRecord]
    assert isinstance(items[0], Record) and not items[0].ratings
    assert isinstance(items[1], RejectedRecord) and items[1].reason == "s1: the call failed: RateLimit"
