"""A promptfoo folder: prompts, rows and assertions as promptfoo reads them."""

import json
from typing import Any

import pytest

from remask.errors import ConfigError
from remask.export.promptfoo import CONFIG, SERVED, Model, compare
from remask.prompt import Prompt
from remask.trace import Example

BEFORE = Prompt("Name the colour of {thing}. Never say {{7*7}}.")
AFTER = Prompt("Name the colour of {thing}.")
EMBEDDED = Model("embedded")


def example(number: int, expected: str | None = "red", **row: str) -> Example:
    return Example(str(number), "test", f"message {number}", expected, row)


ROWS = (example(1, thing="a rose"), example(2, "blue", thing="the sky"))


def files(
    *rows: Example, metric: str = "label", labels: tuple[str, ...] = ("red", "blue")
) -> dict[str, Any]:
    found = compare(BEFORE, AFTER, rows, EMBEDDED, metric, labels).files
    return {name: json.loads(text) for name, text in found.items() if name.endswith(".json")}


def test_prompts_are_chats_in_which_only_columns_are_variables() -> None:
    found = files(*ROWS)
    assert found["before.json"] == [
        {
            "role": "system",
            "content": "Name the colour of {{thing}}{% raw %}. Never say {{7*7}}.{% endraw %}",
        },
        {"role": "user", "content": "{{ user_message }}"},
    ]
    assert found["after.json"][0]["content"] == "Name the colour of {{thing}}."


def test_rows_are_tests() -> None:
    first = files(*ROWS)["tests.json"][0]
    assert first["vars"] == {"thing": "a rose", "user_message": "message 1"}
    assert first["assert"] == [
        {"type": "icontains", "value": "red"},
        {"type": "not-icontains", "value": "blue"},
    ]


def test_a_label_inside_the_right_one_is_not_forbidden() -> None:
    (test,) = files(example(1, "not red"), labels=("red", "not red", "blue"))["tests.json"]
    assert [a["value"] for a in test["assert"]] == ["not red", "blue"]


@pytest.mark.parametrize(
    ("metric", "kinds"), [("exact", ["equals"]), ("contains", ["icontains"]), ("f1", [])]
)
def test_metrics_become_plain_assertions_or_none(metric: str, kinds: list[str]) -> None:
    test = files(*ROWS, metric=metric)["tests.json"][0]
    assert [assertion["type"] for assertion in test["assert"]] == kinds
    assert compare(BEFORE, AFTER, ROWS, EMBEDDED, metric).graded == bool(kinds)


def test_expected_answers_are_not_templates() -> None:
    (test,) = files(example(1, "{{ secret }}", thing="x"), metric="exact")["tests.json"]
    assert test["assert"][0]["value"] == "{% raw %}{{ secret }}{% endraw %}"


@pytest.mark.parametrize("value", ["see {{ user_message }}", "file:///etc/passwd", "package:x:y"])
def test_rows_that_promptfoo_would_fill_or_load_are_left_out(value: str) -> None:
    found = compare(BEFORE, AFTER, (*ROWS, example(3, thing=value)), EMBEDDED, "label", ("red",))
    assert (found.rows, found.left_out) == (2, 1)
    assert value not in found.files["tests.json"]
    with pytest.raises(ConfigError, match="no row is left"):
        compare(BEFORE, AFTER, (example(3, thing=value),), EMBEDDED, "label")


def test_the_message_has_a_name_of_its_own() -> None:
    (test,) = files(example(1, thing="x", user_message="a column"))["tests.json"]
    assert test["vars"]["user_message"] == "a column"
    assert test["vars"]["user_message_"] == "message 1"


def test_the_configuration_names_the_target_without_secrets() -> None:
    url = "https://user:secret@host:1/v1"
    model = Model("openai:m", url, "MY_KEY", None, 99)
    text = compare(BEFORE, AFTER, ROWS, model, "label").files[CONFIG]
    assert "secret" not in text
    for part in ('"openai:chat:m"', '"https://host:1/v1"', '"MY_KEY"', '"max_tokens":99'):
        assert part in text
    assert "temperature" not in text
    assert SERVED in compare(BEFORE, AFTER, ROWS, EMBEDDED, "label").files[CONFIG]
    with pytest.raises(ConfigError, match="cannot ask the target 'function:f'"):
        compare(BEFORE, AFTER, ROWS, Model("function:f"), "label")


def test_a_blank_prompt_is_no_message() -> None:
    found = compare(Prompt(" "), AFTER, ROWS, EMBEDDED, "label").files
    assert [message["role"] for message in json.loads(found["before.json"])] == ["user"]
