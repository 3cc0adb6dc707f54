"""The acceptance rules that are compared: made of the shipped functions, with other margins.

Each entry makes a rule for one run, because some remember what they were asked before. A rule hears
how far the winner of a round is ahead of the incumbent, and of the seed prompt, on each validation
row.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from remask.search.plan import MAX_MARGIN
from remask.stats import MIN_SEED_MARGIN, Differences, Rule, accepts, improves


def remembering(scale: float) -> Rule:
    """The bar rises with every winner that was measured on the same rows, by `scale` times what
    the largest of k sums of pure noise is: about sqrt(2 log k) standard deviations."""
    asked = 0

    def rule(on_incumbent: Differences, on_seed: Differences) -> bool:
        nonlocal asked
        asked += 1
        return accepts(on_incumbent, scale * math.sqrt(2 * math.log(1 + asked)))

    return rule


def both_halves(on_incumbent: Differences, on_seed: Differences) -> bool:
    """Ahead on the first half of the rows and on the other, which is held out from it."""
    cut = len(on_incumbent) // 2
    return accepts(on_incumbent[:cut]) and accepts(on_incumbent[cut:])


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rule as it is compared. `last`: at the end the seed prompt comes back unless the prompt
    found is ahead of it by so many sqrt(sum of squares) on the validation rows."""

    make: Callable[[], Rule] | None  # None: the plan's own
    last: float = 0.0


def margins(step: float, ahead: float) -> Callable[[], Rule]:
    return lambda: partial(improves, incumbent_margin=step, seed_margin=ahead)


SHIPPED = f"ahead of the seed prompt by {MIN_SEED_MARGIN:g} to {MAX_MARGIN:g}"
RULES = {
    "any gain": Candidate(margins(0, 0)),
    **{f"a gain of {c:g}": Candidate(margins(c, 0)) for c in (0.25, 0.5, 1, 2)},
    **{
        f"ahead of the seed prompt by {c:g}": Candidate(margins(0, c)) for c in (0.25, 0.5, 0.75, 1)
    },
    SHIPPED: Candidate(None),
    "any gain, last look at 0.5": Candidate(margins(0, 0), last=0.5),
    "a bar that rises with use": Candidate(partial(remembering, 0.5)),
    "a gain on both halves": Candidate(lambda: both_halves),
}
