"""`shorten` of the public API: the search of `optimize` for a shorter prompt that scores no worse."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remask.api.arguments import (
    Budget,
    Data,
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
from remask.api.awaitable import make_async
from remask.api.build_models import Respond
from remask.api.job import OnEvent
from remask.api.optimize import optimize
from remask.errors import ConfigError
from remask.ports import DenoiserModel, Metric
from remask.runs.result import Result

# Most candidates delete a sentence, the others write a shorter text. Few are enough, since most
# deletions are harmless.
SHORTEN_DEFAULTS: Mapping[str, Any] = {
    "maskers": ["delete", "delete", "sentence", "delete", "delete", "span"],
    "candidates": 12,
}
SHORTEN_GOAL: Mapping[str, Any] = {"prefer": "shortest", "goal": "preferred", "demos": 0}


def shorten(
    prompt: str | Path | Mapping[str, str],
    data: Data | Dataset | None = None,
    *,
    within: float | None = None,
    target: str | Respond | Target = "builtin",
    metric: str | Metric | Label | Judge | Function = "label",
    denoiser: str | DenoiserModel | Denoiser = "builtin",
    max_calls: int | None = None,
    budget: Budget | None = None,
    search: Search | None = None,
    objectives: Sequence[str | Objective] = (),
    task: str | InspectTask = "",
    seed: int = 0,
    workers: int | Workers | None = None,
    run_dir: str | Path | None = None,
    on_event: OnEvent | None = None,
    progress: bool | None = None,
) -> Result:
    """Search for a shorter prompt, and compare both on the sealed test rows.

    within: points of score, of 100, that the shorter prompt may lose (default: 1). The verdict is
    "improved" where it is shorter and the sealed test excludes a larger loss; see
    docs/how-to/objectives.md. All else is as for `optimize`, and `resume` continues the run.

    Raises as `optimize`, and ConfigError for a search that prefers something else or adds examples.

    >>> import remask
    >>> try:
    ...     remask.shorten("Add the numbers.", [("1 + 1", "2")], search=remask.Search(demos=4))
    ... except remask.errors.ConfigError as error:
    ...     print(error)
    shorten makes prompts shorter; leave prefer and demos out of search
    """
    given = search.model_dump(exclude_unset=True) if search is not None else {}
    if given.get("prefer", "shortest") not in ("shortest", "prompt_tokens") or given.get("demos"):
        raise ConfigError("shorten makes prompts shorter; leave prefer and demos out of search")
    wanted = {} if within is None else {"within": within}
    return optimize(
        prompt, data, target=target, metric=metric, denoiser=denoiser, max_calls=max_calls, budget=budget,
        search=Search(**{**SHORTEN_DEFAULTS, **given, **SHORTEN_GOAL, **wanted}),
        objectives=objectives, task=task, seed=seed, workers=workers, run_dir=run_dir, on_event=on_event,
        progress=progress,
    )  # fmt: skip


shorten_async = make_async(shorten)
