"""Any OpenAI-compatible endpoint as a target, through the official openai SDK.

The SDK's own retries are off, because each attempt may be billed and must be counted. The reply is
read from the raw JSON, because the SDK builds its objects without validating them. The API key
never appears in messages.
"""

import asyncio
import ipaddress
import json
import os
import re
import time
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from remask.errors import ConfigError, TargetBusy, TargetError, TargetRefused, name_missing_extra
from remask.ids import content_id, rng_for
from remask.models.event_loop import get_own_loop
from remask.models.reply_body import RETRY_STATUSES, read_reply
from remask.models.requests import compute_wait, parse_retry_after, run_calls
from remask.ports import CallBook, Reply, TargetModel
from remask.sanitize import clip
from remask.types import Chat

if TYPE_CHECKING:
    import openai

_DEFAULT_URL = "https://api.openai.com/v1"
_REFUSAL_ADVICE = {
    401: "check the API key",
    402: "check the billing of this account",
    403: "check what this key may use",
    404: "check the model name and base_url",
}
# Statuses and codes in the body that apply to every further call.
_FINAL_STATUSES = frozenset({401, 402})
_FINAL_ERROR_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "model_not_found",
        "unsupported_parameter",
        "unsupported_value",
    }
)
MAX_REFUSALS = 8  # of the first calls; later, a refusal is of one row, such as by a content filter
# Fields that a server may not know, and what is sent in their place.
_OPTIONAL_FIELDS = {
    "temperature": None,
    "seed": None,
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": None,
}
_UNSUPPORTED = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|unexpected|not permitted|not allowed|invalid"
    r"|deprecated|removed",
    re.IGNORECASE,
)
# Some servers refuse a temperature of 0: "`temperature` must be strictly positive".
_WRONG_TEMPERATURE = re.compile(r"\btemperature\b.*\bmust be\b", re.IGNORECASE)
_PLACEHOLDER_KEY = "none"  # the SDK requires a key even if the server does not
_MIN_KEY_CHARACTERS = 8  # of a key that is looked for inside of words too
_UNBILLED_STATUSES = frozenset({429, 503})  # refused before any work
MAX_BODY_BYTES = 32 << 20
_FIRST_WAIT_SECONDS = 0.5  # before the first retry; doubles with each retry
_MAX_MESSAGE_CHARACTERS = 300  # of a server's message


class OpenAITarget(TargetModel):
    """Asks `model` at `base_url` for chat completions.

    `api_key` defaults to the environment variable `key_env`; a server on this machine needs none.
    `base_url` defaults to OPENAI_BASE_URL, then to OpenAI. `max_tokens=None`, `temperature=None`
    and `stop=None` leave the field out. With a `seed`, repeat r sends seed + r. `extra`: further
    fields of each request; `headers`: further headers, and `$NAME` stands for the value of an
    environment variable. `timeout` is in seconds, for an attempt as a whole. Use it from one thread
    at a time; close it, or use it in a with statement.

    Where a server refuses temperature, seed or max_tokens by name, as reasoning models do, the
    field is left out from then on, or sent as max_completion_tokens; `notes` says so.
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
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
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
        from_outside = os.environ.get("OPENAI_BASE_URL")
        url = base_url or from_outside or _DEFAULT_URL
        address, host = _split_url(url)
        self._url = url
        if from_outside and _split_url(from_outside)[0] == address:
            url = from_outside  # a run stores no password of a URL, so a resumed one finds it here
        self._key = _pick_key(api_key, key_env, host)
        self._client = _make_client(url, self._key, timeout, _fill_headers(headers or {}))
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
        self._extra = dict(extra or {})
        self._decoding |= self._extra
        self._left_out: dict[str, str] = {}  # field that the server refuses -> what is sent in its place
        self._answered, self._refusals, self._patience = False, 0, MAX_REFUSALS
        # Key, retries, headers and timeout are left out, since they do not change an answer.
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
        TargetRefused if no further call can succeed, after the calls in flight have ended. A
        refusal that may be of one row, such as by a content filter, fails that row, unless the
        first calls of all are refused.
        """
        self._patience = min(MAX_REFUSALS, len(chats))

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
            answered=self._answered,
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

        settings = self._make_settings(repeat)
        failure: TargetError
        try:
            # The SDK's timeout is one of each read: a server that sends a byte a second never ends.
            body = await asyncio.wait_for(self._send(chat, settings), self._timeout)
        except TimeoutError:
            failure = self._make_timeout_error()
        except openai.APIStatusError as error:
            failure = self._leave_out(settings, error) or self._make_status_error(error)
        except openai.APIConnectionError as error:
            failure = self._make_connection_error(error)
        else:
            reply = read_reply(body, self.shape, self.field, self.max_tokens, self._host, self._clean)
            self._answered, self._refusals = True, 0
            return reply
        # Raised outside of the handlers, since the SDK's exception may contain the key and must not
        # become the context of ours.
        raise failure

    def _make_settings(self, repeat: int) -> dict[str, Any]:
        """Return the fields of a request, without those that the server has refused."""
        settings: dict[str, Any] = {"model": self._model, **self._decoding}
        if self._seed is not None:
            settings["seed"] = self._seed + repeat
        for name, instead in self._left_out.items():
            value = settings.pop(name, None)
            if instead and value is not None:
                settings[instead] = value
        own = {name: settings.pop(name) for name in self._extra if name in settings}
        return {**settings, "extra_body": own} if own else settings

    def _leave_out(self, settings: Mapping[str, Any], error: "openai.APIStatusError") -> TargetBusy | None:
        """Leave a field out that the server names as unsupported; None if it names none of them."""
        if error.status_code not in (400, 422):
            return None
        said, named = _find_server_message(error), getattr(error, "param", None)
        coded = error.code in ("unsupported_parameter", "unsupported_value")
        if not coded and not _UNSUPPORTED.search(said) and not _WRONG_TEMPERATURE.search(said):
            return None
        for name, instead in _OPTIONAL_FIELDS.items():
            known = name in settings and name not in self._extra
            if known and (named == name or (not named and re.search(rf"\b{name}\b", said))):
                self._left_out.setdefault(name, instead or "")
                return TargetBusy(self._clean(f"{self._host} refuses {name} ({said})"), 0.0, changed=True)
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of how the server was asked."""
        return tuple(
            f"{self._host} refuses {name} for {self._model}; remask sends {instead or 'nothing'} in its place"
            for name, instead in self._left_out.items()
        )

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
        message = self._clean(f"no connection to {self._host}{find_proxy(self._url)} ({cause})")
        return TargetBusy(message, billed=sent)

    def _make_timeout_error(self, sent: bool = True) -> TargetError:
        return TargetBusy(f"{self._host} gave no answer within {self._timeout:g} s", billed=sent)

    def _make_status_error(self, error: "openai.APIStatusError") -> TargetError:
        status = error.status_code
        reason = self._clean(_find_server_message(error))
        if status in _REFUSAL_ADVICE or error.code in _FINAL_ERROR_CODES:
            self._refusals += 1
            advice = _REFUSAL_ADVICE.get(status, "change the settings of the target")
            message = (
                f"{self._host} refuses calls to {self._model!r} with status {status} ({reason}); {advice}"
            )
            final = status in _FINAL_STATUSES or error.code in _FINAL_ERROR_CODES
            if final or (not self._answered and self._refusals >= self._patience):
                return TargetRefused(message)
            return TargetError(message)
        if 300 <= status < 400:  # not followed: the prompts would go to a place nobody named
            place = self._clean(error.response.headers.get("location", "nowhere"))
            return TargetRefused(
                f"{self._host} redirects to {place}; remask does not follow, set base_url to the "
                "address that answers"
            )
        message = f"{self._host} answered {status} ({reason})"
        if status in RETRY_STATUSES or status >= 500:
            wait = parse_retry_after(error.response.headers, time.time())
            return TargetBusy(message, wait, billed=status not in _UNBILLED_STATUSES)
        return TargetError(message)

    def _clean(self, text: str) -> str:
        """Put a server's message on one line, clip it, and remove the key, which some quote."""
        key = re.escape(self._key)
        if len(self._key) < _MIN_KEY_CHARACTERS:  # a stand-in such as "x", which is in many words
            key = rf"(?<!\w){key}(?!\w)"
        line = " ".join((re.sub(key, "[key]", text) if self._key != _PLACEHOLDER_KEY else text).split())
        return clip(line, _MAX_MESSAGE_CHARACTERS)


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


def _fill_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with `$NAME` replaced by the variable NAME. Raises ConfigError."""
    filled = {}
    for name, value in headers.items():
        if value.startswith("$"):
            variable = value[1:]
            if variable not in os.environ:
                raise ConfigError(f"the header {name} needs the variable {variable}, which is not set")
            value = os.environ[variable]
        filled[name] = value
    return filled


def _make_client(url: str, key: str, timeout: float, headers: Mapping[str, str]) -> "openai.AsyncOpenAI":
    """No redirect is followed: prompts and key go to the host that the user named, and no other."""
    with name_missing_extra():
        import openai

        direct = openai.DefaultAsyncHttpxClient(follow_redirects=False, timeout=timeout)
    return openai.AsyncOpenAI(
        api_key=key, base_url=url, max_retries=0, timeout=timeout, http_client=direct, default_headers=headers
    )


def find_proxy(url: str) -> str:
    """Say which proxy the environment names for this URL; "" where there is none.

    With HTTP_PROXY=http://10.0.0.1:3128, "http://127.0.0.1:8000/v1" →
    " through the proxy 10.0.0.1:3128 of HTTP_PROXY; unset it, or add 127.0.0.1 to NO_PROXY"
    """
    parts = urlsplit(url)
    host, scheme = parts.hostname or "", parts.scheme
    proxies = urllib.request.getproxies()
    kind = next((kind for kind in (scheme, "all") if proxies.get(kind)), "")
    if not kind or urllib.request.proxy_bypass(host):
        return ""
    place = urlsplit(proxies[kind]).netloc.rpartition("@")[2] or proxies[kind]
    variable = f"{kind.upper()}_PROXY"
    return f" through the proxy {place} of {variable}; unset it, or add {host} to NO_PROXY"


async def read_body(response: Any) -> bytes:
    """Raises TargetError where the body is larger than any answer, TargetBusy where it breaks off."""
    body = bytearray()
    try:
        async for part in response.iter_bytes():
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise TargetError(f"the server sent more than {MAX_BODY_BYTES >> 20} MiB")
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
    return _find_message(error.body) or error.response.reason_phrase or "no reason"


def _find_message(body: object) -> str:
    """Return the message in the body of an error: OpenAI's, Gemini's list, FastAPI's `detail`."""
    if isinstance(body, list):
        return "; ".join(filter(None, map(_find_message, body[:3])))
    if not isinstance(body, dict):
        return body if isinstance(body, str) and "<" not in body else ""
    place = body.get("loc")  # of one problem in FastAPI's list
    where = ".".join(map(str, place)) + ": " if isinstance(place, list) else ""
    found = (_find_message(body[key]) for key in ("message", "msg", "detail", "error") if body.get(key))
    text = next(filter(None, found), "")
    return where + text if text else ""
