"""Replace one string in a JSON document in place. Every other byte of the document stays the same.

A prompt is often in a file of another tool. Writing the whole file again would change its layout,
the order of its keys and the form of its numbers.
"""

import json
from collections.abc import Sequence
from typing import Any

from remask.errors import ConfigError

_DECODER = json.JSONDecoder()
_BLANKS = " \t\r\n"

Keys = Sequence[str | int]  # path from the outermost value: keys of objects, indices of arrays


def replace_string(document: str, keys: Keys, text: str) -> str:
    """Return the document with `text` as the string at `keys`.

    Non-ASCII characters are escaped where the document has none. Raises ConfigError where the
    document is no JSON or has no string there.

    >>> replace_string('{"a": [1.0, "old"]}', ("a", 1), "new")
    '{"a": [1.0, "new"]}'
    """
    start, stop = find_string(document, keys)
    return document[:start] + json.dumps(text, ensure_ascii=document.isascii()) + document[stop:]


def find_string(document: str, keys: Keys) -> tuple[int, int]:
    """Return the span of the string at `keys`, its quotes included.

    Raises ConfigError as `replace_string` does.
    """
    value = parse(document)
    for depth, key in enumerate(keys):
        if not _has_key(value, key):
            raise ConfigError(f"there is no {_format_keys(keys[: depth + 1])}; check the keys")
        value = value[key]
    if not isinstance(value, str):
        raise ConfigError(f"{_format_keys(keys)} is {value!r:.40}; name a string")
    at = _skip_blanks(document, 0)
    for key in keys:
        at = _find_item(document, at, key) if isinstance(key, int) else _find_member(document, at, key)
    return at, _find_end(document, at)


def parse(document: str) -> Any:
    """Parse a document. Raises ConfigError, which names the line that is no JSON."""
    try:
        return json.loads(document)
    except json.JSONDecodeError as error:
        raise ConfigError(f"malformed JSON ({error.msg}, line {error.lineno}); fix it") from None
    except RecursionError:
        raise ConfigError("malformed JSON (nested too deeply); fix it") from None


def _has_key(value: Any, key: str | int) -> bool:
    if isinstance(key, int):
        return isinstance(value, list) and 0 <= key < len(value)
    return isinstance(value, dict) and key in value


def _format_keys(keys: Keys) -> str:
    return " / ".join(map(str, keys)) or "the document"


# The following functions expect a valid document and keys that exist in it.


def _find_member(text: str, at: int, wanted: str) -> int:
    """Return where the value of a key begins in the object at `at`; of equal keys the last one."""
    found = -1
    at = _skip_blanks(text, at + 1)
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        at = _skip_blanks(text, _skip_blanks(text, at) + 1)  # the colon
        if name == wanted:
            found = at
        at = _skip_value(text, at)
    return found


def _find_item(text: str, at: int, wanted: int) -> int:
    """Return where an item of the array at `at` begins."""
    at = _skip_blanks(text, at + 1)
    for _ in range(wanted):
        at = _skip_value(text, at)
    return at


def _skip_value(text: str, at: int) -> int:
    """Return the position after the value at `at` and its comma."""
    at = _skip_blanks(text, _find_end(text, at))
    return _skip_blanks(text, at + 1) if text[at] == "," else at


def _find_end(text: str, at: int) -> int:
    return _DECODER.raw_decode(text, at)[1]


def _skip_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANKS:
        at += 1
    return at
