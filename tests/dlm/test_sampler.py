"""The sampler on toy logits: what must hold for every canvas, rule and seed."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from remask.dlm.sampler import Canvases, Rule, Step, denoise, quotas, repeats
from remask.errors import NumericsError

MASK = 0
VOCABULARY = 24


def batch(rows: list[list[int]], banned: set[int] | None = None) -> Canvases:
    ids = torch.tensor(rows)
    table = torch.zeros(1, VOCABULARY, dtype=torch.bool)
    table[0, list({MASK} | (banned or set()))] = True
    return Canvases(ids, torch.zeros_like(ids), table, MASK)


def toy(seed: int = 0) -> Callable[[Tensor], Tensor]:
    """Logits that depend on position and on the tokens of the row, as a model's do."""
    table = torch.randn(64, VOCABULARY, generator=torch.Generator().manual_seed(seed))

    def logits(ids: Tensor) -> Tensor:
        rows, columns = (ids == MASK).nonzero(as_tuple=True)
        return table[columns] * 2 + table[ids.sum(1)[rows] % 64]

    return logits


def generators(count: int, seed: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed * 100 + i) for i in range(count)]


def run(
    canvases: Canvases,
    steps: list[int],
    rule: Rule,
    seed: int,
    logits: Callable[[Tensor], Tensor] | None = None,
) -> list[Step]:
    states: Iterator[Step] = denoise(
        canvases, logits or toy(), steps, rule, generators(len(steps), seed)
    )
    return list(states)


ROWS = st.integers(1, 10).flatmap(
    lambda length: st.lists(
        st.lists(st.integers(0, VOCABULARY - 1), min_size=length, max_size=length),
        min_size=1,
        max_size=4,
    )
)
RULES = st.builds(
    Rule,
    temperature=st.sampled_from([0.0, 0.8, 3.0]),
    position_temperature=st.sampled_from([0.0, 0.3]),
    left_bias=st.sampled_from([0.0, 2.0]),
    threshold=st.sampled_from([None, 0.0, 0.5, 0.99]),
    candidates=st.sampled_from([1, 4, 64]),
)


@given(st.integers(0, 300), st.integers(1, 40))
def test_quotas_are_positive_even_and_sum_up(masked: int, steps: int) -> None:
    plan = quotas(masked, steps)
    assert sum(plan) == masked
    assert len(plan) == min(masked, steps)
    assert all(share > 0 for share in plan)
    assert max(plan, default=0) - min(plan, default=0) <= 1


def test_quotas_need_a_step() -> None:
    with pytest.raises(ValueError, match="steps"):
        quotas(4, 0)


@settings(deadline=None)
@given(ROWS, RULES, st.integers(1, 12), st.integers(0, 5), st.sets(st.integers(1, 20), max_size=19))
def test_fills_every_mask_and_nothing_else(
    rows: list[list[int]], rule: Rule, steps: int, seed: int, banned: set[int]
) -> None:
    canvases = batch(rows, banned)
    before = canvases.ids.clone()
    states = run(canvases, [steps] * len(rows), rule, seed)
    assert torch.equal(canvases.ids, before)
    masked = before == MASK
    if not bool(masked.any()):
        assert states == []
        return
    assert len(states) <= steps
    last = states[-1]
    assert not bool((last.ids == MASK).any())
    assert torch.equal(last.ids[~masked], before[~masked])
    assert not banned & set(last.ids[masked].tolist())
    assert bool((last.logp[masked] <= 0).all())
    assert bool((last.logp[~masked] == 0).all())
    for old, new in zip([before, *[s.ids for s in states]], states, strict=False):
        written = old != MASK
        assert torch.equal(new.ids[written], old[written])


@settings(deadline=None)
@given(ROWS, st.integers(1, 12), st.integers(0, 5))
def test_each_step_commits_the_quota_of_its_row(
    rows: list[list[int]], steps: int, seed: int
) -> None:
    canvases = batch(rows)
    left = (canvases.ids == MASK).sum(1)
    counts = [left] + [
        (s.ids == MASK).sum(1) for s in run(canvases, [steps] * len(rows), Rule(), seed)
    ]
    for row in range(len(rows)):
        drops = [int(a[row] - b[row]) for a, b in pairwise(counts)]
        plan = quotas(int(left[row]), steps)
        assert drops == plan + [0] * (len(drops) - len(plan))


@settings(deadline=None)
@given(ROWS, RULES, st.integers(1, 6), st.integers(0, 5))
def test_same_seed_same_tokens(rows: list[list[int]], rule: Rule, steps: int, seed: int) -> None:
    first = run(batch(rows), [steps] * len(rows), rule, seed)
    again = run(batch(rows), [steps] * len(rows), rule, seed)
    assert [s.ids.tolist() for s in first] == [s.ids.tolist() for s in again]


@settings(deadline=None)
@given(ROWS, RULES, st.integers(1, 6))
def test_a_row_does_not_depend_on_the_others(rows: list[list[int]], rule: Rule, steps: int) -> None:
    together = run(batch(rows), [steps] * len(rows), rule, 3)
    alone = run(batch(rows[:1]), [steps], rule, 3)
    if alone:
        assert together[-1].ids[0].tolist() == alone[-1].ids[0].tolist()


def test_seeds_differ() -> None:
    fills = {
        tuple(run(batch([[0] * 10]), [5], Rule(), seed)[-1].ids[0].tolist()) for seed in range(8)
    }
    assert len(fills) > 4


def test_temperature_zero_takes_the_most_probable_token() -> None:
    wanted = torch.tensor([[3, 7, 5, 9]])
    logits = torch.nn.functional.one_hot(wanted[0], VOCABULARY).float() * 5

    def at_masks(ids: Tensor) -> Tensor:
        return logits[(ids == MASK).nonzero(as_tuple=True)[1]]

    states = run(batch([[0, 0, 0, 0]]), [4], Rule(temperature=0.0), 1, at_masks)
    assert torch.equal(states[-1].ids, wanted)


def test_samples_follow_the_distribution() -> None:
    # 3 in 4 for one token, 1 in 4 for the other, in 1,200 rows: 6 standard errors are 0.075.
    logits = torch.full((VOCABULARY,), float("-inf"))
    logits[5], logits[6] = torch.tensor([0.75, 0.25]).log()
    rows = [[0]] * 1200
    rule = Rule(temperature=1.0)
    state = run(batch(rows), [1] * 1200, rule, 1, lambda ids: logits.expand(len(ids), -1))[-1]
    assert abs(float((state.ids == 5).float().mean()) - 0.75) < 0.075
    assert torch.allclose(state.logp[state.ids == 5].exp(), torch.tensor(0.75).double())


def test_threshold_commits_sure_tokens_at_once() -> None:
    def sure(ids: Tensor) -> Tensor:
        columns = (ids == MASK).nonzero(as_tuple=True)[1]
        return torch.nn.functional.one_hot(columns + 1, VOCABULARY).float() * 50

    assert len(run(batch([[0] * 8]), [8], Rule(), 1, sure)) == 8
    assert len(run(batch([[0] * 8]), [8], Rule(threshold=0.9), 1, sure)) == 1


def test_left_bias_writes_from_the_left() -> None:
    rule = Rule(left_bias=1e6)
    for step, state in enumerate(run(batch([[4, 0, 0, 0, 0, 6]]), [4], rule, 2), 1):
        assert bool((state.ids[0, 1 : 1 + step] != MASK).all())
        assert bool((state.ids[0, 1 + step : 5] == MASK).all())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("everywhere", [True, False])
def test_impossible_logits_are_a_typed_error(bad: float, everywhere: bool) -> None:
    def broken(ids: Tensor) -> Tensor:
        logits = toy()(ids)
        logits[slice(None) if everywhere else -1] = bad
        return logits

    with pytest.raises(NumericsError):
        run(batch([[0, 0, 3], [0, 1, 2]]), [3, 3], Rule(), 1, broken)


def test_one_nan_among_finite_logits_is_an_error() -> None:
    def broken(ids: Tensor) -> Tensor:
        logits = toy()(ids)
        logits[0, 5] = float("nan")
        return logits

    with pytest.raises(NumericsError):
        run(batch([[0, 0]]), [2], Rule(), 1, broken)


def test_banning_everything_is_an_error_not_a_loop() -> None:
    with pytest.raises(NumericsError):
        run(batch([[0, 0]], set(range(VOCABULARY))), [2], Rule(), 1)


def test_bans_hold_where_their_kind_says() -> None:
    ids = torch.zeros(6, 5, dtype=torch.long)
    kinds = torch.tensor([[1, 0, 0, 0, 1]]).expand(6, -1)
    banned = torch.zeros(2, VOCABULARY, dtype=torch.bool)
    banned[:, MASK] = True
    banned[1, 1:20] = True
    state = run(Canvases(ids, kinds, banned, MASK), [5] * 6, Rule(temperature=5.0), 1)[-1]
    assert bool((state.ids[:, [0, 4]] >= 20).all())
    assert bool((state.ids[:, 1:4] < 20).any())


@pytest.mark.parametrize(
    ("ids", "position", "expected"),
    [
        ([5, 0, 7], 1, {5, 7}),
        ([0, 0, 7], 1, {7}),
        ([1, 2, 1, 0], 3, {1, 2}),
        ([0, 2, 1, 2], 0, {2, 1}),
        ([1, 2, 3, 1, 2, 0], 5, {2, 3}),
        ([1, 2, 3, 4, 1, 2, 3, 0], 7, {3, 4}),
        ([1, 2, 0, 4, 1, 0], 5, {1}),
        ([0], 0, set()),
    ],
)
def test_what_would_repeat(ids: list[int], position: int, expected: set[int]) -> None:
    assert repeats(ids, position, MASK) == expected


def repeated(ids: list[int], columns: set[int]) -> bool:
    """Whether a run of 1 to 4 tokens stands twice in a row and touches `columns`."""
    return any(
        ids[i : i + n] == ids[i + n : i + 2 * n] and columns & set(range(i, i + 2 * n))
        for n in range(1, 5)
        for i in range(len(ids) - 2 * n + 1)
    )


@settings(deadline=None)
@given(st.lists(st.sampled_from([0, 0, 3, 4]), min_size=2, max_size=14), st.integers(0, 5))
def test_no_fill_repeats_its_neighbourhood(row: list[int], seed: int) -> None:
    columns = {i for i, token in enumerate(row) if token == MASK}
    states = run(batch([row]), [max(1, len(columns) // 2)], Rule(), seed)
    if states:
        assert not repeated(states[-1].ids[0].tolist(), columns)


def test_repeatable_tokens_may_repeat() -> None:
    only = torch.full((VOCABULARY,), float("-inf"))
    only[9], only[8] = 10.0, 0.0

    def logits(ids: Tensor) -> Tensor:
        return only.expand(int((ids == MASK).sum()), -1)

    strict = batch([[0, 0]])
    loose = Canvases(strict.ids, strict.kinds, strict.banned, MASK, {9})
    rule = Rule(temperature=0.0)
    assert sorted(run(strict, [2], rule, 1, logits)[-1].ids[0].tolist()) == [8, 9]
    assert run(loose, [2], rule, 1, logits)[-1].ids[0].tolist() == [9, 9]


def test_a_repeat_is_kept_where_nothing_else_is_possible() -> None:
    only = torch.full((VOCABULARY,), float("-inf"))
    only[9] = 0.0
    state = run(batch([[0, 0]]), [2], Rule(), 1, lambda ids: only.expand(int((ids == 0).sum()), -1))
    assert state[-1].ids[0].tolist() == [9, 9]
