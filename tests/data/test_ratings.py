"""From ratings to scores: only known scales are used."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remask.data.ratings import RatingStats, find_scales, normalize_score, parse_scales
from remask.data.trace_record import Rating
from remask.errors import ConfigError


def scores(values: list[object], **declared: tuple[float, float]) -> list[float | None]:
    """The scores of ratings with the same name, `r`."""
    ratings = [Rating("r", value) for value in values]  # type: ignore[arg-type]
    seen = RatingStats()
    for rating in ratings:
        seen.add(rating)
    known = find_scales({"r": seen}, declared)
    return [normalize_score(rating, known) for rating in ratings]


def test_scales_that_are_clear_are_inferred() -> None:
    assert scores([True, False]) == [1.0, 0.0]
    assert scores([0, 1, 0.5]) == [0.0, 1.0, 0.5]
    assert scores([-1, 1]) == [0.0, 1.0]
    assert scores([-1, 0, 1]) == [0.0, 0.5, 1.0]
    assert scores(["1", "0"]) == [1.0, 0.0]
    assert scores(["good", "Incorrect", "C", "I", "P", "N", "👍", "👎", "Thumbs up"]) == [
        1.0, 0.0, 1.0, 0.0, 0.5, 0.0, 1.0, 0.0, 1.0,
    ]  # fmt: skip


def test_scales_that_are_unclear_are_not_guessed() -> None:
    assert scores([1, 4, 5]) == [None] * 3  # five stars: the 1 is the worst, not the best
    assert scores([0.2, 7]) == [None, None]
    assert scores([-0.5, 0.5]) == [None, None]
    assert scores(["billing", "", None, "nan", "inf", float("nan"), 10**400]) == [None] * 7


def test_scales_that_are_declared_are_used() -> None:
    assert scores([1, 3, 5], r=(1, 5)) == [0.0, 0.5, 1.0]
    assert scores(["4"], r=(1, 5)) == [0.75]
    assert scores([1, 5], r=(5, 1)) == [1.0, 0.0]
    assert scores([0, 6, 1], r=(1, 5)) == [None, None, 0.0]  # outside: not clipped, not used
    assert scores([True], r=(1, 5)) == [1.0]


def test_scales_of_the_user_override_those_of_the_format() -> None:
    rating = Rating("r", 3, scale=(1, 5))
    seen = RatingStats()
    seen.add(rating)
    assert normalize_score(rating, find_scales({"r": seen}, {})) == 0.5
    assert normalize_score(rating, {}) == 0.5
    assert normalize_score(rating, find_scales({"r": seen}, {"r": (3, 4)})) == 0.0


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(-1e6, 1e6), st.floats(0.1, 1e6))
def test_normalize_score_is_a_share_or_none(value: float, worst: float, width: float) -> None:
    for scale in ((worst, worst + width), (worst + width, worst)):
        found = normalize_score(Rating("r", value), {"r": scale})
        assert found is None or 0 <= found <= 1


def test_parse_scales() -> None:
    assert parse_scales(["stars=1..5", "errors=10..0,a=b=-1..1"]) == {
        "stars": (1, 5), "errors": (10, 0), "a=b": (-1, 1),
    }  # fmt: skip
    for text in ("stars", "stars=", "=1..5", "stars=5", "stars=1..1", "stars=a..b", "x=0..inf"):
        with pytest.raises(ConfigError, match=r"--scale .*WORST\.\.BEST"):
            parse_scales([text])
