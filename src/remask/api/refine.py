"""`refine` of the public API: conversations to a better prompt, and with a target to a verdict."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from remask.api.build_models import Respond
from remask.api.job import Hooks, OnEvent, add_callback, give, name_of, new_run_dir
from remask.api.optimize import start_run
from remask.config import Config, LockName, make_config, merged
from remask.errors import ConfigError
from remask.ports import DenoiserModel, Metric
from remask.runs.result import Result
from remask.search.likelihood import CANDIDATES

ITERATIONS = 8
MASKERS = ("attribution", "span", "insert", "sentence")  # drawn in turn
CONTEXT_TOKENS = 1000  # of conversations that are read at a time: no call is paid for them


def refine(
    prompt: str,
    traces: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    iterations: int = ITERATIONS,
    candidates: int = CANDIDATES,
    columns: Sequence[str] = (),
    scales: Sequence[str] = (),
    redact: bool = True,
    lock: LockName = "numbers",
    denoiser: str | DenoiserModel = "builtin",
    target: str | Respond | None = None,
    metric: str | Metric | None = None,
    seed: int = 0,
    run_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    on_event: OnEvent | None = None,
    hooks: Hooks | None = None,
) -> Result:
    """Refine a system prompt by the conversations in the files `traces`; no labels are needed.

    Without `target` nothing is verified, and the verdict is "unverified". With it, baseline and
    refined prompt are compared on conversations that the refinement has not seen: `metric` compares
    the answers with corrections and well-rated responses (by default "judge" where
    settings["metric"]["judge"] is given, "label" where the right answers are a few labels, else
    "f1").
    columns, scales: as `--map` and `--scale`. lock: what of the prompt may not change: "text" (only
    new sentences are put between), "numbers" or "none". settings: any other keys of remask.toml.
    on_event: as for `optimize`; a run that was cut goes on with `resume`.

    Raises ConfigError and DataError before anything is computed, TargetRefused and
    TargetUnreliable in the verification; result.json is then written all the same, unverified.
    """
    files = [traces] if isinstance(traces, str | os.PathLike) else list(traces)
    values: dict[str, Any] = {
        "prompt": prompt,
        "seed": seed,
        "search": {"candidates": candidates},
        "denoiser": {"model": name_of("object", denoiser)},
        "refine": {
            "traces": [str(Path(file).resolve()) for file in files],
            "columns": list(columns),
            "scales": list(scales),
            "redact": redact,
            "lock": lock,
            "iterations": iterations,
            "verify": target is not None,
        },
    }
    if target is not None:
        values["target"] = {"model": name_of("function", target)}
    if metric is not None:
        values["metric"] = {"name": name_of("function", metric)}
    config = make_refine_config(merged(values, settings or {}), "settings")
    given = give(target, metric, denoiser)
    return start_run(config, given, run_dir or new_run_dir(), add_callback(hooks, on_event))


def make_refine_config(values: Mapping[str, Any], where: str) -> Config:
    """Settings with the defaults of a refinement, whose maskers obey the lock. ConfigError."""
    search = {"maskers": MASKERS, "candidates": CANDIDATES, "context_tokens": CONTEXT_TOKENS}
    config = make_config(merged({"search": search}, values), where)
    if config.refine is None or config.refine.lock != "text":
        return config
    if config.search.maskers not in (MASKERS, ("insert",)):
        raise ConfigError(
            "the lock on the text leaves only the masker insert; leave out --masker, or the lock"
        )
    kept = config.search.model_copy(update={"maskers": ("insert",)})
    return config.model_copy(update={"search": kept})
