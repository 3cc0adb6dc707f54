"""Rows of gateways and tracing tools: requests and responses are unpacked, and never raw JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from fakes import write_lines
from remask.data.overview import build_overview
from remask.data.trace_reader import read_records
from remask.data.trace_record import Rating, Record, RejectedRecord

FILES = Path(__file__).parents[1] / "files"
SYSTEM = "You are a support agent."
QUESTION = "Where is my parcel?"
ANSWER = "It arrives on Monday."
WORDS = ("It ", "arrives ", "on Monday.")
CHAT = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
REPLY = {"role": "assistant", "content": ANSWER}
COMPLETION = {"object": "chat.completion", "model": "m", "choices": [{"index": 0, "message": REPLY}]}
GEMINI = {
    "systemInstruction": {"parts": [{"text": SYSTEM}]},
    "contents": [{"role": "user", "parts": [{"text": QUESTION}]}],
}
CANDIDATES = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": ANSWER}]}, "finishReason": "STOP"}]
}
CONVERSE = {"system": [{"text": SYSTEM}], "messages": [{"role": "user", "content": [{"text": QUESTION}]}]}
CONVERSED = {
    "output": {"message": {"role": "assistant", "content": [{"text": ANSWER}]}},
    "stopReason": "end_turn",
}
ANTHROPIC = {"anthropic_version": "bedrock-2023-05-31", "system": SYSTEM, "messages": CHAT[1:]}
MESSAGE = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": ANSWER}]}


def chunks() -> list[dict[str, Any]]:
    return [{"object": "chat.completion.chunk", "choices": [{"delta": {"content": text}}]} for text in WORDS]


def anthropic_events() -> list[dict[str, Any]]:
    texts = ["It ", "arrives ", "on Monday."]
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}} for t in texts
    ]
    return [{"type": "message_start", "message": {"role": "assistant"}}, *deltas, {"type": "message_stop"}]


def events(objects: list[dict[str, Any]]) -> str:
    return "".join(f"data: {json.dumps(item)}\n\n" for item in objects) + "data: [DONE]\n\n"


ROWS: dict[str, dict[str, Any]] = {
    "gemini_tuning": {**GEMINI, "contents": [*GEMINI["contents"], CANDIDATES["candidates"][0]["content"]]},
    "gemini_call": {"request": GEMINI, "response": CANDIDATES},
    "gemini_flat": {**GEMINI, "response": CANDIDATES},
    "gemini_snake": {"request": {"system_instruction": SYSTEM, "contents": QUESTION}, "response": CANDIDATES},
    "bedrock_converse": {"schemaType": "ModelInvocationLog", "modelId": "m", "requestId": "r",
                         "input": {"inputBodyJson": CONVERSE}, "output": {"outputBodyJson": CONVERSED}},
    "bedrock_invoke": {"modelId": "m", "input": {"inputBodyJson": ANTHROPIC},
                       "output": {"outputBodyJson": MESSAGE}},
    "bedrock_stream": {"modelId": "m", "input": {"inputBodyJson": ANTHROPIC},
                       "output": {"outputBodyJson": anthropic_events()}},
    "bedrock_batch": {"recordId": "1", "modelInput": ANTHROPIC, "modelOutput": MESSAGE},
    "helicone": {"request_id": "1", "request_body": {"messages": CHAT}, "response_body": COMPLETION},
    "litellm": {"id": "1", "call_type": "acompletion", "messages": CHAT, "response": COMPLETION},
    "litellm_text": {"request_id": "1", "call_type": "acompletion", "messages": json.dumps(CHAT),
                     "response": json.dumps(COMPLETION)},
    "braintrust": {"id": "1", "span_id": "s", "root_span_id": "s", "span_parents": None, "input": CHAT,
                   "output": [{"message": REPLY}], "span_attributes": {"type": "llm", "name": "c"}},
    "weave": {"id": "1", "trace_id": "t", "parent_id": None, "op_name": "weave:///a/op/openai.chat.completions.create:x",
              "inputs": {"model": "m", "messages": CHAT}, "output": COMPLETION, "exception": None},
    "posthog": {"event": "$ai_generation", "uuid": "1", "properties": {
        "$ai_trace_id": "t", "$ai_input": CHAT, "$ai_output_choices": [REPLY], "$ai_model": "m"}},
    "datadog": {"span_id": "1", "trace_id": "t", "parent_id": "undefined", "meta": {
        "kind": "llm", "input": {"messages": CHAT}, "output": {"messages": [REPLY]}}},
    "opik": {"id": "1", "input": {"messages": CHAT}, "output": COMPLETION, "feedback_scores": []},
    "chunks_in_a_call": {"request": {"messages": CHAT}, "response": chunks()},
    "events_in_a_call": {"request": {"messages": CHAT}, "response": events(chunks())},
    "anthropic_events": {"request": {"system": SYSTEM, "messages": CHAT[1:]},
                         "response": events(anthropic_events())},
    "responses_events": {"request": {"instructions": SYSTEM, "input": QUESTION}, "response": events([
        {"type": "response.output_text.delta", "output_index": 0, "delta": "It arrives "},
        {"type": "response.output_text.delta", "output_index": 0, "delta": "on Monday."}])},
    "langsmith_example": {"inputs": {"messages": CHAT}, "outputs": {"generations": [[{"message": REPLY}]]}},
    "cells_of_json": {"input": json.dumps(CHAT), "output": json.dumps(REPLY)},
    "vercel_ui": {"messages": [
        {"role": "system", "parts": [{"type": "text", "text": SYSTEM}]},
        {"role": "user", "parts": [{"type": "text", "text": QUESTION}]},
        {"role": "assistant", "parts": [{"type": "step-start"}, {"type": "text", "text": ANSWER}]}]},
}  # fmt: skip


def read_one(folder: Path, row: dict[str, Any]) -> Record:
    (item,) = read_records([write_lines(folder / "a.jsonl", row)])
    assert isinstance(item, Record), item
    return item


@pytest.mark.parametrize("name", ROWS)
def test_the_request_and_the_response_are_unpacked(name: str, tmp_path: Path) -> None:
    record = read_one(tmp_path, ROWS[name])
    assert record.system == SYSTEM
    assert [(turn.role, turn.text) for turn in record.turns] == [("user", QUESTION), ("assistant", ANSWER)]


@pytest.mark.parametrize(
    ("name", "more", "rating"),
    [
        ("helicone", {"feedback_rating": False}, Rating("feedback_rating", False, "human")),
        ("helicone", {"scores": {"quality": 0.5}}, Rating("quality", 0.5)),
        ("braintrust", {"scores": {"Factuality": 0.6}}, Rating("Factuality", 0.6)),
        (
            "weave",
            {"summary": {"weave": {"feedback": [
                {"feedback_type": "wandb.reaction.1", "payload": {"emoji": "👎"}}]}}},
            Rating("reaction", "👎", "human"),
        ),
        (
            "opik",
            {"feedback_scores": [{"name": "correct", "value": 0, "reason": "Too late."}]},
            Rating("correct", 0, "unknown", "Too late."),
        ),
    ],
)  # fmt: skip
def test_scores_of_a_row_are_read(name: str, more: dict[str, Any], rating: Rating, tmp_path: Path) -> None:
    assert read_one(tmp_path, ROWS[name] | more).ratings == (rating,)


def test_the_outputs_of_an_example_of_a_data_set_are_the_right_answer(tmp_path: Path) -> None:
    row = {"inputs": {"question": "q"}, "outputs": {"label": "good"}, "metadata": {"dataset_split": ["base"]}}
    record = read_one(tmp_path, row)
    assert ([turn.text for turn in record.turns], record.desired) == (["q"], "good")


def test_a_call_within_a_traced_step_is_one_record(tmp_path: Path) -> None:
    call = ROWS["braintrust"] | {"id": "2", "span_id": "c", "root_span_id": "s", "span_parents": ["s"]}
    step = ROWS["braintrust"] | {"span_attributes": {"type": "task"}}
    items = list(read_records([write_lines(tmp_path / "a.jsonl", step, call)]))
    assert [item.id for item in items if isinstance(item, Record)] == ["c"]
    assert len(items) == 1


def test_a_failed_call_is_rejected_with_its_reason(tmp_path: Path) -> None:
    row = ROWS["weave"] | {"output": None, "exception": "RateLimitError: slow down"}
    (item,) = read_records([write_lines(tmp_path / "a.jsonl", row)])
    assert isinstance(item, RejectedRecord) and item.reason.endswith(
        "the call failed: RateLimitError: slow down"
    )


def test_tool_calls_of_gemini_and_bedrock_are_read(tmp_path: Path) -> None:
    gemini = {"contents": [
        {"role": "user", "parts": [{"text": QUESTION}]},
        {"role": "model", "parts": [{"functionCall": {"name": "find", "args": {"id": 7}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "find", "response": {"day": "Monday"}}}]},
        {"role": "model", "parts": [{"text": ANSWER}]},
    ]}  # fmt: skip
    texts = [turn.text for turn in read_one(tmp_path, gemini).turns]
    assert texts == [QUESTION, "find(id=7)", '{"day": "Monday"}', ANSWER]
    messages = [
        {"role": "user", "content": [{"text": QUESTION}]},
        {
            "role": "assistant",
            "content": [{"toolUse": {"toolUseId": "1", "name": "find", "input": {"id": 7}}}],
        },
        {"role": "user", "content": [{"toolResult": {"toolUseId": "1", "content": [{"text": "Monday"}]}}]},
    ]
    bedrock = ROWS["bedrock_converse"] | {"input": {"inputBodyJson": {"messages": messages}}}
    turns = read_one(tmp_path, bedrock).turns
    assert [turn.text for turn in turns] == [QUESTION, "find(id=7)", "Monday", ANSWER]
    assert turns[2].name == "find"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (chunks()[0], "is a chunk of a streamed response without its request"),
        (anthropic_events()[1], "is a chunk of a streamed response without its request"),
        (COMPLETION, "is a response without its request"),
        (MESSAGE, "is a response without its request"),
        (CANDIDATES, "is a response without its request"),
        (
            {"inputs": {"a": "x", "b": "y"}, "outputs": {"answer": "z"}},
            "the input is only JSON (its keys: a, b)",
        ),
        ({"question": "q", "output": {"a": 1, "b": 2}}, "the output is only JSON (its keys: a, b)"),
        ({"input": '{"a": 1, "b": 2}', "output": "z"}, "the input is only JSON (its keys: a, b)"),
        ({"input": [1, 2], "output": "z"}, "the input is a list without messages"),
    ],
)
def test_what_is_not_understood_is_rejected(row: dict[str, Any], words: str, tmp_path: Path) -> None:
    (item,) = read_records([write_lines(tmp_path / "a.jsonl", row)])
    assert isinstance(item, RejectedRecord) and item.reason.startswith(words)


def test_json_in_a_mapped_column_is_the_text(tmp_path: Path) -> None:
    row = {"inputs": {"a": "x", "b": "y"}, "answer": "z"}
    columns = {"input": "inputs", "output": "answer"}
    (item,) = read_records([write_lines(tmp_path / "a.jsonl", row)], columns)
    assert isinstance(item, Record) and item.turns[0].text == '{"a": "x", "b": "y"}'


@pytest.mark.parametrize(
    ("file", "records", "rejected"),
    [
        ("bedrock_log.jsonl", 6, 0), ("gemini.jsonl", 6, 0), ("langsmith_dataset.jsonl", 6, 0),
        ("nan.jsonl", 6, 0), ("chunks.jsonl", 0, 30), ("bedrock_strings.jsonl", 6, 0),
        ("python_cells.csv", 6, 0),
    ],
)  # fmt: skip
def test_files_of_users_are_read_or_rejected_as_a_whole(file: str, records: int, rejected: int) -> None:
    items = list(read_records([FILES / file]))
    found = build_overview(items)
    assert (found.records, found.rejected) == (records, rejected)
    for number, item in enumerate(item for item in items if isinstance(item, Record)):
        assert [turn.text for turn in item.turns] == [
            f"Where is parcel number {number}?", f"Parcel {number} arrives on Monday."
        ]  # fmt: skip
        assert item.ratings == ()


def test_unused_columns_are_named(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "a", "latency": 3, "note": "", "tags": [], "label": "x", "score": 1}
    chat = {"messages": [*CHAT, REPLY], "extra": {"a": 1}}
    overview = build_overview(read_records([write_lines(tmp_path / "a.jsonl", row, row, chat)]))
    assert dict(overview.unused) == {"latency": 2, "label": 2, "extra": 1}
    assert overview.describe_unused() == "latency (2), label (2), extra (1)"
