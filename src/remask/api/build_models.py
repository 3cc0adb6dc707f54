"""Build the target and the denoiser from settings, with their limits and prices.

A module that needs a large library is imported only where a model needs it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from remask.config import Config, DenoiserConfig, EndpointConfig, RoleConfig, TargetConfig
from remask.data.places import read_tools
from remask.errors import ConfigError, name_missing_extra
from remask.models.function import is_function_file, load_function
from remask.models.limiter import Limiters
from remask.ports import DenoiserModel, Executor, TargetModel
from remask.runs.budget import Limits, Price

if TYPE_CHECKING:
    import torch

    from remask.dlm.sampler import CommitRule
    from remask.models.backbone.checkpoint import Checkpoint
    from remask.models.backbone.transformer import Backbone

TARGET_FORMATS = ("llama", "qwen2", "qwen3")  # that read left to right
DEFAULT_ANSWER_TOKENS = 64  # of a target on this machine where max_tokens is not set
Respond = Callable[[list[dict[str, str]]], str | Awaitable[str]]  # messages -> text
APIS = ("mercury", "chat", "inspect")
LOCAL = ("builtin", "local")  # models on this machine
ENDPOINTS = ("openai", *APIS)
# Keys that only some kinds of models read: the kinds, and how a message calls them.
READ_BY = {
    **dict.fromkeys(("base_url", "extra", "headers"), (ENDPOINTS, "a model behind an API")),
    "model_args": (("inspect",), "inspect:PROVIDER/MODEL"),
    **dict.fromkeys(("revision", "family"), (("local",), "local:HUB_ID or local:FOLDER")),
    **dict.fromkeys(("steps", "device", "dtype"), (LOCAL, "a model on this machine")),
}
MAX_READ_TOKENS = 2048  # that a denoiser reads at once, to estimate its memory
KNOWN_DENOISERS = (
    "builtin, builtin:ADAPTER, local:FOLDER, local:HUB_ID with denoiser.revision, mercury, "
    "chat:MODEL with denoiser.base_url, inspect:PROVIDER/MODEL, or an object in Python"
)


@name_missing_extra()
def make_target(
    config: TargetConfig,
    respond: Respond | None = None,
    limiters: Limiters | None = None,
    executor: Executor | None = None,
    role: str = "target",
) -> TargetModel:
    """Make the target, not metered. Raises ConfigError and BackendError.

    limiters: of all models that may share its endpoint. executor: whose workers ask it, where it is a
    model on this machine or in a file; it is their model of this `role`.
    """
    kind, _, name = config.model.partition(":")
    _refuse_unread(config)
    if executor is not None and kind in LOCAL:
        from remask.models.pooled_target import PooledTarget

        return PooledTarget(executor, role)
    if kind == "builtin":
        from remask.models.backbone.builtin_weights import load_base
        from remask.models.builtin import BuiltinTarget

        tokens = config.max_tokens or DEFAULT_ANSWER_TOKENS
        target = BuiltinTarget(load_base(), tokens, temperature=config.temperature or 0.0)
        target.chooses = config.choose
        return target
    if kind == "local" and name.strip():
        return _make_local_target(config, name)
    if kind == "openai" and name:
        from remask.models.openai import OpenAITarget

        return OpenAITarget(
            name, base_url=config.base_url or None, key_env=config.api_key_env,
            temperature=config.temperature, max_tokens=config.max_tokens, limiters=limiters, **config.reach,
        )  # fmt: skip
    in_file = is_function_file(config.model)
    if in_file:
        respond = load_function(config.model, "target", "(messages) -> str")
    if kind == "function" or in_file:
        if respond is None:
            raise ConfigError(
                f"the target {config.model} is a Python function; resume the run from Python: "
                "remask.resume(run_dir, target=that_function)"
            )
        from remask.models.event_loop import is_async
        from remask.models.function import FunctionTarget

        if is_async(respond):
            return FunctionTarget(respond, concurrency=config.concurrency)
        # A function that is not async may not be safe to call from several threads.
        return FunctionTarget(respond, executor=executor if in_file else None, role=role)
    if kind == "inspect":
        own = "" if config.api_key_env == TargetConfig().api_key_env else config.api_key_env
        return _make_inspect_target(config, name, own, limiters)
    raise ConfigError(
        f"target {config.model!r} is unknown; use builtin, local:FOLDER, local:FILE.gguf, "
        "local:HUB_ID with target.revision, openai:MODEL (with base_url for other servers), "
        "inspect:PROVIDER/MODEL, FILE.py:FUNCTION, or a callable in Python"
    )


def _make_inspect_target(
    config: TargetConfig | DenoiserConfig, name: str, key_env: str, limiters: Limiters | None
) -> TargetModel:
    from remask.models.providers import InspectTarget

    seeded = isinstance(config, DenoiserConfig) and config.send_seed
    return InspectTarget(
        name, base_url=config.base_url or None, key_env=key_env, temperature=config.temperature,
        max_tokens=config.max_tokens, seed=0 if seeded else None, model_args=config.model_args,
        limiters=limiters, **config.reach,
    )  # fmt: skip


def _refuse_unread(config: TargetConfig | DenoiserConfig) -> None:
    """Raise ConfigError where a key is set that this kind of model does not read."""
    kind = config.model.partition(":")[0]
    for key, (kinds, named) in READ_BY.items():
        if getattr(config, key, None) and kind not in kinds:
            raise ConfigError(f"{key} is for {named}, not for {config.model}; leave it out")


def load_tools(values: dict[str, Any]) -> dict[str, Any]:
    """Return nested settings with the tools of the target in the form of OpenAI, where they are a place.

    Raises ConfigError and DataError.
    """
    target = values.get("target")
    extra = target.get("extra") if isinstance(target, dict) else None
    if not isinstance(extra, dict) or not isinstance(extra.get("tools"), str):
        return values
    tools = read_tools(extra["tools"])
    return {**values, "target": {**values["target"], "extra": {**extra, "tools": tools}}}


def load_target_backbone(config: TargetConfig) -> "Backbone | None":
    """Load the model of a target on this machine; None for any other. Raises BackendError."""
    kind, _, place = config.model.partition(":")
    if kind == "builtin":
        from remask.models.backbone.builtin_weights import load_base

        return load_base()
    return _load_local_target(config, place).backbone if kind == "local" else None


def _load_local_target(config: TargetConfig, place: str) -> "Checkpoint":
    """Load the checkpoint of a target. One that is in use already is not loaded again."""
    from remask.models.backbone.checkpoint import load_checkpoint

    # The chat template says how chats are read, so no known frame is needed.
    return load_checkpoint(
        place, config.revision or None, config.device or None, _read_dtype(config),
        framed=False, formats=TARGET_FORMATS,
    )  # fmt: skip


def _make_local_target(config: TargetConfig, place: str) -> TargetModel:
    from remask.models.backbone.chat_template import ChatTemplate
    from remask.models.builtin import BuiltinTarget

    found = _load_local_target(config, place)
    layout = ChatTemplate(found.folder, found.backbone.tokenizer, place)
    tokens = config.max_tokens or DEFAULT_ANSWER_TOKENS
    target = BuiltinTarget(found.backbone, tokens, layout, "local", config.temperature or 0.0)
    target.chooses = config.choose
    return target


def limit_spend(config: Config) -> tuple[Limits, Price | None]:
    """Return the limits, and the price of the target.

    Raises ConfigError for a limit in dollars without prices.
    """
    limits = config.budget
    paid: dict[str, EndpointConfig | RoleConfig] = {"target": config.target}
    paid |= {f"task.roles.{role}": given for role, given in config.roles().items()}
    if asks_api(config.denoiser):
        paid["denoiser"] = config.denoiser
    for name, endpoint in paid.items():
        if limits.usd is not None and make_price(endpoint) is None:
            raise ConfigError(
                f"budget.usd needs the prices {name}.input_price and {name}.output_price, in US "
                "dollars per million tokens; set them in remask.toml"
            )
    budget = Limits(limits.calls, limits.tokens, limits.minutes, limits.usd)
    return budget, make_price(config.target)


def make_price(config: EndpointConfig | RoleConfig) -> Price | None:
    """Return the price of a model; None where one of its two prices is not given."""
    if config.input_price is None or config.output_price is None:
        return None
    return Price(config.input_price, config.output_price)


def describe_endpoint(config: TargetConfig | DenoiserConfig) -> str:
    """Return the name of a model and its host, for messages."""
    host = urlsplit(config.base_url).netloc.rpartition("@")[2] if config.base_url else ""
    return f"{config.model} at {host}" if host else config.model


@name_missing_extra()
def make_denoiser(
    config: DenoiserConfig,
    denoiser: DenoiserModel | None = None,
    limiters: Limiters | None = None,
    executor: Executor | None = None,
) -> DenoiserModel:
    """Make the denoiser of the settings, or return the object of the user.

    limiters: as for a target. executor: whose workers denoise, where it is a model on this machine.
    Raises ConfigError and BackendError.
    """
    kind, _, name = config.model.partition(":")
    _refuse_unread(config)
    if kind == "object":
        if denoiser is None:
            raise ConfigError(
                f"the denoiser {config.model} is a Python object; resume the run from Python: "
                "remask.resume(run_dir, denoiser=that_object)"
            )
        return denoiser
    if config.adapter and (kind != "local" or not name):
        raise ConfigError(
            f"denoiser.adapter is for a base model that is local:FOLDER or local:HUB_ID, not for "
            f"{config.model}; use builtin:FILE for an adapter of the built-in model"
        )
    if executor is not None and kind in LOCAL:
        from remask.dlm.pooled_denoiser import PooledDenoiser

        return PooledDenoiser(executor)
    if kind == "builtin":
        return _make_adapted(config, "builtin", name)
    if kind == "local" and name.strip():
        if config.adapter:
            return _make_adapted(config, config.model, config.adapter)
        return _load_local(config)
    if kind == "mercury":
        return _make_mercury(config, name, limiters)
    if kind == "inspect" or (kind == "chat" and name):
        return _make_chat(config, kind, name, limiters)
    raise ConfigError(f"denoiser {config.model!r} is unknown; use {KNOWN_DENOISERS}")


def asks_api(config: DenoiserConfig) -> bool:
    """Return whether the denoiser is an API. Its calls then count against the budget."""
    return config.model.partition(":")[0] in APIS


@name_missing_extra()
def describe_memory(config: DenoiserConfig | TargetConfig) -> str:
    """Return memory and device that a local: model needs, before its weights are read; else "".

    Raises BackendError.
    """
    kind, _, place = config.model.partition(":")
    if kind != "local" or not place.strip():
        return ""
    from remask.models.backbone.checkpoint import estimate_memory, read_config
    from remask.models.backbone.device import choose_device, choose_dtype

    device = choose_device(config.device or None)
    dtype = _read_dtype(config) or choose_dtype(device)
    settings = read_config(place, config.revision or None)
    adapted = isinstance(config, DenoiserConfig) and bool(config.adapter)
    need = estimate_memory(settings, dtype, MAX_READ_TOKENS, adapted=adapted)
    size = f"{need / 1e9:.1f} GB" if need >= 1e9 else f"{max(1, round(need / 1e6))} MB"
    return f"{config.model}: about {size} on {device}"


def _make_adapted(config: DenoiserConfig, base: str, adapter: str) -> DenoiserModel:
    from remask.dlm.adapter import SHIPPED_ADAPTER, load_adapter
    from remask.dlm.build import ADAPTED_RULE, BuiltinDenoiser, find_base

    found = find_base(base, *_read_options(config))
    return BuiltinDenoiser(
        found.backbone,
        load_adapter(found.backbone, Path(adapter) if adapter else SHIPPED_ADAPTER, found.family),
        rule=_make_rule(config, ADAPTED_RULE),
        steps=config.steps,
        guidance=config.guidance,
    )


def _load_local(config: DenoiserConfig) -> DenoiserModel:
    from remask.dlm.build import CHECKPOINT_RULE, load_denoiser

    return load_denoiser(
        config.model.partition(":")[2],
        *_read_options(config),
        rule=_make_rule(config, CHECKPOINT_RULE),
        steps=config.steps,
        guidance=config.guidance,
        cache=config.cache,
        refresh=config.refresh,
    )


def _read_options(config: DenoiserConfig) -> "tuple[str | None, str | None, str | None, torch.dtype | None]":
    """Return revision, family, device and dtype of a local: model."""
    return (config.revision or None, config.family or None, config.device or None, _read_dtype(config))


def _read_dtype(config: DenoiserConfig | TargetConfig) -> "torch.dtype | None":
    import torch

    numbers = {"": None, "bfloat16": torch.bfloat16, "float32": torch.float32}
    return numbers[config.dtype]


def _make_rule(config: DenoiserConfig, base: "CommitRule") -> "CommitRule":
    """Return the commit rule `base` with the values of the settings."""
    return replace(
        base,
        temperature=base.temperature if config.temperature is None else config.temperature,
        position_temperature=config.position_temperature,
        threshold=base.threshold if config.threshold is None else config.threshold,
        order=config.order,
        commit=config.commit,
        factor=config.factor,
        entropy_bound=config.entropy_bound,
        block=config.block,
        top_p=config.top_p,
    )


def _make_mercury(config: DenoiserConfig, name: str, limiters: Limiters | None) -> DenoiserModel:
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
        limiters=limiters,
        **config.reach,
    )
    return MercuryDenoiser(target, MAX_ANSWER_TOKENS)


def _make_chat(config: DenoiserConfig, kind: str, name: str, limiters: Limiters | None) -> DenoiserModel:
    from remask.dlm.chat_denoiser import ChatDenoiser
    from remask.models.openai import OpenAITarget

    if kind == "inspect":
        target: TargetModel = _make_inspect_target(config, name, config.api_key_env, limiters)
        return ChatDenoiser(target, config.max_tokens)
    target = OpenAITarget(
        name, config.base_url or None, key_env=config.api_key_env or "OPENAI_API_KEY",
        temperature=config.temperature, max_tokens=config.max_tokens,
        seed=0 if config.send_seed else None, limiters=limiters, **config.reach,
    )  # fmt: skip
    return ChatDenoiser(target, config.max_tokens)
