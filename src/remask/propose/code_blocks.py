"""Find code, settings and drawn columns among the lines of a prompt, where no fence marks them."""

import re
from collections.abc import Iterator, Sequence

Block = tuple[int, int]  # the first and the last of some lines
MAX_BRACKET_LINES = 200  # of a block in brackets

_OPENS = re.compile(r".*[\w)\]=:,;>({\[][ \t]*[{(\[][ \t]*")
_CLOSES = re.compile(r"[ \t]*[)}\]]")
_HEAD = re.compile(r"[ \t]*(?:(?:async[ ]+)?def[ ]+\w+[ ]?\(|class[ ]+[A-Z]\w*[ ]?[(:]).*:[ \t]*")
_CODE = re.compile(
    r".*(?:\w[ ]?[-+*/|&]?=|;[ \t]*$|[{}]|\w\([^()]*\)[ \t]*$)|[ \t]*(?:return|import|from)\b.*"
)
_SECTION = re.compile(r"[ \t]*\[[\w.\- ]+\][ \t]*")
_SETTING = re.compile(
    r"[ \t]*[\w.\-]+[ \t]*=[ \t]*\S.*|[^=\n]*[^=\s<>!][ \t]+=[ \t]+\S+(?:[ ]\S+){0,3}[ \t]*"
)
_COLUMN = re.compile(r"(?![ \t]*(?:[-*+•>]|\d{1,3}[.)])[ \t])[^\n]*?[^\s.!?:。][ ]{2,}(?=\S)")


def find_code_blocks(lines: Sequence[str]) -> Iterator[Block]:
    """Yield the blocks of lines that are code, settings, or columns aligned by spaces; some twice.

    >>> set(find_code_blocks(["Run:", "    x = f(1)", "    y = 2", "Be brief."]))
    {(1, 2)}
    """
    yield from _find_marked(lines)
    yield from _find_brackets(lines)
    yield from _find_indented(lines)
    settings = [bool(_SETTING.fullmatch(line)) for line in lines]
    for first, last in _list_runs(settings):
        if last > first or (first and _SECTION.fullmatch(lines[first - 1])):
            yield (first - 1 if first and _SECTION.fullmatch(lines[first - 1]) else first), last
    columns = [found.end() if (found := _COLUMN.match(line)) else 0 for line in lines]
    yield from ((first, last) for first, last in _list_runs(columns) if last > first)


def _find_marked(lines: Sequence[str]) -> Iterator[Block]:
    """Yield indented lines that follow a blank line after a colon, and YAML between --- lines."""
    for i, line in enumerate(lines[2:], 2):
        if (
            not lines[i - 1].strip()
            and lines[i - 2].rstrip().endswith((":", "："))
            and re.match(r" {4}|\t", line)
        ):
            last = i
            while last + 1 < len(lines) and re.match(r" {4}|\t", lines[last + 1]):
                last += 1
            yield i, last
    if lines and lines[0].rstrip() == "---":
        ends = (i for i, line in enumerate(lines[1:], 1) if line.rstrip() == "---")
        if (end := next(ends, 0)) > 0:
            yield 0, end


def _find_brackets(lines: Sequence[str]) -> Iterator[Block]:
    """Yield from a line that ends with an open bracket to the line that closes it."""
    for first, line in enumerate(lines):
        if not _OPENS.fullmatch(line):
            continue
        depth = 0
        for last, text in enumerate(lines[first : first + MAX_BRACKET_LINES], first):
            depth += sum(map(text.count, "{([")) - sum(map(text.count, "})]"))
            if depth <= 0:
                if _CLOSES.match(text):
                    yield first, last
                break


def _find_indented(lines: Sequence[str]) -> Iterator[Block]:
    """Yield indented code below a line that ends with a colon; a head such as "def f():" belongs to it."""
    for i, line in enumerate(lines):
        if not line.rstrip().endswith((":", "：")):
            continue
        head, last = bool(_HEAD.fullmatch(line)), i
        while last + 1 < len(lines) and _measure_indent(lines[last + 1]) >= _measure_indent(line) + 2:
            last += 1
        if last > i and (head or all(_CODE.match(text) for text in lines[i + 1 : last + 1])):
            yield (i if head else i + 1), last


def _measure_indent(line: str) -> int:
    """Return the number of spaces before the text, a tab as four; 0 for an empty line."""
    spaces = line[: len(line) - len(line.lstrip())] if line.strip() else ""
    return len(spaces.expandtabs(4))


def _list_runs(keys: Sequence[int]) -> Iterator[Block]:
    """Yield the runs of lines with the same key that is not 0."""
    first = 0
    for i in range(1, len(keys) + 1):
        if i == len(keys) or keys[i] != keys[first]:
            if keys[first]:
                yield first, i - 1
            first = i
