"""Corruptions: masks of the right shape, never none, complementary where they say so."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remask.adapt.corrupt import CORRUPTIONS, corrupt


@given(st.integers(1, 130), st.integers(1, 6), st.integers(0, 2**32))
def test_every_row_has_a_mask(n: int, rows: int, seed: int) -> None:
    masks = corrupt(n, rows, np.random.default_rng(seed))
    assert len(masks) == rows
    assert all(len(mask) == n and any(mask) for mask in masks)


@pytest.mark.parametrize("name", ["alternating", "tokens"])
@given(n=st.integers(1, 130), seed=st.integers(0, 2**32))
def test_pairs_cover_every_token_once(name: str, n: int, seed: int) -> None:
    first, second = CORRUPTIONS[name][1](n, 2, np.random.default_rng(seed))
    assert [a + b for a, b in zip(first, second, strict=True)] == [1] * n


def test_the_same_seed_masks_the_same() -> None:
    one, two = (corrupt(60, 4, np.random.default_rng(7)) for _ in range(2))
    assert one == two
