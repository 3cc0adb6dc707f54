"""Baselines without a model that writes: the seed prompt, human prompts, and demonstrations."""

from collections.abc import Sequence

import numpy as np

from benchmarks.search.lab import Lab
from remask.ids import rng_for
from remask.prompt import Prompt

RUNGS = (2 / 15, 1 / 3, 1)  # share of the validation rows read in all after each rung
SHOTS = (2, 4, 8)
CALLS_PER_SET = 38  # 21 sets take 780 of 800 calls


def nothing(lab: Lab) -> None:
    """Keep the seed prompt, from which all others start."""
    lab.validate(lab.bench.seed_prompt)
    lab.report(lab.bench.seed_prompt)


def templates(lab: Lab) -> None:
    """Take the best of the prompts that people wrote for the task."""
    race(lab, lab.bench.templates)


def few_shot(lab: Lab) -> None:
    """Take the best set of random demonstrations behind the seed prompt, as many users do."""
    sets = range(max(1, lab.cap // CALLS_PER_SET))
    draws = [(SHOTS[i % len(SHOTS)], rng_for(lab.seed, "demos", i)) for i in sets]
    race(lab, [add_demos(lab, n, rng) for n, rng in draws])


def race(lab: Lab, prompts: Sequence[str]) -> None:
    """Report the best of `prompts` and the seed by halving on validation rows, after every rung.

    A third of the prompts stays after the first rung, and the best one after the second. The
    ranking score decides, as in remask. Raises BudgetSpent.
    """
    ids = lab.task.ids("validation")
    order = [ids[i] for i in rng_for(lab.seed, "race").permutation(len(ids))]
    alive = list(dict.fromkeys([lab.bench.seed_prompt, *prompts]))
    soft, seen = dict.fromkeys(alive, 0.0), 0
    for upto, going in zip(
        [round(share * len(ids)) for share in RUNGS], (-(-len(alive) // 3), 1, 1), strict=True
    ):
        for prompt in alive:
            outcomes = lab.task.evaluate(Prompt(prompt), order[seen:upto])
            soft[prompt] += sum(o.ranking_score for o in outcomes if o.status == "scored")
        alive.sort(key=lambda prompt: -soft[prompt])
        lab.report(alive[0])
        alive, seen = alive[:going], upto


def add_demos(lab: Lab, n: int, rng: np.random.Generator) -> str:
    """The seed prompt and `n` train rows with their right answers; labels take turns."""
    rows = [lab.trained[i] for i in rng.permutation(len(lab.trained))]
    by_label: dict[str, list[tuple[str, str]]] = {}
    for question, answer in rows:
        by_label.setdefault(answer if lab.bench.labels else "", []).append((question, answer))
    chosen: list[tuple[str, str]] = []
    while len(chosen) < n and any(by_label.values()):
        for group in by_label.values():
            if group and len(chosen) < n:
                chosen.append(group.pop())
    shown = [chosen[i] for i in rng.permutation(len(chosen))]
    say = lab.bench.answer
    blocks = [f"{question}\n{say.replace('{label}', answer)}" for question, answer in shown]
    return "\n\n".join([lab.bench.seed_prompt, "Examples:", *blocks])
