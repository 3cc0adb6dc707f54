"""Corruptions: masks of the right shape, never empty, complementary in pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remask.dlm.training.masking import CORRUPTIONS, apply_corruption


@given(st.integers(1, 130), st.integers(1, 6), st.integers(0, 2**32))
def test_every_row_has_a_mask(n: int, rows: int, seed: int) -> None:
    masks = apply_corruption(n, rows, np.random.default_rng(seed), elastic=bool(seed % 2))
    assert len(masks) == rows
    for mask in masks:
        assert len(mask.hidden) == n
        assert any(mask.hidden) or any(map(any, mask.extra.values()))


@given(st.integers(1, 130), st.integers(0, 2**32))
def test_extra_positions_follow_a_span(n: int, seed: int) -> None:
    (mask,) = CORRUPTIONS["spans"][1](n, 1, np.random.default_rng(seed), True)
    for stop, positions in mask.extra.items():
        assert 0 < stop <= n and positions
        if all(positions):  # nothing right of the span is hidden
            assert not any(mask.hidden[stop:])


def test_fixed_lengths_have_no_extra_positions() -> None:
    masks = apply_corruption(60, 200, np.random.default_rng(3))
    assert not any(mask.extra for mask in masks)


@pytest.mark.parametrize("name", ["alternating", "tokens"])
@given(n=st.integers(1, 130), seed=st.integers(0, 2**32))
def test_pairs_cover_every_token_once(name: str, n: int, seed: int) -> None:
    first, second = CORRUPTIONS[name][1](n, 2, np.random.default_rng(seed), True)
    assert [a + b for a, b in zip(first.hidden, second.hidden, strict=True)] == [1] * n


def test_equal_seeds_give_equal_masks() -> None:
    one, two = (apply_corruption(60, 4, np.random.default_rng(7)) for _ in range(2))
    assert one == two
