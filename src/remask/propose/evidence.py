"""Find which texts a feedback speaks of: the components of a prompt, or its sentences.

Words and pairs of words that few of the texts have count most. `orders` and `order` count as one.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from remask.propose.languages import SMALL_WORDS
from remask.sanitize import split_words
from remask.types import Trace

STEM_LETTERS = 4  # in which two words must begin alike to count as one
MIN_WORD_LETTERS = 3


@dataclass(frozen=True, slots=True)
class TextIndex:
    """The words of some texts, and how much each of them says about which text it is."""

    words: tuple[frozenset[str], ...]  # of each text
    rarity: dict[str, float]  # 0 for a word that all texts have

    @classmethod
    def build(cls, texts: Sequence[str]) -> "TextIndex":
        """Index some texts."""
        words = tuple(map(find_stems, texts))
        having = Counter(word for own in words for word in own)
        return cls(words, {word: math.log(len(words) / n) for word, n in having.items()})

    def match(self, text: str) -> list[float]:
        """Return for each text how much `text` speaks of it; 0 where they share no rare word.

        >>> index = TextIndex.build(["Look up an order.", "Refund an order."])
        >>> [round(value, 1) for value in index.match("The refund is missing.")]
        [0.0, 0.7]
        """
        said = find_stems(text)
        return [sum(self.rarity[word] for word in said & own) for own in self.words]


def find_stems(text: str) -> frozenset[str]:
    """Return the beginnings of the content words of a text, and of its pairs of words."""
    words = split_words(text.replace("_", " "))
    stems = [word[:STEM_LETTERS] for word in words]
    content = {
        stem
        for stem, word in zip(stems, words, strict=True)
        if word not in SMALL_WORDS and len(word) >= MIN_WORD_LETTERS
    }
    return frozenset(content | {" ".join(pair) for pair in pairwise(stems)})


def join_feedback(trace: Trace) -> str:
    """Return all feedback of a trace."""
    return " ".join(note.text for note in trace.feedback)
