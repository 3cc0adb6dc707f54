"""The optimisers of the search benchmark: functions of a `Lab`, in several modules."""

from importlib import import_module

from benchmarks.search.lab import Optimiser

# Key, which is also the name of the function -> its module, and its name in tables.
_FOUND = {
    "remask": ("remask", "remask"),
    "remask_again": ("remask", "remask, other draws (A/A)"),
    "random_edits": ("remask", "remask, random words instead of the DLM"),
    "rewriter": ("rewriter", "135M autoregressive rewriter"),
    "gepa_reflector": ("gepa", "gepa, 135M reflector"),
    "gepa_remask": ("gepa", "gepa with remask as proposer"),
    "capo": ("guests", "CAPO, 135M writer"),
    "mipro": ("guests", "MIPROv2 with demonstrations, 135M proposer"),
    "few_shot": ("baselines", "few-shot, best of random demonstrations"),
    "remask_plain": ("remask", "remask with --demos 0"),
    "remask_demos": ("remask", "remask with up to eight demonstrations"),
    "templates": ("baselines", "best of human templates"),
    "remask_strong": ("remask", "remask, scripted strong writer"),
    "gepa_strong": ("gepa", "gepa, scripted strong reflector"),
    "mipro_strong": ("guests", "MIPROv2, scripted strong proposer"),
    "nothing": ("baselines", "the seed prompt"),
}
NAMES = {key: name for key, (_, name) in _FOUND.items()}


def load_optimiser(key: str) -> Optimiser:
    """Import an optimiser only when it runs: each needs other libraries."""
    module = import_module(f"benchmarks.optimisers.{_FOUND[key][0]}")
    optimise: Optimiser = getattr(module, key)
    return optimise
