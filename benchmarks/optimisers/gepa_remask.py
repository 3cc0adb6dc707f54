"""gepa's loop and acceptance with remask's diffusion proposer as reflection strategy."""

from benchmarks.optimisers.evolving import COMPONENT, evolve
from benchmarks.search.lab import Lab
from remask.integrations.gepa import DiffusionReflection


def optimise(lab: Lab) -> None:
    reflection = DiffusionReflection(
        {COMPONENT: lab.bench.seed_prompt},
        seed=lab.seed,
        labels=lab.bench.labels,
        answer=lab.bench.answer,
    )
    evolve(lab, reflection_strategy=reflection)
