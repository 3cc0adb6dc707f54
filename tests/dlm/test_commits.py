"""Each commit rule against a case worked out by hand."""

import pytest
import torch

from remask.dlm.commits import COMMITS, ranks
from remask.dlm.orders import Guesses, spread


def guesses(probabilities: list[float], full: list[list[float]] | None = None) -> Guesses:
    """A row whose drawn tokens have these probabilities; a negative one is no open mask."""
    drawn = torch.tensor([probabilities], dtype=torch.float64)
    here = drawn >= 0
    nothing = torch.zeros_like(drawn)
    return Guesses(
        open=here,
        full=torch.tensor(full or [[1.0]] * int(here.sum())).log(),
        confidence=spread(drawn[here].log(), here),
        lead=nothing,
        depth=nothing.long(),
        noise=nothing,
    )


def chosen(name: str, given: Guesses, bound: float, score: list[float] | None = None) -> list[int]:
    """Columns that the rule commits, where `score` is the order (else the confidence)."""
    order = given.confidence if score is None else torch.tensor([score])
    found = COMMITS[name](given, ranks(order, given.open), bound)
    assert not bool((found & ~given.open).any())
    return found[0].nonzero()[:, 0].tolist()


def test_ranks_by_hand() -> None:
    score = torch.tensor([[0.1, 0.9, 0.5, 0.9], [1.0, 2.0, 3.0, 4.0]])
    places = torch.tensor([[True, True, False, True], [False, True, False, False]])
    assert ranks(score, places).tolist() == [[2, 0, 4, 1], [4, 0, 4, 4]]


def test_steps_adds_nothing() -> None:
    assert chosen("steps", guesses([1.0, 0.9]), 0.0) == []


def test_threshold_takes_all_that_are_sure() -> None:
    case = guesses([0.95, 0.2, -1, 0.91, 0.89])
    assert chosen("threshold", case, 0.9) == [0, 3]
    assert chosen("threshold", case, 0.99) == []
    assert chosen("threshold", case, float("inf")) == []


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (1.0, [1, 3]),  # 0.97 >= 1/2, 0.70 >= 2/3, 0.69 < 3/4
        (2.0, [0, 1, 3]),  # 0 · 1/3 · 1/2 · 3/5: only the last fails
        (0.05, []),  # 0.97 < 0.975
        (9.0, [0, 1, 3, 4]),
    ],
)
def test_factor_asks_more_of_more(bound: float, expected: list[int]) -> None:
    assert chosen("factor", guesses([0.69, 0.97, -1, 0.70, 0.59]), bound) == expected


# Entropies in nats: 0, 0.325, 0.693 (ln 2) and 1.386 (ln 4).
SPREADS = [[0.9, 0.1, 0, 0], [0.25, 0.25, 0.25, 0.25], [1.0, 0, 0, 0], [0.5, 0.5, 0, 0]]


@pytest.mark.parametrize(
    ("bound", "rising", "falling"),
    [
        # Sums less the largest, rising: 0, 0, 0.325, 1.018; falling: 0, 0.693, 1.018, 1.018.
        (0.0, [0, 2], [1]),
        (0.4, [0, 2, 3], [1]),
        (0.7, [0, 2, 3], [1, 3]),
        (1.1, [0, 1, 2, 3], [0, 1, 2, 3]),
    ],
)
def test_entropy_bound_by_hand(bound: float, rising: list[int], falling: list[int]) -> None:
    case = guesses([0.9, 0.25, 1.0, 0.5], SPREADS)
    assert chosen("entropy_bound", case, bound, [3.0, 1.0, 4.0, 2.0]) == rising
    assert chosen("entropy_bound", case, bound, [2.0, 4.0, 1.0, 3.0]) == falling


def test_entropy_bound_skips_what_is_not_open() -> None:
    case = guesses([-1, 0.25, -1, 0.5], [SPREADS[1], SPREADS[3]])
    assert chosen("entropy_bound", case, 0.0, [9.0, 1.0, 9.0, 2.0]) == [3]
    assert chosen("entropy_bound", case, 0.7, [9.0, 1.0, 9.0, 2.0]) == [1, 3]


def test_every_commit_rule_names_its_source() -> None:
    for commit in COMMITS.values():
        assert commit.__doc__ and "arXiv" in commit.__doc__
