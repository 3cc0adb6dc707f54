"""The providers of Inspect as targets: Anthropic, Bedrock, Google, Mistral, Azure, Ollama and others.

Inspect knows how each provider is asked; remask counts and limits the calls. So Inspect makes one
attempt, at once: its retries, its limit of connections and its cache are off, and so are the retries
of the clients that it uses. What Inspect turns into an answer although the call failed, such as the
message "prompt is too long", is an error here. The same models answer tasks of Inspect
(tasks/inspect), which make many calls by themselves.
"""

import asyncio
import importlib.util
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError

from remask.errors import BackendError, ConfigError, RemaskError, TargetBusy, TargetError
from remask.models.chat_components import describe_tools, split_components
from remask.models.event_loop import get_own_loop
from remask.models.remote import (
    OWN_FIELDS,
    RemoteTarget,
    check_extra,
    check_key,
    fill_headers,
    find_message,
    is_loopback,
    split_url,
)
from remask.models.reply_body import make_reply
from remask.ports import Reply
from remask.sanitize import format_call, one_line, remove_thoughts
from remask.types import Chat

if TYPE_CHECKING:
    from inspect_ai.model import Model, ModelOutput, ModelUsage
    from inspect_ai.tool import ToolChoice, ToolInfo

FORM = "inspect:PROVIDER/MODEL, such as inspect:anthropic/claude-sonnet-4-5"
# Fields of Inspect's settings that have a key of their own in remask.
OWN_KEYS = {
    **dict.fromkeys(("max_retries",), "retries"),
    **dict.fromkeys(("timeout", "attempt_timeout", "stream_idle_timeout"), "timeout"),
    **dict.fromkeys(("max_connections", "adaptive_connections"), "concurrency"),
}
NOT_USED = ("batch", "cache", "num_choices", "system_message", "fail_on_refusal", "modalities")
OPENAI_NAMES = {"stop": "stop_seqs"}  # field -> that of Inspect
WITHOUT_HEADERS = ("azureai", "bedrock", "grok", "hf", "nnterp", "sagemaker", "transformer_lens")
# Servers that Inspect would start at the first call, and the variable with the address of one.
SERVERS = {**dict.fromkeys(("vllm", "vllm-completions"), "VLLM_BASE_URL"), "sglang": "SGLANG_BASE_URL"}
MAX_CONNECTIONS = 1024  # remask's own limit is never above


class InspectTarget(RemoteTarget):
    """Asks the model `name`, which is PROVIDER/MODEL as Inspect writes it.

    `key_env` names the variable with the key; "" stands for the provider's own. `extra`: settings as
    Inspect or OpenAI names them, `tools` and `response_format` in the form of OpenAI, and further
    fields of the request where the provider takes such. `model_args`: arguments of the provider, as
    `inspect eval -M` takes them. All other arguments are those of OpenAITarget.
    """

    optional: ClassVar[Mapping[str, str | None]] = {"temperature": None, "seed": None}

    def __init__(
        self,
        name: str,
        base_url: str | None = None,
        *,
        key_env: str = "",
        temperature: float | None = 0.0,
        max_tokens: int | None = 256,
        seed: int | None = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        model_args: Mapping[str, Any] | None = None,
        **limits: Any,
    ) -> None:
        """Raises ConfigError for a bad setting, BackendError where a package or a key is missing."""
        chosen = {"temperature": temperature, "max_tokens": max_tokens, "max_retries": 0}
        chosen["cache_prompt"] = False  # writing to such a cache costs more than the price of a token
        arguments = {**_require_server(name, base_url), **(model_args or {})}
        self._inspect, self._tools, self._choice = make_model(
            name, base_url or "", key_env, chosen, extra or {}, headers or {}, arguments
        )
        from inspect_ai.model import GenerateConfig

        # What is sent is said with each call, so that a refused field can be left out.
        self._decoding = self._inspect.config.model_dump(exclude_none=True)
        self._inspect.config = GenerateConfig()
        self._url = find_url(self._inspect)
        address, host = split_url(self._url) if self._url else ("", name.partition("/")[0])
        key = self._inspect.api.api_key or ""
        super().__init__(
            name, host, key, max_tokens=max_tokens, seed=seed, extra=extra, address=address, **limits
        )
        known = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed, "extra": self._extra}
        decoding = json.dumps({**known, "model_args": model_args or {}}, sort_keys=True, default=str)
        self.identity = f"inspect:{name}@{address} {decoding}"
        self._warnings = _Warnings()

    def close(self) -> None:
        """Close the connections, in the event loop that opened them."""
        self._warnings.close()
        asyncio.run_coroutine_threadsafe(self._inspect.api.aclose(), get_own_loop()).result()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of how the server was asked, by remask and by Inspect."""
        return (*super().notes, *self._warnings.found)

    def _make_settings(self, repeat: int) -> dict[str, Any]:
        settings = dict(self._decoding)
        if self._seed is not None:
            settings["seed"] = self._seed + repeat
        self._replace_refused(settings)
        return settings

    async def _ask(self, chat: Chat, settings: dict[str, Any]) -> Reply:
        from inspect_ai import model as inspect

        kinds: dict[str, Any] = {
            "system": inspect.ChatMessageSystem,
            "user": inspect.ChatMessageUser,
            "assistant": inspect.ChatMessageAssistant,
            "tool": inspect.ChatMessageTool,
        }
        turns, described = split_components(chat)
        output = await self._inspect.generate(
            [kinds[message.role](content=message.content) for message in turns],
            tools=describe_tool_infos(self._tools, described),
            tool_choice=self._choice,
            config=inspect.GenerateConfig(**settings),
        )
        return self._read(output)

    def _read(self, output: "ModelOutput") -> Reply:
        """Read the answer of the provider. Raises TargetError where it is none."""
        if output.choices and output.stop_reason == "model_length":  # the text is the error, often
            why = self._clean(output.message.text)
            raise TargetError(f"{self._host}: chat and answer are longer than {self._model} reads ({why})")
        if output.error or not output.choices:
            why = self._clean(output.error or "it holds no choices")
            raise TargetError(f"{self._host} sent an error instead of an answer ({why})")
        message = output.message
        text = remove_thoughts(message.text)
        parts = [] if isinstance(message.content, str) else message.content
        thought = text != message.text or any(part.type == "reasoning" for part in parts)
        calls = [format_call(call.function, call.arguments) for call in message.tool_calls or ()]
        text = "\n".join(part for part in (text, *calls) if part) if calls else text
        tokens = count_tokens(output.usage)
        return make_reply(text, thought, output.stop_reason, tokens, self.max_tokens, self._host)

    def _explain(self, error: Exception, settings: Mapping[str, Any]) -> TargetError:
        cause = _unwrap(error)
        status, code, said = _read_error(cause)
        if status is not None and status >= 300:
            left_out = self._leave_out(settings, status, code, None, said)
            headers = getattr(getattr(cause, "response", None), "headers", None) or {}
            return left_out or self._make_status_error(status, code, said, headers)
        kind = type(cause).__name__
        if isinstance(cause, (TypeError, ValueError, LookupError, AttributeError)):
            # The client of the provider tripped over the answer.
            return TargetError(
                self._clean(
                    f"{self._host} sent an answer that cannot be read ({kind}: {said}); check base_url"
                )
            )
        if self._inspect.api.should_retry(cause):
            if "Connect" in kind or "Timeout" in kind or cause.__cause__ is not None:
                return self._make_connection_error(cause.__cause__ or cause, self._url, "Timeout" in kind)
            return TargetBusy(self._clean(f"{self._host}: {kind}: {said}"))
        return TargetError(self._clean(f"{self._host}: {kind}: {said}"))


def describe_tool_infos(tools: "list[ToolInfo]", described: Mapping[str, str]) -> "list[ToolInfo]":
    """Return the tools with other descriptions, see describe_tools."""
    if not described:
        return tools
    plain = [tool.model_dump(exclude_none=True) for tool in tools]
    return [type(tools[0]).model_validate(tool) for tool in describe_tools(plain, described)]


class _Warnings(logging.Handler):
    """Collects the warnings of Inspect, such as of a setting that a provider does not take."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []
        logging.getLogger("inspect_ai").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        said = one_line(record.getMessage(), 300)
        if said not in self.found:
            self.found.append(said)

    def close(self) -> None:
        logging.getLogger("inspect_ai").removeHandler(self)
        super().close()


# --- a model of Inspect from settings


def make_model(
    name: str,
    base_url: str,
    key_env: str,
    chosen: Mapping[str, Any],
    extra: Mapping[str, Any],
    headers: Mapping[str, str],
    model_args: Mapping[str, Any],
) -> "tuple[Model, list[ToolInfo], ToolChoice | None]":
    """Make a model of Inspect, with the tools of `extra` and how they are chosen.

    `chosen`: settings by their names in Inspect; the other arguments are those of InspectTarget.
    The client of the provider makes no retries by itself, as far as it can be told so. Raises
    ConfigError, and BackendError where a package or a key is missing.
    """
    if importlib.util.find_spec("inspect_ai") is None:
        raise BackendError(
            f"the model inspect:{name} needs the inspect_ai package; run: pip install 'remask[providers]'"
        )
    from inspect_ai.model import GenerateConfig, get_model

    provider = _require_provider(name)
    if headers and provider in WITHOUT_HEADERS:
        raise ConfigError(f"the provider {provider} of Inspect takes no headers; leave them out")
    settings, body, tools, choice = _read_extra(extra, name)
    config = {"max_connections": MAX_CONNECTIONS, **chosen, **settings}
    config |= {"extra_headers": fill_headers(headers)} if headers else {}
    arguments = dict(model_args)
    if body and provider == "anthropic":  # it sends only what it knows of the field of the settings
        arguments["extra_body"] = {**body, **arguments.get("extra_body", {})}
    elif body:
        config["extra_body"] = body
    if provider == "bedrock":  # its client has no other way to be told to make one attempt
        os.environ.setdefault("AWS_MAX_ATTEMPTS", "1")
    named = _find_key(name, base_url, key_env)
    with _one_sentence(name):
        place, checked = base_url or None, GenerateConfig(**config)
        build = partial(get_model, name, base_url=place, config=checked, memoize=False, **arguments)
        model = build(api_key=named)
        if (key := _require_key(model, name)) != (model.api.api_key or ""):
            model = build(api_key=key)
    _make_direct(getattr(model.api, "client", None))
    client = type(getattr(model.api, "client", None)).__module__
    if "extra_body" in config and not client.startswith("openai"):
        known = ", ".join(sorted(set(GenerateConfig.model_fields) - {*OWN_KEYS, *NOT_USED, *OWN_FIELDS}))
        raise ConfigError(
            f"the provider {provider} of Inspect takes no field {min(config['extra_body'])!r} of extra; "
            f"known: response_format, tools, tool_choice, {known}"
        )
    return model, tools, choice


def find_url(model: "Model") -> str:
    """Return the address that a model is asked at; "" where its provider does not say."""
    url = model.api.base_url or getattr(getattr(model.api, "client", None), "base_url", None)
    return str(url or "")


def count_tokens(usage: "ModelUsage | None") -> tuple[int, int]:
    """Return the tokens read, cached ones included, and written, as far as the provider says."""
    if usage is None:
        return 0, 0
    cached = (usage.input_tokens_cache_read or 0) + (usage.input_tokens_cache_write or 0)
    return usage.input_tokens + cached, usage.output_tokens


def _require_provider(name: str) -> str:
    """Return the provider of PROVIDER/MODEL. Raises ConfigError where Inspect has no such one."""
    from inspect_ai._util.registry import registry_find, registry_unqualified_name

    provider, slash, model = name.partition("/")
    if not slash or not model.strip():
        raise ConfigError(f"'inspect:{name}' names no model; write {FORM}")

    def find(wanted: str) -> set[str]:
        """Find the names of all providers, or of one, which may be in a package beside Inspect."""
        found = registry_find(
            lambda info: info.type == "modelapi" and wanted in ("", registry_unqualified_name(info))
        )
        return {registry_unqualified_name(one) for one in found}

    if not find(provider):
        known = ", ".join(sorted(find("") - {"none"}))
        raise ConfigError(f"Inspect has no provider {provider!r}; write {FORM}, with one of: {known}")
    return provider


def _require_server(name: str, base_url: str | None) -> dict[str, Any]:
    """Return further arguments of a provider that is a server of the user. Raises ConfigError.

    One that Inspect starts would load its model while the first call waits.
    """
    provider = name.partition("/")[0]
    variable = SERVERS.get(provider)
    if variable is None:
        return {}
    if not base_url and not os.environ.get(variable):
        raise ConfigError(
            f"remask starts no server for inspect:{name}; start it, and give its address with base_url "
            f"(--base-url) or the variable {variable}"
        )
    # Without it the client is made in the first call, where its own retries cannot be turned off.
    return {} if provider == "sglang" else {"lazy_init": False}


def _find_key(name: str, base_url: str, variable: str) -> str | None:
    """Return the key in a variable that the user named; None: the provider looks for its own."""
    key = os.environ.get(variable, "").strip() if variable else ""
    if variable and not key and not (base_url and is_loopback(split_url(base_url)[1])):
        raise ConfigError(f"no API key for inspect:{name}; set the variable {variable}")
    return key or None


def _require_key(model: "Model", name: str) -> str:
    """Return the key that a provider found, without spaces around it; "" where it needs none.

    Raises ConfigError where it cannot be one.
    """
    key = (model.api.api_key or "").strip()
    if model.api.api_key is not None and not key:
        variables = " or ".join(model.api.api_key_vars) or "of the key"
        raise ConfigError(f"no API key for inspect:{name}: the variable {variables} is empty")
    check_key(key)
    return key


def _make_direct(client: Any) -> None:
    """Turn off retries and redirects of a client that is made as that of OpenAI is, as most are."""
    if hasattr(client, "max_retries"):
        client.max_retries = 0
        sender: Any = getattr(client, "_client", None)
        if hasattr(sender, "follow_redirects"):
            sender.follow_redirects = False  # else prompts would go to a place nobody named


@contextmanager
def _one_sentence(name: str) -> Iterator[None]:
    """Raise ConfigError or BackendError in place of what a provider raises when it is made."""
    from inspect_ai._util.error import PrerequisiteError

    try:
        yield
    except PrerequisiteError as error:  # a package or a key is missing
        raise BackendError(f"the model inspect:{name}: {_to_sentence(str(error.message))}") from None
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise BackendError(
            f"the model inspect:{name} needs the package {package}; install it with pip"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"inspect:{name}: extra.{key} = {first['input']!r}: {first['msg']}") from None
    except RemaskError:
        raise
    except Exception as error:  # a wrong argument; providers raise whatever their library does
        raise ConfigError(f"the model inspect:{name} cannot be made: {one_line(str(error), 300)}") from None


def _to_sentence(message: str) -> str:
    """Return a message of Inspect, which has colours and empty lines, as one sentence."""
    plain = re.sub(r"\[/?[a-z][a-z ]*\]", "", message).removeprefix("ERROR: ").strip()
    return one_line(re.sub(r"(?<=\w)\n\n", "; ", plain).rstrip("."), 300)


def _read_extra(
    extra: Mapping[str, Any], name: str
) -> "tuple[dict[str, Any], dict[str, Any], list[ToolInfo], ToolChoice | None]":
    """Return settings of Inspect, further fields of the request, tools and how they are chosen.

    Raises ConfigError.
    """
    from inspect_ai.model import GenerateConfig, ResponseSchema
    from inspect_ai.tool import ToolFunction, ToolInfo

    check_extra(extra)
    rest = {OPENAI_NAMES.get(key, key): value for key, value in extra.items()}
    for key in rest:
        if key in OWN_KEYS:
            raise ConfigError(f"extra.{key} is for Inspect's own use; set {OWN_KEYS[key]} in its place")
        if key in NOT_USED:
            raise ConfigError(f"extra.{key} is not used for inspect:{name}; leave it out")
    try:
        tools = [_convert(ToolInfo, tool.get("function", tool), "tools") for tool in rest.pop("tools", ())]
        choice: Any = rest.pop("tool_choice", None)
        choice = ToolFunction(choice["function"]["name"]) if isinstance(choice, dict) else choice
        choice = "any" if choice == "required" else choice
        if choice not in (None, "auto", "any", "none") and not isinstance(choice, ToolFunction):
            raise TypeError(choice)
        if rest.get("response_format", {}).get("type") == "json_schema":
            wanted = dict(rest.pop("response_format")["json_schema"])
            wanted["json_schema"] = wanted.pop("schema")
            rest["response_schema"] = _convert(ResponseSchema, wanted, "response_format")
    except (KeyError, TypeError, AttributeError):
        raise ConfigError(
            "extra.tools, extra.tool_choice and extra.response_format take what the chat completions of "
            "OpenAI take; compare them with its reference"
        ) from None
    if isinstance(rest.get("stop_seqs"), str):
        rest["stop_seqs"] = [rest["stop_seqs"]]
    settings = {key: rest.pop(key) for key in list(rest) if key in GenerateConfig.model_fields}
    return settings, rest, tools, choice


def _convert(kind: Any, value: dict[str, Any], key: str) -> Any:
    """Make a value of Inspect of a value of OpenAI's. Raises ConfigError where a part would be lost."""
    value = {"description": "", **value} if key == "tools" else value
    try:
        made = kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (key, *first["loc"])))
        raise ConfigError(f"extra.{place} = {first['input']!r}: {first['msg']}") from None
    if lost := _find_lost(value, made.model_dump(exclude_unset=True)):
        raise ConfigError(f"extra.{key} has {lost!r}, which Inspect cannot pass on; leave it out")
    return made


def _find_lost(given: Any, kept: Any) -> str:
    """Return a key of nested values that was not kept; "" where all were."""
    if isinstance(given, list):
        return next(filter(None, map(_find_lost, given, kept)), "")
    if not isinstance(given, dict):
        return ""
    missing = [key for key in given if key not in kept]
    return next(iter(missing), "") or next(
        filter(None, (_find_lost(value, kept[key]) for key, value in given.items())), ""
    )


# --- what an exception of a provider says


def _unwrap(error: BaseException) -> Exception:
    """Return the exception of the provider's library, without those that Inspect puts around it."""
    from inspect_ai.model._model import ModelGenerateError
    from tenacity import RetryError

    while True:
        inner: BaseException | None = None
        if isinstance(error, RetryError):
            inner = error.last_attempt.exception()
        elif isinstance(error, ModelGenerateError):
            inner = error.__cause__
        if not isinstance(inner, Exception):
            assert isinstance(error, Exception)
            return error
        error = inner


def _read_error(error: Exception) -> tuple[int | None, object, str]:
    """Return status, code and message of a provider's exception, as far as it has them."""
    from inspect_ai._util.http import status_code_of

    body, status, code = getattr(error, "body", None), status_code_of(error), getattr(error, "code", None)
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):  # of boto, for Bedrock
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", status)
        body, code = answer.get("Error"), answer.get("Error", {}).get("Code")
        body = {"message": body.get("Message")} if isinstance(body, dict) else None
    if isinstance(body, str):
        with suppress(ValueError):
            body = json.loads(body)
    said = find_message(body) or str(getattr(error, "message", "") or error) or type(error).__name__
    return status, code, said
