"""What a list of scores does and does not show: intervals, and one paired comparison.

Knows only numbers; knows nothing of prompts, tasks, models or files.
A score is a finite real number (0 and 1 for wrong and right). A call that failed has no score:
leave such rows out of both lists before you come here.
All intervals are two-sided at 95 % and in the unit of the scores. Every figure in a result is a
finite Python float, so it can be written as JSON. numpy is not needed; scipy is imported only
when a Student t quantile is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["improved", "no evidence", "worse"]
Method = Literal["tango", "paired t"]
Differences = Sequence[float]  # on each row, in the unit of the scores
Rule = Callable[[Differences, Differences], bool]  # see `improves`, which is one

MIN_DIFFERING_ROWS = 10  # rows; fewer that differ never carry a verdict (design decision 6)
Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
MAX_ABS_SCORE = 1e100  # scores beyond it are refused, so that squares and sums stay finite
MIN_SEED_MARGIN = (
    0.5  # of sqrt(Σd²): how far ahead of the seed prompt `improves` wants an incumbent at least
)
ROUNDING_TOLERANCE = (
    1e-12  # relative (absolute below 1): smaller differences are taken for rounding
)
BISECTION_STEPS = 60  # of an interval at most 2 wide: the limit is exact to 2e-18


@dataclass(frozen=True, slots=True)
class Interval:
    """Closed interval [low, high], in the unit of the scores."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean of some scores and its 95 % interval."""

    n: int  # rows
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Baseline against best on the same rows. A positive difference means that best scores more."""

    n: int  # rows, each scored under both prompts
    baseline: float  # mean score
    best: float  # mean score
    difference: float  # best minus baseline
    low: float  # 95 % interval of the difference
    high: float
    differing: int  # rows whose two scores are not equal, rounding (NOISE) aside
    verdict: Verdict
    method: Method


def estimate(values: Sequence[float]) -> Estimate:
    """The mean with its 95 % interval: Wilson where all values are 0 or 1, else Student t.

    The t interval is not clipped, so it may leave the range of the scores. Identical values give
    an interval of width zero: t knows only the spread it saw. One value that is not 0 or 1 shows
    no spread at all; its interval is the whole scale from 0 to 1, widened to hold the value.

    Raises ValueError on no values, and on NaN, infinite or absurdly large ones.
    """
    scores = _check_finite(values, "values")
    if not scores:
        raise ValueError("no values: the mean of nothing has no estimate")
    n = len(scores)
    if _is_binary(scores):
        successes = round(math.fsum(scores))
        interval = wilson_interval(n, successes)
        return Estimate(n, successes / n, interval.low, interval.high)
    if n == 1:
        return Estimate(n, scores[0], min(0.0, scores[0]), max(1.0, scores[0]))
    interval = student_interval(scores)
    return Estimate(n, math.fsum(scores) / n, interval.low, interval.high)


def compare(baseline: Sequence[float], best: Sequence[float]) -> Comparison:
    """Compare two prompts whose scores are paired by position.

    Tango's score interval where all scores are 0 or 1, else the paired t interval (not clipped).
    Verdict: "improved" if the interval lies above 0, "worse" if below, else "no evidence"; with
    fewer than MIN_DIFFERING rows that differ always "no evidence", whatever the interval says.

    For 0/1 scores the verdict is McNemar's test without continuity correction. Its exact rate of
    false alarms is at most 5.4 % for 50 to 400 rows of which at most half differ, and much lower
    where few rows differ; it can reach 7.8 % in the extreme case that every row differs.

    One pair of scores that are not 0 or 1 shows no spread; its interval is the widest difference
    that a scale from 0 to 1, widened to hold both scores, allows.

    Raises ValueError on empty input, unequal lengths, and NaN, infinite or absurdly large scores.
    """
    if len(baseline) != len(best):
        raise ValueError(
            f"scores must be paired by row, but there are {len(baseline)} for the baseline "
            f"and {len(best)} for the best prompt"
        )
    before, after = _check_finite(baseline, "baseline"), _check_finite(best, "best")
    if not before:
        raise ValueError("no rows: nothing to compare")
    n = len(before)
    differences = [_subtract(b, a) for a, b in zip(before, after, strict=True)]
    wins, losses = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    method: Method = "tango" if _is_binary(before) and _is_binary(after) else "paired t"
    if method == "tango":
        interval = tango_interval(n, wins, losses)
    elif n > 1:
        interval = student_interval(differences)
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
    )


def accepts(differences: Sequence[float], margin: float = 0.0) -> bool:
    """Whether differences, one a row, speak for the later of two prompts.

    The sum must be above 0, by more than rounding, and reach `margin` times sqrt(sum of squares),
    which is about one standard deviation of the sum if the true mean is 0.
    Not a test, and no claim rests on it: the rows were already used to choose the candidate.
    No rows: False.

    Raises ValueError on NaN, infinite or absurdly large differences.
    """
    checked = _check_finite(differences, "differences")
    total = math.fsum(checked)
    if total <= ROUNDING_TOLERANCE * max(1.0, math.fsum(map(abs, checked))):
        return False
    return total >= margin * (1 - ROUNDING_TOLERANCE) * math.sqrt(math.fsum(d * d for d in checked))


def improves(
    on_incumbent: Differences,
    on_seed: Differences,
    incumbent_margin: float = 0.0,
    seed_margin: float = MIN_SEED_MARGIN,
) -> bool:
    """Whether a candidate replaces the incumbent, given how far it is ahead on each row.

    It must be ahead of the incumbent by `step`, and of the prompt that the search began with by
    `ahead`, as in `accepts`. So small steps add up, but nothing replaces the seed prompt by a hair.
    Why these margins: docs/background/acceptance.md.
    """
    return accepts(on_incumbent, incumbent_margin) and accepts(on_seed, seed_margin)


def wilson_interval(n: int, successes: int, z: float = Z95) -> Interval:
    """Score interval of a proportion (Wilson 1927; Newcombe 1998, Stat Med 17:857, method 3).

    z is the normal quantile that sets the level.
    Raises ValueError unless n > 0 and 0 <= successes <= n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"impossible counts: {successes} successes of {n}")
    p = successes / n
    centre = successes + z * z / 2
    half = z * math.sqrt(successes * (n - successes) / n + z * z / 4)
    # p lies inside by theory; the outer min and max only remove rounding where p is 0 or 1.
    low = min(p, max(0.0, (centre - half) / (n + z * z)))
    high = max(p, min(1.0, (centre + half) / (n + z * z)))
    return Interval(low, high)


def student_interval(values: Sequence[float]) -> Interval:
    """95 % Student t interval of a mean, n - 1 degrees of freedom (Student 1908, Biometrika 6:1).

    Of differences of pairs it is the paired t interval. Raises ValueError on fewer than two values.
    """
    from scipy.special import stdtrit

    n = len(values)
    if n < 2:
        raise ValueError(f"a t interval needs at least 2 values, got {n}")
    mean = math.fsum(values) / n
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    half = float(stdtrit(n - 1, 0.975)) * math.sqrt(variance / n)
    return Interval(mean - half, mean + half)


def tango_interval(n: int, wins: int, losses: int, z: float = Z95) -> Interval:
    """Score interval of a difference of paired proportions, (wins - losses) / n.

    All differences d that the score test of Tango (1998, Stat Med 17:891-908) does not reject:
    |wins - losses - n d| <= z sqrt(n (2 q + d (1 - d))), where q is the probability of a
    loss under the likelihood restricted to difference d. At d = 0 it is McNemar's test without
    continuity correction. Never wider than [-1, 1]. Swapping wins and losses mirrors it exactly.

    n counts all pairs, the tied ones too. z is the normal quantile that sets the level.
    Raises ValueError on counts that no n pairs can have.
    """
    if n < 1 or wins < 0 or losses < 0 or wins + losses > n:
        raise ValueError(f"impossible counts: {wins} wins and {losses} losses in {n} pairs")
    return Interval(-_find_tango_high(n, losses, wins, z), _find_tango_high(n, wins, losses, z))


def _find_tango_high(n: int, wins: int, losses: int, z: float) -> float:
    """Upper limit. Between the estimate and 1 the test statistic is monotone, so halving finds it.

    Plain halving because both ends can be roots of no interest, where the variance is 0.
    """
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
    """Restricted maximum likelihood estimate of the probability of a loss, given the difference d.

    The larger root of 2n q^2 + b q - losses d (1 - d) = 0 (Tango 1998).
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
    """a - b, and exactly 0 where that is only rounding: 0.1 + 0.2 against 0.3 is no difference."""
    return (
        0.0 if math.isclose(a, b, rel_tol=ROUNDING_TOLERANCE, abs_tol=ROUNDING_TOLERANCE) else a - b
    )


def _is_binary(scores: Sequence[float]) -> bool:
    return all(s in (0.0, 1.0) for s in scores)


def _check_finite(values: Sequence[float], what: str) -> list[float]:
    """The values as plain floats."""
    for position, value in enumerate(values):
        if not abs(value) <= MAX_ABS_SCORE:  # also true of NaN
            raise ValueError(f"{what}[{position}] is {value!r}, not a finite score")
    return [float(v) for v in values]
