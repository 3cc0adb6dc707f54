"""Tools in the forms of four vendors, and other files that hold texts."""

import copy
from typing import Any

import pytest

from remask.data.json_nodes import UnreadableValue, format_pointer
from remask.data.tool_lists import convert_tools, find_parameter_texts, find_texts, list_tools
from remask.models.chat_components import describe_tools

SCHEMA = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "description": "Words to find."},
        "description": {"type": "string"},
        "where": {
            "type": "array",
            "items": {"type": "object", "properties": {"city": {"description": "A town."}}},
        },
    },
    "required": ["query"],
}
SEARCH = {"name": "search", "description": "Find rows."}
OPENAI = [{"type": "function", "function": {**SEARCH, "parameters": SCHEMA, "strict": True}}]
RESPONSES = [{"type": "web_search"}, {"type": "function", **SEARCH, "parameters": SCHEMA}]
ANTHROPIC = [{"type": "bash_20250124", "name": "bash"}, {**SEARCH, "input_schema": SCHEMA}]
MCP = {"tools": [{**SEARCH, "inputSchema": SCHEMA, "annotations": {"readOnlyHint": True}}]}


@pytest.mark.parametrize(
    ("value", "place", "schema"),
    [
        (OPENAI, "/0/function/description", "parameters"),
        (RESPONSES, "/1/description", "parameters"),
        (ANTHROPIC, "/1/description", "input_schema"),
        (MCP, "/tools/0/description", "inputSchema"),
    ],
)
def test_tools_of_each_form_are_read_and_converted(value: Any, place: str, schema: str) -> None:
    before = copy.deepcopy(value)
    assert [tool.name for tool in list_tools(value)] == ["search"]
    assert {name: format_pointer(keys) for name, keys in find_texts(value).items()} == {"search": place}
    inner = place.removesuffix("description") + f"{schema}/properties/"
    assert {name: format_pointer(keys) for name, keys in find_parameter_texts(value).items()} == {
        "search/query": f"{inner}query/description",
        "search/where/city": f"{inner}where/items/properties/city/description",
    }
    (made,) = convert_tools(value)
    strict = {"strict": True} if value is OPENAI else {}
    function = {"name": "search", "description": made["function"]["description"], **strict}
    assert made == {"type": "function", "function": {**function, "parameters": SCHEMA}}
    texts = {"tool:search": "New.", "tool:search/where/city": "A city."}
    (described,) = describe_tools([made], texts)
    parameters = described["function"]["parameters"]
    assert described["function"]["description"] == "New."
    assert parameters["properties"]["where"]["items"]["properties"]["city"]["description"] == "A city."
    assert value == before


def test_a_tool_needs_no_schema_to_be_converted() -> None:
    assert convert_tools([{"name": "ping"}]) == [{"type": "function", "function": {"name": "ping"}}]


MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {}}]},
    {"role": "assistant", "content": None, "tool_calls": []},
    {"role": "assistant", "content": ""},
]
PROGRAM = {
    "plan": {"signature": {"instructions": "Plan.", "fields": []}, "demos": []},
    "answer": {"signature": {"instructions": "Answer."}},
    "metadata": {"dependency_versions": {}},
}


@pytest.mark.parametrize(
    ("value", "places"),
    [
        (MESSAGES, {"system": "/0/content", "user/1/0": "/1/content/0/text"}),
        (MESSAGES[:2], {"system": "/0/content", "user/0": "/1/content/0/text"}),
        ({"model": "m", "messages": MESSAGES[:1]}, {"system": "/messages/0/content"}),
        ({"functions": [SEARCH], "model": "m"}, {"search": "/functions/0/description"}),
        ({"jsonrpc": "2.0", "id": 1, "result": MCP}, {"search": "/result/tools/0/description"}),
        (PROGRAM, {"plan": "/plan/signature/instructions", "answer": "/answer/signature/instructions"}),
        (PROGRAM["plan"], {"self": "/signature/instructions"}),
        ({"prompts": "Say {{x}}"}, {"0": "/prompts"}),
        (
            {"prompts": ["Say {{x}}", {"label": "long", "raw": "Please say {{x}}"}, {"id": "Say it now"}]},
            {"0": "/prompts/0", "long": "/prompts/1/raw", "2": "/prompts/2/id"},
        ),
    ],
)
def test_texts_of_known_shapes_have_names(value: Any, places: dict[str, str]) -> None:
    assert {name: format_pointer(keys) for name, keys in find_texts(value).items()} == places


@pytest.mark.parametrize(
    ("value", "words", "place"),
    [
        ("text", "is no list of tools or messages, no DSPy program and no promptfoo", ""),
        ([], "is no list of tools or messages", ""),
        ({"tools": []}, "is no list of tools or messages", ""),
        ({**MCP, "messages": MESSAGES}, "holds messages and tools; name one list", ""),
        ([{"role": "user", "content": None}], "holds no text to edit", ""),
        ([{"name": "a"}], """the tool 'a' has no text "description"; add one""", "/0"),
        ([{"name": "a", "description": 3}], "the tool 'a' has no text", "/0"),
        ([SEARCH, SEARCH], "two tools have the name 'search'; the other is /0", "/1"),
        ([SEARCH, {"description": "x"}], "the tool /1 has no name; give it one", "/1"),
        ([SEARCH, {"function": {"name": 3}}], "the tool /1/function has no name", "/1/function"),
        ([SEARCH, "search"], "the tool /1 has no name", "/1"),
        ([{**SEARCH, "parameters": "{}"}], "the schema parameters of the tool 'search' is a text", "/0"),
        ([{**SEARCH, "input_schema": [1]}], "the schema input_schema of the tool 'search' is [1]", "/0"),
        (
            {"prompts": ["file://a.txt"]},
            "/prompts/0 is the file file://a.txt; name that file itself",
            "/prompts/0",
        ),
        ({"prompts": ["prompts/*.txt"]}, "/prompts/0 is the file prompts/*.txt", "/prompts/0"),
        ({"prompts": [{"id": "a.py:make"}]}, "/prompts/0/id is the file a.py:make", "/prompts/0/id"),
        ({"prompts": [3]}, "/prompts/0 is no text; name each prompt", "/prompts/0"),
        ({"prompts": [{"label": "a", "raw": "x y"}] * 2}, "two prompts have the label 'a'", "/prompts/1/raw"),
    ],
)
def test_other_values_are_refused_with_their_place(value: Any, words: str, place: str) -> None:
    with pytest.raises(UnreadableValue) as caught:
        find_texts(value)
    assert words in str(caught.value) and format_pointer(caught.value.keys) == place


def test_conversion_refuses_what_it_does_not_know() -> None:
    with pytest.raises(UnreadableValue, match="is no list of tools"):
        convert_tools({"a": 1})
