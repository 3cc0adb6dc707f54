"""Find the values of a JSON document by their path, and replace a text in place.

Every other byte of the document stays the same: writing the whole document again would change its
layout, the order of its keys and the form of its numbers. A path is a JSON Pointer (RFC 6901):
`/tools/0/description`, with `~1` for a slash and `~0` for a tilde in a key.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from remask.data.strict_json import TOO_DEEP
from remask.data.trace_record import UnreadableRecord

_DECODER = json.JSONDecoder()
_BLANKS = " \t\r\n"
_MAX_LISTED = 8  # keys in an error

Keys = Sequence[str | int]  # path from the outermost value: keys of objects, indices of lists


@dataclass(slots=True, eq=False)
class Node:
    """A value of a document, and where it is.

    value: a text, a dict or a list of nodes, or another scalar. alias_of: in YAML, the node that
    this one repeats; its own value is then None.
    """

    value: Any
    start: int  # span of a text with its quotes, or of the whole value
    stop: int
    twice: set[str] = field(default_factory=set)  # keys that occur more than once
    alias_of: "Node | None" = None


@dataclass(frozen=True, slots=True)
class Slot:
    """A text that can be replaced, and its span in the document."""

    text: str
    start: int
    stop: int


class UnreadableValue(UnreadableRecord):
    """A part of a document is not what it must be."""

    def __init__(self, reason: str, keys: Keys = ()) -> None:
        super().__init__(reason)
        self.keys = keys  # of the part


def parse_pointer(pointer: str) -> tuple[str, ...]:
    """Return the keys of a JSON Pointer, which begins with a slash."""
    return tuple(key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:])


def format_pointer(keys: Keys) -> str:
    """Write keys as a JSON Pointer.

    >>> format_pointer(("a/b", 0))
    '/a~1b/0'
    """
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def find_node(root: Node, keys: Keys) -> Node:
    """Return the node at `keys`. Raises UnreadableValue where there is none, or not only one."""
    node = root
    for depth, key in enumerate(keys):
        here, inner = keys[:depth], _get(node, key)
        if node.alias_of is not None:
            break
        if inner is None:
            shown = format_pointer(keys[: depth + 1])
            raise UnreadableValue(f"there is no {shown}{_list_known(here, node.value)}", here)
        if key in node.twice:
            raise UnreadableValue(f"the key {key!r} appears twice; remove one", here)
        node = inner
    if node.alias_of is not None:
        raise UnreadableValue(
            f"{format_pointer(keys)} is an alias of a part elsewhere in the file; name the text where "
            "its anchor (&) is, or write it out here",
            keys,
        )
    return node


def reach(root: Node, keys: Keys) -> Node:
    """Return the node at `keys`, or the last one on the way there."""
    node = root
    for key in keys:
        node = _get(node, key) or node
    return node


def _get(node: Node, key: str | int) -> Node | None:
    if isinstance(node.value, dict):
        found: Node | None = node.value.get(key)
        return found
    fits = isinstance(node.value, list) and str(key).isdecimal() and int(key) < len(node.value)
    return node.value[int(key)] if fits else None


def find_slot(root: Node, keys: Keys) -> Slot:
    """Return the text at `keys`. Raises UnreadableValue where there is no text."""
    node = find_node(root, keys)
    if not isinstance(node.value, str):
        kind = "an object" if isinstance(node.value, dict) else "a list"
        nested = isinstance(node.value, dict | list)
        held = kind if nested else json.dumps(node.value, default=str)[:40]
        raise UnreadableValue(f"{format_pointer(keys) or 'the document'} is {held}; name a text", keys)
    return Slot(node.value, node.start, node.stop)


def to_plain(node: Node, known: dict[int, Any] | None = None) -> Any:
    """Return the value of a node without its nodes. Parts that are repeated are one object."""
    known = {} if known is None else known
    node = node.alias_of or node
    if id(node) not in known:
        known[id(node)] = node.value
        if isinstance(node.value, dict):
            found: dict[str, Any] = {}
            known[id(node)] = found
            found.update((key, to_plain(inner, known)) for key, inner in node.value.items())
        elif isinstance(node.value, list):
            items: list[Any] = []
            known[id(node)] = items
            items.extend(to_plain(inner, known) for inner in node.value)
    return known[id(node)]


def _list_known(keys: Keys, value: Any) -> str:
    """Say what is there in place of what was looked for."""
    where = format_pointer(keys) or "the document"
    if isinstance(value, list):
        return f"; {where} is a list of {len(value)} items, counted from 0"
    if not isinstance(value, dict):
        return f"; {where} holds no further parts"
    names = [*list(value)[:_MAX_LISTED], *(["…"] if len(value) > _MAX_LISTED else [])]
    return f"; {where} has {', '.join(names) or 'no keys'}"


class JsonDocument:
    """The nodes of a JSON document. Raises UnreadableRecord, which names the line."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            json.loads(text)
            self.root = _build_node(text, _skip_blanks(text, 0))
        except json.JSONDecodeError as error:
            raise UnreadableRecord(f"malformed JSON ({error.msg}); fix it", error.lineno) from None
        except RecursionError:
            raise UnreadableRecord(TOO_DEEP) from None
        except ValueError:  # an integer with more digits than Python reads
            raise UnreadableRecord("malformed JSON (a number is too large); fix it") from None

    def find(self, keys: Keys) -> Slot:
        """Return the text at `keys`. Raises UnreadableValue where there is no text."""
        return find_slot(self.root, keys)

    def replace(self, slot: Slot, text: str) -> str:
        """Return the document with another text in a slot.

        Non-ASCII characters are escaped where the document has none.
        """
        written = json.dumps(text, ensure_ascii=self.text.isascii())
        return self.text[: slot.start] + written + self.text[slot.stop :]


# The following functions expect valid JSON.


def _build_node(text: str, at: int) -> Node:
    if text[at] not in "{[":
        value, end = _DECODER.raw_decode(text, at)
        return Node(value, at, end)
    is_list, start, at = text[at] == "[", at, _skip_blanks(text, at + 1)
    items: list[Node] = []
    members: dict[str, Node] = {}
    twice: set[str] = set()
    while text[at] not in "}]":
        key = ""
        if not is_list:
            key, at = _DECODER.raw_decode(text, at)
            at = _skip_blanks(text, _skip_blanks(text, at) + 1)  # the colon
            twice |= {key} & members.keys()
        node = _build_node(text, at)
        items.append(node)
        members[key] = node
        at = _skip_blanks(text, node.stop)
        at = _skip_blanks(text, at + 1) if text[at] == "," else at
    return Node(items if is_list else members, start, at + 1, twice)


def _skip_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANKS:
        at += 1
    return at
