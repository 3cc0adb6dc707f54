"""Where to edit a prompt and how long the new text may be, and how a fill becomes an edit.

Knows sentences, words and spaces, and counts tokens by an injected function. Knows nothing of
token ids, denoisers, targets or scores. The masking rules are our own: arXiv 2602.18449 does not
publish its own. Lengths are elastic because a mask of the old length can only say as much again.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from remask.errors import ConfigError
from remask.prompt import LIST_MARK, Prompt, Span, sentences
from remask.propose.edits import Mask, _ends_sentence, _heads, _starts_sentence

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


def rewrite(
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


def attribution(
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
            "masker 'attribution' needs a local model that can score text; "
            "use the built-in DLM or leave 'attribution' out of the maskers"
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
    "rewrite": rewrite,
    "span": span,
    "sentence": sentence,
    "insert": insert,
    "attribution": attribution,
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
