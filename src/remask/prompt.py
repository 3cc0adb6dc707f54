"""A prompt: its frozen regions, its editable spans, its sentences, and how edits are applied.

Frozen regions are kept spans, held spans, template variables, code and addresses. An edit never
changes text inside of a frozen region. But the text that it writes next to one may create a new
region or join an existing one, so the guard compares `find_frozen_texts` before and after.

The texts of a program, such as a system prompt and the descriptions of its tools, are one prompt
too. A line [[component NAME]] begins each of them, and is frozen.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import regex

from remask.errors import ConfigError
from remask.ids import content_id
from remask.sanitize import make_visible

Span = tuple[int, int]  # half-open range of characters
MARKER = re.compile(r"\[\[(/?)keep\]\]")
COMPONENT = re.compile(r"^\[\[component (\S(?:.*?\S)?)\]\]\r?\n", re.MULTILINE)
_COMPONENT_MARK = re.compile(r"\[\[component .*?\]\]")  # also where it is no line of its own


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the characters [start, stop) of a prompt by `text`; inserts where start == stop."""

    start: int
    stop: int
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A system prompt as the target reads it, and the spans that its author marked to be kept.

    `held` spans are frozen too: the structure that the baseline of a search has, such as its
    tables and examples (propose/structure.py). They follow from the baseline, so they are neither
    part of the id nor of the source.
    """

    text: str
    kept: tuple[Span, ...] = ()  # sorted, disjoint, not empty
    held: tuple[Span, ...] = field(default=(), repr=False)  # likewise

    def __post_init__(self) -> None:
        for name, spans in (("kept", self.kept), ("held", self.held)):
            end = 0
            for start, stop in spans:
                if not end <= start < stop <= len(self.text):
                    raise ValueError(f"{name} span {(start, stop)} is empty, out of order or outside")
                end = stop

    @classmethod
    def parse(cls, source: str) -> "Prompt":
        """Parse a prompt with [[keep]], [[/keep]] and [[component NAME]] marks.

        Raises ConfigError for unpaired marks, and for components that cannot be told apart.

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
        prompt = cls("".join(parts) + source[at:], tuple(kept))
        _check_components(prompt)
        return prompt

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
    def components(self) -> "Mapping[str, Prompt]":
        """Return the texts of a program by name; empty where the prompt is one text.

        >>> list(Prompt("[[component system]]\\nBe kind.\\n[[component tool:f]]\\nFind.").components.items())
        [('system', Prompt(text='Be kind.', kept=())), ('tool:f', Prompt(text='Find.', kept=()))]
        """
        return {name: _cut_out(self, span) for name, span in self.component_spans.items()}

    @property
    def component_spans(self) -> Mapping[str, Span]:
        """Return where the text of each component is; empty where the prompt is one text."""
        if not COMPONENT.match(self.text):
            return {}
        marks = list(COMPONENT.finditer(self.text))
        ends = [mark.start() - 1 for mark in marks[1:]] + [len(self.text)]
        spans = zip(marks, ends, strict=True)
        # Two marks without a line between them: the text of the first component is empty.
        return {mark[1]: (mark.end(), max(mark.end(), end)) for mark, end in spans}

    def replace_components(self, changed: "Mapping[str, Prompt]") -> "Prompt":
        """Return the prompt with other texts of some components."""
        parts: list[str] = []
        kept: list[Span] = []
        held: list[Span] = []
        size = end = 0
        for name, (start, stop) in self.component_spans.items():
            part = changed.get(name) or _cut_out(self, (start, stop))
            size += start - end
            kept += [(a + size, b + size) for a, b in part.kept]
            held += [(a + size, b + size) for a, b in part.held]
            parts += [self.text[end:start], part.text]
            size, end = size + len(part.text), stop
        return Prompt("".join(parts), tuple(kept), tuple(held))

    @property
    def frozen(self) -> tuple[Span, ...]:
        """Return the spans that no edit may change, sorted and disjoint; some may be adjacent."""
        return _find_frozen(self)

    @property
    def editable(self) -> tuple[Span, ...]:
        """Return the spans between frozen spans that have at least one letter.

        A blank prompt, and one whose words are all structure, can be extended at its start.
        """
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

        def move(spans: tuple[Span, ...]) -> tuple[Span, ...]:
            by = [sum(delta for offset, delta in moves if offset <= start) for start, _ in spans]
            return tuple((a + n, b + n) for (a, b), n in zip(spans, by, strict=True))

        return Prompt("".join(parts) + self.text[at:], move(self.kept), move(self.held))


# --- components


def join_components(sources: Mapping[str, str]) -> str:
    """Return the source of one prompt that has these components; their texts may have [[keep]] marks.

    Raises ConfigError for a name that cannot be one, and for a text with a mark of a component.

    >>> join_components({"system": "Be kind.", "tool:f": "Find."})
    '[[component system]]\\nBe kind.\\n[[component tool:f]]\\nFind.'
    """
    if not sources:
        raise ConfigError("there are no components; give a text by name, such as {'system': '…'}")
    for name, source in sources.items():
        _check_name(name)
        if not isinstance(source, str):
            raise ConfigError(f"the component {name!r} is {type(source).__name__}; give its text")
        if _COMPONENT_MARK.search(source):  # within a line too: an edit could delete what is before it
            raise ConfigError(f"the component {name!r} has the mark [[component …]]; remove it")
        try:
            Prompt.parse(source)
        except ConfigError as error:
            raise ConfigError(f"component {name!r}: {error}") from None
    return "\n".join(f"[[component {name}]]\n{source}" for name, source in sources.items())


def split_components(source: str) -> dict[str, str]:
    """Return the sources of the components of a prompt, with their [[keep]] marks, by name.

    >>> split_components("[[component a]]\\nBe [[keep]]kind[[/keep]].\\n[[component b]]\\nFind.")
    {'a': 'Be [[keep]]kind[[/keep]].', 'b': 'Find.'}
    """
    return {name: source[start:stop] for name, (start, stop) in Prompt(source).component_spans.items()}


def _check_components(prompt: Prompt) -> None:
    marks = list(COMPONENT.finditer(prompt.text))
    if not marks:
        return
    first = prompt.text.count("\n", 0, marks[0].start()) + 1
    if marks[0].start():
        raise ConfigError(f"prompt line {first}: text before the first [[component …]]; give it a name too")
    names = [mark[1] for mark in marks]
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), ""):
        raise ConfigError(f"the prompt has two components {twice!r}; rename one")
    for name, part in prompt.components.items():
        _check_name(name)
        if _COMPONENT_MARK.search(part.text):
            raise ConfigError(f"the component {name!r} has the mark [[component …]] in its text; remove it")
    for start, stop in prompt.kept:
        if mark := COMPONENT.search(prompt.text[start:stop]):
            raise ConfigError(f"a [[keep]] goes on after [[component {mark[1]}]]; close it before that line")


def _check_name(name: object) -> None:
    """Raise ConfigError where this cannot name a component. Tool lists of others may have any names."""
    if not isinstance(name, str) or not COMPONENT.fullmatch(f"[[component {name}]]\n"):
        raise ConfigError(f"{name!r} cannot name a component; use a short text without line breaks")
    joined = re.sub("[\u200c\u200d]", "", name)  # which join or part letters and emoji
    if MARKER.search(name) or make_visible(joined) != joined:
        raise ConfigError(
            f"{name!r} has a mark or a hidden character, so it cannot name a component; rename it"
        )


def _cut_out(prompt: Prompt, span: Span) -> Prompt:
    start, stop = span

    def cut(spans: tuple[Span, ...]) -> tuple[Span, ...]:
        return tuple((a - start, b - start) for a, b in spans if start <= a and b <= stop)

    return Prompt(prompt.text[start:stop], cut(prompt.kept), cut(prompt.held))


# --- frozen regions

_BRACES = r"\{[^{}]*+\}"

for _ in range(2):  # in an address, balanced braces nested up to three levels
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
            r"(?P<brace>\$?\{)",  # `_find_constructs` finds where it closes
            rf"(?:\b(?:https?|ftp)://|\bmailto:|\bwww\.)"
            rf"(?:[^\s<>\"'`{{}}()\[\]]|\([^\s()]*\)|\$?{_BRACES}|<{_NAME}>)+(?<![{_STOPS}])",
            r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
            _TAG,
            r"[}`]",  # a single one has no meaning, but next to a construct it would change it
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
    if parts := prompt.component_spans:
        frozen, end = [], 0
        for (start, stop), part in zip(parts.values(), prompt.components.values(), strict=True):
            frozen.append((end, start))  # the line that names it
            frozen += [(a + start, b + start) for a, b in part.frozen]
            end = stop
        return tuple(frozen)
    spans = sorted([*prompt.kept, *prompt.held, *_find_constructs(prompt.text)])
    merged: list[Span] = []
    for start, stop in spans:
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)


def _find_constructs(text: str) -> Iterator[Span]:
    """Yield variables, code, addresses and tags, in order."""
    closing: dict[int, int] | None = None
    at = 0
    while match := _CONSTRUCTS.search(text, at):
        start, at = match.span()
        if match["brace"]:
            if closing is None:
                closing = _pair_braces(text)
            # A single brace has no meaning, but next to a construct it would change it. The $
            # before it is then no part of it.
            stop = find_json_end(text, at - 1) or closing.get(at - 1)
            start, at = (start, stop) if stop else (at - 1, at)
        yield start, at


def _pair_braces(text: str) -> dict[int, int]:
    """Return the end of each balanced brace, at any depth, by its place."""
    pairs, opened = {}, []
    for match in re.finditer(r"[{}]", text):
        if match[0] == "{":
            opened.append(match.start())
        elif opened:
            pairs[opened.pop()] = match.end()
    return pairs


def find_json_end(text: str, at: int) -> int:
    """Return where the JSON object or list at `at` ends; 0 where there is none."""
    try:
        return json.JSONDecoder().raw_decode(text, at)[1]
    except (ValueError, RecursionError):
        return 0


@lru_cache(maxsize=1024)
def _find_editable(prompt: Prompt) -> tuple[Span, ...]:
    if parts := prompt.component_spans:
        pairs = zip(parts.values(), prompt.components.values(), strict=True)
        return tuple((a + start, b + start) for (start, _), part in pairs for a, b in part.editable)
    text = prompt.text
    edges = [0, *(edge for span in prompt.frozen for edge in span), len(text)]
    gaps = zip(edges[::2], edges[1::2], strict=True)
    snapped = ((snap(text, a, 1), snap(text, b, -1)) for a, b in gaps)
    found = tuple((a, b) for a, b in snapped if _has_letter(text[a:b]))
    if not found and (prompt.held or not text.strip()):
        return ((0, 0),)
    return found


def find_frozen_texts(prompt: Prompt) -> tuple[str, ...]:
    """Return the frozen texts in order. A harmless edit leaves them equal."""
    return tuple(prompt.text[start:stop] for start, stop in prompt.frozen)


def _has_letter(text: str) -> bool:
    return any(char.isalpha() for char in text)


# --- letters

_CLUSTER = regex.compile(r"\X")
_MAX_CLUSTER_CHARS = 64  # in one letter; longer ones are no text


def is_boundary(text: str, at: int) -> bool:
    r"""Return whether a letter with its combining marks ends at `at`: a grapheme cluster (UAX 29).

    >>> is_boundary("e\u0301t", 1), is_boundary("e\u0301t", 2)
    (False, True)
    """
    if at <= 0 or at >= len(text):
        return True
    before, after = text[at - 1], text[at]
    if before.isascii() and after.isascii():
        return (before, after) != ("\r", "\n")
    # Clusters are found from the last plain character on, because flags are counted in pairs.
    start = at - 1
    while start > max(0, at - _MAX_CLUSTER_CHARS) and not text[start].isascii():
        start -= 1
    return any(match.end() == at for match in _CLUSTER.finditer(text, start, min(len(text), at + 1)))


def snap(text: str, at: int, step: int) -> int:
    """Return the first boundary of a letter from `at` on, forwards (step 1) or backwards (-1)."""
    while not is_boundary(text, at):
        at += step
    return at


# --- sentences

LIST_MARK = re.compile(r"[ \t]*(?:(?:[-*+•‣◦–—]|\d{1,3}[.)]|\(?[A-Za-z\d][.)]|\#{1,6}|>|\[[ xX]\])[ \t]+)*")

# Marks that end a sentence without a space after them: Chinese, Japanese, Hindi, Arabic, Urdu,
# Amharic, Burmese, Khmer.
STOPS = "。！？｡।॥؟۔።။។"
_END = re.compile(rf"(?<![.!?…])[.!?…]++[\"'”’)\]*_]*+(?=\s)|[{STOPS}]+[”’」』）]*")
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
    start, stop = snap(text, start, 1), snap(text, stop, -1)
    if _has_letter(text[start:stop]):
        yield start, stop
