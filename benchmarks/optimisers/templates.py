"""Best of the prompts that people write for the task."""

from harness.lab import Lab
from optimisers.race import race


def optimise(lab: Lab) -> None:
    race(lab, lab.bench.templates)
