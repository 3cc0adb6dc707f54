"""Values of many tools to plain messages, and values that must not change."""

import pytest

from remask.data.dialects import decode_json, extract_messages, extract_text, is_truncated


@pytest.mark.parametrize(
    "answer", ['{"label": "late"}', '["a", "b"]', "[1, 2]", '"quoted"', "{not json", "[INST] hi", "12"]
)
def test_extract_messages_keeps_an_answer_that_looks_like_json(answer: str) -> None:
    assert extract_messages(answer, "assistant") == [{"role": "assistant", "content": answer}]


@pytest.mark.parametrize("nothing", [None, "", "  ", [], {}, {"messages": []}, {"choices": []}])
def test_extract_messages_of_nothing(nothing: object) -> None:
    assert extract_messages(nothing, "user") == []


def test_extract_text_reads_arguments_of_a_function() -> None:
    assert extract_text({"question": "Who?", "k": 5}, "user") == "Who?"
    assert extract_text({"topic_of_today": "rain"}, "user") == "rain"
    assert extract_text({"a": "x", "b": 1}, "user") == '{"a": "x", "b": 1}'
    assert extract_text({"label": "late"}, "assistant") == '{"label": "late"}'


def test_extract_messages_counts_a_call_once() -> None:
    message = {
        "role": "assistant",
        "content": [{"type": "text", "text": "Let me see."}, {"type": "tool_use", "name": "find"}],
        "tool_calls": [{"name": "find", "args": {}}],
    }
    (found,) = extract_messages([message], "user")
    assert found["content"] == [{"type": "text", "text": "Let me see."}]
    assert len(found["tool_calls"]) == 1


def test_extract_messages_reads_parts_of_the_vercel_sdk() -> None:
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
def test_is_truncated(text: object, cut: bool) -> None:
    assert is_truncated(text) is cut


def test_decode_json_has_a_limited_depth() -> None:
    assert decode_json('{"a": [1]}') == {"a": [1]}
    deep = "[" * 100 + "]" * 100
    assert decode_json(deep) == deep
    wide = "[" + ",".join(["{}"] * 100) + "]"
    assert decode_json(wide) == [{}] * 100


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{'question': \"it's\", 'n': (1, 2), 'x': None}", {"question": "it's", "n": [1, 2], "x": None}),
        ("[{'role': 'user', 'content': 'a'}]", [{"role": "user", "content": "a"}]),
        ("{'a', 'b'}", "{'a', 'b'}"),
        ("{'a': open('x')}", "{'a': open('x')}"),
        ("{'a': 1", "{'a': 1"),
        ("{'a': " * 70 + "1" + "}" * 70, "{'a': " * 70 + "1" + "}" * 70),
    ],
)
def test_decode_json_reads_an_object_as_python_prints_it(text: str, found: object) -> None:
    assert decode_json(text) == found
