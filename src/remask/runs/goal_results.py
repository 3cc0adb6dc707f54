"""What the sealed test says beside the score: objectives, guard sets, and the verdict over all.

The intervals of a test with k of them (score, measured objectives, guard sets) have Bonferroni's
level, so all of them together hold with 95 %. Lengths of prompts are exact and count for none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from remask.events import PROMPT_TOKENS, GoalsSet, Tested
from remask.sanitize import one_line
from remask.stats import GUARD_TOLERANCE, Comparison, Verdict, bound_unseen_loss, correct_level, format_level

GuardStatus = Literal["held", "not shown", "lost"]
SLACK = 1e-9  # of a comparison with a limit
UNITS = {PROMPT_TOKENS: "tokens", "output_tokens": "tokens", "usd": "dollars", "latency": "seconds"}


@dataclass(frozen=True, slots=True)
class ObjectiveResult:
    """An objective of both prompts, on the sealed test rows. Lengths are exact and have no test."""

    name: str
    higher: bool  # whether more is better
    baseline: float | None  # mean of an answer; of prompt_tokens: of the prompt
    best: float | None
    test: Comparison | None
    verdict: Verdict  # "improved": the best prompt is better


@dataclass(frozen=True, slots=True)
class GuardResult:
    """A guard set on its sealed rows.

    It has held where a loss above margin and tolerance is excluded, and lost where one above the
    margin is shown.
    """

    name: str
    margin: float  # points of 100 that may be lost
    tolerance: float  # points of 100 beside it that may be lost unseen
    test: Comparison
    status: GuardStatus


def find_level(event: Tested) -> float:
    """Return the level of each interval of a sealed test: Bonferroni's for all that it gives."""
    intervals = 1 + len(event.objectives) + len(event.guards)
    return 1 - (1 - correct_level(event.earlier_tests)) / intervals


def turn(verdict: Verdict, higher: bool) -> Verdict:
    """Return the verdict of an objective: of one where less is better, the opposite."""
    opposite: dict[Verdict, Verdict] = {"improved": "worse", "worse": "improved"}
    return verdict if higher else opposite.get(verdict, verdict)


def judge_length(baseline: int, best: int) -> ObjectiveResult:
    """Compare the lengths of two prompts, which are exact."""
    verdict: Verdict = "improved" if best < baseline else "worse" if best > baseline else "no evidence"
    return ObjectiveResult(PROMPT_TOKENS, False, float(baseline), float(best), None, verdict)


def judge_guard(test: Comparison, margin: float) -> GuardStatus:
    """Say whether a guard set holds. `margin`: points of 100."""
    if test.high < -margin / 100 - SLACK:
        return "lost"
    return "held" if _find_lowest(test) >= -margin / 100 - GUARD_TOLERANCE - SLACK else "not shown"


def _find_lowest(test: Comparison) -> float:
    """Return the least difference of scores that is not excluded.

    The t interval of graded scores that hardly differ has nearly no width, on ten rows too. So
    without a gain it is not narrower than Tango's interval of rows that do not differ.
    """
    if test.method == "tango" or test.verdict == "improved":
        return test.low
    return min(test.low, -bound_unseen_loss(test.n, (1 - test.level) / 2))


def decide(
    test: Comparison,
    doubtful: bool,
    goals: GoalsSet,
    preferred: Verdict | None,
    guards: Sequence[GuardResult],
) -> Verdict:
    """Return the verdict of a run.

    Without a preferred objective it is that of the score. With one, a run has improved where the
    objective has and a loss of score above `within` is excluded, or where the score has and may
    decide; it is worse where such a loss is shown. A guard set that has lost makes the verdict
    "worse", and one that is not shown to hold makes "improved" to "no evidence".
    doubtful: too many rows of the test have no score.
    """
    verdict = test.verdict
    if goals.prefer and not doubtful:
        within = goals.within / 100 + SLACK
        decided_by_score = verdict == "improved" and not goals.only_preferred
        improved = decided_by_score or (preferred == "improved" and _find_lowest(test) >= -within)
        verdict = "improved" if improved else "worse" if test.high < -within else "no evidence"
    if any(guard.status == "lost" for guard in guards):
        return "worse"
    held = all(guard.status == "held" for guard in guards)
    return verdict if held or verdict != "improved" else "no evidence"


def list_goals(
    objectives: Sequence[ObjectiveResult], guards: Sequence[GuardResult], prefer: str, within: float
) -> Iterator[str]:
    """Describe objectives and guard sets, one line each, and how their intervals were chosen."""
    tests = [one.test for one in objectives if one.test is not None] + [one.test for one in guards]
    for one in objectives:
        mark = f" (preferred, where the score may lose {within:g} points)" if one.name == prefer else ""
        yield f"{one_line(one.name)}{mark}: {describe_objective(one)}"
    for guard in guards:
        yield (
            f"guard set {one_line(guard.name)}: {guard.status}; {guard.test.baseline:.3f} → "
            f"{guard.test.best:.3f} on {guard.test.n} sealed rows, {_describe_interval(guard.test, 3)}; "
            f"allowed: {guard.margin:g} points, and {guard.tolerance:g} unseen"
        )
    if tests:
        yield (
            f"Each interval has {format_level(tests[0].level)}, so that those of the score and of these "
            f"{len(tests)} hold together (Bonferroni)."
        )


def describe_objective(one: ObjectiveResult) -> str:
    if one.baseline is None or one.best is None:
        return "no row has a value of both prompts"
    digits = 0 if one.name == PROMPT_TOKENS else 3 if one.name not in ("usd",) else 6
    change = f" ({100 * (one.best / one.baseline - 1):+.1f} %)" if one.baseline else ""
    said = f"{one.baseline:,.{digits}f} → {one.best:,.{digits}f} {UNITS.get(one.name, '')}".rstrip() + change
    return said if one.test is None else f"{said}, {_describe_interval(one.test, digits)}: {one.verdict}"


def _describe_interval(test: Comparison, digits: int) -> str:
    return (
        f"difference {test.difference:+.{digits}f} ({format_level(test.level)} interval "
        f"{test.low:+.{digits}f} to {test.high:+.{digits}f})"
    )
