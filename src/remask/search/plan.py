"""Plan how a search spends its calls: candidates, rungs, rounds and the acceptance margin."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from remask.stats import MIN_SEED_MARGIN, Rule, improves

MAX_MARGIN = 1.1  # in standard deviations of a sum whose true value is 0
ROUNDS_PER_MARGIN = 3  # rounds per standard deviation of the margin
MAX_CANDIDATES, MIN_CANDIDATES = 24, 6  # per round
MAX_TRAIN_ROWS = 18  # per round
MIN_VALIDATION_ROWS = 75  # if the split has as many; with fewer, scores are too uncertain


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """How a search spends its calls. `make_plan` derives it from the budget."""

    candidates: int  # per round
    rungs: tuple[int, ...]  # train rows that each rung adds; a third of the candidates continue
    rounds: int  # maximum
    patience: int  # the search stops after this many rounds without an accepted edit
    validation: int | None = None  # validation rows that are used; None for all
    accepts: Rule = improves  # whether the winner of a round becomes the incumbent

    def count_validation_rows(self, rows: int) -> int:
        """Return how many of `rows` validation rows are used."""
        return rows if self.validation is None else min(rows, self.validation)

    def count_round_calls(self, validation: int) -> int:
        """Return the largest number of target calls of a round. validation: rows of that split."""
        return count_round_calls(self.candidates, self.rungs, self.count_validation_rows(validation))


def make_plan(
    calls: int | None,
    train: int,
    validation: int,
    cautious: bool = False,
    min_validation: int = MIN_VALIDATION_ROWS,
) -> SearchPlan:
    """Plan for `calls` target calls, without those of the final test; None means no limit.

    A round costs the incumbent on the train rows, the rungs, and the winner on the validation rows.
    Most candidates are much worse than their parent, so there are many of them, and two rows are
    enough to drop most. The number of candidates is chosen so that whole rounds use up the budget,
    because the calls of an incomplete round are wasted. Fewer validation rows allow more rounds,
    but with less than `min_validation` rows worse prompts are accepted too often (docs/log.md).
    """
    rungs, candidates = _split_rungs(min(train, MAX_TRAIN_ROWS)), MAX_CANDIDATES
    if calls is None:
        return SearchPlan(candidates, rungs, 30, 6, accepts=_choose_rule(30, cautious))
    validation = min(validation, max(min_validation, calls // 8))
    left = calls - validation

    def cost(candidates: int) -> int:
        return count_round_calls(candidates, rungs, validation)

    rounds = -(-left // cost(candidates))
    rounds = max(1, min(rounds, left // cost(MIN_CANDIDATES)))
    while candidates > MIN_CANDIDATES and left < rounds * cost(candidates):
        candidates -= 3
    rule = _choose_rule(rounds, cautious)
    return SearchPlan(candidates, rungs, 4 * rounds, 6, validation, accepts=rule)


def _choose_rule(rounds: int, cautious: bool) -> Rule:
    """Return the acceptance rule. With more rounds more winners are chance, so the margin over the
    seed prompt grows with the number of rounds (docs/background/acceptance.md)."""
    if cautious:
        return partial(improves, incumbent_margin=MAX_MARGIN, seed_margin=MAX_MARGIN)
    margin = min(MAX_MARGIN, max(MIN_SEED_MARGIN, rounds / ROUNDS_PER_MARGIN))
    return partial(improves, seed_margin=margin)


def _split_rungs(rows: int) -> tuple[int, ...]:
    """Split train rows into three rungs, each about twice as long as all rungs before it."""
    first = -(-rows // 9)
    second = min(2 * first, rows - first)
    return tuple(n for n in (first, second, rows - first - second) if n)


def count_survivors(alive: int) -> int:
    """Return how many candidates continue with the next rung."""
    return max(1, -(-alive // 3))


def count_round_calls(candidates: int, rungs: Sequence[int], validation: int) -> int:
    """Return the largest number of target calls of a round."""
    alive, total = candidates, sum(rungs)
    for rung in rungs:
        total += alive * rung
        alive = count_survivors(alive)
    return total + validation
