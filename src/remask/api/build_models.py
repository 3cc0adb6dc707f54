"""From settings to models: the target, the denoiser, and what they may cost.

Heavy rooms are imported only when a model of theirs is asked for.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from remask.config import Config, DenoiserConfig, EndpointConfig, RoleConfig, TargetConfig
from remask.errors import ConfigError, name_missing_extra
from remask.ports import DenoiserModel, TargetModel
from remask.runs.budget import Limits, Price

if TYPE_CHECKING:
    import torch

    from remask.dlm.sampler import CommitRule

ANSWER_TOKENS = 64  # of the built-in target where max_tokens is none
Respond = Callable[[list[dict[str, str]]], str | Awaitable[str]]  # messages -> text
APIS = ("mercury", "chat")
READ = 2048  # tokens that a denoiser reads at once, for its need of memory
KNOWN = (
    "builtin, builtin:ADAPTER, local:FOLDER, local:HUB_ID with denoiser.revision, mercury, "
    "chat:MODEL with denoiser.base_url, or a Denoiser in Python"
)


@name_missing_extra()
def make_target(config: TargetConfig, respond: Respond | None = None) -> TargetModel:
    """The target, not yet metered. Raises ConfigError and BackendError."""
    kind, _, name = config.model.partition(":")
    if kind == "builtin":
        from remask.models.backbone.builtin_weights import load_base
        from remask.models.builtin import BuiltinTarget

        return BuiltinTarget(load_base(), max_tokens=config.max_tokens or ANSWER_TOKENS)
    if kind == "openai" and name:
        from remask.models.openai import OpenAITarget

        return OpenAITarget(
            name,
            base_url=config.base_url or None,
            key_env=config.api_key_env,
            temperature=config.temperature,
            max_tokens=config.max_tokens,
            **config.reach,
        )
    if kind == "function":
        if respond is None:
            raise ConfigError(
                f"the target {config.model} is a Python function; go on from Python: "
                "remask.resume(run_dir, target=that_function)"
            )
        from remask.models.event_loop import is_async
        from remask.models.function import FunctionTarget

        # A function that is not async may not be safe to call from several threads at once.
        return FunctionTarget(respond, concurrency=config.concurrency if is_async(respond) else 1)
    if kind == "inspect":
        raise ConfigError(
            f"the target {config.model} runs tasks of Inspect: remask optimize --task"
        )
    raise ConfigError(
        f"target {config.model!r} is unknown; use builtin, openai:MODEL (with base_url for other "
        "servers), or a callable in Python"
    )


def limit_spend(config: Config) -> tuple[Limits, Price | None]:
    """The limits, and the target's price. Raises ConfigError for dollars without prices."""
    limits = config.budget
    paid: dict[str, EndpointConfig | RoleConfig] = {"target": config.target}
    paid |= {f"task.roles.{role}": given for role, given in config.roles().items()}
    if asks_api(config.denoiser):
        paid["denoiser"] = config.denoiser
    for name, endpoint in paid.items():
        if limits.usd is not None and make_price(endpoint) is None:
            raise ConfigError(
                f"budget.usd needs {name}.input_price and {name}.output_price (US dollars per "
                "million tokens): without a price no spend in dollars can be known"
            )
    budget = Limits(limits.calls, limits.tokens, limits.minutes, limits.usd)
    return budget, make_price(config.target)


def make_price(config: EndpointConfig | RoleConfig) -> Price | None:
    """None where one of the two prices is not given."""
    if config.input_price is None or config.output_price is None:
        return None
    return Price(config.input_price, config.output_price)


def endpoint(config: TargetConfig | DenoiserConfig) -> str:
    """A model and its place in words, for plans and reports."""
    host = urlsplit(config.base_url).netloc if config.base_url else ""
    return f"{config.model} at {host}" if host else config.model


@name_missing_extra()
def make_denoiser(config: DenoiserConfig, denoiser: DenoiserModel | None = None) -> DenoiserModel:
    """The denoiser by name, or the user's own. Raises ConfigError and BackendError."""
    kind, _, name = config.model.partition(":")
    if kind == "object":
        if denoiser is None:
            raise ConfigError(
                f"the denoiser {config.model} is a Python object; go on from Python: "
                "remask.resume(run_dir, denoiser=that_object)"
            )
        return denoiser
    if config.adapter and (kind != "local" or not name):
        raise ConfigError(
            f"denoiser.adapter is for a base from disk (local:PLACE), not for {config.model}; use "
            "builtin:FILE for an adapter of the built-in model"
        )
    if kind == "builtin":
        return _adapted(config, "builtin", name)
    if kind == "local" and name:
        return _adapted(config, config.model, config.adapter) if config.adapter else _local(config)
    if kind == "mercury":
        return _mercury(config, name)
    if kind == "chat" and name:
        return _chat(config, name)
    raise ConfigError(f"denoiser {config.model!r} is unknown; use {KNOWN}")


def asks_api(config: DenoiserConfig) -> bool:
    """Whether the denoiser is an API, whose calls count like those of the target."""
    return config.model.partition(":")[0] in APIS


@name_missing_extra()
def memory_of(config: DenoiserConfig) -> str:
    """What a local:PLACE needs and where it will run, before its weights are read; else "".

    Raises BackendError.
    """
    kind, _, place = config.model.partition(":")
    if kind != "local":
        return ""
    from remask.models.backbone.checkpoint import estimate_memory, read_config
    from remask.models.backbone.device import choose_device, choose_dtype

    device = choose_device(config.device or None)
    dtype = _dtype(config) or choose_dtype(device)
    settings = read_config(place, config.revision or None)
    need = estimate_memory(settings, dtype, READ, adapted=bool(config.adapter))
    return f"{config.model}: about {need / 1e9:.1f} GB on {device}"


def _adapted(config: DenoiserConfig, base: str, adapter: str) -> DenoiserModel:
    from remask.dlm.adapter import SHIPPED_ADAPTER, load_adapter
    from remask.dlm.build import ADAPTED_RULE, BuiltinDenoiser, find_base

    found = find_base(base, *_where(config))
    return BuiltinDenoiser(
        found.backbone,
        load_adapter(found.backbone, Path(adapter) if adapter else SHIPPED_ADAPTER, found.family),
        rule=_rule(config, ADAPTED_RULE),
        steps=config.steps,
        guidance=config.guidance,
    )


def _local(config: DenoiserConfig) -> DenoiserModel:
    from remask.dlm.build import CHECKPOINT_RULE, load_denoiser

    return load_denoiser(
        config.model.partition(":")[2],
        *_where(config),
        rule=_rule(config, CHECKPOINT_RULE),
        steps=config.steps,
        guidance=config.guidance,
        cache=config.cache,
        refresh=config.refresh,
    )


def _where(
    config: DenoiserConfig,
) -> "tuple[str | None, str | None, str | None, torch.dtype | None]":
    """Revision, family, device and numbers of a local:PLACE."""
    return config.revision or None, config.family or None, config.device or None, _dtype(config)


def _dtype(config: DenoiserConfig) -> "torch.dtype | None":
    import torch

    numbers = {"": None, "bfloat16": torch.bfloat16, "float32": torch.float32}
    return numbers[config.dtype]


def _rule(config: DenoiserConfig, base: "CommitRule") -> "CommitRule":
    """How the model draws and commits tokens unless the settings say otherwise."""
    return replace(
        base,
        temperature=base.temperature if config.temperature is None else config.temperature,
        position_temperature=config.position_temperature,
        threshold=config.threshold,
        order=config.order,
        commit=config.commit,
        factor=config.factor,
        entropy_bound=config.entropy_bound,
        block=config.block,
        top_p=config.top_p,
    )


def _mercury(config: DenoiserConfig, name: str) -> DenoiserModel:
    from remask.dlm.infill_api import MAX_ANSWER_TOKENS, STOP_SEQUENCES, MercuryDenoiser
    from remask.models.completions import MERCURY_KEY, MERCURY_MODEL, MERCURY_URL, FimTarget

    target = FimTarget(
        name or MERCURY_MODEL,
        config.base_url or MERCURY_URL,
        key_env=config.api_key_env or MERCURY_KEY,
        stop=STOP_SEQUENCES,
        temperature=config.temperature,
        max_tokens=MAX_ANSWER_TOKENS,
        seed=0 if config.send_seed else None,
        **config.reach,
    )
    return MercuryDenoiser(target, MAX_ANSWER_TOKENS)


def _chat(config: DenoiserConfig, name: str) -> DenoiserModel:
    from remask.dlm.chat_denoiser import ChatDenoiser
    from remask.models.openai import OpenAITarget

    target = OpenAITarget(
        name,
        config.base_url or None,
        key_env=config.api_key_env or "OPENAI_API_KEY",
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        seed=0 if config.send_seed else None,
        **config.reach,
    )
    return ChatDenoiser(target, config.max_tokens)
