"""Any OpenAI-compatible endpoint as a target, through the official openai SDK.

Knows HTTP failures, retries and the shape of a chat completion. Retries are ours and not the
SDK's, because each attempt may be billed and must be counted. The reply is read from the raw JSON,
because the SDK builds its objects without checking them. Never shows the key. Knows nothing of
what a prompt means, of caches and of budgets.
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
from remask.models.thread_map import ordered_map
from remask.ports import Reply, TargetModel
from remask.sanitize import clip
from remask.types import Chat

if TYPE_CHECKING:
    import openai

_DEFAULT_URL = "https://api.openai.com/v1"
_BUSY = frozenset({408, 409, 429})  # and every 5xx
_REFUSED = {
    401: "check the API key",
    402: "check the billing of this account",
    403: "check what this key may use",
    404: "check the model name and base_url",
}
# Codes in the body that hold for every further call, whatever the status says.
_HOPELESS = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "model_not_found",
        "unsupported_parameter",
        "unsupported_value",
    }
)
_NO_KEY = "none"  # the SDK wants a key even where the server wants none
_FIRST_WAIT = 0.5  # seconds before the first retry; doubles with each
_LONGEST_WAIT = 60.0  # seconds, also for what Retry-After asks
_SHOWN = 300  # characters of a server's message that are passed on


class OpenAITarget(TargetModel):
    """Asks `model` at `base_url` for chat completions.

    `api_key` defaults to the environment variable `key_env`; a server on this machine needs none.
    `base_url` defaults to OPENAI_BASE_URL, then to OpenAI. `max_tokens=None`, `temperature=None`
    and `stop=None` leave the field out: newer reasoning models refuse the first two. With a
    `seed`, repeat r sends seed + r. `timeout` is in seconds, per attempt. `sleep` replaces waiting
    in tests. Safe to use from one thread at a time; close it, or use it in a with statement.
    """

    billed = True
    kind = "openai"  # begins its identity
    shape = "chat completion"  # what a reply is called
    field: tuple[str, ...] = ("message", "content")  # where a choice holds the text

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
        place, host = _place(url)
        self._key = _pick_key(api_key, key_env, host)
        self._client = _connect(url, self._key, timeout)
        self._model, self._place, self._host = model, place, host
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
        # Without key, retries and timeout, which do not change an answer.
        decoding = json.dumps({**self._decoding, "seed": seed}, sort_keys=True)
        self.identity = f"{self.kind}:{model}@{place} {decoding}"

    def __enter__(self) -> "OpenAITarget":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def limit_attempts(self, attempts: int) -> "OpenAITarget":
        """A view on this target with at most `attempts` per call; shares its connections."""
        view = copy(self)
        view.max_attempts = min(self.max_attempts, attempts)
        return view

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        """Answer each chat, in order, `concurrency` at a time.

        A call that fails is a Reply with `error`; `attempts` counts what was sent for it. Raises
        TargetRefused when no further call can succeed; attempts of the other chats in the same
        list may have been billed then.
        """
        return ordered_map(
            lambda chat, stop: self._answer(chat, repeat, stop), chats, self._concurrency
        )

    def _answer(self, chat: Chat, repeat: int, stop: threading.Event) -> Reply:
        """One call with its retries."""
        turns = [[message.role, message.content] for message in chat]
        rng = rng_for(self._seed or 0, "retry", content_id("chat", turns), repeat)
        attempt = 0
        while True:
            attempt += 1
            try:
                return replace(self._attempt(chat, repeat), attempts=attempt)
            except TargetRefused:
                raise
            except TargetBusy as busy:
                if attempt == self.max_attempts or stop.is_set():
                    times = f"{attempt} attempt{'s' if attempt > 1 else ''}"
                    return Reply("", error=f"{busy}; gave up after {times}", attempts=attempt)
                wait = wait_seconds(attempt, busy.retry_after, rng)
            except TargetError as error:
                return Reply("", error=str(error), attempts=attempt)
            if self._sleep is None:
                stop.wait(wait)
            else:
                self._sleep(wait)

    def _send(self, chat: Chat, settings: dict[str, Any]) -> bytes:
        """The body of the reply to one request. Raises what the SDK raises."""
        messages: Any = [{"role": message.role, "content": message.content} for message in chat]
        create = self._client.chat.completions.with_raw_response.create
        return create(messages=messages, **settings).http_response.content

    def _attempt(self, chat: Chat, repeat: int) -> Reply:
        """One request. Raises TargetBusy, TargetRefused or TargetError."""
        import openai

        settings: dict[str, Any] = {"model": self._model, **self._decoding}
        if self._seed is not None:
            settings["seed"] = self._seed + repeat
        try:
            body = self._send(chat, settings)
        except openai.APIStatusError as error:
            failure: TargetError = self._status_failure(error)
        except openai.APIConnectionError as error:
            failure = self._no_answer(error)
        else:
            return self._read(body)
        # Raised outside of the handlers: the SDK's exception may quote the key, and must not
        # hang on ours as its context.
        raise failure

    def models(self) -> tuple[int, list[str]]:
        """The status and the names of the server's list of models, which no provider bills; no
        names where it has no list. Asks once and follows no redirect: the key goes to this host
        and nowhere else. Raises TargetBusy where there is no answer."""
        import openai

        with openai.DefaultHttpxClient(follow_redirects=False) as direct:
            client = self._client.with_options(http_client=direct)
            try:
                reply = client.models.with_raw_response.list().http_response
            except openai.APIStatusError as error:
                return error.status_code, []
            except openai.APIConnectionError as error:
                failure = self._no_answer(error)
            else:
                return reply.status_code, _model_names(reply.content)
        raise failure  # outside of the handlers, as above

    def _no_answer(self, error: "openai.APIConnectionError") -> TargetError:
        import openai

        if isinstance(error, openai.APITimeoutError):
            return TargetBusy(f"{self._host} gave no answer within {self._timeout:g} s")
        cause = error.__cause__ or error
        return TargetBusy(self._clean(f"no connection to {self._host} ({cause})"))

    def _status_failure(self, error: "openai.APIStatusError") -> TargetError:
        status = error.status_code
        said = self._clean(_server_words(error))
        if status in _REFUSED or error.code in _HOPELESS:
            todo = _REFUSED.get(status, "change the settings of the target")
            return TargetRefused(
                f"{self._host} refuses calls to {self._model!r} with status {status} ({said}); "
                f"{todo}"
            )
        message = f"{self._host} answered {status} ({said})"
        if status in _BUSY or status >= 500:
            return TargetBusy(message, retry_after_seconds(error.response.headers, time.time()))
        return TargetError(message)

    def _read(self, body: bytes) -> Reply:
        """The answer in the body of a 200. Raises TargetBusy or TargetError where there is none."""
        try:
            payload = json.loads(body)
        except ValueError:  # truncated, HTML, or not UTF-8
            text = self._clean(body.decode("utf-8", "replace"))[:60]
            raise TargetError(f"{self._host} sent no JSON but {text!r}; check base_url") from None
        if isinstance(payload, dict) and payload.get("error"):  # some routers send it with a 200
            raise self._inner_failure(payload["error"])
        problem = _shape_problem(payload, self.shape, self.field)
        if problem:
            raise TargetError(f"{self._host} sent a reply that {problem}")
        choice = payload["choices"][0]
        text = _inner(choice, self.field)
        if not text and choice.get("finish_reason") in ("length", "content_filter"):
            raise TargetError(
                f"{self._host} sent no text, finish_reason is {choice['finish_reason']!r} "
                f"(max_tokens is {self.max_tokens})"
            )
        usage = payload.get("usage")
        return Reply(
            text,
            input_tokens=_count(usage, "prompt_tokens"),
            output_tokens=_count(usage, "completion_tokens"),
        )

    def _inner_failure(self, error: object) -> TargetError:
        code = error.get("code") if isinstance(error, dict) else None
        said = error.get("message") if isinstance(error, dict) else error
        message = self._clean(f"{self._host} sent an error instead of an answer ({said})")
        if isinstance(code, int) and (code in _BUSY or code >= 500):
            return TargetBusy(message)
        return TargetError(message)

    def _clean(self, text: str) -> str:
        """On one line, short, and without the key: some servers quote it."""
        secret = self._key != _NO_KEY
        line = " ".join((text.replace(self._key, "[key]") if secret else text).split())
        return clip(line, _SHOWN)


def wait_seconds(attempt: int, retry_after: float | None, rng: np.random.Generator) -> float:
    """Seconds to wait after failed attempt number `attempt` (from 1).

    What the server asked for, else 0.5 s doubling with each attempt; at most 60 s. Half of our own
    wait is random, so that the rows of a chunk do not come back all at once.
    """
    if retry_after is not None:
        return min(retry_after, _LONGEST_WAIT)
    ceiling = min(_FIRST_WAIT * 2.0 ** min(attempt - 1, 16), _LONGEST_WAIT)
    return float(ceiling * (0.5 + 0.5 * rng.random()))


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """What Retry-After asks for, in seconds from `now` (seconds since 1970); None: nothing usable.

    Both forms of RFC 9110, section 10.2.3: a number of seconds and a date.
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


def _place(url: str) -> tuple[str, str]:
    """(host, port and path without credentials, host name) of a base_url."""
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
        return _NO_KEY
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


def _connect(url: str, key: str, timeout: float) -> "openai.OpenAI":
    with name_missing_extra():
        import openai
    return openai.OpenAI(api_key=key, base_url=url, max_retries=0, timeout=timeout)


def _model_names(body: bytes) -> list[str]:
    """The names in an OpenAI-style list; none where it is something else."""
    try:
        return [str(row["id"]) for row in json.loads(body)["data"]]
    except (ValueError, KeyError, TypeError):
        return []


def _server_words(error: "openai.APIStatusError") -> str:
    """The server's own sentence, where it sent one."""
    said = error.body.get("message") if isinstance(error.body, dict) else None
    return said if isinstance(said, str) and said else error.response.reason_phrase or "no reason"


def _shape_problem(payload: object, shape: str, field: Sequence[str]) -> str:
    """Why `payload` is not a completion whose text is at `field`; empty when it is one."""
    if not isinstance(payload, dict) or not isinstance(payload.get("choices"), list):
        return f"is no {shape} (it has no list 'choices')"
    if not payload["choices"]:
        return "has no choices"
    choice = payload["choices"][0]
    if not isinstance(_inner(choice, field[:-1]), dict):
        return f"has a choice without a {field[0]}"
    content = _inner(choice, field)
    if content is None:
        return f"has no {field[-1]} (finish_reason is {choice.get('finish_reason')!r})"
    if not isinstance(content, str):
        return f"has {field[-1]} of type {type(content).__name__} instead of text"
    return ""


def _inner(value: Any, field: Sequence[str]) -> Any:
    """What stands in nested objects under these names; None where there is no such thing."""
    for name in field:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value >= 0 else 0
