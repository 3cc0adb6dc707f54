"""remask: optimise the system prompt of a frozen language model with a diffusion language model."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from remask.api.arguments import Budget as Budget
    from remask.api.arguments import Dataset as Dataset
    from remask.api.arguments import Denoiser as Denoiser
    from remask.api.arguments import InspectTask as InspectTask
    from remask.api.arguments import Judge as Judge
    from remask.api.arguments import Label as Label
    from remask.api.arguments import Search as Search
    from remask.api.arguments import Target as Target
    from remask.api.evaluate import Evaluation as Evaluation
    from remask.api.evaluate import evaluate as evaluate
    from remask.api.evaluate import evaluate_async as evaluate_async
    from remask.api.optimize import optimize as optimize
    from remask.api.optimize import optimize_async as optimize_async
    from remask.api.optimize import resume as resume
    from remask.api.optimize import resume_async as resume_async
    from remask.api.refine import refine as refine
    from remask.api.refine import refine_async as refine_async
    from remask.runs.result import Result as Result
    from remask.tasks.inspect.setup import system_prompt_of as system_prompt_of
    from remask.types import Score as Score

_ARGUMENTS = ("Budget", "Dataset", "Denoiser", "InspectTask", "Judge", "Label", "Search", "Target")
_HOMES = {
    **dict.fromkeys(_ARGUMENTS, "api.arguments"),
    **dict.fromkeys(("Evaluation", "evaluate", "evaluate_async"), "api.evaluate"),
    **dict.fromkeys(("optimize", "optimize_async", "resume", "resume_async"), "api.optimize"),
    **dict.fromkeys(("refine", "refine_async"), "api.refine"),
    "Result": "runs.result",
    "Score": "types",
    "system_prompt_of": "tasks.inspect.setup",
}
__all__ = [*sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import remask` takes only milliseconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'remask' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"remask.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not, for tab completion."""
    return sorted({*_HOMES, *(name for name in globals() if name.startswith("__"))})
