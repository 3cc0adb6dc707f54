"""Draw the places where a prompt is edited, and the length of the new text at each of them.

Works on sentences and words; a function that is passed in counts tokens. The masking rules are
remask's own: arXiv 2602.18449 does not publish its rules. The length of a hole varies, because a
hole of the old length cannot hold a longer text.
"""

from collections.abc import Callable, Sequence

import numpy as np
import regex

from remask.errors import ConfigError
from remask.prompt import LIST_MARK, Prompt, Span, find_sentences, snap
from remask.propose.anchors import Hints, draw_instruction, draw_words
from remask.propose.edits import (
    Mask,
    carries_lines,
    carries_more,
    ends_sentence,
    is_in_heading,
    starts_sentence,
)

Count = Callable[[str], int]
Masker = Callable[[Prompt, Count, np.random.Generator, Hints], tuple[Mask, ...]]
MAX_HOLE_TOKENS = 48
MAX_CANVAS_TOKENS = 96  # in all holes of a canvas
MAX_HOLES = 24  # in a canvas
DELETION_PROBABILITY = 0.07  # that a hole deletes its text
_FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)  # new length over old length
_LONG_FACTORS = (*_FACTORS, 3.0, 4.0)  # for a text of fewer than _MIN_LONG_TOKENS tokens
_MIN_LONG_TOKENS = 12
_MAX_MEAN_WORDS = 5.0  # mean number of words of a random span in a long sentence
_MIN_MEAN_WORDS = 1.5  # mean number of words of a random span in a short sentence
TRAILING_SHARE = 0.5  # of anchored insertions that go on after their last anchor
BARE_SHARE = 0.5  # of the anchors of a beginning that are its words alone
LISTED_SHARE = 0.5  # of the anchors of labels that are one list
_RANK_DECAY = 0.6  # factor of a sentence's probability from one rank of support to the next
# Letters with their combining marks and joiners: in many scripts \w alone cuts a letter in two.
_WORD = regex.compile(r"\w[\w\p{M}\u200c\u200d]*(?:['’-]\w[\w\p{M}\u200c\u200d]*)*")


# --- maskers: each call draws the masks of one canvas. All of them take the prompt, a function that
# counts tokens, a random generator, and hints from the traces. All raise ConfigError for a prompt
# without editable text. Where a prompt can only be extended, because it is empty or all of it is
# structure, all of them insert.


def draw_rewrite(prompt: Prompt, count: Count, rng: np.random.Generator, hints: Hints) -> tuple[Mask, ...]:
    """Mask all editable spans, without their outer spaces and list marks."""
    units = _require_sentences(prompt)
    if not units:
        return draw_insert(prompt, count, rng, hints)
    holes = []
    for start, stop in prompt.editable:
        inside = [unit for unit in units if start <= unit[0] < stop]
        if inside:
            holes.append((inside[0][0], inside[-1][1]))
    if len(holes) > MAX_HOLES:  # choose consecutive holes at random
        first = int(rng.integers(len(holes) - MAX_HOLES + 1))
        holes = holes[first : first + MAX_HOLES]
    return _draw_lengths(prompt, holes, count, rng, _LONG_FACTORS)


def draw_span(prompt: Prompt, count: Count, rng: np.random.Generator, hints: Hints) -> tuple[Mask, ...]:
    """Mask one to three runs of words, each inside one sentence.

    The mean length of a run is a third of its sentence, and at most five words.
    """
    # A hole as long as its sentence would lose the meaning of the sentence.
    runs = [_find_words(prompt.text, *unit) for unit in _require_sentences(prompt)]
    if not runs:
        return draw_insert(prompt, count, rng, hints)
    weights = np.array([len(run) for run in runs], dtype=float) * (hints.places or 1.0)
    chosen: list[Span] = []
    for _ in range(int(rng.integers(1, 4))):
        run = runs[int(rng.choice(len(runs), p=weights / weights.sum()))]
        mean = min(_MAX_MEAN_WORDS, max(_MIN_MEAN_WORDS, len(run) / 3))
        length = min(int(rng.geometric(1 / mean)), len(run))
        first = int(rng.integers(len(run) - length + 1))
        hole = (run[first][0], run[first + length - 1][1])
        if all(hole[1] < start or stop < hole[0] for start, stop in chosen):
            chosen.append(hole)
    return _draw_lengths(prompt, sorted(chosen), count, rng, _FACTORS)


def draw_sentence(prompt: Prompt, count: Count, rng: np.random.Generator, hints: Hints) -> tuple[Mask, ...]:
    """Mask one or two sentences; insert next to a single sentence."""
    units = _require_sentences(prompt)
    if len(units) < 2:
        # Almost no text in place of the only sentence scores as well as it does (docs/log.md).
        return draw_insert(prompt, count, rng, hints)
    chosen = rng.choice(len(units), size=int(rng.integers(1, 3)), replace=False, p=hints.places)
    return _draw_lengths(prompt, [units[i] for i in sorted(chosen)], count, rng, _LONG_FACTORS)


def draw_insert(prompt: Prompt, count: Count, rng: np.random.Generator, hints: Hints) -> tuple[Mask, ...]:
    """Insert an empty hole before, between or after sentences."""
    if not _require_sentences(prompt):
        return (Mask(*prompt.editable[-1], int(rng.integers(6, 25))),)
    at = _draw_place(prompt, rng, hints)
    return (Mask(at, at, int(rng.integers(6, 25))),)


def draw_anchor(prompt: Prompt, count: Count, rng: np.random.Generator, hints: Hints) -> tuple[Mask, ...]:
    """Insert fixed words with holes round them, so that the new text says what the traces ask for.

    The fixed words are all labels in some order, with holes between them or in one list, or the
    common beginning of the right answers, or one to four words that right answers and feedback have
    and the prompt lacks. A task without labels may get beginning and words together. Inserts without
    fixed words where the traces give none.
    Only a denoiser that reads both sides of a hole can write this way.
    """
    kinds: list[Callable[[], Sequence[str]]] = []
    if hints.labels:
        kinds.append(lambda: _order_labels(hints.labels, rng))
    if hints.beginning:
        kinds.append(lambda: [_draw_beginning(hints, rng)])
    if hints.words:
        kinds.append(lambda: draw_words(hints.words, rng, int(rng.integers(1, 5))))
    if not kinds:
        return draw_insert(prompt, count, rng, hints)
    size = 1 if hints.labels else int(rng.integers(1, len(kinds) + 1))
    chosen = [kinds[i] for i in rng.permutation(len(kinds))[:size]]
    parts: list[str | int] = []
    for anchor in (anchor for kind in chosen for anchor in kind()):
        parts += [int(rng.integers(2, 7)), anchor]
    # A text after the last anchor often stops in the middle, so half of them end with it.
    if rng.random() < TRAILING_SHARE:
        parts.append(int(rng.integers(2, 7)))
    return (_insert(prompt, rng, hints, tuple(parts)),)


def draw_library(prompt: Prompt, count: Count, rng: np.random.Generator, hints: Hints) -> tuple[Mask, ...]:
    """Insert a sentence of the library of instructions that suit any task."""
    return (_insert(prompt, rng, hints, (draw_instruction(hints, rng),)),)


def draw_delete(prompt: Prompt, count: Count, rng: np.random.Generator, hints: Hints) -> tuple[Mask, ...]:
    """Delete a sentence, or a run of words of the only sentence."""
    units = _require_sentences(prompt)
    if len(units) > 1:
        units = tuple(unit for unit in units if not carries_lines(prompt.text, *unit)) or units
        return (Mask(*units[int(rng.integers(len(units)))], 0),)
    for mask in draw_span(prompt, count, rng, hints):
        if _leaves_letters(prompt, [(mask.start, mask.stop)]):
            return (Mask(mask.start, mask.stop, 0),)
    return draw_insert(prompt, count, rng, hints)


def draw_attribution(
    prompt: Prompt, count: Count, rng: np.random.Generator, hints: Hints
) -> tuple[Mask, ...]:
    """Mask one or two sentences that the traces support least.

    `hints.support` holds one value for each sentence of the prompt: its log-probability per token
    under the traces minus the same without them, in nats. Only the order of the values counts. The least
    supported sentence is the most probable one, and each further one is less probable by
    _RANK_DECAY, so that several draws differ. Inserts next to a single sentence.

    Raises ConfigError where `support` is None, ValueError where it has another length.
    """
    units, support = _require_sentences(prompt), hints.support
    if support is None:
        raise ConfigError(
            "masker 'attribution' needs a local model that can score text; "
            "use the built-in denoiser or leave 'attribution' out of the maskers"
        )
    if len(support) != len(units):
        raise ValueError(f"{len(support)} support values for {len(units)} sentences")
    if len(units) < 2:
        return draw_insert(prompt, count, rng, hints)
    order = np.argsort(np.asarray(support, dtype=float), kind="stable")
    weights = _RANK_DECAY ** np.arange(len(order))
    size = int(rng.integers(1, 3))
    ranks = rng.choice(len(order), size=size, replace=False, p=weights / weights.sum())
    chosen = sorted(int(order[rank]) for rank in ranks)
    return _draw_lengths(prompt, [units[i] for i in chosen], count, rng, _LONG_FACTORS)


MASKERS: dict[str, Masker] = {
    "rewrite": draw_rewrite,
    "span": draw_span,
    "sentence": draw_sentence,
    "insert": draw_insert,
    "attribution": draw_attribution,
    "anchor": draw_anchor,
    "library": draw_library,
    "delete": draw_delete,
}


def _require_sentences(prompt: Prompt) -> tuple[Span, ...]:
    """Return its sentences; none where it can only be extended. ConfigError where it cannot."""
    units = find_sentences(prompt)
    if not prompt.editable:
        raise ConfigError(
            "the prompt has no editable text: all of it is variables, code, addresses or "
            "[[keep]] regions; leave some plain words outside of them"
        )
    return units


def _draw_place(prompt: Prompt, rng: np.random.Generator, hints: Hints) -> int:
    """Draw a place before, between or after sentences, with the probability of the nearest one."""
    units = find_sentences(prompt)
    places = {a for a, _ in units if starts_sentence(prompt.text[:a], heading=False)}
    ends = {b for a, b in units if not is_in_heading(prompt.text, a)}
    places |= {b for b in ends if ends_sentence(prompt.text, b) and not carries_more(prompt.text, b)}
    # The end of a sentence and the start of the next one are the same place: keep the first.
    kept: list[int] = []
    for place in sorted(places or {units[-1][1]}):
        if not kept or not LIST_MARK.fullmatch(prompt.text[kept[-1] : place].lstrip()):
            kept.append(place)
    if hints.places is None:
        return kept[int(rng.integers(len(kept)))]
    weights = np.array(
        [max(w for (a, b), w in zip(units, hints.places, strict=True) if a <= place <= b) for place in kept]
    )
    return kept[int(rng.choice(len(kept), p=weights / weights.sum()))]


def _insert(prompt: Prompt, rng: np.random.Generator, hints: Hints, parts: tuple[str | int, ...]) -> Mask:
    """Return a mask that inserts `parts`; into the whole text where there is no sentence."""
    at = _draw_place(prompt, rng, hints) if _require_sentences(prompt) else None
    start, stop = prompt.editable[-1] if at is None else (at, at)
    return Mask(start, stop, sum(part for part in parts if isinstance(part, int)), parts)


def _order_labels(labels: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Return the labels in some order: as anchors of their own, or listed in one anchor."""
    order = [labels[i] for i in rng.permutation(len(labels))]
    if rng.random() < LISTED_SHARE:
        return [f"{', '.join(order[:-1])} or {order[-1]}" if order[1:] else order[0]]
    return order


def _draw_beginning(hints: Hints, rng: np.random.Generator) -> str:
    """Return how right answers begin: the bare words that they share, or what a prompt says of it."""
    bare = hints.opening and rng.random() < BARE_SHARE
    return hints.opening if bare else hints.beginning


def _find_words(text: str, start: int, stop: int) -> list[Span]:
    """Return the words of a sentence. No edge is inside of a letter, such as an emoji keycap."""
    found = [match.span() for match in _WORD.finditer(text, start, stop)]
    return [(snap(text, a, -1), snap(text, b, 1)) for a, b in found]


def _draw_lengths(
    prompt: Prompt, holes: Sequence[Span], count: Count, rng: np.random.Generator, factors: Sequence[float]
) -> tuple[Mask, ...]:
    """Draw a length for each hole. At least one letter of editable text is always left."""
    sizes = []
    for start, stop in holes:
        old = max(1, count(prompt.text[start:stop]))
        allowed = factors if old < _MIN_LONG_TOKENS else _FACTORS
        size = min(MAX_HOLE_TOKENS, max(2, round(old * allowed[int(rng.integers(len(allowed)))])))
        sizes.append((size, 0 if rng.random() < DELETION_PROBABILITY else size))
    tokens = [tokens for _, tokens in sizes]
    if not any(tokens) and not _leaves_letters(prompt, holes):
        tokens[0] = sizes[0][0]
    while sum(tokens) > MAX_CANVAS_TOKENS:
        tokens[tokens.index(max(tokens))] -= 1
    return tuple(Mask(*hole, n) for hole, n in zip(holes, tokens, strict=True))


def _leaves_letters(prompt: Prompt, holes: Sequence[Span]) -> bool:
    """Return whether a letter of a sentence is outside of all holes."""
    return any(
        prompt.text[i].isalpha() and not any(start <= i < stop for start, stop in holes)
        for span in find_sentences(prompt)
        for i in range(*span)
    )
