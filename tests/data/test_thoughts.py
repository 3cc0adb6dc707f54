"""Thoughts are no part of an answer, whatever marks them, and the parts of an answer are joined."""

import json
from pathlib import Path
from typing import Any

import pytest

from fakes import write_lines
from remask.data.trace_reader import read_records
from remask.data.trace_record import Record, RejectedRecord
from remask.sanitize import remove_thoughts

FILES = Path(__file__).parent / "files"

MARKED = [
    ("<think>It could be positive.</think>\n\nnegative", "negative"),
    ("<THINKING>a</THINKING> negative", "negative"),
    ("It could be positive.\n</think>\nnegative", "negative"),  # the request ended with <think>
    ("<think>a <think>b</think> c</think>negative", "negative"),
    ("<think></think>\n\nnegative", "negative"),
    ("<think>It could be", ""),  # cut by a limit
    ("<think>a</think>nega<think>b</think>tive", "negative"),
    ("<reasoning effort='high'>a</reasoning>negative", "negative"),
    ("<seed:think>a</seed:think>negative", "negative"),
    ("<longcat_think>a</longcat_think>negative", "negative"),
    ("[THINK]a[/THINK]negative", "negative"),
    ("◁think▷a◁/think▷negative", "negative"),
    ("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>negative<|END_RESPONSE|>", "negative"),
    ("<|begin_of_thought|>a<|end_of_thought|>\n<|begin_of_solution|>negative<|end_of_solution|>", "negative"),
    ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>negative<|return|>",
     "negative"),
    ("<|channel|>analysis<|message|>It could be", ""),
    ("<|channel>thought\na<channel|>negative", "negative"),
    ("analysisIt could be positive.assistantfinalnegative", "negative"),  # decoded without special tokens
    ("analysisIt could be", ""),
    ("Here is my thought process:\na\n\nHere is my response:\nnegative", "negative"),
    ("Here's my thought process: It could be", ""),
    ('<details type="reasoning" done="true"><summary>Thought</summary>a</details>\nnegative', "negative"),
]  # fmt: skip
ANSWERS = [
    "negative", "", "Use the `<think>` tag and close it with `</think>`.", "a < b, c > d [1]",
    "The tag <think> opens a thought.", "<b>negative</b>", "<answer>negative</answer>",
    'find(text="<think>")', "[Think](https://example.com)", "<analysis>Sales rose.</analysis>",
    "analysis of the sales", "Here is my response: negative", "analysis: the assistantfinally",
]  # fmt: skip


@pytest.mark.parametrize(("text", "answer"), MARKED)
def test_remove_thoughts_returns_the_answer(text: str, answer: str) -> None:
    assert remove_thoughts(text) == answer


@pytest.mark.parametrize("text", ANSWERS)
def test_remove_thoughts_keeps_an_answer_without_thoughts(text: str) -> None:
    assert remove_thoughts(text) == text


# What stands in a message beside or in place of `"content": "negative"`.
MESSAGES: dict[str, dict[str, Any]] = {
    "openai_text_parts": {"content": [{"type": "text", "text": "nega"}, {"type": "text", "text": "tive"}]},
    "anthropic_thinking": {"content": [{"type": "thinking", "thinking": "a", "signature": "b"},
                                       {"type": "text", "text": "negative"}]},
    "mistral_thinking": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]},
                                     {"type": "text", "text": "negative"}]},
    "bedrock_reasoning": {"content": [{"reasoningContent": {"reasoningText": {"text": "a"}}},
                                      {"text": "negative"}]},
    "langchain_reasoning": {"content": [{"type": "reasoning_content", "reasoning_content": {"text": "a"}},
                                        {"type": "text", "text": "negative"}]},
    "vercel_reasoning": {"parts": [{"type": "step-start"}, {"type": "reasoning", "text": "a"},
                                   {"type": "text", "text": "negative"}]},
    "gemini_thought": {"parts": [{"text": "a", "thought": True}, {"text": "nega"}, {"text": "tive"}]},
    "deepseek_reasoning_content": {"content": "negative", "reasoning_content": "a"},
    "openrouter_reasoning": {"content": "negative", "reasoning": "a"},
    "tag_in_a_part": {"content": [{"type": "text", "text": "<think>a</think>\nnegative"}]},
}  # fmt: skip


@pytest.mark.parametrize("name", MESSAGES)
def test_reasoning_beside_an_answer_is_left_out(name: str, tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", **MESSAGES[name]}]}
    (record,) = read_records([write_lines(tmp_path / "a.jsonl", chat)])
    assert isinstance(record, Record)
    assert [turn.text for turn in record.turns] == ["q", "negative"]


def test_a_channel_or_role_of_thoughts_is_left_out(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "channel": "analysis", "content": "a"},
        {"role": "thinking", "content": "b"},
        {"role": "assistant", "channel": "final", "content": "negative"},
    ]
    (record,) = read_records([write_lines(tmp_path / "a.jsonl", {"messages": messages})])
    assert isinstance(record, Record)
    assert [turn.text for turn in record.turns] == ["q", "negative"]


@pytest.mark.parametrize(
    "message", [{"content": "<think>It could be"}, {"content": "", "reasoning_content": "It could be"}]
)
def test_a_response_that_holds_only_thoughts_is_rejected(message: dict[str, Any], tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", **message}]}
    (reject,) = read_records([write_lines(tmp_path / "a.jsonl", chat)])
    assert isinstance(reject, RejectedRecord)
    assert reject.reason == "holds no response of the model (it is empty or holds only thoughts)"


def test_thoughts_of_an_expected_answer_are_left_out(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "<think>a</think>b", "expected": "<think>c</think>d"}
    (record,) = read_records([write_lines(tmp_path / "a.jsonl", row)])
    assert isinstance(record, Record)
    assert (record.turns[-1].text, record.desired) == ("b", "d")


def test_think_tags_of_a_file_of_chats_are_left_out() -> None:
    records = list(read_records([FILES / "think_tags.jsonl"]))
    assert len(records) == 6
    for number, record in enumerate(records):
        assert isinstance(record, Record)
        assert record.turns[-1].text == f"Parcel {number} arrives on Monday."
        assert "secret depot" not in json.dumps([turn.text for turn in record.turns])
