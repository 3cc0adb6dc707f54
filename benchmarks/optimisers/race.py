"""The best of a list of given prompts, by halving on validation rows."""

from collections.abc import Sequence

from harness.lab import Lab
from remask.identity import rng_for
from remask.prompt import Prompt

RUNGS = (20, 50, 150)  # validation rows read in all after each rung


def race(lab: Lab, prompts: Sequence[str], best: float, *path: str | int) -> float:
    """Report the winner if its mean over all validation rows passes `best`; the mean to beat next.

    A third goes on from each rung. The soft score ranks, as in remask. Raises BudgetSpent.
    """
    ids = lab.task.ids("validation")
    order = [ids[i] for i in rng_for(lab.seed, "race", *path).permutation(len(ids))]
    alive, soft, seen = list(dict.fromkeys(prompts)), dict.fromkeys(prompts, 0.0), 0
    for upto in RUNGS:
        for prompt in alive:
            outcomes = lab.task.evaluate(Prompt(prompt), order[seen:upto])
            soft[prompt] += sum(o.soft for o in outcomes if o.status == "scored")
        alive.sort(key=lambda prompt: -soft[prompt])
        alive, seen = alive[: max(1, -(-len(alive) // 3))], upto
        if upto == RUNGS[-2]:
            alive = alive[:1]
    mean = lab.validated(alive[0])
    if mean > best:
        lab.report(alive[0])
    return max(mean, best)
