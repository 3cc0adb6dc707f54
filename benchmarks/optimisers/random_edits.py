"""The control: remask whole, only that random words fill the holes instead of the DLM's text.

Masks, lengths, guard, plan and acceptance are remask's. The words are the first of the vocabulary,
which are the frequent ones, that the model itself takes for whole: pieces such as " dri" would make
the control weaker than chance. `blame` needs probabilities and drops out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from benchmarks.optimisers.searching import search_with
from benchmarks.search.lab import Lab
from remask.backbone.model import Backbone
from remask.backbone.weights import load_base
from remask.identity import rng_for
from remask.ports import Canvas, Context, Fill, Hole
from remask.proposers import make_proposer

WORDS = 5000
PIECE = 0.2  # probability of going on from which a word is taken for a piece
CHUNK = 250


@dataclass(frozen=True)
class RandomWords:
    """A Denoiser that reads nothing; its fills have as many tokens as the holes, at most."""

    backbone: Backbone

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Words of one token, in the order of the vocabulary."""
        texts = self.backbone.tokenizer.decode_batch([[i] for i in range(self.backbone.size)])
        tokens: dict[str, int] = {}
        for token, text in enumerate(texts):
            word = text.strip()
            if text.startswith(" ") and word.isalpha() and word.isascii() and len(word) > 1:
                tokens.setdefault(word, token)
        frequent = dict(list(tokens.items())[:WORDS])
        letters = torch.tensor([text[:1].isalpha() for text in texts])
        going_on = self._followed(list(frequent.values()), letters)
        return tuple(w for w, p in zip(frequent, going_on, strict=True) if p < PIECE)

    def _followed(self, tokens: Sequence[int], by: Tensor) -> list[float]:
        """The probability that a token of `by` (V,) bool follows each of `tokens`."""
        backbone = self.backbone
        start = torch.tensor([backbone.encode("Use the word")])
        _, past = backbone.read(start, torch.ones_like(start, dtype=torch.bool))
        found: list[float] = []
        for begin in range(0, len(tokens), CHUNK):
            ids = torch.tensor(tokens[begin : begin + CHUNK])[:, None]
            hidden = backbone.read_hidden(ids, torch.ones_like(ids, dtype=torch.bool), past)
            chance = backbone.logits(hidden[:, -1]).softmax(-1)
            found += chance[:, by].sum(1).tolist()
        return found

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
    search_with(lab, make_proposer(lab.config, lab.start, words, lab.bench.labels), lab.seed)
