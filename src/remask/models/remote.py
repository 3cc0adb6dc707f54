"""Models behind an API: what a failed attempt means, and when it is made again.

A target of this room makes one attempt and says what it failed with; this module says it in words,
and whether the same call may succeed later, never again, or not for this row. The retries of the
libraries that send the requests are off, because each attempt may be billed and must be counted.
The API key never appears in messages.
"""

import asyncio
import ipaddress
import os
import re
import time
import urllib.request
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from remask.errors import ConfigError, TargetBusy, TargetError, TargetRefused
from remask.ids import content_id, rng_for
from remask.models.event_loop import get_own_loop
from remask.models.limiter import FIRST_WAIT_SECONDS, Limiters, compute_wait
from remask.models.rate_headers import parse_allowances, parse_retry_after
from remask.models.reply_body import RETRY_STATUSES
from remask.models.requests import run_calls
from remask.ports import CallBook, Reply, TargetModel
from remask.sanitize import clip
from remask.types import Chat

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
_UNSUPPORTED = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|unexpected|not permitted|not allowed|invalid"
    r"|deprecated|removed",
    re.IGNORECASE,
)
# Some servers refuse a temperature of 0: "`temperature` must be strictly positive".
_WRONG_TEMPERATURE = re.compile(r"\btemperature\b.*\bmust be\b", re.IGNORECASE)
PLACEHOLDER_KEY = "none"  # the SDK requires a key even if the server does not
_MIN_KEY_CHARACTERS = 8  # of a key that is looked for inside of words too
_UNBILLED_STATUSES = frozenset({429, 503})  # refused before any work
_CROWDED_STATUSES = frozenset({429, 503, 529})  # too many calls
_MAX_MESSAGE_CHARACTERS = 300  # of a server's message
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110
# Fields of a request that `extra` may not set, and what to do in their place.
OWN_FIELDS = {
    **dict.fromkeys(("messages", "prompt", "suffix"), "remask writes the messages; leave it out"),
    **dict.fromkeys(("max_tokens", "max_completion_tokens"), "set max_tokens of the same section"),
    "model": "set model of the same section",
    "stream": "remask reads whole answers; leave it out",
    "n": "remask reads one answer of each call; to ask rows more than once set metric.repeats",
    "extra_body": "write its fields into extra itself",
    "extra_headers": "set headers of the same section",
}


class RemoteTarget(TargetModel):
    """A model behind an API.

    A subclass sends one request (`_ask`) and says what its exceptions mean (`_explain`). Use it
    from one thread at a time; close it, or use it in a with statement.

    Where a server refuses a field of `optional` by name, as reasoning models refuse a temperature,
    the field is left out from then on, or sent under another name; `notes` says so.
    """

    billed = True
    books_attempts = True
    # Fields that a server may not know, and what is sent in their place.
    optional: ClassVar[Mapping[str, str | None]] = {}

    def __init__(
        self,
        model: str,
        host: str,
        key: str,
        *,
        max_tokens: int | None,
        seed: int | None,
        extra: Mapping[str, Any] | None,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 4,
        first_wait: float = FIRST_WAIT_SECONDS,
        address: str = "",
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        limiters: Limiters | None = None,
    ) -> None:
        """`host`: of the server, for messages. `key`: what must not stand in them. `address`: of the server.

        `limiters`: of all targets that may share the endpoint.

        Raises ConfigError for a setting that cannot be.
        """
        check_positive(
            concurrency=concurrency,
            timeout=timeout,
            max_tokens=max_tokens,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
        )
        if retries < 0:
            raise ConfigError(f"retries is {retries}; give 0 or more")
        self._model, self._host, self._key = model, host, key
        self._seed, self._concurrency, self._timeout = seed, concurrency, timeout
        self._first_wait = first_wait
        self._limiter = (limiters or Limiters()).open(
            address or host, key, model, requests_per_minute, tokens_per_minute,
            first_wait,
        )  # fmt: skip
        self.max_attempts = 1 + retries
        self.max_tokens = max_tokens
        self._extra = dict(extra or {})
        self._left_out: dict[str, str] = {}  # field that the server refuses -> what is sent in its place
        self._answered, self._refusals, self._patience = False, 0, MAX_REFUSALS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    async def _ask(self, chat: Chat, settings: dict[str, Any]) -> Reply:
        """Make one request with these fields. Raises TargetError, or what its library raises."""

    @abstractmethod
    def _explain(self, error: Exception, settings: Mapping[str, Any]) -> TargetError | None:
        """Return what an exception of the library means; None where it is a mistake in the code."""

    @abstractmethod
    def _make_settings(self, repeat: int) -> dict[str, Any]:
        """Return the fields of a request, without those that the server has refused."""

    def respond(self, chats: Sequence[Chat], repeat: int = 0, book: CallBook | None = None) -> list[Reply]:
        """Answer each chat, in order, `concurrency` at a time.

        A failed call is a Reply with `error`; `attempts` counts those that may be billed. Raises
        TargetRefused if no further call can succeed, after the calls in flight have ended. A
        refusal that may be of one row, such as by a content filter, fails that row, unless the
        first calls of all are refused.
        """
        self._patience = min(MAX_REFUSALS, len(chats))

        def wait(call: int, tried: int) -> float:
            turns = [[message.role, message.content] for message in chats[call]]  # enough for a wait
            content = content_id("chat", turns)
            rng = rng_for(self._seed or 0, "retry", content, repeat, tried)
            return compute_wait(tried, rng, self._first_wait)

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
            limiter=self._limiter,
            size=lambda call: sum(len(message.content) for message in chats[call]),
            timeout=self._timeout,
        )

    def _note_limits(self, headers: Mapping[str, str]) -> None:
        """Tell the limiter what the headers of an answer say of the limits."""
        if found := parse_allowances(headers, time.time()):
            self._limiter.note(found, time.monotonic())

    async def _ask_once(self, chat: Chat, repeat: int) -> Reply:
        """Make one attempt. Raises TargetBusy, TargetRefused or TargetError."""
        settings = self._make_settings(repeat)
        failure: TargetError | None
        try:
            # The timeout of a library is often one of each read: a server that sends a byte a
            # second never ends.
            reply = await asyncio.wait_for(self._ask(chat, settings), self._timeout)
        except TargetError:
            raise
        except TimeoutError:
            failure = self._make_timeout_error()
        except Exception as error:
            failure = self._explain(error, settings)
            if failure is None:
                raise
        else:
            self._answered, self._refusals = True, 0
            return reply
        # Raised outside of the handlers, since the library's exception may contain the key and must
        # not become the context of ours.
        raise failure

    def _leave_out(
        self, settings: Mapping[str, Any], status: int, code: object, named: object, said: str
    ) -> TargetBusy | None:
        """Leave a field out that the server names as unsupported; None if it names none of them.

        `code` and `named`: of the error in the body, which may name the field; `said`: its message.
        """
        if status not in (400, 422):
            return None
        coded = code in ("unsupported_parameter", "unsupported_value")
        if not coded and not _UNSUPPORTED.search(said) and not _WRONG_TEMPERATURE.search(said):
            return None
        for name, instead in self.optional.items():
            known = name in settings and name not in self._extra
            if known and (named == name or (not named and re.search(rf"\b{name}\b", said))):
                self._left_out.setdefault(name, instead or "")
                return TargetBusy(self._clean(f"{self._host} refuses {name} ({said})"), 0.0, changed=True)
        return None

    def _replace_refused(self, settings: dict[str, Any]) -> None:
        """Take out the fields that the server has refused, or give them their other name."""
        for name, instead in self._left_out.items():
            value = settings.pop(name, None)
            if instead and value is not None:
                settings[instead] = value

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of how the server was asked."""
        return tuple(
            f"{self._host} refuses {name} for {self._model}; remask sends {instead or 'nothing'} in its place"
            for name, instead in self._left_out.items()
        )

    def _make_connection_error(self, cause: BaseException, url: str, late: bool = False) -> TargetError:
        """`late`: whether there was no answer in time."""
        # Only where no connection was made is it known that nothing was computed.
        sent = type(cause).__name__ not in ("ConnectError", "ConnectTimeout", "PoolTimeout")
        if late:
            return self._make_timeout_error(sent)
        why = str(cause) or type(cause).__name__
        message = self._clean(f"no connection to {self._host}{find_proxy(url)} ({why})")
        return TargetBusy(message, billed=sent)

    def _make_timeout_error(self, sent: bool = True) -> TargetError:
        return TargetBusy(f"{self._host} gave no answer within {self._timeout:g} s", billed=sent)

    def _make_status_error(
        self, status: int, code: object, said: str, headers: Mapping[str, str]
    ) -> TargetError:
        """Return what an error status means. `code`: of the error in the body; `said`: its message."""
        reason = self._clean(said)
        self._note_limits(headers)
        if status in _REFUSAL_ADVICE or code in _FINAL_ERROR_CODES:
            self._refusals += 1
            advice = _REFUSAL_ADVICE.get(status, "change the settings of the target")
            message = (
                f"{self._host} refuses calls to {self._model!r} with status {status} ({reason}); {advice}"
            )
            final = status in _FINAL_STATUSES or code in _FINAL_ERROR_CODES
            if final or (not self._answered and self._refusals >= self._patience):
                return TargetRefused(message)
            return TargetError(message)
        if 300 <= status < 400:  # not followed: the prompts would go to a place nobody named
            place = self._clean(headers.get("location", "nowhere"))
            return TargetRefused(
                f"{self._host} redirects to {place}; remask does not follow, set base_url to the "
                "address that answers"
            )
        message = f"{self._host} answered {status} ({reason})"
        if status in RETRY_STATUSES or status >= 500:
            wait = parse_retry_after(headers, time.time())
            wait = wait or None  # some servers round a wait down to 0
            crowded = status in _CROWDED_STATUSES or wait is not None
            return TargetBusy(message, wait, billed=status not in _UNBILLED_STATUSES, crowded=crowded)
        return TargetError(message)

    def _clean(self, text: str) -> str:
        """Put a server's message on one line, clip it, and remove the key, which some quote."""
        key = re.escape(self._key)
        if len(self._key) < _MIN_KEY_CHARACTERS:  # a stand-in such as "x", which is in many words
            key = rf"(?<!\w){key}(?!\w)"
        secret = self._key not in ("", PLACEHOLDER_KEY)
        line = " ".join((re.sub(key, "[key]", text) if secret else text).split())
        return clip(line, _MAX_MESSAGE_CHARACTERS)


def check_extra(extra: Mapping[str, Any]) -> None:
    """Raise ConfigError where `extra` has a field that remask sets itself."""
    for name in extra:
        if name in OWN_FIELDS:
            raise ConfigError(f"extra.{name} cannot be set: {OWN_FIELDS[name]}")


def check_key(key: str) -> None:
    """Raise ConfigError where no server can have given this key."""
    if not (key.isascii() and key.isprintable()):
        raise ConfigError("the API key holds characters that no key has; copy it again")


def check_positive(**settings: float | None) -> None:
    for name, value in settings.items():
        if value is not None and not value > 0:
            raise ConfigError(f"{name} is {value}; it must be above 0")


def split_url(url: str) -> tuple[str, str]:
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


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def fill_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with `$NAME` replaced by the variable NAME.

    Raises ConfigError where a variable is not set, or where HTTP has no such header. The message does
    not contain the value, which may be a secret.
    """
    filled = {}
    for name, value in headers.items():
        if value.startswith("$"):
            variable = value[1:]
            if variable not in os.environ:
                raise ConfigError(f"the header {name} needs the variable {variable}, which is not set")
            value = os.environ[variable].strip()
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigError(f"headers has {name!r}, which is no name of a header; write one such as X-Team")
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(
                f"the value of the header {name} holds line breaks or letters beyond ASCII; no header can"
            )
        filled[name] = value
    return filled


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


def find_message(body: object) -> str:
    """Return the message in the body of an error: OpenAI's, Gemini's list, FastAPI's `detail`."""
    if isinstance(body, list):
        return "; ".join(filter(None, map(find_message, body[:3])))
    if not isinstance(body, dict):
        return body if isinstance(body, str) and "<" not in body else ""
    place = body.get("loc")  # of one problem in FastAPI's list
    where = ".".join(map(str, place)) + ": " if isinstance(place, list) else ""
    found = (find_message(body[key]) for key in ("message", "msg", "detail", "error") if body.get(key))
    text = next(filter(None, found), "")
    return where + text if text else ""
