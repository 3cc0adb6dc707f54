"""One string in a JSON document: only its bytes change, wherever it stands and however it is laid
out."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from remask.errors import ConfigError
from remask.integrations.place import Keys, find_string, replace_string

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
        ('{"a": "x", "\\u0061": "old"}', ("a",), '{"a": "x", "\\u0061": "new"}'),  # the last counts
        ('{"a": {"b": "x"}, "a": {"b": "old"}}', ("a", "b"), '{"a": {"b": "x"}, "a": {"b": "new"}}'),
        ('[["]", "}"], {"k": "a,b"}, "old"]', (2,), '[["]", "}"], {"k": "a,b"}, "new"]'),
        ('{"1": "x", "n": 1e400}', ("1",), '{"1": "new", "n": 1e400}'),
    ],
)
def test_find_string_returns_its_span(document: str, keys: Keys, made: str) -> None:
    assert replace_string(document, keys, "new") == made


@pytest.mark.parametrize(
    ("document", "keys", "words"),
    [
        ("", (), "malformed JSON (Expecting value, line 1); fix it"),
        ('{\n"a": }', ("a",), "malformed JSON (Expecting value, line 2)"),
        ("[" * 100_000, (0,), "nested too deeply"),
        ('{"a": ["x"]}', ("a", 1), "there is no a / 1; check the keys"),
        ('{"a": ["x"]}', ("a", -1), "there is no a / -1"),
        ('{"a": ["x"]}', ("a", "0"), "there is no a / 0"),
        ('{"a": {"b": "x"}}', ("b",), "there is no b"),
        ('{"a": {"b": "x"}}', ("a",), "a is {'b': 'x'}; name a string"),
        ("1", (), "the document is 1; name a string"),
    ],
)
def test_find_string_refuses_missing_keys(document: str, keys: Keys, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace_string(document, keys, "new")
    assert words in str(caught.value)
