"""Which masks to commit first, and how many at once: one function for each named algorithm.

An order maps `Predictions` to a (K, L) float64 grid of scores in nats, larger first. The common
unit gives left bias and position temperature the same meaning for every order. A commit rule maps
the predictions, the rank of each open mask in the order of the step, and its own bound to a (K, L)
bool grid of masks that are certain enough. The caller commits those and the quota of the step, so
every step commits something. The functions are deterministic: the noise is part of the predictions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

MINUS_INF = float("-inf")
MAX_LOGP_DIFFERENCE = 1e6  # nats; larger than any difference of two log-probabilities
MIN_MARGIN = torch.finfo(torch.float32).eps  # a smaller difference of probabilities is rounding


@dataclass(frozen=True)
class Predictions:
    """The model's predictions for the N open masks of K rows of L tokens, just before a commit.

    Grids are (K, L), with 0 where no mask is open. Log-probabilities are in nats at temperature 1,
    after bans.
    """

    open: Tensor  # (K, L) bool, the masks that may be committed now
    log_probs: Tensor  # (N, V) float32, of all tokens, open masks in reading order
    confidence: Tensor  # (K, L) float64, log-probability of the drawn token
    margin: Tensor  # (K, L) float64, probability of the best token minus that of the second
    masks_to_left: Tensor  # (K, L) long, length of the run of masks directly to the left
    noise: Tensor  # (K, L) float64, standard Gumbel

    @cached_property
    def entropy(self) -> Tensor:
        """(K, L) float64, nats, of the whole distribution; takes a pass over the vocabulary."""
        values = torch.special.entr(self.log_probs.exp()).sum(-1)
        return scatter_to_grid(values, self.open)


OrderFunction = Callable[[Predictions], Tensor]
CommitFunction = Callable[[Predictions, Tensor, float], Tensor]


def scatter_to_grid(values: Tensor, positions: Tensor) -> Tensor:
    """Put `values` (N,) at the true `positions` (K, L) in reading order, and 0 elsewhere."""
    grid = torch.zeros(positions.shape, dtype=torch.float64)
    grid[positions] = values.double().cpu()
    return grid


# -- which masks first ----------------------------------------------------------------------------


def order_by_confidence(predictions: Predictions) -> Tensor:
    """Log-probability of the drawn token: low-confidence remasking of LLaDA (arXiv 2502.09992,
    section 2.4), and the order of MaskGIT (arXiv 2202.04200, section 3.2)."""
    return predictions.confidence


def order_by_entropy(predictions: Predictions) -> Tensor:
    """Minus the entropy of the whole distribution: `entropy` of Dream (arXiv 2508.15487, public
    sampler). It reflects uncertainty that the drawn token alone does not show."""
    return -predictions.entropy


def order_by_margin(predictions: Predictions) -> Tensor:
    """Logarithm of the difference between the two largest probabilities: top-K probability margin
    of Kim et al. (arXiv 2502.06768, section 4), `topk_margin` of Dream. The logarithm keeps the
    order and gives the unit of the other orders."""
    return predictions.margin.clamp(min=MIN_MARGIN).log()


def order_randomly(predictions: Predictions) -> Tensor:
    """All orders with equal probability: ancestral sampling of masked diffusion (`random`
    remasking of LLaDA, arXiv 2502.09992, section 2.4)."""
    return predictions.noise


def order_from_left(predictions: Predictions) -> Tensor:
    """The first mask of each run, by confidence, then the second masks, and so on.

    Our own, for models that were trained left to right.
    """
    return predictions.confidence - MAX_LOGP_DIFFERENCE * predictions.masks_to_left


ORDERS: dict[str, OrderFunction] = {
    "confidence": order_by_confidence,
    "entropy": order_by_entropy,
    "margin": order_by_margin,
    "random": order_randomly,
    "leftmost": order_from_left,
}


# -- how many masks at once -----------------------------------------------------------------------


def rank_positions(score: Tensor, positions: Tensor) -> Tensor:
    """Rank the true `positions` of each row by `score`: (K, L) long, 0 for the largest, L at other
    positions. Equal scores rank from the left."""
    rows, length = score.shape
    order = score.masked_fill(~positions, MINUS_INF).argsort(dim=1, descending=True, stable=True)
    count = torch.arange(length).expand(rows, -1)
    return torch.empty_like(order).scatter_(1, order, count).masked_fill(~positions, length)


def commit_quota(predictions: Predictions, rank: Tensor, bound: float) -> Tensor:
    """Nothing beyond the quota, so the number of steps is fixed (LLaDA, arXiv 2502.09992,
    section 2.4)."""
    return torch.zeros_like(predictions.open)


def commit_above_threshold(predictions: Predictions, rank: Tensor, bound: float) -> Tensor:
    """Every drawn token of probability `bound` or more (Fast-dLLM, arXiv 2505.22618, section 3.3,
    where it is 0.9)."""
    return predictions.open & (predictions.confidence.exp() >= bound)


def commit_by_factor(predictions: Predictions, rank: Tensor, bound: float) -> Tensor:
    """The n most probable drawn tokens, for the largest n such that the n-th has a probability of
    at least 1 - bound / (n + 1) (Fast-dLLM, arXiv 2505.22618, section 3.3). By the theorem there,
    greedy parallel decoding with bound 1 equals sequential decoding."""
    probability = predictions.confidence.exp()
    n = rank_positions(probability, predictions.open) + 1
    # The probability falls with n and the requirement rises, so the tokens that pass are a prefix.
    return predictions.open & (probability >= 1 - bound / (n + 1))


def commit_by_entropy_bound(predictions: Predictions, rank: Tensor, bound: float) -> Tensor:
    """The longest prefix of the order whose entropies, without the largest, sum to at most `bound`
    nats (EB sampler, arXiv 2505.24857, for any order). The sum bounds the mutual information of
    the tokens of the prefix."""
    order = rank.argsort(dim=1, stable=True)
    entropies = predictions.entropy.gather(1, order)
    # The sum without the largest never falls along the order, so the tokens that pass are a prefix.
    within = entropies.cumsum(1) - entropies.cummax(1).values <= bound
    return predictions.open & torch.zeros_like(within).scatter_(1, order, within)


COMMITS: dict[str, CommitFunction] = {
    "steps": commit_quota,
    "threshold": commit_above_threshold,
    "factor": commit_by_factor,
    "entropy_bound": commit_by_entropy_bound,
}
