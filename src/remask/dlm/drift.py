"""How far approximate logits are from exact ones: a record that adds up.

Knows two tensors of logits at a time; knows nothing of where they come from.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Drift:
    """What was seen where both were computed. Nothing compared: nothing was approximated, or it
    was never checked."""

    positions: int = 0  # masked positions compared
    same: int = 0  # of those, with the same most probable token
    largest: float = 0.0  # |difference| of any two logits

    @property
    def agreement(self) -> float:
        """Share of positions with the same most probable token; 1 where nothing was compared."""
        return self.same / self.positions if self.positions else 1.0

    def measured(self, approximate: Tensor, exact: Tensor) -> "Drift":
        """With a further comparison of logits (N, V)."""
        if not len(exact):
            return self
        same = int((approximate.argmax(-1) == exact.argmax(-1)).sum())
        largest = float((approximate - exact).abs().amax())
        return Drift(self.positions + len(exact), self.same + same, max(self.largest, largest))
