"""Exported prompts: exact, whole, and never over a file that is there."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask import export
from remask.errors import ConfigError
from remask.prompt import Prompt

PROMPT = Prompt.parse("Be brief.\n[[keep]]Never lie.[[/keep]]\nNaïve “quotes” \\ {x}")


@pytest.mark.parametrize("name", ["p.txt", "p.md", "p"])
def test_text_is_the_prompt_as_the_target_reads_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    export.write(path, export.render(PROMPT, path))
    assert path.read_bytes() == PROMPT.text.encode() + b"\n"
    assert "[[keep]]" not in path.read_text()


def test_json_is_a_list_of_chat_messages(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    export.write(path, export.render(PROMPT, path))
    assert json.loads(path.read_bytes()) == [{"role": "system", "content": PROMPT.text}]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda t: "keep]]" not in t))
def test_marked_text_parses_back_to_the_same_prompt(text: str) -> None:
    kept = ((0, len(text) // 2),) if len(text) > 1 else ()
    prompt = Prompt(text, kept)
    source = export.render(prompt, Path("p.md"), marked=True)
    assert Prompt.parse(source.removesuffix("\n")) == prompt
    plain = export.render(prompt, Path("p.md"))
    assert plain == text + "\n"
    assert json.loads(export.render(prompt, Path("p.json")))[0]["content"] == text


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "p.md"
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"exists already.*--force"):
        export.write(path, "new")
    assert path.read_text() == "mine"
    export.write(path, "new", force=True)
    assert path.read_text() == "new"


def test_nothing_is_left_behind_where_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        export.write(tmp_path / "no such folder" / "p.md", "new")
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        export.write(tmp_path / "folder.md", "new", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.md"]
