"""The race of candidates on train rows, and how a plan spends what races leave."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remask.ports import Proposal
from remask.prompt import Prompt
from remask.search.plan import MAX_CANDIDATES, MIN_CANDIDATES, count_round_calls, make_plan
from remask.search.race import Race
from remask.types import Outcome


def propose(name: str, shown: tuple[str, ...] = ()) -> Proposal:
    return Proposal(Prompt(name), "insert", ((0, 0, 1),), ((0, 0, name),), (), -1.0, demo_rows=shown)


def enter(scores: dict[str, list[float]], parent: list[float] | None = None) -> tuple[Race, list[Proposal]]:
    """Return a race in which each candidate has a score on each row, and its candidates."""
    rows = len(next(iter(scores.values())))
    race = Race({str(row): score for row, score in enumerate(parent or [0.0] * rows)})
    proposals = [propose(name) for name in scores]
    for proposal, each in zip(proposals, scores.values(), strict=True):
        race.add(proposal, [Outcome(str(row), "scored", s, s) for row, s in enumerate(each)])
    return race, proposals


fields = st.integers(1, 9).flatmap(
    lambda rows: st.lists(st.lists(st.floats(0, 1), min_size=rows, max_size=rows), min_size=1, max_size=12)
)


@given(fields, st.integers(0, 14))
def test_the_leader_stays_and_no_more_than_allowed(scores: list[list[float]], most: int) -> None:
    race, proposals = enter({f"prompt {i}": each for i, each in enumerate(scores)})
    left = race.drop(proposals, most)
    assert left[0] == race.rank(proposals)[0]
    assert 1 <= len(left) <= max(1, most)
    assert left == [p for p in race.rank(proposals) if p in left]


@given(st.permutations(range(6)))
def test_the_order_of_the_candidates_does_not_matter(order: list[int]) -> None:
    rng = np.random.default_rng(0)
    scores = {f"prompt {i}": list(rng.random(4)) for i in range(6)}
    race, proposals = enter(scores)
    assert race.drop([proposals[i] for i in order], 4) == race.drop(proposals, 4)


def test_one_that_is_clearly_behind_leaves_and_one_that_may_be_better_stays() -> None:
    good, near, bad = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0, 0.0, 1.0], [0.0] * 6
    race, (first, second, third) = enter({"good": good, "near": near, "bad": bad})
    left = race.drop([first, second, third], 9)
    assert first in left and second in left and third not in left


def test_equal_candidates_stay_up_to_the_limit() -> None:
    race, proposals = enter({f"prompt {i}": [0.5, 0.5] for i in range(9)})
    assert len(race.drop(proposals, 3)) == 3


def test_rows_that_a_prompt_shows_or_that_failed_do_not_count() -> None:
    race = Race({"a": 0.0, "b": 0.0})
    shows = propose("shows a", shown=("a",))
    race.add(shows, [Outcome("a", "scored", 1.0, 1.0), Outcome("b", "failed"), Outcome("c", "scored", 1, 1)])
    assert race.measure_lead(shows) == 0.0
    assert race.drop([shows], 1) == [shows]


def test_chance_alone_seldom_drops_the_best() -> None:
    """The best of 12 candidates, ahead by 0.2 with noise of 0.4, is among the six left after six rows
    in more than 70 of 100 draws."""
    rng = np.random.default_rng(1)
    kept = 0
    for _ in range(100):
        scores = rng.normal(0, 0.4, (12, 6)) + np.array([0.2, *[0.0] * 11])[:, None]
        race, proposals = enter({f"prompt {i}": list(row) for i, row in enumerate(scores)})
        kept += proposals[0] in race.drop(proposals, 6)
    assert kept > 70


@given(calls=st.integers(200, 20_000), share=st.floats(0, 1))
def test_a_plan_spends_what_is_left(calls: int, share: float) -> None:
    plan = make_plan(calls, 50, 150)
    assert plan.validation is not None
    assert plan.choose_candidates(plan.validation) == plan.candidates
    spent = plan.validation + int(share * (calls - plan.validation))
    n = plan.choose_candidates(spent)
    assert MIN_CANDIDATES <= n <= MAX_CANDIDATES
    cost = count_round_calls(n, plan.rungs, plan.validation)
    assert n == MIN_CANDIDATES or cost <= calls - spent


@pytest.mark.parametrize("spent", [0, 500])
def test_a_plan_without_a_limit_always_has_as_many_candidates(spent: int) -> None:
    assert make_plan(None, 50, 150).choose_candidates(spent) == MAX_CANDIDATES
