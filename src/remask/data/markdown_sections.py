"""Find the text of a Markdown file, or of one of its sections, and replace it in place.

The text of a file is what stands behind its front matter. The text of a section is what stands
below its heading, up to the next heading of the same or a higher level. Blank lines at the ends
belong to the file. Line breaks are \\n in the text, also where the file has \\r\\n.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from remask.data.json_nodes import Keys, Slot, UnreadableValue, format_pointer
from remask.data.trace_record import UnreadableRecord

_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)[ \t]*\r?\n(?:.*\r?\n)*?(?:\1|\.\.\.)[ \t]*(?:\r?\n|\Z)")
_BREAK = re.compile(r"\r\n|\r|\n")
_MAX_LISTED = 8  # headings in an error


class TextDocument:
    """A file that is one text. Raises UnreadableRecord for line breaks of several kinds."""

    def __init__(self, text: str) -> None:
        self.text = text
        breaks = list(_BREAK.finditer(text))
        self.newline = breaks[0][0] if breaks else "\n"
        odd = next((number for number, found in enumerate(breaks, 1) if found[0] != self.newline), None)
        if odd is not None:
            raise UnreadableRecord("has line breaks of several kinds; save it with \\n or with \\r\\n", odd)

    def find(self, keys: Keys) -> Slot:
        """Return the text of the file. Raises UnreadableValue for any keys."""
        if keys:
            raise UnreadableValue("has no parts; only files .json, .yaml, .yml and .md have them")
        return self.make_slot(0, len(self.text))

    def make_slot(self, start: int, stop: int) -> Slot:
        """Return the text between two offsets without the line breaks at its ends."""
        inner = self.text[start:stop]
        text = inner.strip("\r\n")
        start += len(inner) - len(inner.lstrip("\r\n")) if text else 0
        return Slot(text.replace(self.newline, "\n"), start, start + len(text))

    def replace(self, slot: Slot, text: str) -> str:
        """Return the document with another text in a slot."""
        before, after = self.text[: slot.start], self.text[slot.stop :]
        written = text.strip("\n").replace("\n", self.newline)
        if written and not slot.text:  # blank lines around it, since a heading may follow
            written = (self.newline if before and not before.endswith(self.newline) else "") + written
            breaks = sum(after.startswith(self.newline * n) for n in (1, 2))
            written += self.newline * (2 - breaks) if after else ""
        return before + written + after


class _Section(NamedTuple):
    title: str
    heading: int  # offset of its heading
    start: int  # span of what stands below the heading
    stop: int


class MarkdownDocument(TextDocument):
    """A Markdown file with its sections."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        front = _FRONT_MATTER.match(text)
        self._start = front.end() if front else 0
        self._sections = list(self._list_sections())

    def find(self, keys: Keys) -> Slot:
        """Return the text below the headings `keys`, each inside of the one before.

        Raises UnreadableValue where there is no such section, or not only one.
        """
        start, stop = self._start, len(self.text)
        for depth, key in enumerate(keys):
            inside = [s for s in self._sections if start <= s.heading and s.stop <= stop]
            found = [s for s in inside if s.title == key]
            shown = format_pointer(keys[: depth + 1])
            if not found:
                names = [section.title for section in inside[:_MAX_LISTED]]
                raise UnreadableValue(f"there is no heading {shown}; there are: {', '.join(names) or 'none'}")
            if len(found) > 1:
                lines = " and ".join(str(1 + self.text.count(self.newline, 0, s.heading)) for s in found[:2])
                raise UnreadableValue(
                    f"there are {len(found)} headings {shown} (lines {lines}); name the heading above it too"
                )
            start, stop = found[0].start, found[0].stop
        return self.make_slot(start, stop)

    def _list_sections(self) -> Iterator[_Section]:
        """Yield the sections in order."""
        from markdown_it import MarkdownIt

        offsets = [self._start]  # of the lines
        for line in self.text[self._start :].split(self.newline):
            offsets.append(offsets[-1] + len(line) + len(self.newline))
        offsets[-1] = len(self.text)
        tokens = MarkdownIt("commonmark").parse(self.text[self._start :])
        found = []
        for token, inner in pairwise(tokens):
            if token.type == "heading_open" and token.level == 0 and token.map:
                first, last = (offsets[number] for number in token.map)
                found.append((int(token.tag[1:]), inner.content.strip(), first, last))
        for i, (level, title, heading, start) in enumerate(found):
            ends = (other[2] for other in found[i + 1 :] if other[0] <= level)
            yield _Section(title, heading, start, next(ends, len(self.text)))
