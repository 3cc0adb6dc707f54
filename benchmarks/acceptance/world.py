"""A world whose prompts have a true accuracy, behind the ports of the real search.

Each row has a latent value under each prompt: the prompt's mean plus a standard normal residue. The
row is right where the sum is above 0, so a prompt's true accuracy over all rows is known exactly.
An edit shifts the mean and redraws a part of every residue, which is why two prompts of equal
accuracy differ on many rows. Both come from a mixture that was fitted to real candidates.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr, ndtri

from remask.errors import BudgetSpent
from remask.ids import rng_for
from remask.ports import NO_REWARDS, Attribution, Proposal, Rewards
from remask.prompt import Prompt
from remask.types import Outcome, Split, Trace

START = Prompt("start")
STEEPNESS = 3.0  # of the soft score over the latent value
CEILING = 0.92  # accuracy that no prompt passes


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of edit: what it adds to the latent mean, and what it keeps of the residues."""

    share: float
    mean: float
    sd: float
    kept: float  # correlation of the residues of parent and child


@dataclass(frozen=True, slots=True)
class Climate:
    """The distribution of candidates. `best` caps the shift of an edit; 0 means none is better."""

    accuracy: float  # of the seed prompt
    kinds: tuple[Kind, ...]
    best: float = np.inf
    flat: bool = False  # every edit shifts by nothing: the null

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Draw (shifts, kept) of n edits."""
        edges = np.cumsum([kind.share for kind in self.kinds])
        drawn = np.minimum(np.searchsorted(edges, rng.random(n)), len(self.kinds) - 1)
        values = np.array([(kind.mean, kind.sd, kind.kept) for kind in self.kinds])[drawn]
        shifts = np.minimum(values[:, 0] + values[:, 1] * rng.standard_normal(n), self.best)
        return (np.zeros(n) if self.flat else shifts), values[:, 2]


class World:
    """A simulated task and proposer. As in the ledger, equal calls are counted once.

    `limit`: calls that the search may spend.
    """

    labels: tuple[str, ...] = ()

    def __init__(self, climate: Climate, rows: dict[Split, int], limit: int, seed: int) -> None:
        self.climate, self.limit, self.calls = climate, limit, 0
        self._ids: dict[Split, tuple[str, ...]] = {
            split: tuple(f"{split} {i}" for i in range(n)) for split, n in rows.items()
        }
        every = [id for ids in self._ids.values() for id in ids]
        self._at = {id: i for i, id in enumerate(every)}
        residue = rng_for(seed, "rows").standard_normal(len(every))
        self._means = {START.id: float(ndtri(climate.accuracy))}
        self._residues: dict[str, NDArray[np.float64]] = {START.id: residue}
        self._asked: dict[str, set[str]] = defaultdict(set)  # rows by prompt

    def true_accuracy(self, prompt: Prompt) -> float:
        """The accuracy over all possible rows."""
        return float(ndtr(self._means[prompt.id]))

    def score_rows(self, prompt: Prompt, split: Split) -> list[float]:
        """Scores on all rows of a split, at no cost."""
        values = self._means[prompt.id] + self._residues[prompt.id]
        return [float(values[self._at[id]] > 0) for id in self._ids[split]]

    def ids(self, split: Split) -> tuple[str, ...]:
        return self._ids[split]

    def charge(self, prompt: Prompt, ids: Sequence[str]) -> None:
        """Count the calls for rows that a prompt was not asked before. Raises BudgetSpent."""
        asked = self._asked[prompt.id]
        new = set(ids) - asked
        if self.calls + len(new) > self.limit:
            raise BudgetSpent("all spent")
        self.calls += len(new)
        asked |= new

    def evaluate(self, prompt: Prompt, ids: Sequence[str]) -> list[Outcome]:
        self.charge(prompt, ids)
        values = self._means[prompt.id] + self._residues[prompt.id][[self._at[i] for i in ids]]
        return [
            Outcome(id, "scored", float(value > 0), float(soft))
            for id, value, soft in zip(ids, values, expit(STEEPNESS * values), strict=True)
        ]

    def count(self, text: str) -> int:
        return 1

    def propose(
        self, parent: Prompt, traces: Sequence[Trace], n: int, seed: int, rewards: Rewards = NO_REWARDS
    ) -> list[Proposal]:
        rng, found = rng_for(seed, "edits"), []
        old, mean = self._residues[parent.id], self._means[parent.id]
        new = rng.standard_normal((n, len(old)))
        for i, (shift, kept) in enumerate(zip(*self.climate.draw(n, rng), strict=True)):
            prompt = Prompt(f"candidate {seed} {i}")
            self._means[prompt.id] = min(mean + float(shift), float(ndtri(CEILING)))
            self._residues[prompt.id] = kept * old + np.sqrt(1 - kept**2) * new[i]
            edit = (0, len(parent.text), prompt.text)
            found.append(Proposal(prompt, "drawn", ((*edit[:2], 1),), (edit,), (), 0.0))
        return found

    def explain(self, proposal: Proposal, traces: Sequence[Trace]) -> tuple[Attribution, ...]:
        return ()
