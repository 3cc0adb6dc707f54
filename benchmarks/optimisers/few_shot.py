"""Few-shot selection, what most users do: the best of random demonstrations behind the seed."""

from benchmarks.optimisers.demos import with_demos
from benchmarks.optimisers.race import race
from benchmarks.search.lab import Lab
from remask.identity import rng_for

SHOTS = (2, 4, 8)
CALLS_PER_SET = 38  # 21 sets take 780 of 800 calls


def optimise(lab: Lab) -> None:
    sets = max(1, lab.cap // CALLS_PER_SET)
    race(
        lab,
        [
            with_demos(lab, SHOTS[i % len(SHOTS)], rng_for(lab.seed, "demos", i))
            for i in range(sets)
        ],
    )
