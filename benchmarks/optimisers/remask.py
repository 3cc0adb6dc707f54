"""remask as shipped: its proposer, plan and acceptance at the defaults."""

from harness.lab import Lab
from optimisers.searching import search_with
from remask.api.build_models import make_denoiser
from remask.api.build_proposer import make_proposer


def optimise(lab: Lab) -> None:
    optimise_from(lab, lab.seed)


def optimise_from(lab: Lab, seed: int) -> None:
    denoiser = make_denoiser(lab.config.dlm)
    search_with(lab, make_proposer(lab.config, lab.start, denoiser, lab.bench.labels), seed)
