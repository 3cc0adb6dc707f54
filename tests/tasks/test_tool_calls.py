"""Calls of tools: how they are written, and how right they are."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remask.sanitize import format_call
from remask.tasks.metrics import make_grader
from remask.tasks.tool_calls import (
    Call,
    compare_calls,
    format_right_calls,
    normalise_right_calls,
    parse_calls,
    parse_right_calls,
)
from remask.types import Example

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.from_regex(r"[A-Za-z_][\w.-]{0,12}", fullmatch=True)
CALLS = st.lists(st.tuples(NAMES, st.dictionaries(NAMES, VALUES, max_size=3)), min_size=1, max_size=4)
ANN = {"name": "find", "arguments": {"name": "Ann", "limit": 3}}
BOB = {"name": "find", "arguments": {"name": "Bob"}}
PAY = {"name": "pay", "arguments": {}}
OPENAI = {
    "id": "c",
    "type": "function",
    "function": {"name": "find", "arguments": '{"name": "Ann", "limit": 3}'},
}
ANTHROPIC = {"type": "tool_use", "id": "t", "name": "find", "input": {"name": "Ann", "limit": 3}}


@given(CALLS, st.sampled_from(["", "I look.\n", "A: (x)\n"]))
def test_calls_in_a_response_are_read_as_they_are_written(calls: list[Any], words: str) -> None:
    response = words + "\n".join(format_call(*call) for call in calls)
    assert parse_calls(response) == [Call(*call) for call in calls]


@pytest.mark.parametrize(
    ("response", "names"),
    [
        ("Say find it (now).", []),
        ("f(x)", []),
        ("print('x')", []),
        ('{"name": "Ann", "age": 3}', []),
        ('find(name="Ann") is what I would call', []),
        ("ping()", ["ping"]),
        ("find({broken)", ["find"]),
        ('{"name": "find", "arguments": {"a": 1}}', ["find"]),
        (
            '<tool_call>\n{"name": "a", "arguments": {}}\n</tool_call>\n'
            '<tool_call>\n{"name": "b", "arguments": {}}',
            ["a", "b"],
        ),
        ('```json\n[{"name": "a", "parameters": {}}]\n```', ["a"]),
        ('{"arguments": {"a": 1}}', []),
        ("", []),
    ],
)
def test_what_is_a_call_of_a_response(response: str, names: list[str]) -> None:
    assert [call.name for call in parse_calls(response)] == names


@pytest.mark.parametrize(
    ("expected", "calls", "ordered"),
    [
        (ANN, 'find(name="Ann", limit=3)', False),
        (OPENAI, 'find(name="Ann", limit=3)', False),
        (OPENAI["function"], 'find(name="Ann", limit=3)', False),
        (ANTHROPIC, 'find(name="Ann", limit=3)', False),
        ({"type": "function_call", "name": "pay", "arguments": ""}, "pay()", False),
        ([ANN, PAY], 'find(name="Ann", limit=3)\npay()', True),
        ([{"type": "text", "text": "I look."}, ANTHROPIC], 'find(name="Ann", limit=3)', True),
        (
            {"role": "assistant", "content": None, "tool_calls": [OPENAI, PAY]},
            'find(name="Ann", limit=3)\npay()',
            False,
        ),
        ({"role": "assistant", "content": [{"type": "text"}, ANTHROPIC]}, 'find(name="Ann", limit=3)', False),
        ({"role": "assistant", "content": None, "function_call": PAY}, "pay()", False),
        ({"from": "function_call", "value": json.dumps(PAY)}, "pay()", False),
        ({"role": "assistant", "content": "Hello."}, "", False),
        ({"tool_calls": []}, "", False),
        ([], "", True),
        (None, "", True),
    ],
)
def test_right_calls_are_read_in_the_usual_forms(expected: Any, calls: str, ordered: bool) -> None:
    text = json.dumps(expected)
    assert format_right_calls(text) == calls
    assert parse_right_calls(text).ordered is ordered
    normal = normalise_right_calls(text)
    assert format_right_calls(normal) == calls and normalise_right_calls(normal) == normal


def test_blank_means_no_call_and_a_call_may_be_written_as_text() -> None:
    assert normalise_right_calls("  ") == "null"
    assert json.loads(normalise_right_calls('find(name="Ann")\n\npay()')) == {
        "tool_calls": [{"name": "find", "arguments": {"name": "Ann"}}, PAY]
    }


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ("find", 'the right call \'find\' is no JSON; write {"name": …, "arguments": {…}}, a list of'),
        ("find({x)", "is no JSON"),
        ("3", "the right call 3 is no call of a tool"),
        ('"find"', "is no call of a tool"),
        ("{}", "the right call {} has no name of a tool"),
        ('[{"name": 3}]', 'the right call {"name": 3} has no name of a tool'),
        ('["find"]', 'the right call "find" has no name'),
        ('{"role": "user", "content": "x"}', "has no name of a tool"),
        ('{"name": "find", "arguments": [1]}', "the arguments [1] of the right call find are no object"),
        ('{"name": "find", "arguments": "{x"}', "the arguments '{x' of the right call are no JSON"),
        ('{"name": "find", "arguments": false}', "the arguments false of the right call find are no object"),
        ('{"tool_calls": 3}', "the right call 3 has no name of a tool"),
        ("[" * 9999, "is no JSON"),
    ],
)
def test_other_right_calls_are_refused(expected: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        normalise_right_calls(expected)
    assert words in str(caught.value)


SCORES: list[tuple[Any, str, float, str]] = [
    (ANN, 'find(limit=3.0, name="Ann")', 1, ""),
    (ANN, 'I look.\nfind(name="Ann", limit=3, page=2)', 1, ""),  # an argument that is not stated
    (ANN, 'find(name="Ann", limit="3")', 0.75, 'The argument limit of find must not be "3".'),
    (ANN, 'find(name="Ann", limit=true)', 0.75, "The argument limit of find must not be true."),
    (ANN, "find(limit=3)", 0.75, "The argument name of find is missing."),
    (ANN, "find({x)", 0.5, "The arguments of find are no JSON."),
    (PAY, "pay({x)", 0.5, "The arguments of pay are no JSON."),
    (ANN, "pay()", 0, "pay was called in place of find."),
    (ANN, "I cannot do that.", 0, "find was not called."),
    (ANN, 'find(name="Ann", limit=3)\npay()', 0.5, "pay was called too."),
    (ANN, 'find(name="Ann",limit=3)', 1, ""),
    (ANN, 'find(name="Ann",limit=3,)', 0, "find was not called."),
    (PAY, "pay()\npay()", 0.5, "pay was called too often."),
    ([ANN, PAY], "Hello.", 0, "find and pay were not called."),
    (None, "find()\npay()", 0, "No tool is needed here, but find and pay were called."),
    (None, "Hello.", 1, ""),
    (None, "pay()\npay()", 0, "No tool is needed here, but pay was called."),
    ([ANN, PAY], 'find(name="Ann", limit=3)\npay()', 1, ""),
    ([ANN, PAY], 'pay()\nfind(name="Ann", limit=3)', 0.5, "The calls are in a wrong order."),
    ({"tool_calls": [ANN, PAY]}, 'pay()\nfind(name="Ann", limit=3)', 1, ""),
    ({"tool_calls": [ANN, BOB]}, 'find(name="Bob")\nfind(name="Ann", limit=3)', 1, ""),
    ([ANN, BOB], 'find(name="Bob")\nfind(name="Ann", limit=3)', 0.5, "The calls are in a wrong order."),
    ([PAY, ANN, PAY], 'pay()\npay()', 2 / 3, "find was not called."),
    ({"name": "f", "arguments": {"a": {"x": [1], "y": None}}}, 'f(a={"y": null, "x": [1.0]})', 1, ""),
    ({"name": "f", "arguments": {"order": 12345678}}, "f(order=12345679)", 0.5,
     "The argument order of f must not be 12345679."),
    ({"name": "f", "arguments": {"a": 0.3333333333}}, "f(a=0.33333333)", 1, ""),
    ({"name": "f", "arguments": {"a": 1.5}}, f"f(a=1{'0' * 400})", 0.5,
     f"The argument a of f must not be {'1' + '0' * 78}…."),
    ({"name": "f", "arguments": {"a": "Rene\u0301"}}, 'f(a="Ren\u00e9")', 1, ""),
    ({"name": "f", "arguments": {"a": "e\u0301"}},
     '{"name": "f", "arguments": {"a": "e\u0301"}}', 1, ""),
]  # fmt: skip


@pytest.mark.parametrize(("expected", "response", "score", "words"), SCORES)
def test_calls_are_scored(expected: Any, response: str, score: float, words: str) -> None:
    found, said = compare_calls(json.dumps(expected), response)
    assert found == pytest.approx(score) and said == words


@pytest.mark.parametrize(("expected", "response", "score", "words"), SCORES)
def test_feedback_without_names_holds_none(expected: Any, response: str, score: float, words: str) -> None:
    found, said = compare_calls(json.dumps(expected), response, names=False)
    assert found == pytest.approx(score) and bool(said) == bool(words)
    assert not {"find", "pay", "name", "limit"} & set(said.replace(".", " ").split())


@given(CALLS, st.booleans())
def test_the_right_calls_score_one(calls: list[Any], ordered: bool) -> None:
    stated = [{"name": name, "arguments": arguments} for name, arguments in calls]
    expected = json.dumps(stated if ordered else {"tool_calls": stated})
    response = "\n".join(format_call(*call) for call in calls)
    assert compare_calls(expected, response) == (1.0, "")
    if not ordered:
        backwards = "\n".join(format_call(*call) for call in reversed(calls))
        assert compare_calls(expected, backwards) == (1.0, "")


@given(CALLS, CALLS, st.booleans())
def test_every_score_is_a_share(right: list[Any], made: list[Any], ordered: bool) -> None:
    stated = [{"name": name, "arguments": arguments} for name, arguments in right]
    expected = json.dumps(stated if ordered else {"tool_calls": stated})
    score, words = compare_calls(expected, "\n".join(format_call(*call) for call in made))
    assert 0 <= score <= 1 and bool(words) == (score < 1)


def test_many_calls_are_compared_quickly() -> None:
    response = "\n".join(["pay()"] * 5000)
    assert compare_calls(json.dumps([PAY] * 2), response)[0] == 2 / 5000
    assert compare_calls(json.dumps([PAY, ANN] * 2000), "pay()")[0] == 1 / 4000


def test_a_response_of_a_wrong_shape_has_no_calls() -> None:
    assert parse_calls('{"tool_calls": 3}') == parse_calls('{"tool_calls": {"a": 1}}') == []


def test_the_metric_knows_the_right_response() -> None:
    grader = make_grader("tool_call")
    row = Example("id", "train", "Find Ann.", json.dumps(ANN))
    (grade,) = grader.grade([row], ["pay()"])
    assert (grade.score, grade.feedback) == (0, "pay was called in place of find.")
    assert grader.find_right_response(row) == 'find(name="Ann", limit=3)'
    assert grader.find_right_response(Example("id", "train", "Hi", "null")) is None
    (wrong,) = grader.grade([Example("id", "train", "Hi", "find")], ["pay()"])
    assert "is no JSON" in wrong.error
