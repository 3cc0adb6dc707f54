"""Any OpenAI-compatible endpoint as a target, through the official openai SDK.

The SDK's own retries are off, because each attempt may be billed and must be counted. The reply is
read from the raw JSON, because the SDK builds its objects without validating them. The API key
never appears in messages.
"""

import asyncio
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from remask.errors import ConfigError, TargetBusy, TargetError, name_missing_extra
from remask.models.chat_components import describe_tools, split_components
from remask.models.event_loop import get_own_loop
from remask.models.limiter import FIRST_WAIT_SECONDS, Limiters
from remask.models.remote import (
    PLACEHOLDER_KEY,
    RemoteTarget,
    check_extra,
    check_key,
    fill_headers,
    find_message,
    is_loopback,
    split_url,
)
from remask.models.reply_body import read_reply
from remask.ports import Reply
from remask.types import Chat

if TYPE_CHECKING:
    import openai

_DEFAULT_URL = "https://api.openai.com/v1"
MAX_BODY_BYTES = 32 << 20
POOL_CONNECTIONS = 16  # of a client


class OpenAITarget(RemoteTarget):
    """Asks `model` at `base_url` for chat completions.

    `api_key` defaults to the environment variable `key_env`; a server on this machine needs none.
    `base_url` defaults to OPENAI_BASE_URL, then to OpenAI. `max_tokens=None`, `temperature=None`
    and `stop=None` leave the field out. With a `seed`, repeat r sends seed + r. `extra`: further
    fields of each request; `headers`: further headers, and `$NAME` stands for the value of an
    environment variable. `timeout` is in seconds, for an attempt as a whole.
    """

    optional: ClassVar[Mapping[str, str | None]] = {
        "temperature": None,
        "seed": None,
        "max_tokens": "max_completion_tokens",
        "max_completion_tokens": None,
    }
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
        first_wait: float = FIRST_WAIT_SECONDS,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        limiters: Limiters | None = None,
    ) -> None:
        """Raises ConfigError for a bad setting or a missing key, BackendError without the SDK."""
        if not model.strip():
            raise ConfigError("the target's model name is empty; write openai:MODEL")
        from_outside = os.environ.get("OPENAI_BASE_URL")
        url = base_url or from_outside or _DEFAULT_URL
        address, host = split_url(url)
        self._url = url
        if from_outside and split_url(from_outside)[0] == address:
            url = from_outside  # a run stores no password of a URL, so a resumed one finds it here
        key = _pick_key(api_key, key_env, host)
        check_extra(extra or {})
        super().__init__(
            model, host, key, max_tokens=max_tokens, seed=seed, extra=extra,
            concurrency=concurrency, timeout=timeout, retries=retries, first_wait=first_wait, address=address,
            requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, limiters=limiters,
        )  # fmt: skip
        filled = fill_headers(headers or {})
        pools = -(-concurrency // POOL_CONNECTIONS)
        self._clients = [_make_client(url, key, timeout, filled) for _ in range(pools)]
        self._turns = itertools.cycle(self._clients)
        chosen = {"temperature": temperature, "max_tokens": max_tokens, "stop": stop and list(stop)}
        self._decoding = {key: value for key, value in chosen.items() if value is not None} | self._extra
        # Key, retries, headers and timeout are left out, since they do not change an answer.
        decoding = json.dumps({**self._decoding, "seed": seed}, sort_keys=True)
        self.identity = f"{self.kind}:{model}@{address} {decoding}"

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            asyncio.run_coroutine_threadsafe(client.close(), get_own_loop()).result()

    @property
    def _client(self) -> "openai.AsyncOpenAI":
        """The client of the next call. One looks at all its connections for each call, so many calls in
        flight need several."""
        return next(self._turns)

    async def _send(self, chat: Chat, settings: dict[str, Any]) -> bytes:
        """Return the body of the reply to one request. Raises what the SDK raises."""
        turns, described = split_components(chat)
        messages: Any = [{"role": message.role, "content": message.content} for message in turns]
        body = settings.get("extra_body", {})
        if described:
            body = {**body, "tools": describe_tools(body["tools"], described)}
        # The SDK walks through messages that it is given, which takes a quarter of the time of a call.
        settings = {**settings, "extra_body": {**body, "messages": messages}}
        create = self._client.chat.completions.with_streaming_response.create
        async with create(messages=[], **settings) as response:
            self._note_limits(response.headers)
            return await read_body(response)

    async def _ask(self, chat: Chat, settings: dict[str, Any]) -> Reply:
        body = await self._send(chat, settings)
        return read_reply(body, self.shape, self.field, self.max_tokens, self._host, self._clean)

    def _make_settings(self, repeat: int) -> dict[str, Any]:
        settings: dict[str, Any] = {"model": self._model, **self._decoding}
        if self._seed is not None:
            settings["seed"] = self._seed + repeat
        self._replace_refused(settings)
        own = {name: settings.pop(name) for name in self._extra if name in settings}
        return {**settings, "extra_body": own} if own else settings

    def _explain(self, error: Exception, settings: Mapping[str, Any]) -> TargetError | None:
        import openai

        if isinstance(error, openai.APIStatusError):
            # The server's own message, else the reason phrase of the status.
            said = find_message(error.body) or error.response.reason_phrase or "no reason"
            status, code = error.status_code, error.code
            left_out = self._leave_out(settings, status, code, getattr(error, "param", None), said)
            return left_out or self._make_status_error(status, code, said, error.response.headers)
        if isinstance(error, openai.APIConnectionError):
            late = isinstance(error, openai.APITimeoutError)
            return self._make_connection_error(error.__cause__ or error, self._url, late)
        return None

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
        failure: TargetError | None
        try:
            body = asyncio.run_coroutine_threadsafe(listing, get_own_loop()).result()
        except TimeoutError:
            failure = self._make_timeout_error()
        except openai.APIStatusError as error:
            return error.status_code, []
        except openai.APIConnectionError as error:
            failure = self._explain(error, {})
            assert failure is not None
        else:
            return 200, _read_model_names(body)
        raise failure  # outside of the handlers, as in _ask_once


def _pick_key(given: str | None, variable: str, host: str) -> str:
    key = (given or os.environ.get(variable) or "").strip()
    if not key and is_loopback(host):
        return PLACEHOLDER_KEY
    if not key:
        raise ConfigError(f"no API key for {host}; set the variable {variable}")
    check_key(key)
    return key


def _make_client(url: str, key: str, timeout: float, headers: Mapping[str, str]) -> "openai.AsyncOpenAI":
    """No redirect is followed: prompts and key go to the host that the user named, and no other."""
    with name_missing_extra():
        import openai

        direct = openai.DefaultAsyncHttpxClient(follow_redirects=False, timeout=timeout)
    return openai.AsyncOpenAI(
        api_key=key, base_url=url, max_retries=0, timeout=timeout, http_client=direct, default_headers=headers
    )


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
