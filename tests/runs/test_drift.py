"""The tests of drift: what they compare, and how often they alarm where nothing has changed."""

from itertools import count

import numpy as np
import pytest

from remask.runs.drift import compare_failures, compare_inputs
from remask.types import Feedback, Trace

RATE = 0.05
NUMBERS = count()


def tell(good: bool | None, query: str = "hello", source: str = "") -> Trace:
    """A conversation that was rated good or bad, or not rated."""
    score = None if good is None else float(good)
    notes = () if score is None else (Feedback("score", "", score),)
    return Trace(f"{next(NUMBERS)}", query, "", None, notes, score, source)


def tell_all(good: int = 0, bad: int = 0, unrated: int = 0) -> list[Trace]:
    return [tell(rating) for rating in [True] * good + [False] * bad + [None] * unrated]


def test_ratings_that_begin_after_the_reference_are_no_drift() -> None:
    """300 conversations without a rating, then 90 rated ones of which one in ten is bad."""
    found = compare_failures(tell_all(unrated=300), tell_all(good=81, bad=9, unrated=210), RATE)
    assert found == "the reference has 0 rated conversations of at least 30"


@pytest.mark.parametrize("good", [0, 1])
def test_failures_are_counted_among_all_where_nearly_only_they_are_rated(good: int) -> None:
    found = compare_failures(tell_all(good, 12, 288), tell_all(0, 60, 240), RATE)
    assert not isinstance(found, str) and found.drifted
    assert found.after == 0.2 and found.n_after == 300


@pytest.mark.parametrize("groups", [(40, 10), (10, 40)])
def test_few_rated_conversations_are_not_compared(groups: tuple[int, int]) -> None:
    reference, new = (tell_all(good=many, unrated=50) for many in groups)
    found = compare_failures(reference, new, RATE)
    assert isinstance(found, str) and "10 rated conversations of at least 30" in found


def test_p_values_of_equal_groups_are_not_too_small() -> None:
    """Of 200 comparisons at most those below p that chance allows; a level far above a month's is read."""
    rng = np.random.default_rng(0)
    words = [f"{a} {b}" for a in ("lost", "late", "broken", "double") for b in ("parcel", "bill", "key")]
    p: dict[str, list[float]] = {"failures": [], "mix of inputs": []}
    for _ in range(200):
        groups = [
            [tell(bool(rng.random() < 0.8), words[int(rng.integers(len(words)))]) for _ in range(60)]
            for _ in range(2)
        ]
        for test in (compare_failures, compare_inputs):
            found = test(groups[0], groups[1], RATE)
            assert not isinstance(found, str)
            p[found.name].append(found.p)
    for name, values in p.items():
        assert sum(value <= 0.1 for value in values) <= 33, name  # 20 expected; 3 standard deviations


def test_new_kind_of_request_and_empty_requests_are_drift() -> None:
    rng = np.random.default_rng(0)
    words = ["lost parcel", "late parcel", "bill is wrong", "key is broken", "where is the bill"]
    known = [[tell(None, words[int(i)]) for i in rng.integers(len(words), size=200)] for _ in range(2)]
    for query in ("app crashes at login", "", "🙂"):
        new = [tell(None, query) for _ in range(40)] + known[1][40:]
        assert compare_inputs(known[0], new, RATE).drifted, query


def test_one_loud_user_is_one_piece_of_evidence() -> None:
    rng = np.random.default_rng(0)
    words = ["lost parcel", "late parcel", "bill is wrong", "key is broken", "where is the bill"]
    known = [[tell(True, words[int(i)]) for i in rng.integers(len(words), size=100)] for _ in range(2)]
    for source, drifted in (("ann", False), ("", True)):
        loud = [tell(False, "app crashes at login", source) for _ in range(60)]
        for test in (compare_failures, compare_inputs):
            found = test(known[0], [*known[1][:40], *loud], RATE)
            assert not isinstance(found, str) and found.drifted == drifted, (test, source)
