"""Few-shot selection, what most users do: the best of random demonstrations behind the seed."""

from harness.demos import with_demos
from harness.lab import Lab
from optimisers.race import race
from remask.identity import rng_for

SHOTS = (2, 4, 8)
SETS = 12  # of demonstrations that race at a time


def optimise(lab: Lab) -> None:
    best, turn = lab.validated(lab.bench.seed_prompt), 0
    while True:  # until the budget is spent
        prompts = []
        for i in range(SETS):
            rng = rng_for(lab.seed, "demos", turn, i)
            prompts.append(with_demos(lab, SHOTS[i % len(SHOTS)], rng))
        best = race(lab, prompts, best, turn)
        turn += 1
