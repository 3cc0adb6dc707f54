"""Each order and each commit rule against values computed by hand."""

import math

import pytest
import torch

from remask.dlm.schedule import (
    COMMITS,
    MAX_LOGP_DIFFERENCE,
    ORDERS,
    Predictions,
    rank_positions,
    scatter_to_grid,
)

# Three open masks; the drawn token of the last one has the second largest probability.
LOG_PROBS = torch.tensor([[0.5, 0.49, 0.01], [0.45, 0.30, 0.25], [0.9, 0.1, 0.0]]).log()
DRAWN = torch.tensor([0.5, 0.45, 0.1]).log()
MARGIN = torch.tensor([0.01, 0.15, 0.8])
OPEN = torch.tensor([[True, False, True, True]])
NOISE = torch.tensor([0.3, -0.1, 0.2])


def make_predictions() -> Predictions:
    return Predictions(
        open=OPEN,
        log_probs=LOG_PROBS,
        confidence=scatter_to_grid(DRAWN, OPEN),
        margin=scatter_to_grid(MARGIN, OPEN),
        masks_to_left=torch.tensor([[0, 0, 0, 1]]),
        noise=scatter_to_grid(NOISE, OPEN),
    )


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("confidence", [math.log(0.5), math.log(0.45), math.log(0.1)]),
        # -Σ p ln p: 0.3466 + 0.3495 + 0.0461; 0.3593 + 0.3612 + 0.3466; 0.0948 + 0.2303
        ("entropy", [-0.7422, -1.0671, -0.3251]),
        ("margin", [math.log(0.01), math.log(0.15), math.log(0.8)]),
        ("random", [0.3, -0.1, 0.2]),
        ("leftmost", [math.log(0.5), math.log(0.45), math.log(0.1) - MAX_LOGP_DIFFERENCE]),
    ],
)
def test_order_scores_by_hand(name: str, scores: list[float]) -> None:
    grid = ORDERS[name](make_predictions())
    assert grid.shape == OPEN.shape
    assert grid[OPEN].tolist() == pytest.approx(scores, abs=1e-4)


def test_orders_differ() -> None:
    ways = {n: ORDERS[n](make_predictions())[OPEN].argsort(descending=True).tolist() for n in ORDERS}
    assert ways == {
        "confidence": [0, 1, 2],
        "entropy": [2, 0, 1],
        "margin": [2, 1, 0],
        "random": [0, 2, 1],
        "leftmost": [0, 1, 2],
    }


def test_margin_of_a_tie_is_finite() -> None:
    tied = Predictions(OPEN, LOG_PROBS, OPEN.double(), torch.zeros(1, 4).double(), OPEN.long(), OPEN.double())
    assert bool(ORDERS["margin"](tied).isfinite().all())


def test_every_order_cites_its_source() -> None:
    for order in ORDERS.values():
        assert order.__doc__ and ("arXiv" in order.__doc__ or "Our own" in order.__doc__)


# -- how many at once ---------------------------------------------------------------------------


def drawn_with(probabilities: list[float], table: list[list[float]] | None = None) -> Predictions:
    """A row whose drawn tokens have these probabilities; at a negative one no mask is open."""
    drawn = torch.tensor([probabilities], dtype=torch.float64)
    is_open = drawn >= 0
    nothing = torch.zeros_like(drawn)
    return Predictions(
        open=is_open,
        log_probs=torch.tensor(table or [[1.0]] * int(is_open.sum())).log(),
        confidence=scatter_to_grid(drawn[is_open].log(), is_open),
        margin=nothing,
        masks_to_left=nothing.long(),
        noise=nothing,
    )


def chosen(name: str, given: Predictions, bound: float, score: list[float] | None = None) -> list[int]:
    """Columns that the rule commits, in the order of `score` (by default the confidence)."""
    order = given.confidence if score is None else torch.tensor([score])
    found = COMMITS[name](given, rank_positions(order, given.open), bound)
    assert not bool((found & ~given.open).any())
    return found[0].nonzero()[:, 0].tolist()


def test_rank_positions_by_hand() -> None:
    score = torch.tensor([[0.1, 0.9, 0.5, 0.9], [1.0, 2.0, 3.0, 4.0]])
    positions = torch.tensor([[True, True, False, True], [False, True, False, False]])
    assert rank_positions(score, positions).tolist() == [[2, 0, 4, 1], [4, 0, 4, 4]]


def test_commit_steps_adds_nothing_to_the_quota() -> None:
    assert chosen("steps", drawn_with([1.0, 0.9]), 0.0) == []


def test_commit_threshold_takes_all_probable_tokens() -> None:
    predictions = drawn_with([0.95, 0.2, -1, 0.91, 0.89])
    assert chosen("threshold", predictions, 0.9) == [0, 3]
    assert chosen("threshold", predictions, 0.99) == []
    assert chosen("threshold", predictions, float("inf")) == []


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (1.0, [1, 3]),  # 0.97 >= 1/2, 0.70 >= 2/3, 0.69 < 3/4
        (2.0, [0, 1, 3]),  # 0 · 1/3 · 1/2 · 3/5: only the last fails
        (0.05, []),  # 0.97 < 0.975
        (9.0, [0, 1, 3, 4]),
    ],
)
def test_commit_factor_by_hand(bound: float, expected: list[int]) -> None:
    assert chosen("factor", drawn_with([0.69, 0.97, -1, 0.70, 0.59]), bound) == expected


# Entropies in nats: 0, 0.325, 0.693 (ln 2) and 1.386 (ln 4).
SPREADS = [[0.9, 0.1, 0, 0], [0.25, 0.25, 0.25, 0.25], [1.0, 0, 0, 0], [0.5, 0.5, 0, 0]]


@pytest.mark.parametrize(
    ("bound", "rising", "falling"),
    [
        # Sums without the largest, rising: 0, 0, 0.325, 1.018; falling: 0, 0.693, 1.018, 1.018.
        (0.0, [0, 2], [1]),
        (0.4, [0, 2, 3], [1]),
        (0.7, [0, 2, 3], [1, 3]),
        (1.1, [0, 1, 2, 3], [0, 1, 2, 3]),
    ],
)
def test_commit_entropy_bound_by_hand(bound: float, rising: list[int], falling: list[int]) -> None:
    predictions = drawn_with([0.9, 0.25, 1.0, 0.5], SPREADS)
    assert chosen("entropy_bound", predictions, bound, [3.0, 1.0, 4.0, 2.0]) == rising
    assert chosen("entropy_bound", predictions, bound, [2.0, 4.0, 1.0, 3.0]) == falling


def test_commit_entropy_bound_skips_masks_that_are_not_open() -> None:
    predictions = drawn_with([-1, 0.25, -1, 0.5], [SPREADS[1], SPREADS[3]])
    assert chosen("entropy_bound", predictions, 0.0, [9.0, 1.0, 9.0, 2.0]) == [3]
    assert chosen("entropy_bound", predictions, 0.7, [9.0, 1.0, 9.0, 2.0]) == [1, 3]


def test_every_commit_rule_cites_its_source() -> None:
    for commit in COMMITS.values():
        assert commit.__doc__ and "arXiv" in commit.__doc__
