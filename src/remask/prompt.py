"""A prompt: which parts of it may be rewritten, and what a rewriting looks like.

Knows frozen regions (kept spans, template variables, code, addresses), sentences, how edits are
applied and how two texts differ. Knows nothing of traces, tokens, models or scores.
An edit can never reach into a frozen region; it may still create one or spoil one by what it puts
beside it, so `frozen_texts` lets the guard compare before and after.
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
    """Put `text` in place of the characters [start, stop) of a prompt; start == stop inserts."""

    start: int
    stop: int
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A system prompt as the target sees it, and the spans its author marked as untouchable."""

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
        """Read a prompt with `[[keep]]…[[/keep]]` marks. ConfigError if they do not pair up."""
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
        """The text with the marks put back: what a prompt file holds."""
        parts: list[str] = []
        at = 0
        for start, stop in self.kept:
            parts += [self.text[at:start], "[[keep]]", self.text[start:stop], "[[/keep]]"]
            at = stop
        return "".join(parts) + self.text[at:]

    @property
    def id(self) -> str:
        """Same text and same kept spans, same id."""
        return content_id("prompt", self.text, self.kept)

    @property
    def frozen(self) -> tuple[Span, ...]:
        """What no edit may touch: sorted and disjoint; spans that only touch stay apart."""
        return _find_frozen(self)

    @property
    def editable(self) -> tuple[Span, ...]:
        """The parts between frozen spans that hold at least one letter."""
        return _find_editable(self)

    @property
    def variables(self) -> tuple[str, ...]:
        """The literal placeholders, in order of first appearance. Pairs like <a>…</a> are not."""
        found = dict.fromkeys(match[0] for match in VARIABLE.finditer(self.text))
        return tuple(name for name in found if f"</{name[1:]}" not in self.text)

    def apply(self, edits: Iterable[Edit]) -> "Prompt":
        """A prompt with `edits` made, which are in order, disjoint and each in one editable span.

        An insertion may also stand at an edge of such a span. ValueError names an illegal edit.
        """
        parts: list[str] = []
        at = 0
        moves: list[tuple[int, int]] = []  # from which offset on, by how much
        for edit in edits:
            if not any(a <= edit.start <= edit.stop <= b for a, b in self.editable):
                raise ValueError(f"{edit} is not inside one editable span of the prompt")
            if edit.start < at:
                raise ValueError(f"{edit} overlaps the edit before it or comes too late")
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

for _ in range(4):  # balanced braces, nested up to five deep: variables, JSON, escaped braces
    _BRACES = rf"\{{(?:[^{{}}]++|{_BRACES})*+\}}"

_NAME = r"[A-Za-z_][\w.:-]*"
_TAG = rf"</?{_NAME}(?:\s+{_NAME}=(?:\"[^\"<>]*\"|'[^'<>]*'))*\s*/?>"
_STOPS = ".,;:!?。，；：！？、"  # marks that end a sentence round an address, not the address
_CONSTRUCTS = re.compile(
    "|".join(
        (
            # Fenced code: a bare fence closes it, else any run of the same kind, else the end.
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
            r"[{}`]",  # alone they mean nothing, but beside a construct they would change it
        )
    ),
    re.MULTILINE,
)

# What looks like a variable in any template language: no edit may make one. Which of them remask
# fills, and how they are written for other tools, placeholders.py knows.
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
    """The frozen strings themselves, in order: equal before and after a harmless edit."""
    return tuple(prompt.text[start:stop] for start, stop in prompt.frozen)


def _has_letter(text: str) -> bool:
    return any(char.isalpha() for char in text)


# --- sentences

LIST_MARK = re.compile(
    r"[ \t]*(?:(?:[-*+•‣◦–—]|\d{1,3}[.)]|\(?[A-Za-z\d][.)]|\#{1,6}|>|\[[ xX]\])[ \t]+)*"
)

_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]*_]*+(?=\s)|[。！？]+[”’」』）]*")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"“])"
    r"(?:e\.g|i\.e|vs|cf|approx|incl|resp|fig|vol|pp|mr|mrs|ms|dr|prof|z\.b|d\.h|bzw)\.$",
    re.IGNORECASE,
)

_HEAD = re.compile(r"(?:\s+|[,;:.!?)\]}”’»…*_]+(?=\s|$)|[,;:]+|[\"'](?=\s))+")
_OPENERS = "([{“‘«"
_UNSURE = "\"'*_-"  # open something where a blank stands before them


@lru_cache(maxsize=1024)
def find_sentences(prompt: Prompt) -> tuple[Span, ...]:
    """Sentence-like units inside editable spans, in order, without list marks and outer spaces."""
    found: list[Span] = []
    for start, stop in prompt.editable:
        for line_start, line_stop in _split_lines(prompt.text, start, stop):
            found += _split_line(prompt.text, line_start, line_stop)
    return tuple(found)


def _split_lines(text: str, start: int, stop: int) -> Iterator[Span]:
    while start < stop:
        newline = text.find("\n", start, stop)
        end = stop if newline < 0 else newline
        yield start, end
        start = end + 1


def _split_line(text: str, start: int, stop: int) -> Iterator[Span]:
    if (start == 0 or text[start - 1] == "\n") and (mark := LIST_MARK.match(text, start, stop)):
        start = mark.end()
    for end in _END.finditer(text, start, stop):
        if end[0] == "." and _ABBREVIATION.search(text[max(start, end.end() - 12) : end.end()]):
            continue
        yield from _trim(text, start, end.end())
        start = end.end()
    yield from _trim(text, start, stop)


def _trim(text: str, start: int, stop: int) -> Iterator[Span]:
    """The span without blanks and without marks that belong to its neighbours; none if empty."""
    if head := _HEAD.match(text, start, stop):
        start = head.end()
    while stop > start:
        bare = start + len(text[start:stop].rstrip(_UNSURE))
        if bare < stop and (bare == start or text[bare - 1].isspace()):
            stop = bare
        elif text[stop - 1].isspace() or text[stop - 1] in _OPENERS:
            stop -= 1
        else:
            break
    if _has_letter(text[start:stop]):
        yield start, stop
