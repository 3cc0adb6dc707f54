"""Guard sets in simulated worlds: how often a run accepts an edit that loses on the guard rows, and
how often one that does not.

    python -m benchmarks.acceptance guards

Only candidates and answers are simulated; the search, its plan and the rule for guard sets are those
of remask. Every edit gains 5 points on the score. On the guard rows, of which the seed prompt
answers 95 % right, every edit loses 3 points in one world and nothing in the other; beside that a
share of the rows changes either way, as answers do under another wording.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from benchmarks.acceptance.world import START, Climate, Kind, World
from remask.events import GoalsSet, GuardSet, State, advance
from remask.ids import rng_for
from remask.ports import NO_REWARDS, Proposal, Rewards
from remask.prompt import Prompt
from remask.search.plan import make_plan
from remask.search.scores import search
from remask.stats import GUARD_TOLERANCE
from remask.types import Outcome, Trace

ACCURACY, GAIN = 0.70, 0.05  # of the seed prompt on scored rows; of every edit
GUARD_ACCURACY, LOSS = 0.95, 0.03  # of the seed prompt on guard rows; of every edit, where it loses
KEPT = 0.9  # correlation of the residues of parent and child on scored rows
# Correlations on guard rows, by the share of rows that change where nothing is lost.
CHURN = {"none": 1.0, "2 %": 0.97, "4 %": 0.877}
ROWS = (200, 400, 1000)  # of the guard set, on validation
TRAIN, VALIDATION, CALLS = 50, 150, 1200  # rows and calls, without those of the guard set
FRESH = 20_000  # first seed


@dataclass(frozen=True, slots=True)
class Place:
    """What edits do to the guard rows."""

    loss: float  # of accuracy, of each edit
    kept: float
    rows: int


class GuardedWorld(World):
    """A world with guard rows, whose answers have a mean and residues of their own."""

    def __init__(self, place: Place, limit: int, seed: int) -> None:
        shift = float(ndtri(ACCURACY + GAIN) - ndtri(ACCURACY))
        climate = Climate(ACCURACY, (Kind(1.0, shift, 0.0, KEPT),))
        super().__init__(climate, {"train": TRAIN, "validation": VALIDATION}, limit, seed)
        self.place = place
        self.guard_ids = tuple(f"guard {i}" for i in range(place.rows))
        self._guard_at = {id: i for i, id in enumerate(self.guard_ids)}
        self._guard_means = {START.id: float(ndtri(GUARD_ACCURACY))}
        residue = rng_for(seed, "guard rows").standard_normal(place.rows)
        self._guard_residues: dict[str, NDArray[np.float64]] = {START.id: residue}

    def true_guard(self, prompt: Prompt) -> float:
        """The accuracy over all possible guard rows."""
        return float(ndtr(self._guard_means[prompt.id]))

    def evaluate(self, prompt: Prompt, ids: Sequence[str]) -> list[Outcome]:
        if not ids or ids[0] not in self._guard_at:
            return super().evaluate(prompt, ids)
        self.charge(prompt, ids)
        at = [self._guard_at[id] for id in ids]
        right = self._guard_means[prompt.id] + self._guard_residues[prompt.id][at] > 0
        return [Outcome(id, "scored", float(r), float(r)) for id, r in zip(ids, right, strict=True)]

    def propose(
        self, parent: Prompt, traces: Sequence[Trace], n: int, seed: int, rewards: Rewards = NO_REWARDS
    ) -> list[Proposal]:
        found = super().propose(parent, traces, n, seed, rewards)
        rng, kept = rng_for(seed, "guard edits"), self.place.kept
        before = self.true_guard(parent)
        for proposal in found:
            new = rng.standard_normal(self.place.rows)
            self._guard_means[proposal.prompt.id] = float(ndtri(before - self.place.loss))
            old = self._guard_residues[parent.id]
            self._guard_residues[proposal.prompt.id] = kept * old + np.sqrt(1 - kept**2) * new
        return found


def play(place: Place, seed: int, margin: float = 0.0) -> tuple[bool, float, int]:
    """Whether a run accepts an edit, the true loss of its prompt on guard rows, and the guard tests."""
    calls = CALLS + 6 * place.rows
    world = GuardedWorld(place, calls, seed)
    goals = GoalsSet(guards=(GuardSet("safety", margin, world.guard_ids, ()),))
    state = advance(State(), goals)
    plan = make_plan(calls, TRAIN, VALIDATION, guard=place.rows)
    for event in search(state, START, plan, world, world, seed):
        state = advance(state, event)
    tests = sum(split == "guard" for _, split in state.scores) - 1
    loss = GUARD_ACCURACY - world.true_guard(state.prompt(state.incumbent))
    return bool(state.accepted), loss, tests


def tabulate_guards(runs: int) -> Iterator[dict[str, Any]]:
    """Yield a row per share of changing rows, number of rows and world."""
    for churn, kept in CHURN.items():
        for rows in ROWS:
            for loss in (0.0, LOSS):
                ends = [play(Place(loss, kept, rows), FRESH + seed) for seed in range(runs)]
                found = {
                    "churn": churn,
                    "rows": rows,
                    "loss": loss,
                    "runs": runs,
                    "accepted": round(float(np.mean([accepted for accepted, _, _ in ends])), 4),
                    "harmed": round(float(np.mean([lost > GUARD_TOLERANCE for _, lost, _ in ends])), 4),
                    "tests": round(float(np.mean([tests for _, _, tests in ends])), 2),
                }
                print(found, flush=True)
                yield found
