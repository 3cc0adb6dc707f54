"""A promptfoo folder: prompts, rows and assertions as promptfoo reads them."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.errors import ConfigError
from remask.integrations.promptfoo import CONFIG, Model, compare
from remask.prompt import Prompt
from remask.tasks.assertions import Assertion, Demands
from remask.tasks.promptfoo import asked, load_config
from remask.types import Example

BEFORE = Prompt("Name the colour of {thing}. Never say {{7*7}}.")
AFTER = Prompt("Name the colour of {thing}.")
MODEL = Model("openai:m")


def example(number: int, expected: str | None = "red", **row: str) -> Example:
    return Example(str(number), "test", f"message {number}", expected, row)


ROWS = (example(1, thing="a rose"), example(2, "blue", thing="the sky"))


def files(
    *rows: Example, metric: str = "label", labels: tuple[str, ...] = ("red", "blue")
) -> dict[str, Any]:
    found = compare(BEFORE, AFTER, rows, MODEL, metric, labels).files
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
    assert compare(BEFORE, AFTER, ROWS, MODEL, metric).graded == bool(kinds)


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        ("{{ secret }}", "{% raw %}{{ secret }}{% endraw %}"),
        ("file://x.py", "{% raw %}f{% endraw %}ile://x.py"),
        ("package:x", "{% raw %}p{% endraw %}ackage:x"),
    ],
)
def test_expected_answers_are_no_templates_and_no_files(expected: str, value: str) -> None:
    (test,) = files(example(1, expected, thing="x"), metric="exact")["tests.json"]
    assert test["assert"][0]["value"] == value


@pytest.mark.parametrize("value", ["see {{ user_message }}", "file:///etc/passwd", "package:x:y"])
def test_rows_that_promptfoo_would_fill_or_load_are_left_out(value: str) -> None:
    found = compare(BEFORE, AFTER, (*ROWS, example(3, thing=value)), MODEL, "label", ("red",))
    assert (found.rows, found.left_out) == (2, 1)
    assert value not in found.files["tests.json"]
    with pytest.raises(ConfigError, match="no row is left"):
        compare(BEFORE, AFTER, (example(3, thing=value),), MODEL, "label")


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
    assert "apiBaseUrl" not in compare(BEFORE, AFTER, ROWS, MODEL, "label").files[CONFIG]


@pytest.mark.parametrize("name", ["embedded", "function:f", "openai:"])
def test_a_target_that_promptfoo_cannot_ask_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot ask the target '{name}'"):
        compare(BEFORE, AFTER, ROWS, Model(name), "label")


def test_a_blank_prompt_is_no_message() -> None:
    found = compare(Prompt(" "), AFTER, ROWS, MODEL, "label").files
    assert [message["role"] for message in json.loads(found["before.json"])] == ["user"]


def test_a_prompt_that_is_the_users_message_stands_alone() -> None:
    rows = [Example("1", "test", "file: a rose", None, {"file": "a rose"})]
    found = compare(Prompt("Name {file}."), Prompt("Say {file}."), rows, MODEL, "label",
                    role="user")  # fmt: skip
    assert json.loads(found.files["after.json"]) == [{"role": "user", "content": "Say {{file}}."}]
    assert json.loads(found.files["tests.json"])[0]["vars"] == {"file": "a rose"}
    assert found.left_out == 0  # the input, which looks like a path, is not among the variables


STATED = Demands(
    (
        Assertion("contains-any", ["red", "{{ x }}"], negated=True, weight=2.0),
        Assertion("is-json", None),
        Assertion("regex", r"^\{#?%? raw$"),
    ),
    threshold=0.5,
)


def test_assertions_of_the_rows_are_kept_with_weights_and_threshold() -> None:
    found = compare(BEFORE, AFTER, ROWS, MODEL, "promptfoo", stated={
        "1": STATED.stated, "2": Demands((Assertion("equals", {"a": 1}),)).stated,
    })  # fmt: skip
    first, second = json.loads(found.files["tests.json"])
    assert first["threshold"] == 0.5
    assert first["assert"] == [
        {
            "type": "not-contains-any",
            "value": ["red", "{% raw %}{{ x }}{% endraw %}"],
            "weight": 2.0,
        },
        {"type": "is-json"},
        {"type": "regex", "value": r"{% raw %}^\{#?%? raw${% endraw %}"},
    ]
    assert second["assert"] == [{"type": "equals", "value": {"a": 1}}]
    assert "threshold" not in second
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
ONE = st.builds(
    Assertion,
    st.sampled_from(["equals", "contains", "icontains", "starts-with"]),
    VALUES,
    st.booleans(),
    st.sampled_from([1.0, 0.5, 3.0]),
)
SEVERAL = st.builds(
    Assertion,
    st.sampled_from(["contains-any", "icontains-all"]),
    st.lists(VALUES.map(str.strip), min_size=1, max_size=3),
    st.booleans(),
)
LISTED = st.builds(Assertion, st.just("equals"), st.lists(VALUES | st.integers(-9, 9), min_size=1))
DEMANDS = st.builds(
    Demands,
    st.lists(ONE | SEVERAL | LISTED, min_size=1, max_size=3).map(tuple),
    st.sampled_from([None, 0.5, 1.0]),
)


def written(
    examples: list[Example], role: Literal["system", "user"], stated: Mapping[str, Demands]
) -> Mapping[str, str]:
    start = Prompt("Name the colour of {thing}. {%")
    told = {id: demands.stated for id, demands in stated.items()}
    return compare(start, AFTER, examples, MODEL, "promptfoo", role=role, stated=told).files


@settings(deadline=None, max_examples=40)
@given(st.lists(DEMANDS, min_size=1, max_size=3), st.sampled_from(["system", "user"]))
def test_what_was_exported_is_read_back_and_exported_the_same(
    demands: list[Demands], role: Literal["system", "user"]
) -> None:
    asking = "thing: {}" if role == "user" else "What colour has {}?"
    first = [
        Example(str(i), "test", asking.format(i), None, {"thing": str(i)})
        for i in range(len(demands))
    ]
    files = written(first, role, {e.id: d for e, d in zip(first, demands, strict=True)})
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_bytes(text.encode())
        config = Path(folder) / CONFIG
        found = asked(config, {"system": "Name it.", "user": "Name {{thing}}."}[role])
        dataset, suite = load_config(config, found.input)
    assert found.role == role
    assert [suite.demands[e.id] for e in dataset.examples] == demands
    assert written(list(dataset.examples), role, suite.demands) == files
