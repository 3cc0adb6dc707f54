"""LangSmith. Shapes: langchain-ai/langsmith-sdk python/langsmith/schemas.py (017fb358: Run,
Feedback); langchain-core load/dump.py and messages/base.py for serialised messages."""

from functools import partial
from typing import Any

import pytest

from fakes.records import items_of, record_of
from remask.data.formats.langsmith import LANGSMITH
from remask.data.trace_record import Annotation, Rating, RejectedRecord, Source, Turn

HERE = Source("langsmith", "runs.jsonl", 2)


def serialised(kind: str, content: object, **more: Any) -> dict[str, Any]:
    path = ["langchain", "schema", "messages", kind]
    kwargs = {"content": content, "additional_kwargs": {}, **more}
    return {"lc": 1, "type": "constructor", "id": path, "kwargs": kwargs}


CALL = {"name": "find", "args": {"order": 7}, "id": "c1", "type": "tool_call"}
ASKED = {
    "messages": [
        [
            serialised("SystemMessage", "Be brief."),
            serialised("HumanMessage", [{"type": "text", "text": "Where is order 7?"}]),
            serialised("AIMessage", "", tool_calls=[CALL]),
            serialised("ToolMessage", "in transit", tool_call_id="c1"),
        ]
    ]
}
SAID = {
    "generations": [
        [
            {
                "text": "On its way.",
                "type": "ChatGeneration",
                "message": serialised("AIMessageChunk", "On its way."),
            },
            {"text": "not used", "message": serialised("AIMessage", "not used")},
        ]
    ],
    "llm_output": None,
}


def run(kind: str = "llm", **more: Any) -> dict[str, Any]:
    return {
        "id": "run-2",
        "name": "ChatOpenAI",
        "run_type": kind,
        "start_time": "2026-08-01T10:00:00",
        "inputs": ASKED,
        "outputs": SAID,
        "error": None,
        "extra": {"metadata": {"ls_model_name": "gpt-4o", "thread_id": "chat-7"}},
        "parent_run_id": "run-1",
        "trace_id": "run-1",
        "dotted_order": "20260801T100000000000Zrun-1.20260801T100001000000Zrun-2",
        "status": "success",
    } | more


ROOT = run(
    "chain", id="run-1", parent_run_id=None, dotted_order="20260801T100000000000Zrun-1",
    inputs={"question": "Where is order 7?"}, outputs={"answer": "On its way.", "sources": []},
)  # fmt: skip


read = partial(items_of, LANGSMITH, HERE)
one = partial(record_of, LANGSMITH, HERE)


def test_run_with_serialised_langchain_messages() -> None:
    record = one(run())
    assert (record.system, record.model) == ("Be brief.", "gpt-4o")
    assert record.turns == (
        Turn("user", "Where is order 7?"),
        Turn("assistant", "find(order=7)"),
        Turn("tool", "in transit", "find"),
        Turn("assistant", "On its way."),
    )
    assert {"run-1", "run-2"} <= set(record.keys), "feedback on the root finds the call"
    assert record.thread


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"messages": [{"role": "user", "content": "hi"}]},
            {"choices": [{"message": {"role": "assistant", "content": "hello"}}]},
        ),
        ({"input": "hi"}, {"output": "hello"}),
        ({"messages": [{"type": "human", "content": "hi"}]}, {"output": {"type": "ai", "content":
                                                                           "hello"}}),
        (
            {"messages": [{"type": "human", "data": {"content": "hi"}}]},
            {"messages": [{"type": "human", "data": {"content": "hi"}},
                          {"type": "ai", "data": {"content": "hello"}}]},
        ),
        ({"prompts": ["hi", "another of the batch"]}, {"generations": [[{"text": "hello"}]]}),
        (
            {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
            {"candidates": [{"content": {"role": "model", "parts": [{"text": "hello"}]}}]},
        ),
        (
            {"system": "Be kind.", "messages": [{"role": "user", "content": "hi"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "hello"}]},
        ),
        (
            {"instructions": "Be kind.", "input": "hi"},
            {"output": [{"type": "reasoning", "summary": []},
                        {"type": "message", "role": "assistant",
                         "content": [{"type": "output_text", "text": "hello"}]}]},
        ),
    ],
)  # fmt: skip
def test_run_with_values_of_clients(asked: dict[str, Any], said: dict[str, Any]) -> None:
    record = one(run(inputs=asked, outputs=said))
    assert [(turn.role, turn.text) for turn in record.turns] == [("user", "hi"), ("assistant", "hello")]
    assert record.system == ("Be kind." if {"system", "instructions"} & set(asked) else None)


def test_nested_runs_make_one_record_with_the_feedback_on_the_root() -> None:
    said = {"key": "thumb", "score": 0, "comment": "too terse", "feedback_source": {"type": "app"}}
    child = run()
    del child["parent_run_id"]
    record = one(ROOT | {"child_runs": [child], "feedback": [said]})
    assert record.id == "run-2"
    assert record.ratings == (Rating("thumb", 0, "human", "too terse"),)


def test_root_alone_has_the_averages_of_its_feedback() -> None:
    record = one(ROOT | {"feedback_stats": {"thumb": {"n": 2, "avg": 0.5, "comments": ["hm"]}}})
    assert [turn.text for turn in record.turns] == ["Where is order 7?", "On its way."]
    assert record.ratings == (Rating("thumb", 0.5, "unknown", "hm"),)


@pytest.mark.parametrize(
    ("correction", "ratings", "desired"),
    [
        ("It arrives today.", (Rating("c", 0.0),), "It arrives today."),
        ({"answer": "It arrives today."}, (Rating("c", 0.0),), "It arrives today."),
        ({"score": 1}, (Rating("c", 1),), None),  # of the judge, not of the response
        (None, (Rating("c", 0.0),), None),
    ],
)
def test_feedback_row_becomes_an_annotation(
    correction: object, ratings: tuple[Rating, ...], desired: str | None
) -> None:
    row = {"id": "f1", "run_id": "run-1", "key": "c", "score": 0.0, "correction": correction}
    (item,) = read(row | {"value": None, "comment": None, "feedback_source": {"type": "api"}})
    assert item == Annotation("run-1", HERE, (), ratings, desired)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (run(error="RateLimitError"), "RateLimitError"),
        (run(status="error"), "failed"),
        (run(outputs=None), "no answer"),
        (run("tool"), "is a tool within a trace"),
        (ROOT | {"outputs": None}, "no call of a language model"),
        ({"run_id": "run-1", "key": "c", "score": None}, "without a score and a comment"),
    ],
)
def test_unusable_value_is_rejected_with_a_reason(value: dict[str, Any], reason: str) -> None:
    (item,) = read(value)
    assert isinstance(item, RejectedRecord) and reason in item.reason
