"""Any OpenAI-compatible endpoint as a target, through the official openai SDK.

The SDK's own retries are off, because each attempt may be billed and must be counted. The reply is
read from the raw JSON, because the SDK builds its objects without validating them. The API key
never appears in messages.
"""

import asyncio
import email.utils
import ipaddress
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from remask.errors import ConfigError, TargetBusy, TargetError, TargetRefused, name_missing_extra
from remask.ids import content_id, rng_for
from remask.models.event_loop import get_own_loop
from remask.models.requests import run_calls
from remask.ports import CallBook, Reply, TargetModel
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
_UNBILLED_STATUSES = frozenset({429, 503})  # refused before any work
_MAX_BODY_BYTES = 32 << 20
_MAX_TOKENS = 1 << 40  # of one answer; a larger number is none
_FIRST_WAIT_SECONDS = 0.5  # before the first retry; doubles with each retry
_MAX_WAIT_SECONDS = 60.0  # also limits Retry-After
_MAX_MESSAGE_CHARACTERS = 300  # of a server's message


class OpenAITarget(TargetModel):
    """Asks `model` at `base_url` for chat completions.

    `api_key` defaults to the environment variable `key_env`; a server on this machine needs none.
    `base_url` defaults to OPENAI_BASE_URL, then to OpenAI. `max_tokens=None`, `temperature=None`
    and `stop=None` leave the field out; newer reasoning models refuse the first two. With a `seed`,
    repeat r sends seed + r. `timeout` is in seconds, for an attempt as a whole. Use it from one
    thread at a time; close it, or use it in a with statement.
    """

    billed = True
    books_attempts = True
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
        first_wait: float = _FIRST_WAIT_SECONDS,
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
        self._first_wait = first_wait
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
        asyncio.run_coroutine_threadsafe(self._client.close(), get_own_loop()).result()

    def respond(self, chats: Sequence[Chat], repeat: int = 0, book: CallBook | None = None) -> list[Reply]:
        """Answer each chat, in order, `concurrency` at a time.

        A failed call is a Reply with `error`; `attempts` counts those that may be billed. Raises
        TargetRefused if no further call can succeed, after the calls in flight have ended.
        """

        def wait(call: int, tried: int, busy: TargetBusy) -> float:
            turns = [[message.role, message.content] for message in chats[call]]
            content = content_id("chat", turns)
            rng = rng_for(self._seed or 0, "retry", content, repeat, tried)
            return compute_wait(tried, busy.retry_after, rng, self._first_wait)

        def attempt(call: int) -> "Future[Reply]":
            return asyncio.run_coroutine_threadsafe(self._ask_once(chats[call], repeat), get_own_loop())

        return run_calls(
            attempt,
            len(chats),
            concurrency=self._concurrency,
            max_attempts=self.max_attempts,
            wait=wait,
            book=book or CallBook(),
        )

    async def _send(self, chat: Chat, settings: dict[str, Any]) -> bytes:
        """Return the body of the reply to one request. Raises what the SDK raises."""
        messages: Any = [{"role": message.role, "content": message.content} for message in chat]
        create = self._client.chat.completions.with_streaming_response.create
        async with create(messages=messages, **settings) as response:
            return await read_body(response)

    async def _ask_once(self, chat: Chat, repeat: int) -> Reply:
        """Make one attempt. Raises TargetBusy, TargetRefused or TargetError."""
        import openai

        settings: dict[str, Any] = {"model": self._model, **self._decoding}
        if self._seed is not None:
            settings["seed"] = self._seed + repeat
        failure: TargetError
        try:
            # The SDK's timeout is one of each read: a server that sends a byte a second never ends.
            body = await asyncio.wait_for(self._send(chat, settings), self._timeout)
        except TimeoutError:
            failure = self._make_timeout_error()
        except openai.APIStatusError as error:
            failure = self._make_status_error(error)
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

        async def send() -> bytes:
            async with self._client.models.with_streaming_response.list() as response:
                return await read_body(response)

        listing = asyncio.wait_for(send(), self._timeout)
        try:
            body = asyncio.run_coroutine_threadsafe(listing, get_own_loop()).result()
        except TimeoutError:
            failure = self._make_timeout_error()
        except openai.APIStatusError as error:
            return error.status_code, []
        except openai.APIConnectionError as error:
            failure = self._make_connection_error(error)
        else:
            return 200, _read_model_names(body)
        raise failure  # outside of the handlers, as in _ask_once

    def _make_connection_error(self, error: "openai.APIConnectionError") -> TargetError:
        import openai

        cause = error.__cause__ or error
        # Only where no connection was made is it known that nothing was computed.
        sent = type(cause).__name__ not in ("ConnectError", "ConnectTimeout", "PoolTimeout")
        if isinstance(error, openai.APITimeoutError):
            return self._make_timeout_error(sent)
        message = self._clean(f"no connection to {self._host} ({cause})")
        return TargetBusy(message, billed=sent)

    def _make_timeout_error(self, sent: bool = True) -> TargetError:
        return TargetBusy(f"{self._host} gave no answer within {self._timeout:g} s", billed=sent)

    def _make_status_error(self, error: "openai.APIStatusError") -> TargetError:
        status = error.status_code
        reason = self._clean(_find_server_message(error))
        if status in _REFUSAL_ADVICE or error.code in _FINAL_ERROR_CODES:
            advice = _REFUSAL_ADVICE.get(status, "change the settings of the target")
            return TargetRefused(
                f"{self._host} refuses calls to {self._model!r} with status {status} ({reason}); {advice}"
            )
        if 300 <= status < 400:  # not followed: the prompts would go to a place nobody named
            place = self._clean(error.response.headers.get("location", "nowhere"))
            return TargetRefused(
                f"{self._host} redirects to {place}; remask does not follow, set base_url to the "
                "address that answers"
            )
        message = f"{self._host} answered {status} ({reason})"
        if status in _RETRY_STATUSES or status >= 500:
            wait = parse_retry_after(error.response.headers, time.time())
            return TargetBusy(message, wait, billed=status not in _UNBILLED_STATUSES)
        return TargetError(message)

    def _read_reply(self, body: bytes) -> Reply:
        """Read the answer in the body of a 200. Raises TargetBusy or TargetError without one."""
        try:
            payload = json.loads(body)
        except (ValueError, RecursionError):  # truncated, HTML, not UTF-8, or nested too deeply
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


def compute_wait(
    attempt: int, retry_after: float | None, rng: np.random.Generator, first: float = 0.5
) -> float:
    """Return the seconds to wait after failed attempt number `attempt` (from 1).

    It is what the server asked for, else `first` doubled with each attempt; at most 60 s. Half of
    our own wait is random, so that the calls of a batch are not repeated all at once.
    """
    if retry_after is not None:
        return min(retry_after, _MAX_WAIT_SECONDS)
    ceiling = min(first * 2.0 ** min(attempt - 1, 16), _MAX_WAIT_SECONDS)
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


def _make_client(url: str, key: str, timeout: float) -> "openai.AsyncOpenAI":
    """No redirect is followed: prompts and key go to the host that the user named, and no other."""
    with name_missing_extra():
        import openai
    direct = openai.DefaultAsyncHttpxClient(follow_redirects=False, timeout=timeout)
    return openai.AsyncOpenAI(api_key=key, base_url=url, max_retries=0, timeout=timeout, http_client=direct)


async def read_body(response: Any) -> bytes:
    """Raises TargetError where the body is larger than any answer, TargetBusy where it breaks off."""
    body = bytearray()
    try:
        async for part in response.iter_bytes():
            body += part
            if len(body) > _MAX_BODY_BYTES:
                raise TargetError(f"the server sent more than {_MAX_BODY_BYTES >> 20} MiB")
    except TargetError:
        raise
    except Exception as error:  # of the HTTP library, which the SDK does not translate here
        reason = str(error) or type(error).__name__
        raise TargetBusy(f"no connection to the end of the answer ({reason})") from None
    return bytes(body)


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
    return value if isinstance(value, int) and 0 <= value < _MAX_TOKENS else 0
