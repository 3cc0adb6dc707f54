"""Settings: what remask.toml can say, and what is said of it."""

import os
from pathlib import Path

import pytest

from docs.generate import all_sections, attribute_docs, section_of_key
from remask.config import Config, make_config
from remask.errors import ConfigError, DataError
from remask.files import read_prompt, read_toml


def test_the_word_none_stands_for_null() -> None:
    config = make_config(
        {
            "prompt": "x",
            "target": {"model": "openai:m", "temperature": "none", "max_tokens": "none"},
            "budget": {"calls": "none"},
            "refine": {"traces": ["log.jsonl"], "lock": "none"},  # a lock of that name
        },
        "remask.toml",
    )
    assert config.target.temperature is config.target.max_tokens is config.budget.calls is None
    assert config.refine is not None and config.refine.lock == "none"


def test_the_word_none_is_refused_where_a_value_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"target\.concurrency is 'none', but must be a whole number"):
        make_config({"prompt": "x", "target": {"concurrency": "none"}}, "remask.toml")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("target", "temperature", -1.0),
        ("target", "temperature", float("nan")),
        ("target", "temperature", float("inf")),
        ("target", "timeout", float("inf")),
        ("target", "input_price", float("inf")),
        ("budget", "minutes", float("inf")),
        ("denoiser", "factor", float("inf")),
    ],
)
def test_a_number_that_cannot_be_one_is_refused(section: str, key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"{section}\.{key} is {value}, but must be "):
        make_config({"prompt": "x", section: {key: value}}, "remask.toml")


@pytest.mark.parametrize(("section", "key"), [("budget", "calls"), ("budget", "usd"), ("search", "within")])
def test_true_is_no_number(section: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{section}\.{key} is 'true', but must be a (whole )?number"):
        make_config({"prompt": "x", section: {key: True}}, "remask.toml")


def test_a_file_of_settings_or_a_prompt_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe")  # which would block for ever
    for name, words in (
        ("deep.toml", "nested too deep"),
        ("folder.toml", "this is a folder"),
        ("pipe", "not a regular file"),
        ("none.toml", "there is no such file"),
        ("nul\0", "cannot be read"),
    ):
        with pytest.raises(DataError, match=words):
            read_toml(tmp_path / name)
    with pytest.raises(DataError, match="not a regular file"):
        read_prompt(tmp_path / "pipe")


def test_a_byte_order_mark_before_the_settings_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "remask.toml").write_bytes(b"\xef\xbb\xbfseed = 5\r\n")
    assert read_toml(tmp_path / "remask.toml")["seed"] == 5


def test_every_key_says_what_it_means() -> None:
    for section in all_sections(Config):
        texts = attribute_docs(section)
        for key in section.model_fields:
            if section is not Config or section_of_key(section, key) is None:
                text = texts[key]
                assert text.endswith(".") and (text[0] == "`" or text[0].isupper()), (key, text)


def test_a_prompt_file_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.md").write_bytes(b"\xef\xbb\xbf\r\n")
    assert read_prompt(tmp_path / "empty.md") == ""


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"task": {"roles": {"user": {"model": "a/b", "sped": 1}}}},
            "'task.roles.user.sped'; known here: base_url",
        ),
        ({"components": {"a": {"place": "x", "tokens": 1}}}, "'components.a.tokens'; known here: max_tokens"),
    ],
)
def test_an_unknown_key_below_a_name_of_the_user_is_named(values: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_config({"prompt": "Be kind.", **values}, "test")
