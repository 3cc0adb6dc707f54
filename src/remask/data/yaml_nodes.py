"""Find the texts of a YAML document by their path, and replace one in place.

PyYAML says where each scalar begins and ends, so only its characters are written again: comments,
order, quotes, anchors and the layout of everything else stay as they are. The new text is written
in the style of the old one (plain, quoted, `|` or `>`), and in double quotes where that style
cannot hold it. Each result is read again before it is used.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from remask.data.json_nodes import Keys, Node, Slot, find_slot
from remask.data.trace_record import UnreadableRecord
from remask.errors import name_missing_extra

_STRING = "tag:yaml.org,2002:str"
_HEADER = re.compile(r"[|>](?:[+-]?([1-9]?)|([1-9])[+-])(?=\s|\Z)")
# A text that is plain in all versions of YAML: at least two words, the first one of letters.
_PLAIN = re.compile(r"[^\W\d_]+ [^\n]*")
_UNSAFE = re.compile(r"[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]")
_NOT_ASCII = re.compile(r"[^\x00-\x7e]")
_INDENTS = "123456789"  # that a header can state
_MIN_WIDTH = 40  # of the lines of a folded text


class YamlDocument:
    """The nodes of a YAML document. Raises UnreadableRecord, and BackendError without PyYAML."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._events, self._starts = _parse(text)
        count = sum(_is(event, "DocumentStart") for event in self._events)
        if not count:
            raise UnreadableRecord("is empty; write a text into it, as KEY: TEXT")
        if count > 1:
            raise UnreadableRecord(f"holds {count} documents; put the one that is meant into its own file")
        import yaml  # type: ignore[import-untyped]

        self._loader = yaml.SafeLoader("")
        self._indices: dict[int, int] = {}  # start of a scalar -> index of its event
        self._anchors: dict[str, Node] = {}
        self._at = 2  # behind the starts of stream and document
        try:
            self.root = self._build()
        except RecursionError:
            raise UnreadableRecord("malformed YAML (nested too deeply); flatten it") from None

    def find(self, keys: Keys) -> Slot:
        """Return the text at `keys`. Raises UnreadableValue where there is no text."""
        return find_slot(self.root, keys)

    def replace(self, slot: Slot, text: str) -> str:
        """Return the document with another text in a slot. Raises UnreadableRecord if none fits."""
        index = self._indices[slot.start]
        for written in _list_forms(self.text[slot.start : slot.stop], text, self.text):
            made = self.text[: slot.start] + written + self.text[slot.stop :]
            if self._differs_only(made, index, text):
                return made
        line = 1 + self.text.count("\n", 0, slot.start)
        raise UnreadableRecord("YAML cannot hold the new text here; shorten it to plain words", line)

    def _build(self) -> Node:
        event = self._events[self._at]
        self._at += 1
        node = Node(None, event.start_mark.index, event.end_mark.index)
        if _is(event, "Alias"):
            if event.anchor not in self._anchors:
                raise UnreadableRecord(f"the alias *{event.anchor} has no anchor", event.start_mark.line + 1)
            node.alias_of = self._anchors[event.anchor]
            return node
        if event.anchor:
            self._anchors[event.anchor] = node
        if _is(event, "Scalar"):
            node.value = self._construct(event)
            node.start = self._starts.get(node.stop, node.stop)  # behind anchor and tag
            self._indices[node.start] = self._at - 1
            return node
        node.value = {} if _is(event, "MappingStart") else []
        while not _is(self._events[self._at], "MappingEnd", "SequenceEnd"):
            if isinstance(node.value, list):
                node.value.append(self._build())
                continue
            key, inner = self._build(), self._build()
            name = key.value if isinstance(key.value, str) else self.text[key.start : key.stop]
            node.twice |= {name} & node.value.keys()
            node.value[name] = inner
        node.stop = self._events[self._at].end_mark.index
        self._at += 1
        return node

    def _construct(self, event: Any) -> Any:
        """Return the value of a scalar; None if its tag is unknown."""
        import yaml

        tag = event.tag
        if tag in (None, "!"):
            tag = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        if tag == _STRING:
            return event.value
        try:
            return self._loader.construct_object(yaml.ScalarNode(tag, event.value))
        except (yaml.YAMLError, ValueError, KeyError):
            return None

    def _differs_only(self, made: str, index: int, text: str) -> bool:
        """Whether a document is this one with only the text of one event replaced."""
        try:
            events, _ = _parse(made)
        except UnreadableRecord:
            return False
        if len(events) != len(self._events):
            return False
        new = events[index]
        fits = _is(new, "Scalar") and new.value == text and self._construct(new) == text
        same = (
            (new.anchor, new.tag) == (self._events[index].anchor, self._events[index].tag) if fits else False
        )
        rest = zip(self._events, events, strict=True)
        return same and all(i == index or _sign(a) == _sign(b) for i, (a, b) in enumerate(rest))


def _parse(text: str) -> tuple[list[Any], dict[int, int]]:
    """Return the events of a document, and the start of each scalar by its end."""
    with name_missing_extra():
        import yaml
    try:
        events = list(yaml.parse(text, Loader=yaml.SafeLoader))
        tokens = yaml.scan(text, Loader=yaml.SafeLoader)
        starts = {t.end_mark.index: t.start_mark.index for t in tokens if isinstance(t, yaml.ScalarToken)}
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise UnreadableRecord(
            f"malformed YAML ({problem}); fix it", mark.line + 1 if mark else None
        ) from None
    return events, starts


def _is(event: Any, *kinds: str) -> bool:
    return type(event).__name__.removesuffix("Event") in kinds


def _sign(event: Any) -> tuple[Any, ...]:
    """Return what an event says, without its place and style."""
    names = ("anchor", "tag", "implicit", "value", "explicit", "version", "tags")
    return type(event), *(getattr(event, name, None) for name in names)


# --- writing


def _list_forms(old: str, text: str, document: str) -> Iterator[str]:
    """Yield ways to write a text in place of `old`, the one in its style first."""
    quoted = _quote(text, document.isascii())
    if old[:1] in ("|", ">"):
        header, _, body = old.partition("\n")
        match = _HEADER.match(header)
        end = match.end() if match else 1
        comment = header[end:].rstrip()
        blank = old[len(old.rstrip(" \t\r\n")) :]
        newline = "\r\n" if "\r\n" in document else "\n"
        block = _Block(old[0], (match[1] or match[2] or "") if match else "", comment, body, blank, newline)
        yield from _list_blocks(block, text)
        yield quoted + comment + blank
        return
    if old[:1] == "'" and "\n" not in text:
        yield "'" + text.replace("'", "''") + "'"
    elif old[:1] not in ("'", '"') and _PLAIN.fullmatch(text):
        yield text
    yield quoted


def _quote(text: str, ascii: bool) -> str:
    """Write a text in double quotes on one line."""

    def escape(match: re.Match[str]) -> str:
        code = ord(match[0])
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return (_NOT_ASCII if ascii else _UNSAFE).sub(escape, json.dumps(text, ensure_ascii=False))


class _Block(NamedTuple):
    """A block of text as it is written."""

    style: str  # | or >
    digit: str  # the indentation that the header states; "": none
    comment: str  # behind the header
    body: str
    blank: str  # what is white at its end
    newline: str


def _list_blocks(block: _Block, text: str) -> Iterator[str]:
    """Yield ways to write a text as a block, with the indentation of the old one."""
    lines = [line for line in block.body.split("\n") if line.strip()]
    if not lines or not text.strip("\n"):
        return
    words = text.rstrip("\n")
    ends = len(text) - len(words)  # line breaks at the end
    chomp = "-" if not ends else "" if ends == 1 else "+"
    tail = (block.newline if ends or block.blank else "") + block.blank.partition("\n")[2]
    tail = block.newline * ends if ends > 1 else tail
    indent = " " * min(len(line) - len(line.lstrip(" ")) for line in lines)

    def write(style: str, digit: str, rows: Iterable[str]) -> str:
        shown = block.newline.join(indent + row if row else "" for row in rows)
        return f"{style}{digit}{chomp}{block.comment}{block.newline}{shown}{tail}"

    if block.style == ">" and not re.search(r"^[ \t]", words, re.MULTILINE):
        width = max(_MIN_WIDTH, *(len(line.strip()) for line in lines))
        yield write(">", block.digit, _fold(words, width))
    yield write("|", block.digit, words.split("\n"))
    if words[:1] in (" ", "\n"):
        yield from (write("|", digit, words.split("\n")) for digit in _INDENTS)


def _fold(text: str, width: int) -> Iterator[str]:
    """Yield the lines of a folded text: single spaces may become line breaks, and those double."""
    for row in re.sub(r"\n+", lambda m: m[0] + "\n", text).split("\n"):
        line = ""
        for word in re.split(r"(?<=\S) (?=\S)", row):
            if line and len(line) + 1 + len(word) > width:
                yield line
                line = word
            else:
                line = f"{line} {word}" if line else word
        yield line
