"""Confidence intervals of scores, paired comparison of two prompts, acceptance rules.

A score is a finite number (0 and 1 for wrong and right). A failed call has no score; leave such
rows out of both lists. All intervals are two-sided, at 95 % unless a level is given, and in the
unit of the scores. All results are finite Python floats, so they can be written as JSON. scipy is
imported only for Student's t and for powers, numpy only for permutations.

A test on rows that earlier tests have used is held to a stricter level, see `correct_level`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

Verdict = Literal["improved", "no evidence", "worse"]
Method = Literal["tango", "paired t"]
Differences = Sequence[float]  # one per row, in the unit of the scores
Rule = Callable[[Differences, Differences], bool]  # such as `improves`

MIN_DIFFERING_ROWS = 10  # with fewer rows that differ, the verdict is always "no evidence"
LEVEL = 0.95  # of an interval
Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
MAX_ABS_SCORE = 1e100  # larger scores are refused, so that sums and squares stay finite
MIN_SEED_MARGIN = 0.5  # default lead over the seed prompt in `improves`, as a multiple of sqrt(Σd²)
TOLERANCE = 1e-12  # relative, absolute below 1; smaller differences count as 0
BISECTION_STEPS = 60  # of an interval of width 2 at most, so the error is below 2e-18
PERMUTATIONS = 3999  # of a test of several prompts; the standard error of a p-value of 5 % is 0.3 %
PERMUTED_AT_ONCE = 250  # to limit the memory
ALPHA = 1 - LEVEL  # probability of a false alarm
GUARD_TOLERANCE = 0.02  # of score, that a guard set may lose unseen beyond its margin


@dataclass(frozen=True, slots=True)
class Interval:
    """Closed interval [low, high], in the unit of the scores."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean of scores and its 95 % interval."""

    n: int  # rows
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scores of the baseline and the best prompt on the same rows."""

    n: int  # rows, each scored with both prompts
    baseline: float  # mean score
    best: float  # mean score
    difference: float  # best minus baseline
    low: float  # interval of the difference, at `level`
    high: float
    differing: int  # rows whose scores differ by more than TOLERANCE
    verdict: Verdict
    method: Method
    level: float = LEVEL  # higher where earlier tests have used the rows


@dataclass(frozen=True, slots=True)
class Spread:
    """How far the mean scores of several prompts lie apart, on the same rows."""

    n: int  # rows, each scored with all prompts
    range: float  # largest mean score minus the smallest
    chance: float  # the range that chance alone stays below in 95 % of cases
    p: float  # probability of so large a range where no prompt is better than another
    low: float  # 95 % interval of the true distance between the best and the worst prompt
    high: float

    @property
    def differs(self) -> bool:
        """Whether the prompts differ, with a false alarm in at most 5 % of cases."""
        return self.p <= ALPHA


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean with its 95 % interval: Wilson if all values are 0 or 1, else Student's t.

    The t interval is not clipped, so it may exceed the range of the scores. Identical values give
    an interval of width 0. A single value that is not 0 or 1 gives the interval [0, 1], extended to
    contain the value.

    Raises ValueError if there are no values, or one is NaN or larger than MAX_ABS_SCORE.
    """
    scores = _check_finite(values, "values")
    if not scores:
        raise ValueError("there are no values to estimate a mean from")
    n = len(scores)
    if _is_binary(scores):
        successes = round(math.fsum(scores))
        interval = wilson_interval(n, successes)
        return Estimate(n, successes / n, interval.low, interval.high)
    if n == 1:
        return Estimate(n, scores[0], min(0.0, scores[0]), max(1.0, scores[0]))
    interval = student_interval(scores)
    return Estimate(n, math.fsum(scores) / n, interval.low, interval.high)


def correct_level(earlier: int) -> float:
    """Return the level of the interval of a test on rows that `earlier` tests have used.

    It is Bonferroni's for earlier + 1 tests, so this test gives a false verdict with a probability of
    at most 5 % / (earlier + 1). The earlier tests were held to larger shares, so the probability that
    any test of the rows was false is larger: at most 9.2 % after 3 tests, 14.6 % after 10.

    Raises ValueError if `earlier` is negative.
    """
    if earlier < 0:
        raise ValueError(f"impossible number of earlier tests: {earlier}")
    return 1 - (1 - LEVEL) / (earlier + 1) if earlier else LEVEL


def format_level(level: float) -> str:
    """Return a level as text, such as "95 %" or "98.33 %", never rounded up."""
    return f"{math.floor(round(level * 1e6) / 100) / 100:g} %"


def compare(baseline: Sequence[float], best: Sequence[float], level: float = LEVEL) -> Comparison:
    """Compare the scores of two prompts, paired by position.

    The interval is Tango's score interval if all scores are 0 or 1, else the paired t interval (not
    clipped). The verdict is "improved" if the interval is above 0, "worse" if it is below 0, else
    "no evidence". With fewer than MIN_DIFFERING_ROWS rows that differ it is always "no evidence".

    For 0/1 scores the verdict is McNemar's test without continuity correction. Its exact rate of
    false alarms is at most 5.4 % for 50 to 400 rows of which at most half differ, and much lower if
    few rows differ; it can reach 7.8 % if every row differs.

    A single pair that is not 0 or 1 gives the largest interval of a difference on the scale from 0
    to 1, extended to contain both scores.

    Raises ValueError if the lists are empty or of unequal length, if a score is NaN or larger than
    MAX_ABS_SCORE, or if the level is not between 0 and 1.
    """
    if len(baseline) != len(best):
        raise ValueError(
            f"scores must be paired by row, but there are {len(baseline)} for the baseline "
            f"and {len(best)} for the best prompt"
        )
    before, after = _check_finite(baseline, "baseline"), _check_finite(best, "best")
    if not before:
        raise ValueError("there are no rows to compare")
    z = _find_quantile(level)
    n = len(before)
    differences = [_subtract(b, a) for a, b in zip(before, after, strict=True)]
    wins, losses = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    method: Method = "tango" if _is_binary(before) and _is_binary(after) else "paired t"
    if method == "tango":
        interval = tango_interval(n, wins, losses, z)
    elif n > 1:
        interval = student_interval(differences, level)
    else:
        width = max(1.0, *before, *after) - min(0.0, *before, *after)
        interval = Interval(-width, width)
    return Comparison(
        n=n,
        baseline=math.fsum(before) / n,
        best=math.fsum(after) / n,
        difference=math.fsum(differences) / n,
        low=interval.low,
        high=interval.high,
        differing=wins + losses,
        verdict=_decide_verdict(interval, wins + losses),
        method=method,
        level=level,
    )


def _find_quantile(level: float) -> float:
    """Return the normal quantile of a two-sided interval."""
    if not 0 < level < 1:
        raise ValueError(f"a level is between 0 and 1, not {level}")
    return Z95 if level == LEVEL else NormalDist().inv_cdf((1 + level) / 2)


def accepts(differences: Sequence[float], margin: float = 0.0) -> bool:
    """Whether the differences d, one per row, are a gain: Σd > 0 and Σd >= margin * sqrt(Σd²).

    sqrt(Σd²) is about one standard deviation of Σd if the true mean is 0. This is not a test,
    because the rows were already used to choose the candidate. False without rows.

    Raises ValueError if a difference is NaN or larger than MAX_ABS_SCORE.
    """
    checked = _check_finite(differences, "differences")
    total = math.fsum(checked)
    if total <= TOLERANCE * max(1.0, math.fsum(map(abs, checked))):
        return False
    return total >= margin * (1 - TOLERANCE) * math.sqrt(math.fsum(d * d for d in checked))


def improves(
    on_incumbent: Differences,
    on_seed: Differences,
    incumbent_margin: float = 0.0,
    seed_margin: float = MIN_SEED_MARGIN,
) -> bool:
    """Whether a candidate replaces the incumbent.

    on_incumbent, on_seed: its score minus that of the incumbent and of the seed prompt, per row.
    Both must be gains by their margin (see `accepts`). So small steps add up, but the seed prompt
    is not replaced for a tiny gain. The margins are explained in docs/background/acceptance.md.
    """
    return accepts(on_incumbent, incumbent_margin) and accepts(on_seed, seed_margin)


def is_not_worse(differences: Differences, within: float, margin: float) -> bool:
    """Whether differences d, one per row, show no loss of more than `within`, by a margin.

    It is `accepts` for d + within, so an edit without any effect passes. As `accepts` it is no test,
    because the rows chose the candidate. False without rows.
    """
    if differences and all(abs(d) <= TOLERANCE for d in differences):
        return True
    return accepts([d + within for d in differences], margin)


def share_alpha(test: int) -> float:
    """Return the error that test number `test` (from 1) of the same guard rows may make.

    It is ALPHA / (test (test + 1)). The shares of any number of tests sum to less than ALPHA.
    """
    return ALPHA / (test * (test + 1))


def bound_loss(before: Sequence[float], after: Sequence[float], alpha: float) -> float:
    """Return the upper limit of the mean loss from `before` to `after`, one-sided at 1 - alpha.

    It is the end of the interval of `compare`, and never below `bound_unseen_loss`. Raises as
    `compare`.
    """
    found = compare(before, after, 1 - 2 * alpha)
    return max(-found.low, bound_unseen_loss(found.n, alpha))


def bound_unseen_loss(rows: int, alpha: float) -> float:
    """Return the upper limit of the loss where no score of `rows` rows differs: z² / (n + z²)."""
    z = NormalDist().inv_cdf(1 - alpha)
    return z * z / (rows + z * z)


def count_guard_rows(limit: float, alpha: float) -> int:
    """Return the fewest rows on which a loss above `limit` can be excluded: none of them differs."""
    z = NormalDist().inv_cdf(1 - alpha)
    return math.ceil(z * z * (1 - limit) / limit - TOLERANCE)


def find_front(points: Mapping[str, Sequence[float]], first: str = "") -> frozenset[str]:
    """Return the names on the Pareto front of points, where more is better in each coordinate.

    No point is at least as good as one of them in all coordinates and better in one. Of equal points
    only one is returned: `first`, or else the first name. The order of the points does not matter.
    """
    names = sorted(points, key=lambda name: (name != first, name))
    return frozenset(
        name
        for i, name in enumerate(names)
        if not any(
            all(a >= b for a, b in zip(points[other], points[name], strict=True))
            and (j < i or tuple(points[other]) != tuple(points[name]))
            for j, other in enumerate(names)
            if j != i
        )
    )


def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided p-value of the exact sign test: that of a fair coin, or one more uneven."""
    n, fewer = wins + losses, min(wins, losses)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2.0**n)


def measure_spread(scores: Sequence[Sequence[float]]) -> Spread:
    """Measure whether the mean scores of several prompts differ by more than chance.

    scores: of each prompt, paired by position. The p-value is that of a permutation test: where no
    prompt is better than another, the scores of a row could belong to any of them, so they are
    shuffled within each row. It is exact for any scores and any number of rows. The interval is the
    range ± `chance`, which holds for all pairs of prompts together, so the choice of the best and
    the worst does not bias it. In simulations of 12 to 40 rows it held the true distance in 95 to
    100 % of cases (docs/log.md, the pilot).

    Raises ValueError if there are less than two prompts, no rows, lists of unequal length, or a
    score that is NaN or larger than MAX_ABS_SCORE.
    """
    import numpy as np

    if len(scores) < 2 or not scores[0] or len({len(of_prompt) for of_prompt in scores}) > 1:
        raise ValueError("two or more prompts need scores of the same rows")
    table = np.array([_check_finite(of_prompt, "scores") for of_prompt in scores]).T
    rng = np.random.default_rng(0)  # fixed, so that the same scores give the same result
    found = float(np.ptp(table.mean(0)))
    parts = []
    for done in range(0, PERMUTATIONS, PERMUTED_AT_ONCE):
        copies = np.broadcast_to(table, (min(PERMUTED_AT_ONCE, PERMUTATIONS - done), *table.shape))
        parts.append(np.ptp(rng.permuted(copies, axis=2).mean(1), axis=1))
    ranges = np.concatenate(parts)
    as_large = int((ranges >= found - TOLERANCE * max(1.0, found)).sum())
    chance = float(np.quantile(ranges, LEVEL, method="higher"))
    return Spread(
        n=len(table),
        range=found,
        chance=chance,
        p=(1 + as_large) / (1 + PERMUTATIONS),
        low=max(0.0, found - chance),
        high=found + chance,
    )


def find_power(n: int, gain: float, differing: float, deviation: float | None = None) -> float:
    """Return the probability that `compare` says "improved" for a prompt that is better by `gain`.

    n: test rows. differing: the share of rows on which the two prompts differ; of scores that are 0
    or 1, at least `gain` of them do. deviation: the standard deviation of the differences, for
    other scores. Exact for scores of 0 and 1, where it is the power of McNemar's test; for others
    they are taken as normal, and as different enough for a verdict.

    Raises ValueError unless n and gain are above 0.
    """
    from scipy.special import bdtrc, nctdtr, stdtrit

    if n < 1 or gain <= 0:
        raise ValueError(f"impossible test: {n} rows, a gain of {gain}")
    if deviation is not None:
        if n < max(2, MIN_DIFFERING_ROWS):
            return 0.0
        if deviation <= TOLERANCE:
            return 1.0
        limit = float(stdtrit(n - 1, (1 + LEVEL) / 2))
        return 1 - float(nctdtr(n - 1, gain * math.sqrt(n) / deviation, limit))
    share = min(1.0, max(differing, gain))
    wins = min(1.0, (share + gain) / (2 * share))
    power = 0.0
    for m in range(MIN_DIFFERING_ROWS, n + 1):
        least = math.floor((m + Z95 * math.sqrt(m)) / 2) + 1  # wins that McNemar's test accepts
        if least <= m:
            weight = float(bdtrc(m - 1, n, share)) - (float(bdtrc(m, n, share)) if m < n else 0.0)
            power += weight * float(bdtrc(least - 1, m, wins))
    return min(1.0, max(0.0, power))


def count_rows_needed(gain: float, variance: float, power: float = 0.8) -> int:
    """Return about how many test rows show a gain with this power.

    variance: of the differences on a row; of scores that are 0 or 1, the share of rows that differ.
    """
    quantiles = Z95 + NormalDist().inv_cdf(power)
    rows = quantiles * quantiles * max(variance - gain * gain, 0.0) / (gain * gain)
    return max(MIN_DIFFERING_ROWS, math.ceil(rows), math.ceil(MIN_DIFFERING_ROWS / max(variance, gain)))


def wilson_interval(n: int, successes: int, z: float = Z95) -> Interval:
    """Return the score interval of a proportion (Wilson 1927; Newcombe 1998, Stat Med 17:857).

    z: normal quantile of the level. Raises ValueError unless n > 0 and 0 <= successes <= n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"impossible counts: {successes} successes of {n}")
    p = successes / n
    centre = successes + z * z / 2
    half = z * math.sqrt(successes * (n - successes) / n + z * z / 4)
    # In theory p is inside the interval. The outer min and max remove rounding if p is 0 or 1.
    low = min(p, max(0.0, (centre - half) / (n + z * z)))
    high = max(p, min(1.0, (centre + half) / (n + z * z)))
    return Interval(low, high)


def student_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return the t interval of a mean, n - 1 degrees of freedom (Student 1908, Biometrika
    6:1).

    For differences of pairs it is the paired t interval. Raises ValueError for less than 2 values.
    """
    from scipy.special import stdtrit

    n = len(values)
    if n < 2:
        raise ValueError(f"a t interval needs at least 2 values, not {n}")
    mean = math.fsum(values) / n
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * math.sqrt(variance / n)
    return Interval(mean - half, mean + half)


def tango_interval(n: int, wins: int, losses: int, z: float = Z95) -> Interval:
    """Return the score interval of a difference of paired proportions, (wins - losses) / n.

    It contains all differences d that the score test of Tango (1998, Stat Med 17:891-908) does not
    reject: |wins - losses - n d| <= z sqrt(n (2 q + d (1 - d))), where q is the probability of a
    loss under the likelihood restricted to difference d. At d = 0 this is McNemar's test without
    continuity correction. The interval is within [-1, 1] and mirrored if wins and losses are
    swapped.

    n: all pairs, with ties. z: normal quantile of the level. Raises ValueError for impossible
    counts.
    """
    if n < 1 or wins < 0 or losses < 0 or wins + losses > n:
        raise ValueError(f"impossible counts: {wins} wins and {losses} losses in {n} pairs")
    return Interval(-_find_tango_high(n, losses, wins, z), _find_tango_high(n, wins, losses, z))


def _find_tango_high(n: int, wins: int, losses: int, z: float) -> float:
    """Find the upper limit by bisection; the test statistic is monotone from the estimate to 1."""
    # Other root finders may stop at an end, where the variance and the statistic can be 0.
    inside, outside = (wins - losses) / n, 1.0
    for _ in range(BISECTION_STEPS):
        d = (inside + outside) / 2
        variance = n * (2 * _estimate_loss(d, n, wins, losses) + d * (1 - d))
        if (n * d - (wins - losses)) ** 2 <= z * z * variance:
            inside = d
        else:
            outside = d
    return outside


def _estimate_loss(d: float, n: int, wins: int, losses: int) -> float:
    """Return the maximum likelihood estimate of the probability of a loss, given the difference d.

    It is the larger root q of 2n q^2 + b q - losses d (1 - d) = 0 (Tango 1998).
    """
    b = (2 * n - wins + losses) * d - wins - losses
    product = losses * d * (1 - d)
    root = math.sqrt(max(0.0, b * b + 8 * n * product))
    return (root - b) / (4 * n)


def _decide_verdict(interval: Interval, differing: int) -> Verdict:
    if differing < MIN_DIFFERING_ROWS:
        return "no evidence"
    if interval.low > 0:
        return "improved"
    return "worse" if interval.high < 0 else "no evidence"


def _subtract(a: float, b: float) -> float:
    """Return a - b, or 0 if the difference is only rounding, such as 0.1 + 0.2 and 0.3."""
    return 0.0 if math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE) else a - b


def _is_binary(scores: Sequence[float]) -> bool:
    return all(s in (0.0, 1.0) for s in scores)


def _check_finite(values: Sequence[float], what: str) -> list[float]:
    """Return the values as floats. Raises ValueError if one is not finite."""
    for position, value in enumerate(values):
        if not abs(value) <= MAX_ABS_SCORE:  # also true of NaN
            raise ValueError(f"{what}[{position}] is {value!r}, not a finite score")
    return [float(v) for v in values]
