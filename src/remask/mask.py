"""Where to edit a prompt and how long the new text may be, and how a fill becomes an edit.

Knows sentences, words and spaces, and counts tokens by an injected function. Knows nothing of
token ids, denoisers, targets or scores. The masking rules are our own: arXiv 2602.18449 does not
publish its own. Lengths are elastic because a mask of the old length can only say as much again.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from remask.errors import ConfigError
from remask.ports import Canvas, Hole
from remask.prompt import LIST_MARK, Edit, Prompt, Span, sentences


@dataclass(frozen=True, slots=True)
class Mask:
    """Characters [start, stop) of a prompt to write anew in `tokens` tokens; 0 deletes them."""

    start: int
    stop: int
    tokens: int


Count = Callable[[str], int]
Masker = Callable[[Prompt, Count, np.random.Generator, Sequence[float] | None], tuple[Mask, ...]]

MAX_HOLE = 48  # tokens of one hole
MAX_CANVAS = 96  # tokens of all holes of a canvas
MAX_HOLES = 24
DELETION = 0.07  # probability that a hole is a deletion

_FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
_LONG_FACTORS = (*_FACTORS, 3.0, 4.0)  # for units so short that there is room to say more
_SHORT = 12  # tokens
_WORD_RUN = 5.0  # mean number of words of a random span in a long sentence …
_SHORT_RUN = 1.5  # … and in a short one
_DECAY = 0.6  # of the probability of a sentence, from one rank of support to the next
_WORD = re.compile(r"\w+(?:['’-]\w+)*")


# --- maskers: each call draws the masks of one canvas


def whole(
    prompt: Prompt, count: Count, rng: np.random.Generator, support: Sequence[float] | None
) -> tuple[Mask, ...]:
    """All editable spans, without their outer spaces and list marks."""
    units = _units(prompt)
    holes = []
    for start, stop in prompt.editable:
        inside = [unit for unit in units if start <= unit[0] < stop]
        if inside:
            holes.append((inside[0][0], inside[-1][1]))
    if len(holes) > MAX_HOLES:  # more holes than a canvas can carry: a random run of them
        first = int(rng.integers(len(holes) - MAX_HOLES + 1))
        holes = holes[first : first + MAX_HOLES]
    return _sized(prompt, holes, count, rng, _LONG_FACTORS)


def span(
    prompt: Prompt, count: Count, rng: np.random.Generator, support: Sequence[float] | None
) -> tuple[Mask, ...]:
    """One to three runs of words, each inside one sentence and a third of it long on average, at
    most five words: a hole as long as its sentence would lose what the sentence says."""
    runs = []
    for start, stop in _units(prompt):
        runs.append([match.span() for match in _WORD.finditer(prompt.text, start, stop)])
    weights = np.array([len(run) for run in runs], dtype=float)
    chosen: list[Span] = []
    for _ in range(int(rng.integers(1, 4))):
        run = runs[int(rng.choice(len(runs), p=weights / weights.sum()))]
        mean = min(_WORD_RUN, max(_SHORT_RUN, len(run) / 3))
        length = min(int(rng.geometric(1 / mean)), len(run))
        first = int(rng.integers(len(run) - length + 1))
        hole = (run[first][0], run[first + length - 1][1])
        if all(hole[1] < start or stop < hole[0] for start, stop in chosen):
            chosen.append(hole)
    return _sized(prompt, sorted(chosen), count, rng, _FACTORS)


def sentence(
    prompt: Prompt, count: Count, rng: np.random.Generator, support: Sequence[float] | None
) -> tuple[Mask, ...]:
    """One or two sentences, all equally probable; beside a single one a new one is put instead,
    since almost no text in its place does as well as it does (docs/log.md)."""
    units = _units(prompt)
    if len(units) == 1:
        return insert(prompt, count, rng, support)
    chosen = rng.choice(len(units), size=int(rng.integers(1, 3)), replace=False)
    return _sized(prompt, [units[i] for i in sorted(chosen)], count, rng, _LONG_FACTORS)


def insert(
    prompt: Prompt, count: Count, rng: np.random.Generator, support: Sequence[float] | None
) -> tuple[Mask, ...]:
    """A new hole before, between or behind sentences."""
    units = _units(prompt)
    places = {a for a, _ in units if _starts_sentence(prompt.text[:a], heading=False)}
    places |= {b for a, b in units if _ends_sentence(prompt.text, b) and not _heads(prompt.text, a)}
    # Behind one sentence and before the next is the same place: keep the first of the two.
    kept: list[int] = []
    for place in sorted(places or {units[-1][1]}):
        if not kept or not LIST_MARK.fullmatch(prompt.text[kept[-1] : place].lstrip()):
            kept.append(place)
    at = kept[int(rng.integers(len(kept)))]
    return (Mask(at, at, int(rng.integers(6, 25))),)


def blame(
    prompt: Prompt, count: Count, rng: np.random.Generator, support: Sequence[float] | None
) -> tuple[Mask, ...]:
    """One or two sentences that the evidence supports least.

    `support` holds, for each of `sentences(prompt)`, its log-probability per token under the
    traces minus that without them. Only its order counts: the least supported sentence is the most
    probable, each further one by a factor less, so that several draws differ. Beside a single
    sentence a new one is put, as in `sentence`.
    """
    units = _units(prompt)
    if support is None:
        raise ConfigError(
            "masker 'blame' needs a local model that can score text; "
            "use the embedded DLM or leave 'blame' out of the maskers"
        )
    if len(support) != len(units):
        raise ValueError(f"{len(support)} support values for {len(units)} sentences")
    if len(units) == 1:
        return insert(prompt, count, rng, support)
    order = np.argsort(np.asarray(support, dtype=float), kind="stable")
    weights = _DECAY ** np.arange(len(order))
    size = int(rng.integers(1, 3))
    ranks = rng.choice(len(order), size=size, replace=False, p=weights / weights.sum())
    chosen = sorted(int(order[rank]) for rank in ranks)
    return _sized(prompt, [units[i] for i in chosen], count, rng, _LONG_FACTORS)


MASKERS: dict[str, Masker] = {
    "whole": whole,
    "span": span,
    "sentence": sentence,
    "insert": insert,
    "blame": blame,
}


def _units(prompt: Prompt) -> tuple[Span, ...]:
    units = sentences(prompt)
    if not units:
        raise ConfigError(
            "the prompt has no editable text: everything is a variable, code, an address or "
            "inside [[keep]]…[[/keep]]; leave some plain words outside"
        )
    return units


def _sized(
    prompt: Prompt,
    holes: Sequence[Span],
    count: Count,
    rng: np.random.Generator,
    factors: Sequence[float],
) -> tuple[Mask, ...]:
    """Draw a length for each hole; never so that no editable text is left."""
    sizes = []
    for start, stop in holes:
        old = max(1, count(prompt.text[start:stop]))
        allowed = factors if old < _SHORT else _FACTORS
        size = min(MAX_HOLE, max(2, round(old * allowed[int(rng.integers(len(allowed)))])))
        sizes.append((size, 0 if rng.random() < DELETION else size))
    tokens = [drawn for _, drawn in sizes]
    if not any(tokens) and not _leaves_letters(prompt, holes):
        tokens[0] = sizes[0][0]
    while sum(tokens) > MAX_CANVAS:
        tokens[tokens.index(max(tokens))] -= 1
    return tuple(Mask(*hole, n) for hole, n in zip(holes, tokens, strict=True))


def _leaves_letters(prompt: Prompt, holes: Sequence[Span]) -> bool:
    return any(
        prompt.text[i].isalpha() and not any(start <= i < stop for start, stop in holes)
        for span in sentences(prompt)
        for i in range(*span)
    )


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
