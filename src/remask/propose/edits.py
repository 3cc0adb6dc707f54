"""Masks to a canvas, and fills to edits of the prompt: spaces, marks and capitals put right."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from remask.ports import Canvas, Hole
from remask.prompt import LIST_MARK, Edit, Prompt, Span


@dataclass(frozen=True, slots=True)
class Mask:
    """Characters [start, stop) of a prompt to write anew in `tokens` tokens; 0 deletes them."""

    start: int
    stop: int
    tokens: int


# --- canvases and edits


def canvas(prompt: Prompt, masks: Sequence[Mask]) -> Canvas:
    """The whole prompt as fixed text and holes; joined with the old texts it is the prompt."""
    parts: list[str | Hole] = []
    at = 0
    for mask in masks:
        if mask.start > at:
            parts.append(prompt.text[at : mask.start])
        parts.append(Hole(prompt.text[mask.start : mask.stop], mask.tokens))
        at = mask.stop
    if at < len(prompt.text):
        parts.append(prompt.text[at:])
    return tuple(parts)


def edits(prompt: Prompt, masks: Sequence[Mask], texts: Sequence[str]) -> tuple[Edit, ...]:
    """The edits that put `texts` into the holes, with the spaces and marks of natural text.

    Legal for `prompt.apply`, whatever the texts are. What changes nothing is left out.
    """
    made: list[Edit] = []
    holes = _merged(prompt, masks, [_tidy(text) for text in texts])
    left, at = "", 0  # the new text so far, and how far it covers the old one
    for i, hole in enumerate(holes):
        low, high = next(s for s in prompt.editable if s[0] <= hole.start <= hole.stop <= s[1])
        if i + 1 < len(holes):
            high = min(high, holes[i + 1].start)
        left += prompt.text[at : hole.start]
        edit = _edit(prompt.text, left, hole, max(low, at), high)
        left = left[: len(left) - (hole.start - edit.start)] + edit.text
        at = edit.stop
        if prompt.text[edit.start : edit.stop] != edit.text:
            made.append(edit)
    return tuple(made)


def _merged(prompt: Prompt, masks: Sequence[Mask], fills: Sequence[str]) -> list[Edit]:
    """Holes with their fills; deletions that only blanks part become one."""
    holes: list[Edit] = []
    for mask, fill in zip(masks, fills, strict=True):
        last = holes[-1] if holes and not fill and not holes[-1].text else None
        blank = last and not prompt.text[last.stop : mask.start].strip(" \t")
        if last and blank and any(a <= last.start < mask.stop <= b for a, b in prompt.editable):
            holes[-1] = Edit(last.start, mask.stop, "")
        else:
            holes.append(Edit(mask.start, mask.stop, fill))
    return holes


_ENDS = ".!?…。！？"
_MARKS = ".,;:!?"
_QUOTES = "\"'”’)]*_"
_LINE_END = re.compile(r"[ \t\r]*(?:\n|\Z)")
_NUMBERED_NEXT = re.compile(r"[ \t\r]*\n\s*\d{1,3}[.)]")


def _tidy(fill: str) -> str:
    """Without outer spaces, runs of spaces and marks that no text begins with."""
    text = re.sub(r"[^\S\n]+", " ", fill.replace("\r\n", "\n").replace("\r", "\n"))
    text = re.sub(r" ?\n ?", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip().lstrip(_MARKS + " \n")


def _edit(text: str, left: str, hole: Edit, low: int, high: int) -> Edit:
    """One edit within [low, high); `left` is the text that will stand before `hole.start`."""
    fill = hole.text
    if _line_mark(left).strip():  # the list mark stands there already
        fill = fill[len(_line_mark(fill.partition("\n")[0])) :]
    if hole.start == hole.stop:
        return Edit(hole.start, hole.stop, _inserted(text, left, hole.start, fill))
    old = text[hole.start : hole.stop]
    capital = _starts_sentence(left) and old[:1].isupper()
    if text[hole.stop : hole.stop + 1] in tuple(_MARKS):
        fill = fill.rstrip(_MARKS + " ")
    elif fill[-1:].isalnum() and old[-1] in _ENDS:
        fill += old[-1]
    if fill:
        return Edit(hole.start, hole.stop, _capitalised(fill) if capital else fill)
    start, stop = _deleted(text, left, hole, low, high)
    follows = text[stop : stop + 1]
    within = capital and stop < high and old[-1] not in _ENDS  # the sentence goes on behind
    if within and follows.islower() and len(follows.upper()) == 1:
        return Edit(start, stop + 1, follows.upper())
    return Edit(start, stop, "")


def _inserted(text: str, left: str, at: int, fill: str) -> str:
    """`fill` with what must stand between it and its neighbours: a blank, or a new list item."""
    if not fill:
        return ""
    if _starts_sentence(left) or _ends_sentence(text, at):
        fill = _capitalised(fill)
        if fill[-1].isalnum():
            fill += "。" if left[-1:] in tuple("。！？") else "."
    line, mark = left[left.rfind("\n") + 1 :], _line_mark(left)
    bullet = mark.strip() and not re.search(r"[\w#]", mark)
    if line == mark:
        return fill + (f"\n{mark}" if bullet else _gap(fill, text[at:]))
    if _LINE_END.match(text, at):
        number = re.search(r"\d+", mark)
        if bullet:
            return f"\n{mark}{fill}"
        if "#" in mark:
            return f"\n{fill}"
        if number and not _NUMBERED_NEXT.match(text, at):
            following = str(int(number[0]) + 1)
            return f"\n{mark[: number.start()]}{following}{mark[number.end() :]}{fill}"
    return _gap(left, fill) + fill + _gap(fill, text[at:])


def _gap(left: str, right: str) -> str:
    """The blank between two texts; none where one is there or the script (CJK) has none."""
    if not left or not right or left[-1].isspace() or left[-1] >= "\u2e80":
        return ""
    return "" if right[0].isspace() or right[0] in _MARKS + _QUOTES else " "


def _deleted(text: str, left: str, hole: Edit, low: int, high: int) -> Span:
    """How far a deletion reaches, so that it leaves no lone list mark, blank or second mark."""
    start, stop = hole.start, hole.stop
    if _starts_sentence(left):  # the rest must not begin with a mark
        stop = _skip(text, stop, high, _MARKS + " \t")
    elif left[-1].isspace():
        stop = _skip(text, stop, high, " \t")
    line = left[left.rfind("\n") + 1 :]
    end = _LINE_END.match(text, stop)
    if end and LIST_MARK.fullmatch(line):  # nothing else on this line
        start = max(low, start - len(line))
        stop = min(high, end.end())
        before = left[: len(left) - (hole.start - start)]
        if not before or before.endswith("\n\n"):
            stop = _skip(text, stop, high, "\r\n")
        return (_back(text, start, low, " \t\r\n") if stop == len(text) else start), stop
    if stop == len(text) or text[stop] in _MARKS + ")]\r\n":
        start = _back(text, start, low, " \t")
        if left[: len(left) - (hole.start - start)][-1:] in tuple(_MARKS):
            stop = _skip(text, stop, high, _MARKS)
    return start, stop


def _skip(text: str, at: int, high: int, chars: str) -> int:
    while at < high and text[at] in chars:
        at += 1
    return at


def _back(text: str, at: int, low: int, chars: str) -> int:
    while at > low and text[at - 1] in chars:
        at -= 1
    return at


def _line_mark(text: str) -> str:
    """The list mark, if any, of the last line of `text`."""
    found = LIST_MARK.match(text, text.rfind("\n") + 1)
    return found[0] if found else ""


def _heads(text: str, at: int) -> bool:
    """Whether `at` is in a heading."""
    return text[text.rfind("\n", 0, at) + 1 :].lstrip(" \t").startswith("#")


def _starts_sentence(left: str, heading: bool = True) -> bool:
    """Whether a sentence begins behind `left`: at a line's start or behind another sentence."""
    line = left[left.rfind("\n") + 1 :]
    if LIST_MARK.fullmatch(line):
        return heading or "#" not in line
    before = line.rstrip()
    if before[-1:] in tuple("。！？"):
        return True
    return before != line and before.rstrip(_QUOTES)[-1:] in tuple(_ENDS)


def _ends_sentence(text: str, stop: int) -> bool:
    """Whether a sentence ends at `stop`: by its mark, or because the line ends there."""
    if _LINE_END.match(text, stop):
        return True
    return text[:stop].rstrip(_QUOTES)[-1:] in tuple(_ENDS)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
