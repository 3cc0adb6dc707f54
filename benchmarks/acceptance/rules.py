"""The acceptance rules that are compared. They are the shipped functions with other margins.

Each entry makes a rule for one run, because some rules remember earlier rounds. A rule gets two
lists of differences on the validation rows: the winner of a round against the incumbent, and
against the seed prompt.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from remask.search.plan import MAX_MARGIN
from remask.stats import MIN_SEED_MARGIN, Differences, Rule, accepts, improves


def make_rising_rule(scale: float) -> Rule:
    """A rule whose margin rises with every winner that was measured on the same rows.

    The margin of the k-th winner is `scale` times sqrt(2 log(1 + k)) standard deviations, which is
    about the size of the largest of k sums of pure noise.
    """
    asked = 0

    def rule(on_incumbent: Differences, on_seed: Differences) -> bool:
        nonlocal asked
        asked += 1
        return accepts(on_incumbent, scale * math.sqrt(2 * math.log(1 + asked)))

    return rule


def accept_on_both_halves(on_incumbent: Differences, on_seed: Differences) -> bool:
    """Accept what is ahead on the first half of the rows and on the second."""
    cut = len(on_incumbent) // 2
    return accepts(on_incumbent[:cut]) and accepts(on_incumbent[cut:])


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rule of the comparison.

    `last`: the search ends with the seed prompt unless the prompt found is ahead of it by this
    many sqrt(sum of squares) on the validation rows.
    """

    make: Callable[[], Rule] | None  # None: the plan's own
    last: float = 0.0


def make_margin_rule(step: float, ahead: float) -> Callable[[], Rule]:
    """The shipped rule with margins against the incumbent (`step`) and the seed prompt."""
    return lambda: partial(improves, incumbent_margin=step, seed_margin=ahead)


SHIPPED = f"ahead of the seed prompt by {MIN_SEED_MARGIN:g} to {MAX_MARGIN:g}"
RULES = {
    "any gain": Candidate(make_margin_rule(0, 0)),
    **{f"a gain of {c:g}": Candidate(make_margin_rule(c, 0)) for c in (0.25, 0.5, 1, 2)},
    **{f"ahead of the seed prompt by {c:g}": Candidate(make_margin_rule(0, c)) for c in (0.25, 0.5, 0.75, 1)},
    SHIPPED: Candidate(None),
    "any gain, last look at 0.5": Candidate(make_margin_rule(0, 0), last=0.5),
    "a bar that rises with use": Candidate(partial(make_rising_rule, 0.5)),
    "a gain on both halves": Candidate(lambda: accept_on_both_halves),
}
