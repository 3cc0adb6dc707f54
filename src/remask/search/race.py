"""Race the candidates of a round on train rows: which of them are asked on, and which one leads.

After each rung a candidate leaves where it is behind the leader by more than one standard error of
their paired difference, or where too many others are ahead of it. The first limit is that of a
racing algorithm (Maron and Moore, 1994; Birattari et al., 2002), the second that of successive
halving (arXiv 1502.07943). Only ranking scores count, since they have less noise than right or
wrong, which matters on few rows. The figures that chose the limits are in docs/log.md.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from remask.ports import Proposal
from remask.search.goals import Preference
from remask.types import Outcome

DROP_MARGIN = 1.0  # standard errors that a candidate may be behind the leader
PRIOR_ROWS = 2  # for which the variance of a difference counts as that of all candidates


class Race:
    """The leads of candidates over their parent, row by row."""

    def __init__(self, parent_scores: Mapping[str, float], preference: Preference | None = None) -> None:
        """`parent_scores`: the ranking score of the parent on each train row that it has one for.

        `preference`: a candidate that is better on it may be behind by as much as it allows.
        """
        self._parent = parent_scores
        self._leads: dict[str, dict[str, float]] = {}
        self._preference = preference
        self._answers: dict[str, list[Outcome]] = {}
        self._gains: dict[str, float] = {}  # on the preference

    def add(self, proposal: Proposal, outcomes: Sequence[Outcome], tokens: int = 0) -> None:
        """Add rows of a candidate, except for those whose answers its prompt shows.

        `tokens`: of its prompt, for a preference.
        """
        if self._preference is not None:
            answers = self._answers.setdefault(proposal.prompt.id, [])
            answers += outcomes
            self._gains[proposal.prompt.id] = self._preference.gain(tokens, answers)
        leads = self._leads.setdefault(proposal.prompt.id, {})
        for o in outcomes:
            if o.status == "scored" and o.example in self._parent and o.example not in proposal.demo_rows:
                leads[o.example] = o.ranking_score - self._parent[o.example]

    def measure_lead(self, proposal: Proposal) -> float:
        """Return the mean lead of a candidate over its parent, with what a preference allows it.

        It is 0 where the candidate has no row.
        """
        leads = self._leads[proposal.prompt.id]
        if not leads:
            return 0.0
        allowed = 0.0
        if self._preference is not None:
            allowed = self._preference.allow(self._gains[proposal.prompt.id])
        return sum(leads.values()) / len(leads) + allowed

    def rank(self, proposals: Collection[Proposal]) -> list[Proposal]:
        """Return the candidates, the best first."""
        return sorted(proposals, key=lambda p: (-self.measure_lead(p), p.prompt.id))

    def drop(self, proposals: Collection[Proposal], most: int) -> list[Proposal]:
        """Return at most `most` candidates that may still be the best, the leader first.

        Where only the preference counts, the one that gains most on it leads those that are ahead.
        """
        leader, *others = self.rank(proposals)
        pooled = self._pool_variance(proposals)
        near = [leader, *(p for p in others if not self._is_behind(p, leader, pooled))]
        if self._preference is not None and self._preference.only:
            near.sort(key=lambda p: (self.measure_lead(p) <= 0, -self._gains[p.prompt.id]))
        return near[: max(1, most)]

    def _pool_variance(self, proposals: Collection[Proposal]) -> float:
        """Return the variance of the difference of two candidates on a row, over all of them."""
        each = [np.array(list(self._leads[p.prompt.id].values())) for p in proposals]
        centred = np.concatenate([leads - leads.mean() for leads in each if len(leads)] or [np.zeros(1)])
        return 2 * float((centred**2).mean())

    def _is_behind(self, proposal: Proposal, leader: Proposal, pooled: float) -> bool:
        own, best = self._leads[proposal.prompt.id], self._leads[leader.prompt.id]
        gaps = np.array([best[row] - own[row] for row in own if row in best])
        if not len(gaps):
            return False
        squares = float(((gaps - gaps.mean()) ** 2).sum()) + PRIOR_ROWS * pooled
        error = math.sqrt(squares / (len(gaps) + PRIOR_ROWS) / len(gaps))
        return float(gaps.mean()) > DROP_MARGIN * error
