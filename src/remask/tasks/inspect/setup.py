"""Build an Inspect task from settings: its samples as rows, its metered models, its prompt.

Inspect is imported only when a task is named.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remask.config import Config, EndpointConfig, RoleConfig, TargetConfig, TaskConfig
from remask.errors import BackendError, ConfigError
from remask.ids import content_id
from remask.models.providers import make_model
from remask.prompt import Prompt
from remask.runs.budget import Price
from remask.runs.ledger import Ledger

if TYPE_CHECKING:
    from inspect_ai.model import Model

    from remask.tasks.inspect.task import SampleTask, Suite

DEFAULT_FRACTIONS = (0.25, 0.25, 0.5)
Fractions = tuple[float, float, float]


def load(config: Config) -> "Suite":
    """Load the task of the settings. Raises ConfigError, and BackendError without the extra."""
    return load_task(config.task.name, config.task.args, config.data.fractions)


def load_task(name: str, args: Mapping[str, Any], fractions: Fractions = DEFAULT_FRACTIONS) -> "Suite":
    """Load the task `name`, written as for `inspect eval`, and split its samples by `fractions`."""
    if importlib.util.find_spec("inspect_ai") is None:
        raise BackendError("tasks of Inspect need the inspect_ai package; run: pip install 'remask[inspect]'")
    from remask.tasks.inspect.task import load_suite

    return load_suite(name, args, fractions)


def system_prompt_of(task: str, args: Mapping[str, Any] | None = None) -> str:
    """Return the system message that an Inspect task sends, as the prompt to optimise.

    `task` is written as for `inspect eval`; `args` are its arguments. Runs a few samples with a
    fake model; no real model is called. Raises ConfigError where there is no system message, or
    where there are several.
    """
    return find_prompt(load_task(task, args or {}))


def find_prompt(suite: "Suite", components: bool = False) -> str:
    """Return the system message that a loaded task sends. Raises as `system_prompt_of` does.

    components: as a prompt of several components, with the description of each tool.
    """
    from remask.tasks.inspect.find_prompt import find_prompt

    return find_prompt(suite, components)


def make_inspect_task(
    config: Config, suite: "Suite", start: Prompt, ledger: Ledger, logs: Path
) -> "SampleTask":
    """Make the task with its models. Every call is recorded in `ledger`; `logs` is a folder."""
    from remask.tasks.inspect.models import InspectModels
    from remask.tasks.inspect.task import SampleTask

    models = InspectModels(
        lambda: make_models(config),
        ledger,
        start,
        identity=_make_identity(config),
        prices=_collect_prices(config),
        retries=config.target.retries,
        expected=config.task.calls_per_sample,
    )
    return SampleTask(
        suite,
        models,
        epochs=config.metric.repeats,
        scorer=config.task.scorer,
        concurrency=config.target.concurrency,
        log_dir=logs,
    )


def require_prompt(suite: "Suite", start: Prompt) -> str:
    """Say in how many samples the prompt was found. Raises ConfigError where it was in none."""
    from remask.tasks.inspect.find_prompt import MAX_SAMPLES, require_prompt

    found = require_prompt(suite, start)
    tried = min(MAX_SAMPLES, len(suite.samples))
    if not found:
        return "the tools that the prompt describes are those of the task"
    return f"the prompt is in the system message of {found} of {tried} samples that were tried"


def make_models(config: Config) -> tuple["Model", dict[str, "Model"]]:
    """Make the model under test and those of the roles, not metered.

    Raises ConfigError and BackendError.
    """
    kind, _, name = config.target.model.partition(":")
    if kind != "inspect" or not name:
        raise ConfigError(
            f"the target {config.target.model!r} cannot run an Inspect task; name it as "
            "inspect:PROVIDER/MODEL, such as inspect:openai/gpt-4.1-mini"
        )
    main = _make_model(name, config.target, config.target, config.task.model_args)
    roles = {role: _make_model(given.model, given, config.target) for role, given in config.roles().items()}
    return main, roles


def _make_model(
    name: str,
    place: TargetConfig | RoleConfig,
    limits: TargetConfig,
    model_args: Mapping[str, Any] | None = None,
) -> "Model":
    chosen: dict[str, Any] = {
        "max_tokens": limits.max_tokens,
        "max_connections": limits.concurrency,
        "max_retries": limits.retries,
        "attempt_timeout": max(1, round(limits.timeout)),
    }
    if not isinstance(place, TargetConfig):
        return make_model(name, place.base_url, "", chosen, {}, {}, {})[0]
    if "tools" in place.extra:
        raise ConfigError("target.extra.tools is for rows; an Inspect task has its own tools")
    chosen["temperature"] = limits.temperature
    own_key = "" if place.api_key_env == TargetConfig().api_key_env else place.api_key_env
    arguments = {**place.model_args, **(model_args or {})}
    return make_model(name, place.base_url, own_key, chosen, place.extra, place.headers, arguments)[0]


def _collect_prices(config: Config) -> dict[str, Price]:
    """Return the prices by role; "" is the target. InspectModels checks that none is missing."""
    paid: dict[str, EndpointConfig | RoleConfig] = {"": config.target, **config.roles()}
    return {
        role: Price(place.input_price, place.output_price)
        for role, place in paid.items()
        if place.input_price is not None and place.output_price is not None
    }


def _make_identity(config: Config) -> str:
    """Return an id of all settings that can change an answer or a score."""
    target = config.target.model_dump(mode="json", include={"model", "base_url", "temperature", "max_tokens"})
    more = {"extra": config.target.extra, "model_args": config.target.model_args}
    target |= {name: value for name, value in more.items() if value}  # runs of before have none
    task: TaskConfig = config.task
    roles = {role: [given.model, given.base_url] for role, given in config.roles().items()}
    return content_id("inspect", task.name, task.args, task.model_args, target, roles)
