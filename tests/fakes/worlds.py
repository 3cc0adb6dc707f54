"""Small worlds with a known answer, in which a whole search runs in milliseconds.

Known answer: the prompt "level 3" answers the rows of difficulty 1 to 3 right, so a prompt of level
n scores n / 10, and "level 10" is the best.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from remask.errors import BudgetSpent
from remask.ids import rng_for
from remask.ports import NO_REWARDS, Attribution, Proposal, Rewards
from remask.prompt import Prompt
from remask.types import Outcome, Split, Trace

TOP = 10


def level(prompt: Prompt) -> int:
    found = re.search(r"level (\d+)", prompt.text)
    return int(found[1]) if found else 0


@dataclass
class LevelTask:
    """Rows of difficulty 1 to TOP in every split; counts its calls; equal calls are free."""

    rows: int = 40
    limit: int | None = None
    fails: frozenset[str] = frozenset()
    calls: int = 0
    asked: set[tuple[int, str]] = field(default_factory=set)

    def ids(self, split: Split) -> tuple[str, ...]:
        return tuple(f"{split}-{i}" for i in range(self.rows))

    def evaluate(self, prompt: Prompt, ids: Sequence[str]) -> list[Outcome]:
        new = {(level(prompt), id) for id in ids} - self.asked
        if self.limit is not None and self.calls + len(new) > self.limit:
            raise BudgetSpent(f"no calls are left ({self.calls} of {self.limit} used)")
        self.calls += len(new)
        self.asked |= new
        return [self._outcome(prompt, id) for id in ids]

    def _outcome(self, prompt: Prompt, id: str) -> Outcome:
        if id in self.fails:
            return Outcome(id, "failed", error="no answer")
        score = float(level(prompt) >= 1 + int(id.split("-")[1]) % TOP)
        trace = Trace(id, f"question {id}", "answer", desired="right", score=score)
        return Outcome(id, "scored", score, score, trace=trace)


@dataclass(frozen=True)
class LevelProposer:
    """Proposes the parent's level plus a random step; now and then something forbidden."""

    steps: tuple[int, ...] = (-2, -1, 0, 1)
    forbidden: float = 0.1

    def count(self, text: str) -> int:
        return len(text.split())

    def propose(
        self, parent: Prompt, traces: Sequence[Trace], n: int, seed: int, rewards: Rewards = NO_REWARDS
    ) -> list[Proposal]:
        rng = rng_for(seed, "level")
        out = []
        for _ in range(n):
            now = level(parent)
            new = max(0, now + int(rng.choice(self.steps)))
            text = f"Work at level {new}." + " Please." * int(rng.integers(0, 3))
            out.append(
                Proposal(
                    prompt=Prompt(text),
                    masker="level",
                    masks=((0, len(parent.text), 4),),
                    edits=((0, len(parent.text), text),),
                    traces=tuple(t.id for t in traces[:3]),
                    logp=-1.0,
                    violation="forbidden" if rng.random() < self.forbidden else "",
                )
            )
        return out

    def explain(self, proposal: Proposal, traces: Sequence[Trace]) -> tuple[Attribution, ...]:
        return tuple(Attribution(id, (1.0,)) for id in proposal.traces)
