"""Values of many tools to plain messages; what must not be touched. (Whole envelopes: see
test_langsmith.)"""

import pytest

from remask.data.dialects import decode_json, extract_messages, extract_text, is_truncated


@pytest.mark.parametrize(
    "answer",
    ['{"label": "late"}', '["a", "b"]', "[1, 2]", '"quoted"', "{not json", "[INST] hi", "12"],
)
def test_an_answer_that_looks_like_json_stays_as_it_was_said(answer: str) -> None:
    assert extract_messages(answer, "assistant") == [{"role": "assistant", "content": answer}]


@pytest.mark.parametrize("nothing", [None, "", "  ", [], {}, {"messages": []}, {"choices": []}])
def test_nothing_said(nothing: object) -> None:
    assert extract_messages(nothing, "user") == []


def test_arguments_of_a_function_become_the_question() -> None:
    assert extract_text({"question": "Who?", "k": 5}, "user") == "Who?"
    assert extract_text({"topic_of_today": "rain"}, "user") == "rain"
    assert extract_text({"a": "x", "b": 1}, "user") == '{"a": "x", "b": 1}'
    assert extract_text({"label": "late"}, "assistant") == '{"label": "late"}'


def test_a_call_in_the_parts_and_beside_them_counts_once() -> None:
    message = {
        "role": "assistant",
        "content": [{"type": "text", "text": "Let me see."}, {"type": "tool_use", "name": "find"}],
        "tool_calls": [{"name": "find", "args": {}}],
    }
    (found,) = extract_messages([message], "user")
    assert found["content"] == [{"type": "text", "text": "Let me see."}]
    assert len(found["tool_calls"]) == 1


def test_parts_of_the_vercel_sdk() -> None:
    parts = [
        {"type": "tool-call", "toolCallId": "1", "toolName": "find", "input": {"a": 1}},
        {"type": "tool-result", "toolCallId": "1", "output": {"type": "text", "value": "x"}},
    ]
    (found,) = extract_messages([{"role": "assistant", "content": parts}], "user")
    assert found["content"] == [
        {"type": "tool_call", "name": "find", "arguments": {"a": 1}, "id": "1"},
        {"type": "tool_result", "content": "x", "tool_use_id": "1"},
    ]


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ('[{"role": "user", "content": "Whe', True),
        ('{"messages": [', True),
        ("<truncated due to size exceeding limit>", True),
        ('[{"role": "user", "content": "Where?"}]', False),
        ("[INST] {question}", False),
        (None, False),
    ],
)
def test_json_that_a_limit_cut_off(text: object, cut: bool) -> None:
    assert is_truncated(text) is cut


def test_json_in_a_text_is_opened_to_a_bounded_depth() -> None:
    assert decode_json('{"a": [1]}') == {"a": [1]}
    deep = "[" * 100 + "]" * 100
    assert decode_json(deep) == deep
    wide = "[" + ",".join(["{}"] * 100) + "]"
    assert decode_json(wide) == [{}] * 100
