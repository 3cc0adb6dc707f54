"""A/A: remask on the same rows, with other draws of its search and of its proposer.

What it differs from remask is the noise that a difference of any two optimisers is made of.
"""

from benchmarks.optimisers.remask import optimise_from
from benchmarks.search.lab import Lab
from remask.identity import seed_for


def optimise(lab: Lab) -> None:
    optimise_from(lab, seed_for(lab.seed, "again"))
