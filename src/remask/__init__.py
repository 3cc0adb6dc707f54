"""remask: optimise the system prompt of a frozen language model with a diffusion language model."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from remask import errors as errors
    from remask import events as events
    from remask import ports as ports
    from remask import types as types
    from remask.api.arguments import (
        Budget,
        Dataset,
        Denoiser,
        Function,
        InspectTask,
        Judge,
        Label,
        Objective,
        Search,
        Target,
        Workers,
    )
    from remask.api.evaluate import Evaluation, evaluate, evaluate_async
    from remask.api.load_target import load_target
    from remask.api.optimize import optimize, optimize_async, resume, resume_async
    from remask.api.pilot import Pilot, pilot, pilot_async
    from remask.api.refine import refine, refine_async
    from remask.api.shorten import shorten, shorten_async
    from remask.api.watch import Night, watch, watch_async
    from remask.data.places import read_places, write_places
    from remask.runs.result import Result
    from remask.tasks.inspect.setup import system_prompt_of
    from remask.types import Score

__all__ = [
    "Budget", "Dataset", "Denoiser", "Evaluation", "Function", "InspectTask", "Judge", "Label", "Night",
    "Objective", "Pilot", "Result", "Score", "Search", "Target", "Workers", "evaluate", "evaluate_async",
    "load_target", "optimize", "optimize_async", "pilot", "pilot_async", "read_places", "refine",
    "refine_async", "resume", "resume_async", "shorten", "shorten_async", "system_prompt_of", "watch",
    "watch_async", "write_places",
]  # fmt: skip
_MODULES = ("errors", "events", "ports", "types")  # whose names users write, as remask.errors.DataError
_HOMES = {
    **dict.fromkeys(__all__, "api.arguments"),
    **dict.fromkeys(("Evaluation", "evaluate", "evaluate_async"), "api.evaluate"),
    **dict.fromkeys(("optimize", "optimize_async", "resume", "resume_async"), "api.optimize"),
    **dict.fromkeys(("Pilot", "pilot", "pilot_async"), "api.pilot"),
    **dict.fromkeys(("refine", "refine_async"), "api.refine"),
    **dict.fromkeys(("shorten", "shorten_async"), "api.shorten"),
    **dict.fromkeys(("read_places", "write_places"), "data.places"),
    **dict.fromkeys(("Night", "watch", "watch_async"), "api.watch"),
    **{"load_target": "api.load_target", "Result": "runs.result", "Score": "types"},
    **{"system_prompt_of": "tasks.inspect.setup"},
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import remask` takes only milliseconds."""
    if name not in (*_HOMES, *_MODULES):
        raise AttributeError(f"module 'remask' has no attribute {name!r}")
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"remask.{name}")
    value = getattr(import_module(f"remask.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not, for tab completion."""
    return sorted({*_HOMES, *_MODULES, *(name for name in globals() if name.startswith("__"))})
