"""From a canvas of text and holes to rows of token ids, windows of long rows, and back to text.

Keeps the spaces of natural text: the space before a hole belongs to the hole's first token. Says
what a token at the edge of a hole must be like, which tokens of a vocabulary are, and how the end
of a fill is mended. Knows a function that encodes text, and the texts of single tokens. Knows
nothing of models, torch, traces or sampling.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from remask.ports import Canvas, Hole

Encode = Callable[[str], tuple[list[int], list[tuple[int, int]]]]  # ids and character ranges

SENTENCE_START = re.compile(r"(?<=[.!?])\s+(?=\S)|\n+")
BROKEN = "\ufffd"  # part of a character: a fill would not be valid text
OPENING = "([{\"'“‘`/-"  # no space follows these
CLOSING = ".,;:!?)]}\"'”’`/-"  # no space stands before these
PUNCTUATION = ".,;:!?"
FINAL = ".!?"  # ends a sentence
SHORTEST_SENTENCE = 3  # tokens; a shorter hole need not be one


class Kind(IntFlag):
    """What a token at the edge of a hole must be like."""

    SOLID = 1  # more than white space
    SPACED = 2  # begins with white space
    WORDY = 4  # does not end with punctuation, because punctuation follows
    FINAL = 8  # ends a sentence
    CAPITAL = 16  # begins no word in lower case


KINDS = 32  # combinations


@dataclass(frozen=True, slots=True)
class CanvasRow:
    """A whole canvas in tokens."""

    ids: tuple[int, ...]  # inside holes the mask's id
    kinds: tuple[int, ...]  # Kind at the edges of holes, else 0
    holes: tuple[tuple[int, int], ...]  # [start, stop) of each hole
    cuts: tuple[int, ...]  # positions where a sentence begins, with 0 and the length


@dataclass(frozen=True, slots=True)
class Window:
    """The part [start, stop) of a row that is denoised at once, with its first `holes` holes."""

    start: int
    stop: int
    holes: int


def settle(canvas: Canvas, fills: Sequence[str | None]) -> list[str | Hole]:
    """The canvas with filled holes turned into text; a hole of None stays a hole."""
    parts: list[str | Hole] = []
    waiting = iter(fills)
    joint = False  # whether the last text ends with a fill
    for part in canvas:
        fill = None if isinstance(part, str) else next(waiting)
        if isinstance(part, Hole) and fill is None:
            parts.append(part)
            joint = False
            continue
        text = part if isinstance(part, str) else fill or ""
        last = parts[-1] if parts else None
        if isinstance(last, str):
            smooth = joint or isinstance(part, Hole)
            parts[-1] = join(last, text) if smooth else last + text
        else:
            parts.append(text)
        joint = isinstance(part, Hole)
    return parts


def join(left: str, right: str) -> str:
    """Two texts with the space between them that natural text has."""
    if not left or not right:
        return left + right
    if right[0].isspace() or right[0] in PUNCTUATION:
        return left.rstrip(" ") + right
    return left + right if _touches(left, right) else f"{left} {right}"


def _touches(left: str, right: str) -> bool:
    return left[-1].isspace() or left[-1] in OPENING or right[0].isspace() or right[0] in CLOSING


def to_row(parts: Sequence[str | Hole], encode: Encode, mask: int) -> CanvasRow:
    """Encode the parts of a settled canvas."""
    ids: list[int] = []
    kinds: list[int] = []
    holes: list[tuple[int, int]] = []
    cuts = [0]
    for i, part in enumerate(parts):
        left = parts[i - 1] if i else ""
        right = parts[i + 1] if i + 1 < len(parts) else ""
        if isinstance(part, Hole):
            holes.append((len(ids), len(ids) + part.tokens))
            kinds += _kinds(left, part, right)
            ids += [mask] * part.tokens
            continue
        text = part.rstrip(" ") if isinstance(right, Hole) else part
        if isinstance(left, Hole) and text and not (text[0].isspace() or text[0] in CLOSING):
            text = " " + text
        tokens, ranges = encode(text)
        cuts += [len(ids) + start for start in sentence_starts(text, ranges)]
        ids += tokens
        kinds += [0] * len(tokens)
    return CanvasRow(tuple(ids), tuple(kinds), tuple(holes), tuple(sorted({*cuts, len(ids)})))


def sentence_starts(text: str, ranges: Sequence[tuple[int, int]]) -> list[int]:
    """The tokens, by their character `ranges`, at which a sentence of `text` begins."""
    return [_token_at(ranges, match.start()) for match in SENTENCE_START.finditer(text)]


def _token_at(ranges: Sequence[tuple[int, int]], character: int) -> int:
    return next((i for i, (start, _) in enumerate(ranges) if start >= character), len(ranges))


def _kinds(left: str | Hole, hole: Hole, right: str | Hole) -> list[int]:
    """The demands on each token of a hole between its neighbours."""
    before = left if isinstance(left, str) else "word "
    after = right if isinstance(right, str) else " word"
    kinds = [0] * hole.tokens
    text = before.rstrip(" ")
    opens = not text or text[-1] == "\n" or text[-1] in FINAL
    kinds[0] = Kind.SOLID
    if text and (before[-1] == " " or not (text[-1].isspace() or text[-1] in OPENING)):
        kinds[0] |= Kind.SPACED
    if opens and (not hole.old or hole.old.lstrip()[:1].isupper()):
        kinds[0] |= Kind.CAPITAL
    kinds[-1] |= Kind.SOLID
    if after[:1] and after[0] in PUNCTUATION:
        kinds[-1] |= Kind.WORDY
    elif hole.tokens >= SHORTEST_SENTENCE and _ends_sentence(opens, hole.old, after):
        kinds[-1] |= Kind.FINAL
    return kinds


def _ends_sentence(opens: bool, old: str, after: str) -> bool:
    """Whether the text to come ends like a sentence: as the old one did, or on its own."""
    if old.strip():
        return old.rstrip()[-1] in FINAL
    return opens and (not after.strip() or after.lstrip()[0].isupper() or after[0] == "\n")


def window(row: CanvasRow, limit: int) -> Window:
    """The window of at most `limit` tokens round the first hole and as many of the next as fit.

    It grows sentence by sentence to both sides. A hole is never cut, even a longer one; a sentence
    that does not fit is cut where it stands, so that a hole always has neighbours.
    """
    start, stop = row.holes[0]
    count = 1
    while count < len(row.holes) and row.holes[count][1] - start <= limit:
        stop = row.holes[count][1]
        count += 1
    end = row.holes[count][0] if count < len(row.holes) else len(row.ids)
    inner = (start, stop)
    growing = True
    while growing:
        growing = False
        left = max((cut for cut in row.cuts if cut < start), default=start)
        right = min((cut for cut in row.cuts if cut > stop), default=stop)
        sides = [(left, stop), (start, min(right, end))]
        if inner[0] - start > stop - inner[1]:
            sides.reverse()
        for new in sides:
            if new != (start, stop) and new[1] - new[0] <= limit:
                (start, stop), growing = new, True
                break
    spare = max(0, limit - (stop - start))
    if start == inner[0]:
        start -= min(start, spare // 2)
    if stop == inner[1]:
        stop += min(end - stop, spare // 2)
    return Window(start, stop, count)


def first_hole(row: CanvasRow, view: Window, block: int) -> Window:
    """The window of a model that reads by blocks: up to its first hole, and not behind it.

    A hole sees nothing of what stands in later blocks. To write the prompt anew up to its end
    would not keep frozen text; so the text behind the hole is told before it, as the rest of the
    prompt, and only what may share its last block stands in its place as well.
    """
    stop = row.holes[0][1]
    next_hole = row.holes[1][0] if len(row.holes) > 1 else len(row.ids)
    return Window(view.start, min(view.stop, stop + block - 1, next_hole), 1)


def clip_middle(text: str, words: int) -> str:
    """The first and the last words of `text`, at most `words` in all."""
    found = text.split()
    if len(found) <= words:
        return " ".join(found)
    half = words // 2
    return " ".join([*found[:half], "...", *found[len(found) - half :]])


# -- which tokens may stand where -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Forbidden ids for each combination of demands."""

    banned: NDArray[np.bool_]  # (KINDS, V)
    repeatable: frozenset[int]  # digits, each of which is a token of its own


def vocabulary(texts: Sequence[str], special: Sequence[int]) -> Vocabulary:
    """texts: the text of each token alone, by id. special: ids that no fill may contain."""
    never = np.array([not text or BROKEN in text for text in texts])
    never[list(special)] = True
    fails = {
        Kind.SOLID: np.array([not text.strip() for text in texts]),
        Kind.SPACED: np.array([not text[:1].isspace() for text in texts]),
        Kind.WORDY: np.array([text.rstrip()[-1:] in PUNCTUATION for text in texts]),
        Kind.FINAL: np.array([text.rstrip()[-1:] not in FINAL for text in texts]),
        Kind.CAPITAL: np.array([text.lstrip()[:1].islower() for text in texts]),
    }
    # "" is in every string: a blank token fails WORDY and passes FINAL; SOLID goes with both.
    banned = [
        np.any([never, *(fails[kind] for kind in Kind if kind & i)], axis=0) for i in range(KINDS)
    ]
    return Vocabulary(
        np.stack(banned), frozenset(i for i, text in enumerate(texts) if text.isdigit())
    )


# -- loose ends of fills --------------------------------------------------------------------------

FRAGMENT = 3  # words: a shorter last sentence behind a complete one is taken for cut off
DANGLING_TEXT = """
a an the and or but nor of to in on at by for from with into as than that which who whose if
when where while because is are was were be been being has have had can could will would
should must may might do does not your my its their his her our this these either whether
you're between about based
"""
DANGLING = frozenset(DANGLING_TEXT.split())
LOOSE = " \n,;:-–—.!?"


def trim_dangling(text: str) -> str:
    """`text` without a loose end; the text itself where too little would be left.

    The last token of a hole that had to be a sentence is a full stop whether or not the sentence
    is complete. So a short fragment behind a complete sentence is dropped, and words that cannot
    end an English sentence are taken off. Our own rules, found by reading fills.
    """
    if text[-1:] not in FINAL:
        return text
    body = _without_dangling(text[:-1])
    starts = [match.end() for match in SENTENCE_START.finditer(body)]
    if starts and len(body[starts[-1] :].split()) < FRAGMENT <= len(body[: starts[-1]].split()):
        return trim_dangling(body[: starts[-1]].rstrip())
    if len(body.split()) < max(2, len(text.split()) // 2):
        return text
    return body + text[-1]


def _without_dangling(body: str) -> str:
    """Take off loose punctuation and words that end no sentence, until a good word is last."""
    body = body.rstrip(LOOSE)
    while body and (last := body.split()[-1]).strip("\"'(“‘,").lower() in DANGLING | {""}:
        body = body[: -len(last)].rstrip(LOOSE)
    return body
