"""remask as shipped: its proposer, plan and acceptance at the defaults."""

from benchmarks.optimisers.searching import search_with
from benchmarks.search.lab import Lab
from remask.denoisers import make_denoiser
from remask.proposers import make_proposer


def optimise(lab: Lab) -> None:
    optimise_from(lab, lab.seed)


def optimise_from(lab: Lab, seed: int) -> None:
    denoiser = make_denoiser(lab.config.dlm)
    search_with(lab, make_proposer(lab.config, lab.start, denoiser, lab.bench.labels), seed)
