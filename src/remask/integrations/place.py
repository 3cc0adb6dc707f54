"""One string in a JSON document, replaced in place: every other byte of the document stays.

A prompt often lives inside a file of another tool, whose layout, order and numbers are not ours to
write again. Knows JSON only: no prompts and no tools.
"""

import json
from collections.abc import Sequence
from typing import Any

from remask.errors import ConfigError

_DECODER = json.JSONDecoder()
_BLANKS = " \t\r\n"

Keys = Sequence[str | int]  # from the outermost value inwards: names of objects, numbers of arrays


def replace_string(document: str, keys: Keys, text: str) -> str:
    """The document with `text` as the string at `keys`; non-ASCII is escaped where it all is.

    {"a": [1.0, "old"]} with keys ("a", 1) and text "new" becomes {"a": [1.0, "new"]}. Raises
    ConfigError where the document is no JSON or has no string there.
    """
    start, stop = find_string(document, keys)
    return document[:start] + json.dumps(text, ensure_ascii=document.isascii()) + document[stop:]


def find_string(document: str, keys: Keys) -> tuple[int, int]:
    """Where the string at `keys` stands, its quotes included. Raises ConfigError as above."""
    value = parse(document)
    for depth, key in enumerate(keys):
        if not _has(value, key):
            raise ConfigError(f"there is no {_shown(keys[: depth + 1])}; check the keys")
        value = value[key]
    if not isinstance(value, str):
        raise ConfigError(f"{_shown(keys)} is {value!r:.40}; name a string")
    at = _skip(document, 0)
    for key in keys:
        at = _item(document, at, key) if isinstance(key, int) else _member(document, at, key)
    return at, _end(document, at)


def parse(document: str) -> Any:
    """The value of a document; ConfigError names the line that is no JSON."""
    try:
        return json.loads(document)
    except json.JSONDecodeError as error:
        raise ConfigError(f"malformed JSON ({error.msg}, line {error.lineno}); fix it") from None
    except RecursionError:
        raise ConfigError("malformed JSON (nested too deeply); fix it") from None


def _has(value: Any, key: str | int) -> bool:
    if isinstance(key, int):
        return isinstance(value, list) and 0 <= key < len(value)
    return isinstance(value, dict) and key in value


def _shown(keys: Keys) -> str:
    return " / ".join(map(str, keys)) or "the document"


# What follows reads a document that `parse` has accepted, and keys that it has.


def _member(text: str, at: int, wanted: str) -> int:
    """Where the value of a name begins in the object at `at`. As for every reader, the last of
    equal names counts."""
    found = -1
    at = _skip(text, at + 1)
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        at = _skip(text, _skip(text, at) + 1)  # the colon
        if name == wanted:
            found = at
        at = _next(text, at)
    return found


def _item(text: str, at: int, wanted: int) -> int:
    """Where an item of the array at `at` begins."""
    at = _skip(text, at + 1)
    for _ in range(wanted):
        at = _next(text, at)
    return at


def _next(text: str, at: int) -> int:
    """Behind the value at `at` and its comma: the next name or item, or the closing bracket."""
    at = _skip(text, _end(text, at))
    return _skip(text, at + 1) if text[at] == "," else at


def _end(text: str, at: int) -> int:
    return _DECODER.raw_decode(text, at)[1]


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANKS:
        at += 1
    return at
