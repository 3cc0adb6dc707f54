"""Plan how a search spends its calls: candidates, rungs, rounds and the acceptance margin."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from remask.stats import MIN_SEED_MARGIN, Rule, improves

MAX_MARGIN = 1.1  # in standard deviations of a sum whose true value is 0
ROUNDS_PER_MARGIN = 2  # rounds per standard deviation of the margin
MAX_CANDIDATES, MIN_CANDIDATES, CANDIDATES_STEP = 24, 6, 3  # per round
MAX_TRAIN_ROWS = 18  # per round
MAX_SURVIVORS = (1 / 3, 1 / 9)  # of the candidates of a round, after its first rungs
PATIENCE = 10  # rounds without an accepted edit; one that is rejected early costs half of a round
MIN_VALIDATION_ROWS = 50  # if the split has as many; with fewer, scores are too uncertain


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """How a search spends its calls. `make_plan` derives it from the budget."""

    candidates: int  # per round; of the first one where there is a limit of calls
    rungs: tuple[int, ...]  # train rows that each rung of the race adds
    rounds: int  # maximum
    patience: int  # the search stops after this many rounds without an accepted edit
    validation: int | None = None  # validation rows that are used; None for all
    accepts: Rule = improves  # whether the winner of a round becomes the incumbent
    calls: int | None = None  # that the rounds share, those of the baseline included; None: no limit
    margin: float = MIN_SEED_MARGIN  # of `accepts`, against the seed prompt or the leader
    guard: int = 0  # guard rows, which the winner of a round is asked too

    def choose_candidates(self, spent: int) -> int:
        """Return the number of candidates of the next round, where `spent` calls are spent.

        Rounds that cost less than usual leave calls for more candidates, or for one more round.
        """
        if self.calls is None or self.validation is None:
            return self.candidates
        left, shape = self.calls - spent, (self.rungs, self.validation + self.guard)
        return fit_candidates(left, count_rounds(left, *shape), *shape)

    def count_validation_rows(self, rows: int) -> int:
        """Return how many of `rows` validation rows are used."""
        return rows if self.validation is None else min(rows, self.validation)

    def count_round_calls(self, validation: int) -> int:
        """Return the largest number of target calls of a round. validation: rows of that split."""
        last = self.count_validation_rows(validation) + self.guard
        return count_round_calls(self.candidates, self.rungs, last)


def make_plan(
    calls: int | None,
    train: int,
    validation: int,
    cautious: bool = False,
    min_validation: int = MIN_VALIDATION_ROWS,
    guard: int = 0,
) -> SearchPlan:
    """Plan for `calls` target calls, without those of the final test; None means no limit.

    `guard`: rows of guard sets, which the baseline and the winner of a round are asked too.
    A round costs the incumbent on the train rows, the race, and the winner on the validation rows.
    Most candidates are much worse than their parent, so there are many of them, and two rows are
    enough to drop many. The number of candidates is chosen so that whole rounds use up the
    budget, because the calls of an incomplete round are wasted. Fewer validation rows allow more rounds,
    but with less than `min_validation` rows worse prompts are accepted too often (docs/log.md).
    """
    rungs, candidates = _split_rungs(min(train, MAX_TRAIN_ROWS)), MAX_CANDIDATES
    if calls is None:
        margin = _choose_margin(30, cautious)
        rule = _make_rule(margin, cautious)
        return SearchPlan(candidates, rungs, 30, PATIENCE, accepts=rule, margin=margin, guard=guard)
    validation = min(validation, max(min_validation, calls // 10 + 25))
    last = validation + guard
    rounds = count_rounds(calls - last, rungs, last)
    candidates = fit_candidates(calls - last, rounds, rungs, last)
    margin = _choose_margin(rounds, cautious)
    rule = _make_rule(margin, cautious)
    return SearchPlan(candidates, rungs, 4 * rounds, PATIENCE, validation, rule, calls, margin, guard)


def count_rounds(left: int, rungs: Sequence[int], validation: int) -> int:
    """Return how many rounds `left` calls pay: few rounds of many candidates."""
    large, small = (count_round_calls(n, rungs, validation) for n in (MAX_CANDIDATES, MIN_CANDIDATES))
    return max(1, min(-(-left // large), left // small))


def fit_candidates(left: int, rounds: int, rungs: Sequence[int], validation: int) -> int:
    """Return how many candidates a round may have, so that `left` calls pay `rounds` rounds."""
    for candidates in range(MAX_CANDIDATES, MIN_CANDIDATES, -CANDIDATES_STEP):
        if rounds * count_round_calls(candidates, rungs, validation) <= left:
            return candidates
    return MIN_CANDIDATES


def _choose_margin(rounds: int, cautious: bool) -> float:
    """Return the margin over the seed prompt. With more rounds more winners are chance, so it grows
    with the number of rounds (docs/background/acceptance.md)."""
    return MAX_MARGIN if cautious else min(MAX_MARGIN, max(MIN_SEED_MARGIN, rounds / ROUNDS_PER_MARGIN))


def _make_rule(margin: float, cautious: bool) -> Rule:
    """Return the acceptance rule."""
    if cautious:
        return partial(improves, incumbent_margin=margin, seed_margin=margin)
    return partial(improves, seed_margin=margin)


def _split_rungs(rows: int) -> tuple[int, ...]:
    """Split train rows into four rungs: about a ninth of them, two ninths, and twice a third."""
    first = -(-rows // 9)
    second = min(2 * first, rows - first)
    third = min(3 * first, rows - first - second)
    return tuple(n for n in (first, second, third, rows - first - second - third) if n)


def count_survivors(candidates: int, rung: int) -> int:
    """Return how many of the candidates of a round continue after a rung, at most."""
    return max(1, math.ceil(candidates * MAX_SURVIVORS[min(rung, len(MAX_SURVIVORS) - 1)]))


def count_round_calls(candidates: int, rungs: Sequence[int], validation: int) -> int:
    """Return the largest number of target calls of a round."""
    alive, total = candidates, sum(rungs)
    for rung, rows in enumerate(rungs):
        total += alive * rows
        alive = count_survivors(candidates, rung)
    return total + validation
