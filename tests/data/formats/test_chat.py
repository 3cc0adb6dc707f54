"""Chats in all formats. Values are built with the types of the OpenAI SDK if it has them, else as
in the documents that each builder names."""

from functools import partial
from typing import Any

import pytest
from openai.types.chat import ChatCompletion
from openai.types.evals.runs import OutputItemListResponse
from openai.types.responses import Response

from fakes.records import detected_items
from remask.data.trace_record import Annotation, Record, Turn, UnreadableRecord

Q, A = Turn("user", "Where is it?"), Turn("assistant", "On its way.")
ASKED = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where is it?"}]
ANSWER = {"role": "assistant", "content": "On its way."}
CHAT = [*ASKED, ANSWER]


items = partial(detected_items, "a.jsonl")


def record(value: Any) -> Record:
    (found,) = items(value)
    assert isinstance(found, Record), found
    return found


def completion(content: str | None = "On its way.", **message: Any) -> dict[str, Any]:
    """A ChatCompletion as the OpenAI SDK makes it."""
    found = ChatCompletion.model_validate(
        {
            "id": "c1", "created": 1, "model": "gpt-x", "object": "chat.completion",
            "choices": [
                {"index": 0, "finish_reason": "stop",
                 "message": {"role": "assistant", "content": content, **message}}
            ],
        }
    )  # fmt: skip
    return found.model_dump(mode="json")


def response() -> dict[str, Any]:
    """A Response of the Responses API as the OpenAI SDK makes it."""
    found = Response.model_validate(
        {
            "id": "r1", "created_at": 1, "model": "gpt-x", "object": "response",
            "instructions": "Be kind.", "parallel_tool_calls": True, "tool_choice": "auto",
            "tools": [],
            "output": [
                {"id": "x", "type": "reasoning", "summary": []},
                {"id": "f", "type": "function_call", "call_id": "k", "name": "find",
                 "arguments": '{"order": 7}'},
                {"id": "m", "type": "message", "role": "assistant", "status": "completed",
                 "content": [{"type": "output_text", "text": "On its way.", "annotations": []}]},
            ],
        }
    )  # fmt: skip
    return found.model_dump(mode="json")


def eval_item() -> dict[str, Any]:
    """A result of OpenAI's Evals as the SDK makes it."""
    found = OutputItemListResponse.model_validate(
        {
            "id": "e1", "created_at": 1, "eval_id": "e", "run_id": "r", "status": "fail",
            "object": "eval.run.output_item", "datasource_item_id": 3,
            "datasource_item": {"question": "Where is it?", "reference_answer": "In Rome."},
            "results": [
                {"name": "match", "passed": False, "score": 0.0, "type": "string-check-grader"},
                {"name": "tone", "passed": True, "score": 0.9, "type": "score_model"},
            ],
            "sample": {
                "error": {"code": "", "message": ""}, "finish_reason": "stop", "input": ASKED,
                "max_completion_tokens": 9, "model": "gpt-x", "output": [ANSWER], "seed": 1,
                "temperature": 0.0, "top_p": 1.0,
                "usage": {"cached_tokens": 0, "completion_tokens": 1, "prompt_tokens": 1,
                          "total_tokens": 2},
            },
        }
    )  # fmt: skip
    return found.model_dump(mode="json")


# The same system prompt, question and answer in each format.
SAME: dict[str, tuple[str, Any]] = {
    "chat": ("openai-chat", {"messages": CHAT}),
    "bare_list": ("openai-chat", CHAT),
    "developer": ("openai-chat", {"messages": [{"role": "developer", "content": "Be kind."},
                                               *CHAT[1:]]}),
    "parts": ("openai-chat", {"messages": [
        *ASKED, {"role": "assistant", "content": [{"type": "text", "text": "On its way."}]}]}),
    "refusal": ("openai-chat", {"messages": [
        *ASKED, {"role": "assistant", "content": None, "refusal": "On its way."}]}),
    "choices": ("openai-chat", {"messages": ASKED, **completion()}),
    "response_text": ("openai-chat", {"messages": ASKED, "response": "On its way."}),
    "call": ("call-log", {"request": {"model": "gpt-x", "messages": ASKED},
                          "response": completion()}),
    "call_bodies": ("call-log", {"request": {"body": {"messages": ASKED}},
                                 "response": {"status_code": 200, "body": completion()}}),
    "call_responses": ("call-log", {"request": {"input": "Where is it?",
                                                "instructions": "Be kind."},
                                    "response": {"output_text": "On its way."}}),
    # https://docs.anthropic.com/en/api/messages
    "anthropic": ("anthropic", {"system": "Be kind.", "messages": CHAT[1:]}),
    "anthropic_parts": ("anthropic", {
        "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
        "messages": [CHAT[1], {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            {"type": "text", "text": "On its way."}]}]}),
    "anthropic_call": ("call-log", {
        "request": {"system": "Be kind.", "messages": CHAT[1:2]},
        "response": {"type": "message", "role": "assistant",
                     "content": [{"type": "text", "text": "On its way."}]}}),
    # FastChat's and LLaMA-Factory's reading of ShareGPT
    "sharegpt": ("sharegpt", {"conversations": [
        {"from": "system", "value": "Be kind."}, {"from": "human", "value": "Where is it?"},
        {"from": "gpt", "value": "On its way.", "weight": None}]}),
    "sharegpt_system": ("sharegpt", {"system": "Be kind.", "conversations": [
        {"from": "human", "value": "Where is it?"}, {"from": "gpt", "value": "On its way."}]}),
    "pair": ("prompt-completion", {"prompt": ASKED, "completion": [ANSWER]}),
    "responses_log": ("openai-responses", {
        "object": "response", "instructions": "Be kind.", "input": "Where is it?",
        "output": "On its way."}),
    "evals": ("openai-evals", {"item": {"messages": ASKED},
                               "sample": {"output_text": "On its way."}}),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_all_formats_give_the_same_conversation(name: str) -> None:
    format, value = SAME[name]
    found = record(value)
    assert found.source.format == format
    assert (found.system, found.turns) == ("Be kind.", (Q, A))


def test_tool_calls_are_readable_and_results_have_names() -> None:
    call = {"id": "k", "type": "function", "function": {"name": "find", "arguments": '{"order":7}'}}
    openai = [
        CHAT[1],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "k", "content": "in Rome"},
        ANSWER,
    ]
    anthropic = [
        CHAT[1],
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "k", "name": "find", "input": {"order": 7}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "k",
             "content": [{"type": "text", "text": "in Rome"}]}]},
        ANSWER,
    ]  # fmt: skip
    steps = (Q, Turn("assistant", "find(order=7)"), Turn("tool", "in Rome", "find"), A)
    assert record({"messages": openai}).turns == steps
    assert record({"messages": anthropic}).turns == steps
    assert record({"messages": anthropic}).source.format == "anthropic"
    broken = [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{1"}}]}]
    assert record({"messages": broken}).turns == (Turn("assistant", "f({1)"),)


def test_responses_of_the_sdk() -> None:
    found = record({**response(), "input": [{"role": "user", "content": "Where is it?"}]})
    assert found.turns == (Q, Turn("assistant", "find(order=7)"), A)
    assert (found.system, found.model, found.id) == ("Be kind.", "gpt-x", "r1")


def test_system_messages_at_the_start_are_the_prompt() -> None:
    later = {"role": "system", "content": "Be brief."}
    found = record({"messages": [ASKED[0], later, ASKED[1], later, ANSWER]})
    assert found.system == "Be kind.\n\nBe brief."
    assert found.turns == (Q, Turn("system", "Be brief."), A)


def test_pictures_become_their_type() -> None:
    parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": "x"}}]
    found = record({"messages": [{"role": "user", "content": parts}, ANSWER]})
    assert found.turns[0].text == "What?\n[image_url]"


def test_weights_give_the_right_answer() -> None:
    bad = {**ANSWER, "content": "No.", "weight": 0}
    found = record({"messages": [ASKED[1], bad, ASKED[1], {**ANSWER, "weight": 1}, ASKED[1], bad]})
    assert found.turns == (Q, Turn("assistant", "No."), Q, A)
    assert found.desired == "On its way."
    with pytest.raises(UnreadableRecord, match="weight 0"):
        record({"messages": [ASKED[1], bad]})


def test_preferred_answer_is_the_desired_response() -> None:
    # OpenAI's guide on direct preference optimization; TRL's preference format
    good, bad = [ANSWER], [{"role": "assistant", "content": "No."}]
    for value in (
        {"input": {"messages": ASKED}, "preferred_output": good, "non_preferred_output": bad},
        {"prompt": ASKED, "chosen": good, "rejected": bad},
        {"chosen": [*ASKED, *good], "rejected": [*ASKED, *bad]},
    ):
        found = record(value)
        assert found.turns == (Q, Turn("assistant", "No."))
        assert (found.system, found.desired) == ("Be kind.", "On its way.")
        assert found.ratings[0].value is False
    plain = record({"prompt": "Where is it?", "chosen": "On its way.", "rejected": "No."})
    assert (plain.turns[0], plain.desired) == (Q, "On its way.")


def test_batches_are_joined_by_custom_id() -> None:
    request = {"custom_id": "b1", "method": "POST", "url": "/v1/chat/completions",
               "body": {"model": "gpt-x", "messages": ASKED}}  # fmt: skip
    result = {"id": "x", "custom_id": "b1", "error": None,
              "response": {"status_code": 200, "body": completion()}}  # fmt: skip
    asked = record(request)
    assert (asked.keys, asked.turns, asked.system) == (("b1",), (Q,), "Be kind.")
    (answer,) = items(result)
    assert isinstance(answer, Annotation) and (answer.key, answer.turns) == ("b1", (A,))
    # https://docs.anthropic.com/en/api/creating-message-batches
    (claude,) = items({"custom_id": "b1", "result": {"type": "succeeded", "message": {
        "type": "message", "role": "assistant",
        "content": [{"type": "text", "text": "On its way."}]}}})  # fmt: skip
    assert isinstance(claude, Annotation) and claude.turns == (A,)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"custom_id": "b1", "response": None, "error": {"message": "too long"}}, "failed.*too lo"),
        ({"custom_id": "b1", "response": {"status_code": 429, "body": {}}}, "failed: status 429"),
        ({"custom_id": "b1", "result": {"type": "errored", "error": {"type": "e"}}}, "failed"),
        ({"custom_id": "b1", "result": {"type": "expired"}}, "failed: expired"),
        ({"request": {"messages": []}, "response": {}, "error": "timeout"}, "failed: timeout"),
        ({"request": {"model": "x"}, "response": "a"}, "no messages, no input and no prompt"),
        ({"object": "response", "output": [], "error": {"message": "no"}}, "the call failed"),
        ({"prompt": "a", "chosen": "", "rejected": "b"}, "no preferred answer"),
        ({"request": {"prompt": "a"}, "response": 7}, "expected a request and a response"),
    ],
)
def test_failed_calls_are_rejected_with_a_reason(value: Any, words: str) -> None:
    with pytest.raises(UnreadableRecord, match=words):
        items(value)


def test_evals_keep_the_graders_verdicts() -> None:
    found = record(eval_item())
    assert (found.system, found.turns, found.model) == ("Be kind.", (Q, A), "gpt-x")
    assert found.desired == "In Rome."
    match, tone = found.ratings
    assert (match.name, match.value, match.kind) == ("match", False, "code")
    assert (tone.name, tone.value, tone.kind) == ("tone", True, "llm")
    item = {"item": {"city": "Where is it?", "ideal": "In Rome."}, "sample": {"output_text": "?"}}
    assert record(item).turns[0] == Q
    old = record({"input": ASKED, "ideal": "In Rome."})  # openai/evals, samples.jsonl
    assert (old.turns, old.desired) == ((Q,), "In Rome.")


@pytest.mark.parametrize(
    ("beside", "rating"),
    [
        ({"score": 4}, ("score", 4, "unknown", "", "")),
        ({"reward": 0.5}, ("reward", 0.5, "reward", "", "")),
        ({"thumbs": "👎"}, ("thumbs", "👎", "human", "", "")),
        ({"feedback": "It is too long."}, ("feedback", None, "unknown", "It is too long.", "")),
        ({"feedback": "good"}, ("feedback", "good", "unknown", "", "")),
        ({"feedback": {"score": 0, "comment": "no"}}, ("feedback", 0, "unknown", "no", "")),
        ({"feedback": [{"key": "tone", "value": True}]}, ("tone", True, "unknown", "", "")),
        ({"feedback": {"correction": "In Rome."}}, ("feedback", None, "unknown", "", "In Rome.")),
        ({"feedback": {"score": 3, "scale": [1, 5], "kind": "human"}},
         ("feedback", 3, "human", "", "")),
        ({"comment": "bad tone"}, ("comment", None, "unknown", "bad tone", "")),
    ],
)  # fmt: skip
def test_feedback_under_plain_names(beside: dict[str, Any], rating: tuple[Any, ...]) -> None:
    (found,) = record({"messages": CHAT, **beside}).ratings
    assert (found.name, found.value, found.kind, found.comment, found.correction) == rating
    assert found.scale == ((1, 5) if "scale" in str(beside) else None)


def test_right_response_under_plain_names() -> None:
    for name in ("correction", "expected", "reference_answer", "ideal", "ground_truth"):
        assert record({"messages": CHAT, name: "In Rome."}).desired == "In Rome."
    kto = record({"prompt": "Where is it?", "completion": "On its way.", "label": False})  # TRL
    assert kto.ratings[0].value is False


def test_odd_parts_are_left_out() -> None:
    """Found by fuzzing: a field that should be a list may have another type."""
    found = record({"item": {"question": "q"}, "sample": {"output_text": "a"}, "results": True})
    assert found.ratings == () and found.turns == (Turn("user", "q"), Turn("assistant", "a"))
    odd = {"role": "assistant", "content": "a", "tool_calls": 7, "function_call": "x"}
    assert record({"messages": [odd]}).turns == (Turn("assistant", "a"),)


@pytest.mark.parametrize(
    "more", [{"user_id": "ann"}, {"metadata": {"session_id": "ann"}}, {"user": "ann", "metadata": None}]
)
def test_session_is_the_user_or_the_session(more: dict[str, Any]) -> None:
    call = {"request": {"messages": ASKED, **more}, "response": {"output_text": "On its way."}}
    for value in ({"messages": CHAT, **more}, call):
        assert record(value).session == "ann"
    assert record({"messages": CHAT}).session == ""
