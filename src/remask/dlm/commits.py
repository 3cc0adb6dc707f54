"""How many masks to commit at once, beside the quota of the step: one function per name.

A rule takes the guesses, the rank of each open mask in the order of the step, and its own number,
and returns a (K, L) bool grid of what is sure enough. Whoever calls it commits that and the quota,
so every step commits something. Knows nothing of ids, text, orders or randomness.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from remask.dlm.orders import Guesses

MINUS_INF = float("-inf")
Commit = Callable[[Guesses, Tensor, float], Tensor]


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
