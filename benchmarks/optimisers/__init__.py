"""The optimisers of the search benchmark, one file each; a file has a function `optimise(lab)`."""

from importlib import import_module

from benchmarks.search.lab import Optimiser

# Key (also the module) -> what a table calls it, honestly.
NAMES = {
    "remask": "remask",
    "remask_again": "remask, other draws (A/A)",
    "random_edits": "remask, random words instead of the DLM",
    "rewriter": "135M autoregressive rewriter",
    "gepa_reflector": "gepa, 135M reflector",
    "gepa_remask": "gepa with remask as proposer",
    "few_shot": "few-shot, best of random demonstrations",
    "remask_demos": "remask with up to eight demonstrations",
    "templates": "best of human templates",
    "nothing": "the seed prompt",
}


def load_optimiser(name: str) -> Optimiser:
    optimise: Optimiser = import_module(f"benchmarks.optimisers.{name}").optimise
    return optimise
