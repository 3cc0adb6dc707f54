"""The endpoints, and one answer at a time: the model runs in one thread under one lock.

Requests wait for their turn. An answer is written token by token, so that it stops when its client
goes away. Knows the target, and requests as values; who may ask is decided at the door.
"""

import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, closing

import anyio
from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Send

from remask.errors import RemaskError
from remask.identity import content_id
from remask.models.generate import Part, Token, Writer, answer
from remask.serve.door import Door
from remask.serve.wire import (
    END,
    MODEL,
    ChatRequest,
    Problem,
    Reply,
    error_body,
    error_event,
    model,
    models,
    parse,
    usage,
)

MAX_BODY = 1 << 20  # bytes; the model's window is about 40 kB of text
_JSON = "application/json"
Parts = Generator[Part, None, None]


def make_app(target: Writer, names: frozenset[str]) -> ASGIApp:
    """The application for requests whose Host is one of `names`."""
    service = _Service(target)
    app = Starlette(
        routes=[
            Route("/v1/models", service.models),
            Route("/v1/models/{name}", service.model),
            Route("/v1/chat/completions", service.chat, methods=["POST"]),
        ],
        exception_handlers={
            Problem: _refuse,
            HTTPException: _not_found,
            Exception: _broken,
        },
    )
    app.router.redirect_slashes = False
    return Door(app, names)


class _Service:
    def __init__(self, target: Writer) -> None:
        self._target = target
        self._turn = anyio.Lock()
        self._started = int(time.time())
        self._fingerprint = content_id("served", target.identity)

    async def models(self, request: Request) -> Response:
        return Response(models(self._started), media_type=_JSON)

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name != MODEL:
            raise Problem(404, f"the model {name!r} does not exist", "model", "model_not_found")
        return Response(model(self._started), media_type=_JSON)

    async def chat(self, request: Request) -> Response:
        asked = parse(await _body(request))
        length, room = await to_thread.run_sync(self._target.room, asked.chat)
        if not room:
            raise Problem(
                400,
                f"the messages have {length} tokens, which leaves no room for an answer; "
                "shorten them",
                "messages",
                "context_length_exceeded",
            )
        reply = Reply(int(time.time()), self._fingerprint)
        parts = answer(self._target, asked.chat, asked.decoding(room))
        if asked.stream:
            stream = self._stream(asked, reply, parts, length)
            return _Events(stream)
        return await self._whole(request, asked, reply, parts, length)

    async def _whole(
        self, request: Request, asked: ChatRequest, reply: Reply, parts: Parts, length: int
    ) -> Response:
        text, tokens = "", list[Token]()
        async with aclosing(self._written(parts)) as written:
            async for part in written:
                text += part.text
                tokens += part.tokens
                if await request.is_disconnected():
                    return Response(status_code=499)  # nobody reads it
        shown = tokens if asked.logprobs else None
        body = reply.whole(text, shown, part.finish, usage(length, len(tokens)))
        return Response(body, media_type=_JSON)

    async def _stream(
        self, asked: ChatRequest, reply: Reply, parts: Parts, length: int
    ) -> AsyncGenerator[bytes, None]:
        n_tokens = 0
        yield reply.chunk({"role": "assistant", "content": ""}, None)
        try:
            async with aclosing(self._written(parts)) as written:
                async for part in written:
                    n_tokens += len(part.tokens)
                    if part.text or part.tokens:
                        shown = part.tokens if asked.logprobs else None
                        yield reply.chunk({"content": part.text}, shown)
                    if part.finish:
                        yield reply.chunk({}, None, part.finish)
        except RemaskError as error:  # of the model: the answer has begun, so no status can say it
            yield error_event(Problem(500, str(error)))
            return
        if asked.stream_options and asked.stream_options.include_usage:
            yield reply.usage_chunk(usage(length, n_tokens))
        yield END

    async def _written(self, parts: Parts) -> AsyncGenerator[Part, None]:
        """The parts of an answer, once it is its turn."""
        async with self._turn:
            with closing(parts):
                while (part := await to_thread.run_sync(next, parts, None)) is not None:
                    yield part


class _Events(StreamingResponse):
    """Server-sent events that end at once, and give up their turn, when nobody reads them."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._events = events

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._events):
            await super().stream_response(send)


async def _body(request: Request) -> bytes:
    """The body of a JSON request, of bounded size."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _JSON:
        raise Problem(415, f"the Content-Type is {kind!r}; send application/json")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise Problem(413, f"the body has more than {MAX_BODY} bytes; send less")
    return body


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return Response(error_body(error), error.status, media_type=_JSON)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = Problem(error.status_code, f"{error.detail}: {request.method} {request.url.path}")
    return Response(
        error_body(problem), error.status_code, headers=dict(error.headers or {}), media_type=_JSON
    )


async def _broken(request: Request, error: Exception) -> Response:
    """What went wrong inside; the server's own log has the traceback."""
    message = str(error) if isinstance(error, RemaskError) else "the server failed; see its log"
    return Response(error_body(Problem(500, message)), 500, media_type=_JSON)
