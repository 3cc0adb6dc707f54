"""Which masks to commit first: one function per name.

Knows what a model says of the masks of a batch. Knows nothing of ids, text, quotas or randomness:
the noise comes with the guesses. An order is a function from `Guesses` to a (K, L) float64 grid in
nats, larger first, so that left bias and position temperature mean the same for each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

FAR = 1e6  # nats that no difference of log-probabilities bridges
RESOLUTION = torch.finfo(torch.float32).eps  # of probabilities: a smaller margin is none


@dataclass(frozen=True)
class Guesses:
    """What a model says of the N open masks of K rows of L tokens, just before a commit.

    Grids are (K, L) and 0 where no mask is open; log-probabilities are nats at temperature 1,
    after bans.
    """

    open: Tensor  # (K, L) bool, the masks that may be committed now
    full: Tensor  # (N, V) float32, log-probabilities of all tokens, open masks in reading order
    confidence: Tensor  # (K, L) float64, log-probability of the drawn token
    lead: Tensor  # (K, L) float64, probability of the best token minus that of the second
    depth: Tensor  # (K, L) long, masks directly to the left, open or not
    noise: Tensor  # (K, L) float64, standard Gumbel

    @cached_property
    def entropy(self) -> Tensor:
        """(K, L) float64, nats of the whole distribution; costs a pass over the vocabulary."""
        values = torch.special.entr(self.full.exp()).sum(-1)
        return spread(values, self.open)


Order = Callable[[Guesses], Tensor]


def spread(values: Tensor, places: Tensor) -> Tensor:
    """A grid with `values` (N,) at the true `places` (K, L) in reading order, 0 elsewhere."""
    grid = torch.zeros(places.shape, dtype=torch.float64)
    grid[places] = values.double().cpu()
    return grid


def confidence(guesses: Guesses) -> Tensor:
    """Log-probability of the drawn token: low-confidence remasking of LLaDA (arXiv 2502.09992,
    section 2.4), MaskGIT's order (2202.04200, section 3.2)."""
    return guesses.confidence


def entropy(guesses: Guesses) -> Tensor:
    """Minus the entropy of the whole distribution: `entropy` of Dream (arXiv 2508.15487, public
    sampler); sees doubt that the drawn token hides."""
    return -guesses.entropy


def margin(guesses: Guesses) -> Tensor:
    """Log of the gap between the two best tokens: top-K probability margin of Kim et al.
    (arXiv 2502.06768, section 4), `topk_margin` of Dream. The log keeps the order and the unit."""
    return guesses.lead.clamp(min=RESOLUTION).log()


def random(guesses: Guesses) -> Tensor:
    """All orders equally probable: ancestral sampling of masked diffusion (LLaDA's `random`
    remasking, arXiv 2502.09992, section 2.4)."""
    return guesses.noise


def left(guesses: Guesses) -> Tensor:
    """The first mask of each run, the surest of these first; then the second ones, and so on.

    Our own, for models that were trained left to right.
    """
    return guesses.confidence - FAR * guesses.depth


ORDERS: dict[str, Order] = {
    "confidence": confidence,
    "entropy": entropy,
    "margin": margin,
    "random": random,
    "left": left,
}
