"""benchmarks/search/endpoint.py: which row remask is compared with, and the correction over budgets."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.search.cells import SYMBOLS
from benchmarks.search.endpoint import bound_share, correct_by_holm, count_harmed, judge_endpoints

RIGHT, WRONG = SYMBOLS[-1], SYMBOLS[0]


def play(budget: int, accuracy: dict[str, tuple[float, float]], seeds: int = 3) -> Iterator[dict[str, Any]]:
    """Yield rows of two tasks. accuracy: by optimiser on withheld and on test rows."""
    rng = np.random.default_rng(budget)
    for task in ("first", "second"):
        for seed in range(seeds):
            for optimiser, (withheld, test) in accuracy.items():
                rows = ["".join(RIGHT if x < p else WRONG for x in rng.random(300)) for p in (withheld, test)]
                yield {
                    "task": task, "optimiser": optimiser, "seed": seed, "calls": budget,
                    "withheld_rows": rows[0], "test_rows": rows[1],
                    "test": rows[1].count(RIGHT) / 300, "seed_test": 0.5,
                }  # fmt: skip


def test_the_best_other_row_is_chosen_on_withheld_rows() -> None:
    accuracy = {"remask": (0.7, 0.7), "few_shot": (0.6, 0.5), "capo": (0.5, 0.65), "gepa_remask": (0.9, 0.9)}
    (endpoint,) = judge_endpoints({200: list(play(200, accuracy))})
    assert endpoint.other == "few_shot", "capo has more test rows right, and gepa_remask is built on remask"
    assert endpoint.gap.low > 0 and endpoint.p < 0.01 and "above zero" in str(endpoint)


def test_equal_rows_are_not_above_zero() -> None:
    equal = {"remask": (0.6, 0.6), "few_shot": (0.6, 0.6)}
    both = {budget: list(play(budget, equal)) for budget in (200, 800)}
    for endpoint in judge_endpoints(both):
        assert endpoint.p > 0.05 and "not above zero" in str(endpoint)


def test_a_row_that_lacks_a_seed_is_not_the_best_other_row() -> None:
    rows = [*play(200, {"remask": (0.6, 0.6)}), *play(200, {"few_shot": (0.6, 0.6)}, seeds=2)]
    assert judge_endpoints({200: rows}) == []
    (endpoint,) = judge_endpoints({200: [*rows, *play(200, {"capo": (0.5, 0.5)})]})
    assert (endpoint.other, endpoint.among) == ("capo", 1)


def test_a_budget_that_is_not_run_yet_counts_in_the_correction() -> None:
    rows = list(play(200, {"remask": (0.62, 0.62), "few_shot": (0.6, 0.6)}))
    (alone,) = judge_endpoints({200: rows}, planned=1)
    (first,) = judge_endpoints({200: rows})
    assert first.p == pytest.approx(min(1, 2 * alone.p)) and first.gap == alone.gap


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_keeps_the_order_and_never_lowers(p: list[float]) -> None:
    corrected = correct_by_holm(p)
    assert all(a <= b <= 1 for a, b in zip(p, corrected, strict=True))
    in_order = [corrected[i] for i in sorted(range(len(p)), key=lambda i: p[i])]
    assert all(a <= b for a, b in pairwise(in_order))
    assert max(corrected) >= min(1.0, len(p) * min(p))


def test_harmed_runs_are_counted() -> None:
    rows = list(play(200, {"remask": (0.5, 0.3), "few_shot": (0.5, 0.9)}))
    assert count_harmed(rows) == (6, 6)
    assert count_harmed(rows, ["few_shot"]) == (0, 6)
    assert count_harmed(rows, ["remask", "few_shot"]) == (6, 12)


def test_a_run_that_lost_exactly_a_point_is_not_harmed() -> None:
    rows = [{"optimiser": "remask", "test": test, "seed_test": 0.5} for test in (0.49, 0.488)]
    assert count_harmed(rows) == (1, 2)


@pytest.mark.parametrize(("count", "n", "bound"), [(0, 100, 0.0295), (5, 100, 0.1023), (3, 3, 1.0)])
def test_the_bound_of_a_share_is_exact(count: int, n: int, bound: float) -> None:
    assert bound_share(count, n) == pytest.approx(bound, abs=5e-4)
