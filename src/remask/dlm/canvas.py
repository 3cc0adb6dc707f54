"""Convert a canvas of text and holes to token ids, cut long rows into windows, and convert back.

The spaces are those of natural text: the space before a hole belongs to the hole's first token.
This module also decides which tokens are allowed at the edges of a hole, and trims fills.
It needs only a function that encodes text, and the text of each token.
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
REPLACEMENT_CHARACTER = "\ufffd"  # what a part of a character decodes to
OPENING = "([{\"'“‘`/-"  # no space follows these
CLOSING = ".,;:!?)]}\"'”’`/-"  # no space precedes these
PUNCTUATION = ".,;:!?"
SENTENCE_ENDS = ".!?"
MIN_SENTENCE_TOKENS = 3  # a shorter hole need not hold a whole sentence
MAX_BATCH_CANVASES = 8  # denoised at once; sorted, they take a fifth less time than 16 in any order


class TokenConstraint(IntFlag):
    """A constraint on a token at the edge of a hole."""

    NOT_BLANK = 1  # more than white space
    LEADING_SPACE = 2
    NO_PUNCTUATION = 4  # at its end, because punctuation follows
    SENTENCE_END = 8
    NO_LOWER_CASE = 16  # does not begin with a lower-case letter


CONSTRAINT_SETS = 32  # combinations of constraints


@dataclass(frozen=True, slots=True)
class CanvasRow:
    """A whole canvas as tokens."""

    ids: tuple[int, ...]  # the mask's id inside holes
    constraints: tuple[int, ...]  # TokenConstraint at the edges of holes, 0 elsewhere
    holes: tuple[tuple[int, int], ...]  # [start, stop) of each hole
    boundaries: tuple[int, ...]  # positions where a sentence begins, 0, and the length


@dataclass(frozen=True, slots=True)
class Window:
    """The part [start, stop) of a row that is denoised at once, with its first `holes` holes."""

    start: int
    stop: int
    holes: int


def cut_batches(canvases: Sequence[Canvas]) -> list[list[int]]:
    """Cut canvases into batches, each a list of indices.

    Those with similar numbers of masks are together, since a batch takes as many steps as its
    longest canvas. The longest come first, so that no worker begins one when the others are done.
    The batches depend on nothing else, so they are the same for any number of workers.

    >>> cut_batches([("a", Hole("", 2)), ("b", Hole("", 9))])
    [[1, 0]]
    """
    masks = [sum(part.tokens for part in canvas if isinstance(part, Hole)) for canvas in canvases]
    order = sorted(range(len(canvases)), key=lambda index: -masks[index])
    return [order[i : i + MAX_BATCH_CANVASES] for i in range(0, len(order), MAX_BATCH_CANVASES)]


def apply_fills(canvas: Canvas, fills: Sequence[str | None]) -> list[str | Hole]:
    """Replace holes by their fills and join the texts; a hole whose fill is None stays a hole."""
    parts: list[str | Hole] = []
    remaining = iter(fills)
    after_fill = False  # whether the last text ends with a fill
    for part in canvas:
        fill = None if isinstance(part, str) else next(remaining)
        if isinstance(part, Hole) and fill is None:
            parts.append(part)
            after_fill = False
            continue
        text = part if isinstance(part, str) else fill or ""
        last = parts[-1] if parts else None
        if isinstance(last, str):
            next_to_fill = after_fill or isinstance(part, Hole)
            parts[-1] = join(last, text) if next_to_fill else last + text
        else:
            parts.append(text)
        after_fill = isinstance(part, Hole)
    return parts


def join(left: str, right: str) -> str:
    """Join two texts with the space between them that natural text has."""
    if not left or not right:
        return left + right
    if right[0].isspace() or right[0] in PUNCTUATION:
        return left.rstrip(" ") + right
    return left + right if _needs_no_space(left, right) else f"{left} {right}"


def _needs_no_space(left: str, right: str) -> bool:
    return left[-1].isspace() or left[-1] in OPENING or right[0].isspace() or right[0] in CLOSING


def encode_canvas(parts: Sequence[str | Hole], encode: Encode, mask: int) -> CanvasRow:
    """Encode the parts of a canvas (see `apply_fills`), with `mask` for each token of a hole."""
    ids: list[int] = []
    constraints: list[int] = []
    holes: list[tuple[int, int]] = []
    boundaries = [0]
    for i, part in enumerate(parts):
        left = parts[i - 1] if i else ""
        right = parts[i + 1] if i + 1 < len(parts) else ""
        if isinstance(part, Hole):
            holes.append((len(ids), len(ids) + part.tokens))
            constraints += _find_constraints(left, part, right)
            ids += [mask] * part.tokens
            continue
        text = part.rstrip(" ") if isinstance(right, Hole) else part
        if isinstance(left, Hole) and text and not (text[0].isspace() or text[0] in CLOSING):
            text = " " + text
        tokens, ranges = encode(text)
        boundaries += [len(ids) + start for start in find_sentence_starts(text, ranges)]
        ids += tokens
        constraints += [0] * len(tokens)
    ends = tuple(sorted({*boundaries, len(ids)}))
    return CanvasRow(tuple(ids), tuple(constraints), tuple(holes), ends)


def find_sentence_starts(text: str, ranges: Sequence[tuple[int, int]]) -> list[int]:
    """Return the indices of tokens at which a sentence of `text` begins.

    `ranges` are the character ranges of the tokens.
    """
    return [_find_token(ranges, match.start()) for match in SENTENCE_START.finditer(text)]


def _find_token(ranges: Sequence[tuple[int, int]], character: int) -> int:
    """Return the index of the first token that begins at `character` or later."""
    return next((i for i, (start, _) in enumerate(ranges) if start >= character), len(ranges))


def _find_constraints(left: str | Hole, hole: Hole, right: str | Hole) -> list[int]:
    """Return the constraints on each token of a hole between its neighbours."""
    before = left if isinstance(left, str) else "word "
    after = right if isinstance(right, str) else " word"
    constraints = [0] * hole.tokens
    text = before.rstrip(" ")
    starts_sentence = not text or text[-1] == "\n" or text[-1] in SENTENCE_ENDS
    constraints[0] = TokenConstraint.NOT_BLANK
    if text and (before[-1] == " " or not (text[-1].isspace() or text[-1] in OPENING)):
        constraints[0] |= TokenConstraint.LEADING_SPACE
    if starts_sentence and (not hole.old or hole.old.lstrip()[:1].isupper()):
        constraints[0] |= TokenConstraint.NO_LOWER_CASE
    constraints[-1] |= TokenConstraint.NOT_BLANK
    if after[:1] and after[0] in PUNCTUATION:
        constraints[-1] |= TokenConstraint.NO_PUNCTUATION
    elif hole.tokens >= MIN_SENTENCE_TOKENS and _ends_sentence(starts_sentence, hole.old, after):
        constraints[-1] |= TokenConstraint.SENTENCE_END
    return constraints


def _ends_sentence(starts_sentence: bool, old: str, after: str) -> bool:
    """Return whether a fill must end a sentence: if the old text did, or if it is one by itself."""
    if old.strip():
        return old.rstrip()[-1] in SENTENCE_ENDS
    return starts_sentence and (not after.strip() or after.lstrip()[0].isupper() or after[0] == "\n")


def choose_window(row: CanvasRow, limit: int) -> Window:
    """Return a window of at most `limit` tokens around the first hole and the next ones that fit.

    The window grows sentence by sentence to both sides. A hole is never cut, even if it is longer
    than `limit`. A sentence that does not fit is cut, so that a hole always has neighbours.
    """
    start, stop = row.holes[0]
    count = 1
    while count < len(row.holes) and row.holes[count][1] - start <= limit:
        stop = row.holes[count][1]
        count += 1
    end = row.holes[count][0] if count < len(row.holes) else len(row.ids)
    inner = (start, stop)
    while True:
        left = max((cut for cut in row.boundaries if cut < start), default=start)
        right = min((cut for cut in row.boundaries if cut > stop), default=stop)
        sides = [(left, stop), (start, min(right, end))]
        if inner[0] - start > stop - inner[1]:
            sides.reverse()
        fitting = [side for side in sides if side != (start, stop) and side[1] - side[0] <= limit]
        if not fitting:
            break
        start, stop = fitting[0]
    remaining = max(0, limit - (stop - start))
    if start == inner[0]:
        start -= min(start, remaining // 2)
    if stop == inner[1]:
        stop += min(end - stop, remaining // 2)
    return Window(start, stop, count)


def limit_to_first_hole(row: CanvasRow, window: Window, block: int) -> Window:
    """Shrink `window` for a model that reads by blocks: it ends with the block of its first hole.

    A hole cannot see the tokens of later blocks, and writing the prompt from the hole to its end
    would not keep frozen text. So the text after the hole is put before it, as the rest of the
    prompt. The tokens that may share the last block of the hole stay in the window as well.
    """
    stop = row.holes[0][1]
    next_hole = row.holes[1][0] if len(row.holes) > 1 else len(row.ids)
    return Window(window.start, min(window.stop, stop + block - 1, next_hole), 1)


def clip_middle(text: str, words: int) -> str:
    """Keep the first and the last words of `text`, at most `words` in all."""
    found = text.split()
    if len(found) <= words:
        return " ".join(found)
    half = words // 2
    return " ".join([*found[:half], "...", *found[len(found) - half :]])


# -- which tokens are allowed where ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VocabularyRules:
    """The tokens that are banned under each combination of constraints."""

    banned: NDArray[np.bool_]  # (CONSTRAINT_SETS, V)
    repeatable: frozenset[int]  # the ids of digits, which may be repeated


def make_vocabulary_rules(texts: Sequence[str], special: Sequence[int]) -> VocabularyRules:
    """Apply the constraints to a vocabulary.

    `texts` holds the text of each token by id; `special` the ids that no fill may contain.
    """
    never = np.array([not text or REPLACEMENT_CHARACTER in text for text in texts])
    never[list(special)] = True
    fails = {
        TokenConstraint.NOT_BLANK: np.array([not text.strip() for text in texts]),
        TokenConstraint.LEADING_SPACE: np.array([not text[:1].isspace() for text in texts]),
        TokenConstraint.NO_PUNCTUATION: np.array([text.rstrip()[-1:] in PUNCTUATION for text in texts]),
        TokenConstraint.SENTENCE_END: np.array([text.rstrip()[-1:] not in SENTENCE_ENDS for text in texts]),
        TokenConstraint.NO_LOWER_CASE: np.array([text.lstrip()[:1].islower() for text in texts]),
    }
    # The empty string is in every string, so a blank token fails NO_PUNCTUATION and passes
    # SENTENCE_END. NOT_BLANK is always set together with either of them.
    banned = [
        np.any([never, *(fails[constraint] for constraint in TokenConstraint if constraint & i)], 0)
        for i in range(CONSTRAINT_SETS)
    ]
    return VocabularyRules(np.stack(banned), frozenset(i for i, text in enumerate(texts) if text.isdigit()))


# -- incomplete ends of fills ---------------------------------------------------------------------

# A last sentence of fewer words that follows a complete sentence counts as cut off.
MIN_SENTENCE_WORDS = 3
DANGLING_TEXT = """
a an the and or but nor of to in on at by for from with into as than that which who whose if
when where while because is are was were be been being has have had can could will would
should must may might do does not your my its their his her our this these either whether
you're between about based
"""
DANGLING_WORDS = frozenset(DANGLING_TEXT.split())
TRAILING_CHARACTERS = " \n,;:-–—.!?"


def trim_dangling(text: str) -> str:
    """Remove an incomplete end of `text`, or return `text` itself if too little would be left.

    The last token of a hole that must end a sentence is a full stop even if the sentence is not
    complete. So a short fragment after a complete sentence is dropped, and words that cannot end an
    English sentence are removed. The rules are our own, found by reading fills. Examples:

        "Read the review in any language, and." -> "Read the review in any language."
        "You are given a review of a film. You." -> "You are given a review of a film."
    """
    if text[-1:] not in SENTENCE_ENDS:
        return text
    body = _strip_dangling(text[:-1])
    starts = [match.end() for match in SENTENCE_START.finditer(body)]
    if starts:
        complete, fragment = body[: starts[-1]], body[starts[-1] :]
        if len(fragment.split()) < MIN_SENTENCE_WORDS <= len(complete.split()):
            return trim_dangling(complete.rstrip())
    if len(body.split()) < max(2, len(text.split()) // 2):
        return text
    return body + text[-1]


def _strip_dangling(body: str) -> str:
    """Remove punctuation and words that cannot end a sentence from the end of `body`."""
    body = body.rstrip(TRAILING_CHARACTERS)
    while body and (last := body.split()[-1]).strip("\"'(“‘,").lower() in DANGLING_WORDS | {""}:
        body = body[: -len(last)].rstrip(TRAILING_CHARACTERS)
    return body
