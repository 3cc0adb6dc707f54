"""Any OpenAI-compatible endpoint as a target, through the official openai SDK.

The SDK's own retries are off, because each attempt may be billed and must be counted. The reply is
read from the raw JSON, because the SDK builds its objects without validating them. The API key
never appears in messages.
"""

import email.utils
import ipaddress
import json
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from remask.errors import ConfigError, TargetBusy, TargetError, TargetRefused, name_missing_extra
from remask.ids import content_id, rng_for
from remask.models.thread_map import map_in_order
from remask.ports import Reply, TargetModel
from remask.sanitize import clip
from remask.types import Chat

if TYPE_CHECKING:
    import openai

_DEFAULT_URL = "https://api.openai.com/v1"
_RETRY_STATUSES = frozenset({408, 409, 429})  # and every 5xx
_REFUSAL_ADVICE = {
    401: "check the API key",
    402: "check the billing of this account",
    403: "check what this key may use",
    404: "check the model name and base_url",
}
# Codes in the body that apply to every further call, for any status.
_FINAL_ERROR_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "model_not_found",
        "unsupported_parameter",
        "unsupported_value",
    }
)
_PLACEHOLDER_KEY = "none"  # the SDK requires a key even if the server does not
_FIRST_WAIT_SECONDS = 0.5  # before the first retry; doubles with each retry
_MAX_WAIT_SECONDS = 60.0  # also limits Retry-After
_MAX_MESSAGE_CHARACTERS = 300  # of a server's message


class OpenAITarget(TargetModel):
    """Asks `model` at `base_url` for chat completions.

    `api_key` defaults to the environment variable `key_env`; a server on this machine needs none.
    `base_url` defaults to OPENAI_BASE_URL, then to OpenAI. `max_tokens=None`, `temperature=None`
    and `stop=None` leave the field out; newer reasoning models refuse the first two. With a `seed`,
    repeat r sends seed + r. `timeout` is in seconds, per attempt. `sleep` replaces waiting in
    tests. Use it from one thread at a time; close it, or use it in a with statement.
    """

    billed = True
    kind = "openai"  # first part of the identity
    shape = "chat completion"  # name of a reply in errors
    field: tuple[str, ...] = ("message", "content")  # path of the text in a choice

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        key_env: str = "OPENAI_API_KEY",
        temperature: float | None = 0.0,
        max_tokens: int | None = 256,
        seed: int | None = None,
        stop: Sequence[str] | None = None,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 4,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        """Raises ConfigError for a bad setting or a missing key, BackendError without the SDK."""
        _check_positive(concurrency=concurrency, timeout=timeout, max_tokens=max_tokens)
        if not model.strip():
            raise ConfigError("the target's model name is empty; write openai:MODEL")
        if retries < 0:
            raise ConfigError(f"retries is {retries}; give 0 or more")
        url = base_url or os.environ.get("OPENAI_BASE_URL") or _DEFAULT_URL
        address, host = _split_url(url)
        self._key = _pick_key(api_key, key_env, host)
        self._client = _make_client(url, self._key, timeout)
        self._model, self._host = model, host
        self._seed, self._concurrency, self._timeout = seed, concurrency, timeout
        self._sleep = sleep
        self.max_attempts = 1 + retries
        self.max_tokens = max_tokens
        self._decoding: dict[str, Any] = {}
        if temperature is not None:
            self._decoding["temperature"] = temperature
        if max_tokens is not None:
            self._decoding["max_tokens"] = max_tokens
        if stop is not None:
            self._decoding["stop"] = list(stop)
        # Key, retries and timeout are left out, since they do not change an answer.
        decoding = json.dumps({**self._decoding, "seed": seed}, sort_keys=True)
        self.identity = f"{self.kind}:{model}@{address} {decoding}"

    def __enter__(self) -> "OpenAITarget":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def limit_attempts(self, attempts: int) -> "OpenAITarget":
        """Return a view of this target with at most `attempts` per call; it shares connections."""
        view = copy(self)
        view.max_attempts = min(self.max_attempts, attempts)
        return view

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        """Answer each chat, in order, `concurrency` at a time.

        A failed call is a Reply with `error`; `attempts` is the number of requests for it. Raises
        TargetRefused if no further call can succeed; attempts for the other chats of the list may
        have been billed by then.
        """
        return map_in_order(
            lambda chat, stop: self._ask_with_retries(chat, repeat, stop), chats, self._concurrency
        )

    def _ask_with_retries(self, chat: Chat, repeat: int, stop: threading.Event) -> Reply:
        """Make one call with its retries."""
        turns = [[message.role, message.content] for message in chat]
        rng = rng_for(self._seed or 0, "retry", content_id("chat", turns), repeat)
        attempt = 0
        while True:
            attempt += 1
            try:
                return replace(self._ask_once(chat, repeat), attempts=attempt)
            except TargetRefused:
                raise
            except TargetBusy as busy:
                if attempt == self.max_attempts or stop.is_set():
                    times = f"{attempt} attempt{'s' if attempt > 1 else ''}"
                    return Reply("", error=f"{busy}; gave up after {times}", attempts=attempt)
                wait = compute_wait(attempt, busy.retry_after, rng)
            except TargetError as error:
                return Reply("", error=str(error), attempts=attempt)
            if self._sleep is None:
                stop.wait(wait)
            else:
                self._sleep(wait)

    def _send(self, chat: Chat, settings: dict[str, Any]) -> bytes:
        """Return the body of the reply to one request. Raises what the SDK raises."""
        messages: Any = [{"role": message.role, "content": message.content} for message in chat]
        create = self._client.chat.completions.with_raw_response.create
        return create(messages=messages, **settings).http_response.content

    def _ask_once(self, chat: Chat, repeat: int) -> Reply:
        """Make one request. Raises TargetBusy, TargetRefused or TargetError."""
        import openai

        settings: dict[str, Any] = {"model": self._model, **self._decoding}
        if self._seed is not None:
            settings["seed"] = self._seed + repeat
        try:
            body = self._send(chat, settings)
        except openai.APIStatusError as error:
            failure: TargetError = self._make_status_error(error)
        except openai.APIConnectionError as error:
            failure = self._make_connection_error(error)
        else:
            return self._read_reply(body)
        # Raised outside of the handlers, since the SDK's exception may contain the key and must not
        # become the context of ours.
        raise failure

    def list_models(self) -> tuple[int, list[str]]:
        """Return the status and the names of the server's list of models, which is never billed.

        There are no names if the server has no list. It makes one request and follows no redirect,
        so the key is sent to this host only. Raises TargetBusy if there is no answer.
        """
        import openai

        with openai.DefaultHttpxClient(follow_redirects=False) as direct:
            client = self._client.with_options(http_client=direct)
            try:
                reply = client.models.with_raw_response.list().http_response
            except openai.APIStatusError as error:
                return error.status_code, []
            except openai.APIConnectionError as error:
                failure = self._make_connection_error(error)
            else:
                return reply.status_code, _read_model_names(reply.content)
        raise failure  # outside of the handlers, as in _ask_once

    def _make_connection_error(self, error: "openai.APIConnectionError") -> TargetError:
        import openai

        if isinstance(error, openai.APITimeoutError):
            return TargetBusy(f"{self._host} gave no answer within {self._timeout:g} s")
        cause = error.__cause__ or error
        return TargetBusy(self._clean(f"no connection to {self._host} ({cause})"))

    def _make_status_error(self, error: "openai.APIStatusError") -> TargetError:
        status = error.status_code
        reason = self._clean(_find_server_message(error))
        if status in _REFUSAL_ADVICE or error.code in _FINAL_ERROR_CODES:
            advice = _REFUSAL_ADVICE.get(status, "change the settings of the target")
            return TargetRefused(
                f"{self._host} refuses calls to {self._model!r} with status {status} ({reason}); {advice}"
            )
        message = f"{self._host} answered {status} ({reason})"
        if status in _RETRY_STATUSES or status >= 500:
            return TargetBusy(message, parse_retry_after(error.response.headers, time.time()))
        return TargetError(message)

    def _read_reply(self, body: bytes) -> Reply:
        """Read the answer in the body of a 200. Raises TargetBusy or TargetError without one."""
        try:
            payload = json.loads(body)
        except ValueError:  # truncated, HTML, or not UTF-8
            text = self._clean(body.decode("utf-8", "replace"))[:60]
            raise TargetError(f"{self._host} sent no JSON but {text!r}; check base_url") from None
        if isinstance(payload, dict) and payload.get("error"):  # some routers do this with a 200
            raise self._make_body_error(payload["error"])
        problem = _find_shape_problem(payload, self.shape, self.field)
        if problem:
            raise TargetError(f"{self._host} sent a reply that {problem}")
        choice = payload["choices"][0]
        text = _get_nested(choice, self.field)
        if not text and choice.get("finish_reason") in ("length", "content_filter"):
            raise TargetError(
                f"{self._host} sent no text, finish_reason is {choice['finish_reason']!r} "
                f"(max_tokens is {self.max_tokens})"
            )
        usage = payload.get("usage")
        return Reply(
            text,
            input_tokens=_read_count(usage, "prompt_tokens"),
            output_tokens=_read_count(usage, "completion_tokens"),
        )

    def _make_body_error(self, error: object) -> TargetError:
        code = error.get("code") if isinstance(error, dict) else None
        reason = error.get("message") if isinstance(error, dict) else error
        message = self._clean(f"{self._host} sent an error instead of an answer ({reason})")
        if isinstance(code, int) and (code in _RETRY_STATUSES or code >= 500):
            return TargetBusy(message)
        return TargetError(message)

    def _clean(self, text: str) -> str:
        """Put a server's message on one line, clip it, and remove the key, which some quote."""
        secret = self._key != _PLACEHOLDER_KEY
        line = " ".join((text.replace(self._key, "[key]") if secret else text).split())
        return clip(line, _MAX_MESSAGE_CHARACTERS)


def compute_wait(attempt: int, retry_after: float | None, rng: np.random.Generator) -> float:
    """Return the seconds to wait after failed attempt number `attempt` (from 1).

    It is what the server asked for, else 0.5 s doubled with each attempt; at most 60 s. Half of our
    own wait is random, so that the calls of a batch are not repeated all at once.
    """
    if retry_after is not None:
        return min(retry_after, _MAX_WAIT_SECONDS)
    ceiling = min(_FIRST_WAIT_SECONDS * 2.0 ** min(attempt - 1, 16), _MAX_WAIT_SECONDS)
    return float(ceiling * (0.5 + 0.5 * rng.random()))


def parse_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the wait that Retry-After asks for in seconds, or None if it has no valid value.

    It may be a number of seconds or a date (RFC 9110, section 10.2.3). `now` is in seconds since
    1970.
    """
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now
        except (ValueError, OverflowError):
            return None
        return max(0.0, seconds)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _check_positive(**settings: float | None) -> None:
    for name, value in settings.items():
        if value is not None and not value > 0:
            raise ConfigError(f"{name} is {value}; it must be above 0")


def _split_url(url: str) -> tuple[str, str]:
    """Split a base_url into the address (host, port and path without credentials) and the host.

    Raises ConfigError.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"base_url {url!r} is no address ({error})") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"base_url {url!r} must look like http://localhost:8000/v1")
    return f"{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}", host


def _pick_key(given: str | None, variable: str, host: str) -> str:
    key = (given or os.environ.get(variable) or "").strip()
    if not key and _is_loopback(host):
        return _PLACEHOLDER_KEY
    if not key:
        raise ConfigError(f"no API key for {host}; set the variable {variable}")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError("the API key holds characters that no key has; copy it again")
    return key


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _make_client(url: str, key: str, timeout: float) -> "openai.OpenAI":
    with name_missing_extra():
        import openai
    return openai.OpenAI(api_key=key, base_url=url, max_retries=0, timeout=timeout)


def _read_model_names(body: bytes) -> list[str]:
    """Return the names in an OpenAI-style list, or none if the body is something else."""
    try:
        return [str(row["id"]) for row in json.loads(body)["data"]]
    except (ValueError, KeyError, TypeError):
        return []


def _find_server_message(error: "openai.APIStatusError") -> str:
    """Return the server's own message, else the reason phrase of the status."""
    message = error.body.get("message") if isinstance(error.body, dict) else None
    if isinstance(message, str) and message:
        return message
    return error.response.reason_phrase or "no reason"


def _find_shape_problem(payload: object, shape: str, field: Sequence[str]) -> str:
    """Return why `payload` is not a completion with its text at `field`; "" if it is one."""
    if not isinstance(payload, dict) or not isinstance(payload.get("choices"), list):
        return f"is not a {shape} (it has no list 'choices')"
    if not payload["choices"]:
        return "has no choices"
    choice = payload["choices"][0]
    if not isinstance(_get_nested(choice, field[:-1]), dict):
        return f"has a choice without a {field[0]}"
    content = _get_nested(choice, field)
    if content is None:
        return f"has no {field[-1]} (finish_reason is {choice.get('finish_reason')!r})"
    if not isinstance(content, str):
        return f"has {field[-1]} of type {type(content).__name__} instead of text"
    return ""


def _get_nested(value: Any, field: Sequence[str]) -> Any:
    """Return the value in nested objects under these names, or None if there is none."""
    for name in field:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _read_count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value >= 0 else 0
