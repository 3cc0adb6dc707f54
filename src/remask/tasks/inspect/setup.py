"""From settings to a task of Inspect: its samples as rows, its models metered, its prompt found.

Imports Inspect only when a task is named.
"""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remask.config import Config, EndpointConfig, RoleConfig, TargetConfig, TaskConfig
from remask.errors import BackendError, ConfigError
from remask.ids import content_id
from remask.prompt import Prompt
from remask.runs.budget import Price
from remask.runs.meter import Ledger

if TYPE_CHECKING:
    from inspect_ai.model import Model

    from remask.tasks.inspect.task import SampleTask, Suite

# Providers whose own client retries, unseen: each attempt is to be met, booked and counted.
RETRYING = ("openai", "openai-api", "anthropic")
FRACTIONS = (0.25, 0.25, 0.5)
Fractions = tuple[float, float, float]


def load(config: Config) -> "Suite":
    """The task with its samples. Raises ConfigError, and BackendError without the extra."""
    return load_task(config.task.name, config.task.args, config.data.fractions)


def load_task(name: str, args: Mapping[str, Any], fractions: Fractions = FRACTIONS) -> "Suite":
    """The task `name`, as `inspect eval` takes it, with its samples split."""
    if importlib.util.find_spec("inspect_ai") is None:
        raise BackendError(
            "tasks of Inspect need the inspect_ai package; run: pip install 'remask[inspect]'"
        )
    from remask.tasks.inspect.task import load_suite

    return load_suite(name, args, fractions)


def system_prompt_of(task: str, args: Mapping[str, Any] | None = None) -> str:
    """The system message that a task of Inspect sends, to start an optimisation from.

    `task` as `inspect eval` takes it; `args`: the task's arguments. Runs a few samples with a model
    that answers nothing of use; no real model is called. Raises ConfigError where there is no
    system message, or several.
    """
    return system_prompt_in(load_task(task, args or {}))


def system_prompt_in(suite: "Suite") -> str:
    """The system message that a loaded task sends. Raises as `system_prompt_of`."""
    from remask.tasks.inspect.find_prompt import system_prompt

    return system_prompt(suite)


def make_inspect_task(
    config: Config, suite: "Suite", start: Prompt, ledger: Ledger, logs: Path
) -> "SampleTask":
    """The task with its models, every call of which is booked in `ledger`."""
    from remask.tasks.inspect.models import InspectModels
    from remask.tasks.inspect.task import SampleTask

    models = InspectModels(
        lambda: make_models(config),
        ledger,
        start.text,
        identity=_identity(config),
        prices=_prices(config),
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
    """How the prompt is placed in a few samples, in words. ConfigError where it is not."""
    from remask.tasks.inspect.find_prompt import SAMPLES, require_prompt

    found = require_prompt(suite, start.text)
    tried = min(SAMPLES, len(suite.samples))
    return f"the prompt stands in the system message of {found} of {tried} samples that were tried"


def make_models(config: Config) -> tuple["Model", dict[str, "Model"]]:
    """The model under test and those of the roles, not yet metered. ConfigError, BackendError."""
    kind, _, name = config.target.model.partition(":")
    if kind != "inspect" or not name:
        raise ConfigError(
            f"the target {config.target.model!r} cannot run a task of Inspect; name a model as "
            "Inspect does: inspect:PROVIDER/MODEL, such as inspect:openai/gpt-4.1-mini"
        )
    main = _model(name, config.target, config.target, config.task.model_args)
    roles = {
        role: _model(given.model, given, config.target) for role, given in config.roles().items()
    }
    return main, roles


def _model(
    name: str,
    place: TargetConfig | RoleConfig,
    limits: TargetConfig,
    model_args: Mapping[str, Any] | None = None,
) -> "Model":
    from inspect_ai._util.error import PrerequisiteError
    from inspect_ai.model import GenerateConfig, get_model

    generate = GenerateConfig(
        temperature=limits.temperature if place is limits else None,
        max_tokens=limits.max_tokens,
        max_connections=limits.concurrency,
        max_retries=limits.retries,
        attempt_timeout=max(1, round(limits.timeout)),
    )
    own_key = limits.api_key_env != TargetConfig().api_key_env
    key = os.environ.get(limits.api_key_env) if own_key and place is limits else None
    provider = name.partition("/")[0]
    arguments: dict[str, Any] = {"max_retries": 0} if provider in RETRYING else {}
    arguments |= model_args or {}
    try:
        return get_model(
            name,
            base_url=place.base_url or None,
            config=generate,
            api_key=key,
            memoize=False,
            **arguments,
        )
    except PrerequisiteError as error:
        raise BackendError(f"the model {name}: {error.message}") from error
    except (ImportError, ValueError) as error:
        raise ConfigError(f"Inspect does not know the model {name!r}: {error}") from error


def _prices(config: Config) -> dict[str, Price]:
    """By role; "" is the target. A limit in dollars needs all of them (InspectModels says so)."""
    paid: dict[str, EndpointConfig | RoleConfig] = {"": config.target, **config.roles()}
    return {
        role: Price(place.input_price, place.output_price)
        for role, place in paid.items()
        if place.input_price is not None and place.output_price is not None
    }


def _identity(config: Config) -> str:
    """What of the settings can change an answer or a score."""
    target = config.target.model_dump(
        mode="json", include={"model", "base_url", "temperature", "max_tokens"}
    )
    task: TaskConfig = config.task
    roles = {role: [given.model, given.base_url] for role, given in config.roles().items()}
    return content_id("inspect", task.name, task.args, task.model_args, target, roles)
