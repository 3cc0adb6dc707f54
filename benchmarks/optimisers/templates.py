"""Best of the prompts that people write for the task."""

from benchmarks.optimisers.race import race
from benchmarks.search.lab import Lab


def optimise(lab: Lab) -> None:
    race(lab, lab.bench.templates)
