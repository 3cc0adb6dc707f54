"""One file for another tool: exact content, the format by the file's name, and back again."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.errors import ConfigError, DataError
from remask.integrations.export import FORMATS, ExportOptions, guess_format, parse, read
from remask.prompt import Prompt

PROMPT = Prompt.parse("Be brief.\n[[keep]]Never lie.[[/keep]]\nNaïve “quotes” \\ {x}")
ORDER = ExportOptions("support")
ANY = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda t: "keep]]" not in t)


def test_format_text_is_the_text_of_the_target() -> None:
    assert FORMATS["text"](PROMPT, ORDER) == PROMPT.text + "\n"
    assert FORMATS["marked"](PROMPT, ORDER) == PROMPT.to_source() + "\n"
    assert "[[keep]]" in FORMATS["marked"](PROMPT, ORDER)


def test_format_messages_is_one_system_message() -> None:
    content = FORMATS["messages"](PROMPT, ORDER)
    assert json.loads(content) == [{"role": "system", "content": PROMPT.text}]


def test_format_langfuse_has_no_label() -> None:
    value = json.loads(FORMATS["langfuse"](PROMPT, ORDER))
    assert value["prompt"] == PROMPT.text.replace("{x}", "{{x}}")
    assert (value["type"], value["name"], value["labels"]) == ("text", "support", [])


def test_format_mlflow_has_the_arguments_of_register_prompt() -> None:
    value = json.loads(FORMATS["mlflow"](PROMPT, ORDER))
    assert set(value) == {"name", "template", "commit_message", "tags"}
    assert value["template"] == PROMPT.text.replace("{x}", "{{x}}")


@settings(deadline=None)
@given(ANY)
def test_format_marked_parses_back_to_the_same_prompt(text: str) -> None:
    kept = ((0, len(text) // 2),) if len(text) > 1 else ()
    prompt = Prompt(text, kept)
    source = FORMATS["marked"](prompt, ORDER)
    assert Prompt.parse(source.removesuffix("\n")) == prompt
    assert FORMATS["text"](prompt, ORDER) == text + "\n"
    assert json.loads(FORMATS["messages"](prompt, ORDER))[0]["content"] == text


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "components"])
@settings(max_examples=300, deadline=None)
@given(ANY.map(lambda text: text.rstrip("\r\n")))
def test_formats_can_be_read_and_written_again(kind: str, text: str) -> None:
    try:
        content = FORMATS[kind](Prompt(text), ORDER)
        back = parse(content, kind)
    except ConfigError:
        assert "{" in text
        return
    assert FORMATS[kind](Prompt(back), ORDER) == content


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("p.md", "text"),
        ("p", "text"),
        ("p.JSON", "messages"),
        ("p.langfuse.json", "langfuse"),
        ("p.mlflow.json", "mlflow"),
        ("p.j2", "jinja"),
        ("p.njk", "jinja"),
    ],
)
def test_guess_format_by_the_name_of_a_file(name: str, kind: str) -> None:
    assert guess_format(Path(name)) == kind


@pytest.mark.parametrize("name", ["p.md", "p.json", "p.langfuse.json", "p.mlflow.json", "p.j2"])
def test_read_returns_the_written_prompt(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(FORMATS[guess_format(path)](PROMPT, ORDER), encoding="utf-8")
    assert read(path).text.replace("{{x}}", "{x}") == PROMPT.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.json", "[", "malformed JSON"),
        ("p.json", "[]", "has no prompt"),
        ("p.json", "{}", "has no prompt"),
        ("p.json", '{"prompt": 1}', "has no prompt"),
        ("p.json", '[{"role": "user", "content": "a"}]', "role 'user'"),
        ("p.j2", "a\n{% if x %}", "line 2"),
        ("p.md", "[[keep]]a", "never closed"),
        ("none.md", None, "cannot be read"),
        (".", None, "cannot be read"),
    ],
)
def test_read_names_files_without_a_prompt(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert caught.value.path == str(path)
