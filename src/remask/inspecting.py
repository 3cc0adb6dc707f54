"""From settings to a task of Inspect: its samples as rows, its models metered, its prompt found.

Part of the composition root, beside wire.py. Imports Inspect only when a task is named.
"""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remask.budget import Price
from remask.config import Config, EndpointConfig, RoleConfig, TargetConfig, TaskConfig
from remask.errors import BackendError, ConfigError
from remask.identity import content_id
from remask.models.meter import Account
from remask.prompt import Prompt
from remask.task.dataset import Dataset

if TYPE_CHECKING:
    from inspect_ai.model import Model

    from remask.task.inspect import InspectTask, Suite

LOGS = "inspect"  # folder in the run directory
# Providers whose own client retries, unseen: each attempt is to be met, booked and counted.
RETRYING = ("openai", "openai-api", "anthropic")
FRACTIONS = (0.25, 0.25, 0.5)


def load(config: Config) -> "Suite":
    """The task with its samples. Raises ConfigError, and BackendError without the extra."""
    return _load(config.task.name, config.task.args, config.data.fractions)


def inspect_dataset(config: Config) -> Dataset:
    """Its samples as rows, with their splits."""
    return load(config).dataset


def system_prompt_of(task: str, args: Mapping[str, Any] | None = None) -> str:
    """The system message that a task of Inspect sends, to start an optimisation from.

    `task` as `inspect eval` takes it; `args`: the task's arguments. Runs a few samples with a model
    that answers nothing of use; no real model is called. Raises ConfigError where there is no
    system message, or several.
    """
    suite = _load(task, args or {}, FRACTIONS)
    from remask.task.probing import system_prompt

    return system_prompt(suite)


def find_prompt(values: dict[str, Any]) -> None:
    """Put the task's own system message in the place of `prompt_from = "system"`. ConfigError."""
    wanted = values.pop("prompt_from", "")
    if not wanted:
        return
    task = values.get("task")
    if wanted != "system" or values.get("prompt"):
        raise ConfigError(
            f'prompt_from = {wanted!r}: it can only be "system", and in place of a prompt'
        )
    if not isinstance(task, dict) or not task.get("name"):
        raise ConfigError("prompt_from needs a task of Inspect: name one with --task")
    values["prompt"] = system_prompt_of(task["name"], task.get("args"))


def open_inspect_task(config: Config, start: Prompt, account: Account) -> "InspectTask":
    """The task with its models, every call of which is booked in `account`."""
    suite = load(config)
    from remask.models.inspect import InspectModels
    from remask.task.inspect import InspectTask

    models = InspectModels(
        lambda: make_models(config),
        account,
        start.text,
        identity=_identity(config),
        prices=_prices(config),
        retries=config.target.retries,
        expected=config.task.calls_per_sample,
    )
    return InspectTask(
        suite,
        models,
        epochs=config.metric.repeats,
        scorer=config.task.scorer,
        concurrency=config.target.concurrency,
        log_dir=Path(config.task.logs or account.store.folder / LOGS),
    )


def check_inspect_task(config: Config, start: Prompt) -> str:
    """What can be found wrong before a call is spent; else in words how the prompt is placed."""
    make_models(config)
    suite = load(config)
    from remask.task.probing import SAMPLES, require_prompt

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


def _load(name: str, args: Mapping[str, Any], fractions: tuple[float, float, float]) -> "Suite":
    if importlib.util.find_spec("inspect_ai") is None:
        raise BackendError(
            "tasks of Inspect need the inspect_ai package; run: pip install 'remask[inspect]'"
        )
    from remask.task.inspect import load_suite

    return load_suite(name, args, fractions)


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
