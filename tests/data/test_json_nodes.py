"""One text in a JSON document: only its bytes change, wherever it stands and however it is laid
out."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from remask.data.json_nodes import (
    JsonDocument,
    Keys,
    find_node,
    find_slot,
    format_pointer,
    parse_pointer,
    to_plain,
)
from remask.data.trace_record import UnreadableRecord

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def strings(value: Any, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The keys of every string in `value`."""
    if isinstance(value, str):
        yield keys
    elif isinstance(value, list | dict):
        for key in range(len(value)) if isinstance(value, list) else value:
            yield from strings(value[key], (*keys, key))


def replace_string(document: str, keys: Keys, text: str) -> str:
    made = JsonDocument(document)
    return made.replace(made.find(keys), text)


def find_string(document: str, keys: Keys) -> tuple[int, int]:
    slot = JsonDocument(document).find(keys)
    return slot.start, slot.stop


def changed(value: Any, keys: Keys, text: str) -> Any:
    if not keys:
        return text
    made = copy.deepcopy(value)
    inner = made
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = text
    return made


@pytest.mark.parametrize("indent", [None, 2, "\t"])
@pytest.mark.parametrize("ascii", [True, False])
@settings(max_examples=100, deadline=None)
@given(VALUES, TEXT, st.data(), st.text(" \t\r\n", max_size=2))
def test_replace_string_changes_only_the_string(
    indent: int | str | None, ascii: bool, value: Any, text: str, data: st.DataObject, blanks: str
) -> None:
    places = list(strings(value))
    assume(places)
    keys = data.draw(st.sampled_from(places))
    document = blanks + json.dumps(value, indent=indent, ensure_ascii=ascii) + blanks
    start, stop = find_string(document, keys)
    made = replace_string(document, keys, text)
    assert json.loads(made) == changed(value, keys, text)
    assert made[:start] == document[:start]
    assert made[len(made) - (len(document) - stop) :] == document[stop:]
    assert find_string(made, keys) == (start, len(made) - (len(document) - stop))
    if document.isascii():
        assert made.isascii()


@pytest.mark.parametrize(
    ("document", "keys", "made"),
    [
        ('{"a" :[1.0 , "old"]}', ("a", 1), '{"a" :[1.0 , "new"]}'),
        (' "old"\n', (), ' "new"\n'),
        ('{"x": 1, "x": 2, "a": "old"}', ("a",), '{"x": 1, "x": 2, "a": "new"}'),  # twice, but elsewhere
        ('[["]", "}"], {"k": "a,b"}, "old"]', (2,), '[["]", "}"], {"k": "a,b"}, "new"]'),
        ('{"1": "x", "n": 1e400}', ("1",), '{"1": "new", "n": 1e400}'),
    ],
)
def test_find_string_returns_its_span(document: str, keys: Keys, made: str) -> None:
    assert replace_string(document, keys, "new") == made


@pytest.mark.parametrize(
    ("document", "keys", "words"),
    [
        ("", (), "malformed JSON (Expecting value); fix it"),
        ('{\n"a": }', ("a",), "malformed JSON (Expecting value); fix it"),
        ("[" * 100_000, (0,), "nested too deeply"),
        ("9" * 5000, (), "malformed JSON (a number is too large); fix it"),
        ('{"a": ["x"]}', ("a", 1), "there is no /a/1; /a is a list of 1 items, counted from 0"),
        ('{"a": ["x"]}', ("a", -1), "there is no /a/-1"),
        ('{"a": ["x"]}', ("a", "x"), "there is no /a/x"),
        ('{"a": {"b": "x"}}', ("b",), "there is no /b; the document has a"),
        ('{"a": {}}', ("a", "b"), "there is no /a/b; /a has no keys"),
        ('{"a": "x"}', ("a", "b"), "there is no /a/b; /a holds no further parts"),
        ('{"a": {"b": "x"}}', ("a",), "/a is an object; name a text"),
        ('{"a": [1]}', ("a",), "/a is a list; name a text"),
        ("1", (), "the document is 1; name a text"),
        ('{"a": "x", "\\u0061": "old"}', ("a",), "the key 'a' appears twice; remove one"),
        ('{"a": {"b": "x"}, "a": {"b": "old"}}', ("a", "b"), "the key 'a' appears twice; remove one"),
    ],
)
def test_find_string_refuses_missing_keys(document: str, keys: Keys, words: str) -> None:
    with pytest.raises(UnreadableRecord) as caught:
        replace_string(document, keys, "new")
    assert words in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_nodes_hold_the_value(value: Any) -> None:
    assert to_plain(JsonDocument(json.dumps(value, indent=1)).root) == value


@given(st.lists(TEXT, min_size=1))
def test_a_pointer_holds_its_keys(keys: list[str]) -> None:
    assert list(parse_pointer(format_pointer(keys))) == keys


def test_pointers_are_those_of_rfc_6901() -> None:
    document = JsonDocument(
        '{"foo": ["bar", "baz"], "": "e", "a/b": "s", "m~n": "t", "k\\"l": "q", " ": "b"}'
    )
    for pointer, text in {
        "/foo/0": "bar",
        "/": "e",
        "/a~1b": "s",
        "/m~0n": "t",
        '/k"l': "q",
        "/ ": "b",
    }.items():
        assert find_slot(document.root, parse_pointer(pointer)).text == text
    assert find_node(document.root, ()) is document.root
