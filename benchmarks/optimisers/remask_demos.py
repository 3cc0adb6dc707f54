"""remask with up to eight demonstrations, as many as few-shot selection shows."""

from harness.lab import Lab
from optimisers.searching import search_with
from remask.api.build_models import make_denoiser
from remask.api.build_proposer import make_proposer, with_demos
from remask.config import make_config

SHOWN = 8


def optimise(lab: Lab) -> None:
    values = lab.config.model_dump()
    config = make_config({**values, "search": {**values["search"], "demos": SHOWN}}, "benchmark")
    plain = make_proposer(config, lab.start, make_denoiser(config.dlm), lab.bench.labels)
    search_with(lab, with_demos(config, lab.start, plain), lab.seed)
