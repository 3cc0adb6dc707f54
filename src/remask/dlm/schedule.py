"""Which masks to commit first, and how many at once: one function per name.

An order is a function from `Guesses` to a (K, L) float64 grid in nats, larger first, so that left
bias and position temperature mean the same for each. A commit rule takes the guesses, the rank of
each open mask in the order of the step, and its own number, and returns a (K, L) bool grid of what
is sure enough; whoever calls it commits that and the quota, so every step commits something. Knows
what a model says of the masks of a batch. Knows nothing of ids, text, quotas or randomness: the
noise comes with the guesses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

MINUS_INF = float("-inf")
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
Commit = Callable[[Guesses, Tensor, float], Tensor]


def spread(values: Tensor, places: Tensor) -> Tensor:
    """A grid with `values` (N,) at the true `places` (K, L) in reading order, 0 elsewhere."""
    grid = torch.zeros(places.shape, dtype=torch.float64)
    grid[places] = values.double().cpu()
    return grid


# -- which first ----------------------------------------------------------------------------------


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


def leftmost(guesses: Guesses) -> Tensor:
    """The first mask of each run, the surest of these first; then the second ones, and so on.

    Our own, for models that were trained left to right.
    """
    return guesses.confidence - FAR * guesses.depth


ORDERS: dict[str, Order] = {
    "confidence": confidence,
    "entropy": entropy,
    "margin": margin,
    "random": random,
    "leftmost": leftmost,
}


# -- how many at once -----------------------------------------------------------------------------


def ranks(score: Tensor, places: Tensor) -> Tensor:
    """(K, L) long: 0 for the largest `score` among the true `places` of a row; L elsewhere.

    Equal scores rank from the left.
    """
    rows, length = score.shape
    order = score.masked_fill(~places, MINUS_INF).argsort(dim=1, descending=True, stable=True)
    count = torch.arange(length).expand(rows, -1)
    return torch.empty_like(order).scatter_(1, order, count).masked_fill(~places, length)


def steps(guesses: Guesses, rank: Tensor, bound: float) -> Tensor:
    """Nothing beside the quota: a fixed number of steps (LLaDA, arXiv 2502.09992, section 2.4)."""
    return torch.zeros_like(guesses.open)


def threshold(guesses: Guesses, rank: Tensor, bound: float) -> Tensor:
    """Every drawn token of probability `bound` or more (Fast-dLLM, arXiv 2505.22618, section 3.3;
    0.9 there)."""
    return guesses.open & (guesses.confidence.exp() >= bound)


def factor(guesses: Guesses, rank: Tensor, bound: float) -> Tensor:
    """The n most probable drawn tokens, for the largest n whose n-th one has a probability of at
    least 1 - bound / (n + 1) (Fast-dLLM, arXiv 2505.22618, section 3.3, after its theorem: with
    bound 1 greedy parallel decoding equals the sequential one)."""
    sure = guesses.confidence.exp()
    n = ranks(sure, guesses.open) + 1
    # The probability falls with n and the demand grows, so what passes is a prefix.
    return guesses.open & (sure >= 1 - bound / (n + 1))


def entropy_bound(guesses: Guesses, rank: Tensor, bound: float) -> Tensor:
    """The longest prefix of the order whose entropies, less the largest, sum to at most `bound`
    nats: that sum bounds how much the tokens of the prefix say about each other (EB sampler, arXiv
    2505.24857; as there, the order is free)."""
    at = rank.argsort(dim=1, stable=True)
    entropies = guesses.entropy.gather(1, at)
    # Sums less the largest never fall along the order, so what passes is a prefix.
    within = entropies.cumsum(1) - entropies.cummax(1).values <= bound
    return guesses.open & torch.zeros_like(within).scatter_(1, at, within)


COMMITS: dict[str, Commit] = {
    "steps": steps,
    "threshold": threshold,
    "factor": factor,
    "entropy_bound": entropy_bound,
}
