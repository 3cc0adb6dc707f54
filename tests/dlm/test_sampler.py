"""The sampler on toy logits: properties for every canvas, rule and seed."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from torch import Tensor

from fakes import ROOT
from fakes.denoising import MASK, VOCABULARY, batch, generators, run, toy
from remask.dlm.sampler import CanvasBatch, CommitRule, denoise, find_repeats, plan_quotas, split_quotas
from remask.dlm.schedule import COMMITS, ORDERS
from remask.errors import ConfigError, NumericsError

ROWS = st.integers(1, 10).flatmap(
    lambda length: st.lists(
        st.lists(st.integers(0, VOCABULARY - 1), min_size=length, max_size=length), min_size=1, max_size=4
    )
)
RULES = st.builds(
    CommitRule,
    temperature=st.sampled_from([0.0, 0.8, 3.0]),
    position_temperature=st.sampled_from([0.0, 0.3]),
    left_bias=st.sampled_from([0.0, 2.0]),
    threshold=st.sampled_from([None, 0.0, 0.5, 0.99]),
    candidates=st.sampled_from([1, 4, 64]),
)


@given(st.integers(0, 300), st.integers(1, 40))
def test_quotas_are_positive_even_and_sum_up(masked: int, steps: int) -> None:
    shares = split_quotas(masked, steps)
    assert sum(shares) == masked
    assert len(shares) == min(masked, steps)
    assert all(share > 0 for share in shares)
    assert max(shares, default=0) - min(shares, default=0) <= 1


def test_quotas_need_a_step() -> None:
    with pytest.raises(ValueError, match="steps"):
        split_quotas(4, 0)


@given(st.lists(st.integers(0, 40), max_size=6), st.integers(1, 60))
def test_plan_finishes_each_block_at_the_end_of_a_step(masked: list[int], steps: int) -> None:
    shares = plan_quotas(masked, steps)
    assert all(share > 0 for share in shares)
    blocks = sum(1 for n in masked if n)
    assert len(shares) == min(sum(masked), max(steps, blocks))
    # Every block ends with a step.
    sums, ends = {0}, {0}
    for share in shares:
        sums.add(max(sums) + share)
    for n in masked:
        ends.add(max(ends) + n)
    assert ends <= sums


def test_plan_quotas_by_hand() -> None:
    assert plan_quotas([8], 3) == split_quotas(8, 3) == [2, 3, 3]
    assert plan_quotas([3, 0, 5], 4) == [3, 1, 2, 2]  # two more steps, divided by 2 and 4 remaining masks
    assert plan_quotas([3, 5], 1) == [3, 5]  # a step for each block, although only one was asked for
    assert plan_quotas([2, 1], None) == [1, 1, 1]
    with pytest.raises(ValueError, match="steps"):
        plan_quotas([3], 0)


@settings(deadline=None)
@given(ROWS, RULES, st.integers(1, 12), st.integers(0, 5), st.sets(st.integers(1, 20), max_size=19))
def test_denoise_fills_every_mask_and_nothing_else(
    rows: list[list[int]], rule: CommitRule, steps: int, seed: int, banned: set[int]
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
def test_step_commits_the_quota_of_its_row(rows: list[list[int]], steps: int, seed: int) -> None:
    canvases = batch(rows)
    left = (canvases.ids == MASK).sum(1)
    counts = [left] + [(s.ids == MASK).sum(1) for s in run(canvases, [steps] * len(rows), CommitRule(), seed)]
    for row in range(len(rows)):
        drops = [int(a[row] - b[row]) for a, b in pairwise(counts)]
        shares = split_quotas(int(left[row]), steps)
        assert drops == shares + [0] * (len(drops) - len(shares))


@settings(deadline=None)
@given(ROWS, RULES, st.integers(1, 6), st.integers(0, 5))
def test_equal_seeds_give_equal_tokens(
    rows: list[list[int]], rule: CommitRule, steps: int, seed: int
) -> None:
    first = run(batch(rows), [steps] * len(rows), rule, seed)
    again = run(batch(rows), [steps] * len(rows), rule, seed)
    assert [s.ids.tolist() for s in first] == [s.ids.tolist() for s in again]


@settings(deadline=None)
@given(ROWS, RULES, st.integers(1, 6))
def test_row_is_independent_of_the_others(rows: list[list[int]], rule: CommitRule, steps: int) -> None:
    together = run(batch(rows), [steps] * len(rows), rule, 3)
    alone = run(batch(rows[:1]), [steps], rule, 3)
    if alone:
        assert together[-1].ids[0].tolist() == alone[-1].ids[0].tolist()


@pytest.mark.parametrize("commit", COMMITS)
@pytest.mark.parametrize("order", ORDERS)
@settings(deadline=None, max_examples=12)
@given(
    rows=ROWS,
    block=st.sampled_from([None, 1, 3]),
    top_p=st.sampled_from([1.0, 0.4]),
    temperature=st.sampled_from([0.0, 1.0]),
    left_bias=st.sampled_from([0.0, 4.0]),
    steps=st.sampled_from([None, 1, 4]),
    banned=st.sets(st.integers(1, 20), max_size=19),
)
def test_all_combinations_of_order_and_commit(
    order: str,
    commit: str,
    rows: list[list[int]],
    block: int | None,
    top_p: float,
    temperature: float,
    left_bias: float,
    steps: int | None,
    banned: set[int],
) -> None:
    rule = CommitRule(
        temperature,
        left_bias=left_bias,
        threshold=0.4,
        order=order,
        commit=commit,
        factor=1.5,
        entropy_bound=1.0,
        block=block,
        top_p=top_p,
    )
    canvases = batch(rows, banned)
    states = run(canvases, [steps] * len(rows), rule, 7)
    masked = canvases.ids == MASK
    last = states[-1].ids if states else canvases.ids
    assert not bool((last == MASK).any())
    assert torch.equal(last[~masked], canvases.ids[~masked])
    assert not banned & set(last[masked].tolist())
    check_commits(rows, [state.ids for state in states], block or len(rows[0]), steps, commit)
    again = run(canvases, [steps] * len(rows), rule, 7)
    assert [s.ids.tolist() for s in states] == [s.ids.tolist() for s in again]
    alone = run(batch(rows[:1], banned), [steps], rule, 7)
    for together, single in zip(states, alone, strict=False):
        assert torch.equal(together.ids[0], single.ids[0])
        assert torch.equal(together.logp[0], single.logp[0])


def check_commits(
    rows: list[list[int]], states: list[Tensor], block: int, steps: int | None, commit: str
) -> None:
    """Check that rows write in their first open block only, and at least the quota of the plan."""
    for row, start in enumerate(rows):
        ids = [start, *[state[row].tolist() for state in states]]
        left = [line.count(MASK) for line in ids]
        starts = range(0, len(start), block)
        shares = plan_quotas([start[at : at + block].count(MASK) for at in starts], steps)
        for before, after in pairwise(ids):
            written = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
            assert {i // block for i in written} <= {before.index(MASK) // block if written else 0}
        for step in range(len(states)):
            assert left[step + 1] <= sum(shares[step + 1 :])
            assert left[step + 1] < left[step] or left[step] == 0
            if commit == "steps":
                assert left[step + 1] == sum(shares[step + 1 :])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"order": "best"}, "order 'best' is unknown; use one of confidence, entropy, margin, ran"),
        ({"commit": "all"}, "commit 'all' is unknown; use one of steps, threshold, factor, entrop"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": float("nan")}, "top_p is nan"),
        ({"threshold": 1.1}, "threshold is 1.1"),
        ({"block": 0}, "block is 0"),
        ({"candidates": 0}, "candidates is 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"entropy_bound": float("nan")}, "entropy_bound is nan"),
    ],
)
def test_bad_rules_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CommitRule(**values)


def test_docs_name_every_algorithm() -> None:
    page = (ROOT / "docs" / "reference" / "sampling.md").read_text()
    for name in [*ORDERS, *COMMITS]:
        assert f"| `{name}` |" in page


def test_block_is_finished_before_the_next_begins() -> None:
    rule = CommitRule(block=4, left_bias=0.0)
    row = [0, 0, 5, 0, 0, 0, 6, 0]
    masks = [[i for i in range(8) if s.ids[0, i] == MASK] for s in run(batch([row]), [4], rule, 1)]
    # Two steps for each block of three masks.
    assert [len(left) for left in masks] == [5, 3, 2, 0]
    assert masks[1] == [4, 5, 7]


def test_blocks_read_the_logits_of_their_own_masks() -> None:
    wanted = torch.tensor([[3, 7, 5, 9], [4, 8, 6, 10]])
    table = torch.nn.functional.one_hot(wanted, VOCABULARY).float() * 50
    rule = CommitRule(temperature=0.0, block=2)
    states = run(batch([[0, 0, 0, 0], [0, 8, 0, 0]]), [4, 3], rule, 1, lambda ids: table[ids == 0])
    assert torch.equal(states[-1].ids, wanted)


@pytest.mark.parametrize(("order", "first"), [("confidence", 0), ("margin", 2), ("entropy", 4)])
def test_orders_use_the_whole_distribution_after_bans(order: str, first: int) -> None:
    logits = torch.full((5, VOCABULARY), float("-inf"))
    logits[0, 1:4] = torch.tensor([0.53, 0.455, 0.015]).log()  # entropy 0.76
    logits[2, 1:6] = torch.tensor([0.52, 0.12, 0.12, 0.12, 0.12]).log()  # 1.36
    # 0.69, after token 20 is banned.
    logits[4, 1:3] = torch.tensor([0.5, 0.5]).log()
    logits[4, 20] = 5.0
    rule = CommitRule(0.0, 0.0, left_bias=0.0, order=order)
    masks = batch([[0, 7, 0, 7, 0]], {20})
    states = run(masks, [3], rule, 1, lambda ids: logits[(ids == MASK)[0]])
    assert (states[0].ids != masks.ids).nonzero().tolist() == [[0, first]]


@pytest.mark.parametrize("better", [0, 1])
def test_most_probable_draw_is_written_first(better: int) -> None:
    # Token 9 is the best for both masks; the second to be written must not repeat it.
    logits = torch.full((2, VOCABULARY), float("-inf"))
    logits[:, 8] = 0.0
    logits[:, 9] = 1.0
    logits[better, 9] = 2.0
    rule = CommitRule(0.0, 0.0, left_bias=0.0)
    ids = run(batch([[0, 0]]), [1], rule, 1, lambda ids: logits)[-1].ids[0].tolist()
    assert ids[better] == 9
    assert ids[1 - better] == 8


def test_leftmost_writes_the_first_mask_of_each_run() -> None:
    rule = CommitRule(left_bias=0.0, position_temperature=0.0, order="leftmost")
    states = run(batch([[0, 0, 0, 5, 0, 0, 6]]), [3], rule, 1)
    left = [[i for i in range(7) if s.ids[0, i] == MASK] for s in states]
    # The more probable of the two first masks, then the first mask of both remaining runs.
    after = {(1, 2, 4, 5): [2, 5], (0, 1, 2, 5): [1, 2]}
    assert left[1:] == [after[tuple(left[0])], []]


def test_random_order_starts_at_every_mask_equally_often() -> None:
    # Each of 3 masks first in a third of 900 rows, whatever the confidence: 6 standard errors are
    # 0.094, passed by chance once in 10^8 runs.
    rule = CommitRule(left_bias=0.0, position_temperature=0.0, order="random")
    rows = [[0, 0, 0]] * 900
    first = next(denoise(batch(rows), toy(), [3] * 900, rule, generators(900, 1)))
    share = (first.ids != MASK).double().mean(0)
    assert float(share.sum()) == pytest.approx(1)
    assert float((share - 1 / 3).abs().max()) < 0.094


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_at_their_temperature(temperature: float) -> None:
    # Pearson's chi-square of 2,000 draws; passed by chance once in 10^8 runs.
    logits = torch.tensor([1.0, 0.0, -0.5, -2.0])
    table = torch.zeros(1, 4, dtype=torch.bool)
    ids = torch.full((4, 500), 4)
    canvases = CanvasBatch(ids, torch.zeros_like(ids), table, 4, range(4))
    rule = CommitRule(temperature=temperature)
    step = run(canvases, [1] * 4, rule, 5, lambda ids: logits.expand(ids.numel(), -1))[-1]
    expected = (logits.double() / temperature).softmax(0) * 2000
    observed = step.ids.flatten().bincount(minlength=4)
    statistic = float(((observed - expected) ** 2 / expected).sum())
    assert statistic < chi2.isf(1e-8, df=3)
    assert torch.allclose(step.logp, logits.double().log_softmax(0)[step.ids])


@pytest.mark.parametrize(
    ("temperature", "top_p", "nucleus"),
    [
        (1.0, 0.6, {1, 2}),  # 0.5 alone is too little
        (1.0, 0.4, {1}),
        (0.5, 0.6, {1}),  # squared and normed: 0.68, 0.25, 0.06, 0.01
        (2.0, 0.7, {1, 2, 3}),  # roots, normed: 0.38, 0.29, 0.21, 0.12
        (1.0, 1.0, {1, 2, 3, 4}),
    ],
)
def test_draws_are_in_the_nucleus(temperature: float, top_p: float, nucleus: set[int]) -> None:
    # The rarest token of a nucleus is missed in 400 draws with probability below 10^-8.
    logits = torch.full((VOCABULARY,), float("-inf"))
    logits[1:5] = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    rule = CommitRule(temperature=temperature, top_p=top_p)
    state = run(batch([[0]] * 400), [1] * 400, rule, 1, lambda ids: logits.expand(len(ids), -1))[-1]
    assert set(state.ids.flatten().tolist()) == nucleus


def test_refused_nucleus_falls_back_to_other_tokens() -> None:
    logits = torch.full((VOCABULARY,), float("-inf"))
    logits[1:3] = torch.tensor([0.9, 0.1]).log()
    rule = CommitRule(temperature=1.0, top_p=0.5)
    state = run(batch([[1, 0]]), [1], rule, 1, lambda ids: logits[None])[-1]
    assert state.ids.tolist() == [[1, 2]]


def test_different_seeds_give_different_tokens() -> None:
    fills = {tuple(run(batch([[0] * 10]), [5], CommitRule(), seed)[-1].ids[0].tolist()) for seed in range(8)}
    assert len(fills) > 4


def test_temperature_zero_takes_the_most_probable_token() -> None:
    wanted = torch.tensor([[3, 7, 5, 9]])
    logits = torch.nn.functional.one_hot(wanted[0], VOCABULARY).float() * 5

    def at_masks(ids: Tensor) -> Tensor:
        return logits[(ids == MASK).nonzero(as_tuple=True)[1]]

    states = run(batch([[0, 0, 0, 0]]), [4], CommitRule(temperature=0.0), 1, at_masks)
    assert torch.equal(states[-1].ids, wanted)


def test_samples_follow_the_distribution() -> None:
    # 3 in 4 for one token, 1 in 4 for the other, in 1,200 rows: 6 standard errors are 0.075.
    logits = torch.full((VOCABULARY,), float("-inf"))
    logits[5], logits[6] = torch.tensor([0.75, 0.25]).log()
    rows = [[0]] * 1200
    rule = CommitRule(temperature=1.0)
    state = run(batch(rows), [1] * 1200, rule, 1, lambda ids: logits.expand(len(ids), -1))[-1]
    assert abs(float((state.ids == 5).float().mean()) - 0.75) < 0.075
    assert torch.allclose(state.logp[state.ids == 5].exp(), torch.tensor(0.75).double())


def test_threshold_commits_probable_tokens_at_once() -> None:
    def certain(ids: Tensor) -> Tensor:
        columns = (ids == MASK).nonzero(as_tuple=True)[1]
        return torch.nn.functional.one_hot(columns + 1, VOCABULARY).float() * 50

    assert len(run(batch([[0] * 8]), [8], CommitRule(), 1, certain)) == 8
    assert len(run(batch([[0] * 8]), [8], CommitRule(threshold=0.9), 1, certain)) == 1


def test_left_bias_writes_from_the_left() -> None:
    rule = CommitRule(left_bias=1e6)
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
        run(batch([[0, 0, 3], [0, 1, 2]]), [3, 3], CommitRule(), 1, broken)


@pytest.mark.parametrize("commit", COMMITS)
@pytest.mark.parametrize("order", ORDERS)
def test_row_of_nan_is_an_error_under_every_rule(order: str, commit: str) -> None:
    def broken(ids: Tensor) -> Tensor:
        logits = toy()(ids)
        logits[-1] = float("nan")
        return logits

    rule = CommitRule(order=order, commit=commit, threshold=0.9)
    with pytest.raises(NumericsError, match="NaN"):
        run(batch([[3, 0], [0, 2]]), [1, 1], rule, 1, broken)


def test_one_nan_among_finite_logits_is_an_error() -> None:
    def broken(ids: Tensor) -> Tensor:
        logits = toy()(ids)
        logits[0, 5] = float("nan")
        return logits

    with pytest.raises(NumericsError):
        run(batch([[0, 0]]), [2], CommitRule(), 1, broken)


def test_banning_everything_is_an_error_not_a_loop() -> None:
    with pytest.raises(NumericsError):
        run(batch([[0, 0]], set(range(VOCABULARY))), [2], CommitRule(), 1)


def test_bans_apply_by_constraint() -> None:
    ids = torch.zeros(6, 5, dtype=torch.long)
    constraints = torch.tensor([[1, 0, 0, 0, 1]]).expand(6, -1)
    banned = torch.zeros(2, VOCABULARY, dtype=torch.bool)
    banned[:, MASK] = True
    banned[1, 1:20] = True
    state = run(CanvasBatch(ids, constraints, banned, MASK), [5] * 6, CommitRule(temperature=5.0), 1)[-1]
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
def test_find_repeats_by_hand(ids: list[int], position: int, expected: set[int]) -> None:
    assert find_repeats(ids, position, MASK) == expected


def repeated(ids: list[int], columns: set[int]) -> bool:
    """Whether a run of 1 to 4 tokens occurs twice in a row and touches `columns`."""
    return any(
        ids[i : i + n] == ids[i + n : i + 2 * n] and columns & set(range(i, i + 2 * n))
        for n in range(1, 5)
        for i in range(len(ids) - 2 * n + 1)
    )


@settings(deadline=None)
@given(st.lists(st.sampled_from([0, 0, 3, 4]), min_size=2, max_size=14), st.integers(0, 5))
def test_fills_do_not_repeat_their_neighbourhood(row: list[int], seed: int) -> None:
    columns = {i for i, token in enumerate(row) if token == MASK}
    states = run(batch([row]), [max(1, len(columns) // 2)], CommitRule(), seed)
    if states:
        assert not repeated(states[-1].ids[0].tolist(), columns)


def test_repeatable_tokens_may_repeat() -> None:
    only = torch.full((VOCABULARY,), float("-inf"))
    only[9], only[8] = 10.0, 0.0

    def logits(ids: Tensor) -> Tensor:
        return only.expand(int((ids == MASK).sum()), -1)

    strict = batch([[0, 0]])
    loose = CanvasBatch(strict.ids, strict.constraints, strict.banned, MASK, {9})
    rule = CommitRule(temperature=0.0)
    assert sorted(run(strict, [2], rule, 1, logits)[-1].ids[0].tolist()) == [8, 9]
    assert run(loose, [2], rule, 1, logits)[-1].ids[0].tolist() == [9, 9]


def test_repeat_is_kept_if_nothing_else_is_possible() -> None:
    only = torch.full((VOCABULARY,), float("-inf"))
    only[9] = 0.0
    state = run(batch([[0, 0]]), [2], CommitRule(), 1, lambda ids: only.expand(int((ids == 0).sum()), -1))
    assert state[-1].ids[0].tolist() == [9, 9]
