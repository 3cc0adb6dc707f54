"""`refine` of the public API: refine a prompt by conversations, and with a target compare both."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from remask.api.arguments import (
    Budget,
    Denoiser,
    Function,
    Judge,
    Label,
    Search,
    Target,
    Workers,
    settle_arguments,
)
from remask.api.awaitable import make_async
from remask.api.build_models import Respond
from remask.api.job import Hooks, OnEvent, add_callback, choose_run_dir
from remask.api.optimize import start_run
from remask.api.show_progress import open_progress
from remask.config import Config, LockName, make_config, merged
from remask.errors import ConfigError
from remask.ports import DenoiserModel, Metric
from remask.runs.result import Result
from remask.search.likelihood import DEFAULT_CANDIDATES

ITERATIONS = 8
MASKERS = ("attribution", "span", "insert", "sentence")  # used in turn
CONTEXT_TOKENS = 1000  # of the conversations that the denoiser reads; they cost no target calls


def refine(
    prompt: str | Path,
    traces: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    target: str | Respond | Target | None = None,
    metric: str | Metric | Label | Judge | Function | None = None,
    denoiser: str | DenoiserModel | Denoiser = "builtin",
    iterations: int = ITERATIONS,
    lock: LockName = "numbers",
    columns: Sequence[str] = (),
    scales: Sequence[str] = (),
    redact: bool = True,
    max_calls: int | None = None,
    budget: Budget | None = None,
    search: Search | None = None,
    seed: int = 0,
    workers: int | Workers | None = None,
    run_dir: str | Path | None = None,
    on_event: OnEvent | None = None,
    progress: bool | None = None,
) -> Result:
    """Refine a system prompt by the conversations in the files `traces`, without labels.

    Without `target` nothing is verified, and the verdict is "unverified". With it, both prompts
    answer conversations that the refinement has not seen, and `metric` compares the answers with
    corrections and well-rated responses (default: "label" where the right answers are a few labels,
    else "f1"). lock: the part of the prompt that may not change: "text" (sentences are only added),
    "numbers" or "none". columns, scales: as --map and --scale of the command line. redact: replace
    personal data and secrets before anything is read. The others are those of `optimize`.

    Raises ConfigError and DataError before anything is computed. The verification may raise
    TargetRefused and TargetUnreliable; result.json is then written with the verdict "unverified".

    >>> import json, pathlib, remask
    >>> chats = [
    ...     [
    ...         {"role": "user", "content": f"I need a wheel of {n} inches."},
    ...         {"role": "assistant", "content": "Which bicycle is it for?"},
    ...     ]
    ...     for n in range(12, 20)
    ... ]
    >>> lines = [json.dumps({"id": n, "messages": chat}) for n, chat in enumerate(chats)]
    >>> written = pathlib.Path("chats.jsonl").write_text("\\n".join(lines))
    >>> search = remask.Search(candidates=2)
    >>> result = remask.refine("Help customers.", "chats.jsonl", iterations=1, search=search)
    >>> result.verdict
    'unverified'
    """
    files = [traces] if isinstance(traces, str | os.PathLike) else traces
    section = {
        "traces": [str(Path(file).resolve()) for file in files], "columns": list(columns), "redact": redact,
        "scales": list(scales), "lock": lock, "iterations": iterations, "verify": target is not None,
    }  # fmt: skip
    values, given = settle_arguments(
        prompt, data=None, target=target, metric=metric, denoiser=denoiser, max_calls=max_calls,
        budget=budget, search=search, workers=workers, more={"seed": seed, "refine": section},
    )  # fmt: skip
    config, hooks = make_refine_config(values, "arguments"), add_callback(Hooks(), on_event)
    with choose_run_dir(run_dir) as folder, open_progress(progress, hooks, str(folder)) as shown:
        return start_run(config, given, folder, shown)


def make_refine_config(
    values: Mapping[str, Any], where: str, options: Mapping[str, str] | None = None
) -> Config:
    """Make a configuration with the defaults of `refine`, and maskers that respect the lock.

    Raises ConfigError; `where` and `options` are those of `make_config`.
    """
    search = {"maskers": MASKERS, "candidates": DEFAULT_CANDIDATES, "context_tokens": CONTEXT_TOKENS}
    config = make_config(merged({"search": search}, values), where, options)
    if config.refine is None or config.refine.lock != "text":
        return config
    if config.search.maskers not in (MASKERS, ("insert",)):
        raise ConfigError(
            "with --lock text only the masker insert can be used; leave out --masker or the lock"
        )
    kept = config.search.model_copy(update={"maskers": ("insert",)})
    return config.model_copy(update={"search": kept})


refine_async = make_async(refine)
