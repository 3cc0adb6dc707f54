"""Langfuse. Shapes: langfuse/langfuse fern/apis/server/definition/commons.yml (0010e28f:
TraceWithFullDetails, ObservationsView, Score) and scores-v3.yml (05f88e7a); "Blob storage export
field reference", langfuse.com, 2026-10."""

import json
from functools import partial
from typing import Any

import pytest

from fakes.records import items_of
from remask.data.formats.langfuse import LANGFUSE
from remask.data.trace_record import Annotation, Rating, Record, RejectedRecord, Source, Turn

HERE = Source("langfuse", "export.jsonl", 3)
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is my order?"}]
SAID = {"role": "assistant", "content": "On its way."}


def observation(id: str, kind: str = "GENERATION", **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "traceId": "t1",
        "type": kind,
        "name": "answer",
        "startTime": "2026-08-01T10:00:00.000Z",
        "level": "DEFAULT",
        "statusMessage": None,
        "model": "gpt-4o",
        "input": MESSAGES,
        "output": SAID,
        "parentObservationId": None,
    } | more


def score(kind: str, value: object, text: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": "s1",
        "traceId": "t1",
        "observationId": None,
        "name": "helpful",
        "source": "ANNOTATION",
        "dataType": kind,
        "value": value,
        "stringValue": text,
        "comment": None,
    } | more


def trace(*scores: dict[str, Any], observations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "t1",
        "timestamp": "2026-08-01T10:00:00.000Z",
        "sessionId": "chat-7",
        "input": {"question": "Where is my order?"},
        "output": "On its way.",
        "observations": observations,
        "scores": list(scores),
    }


def snake(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the blob export: snake case, inputs and outputs as text, "" for null."""
    names = ["".join(f"_{c.lower()}" if c.isupper() else c for c in key) for key in row]
    values = [json.dumps(v) if isinstance(v, dict | list) else v for v in row.values()]
    return dict(zip(names, ("" if value is None else value for value in values), strict=True))


read = partial(items_of, LANGFUSE, HERE)


def test_trace_with_all_fields() -> None:
    scores = (
        score("BOOLEAN", 1, "True"),
        score("NUMERIC", 0.3, source="EVAL", name="tone", comment="curt"),
        score("CATEGORICAL", None, "partly", source="API", observationId="g1"),
    )
    value = trace(*scores, observations=[observation("a", "AGENT"),
                                         observation("g1", parentObservationId="a")])  # fmt: skip
    for form in (value, {"trace": value, "observations": value["observations"]}):
        (record,) = read(form)
        assert isinstance(record, Record)
        assert record.system == "Be brief." and record.model == "gpt-4o"
        assert record.turns == (Turn("user", "Where is my order?"), Turn("assistant", "On its way."))
        assert set(record.ratings) == {
            Rating("helpful", True, "human"),
            Rating("tone", 0.3, "llm", "curt"),
            Rating("helpful", "partly"),
        }
        assert record.keys == ("g1", "a", "t1") and record.thread


def test_growing_calls_of_a_session_share_a_thread() -> None:
    later = [*MESSAGES, SAID, {"role": "user", "content": "When?"}]
    one, two = trace(observations=[observation("g1")]), trace(observations=[observation("g2")])
    two |= {"id": "t2", "observations": [observation("g2", traceId="t2", input=later)]}
    (first,), (second,) = read(one), read(two)
    assert isinstance(first, Record) and isinstance(second, Record)
    assert first.thread == second.thread


def test_trace_without_generations_is_the_conversation() -> None:
    (record,) = read(trace(score("NUMERIC", 2), observations=[]))
    assert isinstance(record, Record)
    assert [turn.text for turn in record.turns] == ["Where is my order?", "On its way."]
    assert record.ratings == (Rating("helpful", 2, "human"),)


@pytest.mark.parametrize(
    "correction",
    [
        score("CORRECTION", "It arrives today.", name="output"),  # API v3
        score("CORRECTION", 0, "It arrives today.", name="output"),  # before
        score("CORRECTION", 0, json.dumps({"role": "assistant", "content": "It arrives today."})),
    ],
)
def test_correction_is_the_desired_response(correction: dict[str, Any]) -> None:
    (record,) = read(trace(correction, observations=[observation("g1")]))
    assert isinstance(record, Record)
    assert record.desired == "It arrives today." and not record.ratings


def test_blob_export_rows() -> None:
    (record,) = read(snake(observation("g1")))
    assert isinstance(record, Record)
    assert record.system == "Be brief." and record.turns[-1].text == "On its way."
    (addition,) = read(snake(score("NUMERIC", 4.0, observationId="g1", comment="good")))
    assert isinstance(addition, Annotation) and addition.key in record.keys
    assert addition.ratings == (Rating("helpful", 4.0, "human", "good"),)
    (whole,) = read(snake(score("TEXT", None, "rude", source="API")))
    assert isinstance(whole, Annotation) and whole.key in record.keys
    assert whole.ratings == (Rating("helpful", None, "unknown", "rude"),)


def test_answer_that_is_json_is_not_changed() -> None:
    (record,) = read(snake(observation("g1", output='{"label": "late"}')))
    assert isinstance(record, Record) and record.turns[-1].text == '{"label": "late"}'


def test_page_of_the_api() -> None:
    page = {"data": [observation("g1"), observation("g2")], "meta": {"page": 1}}
    assert [item.id for item in read(page) if isinstance(item, Record)] == ["g1", "g2"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (observation("g1", level="ERROR", statusMessage="429"), "the call failed: 429"),
        (observation("g1", output=None), "no answer"),
        (observation("g1", input=None, output=None), "no text"),
        (observation("g1", "TOOL"), "is a tool"),
        (snake(observation("g1") | {"input": '[{"role": "user", "content": "Whe'}), "truncated"),
        (score("NUMERIC", 1, traceId=None), "not of a response"),
        (snake(score("NUMERIC", None)), "without value and comment"),
    ],
)
def test_unusable_value_is_rejected_with_a_reason(value: dict[str, Any], reason: str) -> None:
    (item,) = read(value)
    assert isinstance(item, RejectedRecord) and reason in item.reason and item.line == 3
