"""remask whose rounds also try two earlier edits at once (`search.combine`): an ablation."""

from dataclasses import replace

from harness.lab import Lab
from optimisers.searching import search_with
from remask.denoisers import make_denoiser
from remask.proposers import make_proposer
from remask.wire import COMBINED


def optimise(lab: Lab) -> None:
    denoiser = make_denoiser(lab.config.dlm)
    proposer = make_proposer(lab.config, lab.start, denoiser, lab.bench.labels)
    search_with(
        lab, proposer, lab.seed, lambda plan: replace(plan, combined=plan.candidates // COMBINED)
    )
