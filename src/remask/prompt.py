"""A prompt: its frozen regions, its editable spans, its sentences, and how edits are applied.

Frozen regions are kept spans, template variables, code and addresses. An edit never changes text
inside of a frozen region. But the text that it writes next to one may create a new region or join
an existing one, so the guard compares `find_frozen_texts` before and after.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from remask.errors import ConfigError
from remask.ids import content_id

Span = tuple[int, int]  # half-open range of characters
MARKER = re.compile(r"\[\[(/?)keep\]\]")


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the characters [start, stop) of a prompt by `text`; inserts where start == stop."""

    start: int
    stop: int
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A system prompt as the target reads it, and the spans that its author marked to be kept."""

    text: str
    kept: tuple[Span, ...] = ()  # sorted, disjoint, not empty

    def __post_init__(self) -> None:
        end = 0
        for start, stop in self.kept:
            if not end <= start < stop <= len(self.text):
                raise ValueError(f"kept span {(start, stop)} is empty, out of order or outside")
            end = stop

    @classmethod
    def parse(cls, source: str) -> "Prompt":
        """Parse a prompt with [[keep]] and [[/keep]] marks. Raises ConfigError for unpaired marks.

        >>> Prompt.parse("Be kind. [[keep]]Sign it.[[/keep]]")
        Prompt(text='Be kind. Sign it.', kept=((9, 17),))
        """
        parts: list[str] = []
        kept: list[Span] = []
        size = at = 0
        opened: tuple[int, int] | None = None  # offset in the clean text, line in the source
        for mark in MARKER.finditer(source):
            line = source.count("\n", 0, mark.start()) + 1
            parts.append(source[at : mark.start()])
            size += mark.start() - at
            at = mark.end()
            if mark[1]:
                if opened is None:
                    raise ConfigError(f"prompt line {line}: [[/keep]] without [[keep]] before it")
                if size > opened[0]:
                    kept.append((opened[0], size))
                opened = None
            elif opened is not None:
                raise ConfigError(
                    f"prompt line {line}: [[keep]] inside the [[keep]] of line {opened[1]}; "
                    "close that one first, they do not nest"
                )
            else:
                opened = (size, line)
        if opened is not None:
            raise ConfigError(f"prompt line {opened[1]}: [[keep]] is never closed; add [[/keep]]")
        return cls("".join(parts) + source[at:], tuple(kept))

    def to_source(self) -> str:
        """Return the text with its [[keep]] marks, as in a prompt file."""
        parts: list[str] = []
        at = 0
        for start, stop in self.kept:
            parts += [self.text[at:start], "[[keep]]", self.text[start:stop], "[[/keep]]"]
            at = stop
        return "".join(parts) + self.text[at:]

    @property
    def id(self) -> str:
        """Return an id of the text and its kept spans."""
        return content_id("prompt", self.text, self.kept)

    @property
    def frozen(self) -> tuple[Span, ...]:
        """Return the spans that no edit may change, sorted and disjoint; some may be adjacent."""
        return _find_frozen(self)

    @property
    def editable(self) -> tuple[Span, ...]:
        """Return the spans between frozen spans that have at least one letter."""
        return _find_editable(self)

    @property
    def variables(self) -> tuple[str, ...]:
        """Return the placeholders as written, in order of first appearance.

        A tag such as <a> that is closed by </a> is no placeholder.
        """
        found = dict.fromkeys(match[0] for match in VARIABLE.finditer(self.text))
        return tuple(name for name in found if f"</{name[1:]}" not in self.text)

    def apply(self, edits: Iterable[Edit]) -> "Prompt":
        """Return a prompt with `edits` applied.

        Edits must be in order, disjoint, and each within one editable span; an insertion may be at
        the edge of a span. Raises ValueError for an illegal edit.
        """
        parts: list[str] = []
        at = 0
        moves: list[tuple[int, int]] = []  # from which offset on, by how much
        for edit in edits:
            if not any(a <= edit.start <= edit.stop <= b for a, b in self.editable):
                raise ValueError(f"{edit} is not inside one editable span of the prompt")
            if edit.start < at:
                raise ValueError(f"{edit} overlaps the edit before it or is out of order")
            parts += [self.text[at : edit.start], edit.text]
            at = edit.stop
            moves.append((edit.stop, len(edit.text) - (edit.stop - edit.start)))
        kept = []
        for start, stop in self.kept:
            by = sum(delta for offset, delta in moves if offset <= start)
            kept.append((start + by, stop + by))
        return Prompt("".join(parts) + self.text[at:], tuple(kept))


# --- frozen regions

_BRACES = r"\{[^{}]*+\}"

for _ in range(4):  # balanced braces, nested up to five levels: variables, JSON, escaped braces
    _BRACES = rf"\{{(?:[^{{}}]++|{_BRACES})*+\}}"

_NAME = r"[A-Za-z_][\w.:-]*"
_TAG = rf"</?{_NAME}(?:\s+{_NAME}=(?:\"[^\"<>]*\"|'[^'<>]*'))*\s*/?>"
_STOPS = ".,;:!?。，；：！？、"  # after an address these belong to the sentence, not to the address
_CONSTRUCTS = re.compile(
    "|".join(
        (
            # Fenced code: to a line with only a fence, else to any such fence, else to the end.
            r"^[ \t]*(?P<fence>`{3,}|~{3,})[^\n`]*\n"
            r"(?:(?:[\s\S]*?\n)??[ \t]*(?P=fence)[`~]*[ \t]*\r?(?:\n|\Z)"
            r"|[\s\S]*?(?P=fence)[`~]*|[\s\S]*)",
            r"(?P<open>`{3,})[^\s`]*[ \t]*\r?\n[\s\S]*?(?P=open)`*",
            r"(?P<tick>`+)(?!`)(?:(?!\n[ \t\r]*\n)[\s\S])*?(?<!`)(?P=tick)(?!`)",
            r"`{3,}|^[ \t]*~{3,}",
            r"\{%(?:(?!\{%)[\s\S])*?%\}",
            r"\{\#(?:(?!\{\#)[\s\S])*?\#\}",
            rf"\$?{_BRACES}",
            rf"(?:\b(?:https?|ftp)://|\bmailto:|\bwww\.)"
            rf"(?:[^\s<>\"'`{{}}()\[\]]|\([^\s()]*\)|\$?{_BRACES}|<{_NAME}>)+(?<![{_STOPS}])",
            r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
            _TAG,
            r"[{}`]",  # alone they have no meaning, but next to a construct they would change it
        )
    ),
    re.MULTILINE,
)

# Text that is a variable in some template language. No edit may create one. placeholders.py defines
# which of them remask fills, and how they are written for other tools.
VARIABLE = re.compile(
    r"\$?\{\{\{?-?[^{}\n]+?\}?\}\}"
    r"|\$?\{[ \t]*(?:[A-Za-z_][\w.\[\]]*|\d+)(?:![rsa])?(?::[^{}\s]{0,12})?[ \t]*\}"
    rf"|<{_NAME}>"
)


@lru_cache(maxsize=1024)
def _find_frozen(prompt: Prompt) -> tuple[Span, ...]:
    spans = sorted([*prompt.kept, *(match.span() for match in _CONSTRUCTS.finditer(prompt.text))])
    merged: list[Span] = []
    for start, stop in spans:
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)


@lru_cache(maxsize=1024)
def _find_editable(prompt: Prompt) -> tuple[Span, ...]:
    edges = [0, *(edge for span in prompt.frozen for edge in span), len(prompt.text)]
    gaps = zip(edges[::2], edges[1::2], strict=True)
    return tuple((a, b) for a, b in gaps if _has_letter(prompt.text[a:b]))


def find_frozen_texts(prompt: Prompt) -> tuple[str, ...]:
    """Return the frozen texts in order. A harmless edit leaves them equal."""
    return tuple(prompt.text[start:stop] for start, stop in prompt.frozen)


def _has_letter(text: str) -> bool:
    return any(char.isalpha() for char in text)


# --- sentences

LIST_MARK = re.compile(r"[ \t]*(?:(?:[-*+•‣◦–—]|\d{1,3}[.)]|\(?[A-Za-z\d][.)]|\#{1,6}|>|\[[ xX]\])[ \t]+)*")

_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]*_]*+(?=\s)|[。！？]+[”’」』）]*")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"“])"
    r"(?:e\.g|i\.e|vs|cf|approx|incl|resp|fig|vol|pp|mr|mrs|ms|dr|prof|z\.b|d\.h|bzw)\.$",
    re.IGNORECASE,
)

_LEADING_MARKS = re.compile(r"(?:\s+|[,;:.!?)\]}”’»…*_]+(?=\s|$)|[,;:]+|[\"'](?=\s))+")
_OPENERS = "([{“‘«"
_AMBIGUOUS = "\"'*_-"  # opening marks where a space comes before them


@lru_cache(maxsize=1024)
def find_sentences(prompt: Prompt) -> tuple[Span, ...]:
    """Return the sentences inside editable spans, in order, without list marks and outer spaces.

    >>> find_sentences(Prompt("- Be kind.\\n- Answer {x} in French."))
    ((2, 10), (13, 19), (24, 34))
    """
    found: list[Span] = []
    for start, stop in prompt.editable:
        for line_start, line_stop in _split_lines(prompt.text, start, stop):
            found += _split_line(prompt.text, line_start, line_stop)
    return tuple(found)


def _split_lines(text: str, start: int, stop: int) -> Iterator[Span]:
    """Yield the lines of a span, without their newlines."""
    while start < stop:
        newline = text.find("\n", start, stop)
        end = stop if newline < 0 else newline
        yield start, end
        start = end + 1


def _split_line(text: str, start: int, stop: int) -> Iterator[Span]:
    """Yield the sentences of one line."""
    if (start == 0 or text[start - 1] == "\n") and (mark := LIST_MARK.match(text, start, stop)):
        start = mark.end()
    for end in _END.finditer(text, start, stop):
        if end[0] == "." and _ABBREVIATION.search(text[max(start, end.end() - 12) : end.end()]):
            continue
        yield from _trim(text, start, end.end())
        start = end.end()
    yield from _trim(text, start, stop)


def _trim(text: str, start: int, stop: int) -> Iterator[Span]:
    """Yield the span without spaces and marks that belong to its neighbours, unless it is empty."""
    if head := _LEADING_MARKS.match(text, start, stop):
        start = head.end()
    while stop > start:
        bare = start + len(text[start:stop].rstrip(_AMBIGUOUS))
        if bare < stop and (bare == start or text[bare - 1].isspace()):
            stop = bare
        elif text[stop - 1].isspace() or text[stop - 1] in _OPENERS:
            stop -= 1
        else:
            break
    if _has_letter(text[start:stop]):
        yield start, stop
