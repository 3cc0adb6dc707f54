"""remask with up to eight demonstrations, as many as few-shot selection shows."""

from benchmarks.optimisers.searching import search_with
from benchmarks.search.lab import Lab
from remask.config import make_config
from remask.denoisers import make_denoiser
from remask.proposers import make_proposer, with_demos

SHOWN = 8


def optimise(lab: Lab) -> None:
    values = lab.config.model_dump()
    config = make_config({**values, "search": {**values["search"], "demos": SHOWN}}, "benchmark")
    plain = make_proposer(config, lab.start, make_denoiser(config.dlm), lab.bench.labels)
    search_with(lab, with_demos(config, lab.start, plain), lab.seed)
