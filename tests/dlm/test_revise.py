"""What masking a written canvas again may touch, and how much of it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denoising import MASK, VOCABULARY, batch, generators, run
from remask.dlm.revise import renoise, token_to_mask
from remask.dlm.sampler import Rule, Step
from remask.errors import ConfigError

CELLS = st.tuples(st.integers(0, VOCABULARY - 1), st.booleans())
ROWS = st.integers(1, 12).flatmap(
    lambda length: st.lists(
        st.lists(CELLS, min_size=length, max_size=length), min_size=1, max_size=4
    )
)


@settings(deadline=None, max_examples=50)
@given(ROWS, st.floats(0, 1), st.integers(0, 5))
def test_renoise_masks_the_exact_share_of_editable_tokens(
    rows: list[list[tuple[int, bool]]], level: float, seed: int
) -> None:
    canvases = batch([[token for token, _ in row] for row in rows])
    before = canvases.ids.clone()
    editable = torch.tensor([[free for _, free in row] for row in rows])
    noisy = renoise(canvases, editable, level, generators(len(rows), seed))
    assert torch.equal(canvases.ids, before)
    new = (noisy.ids == MASK) & (before != MASK)
    assert not bool((new & ~editable).any())
    assert torch.equal(noisy.ids[~new], before[~new])
    for row in range(len(rows)):
        n = int((editable[row] & (before[row] != MASK)).sum())
        assert int(new[row].sum()) == min(n, max(1, round(level * n)))
    first = renoise(batch(before[:1].tolist()), editable[:1], level, generators(1, seed))
    assert torch.equal(first.ids[0], noisy.ids[0])


def test_every_editable_token_is_masked_equally_often() -> None:
    # 1 of 3 in 900 rows: 6 standard errors are 0.094, passed by chance once in 10^8 runs.
    canvases = batch([[4, 5, 6, 7]] * 900)
    editable = torch.tensor([[True, True, False, True]]).expand(900, -1)
    noisy = renoise(canvases, editable, 0.3, generators(900, 1))
    share = (noisy.ids == MASK).double().mean(0)
    assert float(share[2]) == 0
    assert float((share[[0, 1, 3]] - 1 / 3).abs().max()) < 0.094


def test_a_revision_keeps_what_is_not_editable() -> None:
    row = [4, 5, 6, 7, 8, 9]
    editable = torch.tensor([[False, True, True, True, True, False]] * 8)
    noisy = renoise(batch([row] * 8), editable, 0.5, generators(8, 2))
    ids = run(noisy, [2] * 8, Rule(), 3)[-1].ids
    assert not bool((ids == MASK).any())
    changed = ids != torch.tensor(row)
    assert bool(changed.any())
    assert not bool((changed & ~editable).any())
    assert int(changed.sum(1).max()) <= 2


@pytest.mark.parametrize("level", [-0.1, 1.5, math.nan])
def test_levels_outside_0_to_1_are_refused(level: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        renoise(batch([[4]]), torch.ones(1, 1, dtype=torch.bool), level, generators(1, 1))
    with pytest.raises(ConfigError, match="between 0 and 1"):
        token_to_mask(batch([[4]]), Step(torch.tensor([[4]]), torch.zeros(1, 1)), level)


def test_token_to_mask_by_hand() -> None:
    canvases = batch([[MASK, 5, MASK, MASK]])
    logp = torch.tensor([[0.9, 1.0, 0.2, 0.5]], dtype=torch.float64).log()
    finished = Step(torch.tensor([[7, 5, 8, 9]]), logp)
    assert token_to_mask(canvases, finished, 0.4).ids.tolist() == [[7, 5, MASK, 9]]
    assert token_to_mask(canvases, finished, 0.6).ids.tolist() == [[7, 5, MASK, MASK]]
    assert token_to_mask(canvases, finished, 0.0).ids.tolist() == [[7, 5, 8, 9]]


def test_a_correction_writes_only_what_was_in_doubt() -> None:
    canvases = batch([[MASK] * 6] * 4)
    finished = run(canvases, [2] * 4, Rule(temperature=2.0), 1)[-1]
    doubtful = token_to_mask(canvases, finished, 0.3)
    again = run(doubtful, [6] * 4, Rule(temperature=0.0), 1)[-1]
    kept = doubtful.ids != MASK
    assert 0 < int(kept.sum()) < kept.numel()
    assert torch.equal(again.ids[kept], finished.ids[kept])
    assert not bool((again.ids == MASK).any())
