"""The control: remask whole, only that random words fill the holes instead of the DLM's text.

Masks, lengths, guard, plan and acceptance are remask's. The words are the first whole words of the
model's vocabulary, which are the frequent ones. `blame` needs probabilities and drops out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.lab import Lab
from optimisers.searching import search_with
from remask.backbone.model import Backbone
from remask.backbone.weights import load_base
from remask.identity import rng_for
from remask.ports import Canvas, Context, Fill, Hole
from remask.proposers import make_proposer

WORDS = 5000


@dataclass(frozen=True)
class RandomWords:
    """A Denoiser that reads nothing; its fills have as many tokens as the holes, at most."""

    backbone: Backbone

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Words of one token, in the order of the vocabulary."""
        texts = (self.backbone.decode([token]) for token in range(self.backbone.size))
        found = (t.strip() for t in texts if t.startswith(" ") and t.strip().isalpha())
        whole = dict.fromkeys(word for word in found if word.isascii() and len(word) > 1)
        return tuple(whole)[:WORDS]

    def count(self, text: str) -> int:
        return len(self.backbone.encode(text))

    def infill(self, context: Context, canvases: Sequence[Canvas], seed: int) -> list[Fill]:
        return [
            Fill(
                tuple(
                    self._words(part.tokens, seed, i, j)
                    for j, part in enumerate(canvas)
                    if isinstance(part, Hole)
                ),
                0.0,
            )
            for i, canvas in enumerate(canvases)
        ]

    def _words(self, n: int, seed: int, *path: int) -> str:
        chosen = rng_for(seed, "words", *path).integers(0, len(self.words), n)
        return " ".join(self.words[i] for i in chosen)


def optimise(lab: Lab) -> None:
    words = RandomWords(load_base())
    search_with(lab, make_proposer(lab.config, lab.start, words, lab.bench.labels))
