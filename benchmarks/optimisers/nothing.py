"""The seed prompt is kept: where all others start."""

from benchmarks.search.lab import Lab


def optimise(lab: Lab) -> None:
    lab.validated(lab.bench.seed_prompt)
    lab.report(lab.bench.seed_prompt)
