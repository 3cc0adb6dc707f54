"""A promptfoo folder: prompts, rows and assertions as promptfoo reads them."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.errors import ConfigError
from remask.integrations.promptfoo import CONFIG, PromptfooModel, compare
from remask.prompt import Prompt
from remask.tasks.promptfoo import read_tests
from remask.types import Example

BEFORE = Prompt("Name the colour of {thing}. Never say {{7*7}}.")
AFTER = Prompt("Name the colour of {thing}.")
MODEL = PromptfooModel("openai:m")


def example(number: int, expected: str | None = "red", **row: str) -> Example:
    return Example(str(number), "test", f"message {number}", expected, row)


ROWS = (example(1, thing="a rose"), example(2, "blue", thing="the sky"))


def files(*rows: Example, metric: str = "label", labels: tuple[str, ...] = ("red", "blue")) -> dict[str, Any]:
    found = compare(BEFORE, AFTER, rows, MODEL, metric, labels).files
    return {name: json.loads(text) for name, text in found.items() if name.endswith(".json")}


def test_compare_writes_chats_with_columns_as_variables() -> None:
    found = files(*ROWS)
    assert found["before.json"] == [
        {
            "role": "system",
            "content": "Name the colour of {{thing}}{% raw %}. Never say {{7*7}}.{% endraw %}",
        },
        {"role": "user", "content": "{{ user_message }}"},
    ]
    assert found["after.json"][0]["content"] == "Name the colour of {{thing}}."


def test_compare_writes_rows_as_tests() -> None:
    first = files(*ROWS)["tests.json"][0]
    assert first["vars"] == {"thing": "a rose", "user_message": "message 1"}
    assert first["assert"] == [
        {"type": "icontains", "value": "red"},
        {"type": "not-icontains", "value": "blue"},
    ]


def test_compare_does_not_forbid_a_label_inside_the_right_one() -> None:
    (test,) = files(example(1, "not red"), labels=("red", "not red", "blue"))["tests.json"]
    assert [a["value"] for a in test["assert"]] == ["not red", "blue"]


@pytest.mark.parametrize(
    ("metric", "kinds"), [("exact", ["equals"]), ("contains", ["icontains"]), ("f1", [])]
)
def test_compare_converts_metrics_to_assertions(metric: str, kinds: list[str]) -> None:
    test = files(*ROWS, metric=metric)["tests.json"][0]
    assert [assertion["type"] for assertion in test["assert"]] == kinds
    assert compare(BEFORE, AFTER, ROWS, MODEL, metric).graded == bool(kinds)


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        ("{{ secret }}", "{% raw %}{{ secret }}{% endraw %}"),
        ("file://x.py", "{% raw %}f{% endraw %}ile://x.py"),
        ("package:x", "{% raw %}p{% endraw %}ackage:x"),
    ],
)
def test_compare_escapes_expected_answers(expected: str, value: str) -> None:
    (test,) = files(example(1, expected, thing="x"), metric="exact")["tests.json"]
    assert test["assert"][0]["value"] == value


@pytest.mark.parametrize("value", ["see {{ user_message }}", "file:///etc/passwd", "package:x:y"])
def test_compare_leaves_out_rows_with_templates_or_file_references(value: str) -> None:
    found = compare(BEFORE, AFTER, (*ROWS, example(3, thing=value)), MODEL, "label", ("red",))
    assert (found.rows, found.left_out) == (2, 1)
    assert value not in found.files["tests.json"]
    with pytest.raises(ConfigError, match="there is no row"):
        compare(BEFORE, AFTER, (example(3, thing=value),), MODEL, "label")


def test_compare_gives_the_message_an_unused_name() -> None:
    (test,) = files(example(1, thing="x", user_message="a column"))["tests.json"]
    assert test["vars"]["user_message"] == "a column"
    assert test["vars"]["user_message_"] == "message 1"


def test_compare_writes_the_target_without_secrets() -> None:
    url = "https://user:secret@host:1/v1"
    model = PromptfooModel("openai:m", url, "MY_KEY", None, 99)
    text = compare(BEFORE, AFTER, ROWS, model, "label").files[CONFIG]
    assert "secret" not in text
    for part in ('"openai:chat:m"', '"https://host:1/v1"', '"MY_KEY"', '"max_tokens":99'):
        assert part in text
    assert "temperature" not in text
    assert "apiBaseUrl" not in compare(BEFORE, AFTER, ROWS, MODEL, "label").files[CONFIG]


@pytest.mark.parametrize("name", ["builtin", "function:f", "openai:"])
def test_compare_refuses_targets_that_promptfoo_cannot_call(name: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot call the target '{name}'"):
        compare(BEFORE, AFTER, ROWS, PromptfooModel(name), "label")


def test_compare_writes_no_message_for_a_blank_prompt() -> None:
    found = compare(Prompt(" "), AFTER, ROWS, MODEL, "label").files
    assert [message["role"] for message in json.loads(found["before.json"])] == ["user"]


def test_compare_writes_a_user_prompt_as_the_only_message() -> None:
    rows = [Example("1", "test", "file: a rose", None, {"file": "a rose"})]
    found = compare(Prompt("Name {file}."), Prompt("Say {file}."), rows, MODEL, "label",
                    role="user")  # fmt: skip
    assert json.loads(found.files["after.json"]) == [{"role": "user", "content": "Say {{file}}."}]
    assert json.loads(found.files["tests.json"])[0]["vars"] == {"file": "a rose"}
    assert found.left_out == 0  # the input, which looks like a path, is not among the variables


def stated(*assertions: dict[str, str]) -> str:
    """Assertions as the right answer of a row of the metric promptfoo."""
    return json.dumps(assertions)


def test_compare_keeps_the_assertions_of_the_rows() -> None:
    own = stated(
        {"type": "contains", "value": "{{ x }}"},
        {"type": "is-json", "value": ""},
        {"type": "regex", "value": r"^\{#?%? raw$"},
    )
    found = compare(BEFORE, AFTER, [example(1, own)], MODEL, "promptfoo")
    (test,) = json.loads(found.files["tests.json"])
    assert test["assert"] == [
        {"type": "contains", "value": "{% raw %}{{ x }}{% endraw %}"},
        {"type": "is-json", "value": ""},
        {"type": "regex", "value": r"{% raw %}^\{#?%? raw${% endraw %}"},
    ]
    assert found.graded


NASTY = st.sampled_from(
    [
        "{{ thing }}",
        "file://",
        "{%",
        "%}",
        "{#",
        "{",
        "}",
        "{% raw %}",
        "{% endraw %}",
        "\x85",
        "\u2028",
        ": ",
    ]
)
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="{}"), max_size=6)
VALUES = st.lists(NASTY | WORDS, min_size=1, max_size=5).map("".join).filter(str.strip)
KINDS = st.sampled_from(["equals", "contains", "icontains", "starts-with", "llm-rubric"])
ASSERTIONS = st.lists(
    st.builds(lambda kind, value: {"type": kind, "value": value}, KINDS, VALUES)
    | st.just({"type": "is-json", "value": ""})
    | VALUES.map(lambda value: {"type": "regex", "value": re.escape(value)}),
    min_size=1,
    max_size=3,
)


@settings(deadline=None, max_examples=60)
@given(st.lists(ASSERTIONS, min_size=1, max_size=3), st.sampled_from(["system", "user"]))
def test_compare_writes_rows_that_read_back_the_same(
    rows: list[list[dict[str, str]]], role: Literal["system", "user"]
) -> None:
    start = Prompt("Name the colour of {thing}. {%")
    examples = [example(i, stated(*row), thing=str(i)) for i, row in enumerate(rows)]
    files = compare(start, AFTER, examples, MODEL, "promptfoo", role=role).files
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_bytes(text.encode())
        found = read_tests(Path(folder) / CONFIG)
    assert [record["thing"] for record in found] == [e.row["thing"] for e in examples]
    assert [record["assert"] for record in found] == rows
    if role == "system":
        assert [record["user_message"] for record in found] == [e.input for e in examples]
