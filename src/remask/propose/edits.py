"""Convert masks to a canvas, and filled holes to edits of the prompt.

The edits correct spaces, punctuation marks, capitals and list marks, so that the new text reads
like the text around it.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import regex

from remask.ports import Canvas, Hole
from remask.prompt import LIST_MARK, STOPS, Edit, Prompt, Span, is_boundary


@dataclass(frozen=True, slots=True)
class Mask:
    """Characters [start, stop) of a prompt, to be replaced by `tokens` tokens; 0 deletes them.

    An anchored mask has `parts`: fixed words, and holes of so many tokens, in order. `tokens` is
    then the sum of these holes.
    """

    start: int
    stop: int
    tokens: int
    parts: tuple[str | int, ...] = ()

    @property
    def holes(self) -> int:
        """The number of holes in its canvas."""
        return sum(isinstance(part, int) for part in self.parts) if self.parts else 1


# --- canvases and edits


def make_canvas(prompt: Prompt, masks: Sequence[Mask]) -> Canvas:
    """Split the whole prompt into fixed text and holes, in order.

    >>> make_canvas(Prompt("Be very kind."), [Mask(3, 7, 2)])
    ('Be ', Hole(old='very', tokens=2), ' kind.')
    >>> make_canvas(Prompt("Be kind."), [Mask(8, 8, 5, (3, "short", 2))])
    ('Be kind.', Hole(old='', tokens=3), ' short', Hole(old='', tokens=2))
    """
    parts: list[str | Hole] = []
    at = 0
    for mask in masks:
        if mask.start > at:
            parts.append(prompt.text[at : mask.start])
        parts += _lay_out(mask, prompt.text)
        at = mask.stop
    if at < len(prompt.text):
        parts.append(prompt.text[at:])
    return tuple(parts)


def _lay_out(mask: Mask, text: str) -> list[str | Hole]:
    """Return the fixed words and the holes of a mask; the first hole holds the old text."""
    old = text[mask.start : mask.stop]
    if not mask.parts:
        return [Hole(old, mask.tokens)]
    found: list[str | Hole] = []
    for part in mask.parts:
        if isinstance(part, int):
            found.append(Hole(old, part))
            old = ""
        else:
            before = text[: mask.start] if not found else "a"  # a hole or a word
            found.append(_find_gap(before, part) + part)
    return found


def join_parts(masks: Sequence[Mask], texts: Sequence[str]) -> list[str]:
    """Return the new text of each mask, given the text of each hole of the canvas in order.

    >>> join_parts([Mask(8, 8, 5, (3, "short", 2))], ["Keep it", "and clear"])
    ['Keep it short and clear']
    """
    left = iter(texts)
    joined = []
    for mask in masks:
        text = ""
        for part in mask.parts or (mask.tokens,):
            new = part if isinstance(part, str) else next(left)
            new = new.strip() if mask.parts else new
            text += (_find_gap(text, new) if mask.parts else "") + new
        joined.append(text)
    return joined


def make_edits(prompt: Prompt, masks: Sequence[Mask], texts: Sequence[str]) -> tuple[Edit, ...]:
    """Return the edits that write `texts` into the holes, with the spaces and marks of the prompt.

    The edits are legal for `prompt.apply`, whatever the texts are. Edits that change nothing are
    left out.

    >>> make_edits(Prompt("Be kind."), [Mask(8, 8, 4)], ["answer in French"])
    (Edit(start=8, stop=8, text=' Answer in French.'),)
    """
    made: list[Edit] = []
    holes = _merge_deletions(prompt, masks, [_tidy_fill(text) for text in texts])
    newline = "\r\n" if 2 * prompt.text.count("\r\n") > prompt.text.count("\n") else "\n"
    left, at = "", 0  # the new text so far, and the end of the old text that it replaces
    for i, hole in enumerate(holes):
        low, high = next(s for s in prompt.editable if s[0] <= hole.start <= hole.stop <= s[1])
        if i + 1 < len(holes):
            high = min(high, holes[i + 1].start)
        left += prompt.text[at : hole.start]
        edit = _make_edit(prompt.text, left, hole, max(low, at), high)
        written = edit.text
        if written and prompt.editable == ((0, 0),) and prompt.text:  # above a prompt of structure
            written = written.rstrip(" ") + "\n"
        edit = Edit(edit.start, edit.stop, re.sub(r"(?<!\r)\n", newline, written))
        if _cuts_letter(prompt.text, left, hole, edit):
            edit = Edit(hole.start, hole.stop, prompt.text[hole.start : hole.stop])
        left = left[: len(left) - (hole.start - edit.start)] + edit.text
        at = edit.stop
        if prompt.text[edit.start : edit.stop] != edit.text:
            made.append(edit)
    return tuple(made)


def _cuts_letter(text: str, left: str, hole: Edit, edit: Edit) -> bool:
    """Return whether an edit would take a part of a letter, or join its ends with the neighbours."""
    before = left[: len(left) - (hole.start - edit.start)]
    new = before + edit.text + text[edit.stop :]
    ends = (len(before), len(before) + len(edit.text))
    whole = is_boundary(text, edit.start) and is_boundary(text, edit.stop)
    return not (whole and all(is_boundary(new, end) for end in ends))


def _merge_deletions(prompt: Prompt, masks: Sequence[Mask], fills: Sequence[str]) -> list[Edit]:
    """Join masks with their fills. Deletions with only spaces between them become one.

    >>> _merge_deletions(Prompt("a b c d"), [Mask(0, 1, 0), Mask(2, 3, 0)], ["", ""])
    [Edit(start=0, stop=3, text='')]
    """
    holes: list[Edit] = []
    for mask, fill in zip(masks, fills, strict=True):
        last = holes[-1] if holes and not fill and not holes[-1].text else None
        blank = last and not prompt.text[last.stop : mask.start].strip(" \t")
        if last and blank and any(a <= last.start < mask.stop <= b for a, b in prompt.editable):
            holes[-1] = Edit(last.start, mask.stop, "")
        else:
            holes.append(Edit(mask.start, mask.stop, fill))
    return holes


_ENDS = ".!?…" + STOPS
_MARKS = ".,;:!?…，、；：،؛" + STOPS
# What a text must not begin with: a combining mark, a joiner, a variation selector.
_BARE_MARK = regex.compile(r"(?:(?<=\s)|\A)[\p{M}\p{Emoji_Modifier}\u200c\u200d\ufe00-\ufe0f]+")
# Two stops of which one is of another script, or two full stops that are no ellipsis.
_DOUBLE_STOP = re.compile(
    rf"[.!?]\s?(?=[{STOPS}])|(?<=[{STOPS}])\s?\.|(?<!\.)\.(?=\.(?!\.))|([。｡।۔።။។])(?=\1)"
)
_QUOTES = "\"'”’)]*_"
_OPENING = re.compile(r"[*_\"]+\w")  # a mark that begins a text, such as "**Note"
_HEADING = re.compile(r"^[ \t]*#{1,6}[ \t]+\S", re.MULTILINE)
_MARKED = re.compile(r"^[ \t]*(?:#{1,6}|[-*+•]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)
_LINE_END = re.compile(r"[ \t\r]*(?:\n|\Z)")
_MARK_NEXT = re.compile(rf"[”’」』）)\]]*[{re.escape(_MARKS)}]")
_NUMBERED_NEXT = re.compile(r"[ \t\r]*\n\s*\d{1,3}[.)]")


def _tidy_fill(fill: str) -> str:
    r"""Remove outer and repeated spaces, blank lines, double stops, and marks that no text begins with.

    >>> _tidy_fill(" , be  brief.。 \r\n\n\n\n and kind ")
    'be brief。\n\nand kind'
    """
    text = re.sub(r"[^\S\n]+", " ", fill.replace("\r\n", "\n").replace("\r", "\n"))
    text = re.sub(r" ?\n ?", "\n", text)
    text = _DOUBLE_STOP.sub("", re.sub(r"\n{3,}", "\n\n", text))
    text = _BARE_MARK.sub("", text).strip().lstrip(_MARKS + " \n")
    return str(_BARE_MARK.sub("", text))


def _make_edit(text: str, left: str, hole: Edit, low: int, high: int) -> Edit:
    """Return the edit for one hole, within [low, high) of `text`.

    `left` is the text that will stand before `hole.start`.

    >>> text = "Be kind. Stay calm."
    >>> _make_edit(text, "Be kind. ", Edit(9, 19, "answer in French"), 0, 19)
    Edit(start=9, stop=19, text='Answer in French.')
    >>> _make_edit(text, "", Edit(0, 8, ""), 0, 19)
    Edit(start=0, stop=9, text='')
    """
    fill = _fit_lines(text, left, hole)
    if hole.start == hole.stop:
        return Edit(hole.start, hole.stop, _join_insertion(text, left, hole.start, fill))
    old = text[hole.start : hole.stop]
    capital = starts_sentence(left) and old[:1].isupper()
    if _MARK_NEXT.match(text, hole.stop):
        fill = fill.rstrip(_MARKS + " ")
    elif _ends_in_word(fill) and old[-1] in _ENDS:
        fill += old[-1]
    if fill:
        return Edit(hole.start, hole.stop, _capitalise(fill) if capital else fill)
    if carries_lines(text, hole.start, hole.stop):
        return Edit(hole.start, hole.stop, old)
    start, stop = _widen_deletion(text, left, hole, low, high)
    follows = text[stop : stop + 1]
    # Where the rest of the sentence stays, it now begins with a small letter.
    rest = capital and stop < high and old[-1] not in _ENDS
    if rest and follows.islower() and len(follows.upper()) == 1:
        return Edit(start, stop + 1, follows.upper())
    return Edit(start, stop, "")


def _fit_lines(text: str, left: str, hole: Edit) -> str:
    r"""Return the text of a hole without the marks and line ends that would break the lines around it.

    In a part of a line it is one line without list marks. In place of a whole line it keeps the
    indentation, and has no marks in a prompt that has marks elsewhere. Several lines may become others.

    >>> text = "1. Be kind.\n2. Be brief."
    >>> _fit_lines(text, text[:15], Edit(15, 24, "- Ask twice\nThen answer"))
    'Ask twice. Then answer'
    """
    line, mark, fill = left[left.rfind("\n") + 1 :], _find_list_mark(left), hole.text
    if "\n" in text[hole.start : hole.stop]:
        # The line begins with a list mark, so the fill must not bring a second one.
        return fill[len(_find_list_mark(fill.partition("\n")[0])) :] if mark.strip() else fill
    if line.strip() or (mark == line and not _LINE_END.match(text, hole.stop)):
        found = [(_find_list_mark(one), one) for one in fill.split("\n") if re.search(r"\w", one)]
        lines = [one[len(start) :].strip() for start, one in found]
        at_end = hole.start == hole.stop and _LINE_END.match(text, hole.stop)
        if at_end and _is_bullet(mark) and all(start.strip() for start, _ in found):
            return "\n".join(lines)  # items of the list
        ended = [f"{one}." if _ends_in_word(one) else one for one in lines[:-1]]
        return " ".join([*ended, *lines[-1:]])
    if _MARKED.search(text):
        fill = "\n".join(one[len(_find_list_mark(one)) :] for one in fill.split("\n"))
    return fill.replace("\n", f"\n{line}")


def _join_insertion(text: str, left: str, at: int, fill: str) -> str:
    r"""Return `fill` with what joins it to its neighbours: a space, or a new list item.

    >>> text = "- Be kind.\n- Be brief."
    >>> _join_insertion(text, text[:10], 10, "answer in French")
    '\n- Answer in French.'
    >>> _join_insertion("Be kind.", "Be", 2, "very")
    ' very'
    """
    if not fill:
        return ""
    if starts_sentence(left) or ends_sentence(text, at):
        fill = _capitalise(fill)
        if _ends_in_word(fill):
            fill += _choose_stop(text, left, fill)
    line, mark = left[left.rfind("\n") + 1 :], _find_list_mark(left)
    bullet = _is_bullet(mark)
    if line == mark:
        return fill + (f"\n{mark}" if bullet else _find_gap(fill, text[at:]))
    if _LINE_END.match(text, at) and not carries_more(text, at):
        number = re.search(r"\d+", mark)
        if bullet:
            return "".join(f"\n{mark}{one}" for one in fill.split("\n"))
        if "#" in mark:
            return f"\n{fill}"
        if number and not _NUMBERED_NEXT.match(text, at):
            following = str(int(number[0]) + 1)
            return f"\n{mark[: number.start()]}{following}{mark[number.end() :]}{fill}"
    return _find_gap(left, fill) + fill + _find_gap(fill, text[at:])


def _is_bullet(mark: str) -> bool:
    """Return whether a list mark is the same for all items, and no heading."""
    return bool(mark.strip()) and not re.search(r"[\w#]", mark)


def carries_more(text: str, at: int) -> bool:
    r"""Return whether a line ends at `at` and a line that is indented more follows.

    That is a list item which goes on, or has items of its own.

    >>> carries_more("- Be kind:\n  - Smile.", 10), carries_more("- a\n- b", 3)
    (True, False)
    """
    below = re.compile(r"[ \t\r]*\n(?:[ \t]*\r?\n)*([ \t]*)\S").match(text, at)
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return below is not None and _find_depth(below[1] + "x") > _find_depth(line + "x")


def carries_lines(text: str, start: int, stop: int) -> bool:
    r"""Return whether [start, stop) is all of a line to which others below belong.

    That is one of several headings, or an item that goes on or has items of its own. Without it they
    would belong to what stands before it.

    >>> carries_lines("- Be kind:\n  - Smile.", 2, 10), carries_lines("- Smile.", 2, 8)
    (True, False)
    """
    line = text[text.rfind("\n", 0, start) + 1 : start]
    whole = LIST_MARK.fullmatch(line) and _LINE_END.match(text, stop)
    return bool(whole) and (len(_HEADING.findall(text)) > 1 if "#" in line else carries_more(text, stop))


def _find_depth(line: str) -> int:
    """Return how far a line is indented; a tab reaches to the next multiple of four."""
    line = line.expandtabs(4)
    return len(line) - len(line.lstrip())


def _ends_in_word(text: str) -> bool:
    """Return whether the last character is a letter, a digit or a combining mark."""
    return bool(text) and unicodedata.category(text[-1])[0] in "LNM"


def _choose_stop(text: str, left: str, fill: str) -> str:
    """Return the full stop that ends `fill`, as the text before it or the whole prompt has it.

    >>> _choose_stop("你好！", "你好！", "谢谢"), _choose_stop("Hi.", "", "be kind")
    ('。', '.')
    """
    found = left[-1:] if left[-1:] in tuple(STOPS) else ""
    if not found and not unicodedata.name(fill[-1], "").startswith(("LATIN", "DIGIT")):
        found = next((char for char in text if char in STOPS), "")
    return {"！": "。", "？": "。", "؟": ".", "": "."}.get(found, found)


def _find_gap(left: str, right: str) -> str:
    """Return the space that belongs between two texts: none beside a space or in CJK scripts.

    >>> _find_gap("Be", "kind."), _find_gap("kind", "."), _find_gap("短く", "kind")
    (' ', '', '')
    """
    if not left or not right or left[-1].isspace() or left[-1] >= "\u2e80":
        return ""
    if _OPENING.match(right):
        return " "
    return "" if right[0].isspace() or right[0] in _MARKS + _QUOTES else " "


def _widen_deletion(text: str, left: str, hole: Edit, low: int, high: int) -> Span:
    r"""Widen a deletion so that it leaves no empty list item, double space or double mark.

    >>> text = "- Be kind.\n- Be brief."
    >>> _widen_deletion(text, "- ", Edit(2, 10, ""), 0, 22)
    (0, 11)
    >>> _widen_deletion("Be very kind.", "Be ", Edit(3, 7, ""), 0, 13)
    (3, 8)
    """
    start, stop = hole.start, hole.stop
    if starts_sentence(left):  # the rest must not begin with a mark
        stop = _skip_forward(text, stop, high, _MARKS + " \t")
    elif left[-1].isspace():
        stop = _skip_forward(text, stop, high, " \t")
    line = left[left.rfind("\n") + 1 :]
    end = _LINE_END.match(text, stop)
    if end and LIST_MARK.fullmatch(line):  # nothing else is on this line, so it goes as a whole
        start = max(low, start - len(line))
        stop = min(high, end.end())
        before = left[: len(left) - (hole.start - start)]
        if not before or before.endswith(("\n\n", "\n\r\n")):
            stop = _skip_forward(text, stop, high, "\r\n")
        at_end = stop == len(text)
        return (_skip_back(text, start, low, " \t\r\n") if at_end else start), stop
    if stop == len(text) or text[stop] in _MARKS + ")]\r\n":
        start = _skip_back(text, start, low, " \t")
        if left[: len(left) - (hole.start - start)][-1:] in tuple(_MARKS):
            stop = _skip_forward(text, stop, high, _MARKS)
    return start, stop


def _skip_forward(text: str, at: int, high: int, chars: str) -> int:
    """Return the first index from `at` to `high` whose character is not one of `chars`.

    >>> _skip_forward("a,  b", 1, 5, ", ")
    4
    """
    while at < high and text[at] in chars:
        at += 1
    return at


def _skip_back(text: str, at: int, low: int, chars: str) -> int:
    """Return the last index from `at` down to `low` with none of `chars` directly before it.

    >>> _skip_back("a,  b", 4, 0, " ")
    2
    """
    while at > low and text[at - 1] in chars:
        at -= 1
    return at


def _find_list_mark(text: str) -> str:
    r"""Return the list mark at the start of the last line of `text`; "" where there is none.

    >>> _find_list_mark("Rules:\n  2. Be kind.")
    '  2. '
    """
    found = LIST_MARK.match(text, text.rfind("\n") + 1)
    return found[0] if found else ""


def is_in_heading(text: str, at: int) -> bool:
    r"""Return whether `at` is in a line that is a heading.

    >>> is_in_heading("# Rules\nBe kind.", 3), is_in_heading("# Rules\nBe kind.", 9)
    (True, False)
    """
    return text[text.rfind("\n", 0, at) + 1 :].lstrip(" \t").startswith("#")


def find_heading(text: str, at: int) -> str:
    r"""Return the heading under which `at` is; "" where there is none.

    >>> find_heading("# Rules\nBe kind.", 9)
    'Rules'
    """
    headings = re.findall(r"^[ \t]*\#{1,6}[ \t]+(.*)$", text[:at], re.MULTILINE)
    return headings[-1] if headings else ""


def starts_sentence(left: str, heading: bool = True) -> bool:
    """Return whether a sentence begins after `left`: at the start of a line or after a sentence.

    `heading`: whether the start of a heading counts.

    >>> starts_sentence("Be kind. "), starts_sentence("- "), starts_sentence("Be ")
    (True, True, False)
    """
    line = left[left.rfind("\n") + 1 :]
    if LIST_MARK.fullmatch(line):
        return heading or "#" not in line
    before = line.rstrip()
    if before[-1:] in tuple(STOPS):
        return True
    return before != line and before.rstrip(_QUOTES)[-1:] in tuple(_ENDS)


def ends_sentence(text: str, stop: int) -> bool:
    r"""Return whether a sentence ends at `stop`: by its mark, or because the line ends there.

    >>> ends_sentence("Be kind. Be brief", 8), ends_sentence("Be kind", 7), ends_sentence("Be", 1)
    (True, True, False)
    """
    if _LINE_END.match(text, stop):
        return True
    return text[:stop].rstrip(_QUOTES)[-1:] in tuple(_ENDS)


def _capitalise(text: str) -> str:
    """Write the first letter as a capital and leave the others as they are.

    >>> _capitalise("answer in French")
    'Answer in French'
    """
    return text[:1].upper() + text[1:]
