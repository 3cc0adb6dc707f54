"""The verdict over score, preferred objective and guard sets."""

import pytest

from remask.events import PROMPT_TOKENS, GoalsSet
from remask.runs.goal_results import decide, judge_guard
from remask.stats import compare

SHORTER = GoalsSet(((PROMPT_TOKENS, False),), PROMPT_TOKENS, within=2.0, only_preferred=True)


@pytest.mark.parametrize("score", [0.5, 1.0])
def test_unchanged_scores_of_few_rows_exclude_no_loss(score: float) -> None:
    for rows, verdict, status in ((20, "no evidence", "not shown"), (250, "improved", "held")):
        same = [score] * rows
        test = compare(same, [*same[1:], 0.999 * score] if score < 1 else same)
        assert decide(test, False, SHORTER, "improved", ()) == verdict
        assert judge_guard(test, 0.0) == status


def test_graded_scores_that_gain_are_believed() -> None:
    test = compare([0.5] * 20, [0.7, 0.8] * 10)
    assert decide(test, False, SHORTER, "improved", ()) == "improved" and judge_guard(test, 0.0) == "held"
