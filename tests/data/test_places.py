"""Texts at places in files of users: read, written back, and refused in one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remask.data.places import expand_places, read_places, read_tools, write_places
from remask.errors import ConfigError, DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TOOLS = """{"tools": [
  {"name": "search", "description": "Find rows.", "inputSchema":
     {"type": "object", "properties": {"query": {"type": "string", "description": "Words."}}}},
  {"name":"book",   "description":"Book it.", "inputSchema": {"type": "object", "maximum": 1.0}}
]}
"""
CHAT = """\
# few-shot messages
- role: system   # the prompt
  content: |
    Be kind.
    Be short.
- {role: user, content: "Hi there"}
"""
AGENT = """\
---
name: agent
---
You are an agent.

## Rules

- Be kind.

## Style

Short.
"""
SPEC = {
    "system": "agent.md#/Rules",
    "style": "agent.md#/Style",
    "whole": "plain.txt",
    "tool:*": "tools.json",
    "tool:*/*": "tools.json",
    "message:*": "chat.yaml",
}
EXPANDED = {  # a message that has become empty is no component of its list any more
    "message:system": "chat.yaml#/0/content",
    "message:user": "chat.yaml#/1/content",
}
TEXTS = {
    "system": "- Be kind.",
    "style": "Short.",
    "whole": "One\ntwo",
    "tool:search": "Find rows.",
    "tool:book": "Book it.",
    "tool:search/query": "Words.",
    "message:system": "Be kind.\nBe short.\n",
    "message:user": "Hi there",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {"tools.json": TOOLS, "chat.yaml": CHAT, "agent.md": AGENT}.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "bare.json").write_text('[{"name": "f", "description": "F."}]')
    (tmp_path / "plain.txt").write_bytes(b"\xef\xbb\xbfOne\r\ntwo\r\n")
    return tmp_path


def test_places_are_expanded_and_read(folder: Path) -> None:
    assert read_places(SPEC, folder) == TEXTS
    places = expand_places(SPEC, folder)
    assert places["tool:search/query"] == "tools.json#/tools/0/inputSchema/properties/query/description"
    assert places["whole"] == "plain.txt"
    assert places["message:user"] == "chat.yaml#/1/content"
    assert read_places(places, folder) == TEXTS


def test_new_texts_change_only_their_bytes(folder: Path) -> None:
    new = {
        "system": "- Be brief.",
        "style": "Long.",
        "tool:book": "Réserve.",
        "message:system": "Be brief.\n",
    }
    new["whole"] = "One\ntwo\nthree"
    written = write_places(SPEC, new, folder, TEXTS)
    assert sorted(path.name for path in written) == ["agent.md", "chat.yaml", "plain.txt", "tools.json"]
    assert read_places(SPEC, folder) == TEXTS | new
    assert (folder / "tools.json").read_text() == TOOLS.replace("Book it.", "R\\u00e9serve.")
    assert (folder / "chat.yaml").read_text() == CHAT.replace("Be kind.\n    Be short.", "Be brief.")
    changed = AGENT.replace("- Be kind.", "- Be brief.").replace("Short.", "Long.")
    assert (folder / "agent.md").read_text() == changed
    assert (folder / "plain.txt").read_bytes() == b"\xef\xbb\xbfOne\r\ntwo\r\nthree\r\n"


def test_equal_texts_write_no_file(folder: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert write_places(SPEC, TEXTS, folder) == []
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([n for n in TEXTS if ":" in n]), TEXT))
def test_any_text_can_be_read_after_it_was_written(folder: Path, new: dict[str, str]) -> None:
    places = {name: place for name, place in SPEC.items() if name != "message:*"} | EXPANDED
    old = read_places(places, folder)
    write_places(places, new, folder)
    assert read_places(places, folder) == old | new
    assert json.loads((folder / "tools.json").read_text())["tools"][1]["inputSchema"]["maximum"] == 1
    assert (folder / "chat.yaml").read_text().startswith(CHAT[: CHAT.index("|")])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXT, TEXT | st.sampled_from(["\ufeffx", "# A", "\r", "a\n---"]))
def test_markdown_is_written_whole_or_refused(folder: Path, one: str, other: str) -> None:
    spec = {"system": "agent.md#/Rules", "style": "agent.md#/Style"}
    (folder / "agent.md").write_text(AGENT)
    try:
        write_places(spec, {"system": one, "style": other}, folder)
    except DataError:
        assert (folder / "agent.md").read_text() == AGENT
    else:
        assert read_places(spec, folder) == {"system": one.strip("\n"), "style": other.strip("\n")}


def test_a_linked_file_stays_a_link_and_keeps_its_permissions(folder: Path) -> None:
    real = folder / "tools.json"
    real.chmod(0o640)
    (folder / "link.json").symlink_to(real)
    write_places({"tool:*": "link.json"}, {"tool:search": "New."}, folder)
    assert (folder / "link.json").is_symlink() and "New." in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640


def test_no_file_is_replaced_where_one_cannot_be_written(folder: Path) -> None:
    name = "b" * 250 + ".md"  # its temporary file would have a name that is too long
    (folder / name).write_text("Text.\n")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match=r"b\.md cannot be written"):
        write_places({"a": "agent.md", "b": name}, {"a": "New.", "b": "New."}, folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_read_only_file_is_not_replaced(folder: Path) -> None:
    (folder / "tools.json").chmod(0o444)
    new = {"tool:search": "New.", "system": "New."}
    refuse(folder, SPEC, "tools.json is read-only; make it writable", new=new)


def refuse(folder: Path, spec: dict[str, str], *words: str, new: dict[str, str] | None = None) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError) as caught:
        if new is None:
            read_places(spec, folder)
        else:
            write_places(spec, new, folder, TEXTS if spec is SPEC else None)
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert "\n" not in said
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"a": "no.md"}, ("no.md: there is no such file; a text inside of a file is written FILE#/POINTER",)),
        ({"a": "tools.json#tools"}, ("tools.json#tools: there is no such file",)),
        ({"a": "#/x"}, ("the place '#/x' names no file",)),
        ({"a": "tools.json"}, ("tools.json: a whole JSON or YAML file is no text",)),
        ({"a": "tools.json#/tools/2"}, ("tools.json:1: there is no /tools/2; /tools is a list of 2 items",)),
        (
            {"a": "tools.json#/tools/1/title"},
            ("tools.json:4: there is no /tools/1/title; /tools/1 has name",),
        ),
        ({"a": "tools.json#/tools/1/inputSchema/maximum"}, ("tools.json:4: /tools/1", "is 1.0; name a text")),
        ({"a": "chat.yaml#/1"}, ("chat.yaml:6: /1 is an object; name a text",)),
        ({"a": "agent.md#/Rule"}, ("agent.md: there is no heading /Rule; there are: Rules, Style",)),
        ({"a": "plain.txt#/x"}, ("plain.txt: has no parts; only files .json, .yaml, .yml and .md",)),
        ({"a:*": "agent.md"}, ("agent.md: a name with * needs a JSON or YAML file",)),
        ({"a:*": "tools.json#/tools/0"}, ("tools.json:2: is no list of tools or messages",)),
        ({"a:*/*": "chat.yaml"}, ("chat.yaml:2: the tool /0 has no name",)),
        ({"a": "plain.txt", "a:*/*": "bare.json"}, ("bare.json:1: has no parameter with a text",)),
        (
            {"a": "agent.md", "b": "agent.md#/Rules"},
            ("the components 'a' and 'b' share a text of", "agent.md"),
        ),
        (
            {"tool:*": "tools.json", "b": "./tools.json#/tools/0/description"},
            ("'tool:search'", "'b'", "share"),
        ),
        ({"a": "plain.txt", "b": "plain.txt"}, ("the components 'a' and 'b' share a text",)),
        (
            {"tool:search": "plain.txt", "tool:*": "tools.json"},
            ("two components have the name 'tool:search'",),
        ),
    ],
)
def test_wrong_places_are_refused_in_one_sentence(
    folder: Path, spec: dict[str, str], words: tuple[str, ...]
) -> None:
    refuse(folder, spec, *words)


@pytest.mark.parametrize(
    ("name", "content", "place", "words"),
    [
        ("a.json", b'{\n"a": }', "a.json#/a", "a.json:2: malformed JSON (Expecting value); fix it"),
        ("a.json", b'{\n"a": "x", "a": "y"}', "a.json#/a", "a.json:1: the key 'a' appears twice"),
        ("a.json", b'{"a": "\\ud800"}', "a.json#/a", "holds half of a surrogate pair"),
        ("a.json", b'{"a": "\xff"}', "a.json#/a", "a.json:1: byte 0xff is not UTF-8"),
        ("a.yaml", b"a: x\n---\nb: y\n", "a.yaml#/a", "a.yaml: holds 2 documents"),
        ("a.yaml", b"a: &x two words\nb: *x\n", "a.yaml#/b", "a.yaml:2: /b is an alias"),
        ("a.yaml", b"a: b\n  c: d\n", "a.yaml#/a", "a.yaml:2: malformed YAML"),
        ("a.md", b"a\nb\r\n", "a.md", "a.md:2: has line breaks of several kinds"),
        ("a.csv", b"a,b\n1,2\n", "a.csv", "this file holds rows, not a prompt"),
        ("a.txt", "é".encode("utf-16"), "a.txt", "is not UTF-8"),
        (
            "a.json",
            b'[{"name": "a", "description": "b", "parameters": "{"}]',
            "*a.json",
            "a.json:1: the schema",
        ),
        (
            "a.json",
            b'[\n{"name": "a", "description": "b"},\n{"name": "a"}]',
            "*a.json",
            "a.json:3: two tools",
        ),
    ],
)
def test_wrong_files_are_refused_with_their_line(
    tmp_path: Path, name: str, content: bytes, place: str, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    refuse(tmp_path, {"tool:*" if place[0] == "*" else "a": place.lstrip("*")}, words)


def test_new_texts_that_do_not_fit_are_refused(folder: Path) -> None:
    refuse(folder, SPEC, "there is no component 'x'; there are: system, style", new={"x": "y"})
    rules = "- A.\n\n# Heading"
    refuse(folder, SPEC, "agent.md:8: the new text has a heading", new={"system": rules, "tool:book": "New"})
    refuse(folder, SPEC, "has a heading or marks", new={"system": "```\ncode"})
    refuse(folder, SPEC, "half of a surrogate pair", new={"tool:book": "\ud800"})
    (folder / "tools.json").write_text(TOOLS.replace("Find rows.", "Find."))
    refuse(folder, SPEC, "tools.json:2: the text of 'tool:search' has changed", new={"tool:search": "New"})


def test_a_folder_may_end_with_a_hash(tmp_path: Path) -> None:
    folder = tmp_path / "C#" / "D#"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text('{"b#/": "Be kind."}')
    place = f"{folder}/a.json#/b#~1"
    assert (
        read_places({"a": place}) == read_places({"a": "C#/D#/a.json#/b#~1"}, tmp_path) == {"a": "Be kind."}
    )
    write_places({"a": place}, {"a": "Be nice."})
    assert "Be nice." in (folder / "a.json").read_text()


def test_tools_of_a_file_are_converted(folder: Path) -> None:
    made = read_tools("tools.json", folder)
    assert made[1]["function"]["parameters"] == {"type": "object", "maximum": 1.0}
    (folder / "tools.yaml").write_text("t:\n- name: a\n  parameters: {type: object, minimum: 2, x: yes}\n")
    found: Any = read_tools("tools.yaml#/t", folder)
    assert found[0]["function"] == {"name": "a", "parameters": {"type": "object", "minimum": 2, "x": True}}
    for place, words in {
        "agent.md": "is neither JSON nor YAML",
        "chat.yaml": r"chat\.yaml:2: the tool /0 has no name",
        "no.json": "no such file",
    }.items():
        with pytest.raises(DataError, match=words):
            read_tools(place, folder)


def test_a_mark_at_the_start_of_a_text_is_no_text(folder: Path) -> None:
    (folder / "a.txt").write_text("old")
    refuse(folder, {"whole": "a.txt"}, "has a heading or marks", new={"whole": "\ufeffnew"})
