"""Find the structure of a prompt that no edit may change: tables, examples, formats and names.

Only the baseline of a search decides what is structure. `hold_structure` marks it there, and
`hold_like` finds the same texts in a prompt that a search made of the baseline. So text that the
search inserted stays editable, even where it looks like structure.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from remask.prompt import Prompt, Span, find_json_end
from remask.propose.code_blocks import find_code_blocks
from remask.propose.structure_words import (
    CONTAINER_TAGS,
    EXAMPLE_WORDS,
    FORMAT_WORDS,
    INPUT_NAMES,
    INSTRUCTION_NAMES,
    OUTPUT_NAMES,
)

MAX_SHORT_LABEL = 3  # characters; such labels are also words, so only a list of labels is frozen
MAX_FORMAT_WORDS = 6  # in the value of a line such as "Answer: LABEL"
MAX_TAG_WORDS = 5  # in the content of a tag such as <tone>kind</tone>
MAX_LIST_GAP = 14  # characters between two labels of a list
CONTEXT_CHARS = 24  # compared on both sides of a text to find its place


@lru_cache(maxsize=256)
def hold_structure(prompt: Prompt, labels: tuple[str, ...] = ()) -> Prompt:
    """Return the prompt with its structure held. `labels`: those of the task.

    >>> prompt = hold_structure(Prompt("Read it. Say spam or ham."), ("spam", "ham"))
    >>> [prompt.text[a:b] for a, b in prompt.held]
    ['spam or ham']
    """
    spans = [span for span in find_structure(prompt.text, labels) if span[0] < span[1]]
    return replace(prompt, held=_merge(spans))


@lru_cache(maxsize=1024)
def hold_like(prompt: Prompt, baseline: Prompt) -> Prompt | None:
    """Return the prompt with the texts held that the baseline holds; None where one is missing.

    Of several places with the same text, those are taken whose surroundings are most alike.
    """
    if prompt.text == baseline.text:
        return replace(prompt, held=baseline.held)
    # The best alignment up to each place of the text before: (likeness, end, spans).
    best: list[tuple[int, int, tuple[Span, ...]]] = [(0, 0, ())]
    for start, stop in baseline.held:
        following = []
        for found in re.finditer(re.escape(baseline.text[start:stop]), prompt.text):
            before = [row for row in best if row[1] <= found.start()]
            if before:
                likeness, _, spans = max(before, key=lambda row: row[0])
                likeness += _compare_context(prompt.text, found.span(), baseline.text, (start, stop))
                following.append((likeness, found.end(), (*spans, found.span())))
        best = following
    return replace(prompt, held=max(best, key=lambda row: row[0])[2]) if best else None


def _compare_context(text: str, span: Span, base: str, place: Span) -> int:
    """Count the equal characters beside two spans, up to CONTEXT_CHARS on each side."""
    left = zip(
        reversed(text[: span[0]][-CONTEXT_CHARS:]), reversed(base[: place[0]][-CONTEXT_CHARS:]), strict=False
    )
    right = zip(text[span[1] :][:CONTEXT_CHARS], base[place[1] :][:CONTEXT_CHARS], strict=False)
    return sum(_count_equal(pairs) for pairs in (left, right))


def _count_equal(pairs: "zip[tuple[str, str]]") -> int:
    count = 0
    for a, b in pairs:
        if a != b:
            break
        count += 1
    return count


def _merge(spans: Sequence[Span]) -> tuple[Span, ...]:
    merged: list[Span] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)


def find_structure(text: str, labels: Sequence[str] = ()) -> list[Span]:
    """Return the spans of structure in `text`; they may overlap."""
    lines = [Line(text, m.start(), m.end()) for m in re.finditer(r"[^\r\n]+|(?<=\n)(?=\r?\n)", text)]
    named = find_labels(text, labels)
    blocks = [
        (lines[first].start, lines[last].stop)
        for find in (_find_tables, _find_examples, _find_formats)
        for first, last in find(lines)
    ]
    blocks += [(lines[a].start, lines[b].stop) for a, b in find_code_blocks([line.text for line in lines])]
    blocks += [line.span for line in lines if _is_format_line(line, named)]
    inline = [m.span() for m in _INLINE.finditer(text)]
    spans = [*blocks, *_find_tags(text), *named, *inline, *_find_json_lists(text), *_find_tool_names(text)]
    # A word in capitals that a format line fills stands for the same thing elsewhere.
    quoted = [m.span() for m in re.finditer(r"`[^`\n]+`", text)]
    shown = [text[a:b] for a, b in (*blocks, *inline, *quoted)]
    slots = {word for part in shown for word in re.findall(r"\b[A-Z][A-Z_]+\b", part)}
    for slot in slots:
        spans += [m.span() for m in re.finditer(rf"\b{slot}\b", text)]
    return spans


# --- lines

# "Answer: …", "**Q1:** …", "- Label: …", "输出：…"; not "https://…".
_FIELD = re.compile(
    r"[ \t]*(?:[-*+•>][ \t]+|\d{1,3}[.)][ \t]+)?(?:\#{1,6}[ \t]+)?[*_]{0,3}[\[<]?"
    r"(?P<name>[^\W\d_](?:[^\n:：|<>{}\[\]\"*]{0,28}[^\W_])?)[\]>]?[*_]{0,3}[ \t]?"
    r"(?::[*_]{0,3}(?=[ \t]|$)|：)[*_]{0,3}(?P<value>.*)"
)


@dataclass(frozen=True)
class Line:
    """A line of a prompt without its end; `stop` is where it ends."""

    prompt: str
    start: int
    stop: int

    @property
    def span(self) -> Span:
        return self.start, self.stop

    @cached_property
    def text(self) -> str:
        return self.prompt[self.start : self.stop]

    @cached_property
    def name(self) -> str:
        """Return the name before the colon, without a number and in small letters; "" for none."""
        found = _FIELD.fullmatch(self.text)
        if not found or len(found["name"].split()) > 3:
            return ""
        return re.sub(r"[ \t]*[#\d.]+$", "", found["name"]).casefold()

    @cached_property
    def value(self) -> str:
        found = _FIELD.fullmatch(self.text)
        return found["value"].strip() if found else ""

    @property
    def blank(self) -> bool:
        return not self.text.strip()


Block = tuple[int, int]  # the first and the last of some lines
_SEPARATOR = re.compile(r"[ \t]*[#\-=*_~]{3,}[ \t]*")


def _list_paragraphs(lines: Sequence[Line]) -> list[Block]:
    """Return the runs of lines between blank lines and rules such as "###"."""
    found: list[Block] = []
    for i, line in enumerate(lines):
        if not line.blank and not _SEPARATOR.fullmatch(line.text):
            joined = found and found[-1][1] == i - 1
            found = [*found[:-1], (found[-1][0], i)] if joined else [*found, (i, i)]
    return found


def _list_runs(lines: Sequence[Line], keys: Sequence[object], least: int) -> Iterator[Block]:
    """Yield the runs of at least `least` lines with the same key, which is not None or 0."""
    first = 0
    for i in range(1, len(lines) + 1):
        if i == len(lines) or keys[i] != keys[first]:
            if keys[first] and i - first >= least:
                yield first, i - 1
            first = i


# --- tables

_RULE = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*")
_GRID = re.compile(r"[ \t]*(?:[=+\-~]{2,}[ \t|]*){2,}")  # reStructuredText, psql
_BOX = re.compile(r"[│┃║┌┬┐├┼┤└┴┘╔╦╗╠╬╣╚╩╝]")
_CSV = re.compile(r"[^\s,;][^\n,;]*(?:[,;][^\s,;][^\n,;]*)+(?<![.!?:。])")


def _find_tables(lines: Sequence[Line]) -> Iterator[Block]:
    """Yield tables of Markdown, of tabs, of commas and with drawn borders."""
    bars = [line.text.replace("||", "").count("|") for line in lines]
    for i, line in enumerate(lines):
        if i and "|" in line.text + lines[i - 1].text and "-" in line.text and _RULE.fullmatch(line.text):
            last = i
            while last + 1 < len(lines) and bars[last + 1]:
                last += 1
            yield i - 1, last
    yield from _list_runs(lines, bars, 2)
    yield from _list_runs(
        lines, [line.text.lstrip().startswith("|") and n > 1 for line, n in zip(lines, bars, strict=True)], 2
    )
    yield from _list_runs(lines, [line.text.strip().count("\t") for line in lines], 2)
    yield from _list_runs(lines, [bool(_BOX.search(line.text)) for line in lines], 1)
    commas = [
        line.text.count(",") + line.text.count(";") if _CSV.fullmatch(line.text) else 0 for line in lines
    ]
    yield from _list_runs(lines, commas, 3)
    for first, last in _list_paragraphs(lines):
        if any(_GRID.fullmatch(line.text) for line in lines[first : last + 1]) and last > first:
            yield first, last


# --- examples

_HEADING = re.compile(
    rf"[ \t]*(?:\#{{1,6}}[ \t]+|[-*+•][ \t]+)?[*_\[(]{{0,3}}(?:[^\W\d_]+[ \t-]){{0,2}}?(?:{EXAMPLE_WORDS})"
    r"(?:[ \t]+[^\W\d_]+){0,2}[ \t]*(?:\#?\d{1,3}|[A-Z])?[\])]?[ \t]*[*_]{0,3}[ \t]*[:：]?"
    r"[ \t]*[*_]{0,3}[ \t]*",
    re.IGNORECASE,
)
_SHOWN = re.compile(
    rf"[ \t]*(?:[-*+•][ \t]+)?[*_]{{0,3}}(?:{EXAMPLE_WORDS})[ \t]*\#?\d{{0,3}}[*_]{{0,3}}[ \t]*[:：].*",
    re.IGNORECASE,
)
_ARROW = r"(?:-{1,2}>|=>|→|⇒|⟶|↦|➜|➔)"
_PAIR = re.compile(rf".*?{_ARROW}[ \t]*\S+(?:[ \t]+\S+){{0,3}}[ \t]*")
_LISTED = re.compile(r"[ \t]*(?:[-*+•>][ \t]|\d{1,3}[.)][ \t]|[\"“'‘«「`<]|[ \t]{2,}\S)")


def _find_examples(lines: Sequence[Line]) -> Iterator[Block]:
    """Yield examples: "Input: … Output: …", what stands under "Examples:", and lines "text -> label"."""
    paragraphs = _list_paragraphs(lines)
    yield from _find_dialogues(lines, paragraphs)
    for first, last in paragraphs:
        for i in range(first, last + 1):
            if _HEADING.fullmatch(lines[i].text) and lines[i].text.strip():
                yield _extend_examples(lines, paragraphs, i, last)
                break
            if _SHOWN.fullmatch(lines[i].text):
                yield i, last
                break
    arrows = [bool(_PAIR.fullmatch(line.text)) for line in lines]
    yield from _list_runs(lines, arrows, 2)
    for i, line in enumerate(lines):
        if arrows[i] and _LISTED.match(line.text):
            yield i, i


def _extend_examples(lines: Sequence[Line], paragraphs: Sequence[Block], head: int, last: int) -> Block:
    """Return the heading with the paragraph below it and those that go on like an example."""
    below = [block for block in paragraphs if block[0] > last]
    if head == last and below:  # the heading stands alone
        last = below.pop(0)[1]
    for first, end in below:
        text = lines[first].text
        if not (lines[first].name in _PART_NAMES or _LISTED.match(text) or _PAIR.fullmatch(text)):
            break
        last = end
    return head, last


_PART_NAMES = INPUT_NAMES | OUTPUT_NAMES


def _find_dialogues(lines: Sequence[Line], paragraphs: Sequence[Block]) -> Iterator[Block]:
    """Yield from each input to the end of the output after it, and names that come in turns."""
    counts = Counter(line.name for line in lines if line.name)
    repeated = {name for name, count in counts.items() if count > 1}
    shown = repeated if len(repeated) > 1 else frozenset()
    opened: int | None = None  # the line of an input that waits for its output
    for first, last in paragraphs:
        for i in range(first, last + 1):
            name = lines[i].name
            follows = i > first and lines[i - 1].name in INPUT_NAMES and name not in INSTRUCTION_NAMES
            if (
                opened is not None
                and name
                and (name in OUTPUT_NAMES or (follows and name not in INPUT_NAMES))
            ):
                yield opened, _find_value_end(lines, i, last)
                opened = None
            elif name in INPUT_NAMES and opened is None:
                opened = i
            if name in shown:
                yield i, _find_value_end(lines, i, last)


def _find_value_end(lines: Sequence[Line], at: int, last: int) -> int:
    """Return the last line of the value that begins in line `at`.

    Lines below it belong to it where another name follows in the paragraph, or where the line of
    the name itself has no value.
    """
    following = next((i for i in range(at + 1, last + 1) if lines[i].name), 0)
    if following:
        return following - 1
    return at if lines[at].value else last


# --- formats

_CUE = re.compile(
    rf"\b(?:{FORMAT_WORDS}|(?:json|yaml|toml|xml|csv)\b.*[:：][*_ \t]*$)"
    r"|[一-鿿ぁ-んァ-ヶ]*(?:格式|形式|模板|フォーマット|書式)",
    re.IGNORECASE,
)
_SLOT = re.compile(
    r"<[^<>\n]+>|\{[^{}\n]*\}|\[[^\[\]\n]+\]|\b[A-Z]{2,}\b|\b[A-Z]\b(?!')|\.{3}|…|_{2,}|\$\w|\bx{2,}\b"
    r"|\w[ \t]?[/|][ \t]?\w|^[-+]?\d+(?:[.,]\d+)?%?$|^\W+$"
)
_STOPPED = re.compile(r"[.!?。！？][\"'”’)\]*_`]*$")


_ANSWER_HEADING = re.compile(r"[ \t]*\#{1,6}[ \t]+(?P<name>[^\n]*?)[ \t]*:?[ \t]*\#*[ \t]*")


def _find_formats(lines: Sequence[Line]) -> Iterator[Block]:
    """Yield the lines "Name: value" that follow a line about a format."""
    for i, line in enumerate(lines):
        heading = _ANSWER_HEADING.fullmatch(line.text)
        if heading and heading["name"].casefold() in OUTPUT_NAMES and i + 1 < len(lines):
            value = lines[i + 1].text.strip()
            if len(value.split()) <= MAX_FORMAT_WORDS and _SLOT.search(value) and not _STOPPED.search(value):
                yield i, i + 1
        if line.blank or not _CUE.search(line.text):
            continue
        first = i + 1
        if first < len(lines) and lines[first].blank and line.text.rstrip(" *_").endswith((":", "：")):
            first += 1
        last, colon = first, line.text.rstrip(" *_").endswith((":", "："))
        while last < len(lines) and lines[last].name and not _is_prose(lines[last], colon):
            last += 1
        if last > first:
            yield first, last - 1


def _is_prose(line: Line, announced: bool) -> bool:
    """Return whether the value is a sentence; short ones are allowed where a format is announced."""
    words = len(line.value.split())
    return words > (MAX_FORMAT_WORDS if announced else 1) and bool(_STOPPED.search(line.value))


def _is_format_line(line: Line, named: Sequence[Span]) -> bool:
    """Return whether a line shows how an answer is written, such as "Answer: LABEL"."""
    if not line.name:
        return False
    value, known = line.value, line.name in OUTPUT_NAMES
    if not value:
        return known or line.name in INPUT_NAMES
    words = len(value.split())
    if (
        words > MAX_FORMAT_WORDS
        or (words > 1 and _STOPPED.search(value))
        or re.search(r"[。！？].*\w", value)
    ):
        return False  # a sentence; in scripts without spaces several sentences are one word
    at = line.stop - len(value)
    labels = any(at - 1 <= a < line.stop for a, b in named)
    return (known and words <= 4) or labels or bool(_SLOT.search(value.strip("*_`\"'“”")))


# --- code


_IDENT = r"[A-Za-z_][A-Za-z0-9_]*"
_ARGUMENT = (
    r"(?:\w[\w.]{3,}|[\w.]*_[\w.]*|\w+[ ]?=[^()\n,]{1,40}|\"[^\"\n]*\"|'[^'\n]*'|\d+|\.{3}|…|[b-rt-z])"
)
_QUOTED_ITEM = r"(?:\"[^\"\n]*\"|'[^'\n]*'|[-+]?\d[\d.]*|true|false|null|None|True|False)"
_DATE_PART = r"(?:[Yy]{2,4}|M{1,4}|[Dd]{1,2}|[Hh]{1,2}|m{1,2}|[Ss]{1,2})"
_OUTPUT = "|".join(sorted((re.escape(n) for n in OUTPUT_NAMES if len(n) > 1), key=len, reverse=True))
_INLINE = re.compile(
    "|".join(
        (
            r"\[(?P<tag>[A-Za-z]\w*)\][^\[\]\n]{0,60}\[/(?P=tag)\]|\[/[A-Za-z][\w -]{0,40}\]",
            r"<!--[\s\S]*?-->|<%[\s\S]{0,400}?%>",
            # LaTeX: environments, formulas, and commands with their arguments.
            r"\\begin\{(?P<env>\w+\*?)\}[\s\S]*?\\end\{(?P=env)\}",
            r"\$\$[^$]+\$\$|\\\([\s\S]{1,400}?\\\)|\\\[[\s\S]{1,400}?\\\]",
            r"(?<![\w$\\])\$(?![\s\d$])[^$\n]{0,80}?(?<![\s\\])\$(?![\w$])",
            r"(?<![\w$\\])\$\d[^$\n]{0,80}?[=+*^\\<>_][^$\n]{0,80}?(?<![\s\\])\$(?![\w$])",
            r"\\[A-Za-z]+\*?(?:\{[^{}\n]*\}|\[[^\[\]\n]*\])*|\\[nrt\"'\\](?!\w)",
            # Placeholders: printf, shell, Windows, Ruby, and names in brackets.
            r"%\([A-Za-z_][\w.]*\)[-+#0]*\d*(?:\.\d+)?[a-zA-Z]",
            r"(?<![\d%])%[-+#0]{0,2}\d*(?:\.\d+)?[sdifgeEGxXruc](?![A-Za-z])|%%|%[A-Za-z_]\w*%|%\d\$[sd]",
            rf"\$(?:{_IDENT}(?:\.{_IDENT}|\[\w*\])*|\([^()\n]*\))",
            rf"[\#@%]\{{[^{{}}\n]*\}}|<<[ ]?{_IDENT}[ ]?>>|__[A-Za-z][A-Za-z0-9_]*?__|\[\[[^\[\]\n]+\]\]",
            r"!?\[[^\[\]\n]+\](?:\([^()\s]*(?:[ ]\"[^\"\n]*\")?\)|\[[^\[\]\n]*\])",
            r"\[(?=[^\[\]\n]*\w)[^\W\d][^\[\]\n.!?]{0,40}\]",
            rf"\[\s*{_QUOTED_ITEM}(?:\s*,\s*{_QUOTED_ITEM})*\s*,?\s*\]",
            r"(?<![\w:]):[a-z_]{3,}:?(?![\w])",
            # Dates and times such as YYYY-MM-DD, and regular expressions.
            rf"\b(?=\S*(?:YY|yy|MM|mm|DD|dd|HH|hh|SS|ss)){_DATE_PART}"
            rf"(?:[-/.:T]{_DATE_PART}|[ ](?=[A-Z]{{2}}|[a-z]{{2}}\b){_DATE_PART}){{1,5}}Z?\b",
            r"(?<!\S)\^\S+\$(?!\w)",
            # Calls, and names that look like code. `word(s)` is a plural.
            rf"(?<![\w.]){_IDENT}(?:\.{_IDENT})*"
            rf"\((?:|{_ARGUMENT}(?:,[ ]?{_ARGUMENT})*|[^()\n]*[=_\"'][^()\n]*)\)",
            r"(?<![\w.])[A-Za-z_]\w+(?:\.[a-z_]\w+)+(?!\w)",
            r"(?<![\w<])(?<!</)(?:\w*[A-Za-z0-9]_\w+|_[A-Za-z]\w+)",
            r"\b[a-z][a-z0-9]*(?:[A-Z][a-z0-9]+)+[A-Z]?\b|\b(?:[A-Z][a-z0-9]+){2,}[A-Z]?\b",
            r"\b[A-Z]{1,8}-?\d[A-Z\d]*(?:-[A-Z\d]+)*\b|\b[a-z]+(?:-[a-z0-9]+)*-v?\d[\w.]*\b",
            r"(?<![\w-])--?[a-z][\w-]*=\S+|(?<![\w-])--[a-z][\w-]+",
            r"(?<![\w@])[@\#][A-Za-z_][\w-]*[A-Za-z0-9]",
            r"(?<![\w/.<])(?:~|\.{1,2})?/[\w.-]+(?:/[\w.-]+)*/?(?<![.])|\b[A-Za-z]:\\[\w\\.-]+",
            r"\b[\w-]+\.(?:jsonl?|csv|tsv|txt|md|pdf|docx?|xlsx?|ya?ml|toml|xml|html?|py|js|ts|sql|sh|log"
            r"|png|jpe?g)\b",
            # What an answer looks like, in the middle of a line or in quotes.
            rf"(?<![\w])(?i:{_OUTPUT})[ ]?[:：][ ]?"
            r"(?:<[^<>\n]+>|\[[^\[\]\n]+\]|\{[^{}\n]*\}|[A-Z]{2,}\b|\.\.\.|…)",
            r"[\"“'‘「`](?P<form>[^\W\d_][^\n:：\"”'’」`]{0,30}[:：][ ]?[^\n\"”'’」`]{1,60})[\"”'’」`]",
        )
    )
)


_KEBAB = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)+"
_TOOL_CUE = re.compile(
    r"\b(?i:call(?:s|ing)?|invok(?:es?|ing)|tools?|functions?|commands?|endpoints?)(?:[ ]the)?[ ]?[: ][ ]?"
    rf"(?P<names>{_KEBAB}(?:(?:,[ ]|[ ]|,[ ]?(?:and|or)[ ]|[ ](?:and|or)[ ]){_KEBAB})*)"
)


def _find_tool_names(text: str) -> Iterator[Span]:
    """Yield names with hyphens, which a prompt introduces by a word such as "call" or "tool"."""
    names = {name for cue in _TOOL_CUE.finditer(text) for name in re.findall(_KEBAB, cue["names"])}
    for name in names:
        yield from (found.span() for found in re.finditer(rf"(?<![\w-]){name}(?![\w-])", text))


def _find_json_lists(text: str) -> Iterator[Span]:
    for match in re.finditer(r"\[(?=\s*[\[{\"\d])", text):
        if end := find_json_end(text, match.start()):
            yield match.start(), end


# --- tags

_TAG = re.compile(r"<([A-Za-z_][\w.:-]*)(?:\s[^<>]*)?(?<!/)>")


def _find_tags(text: str) -> Iterator[Span]:
    """Yield tags with their content where it is an example or a few words, no instruction."""
    for tag in _TAG.finditer(text):
        end = re.compile(rf"</{re.escape(tag[1])}\s*>").search(text, tag.end())
        if not end:
            continue
        content = text[tag.end() : end.start()]
        name = re.sub(r"[_\-.:]?\d+$", "", tag[1]).casefold()
        short = len(content.split()) <= MAX_TAG_WORDS and not _STOPPED.search(content.strip())
        if name in CONTAINER_TAGS or (short and "\n" not in content):
            yield tag.start(), end.end()


# --- labels

_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"


_SENTENCE_END = re.compile(r"[.!?]\s|[。！？\n]")
_QUOTES = tuple("\"'“‘«「`(")


def find_labels(text: str, labels: Sequence[str]) -> list[Span]:
    """Return the places where the prompt names labels; labels of one list are one span.

    Short labels, such as "no" and "A", are frozen only in a list or in quotes, as written.
    """
    found: list[tuple[int, int, str]] = []
    forms = {unicodedata.normalize(kind, label.strip()) for label in labels for kind in ("NFC", "NFD")}
    for label in sorted({*forms, *(label.strip() for label in labels)} - {""}, key=len, reverse=True):
        form = r"[\s_\-]+".join(map(re.escape, label.replace("_", " ").split())) or re.escape(label)
        before = rf"(?<![^\W{_UNSPACED}])" if label[0].isalnum() else ""
        after = rf"(?![^\W{_UNSPACED}])" if label[-1].isalnum() else ""
        flags = re.IGNORECASE if len(label) > MAX_SHORT_LABEL else 0
        for match in re.finditer(f"{before}{form}{after}", text, flags):
            if not any(a < match.end() and match.start() < b for a, b, _ in found):
                found.append((*match.span(), label))
    found.sort()
    spans: list[Span] = []
    for start, stop, label in found:
        others = [(min(b, stop), max(a, start)) for a, b, other in found if other != label]
        alone = all(_SENTENCE_END.search(text[a:b]) for a, b in others)
        if len(label) <= MAX_SHORT_LABEL and alone and text[max(0, start - 1) : start] not in _QUOTES:
            continue
        gap = text[spans[-1][1] : start] if spans else "\n"
        if len(gap) <= MAX_LIST_GAP and len(re.findall(r"\w+", gap)) <= 1 and not _SENTENCE_END.search(gap):
            spans[-1] = (spans[-1][0], stop)
        else:
            spans.append((start, stop))
    return spans
