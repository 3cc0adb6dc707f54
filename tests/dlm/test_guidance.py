"""Guidance against hand-computed logits, and what it does to a fill."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fakes.denoising import MASK, VOCABULARY, batch, run
from remask.dlm.guidance import apply_guidance
from remask.dlm.sampler import CommitRule
from remask.errors import ConfigError, NumericsError

INF = float("inf")


def always(values: list[float]) -> Callable[[Tensor], Tensor]:
    row = torch.full((VOCABULARY,), -20.0)
    row[: len(values)] = torch.tensor(values)
    return lambda ids: row.expand(int((ids == MASK).sum()), -1)


def never(ids: Tensor) -> Tensor:
    raise AssertionError("called")


def test_guidance_formula_by_hand() -> None:
    logits = apply_guidance(always([1.0, 2.0, -1.0]), always([0.5, 3.0, -1.0]), 2.0)
    found = logits(torch.tensor([[MASK, 4], [MASK, MASK]]))
    assert found.shape == (3, VOCABULARY)
    assert found[0, :4].tolist() == [2.0, 0.0, -1.0, -20.0]


def test_guidance_of_0_calls_nothing() -> None:
    plain = always([1.0])
    assert apply_guidance(plain, never, 0.0) is plain


def test_negative_guidance_is_refused() -> None:
    for scale in (-0.5, float("nan")):
        with pytest.raises(ConfigError, match="guidance is"):
            apply_guidance(never, never, scale)


def test_impossible_tokens_stay_impossible() -> None:
    logits = apply_guidance(always([-INF, -INF, 1.0, INF]), always([-INF, 0.0, -INF, 0.0]), 1.0)
    assert logits(torch.tensor([[MASK]]))[0, :4].tolist() == [-INF, -INF, INF, INF]
    with pytest.raises(NumericsError, match="infinite"):
        run(batch([[MASK]]), [1], CommitRule(), 1, logits)
    assert run(batch([[MASK]], {2, 3}), [1], CommitRule(), 1, logits)


def test_guidance_prefers_tokens_that_the_traces_add() -> None:
    # Token 5 is probable without traces as well; token 6 only with them.
    known, common = always([0, 0, 0, 0, 0, 3.0, 2.5]), always([0, 0, 0, 0, 0, 3.0, 0.0])
    greedy = CommitRule(temperature=0.0)
    assert run(batch([[MASK]]), [1], greedy, 1, known)[-1].ids.tolist() == [[5]]
    both = apply_guidance(known, common, 1.0)
    assert run(batch([[MASK]]), [1], greedy, 1, both)[-1].ids.tolist() == [[6]]
