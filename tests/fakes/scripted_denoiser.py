"""A denoiser with a known answer, for tests and for trying the rest without a model.

Fills holes with phrases of a given list, chosen by the seed; token is word. Knows no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from remask.ids import content_id, rng_for
from remask.ports import Canvas, Context, Fill, Hole


@dataclass(frozen=True, slots=True)
class ScriptedDenoiser:
    """Writes phrases into holes; no two fills of a call are alike."""

    phrases: tuple[str, ...]

    @property
    def identity(self) -> str:
        return "scripted/" + content_id("phrases", *self.phrases)

    def count(self, text: str) -> int:
        """Words of `text`."""
        return len(text.split())

    def infill(self, context: Context, canvases: Sequence[Canvas], seed: int) -> list[Fill]:
        """Fill every hole of canvas k with other phrases than those of the canvases before."""
        order = rng_for(seed, "scripted").permutation(len(self.phrases)).tolist()
        return [self._fill(canvas, k, order) for k, canvas in enumerate(canvases)]

    def _fill(self, canvas: Canvas, k: int, order: Sequence[int]) -> Fill:
        """The j-th hole moves on by j, so that the holes of one canvas differ as well."""
        chosen = _digits(k, len(order))
        texts = []
        for j, hole in enumerate(part for part in canvas if isinstance(part, Hole)):
            words = [self.phrases[order[(digit + j) % len(order)]] for digit in chosen]
            texts.append(" ".join(words) if hole.tokens else "")
        return Fill(tuple(texts), -1.0)


def _digits(number: int, base: int) -> list[int]:
    """0, 1, … base - 1, then pairs, then triples: no two numbers share their digits."""
    digits = [number % base]
    while number >= base:
        number = number // base - 1
        digits.append(number % base)
    return digits
