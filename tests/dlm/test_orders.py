"""Each order against a case worked out by hand."""

import math

import pytest
import torch

from remask.dlm.orders import FAR, ORDERS, Guesses, spread

# Three open masks; the drawn token of the last is its second best.
FULL = torch.tensor([[0.5, 0.49, 0.01], [0.45, 0.30, 0.25], [0.9, 0.1, 0.0]]).log()
DRAWN = torch.tensor([0.5, 0.45, 0.1]).log()
LEAD = torch.tensor([0.01, 0.15, 0.8])
OPEN = torch.tensor([[True, False, True, True]])
NOISE = torch.tensor([0.3, -0.1, 0.2])


def guesses() -> Guesses:
    return Guesses(
        open=OPEN,
        full=FULL,
        confidence=spread(DRAWN, OPEN),
        lead=spread(LEAD, OPEN),
        depth=torch.tensor([[0, 0, 0, 1]]),
        noise=spread(NOISE, OPEN),
    )


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("confidence", [math.log(0.5), math.log(0.45), math.log(0.1)]),
        # -Σ p ln p: 0.3466 + 0.3495 + 0.0461; 0.3593 + 0.3612 + 0.3466; 0.0948 + 0.2303
        ("entropy", [-0.7422, -1.0671, -0.3251]),
        ("margin", [math.log(0.01), math.log(0.15), math.log(0.8)]),
        ("random", [0.3, -0.1, 0.2]),
        ("left", [math.log(0.5), math.log(0.45), math.log(0.1) - FAR]),
    ],
)
def test_scores_by_hand(name: str, scores: list[float]) -> None:
    grid = ORDERS[name](guesses())
    assert grid.shape == OPEN.shape
    assert grid[OPEN].tolist() == pytest.approx(scores, abs=1e-4)


def test_the_orders_differ() -> None:
    ways = {n: ORDERS[n](guesses())[OPEN].argsort(descending=True).tolist() for n in ORDERS}
    assert ways == {
        "confidence": [0, 1, 2],
        "entropy": [2, 0, 1],
        "margin": [2, 1, 0],
        "random": [0, 2, 1],
        "left": [0, 1, 2],
    }


def test_a_tie_has_a_finite_margin() -> None:
    tied = Guesses(
        OPEN, FULL, OPEN.double(), torch.zeros(1, 4).double(), OPEN.long(), OPEN.double()
    )
    assert bool(ORDERS["margin"](tied).isfinite().all())


def test_every_order_names_its_source() -> None:
    for order in ORDERS.values():
        assert order.__doc__ and ("arXiv" in order.__doc__ or "Our own" in order.__doc__)
