"""Find what the traces say that a prompt lacks: labels, how right answers begin, frequent words.

Anchored masks hold such words fixed, with holes round them. Only single words and the beginning
that most right answers share are taken, so no text of one user can get into a prompt this way; the
guard checks the result as it checks every candidate.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from remask.data.redact.redact import PLACEHOLDER
from remask.propose.languages import SMALL_WORDS
from remask.sanitize import split_words
from remask.types import Trace

MAX_LABELS = 12  # with more labels none is an anchor
MIN_OPENING_SHARE = 0.6  # of the right answers that begin with the same words
MAX_OPENING_WORDS = 4
MIN_TRACES = 3  # that must have a word or an opening
MIN_WORD_SHARE = 0.15  # of the traces that must have a word
MAX_WORDS = 12
INSTRUCTIONS = "instructions.txt"


@dataclass(frozen=True, slots=True)
class Hints:
    """What the traces of a round say about a prompt."""

    support: Sequence[float] | None = None  # of each sentence, see maskers.draw_attribution
    labels: tuple[str, ...] = ()  # of the task
    opening: str = ""  # how most right answers begin
    words: tuple[str, ...] = ()  # of right answers and feedback that the prompt lacks, frequent first


def find_hints(
    traces: Sequence[Trace], prompt: str, labels: Sequence[str] = (), support: Sequence[float] | None = None
) -> Hints:
    """Find the hints that `traces` give for the prompt."""
    # A prompt that names all labels gains nothing by naming them again.
    lacking = not all(label.casefold() in prompt.casefold() for label in labels)
    allowed = tuple(labels) if lacking and len(labels) <= MAX_LABELS else ()
    opening = "" if labels else find_opening([t.desired for t in traces if t.desired])
    if opening and opening in prompt:
        opening = ""
    return Hints(support, allowed, opening, find_missing_words(traces, prompt, labels))


def find_opening(answers: Sequence[str]) -> str:
    """Return the longest beginning, in whole words, that most of the right answers share.

    An answer that consists of it alone is a label, and counts as no beginning.

    >>> find_opening(["Dear Anna, thanks.", "Dear Max, sorry.", "Dear Eva, hello."])
    'Dear'
    """
    best = ""
    for words in range(1, MAX_OPENING_WORDS + 1):
        starts = Counter(
            match[0]
            for answer in answers
            if (match := re.match(rf"\S+(?:\s+\S+){{{words - 1}}}(?=\s)", answer))
        )
        if not starts:
            break
        text, n = starts.most_common(1)[0]
        if n < max(MIN_TRACES, MIN_OPENING_SHARE * len(answers)):
            break
        best = text
    return best


def find_missing_words(traces: Sequence[Trace], prompt: str, labels: Sequence[str] = ()) -> tuple[str, ...]:
    """Return words that right answers and feedback often have, and the prompt and most queries lack.

    The most frequent come first. A word of at least three traces is a word of the task, not of one
    user. Numbers, short words and function words are left out.
    """
    known = {word.casefold() for text in (prompt, *labels) for word in split_words(text)}
    found, asked, spelling = Counter[str](), Counter[str](), dict[str, str]()
    for trace in traces:
        notes = [note.text for note in trace.feedback if not _lists_all(note.text, labels)]
        answer = [PLACEHOLDER.sub(" ", text) for text in (trace.desired or "", *notes)]
        said = {word.casefold(): word for text in answer for word in re.findall(r"[^\W\d_]{3,}", text)}
        found.update(said.keys())
        asked.update({word.casefold() for word in split_words(trace.query)})
        spelling = said | spelling
    least = max(MIN_TRACES, MIN_WORD_SHARE * len(traces))
    words = [
        word
        for word, n in found.most_common()
        if n >= least and n > asked[word] and word not in known and word not in SMALL_WORDS
    ]
    return tuple(spelling[word] for word in words[:MAX_WORDS])


def _lists_all(text: str, labels: Sequence[str]) -> bool:
    """Return whether a note lists all labels, as the feedback on an answer without a label does."""
    return bool(labels) and all(label in text for label in labels)


def list_instructions(hints: Hints, rng: np.random.Generator) -> list[str]:
    """Return the instructions of the library, with labels and beginning filled in where known."""
    order = [hints.labels[i] for i in rng.permutation(len(hints.labels))]
    slots = {"{labels}": ", ".join(order), "{opening}": hints.opening}
    found = []
    for line in _read_instructions():
        if all(value for slot, value in slots.items() if slot in line):
            for slot, value in slots.items():
                line = line.replace(slot, value)
            found.append(line)
    return found


@cache
def _read_instructions() -> tuple[str, ...]:
    text = (files("remask.propose") / "data" / INSTRUCTIONS).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))
