"""The best of a list of given prompts, the seed among them, by halving on validation rows."""

from collections.abc import Sequence

from benchmarks.search.lab import Lab
from remask.identity import rng_for
from remask.prompt import Prompt

RUNGS = (2 / 15, 1 / 3, 1)  # share of the validation rows read in all after each rung


def race(lab: Lab, prompts: Sequence[str]) -> None:
    """Report the leader after every rung. A third goes on from the first, the leader from the
    second; the soft score ranks, as in remask. Raises BudgetSpent."""
    ids = lab.task.ids("validation")
    order = [ids[i] for i in rng_for(lab.seed, "race").permutation(len(ids))]
    alive = list(dict.fromkeys([lab.bench.seed_prompt, *prompts]))
    soft, seen = dict.fromkeys(alive, 0.0), 0
    for upto, going in zip(
        [round(share * len(ids)) for share in RUNGS], (-(-len(alive) // 3), 1, 1), strict=True
    ):
        for prompt in alive:
            outcomes = lab.task.evaluate(Prompt(prompt), order[seen:upto])
            soft[prompt] += sum(o.soft for o in outcomes if o.status == "scored")
        alive.sort(key=lambda prompt: -soft[prompt])
        lab.report(alive[0])
        alive, seen = alive[:going], upto
