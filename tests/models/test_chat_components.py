"""Components of a prompt reach a target: messages as turns, descriptions with the tools."""

from fakes.server import Server, answer
from remask.models.chat_components import describe_tools, find_unknown_tools, split_components
from remask.models.function import FunctionTarget
from remask.models.openai import OpenAITarget
from remask.prompt import Prompt, join_components
from remask.runs.meter import call_key
from remask.tasks.labelled import make_chat
from remask.types import Example, Message

FIND = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Old.",
        "parameters": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "at": {"type": "array", "items": {"type": "object", "properties": {"city": {}}}},
            },
        },
    },
}
ROW = Example("1", "train", "Where is {city}?", None, {"city": "Rome"})


def chat_of(texts: dict[str, str]):
    return make_chat(Prompt.parse(join_components(texts)), ROW)


def test_a_function_gets_the_texts_by_name_and_the_message() -> None:
    asked = []

    def agent(texts: dict[str, str], message: str) -> str:
        asked.append((texts, message))
        return "ok"

    texts = {"system": "Be kind in {city}.", "reply": "", "tool:find": "Find a person."}
    assert FunctionTarget(agent).respond([chat_of(texts)])[0].text == "ok"
    assert asked == [({**texts, "system": "Be kind in Rome."}, "Where is {city}?")]


def test_messages_are_turns_and_blank_ones_are_left_out() -> None:
    turns, described = split_components(
        chat_of(
            {"system": "Be kind.", "user/1": "Hi", "assistant/1": "Hello!", "system/2": "", "tool:find": "F"}
        )
    )
    assert turns == (
        Message("system", "Be kind."),
        Message("user", "Hi"),
        Message("assistant", "Hello!"),
        Message("user", "Where is {city}?"),
    )
    assert described == {"tool:find": "F"}


def test_a_component_named_user_is_the_message_of_the_row() -> None:
    turns, _ = split_components(chat_of({"user": "Answer from {city}.", "system": "Be kind."}))
    assert turns == (Message("system", "Be kind."), Message("user", "Answer from Rome."))


def test_a_chat_without_components_stays_as_it_is() -> None:
    chat = make_chat(Prompt("Be kind."), ROW)
    assert split_components(chat) == (chat, {})


def test_tools_are_described_in_a_copy() -> None:
    found = describe_tools(
        [FIND], {"tool:find": "New.", "tool:find/name": "Of the person.", "tool:find/at/city": "Its name."}
    )
    assert found[0]["function"]["description"] == "New."
    properties = found[0]["function"]["parameters"]["properties"]
    assert properties["name"] == {"type": "string", "description": "Of the person."}
    assert properties["at"]["items"]["properties"] == {"city": {"description": "Its name."}}
    assert FIND["function"]["description"] == "Old."
    known = ["tool:find", "tool:find/name", "tool:find/at/city", "system"]
    unknown = ["tool:find/x", "tool:find/at/x", "tool:y"]
    assert find_unknown_tools([FIND], [*known, *unknown]) == unknown


def test_the_request_has_the_tools_with_their_descriptions() -> None:
    chat = chat_of({"system": "Be kind.", "tool:find": "Find a person by name."})
    with (
        Server([answer()], answer()) as server,
        OpenAITarget("m", server.url, extra={"tools": [FIND], "tool_choice": "auto"}) as target,
    ):
        assert not target.respond([chat])[0].error
    body = server.bodies[0]
    assert body["tools"][0]["function"]["description"] == "Find a person by name."
    assert body["tool_choice"] == "auto"
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


def test_an_answer_is_kept_for_the_texts_that_it_was_given_under() -> None:
    keys = [
        call_key("t", chat_of(texts), None, 0)
        for texts in ({"tool:a": "x"}, {"tool:b": "x"}, {"tool:a": "y"}, {"tool:a": "x"})
    ]
    assert len(set(keys)) == 3
    assert keys[0] == keys[3]
