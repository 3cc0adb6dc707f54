"""remask: optimise the system prompt of a frozen language model with a diffusion language model."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Evaluation",
    "Result",
    "Score",
    "evaluate",
    "optimize",
    "refine",
    "resume",
    "system_prompt_of",
]

if TYPE_CHECKING:
    from remask.api.evaluate import Evaluation, evaluate
    from remask.api.optimize import optimize, resume
    from remask.api.refine import refine
    from remask.runs.result import Result
    from remask.tasks.inspect.setup import system_prompt_of
    from remask.types import Score

_HOMES = {
    "Evaluation": "api.evaluate",
    "Result": "runs.result",
    "Score": "types",
    "evaluate": "api.evaluate",
    "optimize": "api.optimize",
    "refine": "api.refine",
    "resume": "api.optimize",
    "system_prompt_of": "tasks.inspect.setup",
}


def __getattr__(name: str) -> Any:
    """Public names load their room on first use: `import remask` stays under a few milliseconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'remask' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"remask.{_HOMES[name]}"), name)
