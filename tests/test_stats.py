"""Statistics compared with independent implementations, published numbers and exact probabilities.

Simulations use fixed seeds. Each docstring states the probability that another seed would fail.
"""

import bisect
import dataclasses
import json
import math
import os
import subprocess
import sys
import warnings
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from remask import stats as remask_stats
from remask.stats import (
    MIN_SEED_MARGIN,
    Z95,
    accepts,
    compare,
    count_rows_needed,
    estimate,
    find_power,
    improves,
    measure_spread,
    student_interval,
    tango_interval,
    wilson_interval,
)

with warnings.catch_warnings():  # ignore warnings of importing scipy
    warnings.simplefilter("ignore")
    from scipy import stats
    from scipy.optimize import minimize_scalar

MANY = settings(max_examples=200, deadline=None, derandomize=True, database=None)
Z90 = 1.6448536269514722
CHI2_95 = Z95**2  # 3.841


@st.composite
def tables(draw: st.DrawFn, largest: int = 2000) -> tuple[int, int, int]:
    """Number of pairs, wins, losses."""
    n = draw(st.integers(1, largest))
    wins = draw(st.integers(0, n))
    return n, wins, draw(st.integers(0, n - wins))


def rows_of(n: int, wins: int, losses: int) -> tuple[list[float], list[float]]:
    """Paired 0/1 scores with these counts; the ties are half 0-0 and half 1-1."""
    ties = [float(i % 2) for i in range(n - wins - losses)]
    return [0.0] * wins + [1.0] * losses + ties, [1.0] * wins + [0.0] * losses + ties


# ---- Tango -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "wins", "losses", "z", "low", "high"),
    [
        # Bentur et al. 2009, Cavo et al. 2012, as in Fagerland, Lydersen & Laake 2014 and in the
        # tests of the R packages ratesci and contingencytables
        (21, 1, 7, Z95, -0.517, -0.026),
        (161, 6, 16, Z95, -0.1240, -0.0054),
        # R: PropCIs::scoreci.mp(25, 28, 618, 0.90), which estimates (28 - 25) / 618
        (618, 28, 25, Z90, -0.0148, 0.0247),
    ],
)
def test_tango_published(n: int, wins: int, losses: int, z: float, low: float, high: float) -> None:
    interval = tango_interval(n, wins, losses, z)
    digits = 3 if n == 21 else 4
    assert (round(interval.low, digits), round(interval.high, digits)) == (low, high)


def score_statistic(d: float, n: int, wins: int, losses: int) -> float:
    """Rao's statistic in another way: Pearson's chi-squared at the restricted maximum likelihood
    fit, which is found numerically instead of by Tango's closed form."""
    observed = np.array([wins, losses, n - wins - losses])

    def cells(q: float) -> np.ndarray:
        return np.array([q + d, q, 1 - 2 * q - d])

    def minus_log_likelihood(q: float) -> float:
        p = cells(q)[observed > 0]
        return math.inf if (p <= 0).any() else -float(observed[observed > 0] @ np.log(p))

    fit = minimize_scalar(
        minus_log_likelihood, bounds=(max(0.0, -d), (1 - d) / 2), method="bounded", options={"xatol": 1e-12}
    )
    expected = n * cells(fit.x)
    keep = expected > 1e-7 * n  # a cell fitted as 0 is observed as 0 too
    return float((((observed - expected) ** 2)[keep] / expected[keep]).sum())


@pytest.mark.parametrize(
    ("n", "wins", "losses"),
    [(21, 1, 7), (161, 16, 6), (100, 10, 10), (12, 3, 8), (50, 0, 4), (7, 7, 0), (9, 0, 9), (5, 0, 0)],
)
def test_tango_inverts_the_score_test(n: int, wins: int, losses: int) -> None:
    """On a grid, and just inside and outside each limit, d is in the interval iff not rejected."""
    interval = tango_interval(n, wins, losses)
    near = [limit + step for limit in (interval.low, interval.high) for step in (-1e-4, 1e-4)]
    for d in [*np.linspace(-0.987, 0.987, 64), *(x for x in near if abs(x) < 1)]:
        inside = interval.low <= d <= interval.high
        assert inside == (score_statistic(float(d), n, wins, losses) <= CHI2_95), d


@MANY
@given(tables())
def test_tango_at_zero_is_mcnemar(table: tuple[int, int, int]) -> None:
    n, wins, losses = table
    differing = wins + losses
    mcnemar = (wins - losses) ** 2 / differing if differing else 0.0
    assume(abs(mcnemar - CHI2_95) > 1e-9)
    interval = tango_interval(n, wins, losses)
    assert (not interval.low <= 0 <= interval.high) == (mcnemar > CHI2_95)


@MANY
@given(tables(largest=10**6))
def test_tango_is_mirrored_and_holds_the_estimate(table: tuple[int, int, int]) -> None:
    n, wins, losses = table
    interval, mirrored = tango_interval(n, wins, losses), tango_interval(n, losses, wins)
    assert (interval.low, interval.high) == (-mirrored.high, -mirrored.low)
    assert -1 <= interval.low <= (wins - losses) / n <= interval.high <= 1
    assert interval.low < interval.high


@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_tango_edges_in_closed_form(n: int) -> None:
    """Derived by hand: without a discordant pair the limits are +-z^2 / (n + z^2); if all pairs are
    wins, they are (n - z^2) / (n + z^2) and 1."""
    none, all_wins = tango_interval(n, 0, 0), tango_interval(n, n, 0)
    assert none.high == -none.low == pytest.approx(CHI2_95 / (n + CHI2_95), abs=1e-12)
    assert all_wins.low == pytest.approx((n - CHI2_95) / (n + CHI2_95), abs=1e-12)
    assert all_wins.high == 1.0


@pytest.mark.parametrize("counts", [(0, 0, 0), (5, -1, 0), (5, 0, -1), (5, 3, 3)])
def test_tango_refuses_impossible_counts(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="impossible counts"):
        tango_interval(*counts)


def test_tango_coverage_exact_at_forty_pairs() -> None:
    """Exact: all 861 tables are enumerated. Calculated 0.9474."""
    n, p = 40, (0.15, 0.10, 0.75)
    covered = 0.0
    for wins in range(n + 1):
        for losses in range(n + 1 - wins):
            interval = tango_interval(n, wins, losses)
            if interval.low <= p[0] - p[1] <= interval.high:
                covered += stats.multinomial.pmf([wins, losses, n - wins - losses], n, p)
    assert covered == pytest.approx(0.9474, abs=1e-4)


@pytest.mark.parametrize(
    ("n", "p_win", "p_loss"), [(100, 0.15, 0.10), (100, 0.25, 0.05), (300, 0.10, 0.05), (300, 0.05, 0.05)]
)
def test_tango_coverage_simulated(n: int, p_win: float, p_loss: float) -> None:
    """False alarm: 3e-5, 4e-5, 4e-5 and 2e-4 (3e-4 together), from the exact coverage 0.9520,
    0.9500, 0.9500, 0.9481 (all tables enumerated) and the binomial tails of 2000 draws."""
    rng = np.random.default_rng([20240607, n, round(100 * p_win)])
    draws = rng.multinomial(n, [p_win, p_loss, 1 - p_win - p_loss], size=2000)  # (2000, 3)
    tallies, counts = np.unique(draws[:, :2], axis=0, return_counts=True)
    covered = 0
    for (wins, losses), count in zip(tallies.tolist(), counts.tolist(), strict=True):
        interval = tango_interval(n, wins, losses)
        covered += count * (interval.low <= p_win - p_loss <= interval.high)
    assert 0.93 <= covered / 2000 <= 0.97


# ---- Wilson and t ----------------------------------------------------------------------------


@MANY
@given(st.integers(1, 5000), st.data())
def test_wilson_agrees_with_scipy(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    interval = wilson_interval(n, k)
    assert interval.low == pytest.approx(expected.low, abs=1e-12)
    assert interval.high == pytest.approx(expected.high, abs=1e-12)
    assert 0 <= interval.low <= k / n <= interval.high <= 1


@pytest.mark.parametrize("counts", [(0, 0), (3, 4), (3, -1)])
def test_wilson_refuses_impossible_counts(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="impossible counts"):
        wilson_interval(*counts)


def test_student_interval_needs_two_values() -> None:
    with pytest.raises(ValueError, match="not 1"):
        student_interval([0.5])


@pytest.mark.parametrize("n", [2, 3, 10, 57, 400])
def test_student_interval_agrees_with_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    before, after = rng.uniform(size=n).tolist(), rng.uniform(0.1, 1.2, size=n).tolist()
    paired = stats.ttest_rel(after, before).confidence_interval(0.95)
    single = stats.ttest_1samp(after, 0).confidence_interval(0.95)
    comparison, one = compare(before, after), estimate(after)
    assert comparison.method == "paired t"
    assert (comparison.low, comparison.high) == pytest.approx((paired.low, paired.high), rel=1e-9)
    assert (one.low, one.high) == pytest.approx((single.low, single.high), rel=1e-9)
    assert one.mean == pytest.approx(float(np.mean(after)))


# ---- estimate --------------------------------------------------------------------------------


def test_estimate_of_right_and_wrong_is_wilson() -> None:
    result = estimate([1, 0, 1, True])
    interval = wilson_interval(4, 3)
    assert (result.n, result.mean) == (4, 0.75)
    assert (result.low, result.high) == (interval.low, interval.high)


@pytest.mark.parametrize(("value", "low", "high"), [(0.4, 0.0, 1.0), (3.0, 0.0, 3.0), (-2.0, -2.0, 1.0)])
def test_estimate_of_one_real_value_is_the_whole_scale(value: float, low: float, high: float) -> None:
    result = estimate([value])
    assert (result.n, result.mean, result.low, result.high) == (1, value, low, high)


# ---- compare ---------------------------------------------------------------------------------


def test_compare_reports_all_figures() -> None:
    result = compare(*rows_of(100, 20, 5))
    interval = tango_interval(100, 20, 5)
    assert (result.n, result.differing, result.method) == (100, 25, "tango")
    assert (result.low, result.high) == (interval.low, interval.high)
    assert result.difference == 0.15
    assert result.best - result.baseline == pytest.approx(0.15)
    assert result.verdict == "improved"
    assert compare(*rows_of(100, 5, 20)).verdict == "worse"
    assert compare(*rows_of(100, 12, 9)).verdict == "no evidence"


def test_compare_is_paired() -> None:
    """The same two columns in another pairing give another verdict."""
    before, after = [0.1 * i for i in range(12)], [0.1 * i + 0.05 for i in range(12)]
    assert compare(before, after).verdict == "improved"
    assert compare(before, after[::-1]).verdict == "no evidence"


def test_compare_needs_ten_differing_rows() -> None:
    nine, ten = compare(*rows_of(100, 9, 0)), compare(*rows_of(100, 10, 0))
    assert nine.low > 0  # the interval alone would have said improved
    assert (nine.verdict, ten.verdict) == ("no evidence", "improved")
    before = [0.5] * 9
    assert compare(before, [0.75 + 0.01 * i for i in range(9)]).verdict == "no evidence"
    assert compare([*before, 0.5], [0.75 + 0.01 * i for i in range(10)]).verdict == "improved"


def test_compare_ignores_rounding() -> None:
    result = compare([0.3] * 20, [0.1 + 0.2] * 20)
    assert (result.differing, result.low, result.high) == (0, 0.0, 0.0)
    assert result.verdict == "no evidence"


SCORES = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-1e6, 1e6))
BINARY_ROWS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1)


@MANY
@given(st.one_of(st.lists(st.tuples(SCORES, SCORES), min_size=1), BINARY_ROWS))
def test_compare_invariants(pairs: list[tuple[float, float]]) -> None:
    """Swapping mirrors the interval, which contains the difference and decides the verdict. The
    result can be written as JSON without NaN or infinity."""
    before, after = [a for a, _ in pairs], [b for _, b in pairs]
    result, swapped = compare(before, after), compare(after, before)
    assert (result.low, result.high) == (-swapped.high, -swapped.low)
    assert result.difference == -swapped.difference
    assert result.low <= result.difference <= result.high
    opposite = {"improved": "worse", "worse": "improved", "no evidence": "no evidence"}
    assert swapped.verdict == opposite[result.verdict]
    assert result.differing == sum(not math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12) for a, b in pairs)
    if result.verdict == "improved":
        assert result.low > 0
        assert result.differing >= remask_stats.MIN_DIFFERING_ROWS
    record = dataclasses.asdict(result)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


@pytest.mark.parametrize(("before", "after", "width"), [(0.25, 0.5, 1.0), (0.0, 4.0, 4.0), (-1.0, 0.5, 2.0)])
def test_compare_of_one_real_row_is_wide(before: float, after: float, width: float) -> None:
    result = compare([before], [after])
    assert (result.low, result.high) == (-width, width)
    assert result.verdict == "no evidence"


def fewest_wins(n: int, differing: int) -> int:
    """The fewest wins among `differing` rows whose interval is above 0."""

    def improved(wins: int) -> bool:
        return tango_interval(n, wins, differing - wins).low > 0

    return bisect.bisect_left(range(differing + 1), True, lo=differing // 2, key=improved)


@pytest.mark.parametrize("n", [50, 100, 200, 300, 400])
def test_compare_false_alarms_exact(n: int) -> None:
    """Exact: under the null the number of differing rows is Binomial(n, p), and each is a win with
    probability 1/2. The docstring of `compare` says 5.4 % for p <= 0.5."""
    # P(verdict | m rows differ). The verdict does not depend on the rows that do not differ.
    alarm = np.zeros(n + 1)
    for m in range(remask_stats.MIN_DIFFERING_ROWS, n + 1):
        wins = np.arange(m + 1)
        lowest = fewest_wins(n, m)
        alarm[m] = 2 * stats.binom.pmf(wins[wins >= lowest], m, 0.5).sum()
    rates = [float(stats.binom.pmf(np.arange(n + 1), n, p) @ alarm) for p in np.linspace(0.01, 0.5, 50)]
    assert max(rates) <= 0.054
    assert float(alarm.max()) <= 0.0784


def test_compare_false_alarms_simulated() -> None:
    """2000 nulls with 0/1 scores, 2000 with real ones.

    False alarm of this test: below 1e-3. 0.07 lies 4.1 standard deviations (0.0049) above 0.05;
    the exact rate at 200 rows, 10 % differing each way, is 0.0493.
    """
    rng = np.random.default_rng(7)
    alarms = {"tango": 0, "paired t": 0}
    for _ in range(2000):
        draw = rng.choice(3, size=200, p=[0.1, 0.1, 0.8])  # win, loss, tie
        binary = compare((draw == 1).astype(float).tolist(), (draw == 0).astype(float).tolist())
        shared = rng.uniform(size=40)
        before, after = shared + rng.uniform(size=40), shared + rng.uniform(size=40)
        real = compare(before.tolist(), after.tolist())
        for result in (binary, real):
            alarms[result.method] += result.verdict != "no evidence"
    assert alarms["tango"] / 2000 <= 0.07
    assert alarms["paired t"] / 2000 <= 0.07
    assert min(alarms.values()) / 2000 >= 0.03  # the test is not much more cautious than 5 %


@MANY
@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 200))
def test_compare_verdict_is_mcnemars_test(wins: int, losses: int, ties: int) -> None:
    """Compared with scipy: McNemar's chi-squared without continuity correction, at 5 %. If its p is
    above 5 %, so is that of scipy's exact binomial test, which is more conservative."""
    assume(wins + losses >= remask_stats.MIN_DIFFERING_ROWS)
    p = float(stats.chi2.sf((wins - losses) ** 2 / (wins + losses), 1))
    assume(abs(p - 0.05) > 1e-9)
    result = compare(*rows_of(wins + losses + ties, wins, losses))
    expected = ("improved" if wins > losses else "worse") if p < 0.05 else "no evidence"
    assert result.verdict == expected
    exact = float(stats.binomtest(wins, wins + losses).pvalue)
    assert result.verdict != "no evidence" or exact > 0.05 - 1e-9


# ---- accepts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differences", "plain", "cautious"),
    [
        ([], False, False),
        ([0.0, 0.0], False, False),
        ([1, -1], False, False),
        ([-1, -1, -1], False, False),
        ([1, 1, -1], True, False),  # 1 < sqrt(3)
        ([1, 1, 1, -1], True, True),  # 2 = sqrt(4), the border counts
        ([1, 1, 1, 0, 0], True, True),
        ([0.1, 0.2, -0.3], False, False),  # these floats sum to 2.8e-17
        ([0.3, 0.3, 0.3, -0.3], True, True),  # the border again, in decimals
        ([0.1], True, True),
    ],
)
def test_accepts(differences: list[float], plain: bool, cautious: bool) -> None:
    assert accepts(differences) is plain
    assert accepts(differences, margin=1.0) is cautious


@MANY
@given(st.lists(st.floats(-1, 1)))
def test_accepts_less_with_a_margin(differences: list[float]) -> None:
    assert accepts(differences) or not accepts(differences, margin=1.0)
    assert not (accepts(differences) and accepts([-d for d in differences]))


@MANY
@given(st.lists(st.floats(-1, 1)), st.lists(st.floats(-1, 1)), st.floats(0, 2), st.floats(0, 2))
def test_improves_needs_both(step: list[float], whole: list[float], margin: float, ahead: float) -> None:
    assert improves(step, whole) == (accepts(step) and accepts(whole, MIN_SEED_MARGIN))
    assert improves(step, whole, margin, ahead) == (accepts(step, margin) and accepts(whole, ahead))
    assert improves(step, step) == accepts(step, MIN_SEED_MARGIN), "the first edit: the seed is the incumbent"


# ---- refusals and weight ---------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e101])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    value = repr(bad).replace("+", r"\+")
    with pytest.raises(ValueError, match=rf"values\[1\] is {value}"):
        estimate([1.0, bad])
    with pytest.raises(ValueError, match=rf"baseline\[0\] is {value}"):
        compare([bad], [1.0])
    with pytest.raises(ValueError, match=rf"best\[0\] is {value}"):
        compare([1.0], [bad])
    with pytest.raises(ValueError, match=rf"differences\[2\] is {value}"):
        accepts([1.0, 1.0, bad])


def test_compare_of_the_largest_scores_is_finite() -> None:
    result = compare([-1e100] * 50 + [1e100], [1e100] * 50 + [0.5])
    assert all(map(math.isfinite, (result.low, result.high, result.difference)))


def test_scores_that_are_empty_or_unequal_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        estimate([])
    with pytest.raises(ValueError, match="no rows"):
        compare([], [])
    with pytest.raises(ValueError, match="2 for the baseline and 1 for"):
        compare([1.0, 0.0], [1.0])


def test_import_loads_neither_numpy_nor_scipy() -> None:
    code = (
        "import sys, remask; before = set(sys.modules); import remask.stats;"
        "assert not {'numpy', 'scipy'} & (set(sys.modules) - before)"
    )
    source = Path(remask_stats.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(source)})


# --- several prompts, and what a test can show


def test_spread_agrees_with_all_permutations_of_a_small_table() -> None:
    scores = [[1, 1, 1, 0], [0, 0, 1, 0], [0, 1, 0, 0]]
    rows = list(zip(*scores, strict=True))
    ranges = []
    for shuffled in product(*(list(permutations(row)) for row in rows)):
        means = [sum(column) / len(rows) for column in zip(*shuffled, strict=True)]
        ranges.append(max(means) - min(means))
    found = measure_spread(scores)
    exact = sum(value >= found.range - 1e-9 for value in ranges) / len(ranges)
    assert found.range == pytest.approx(0.5)
    assert found.p == pytest.approx(exact, abs=0.03)


def test_spread_raises_a_false_alarm_in_at_most_5_percent_of_cases() -> None:
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(150):
        easy = rng.random(20)  # rows differ, prompts do not
        alarms += measure_spread((rng.random((6, 20)) < easy).astype(float).tolist()).differs
    assert alarms <= 15  # 7.5 are expected at most, with a standard error of 2.7


@pytest.mark.parametrize("rates", [(0.5,) * 6, (0.2, 0.35, 0.5, 0.6, 0.7, 0.8), (0.05,) * 5 + (0.6,)])
def test_interval_of_the_spread_holds_the_true_distance(rates: tuple[float, ...]) -> None:
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(60):
        found = measure_spread((rng.random((30, 6)) < rates).T.astype(float).tolist())
        held += found.low <= max(rates) - min(rates) <= found.high
        assert found.differs == (found.low > 0)
    assert held >= 54


def test_spread_of_equal_scores_is_0_and_wrong_input_is_refused() -> None:
    found = measure_spread([[1, 0, 1]] * 4)
    assert (found.range, found.chance, found.p, found.differs) == (0, 0, 1, False)
    for scores in ([[1, 0]], [[], []], [[1], [1, 0]], [[math.nan], [1]]):
        with pytest.raises(ValueError):
            measure_spread(scores)


@pytest.mark.parametrize(("n", "gain", "differing"), [(200, 0.05, 0.3), (200, 0.1, 0.1), (60, 0.1, 0.25)])
def test_power_is_the_share_of_simulated_tests_that_say_improved(
    n: int, gain: float, differing: float
) -> None:
    rng = np.random.default_rng(7)
    said = 0
    for wins, losses, ties in rng.multinomial(
        n, [(differing + gain) / 2, (differing - gain) / 2, 1 - differing], 800
    ):
        before = [0] * wins + [1] * losses + [0] * ties
        after = [1] * wins + [0] * losses + [0] * ties
        said += compare(before, after).verdict == "improved"
    assert find_power(n, gain, differing) == pytest.approx(said / 800, abs=0.055)


def test_power_of_other_scores_is_that_of_the_t_test() -> None:
    rng = np.random.default_rng(8)
    said = 0
    for _ in range(400):
        gaps = rng.normal(0.05, 0.3, 150)
        said += compare([1.5] * 150, [1.5 + gap for gap in gaps]).verdict == "improved"
    assert find_power(150, 0.05, 1.0, 0.3) == pytest.approx(said / 400, abs=0.07)


def test_power_grows_with_rows_and_few_rows_show_nothing() -> None:
    powers = [find_power(n, 0.05, 0.2) for n in (5, 50, 200, 1000)]
    assert powers == sorted(powers) and powers[0] == 0 and powers[-1] > 0.9
    assert find_power(5, 0.1, 0.2, 0.3) == 0
    assert find_power(400, 0.05, 0.0) > 0.99  # all rows that differ are won
    needed = count_rows_needed(0.05, 0.2)
    assert find_power(needed, 0.05, 0.2) == pytest.approx(0.8, abs=0.03)
    with pytest.raises(ValueError):
        find_power(0, 0.1, 0.2)
