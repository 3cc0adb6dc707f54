"""How a search spends its calls: candidates, rungs, rounds and the margin of acceptance."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from remask.stats import MIN_SEED_MARGIN, Rule, improves

MAX_MARGIN = 1.1  # the largest margin, in standard deviations of a sum whose true value is 0
ROUNDS_PER_MARGIN = 3  # so many rounds make a margin of one standard deviation

MAX_CANDIDATES, MIN_CANDIDATES = 24, 6  # of a round, at most and at least

MAX_TRAIN_ROWS = 18  # train rows of a round
MIN_VALIDATION_ROWS = 75  # rows, where there are so many: fewer tell too little of a candidate


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """How a search spends its calls; every number is derived from the budget by `make_plan`."""

    candidates: int  # per round
    rungs: tuple[int, ...]  # train rows that each rung adds; a third goes on to the next
    rounds: int  # at most
    patience: int  # rounds without an acceptance before the search gives up
    validation: int | None = None  # rows of that split that are asked; None: all
    accepts: Rule = improves  # whether the winner's leads on validation rows make it incumbent

    def count_validation_rows(self, rows: int) -> int:
        """Validation rows that are asked, of so many."""
        return rows if self.validation is None else min(rows, self.validation)

    def count_round_calls(self, validation: int) -> int:
        """Target calls of one round, at most, with so many rows in the validation split."""
        return count_round_calls(
            self.candidates, self.rungs, self.count_validation_rows(validation)
        )


def make_plan(
    calls: int | None,
    train: int,
    validation: int,
    cautious: bool = False,
    min_validation: int = MIN_VALIDATION_ROWS,
) -> SearchPlan:
    """A plan for `calls` target calls (without those of the final test; None: no limit).

    One round costs the incumbent on the train rows, the rungs, and the winner on validation. Most
    candidates are far worse than their parent, so there are many and two rows are enough to drop
    most of them. Calls that pay for no whole round are lost, so there are as many candidates as let
    whole rounds use up the budget. Few validation rows, `fewest` at least, buy more rounds; fewer
    still would do harm too often (docs/log.md, plans).
    """
    rungs, candidates = _split_rungs(min(train, MAX_TRAIN_ROWS)), MAX_CANDIDATES
    if calls is None:
        return SearchPlan(candidates, rungs, 30, 6, accepts=_choose_rule(30, cautious))
    validation = min(validation, max(min_validation, calls // 8))
    left = calls - validation
    rounds = -(-left // count_round_calls(candidates, rungs, validation))
    rounds = max(1, min(rounds, left // count_round_calls(MIN_CANDIDATES, rungs, validation)))
    while candidates > MIN_CANDIDATES and left < rounds * count_round_calls(
        candidates, rungs, validation
    ):
        candidates -= 3
    return SearchPlan(
        candidates, rungs, 4 * rounds, 6, validation, accepts=_choose_rule(rounds, cautious)
    )


def _choose_rule(rounds: int, cautious: bool) -> Rule:
    """What must be ahead by how much: the more rounds a budget pays for, the more winners chance
    has, so the seed prompt is left by a margin that grows with them
    (docs/background/acceptance.md)."""
    if cautious:
        return partial(improves, incumbent_margin=MAX_MARGIN, seed_margin=MAX_MARGIN)
    return partial(
        improves, seed_margin=min(MAX_MARGIN, max(MIN_SEED_MARGIN, rounds / ROUNDS_PER_MARGIN))
    )


def _split_rungs(rows: int) -> tuple[int, ...]:
    """Train rows for three rungs, each about twice as long as those before it together."""
    first = -(-rows // 9)
    second = min(2 * first, rows - first)
    return tuple(n for n in (first, second, rows - first - second) if n)


def count_survivors(alive: int) -> int:
    """Candidates that go on to the next rung."""
    return max(1, -(-alive // 3))


def count_round_calls(candidates: int, rungs: Sequence[int], validation: int) -> int:
    """Target calls of one round, at most."""
    alive, total = candidates, sum(rungs)
    for rung in rungs:
        total += alive * rung
        alive = count_survivors(alive)
    return total + validation
