"""Listening on a loopback address, with limits for connections that are slow, idle or too many."""

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from remask.errors import ConfigError
from remask.view.app import ViewApp
from remask.view.door import ENTRY, Door
from remask.view.library import Library

ADDRESS = "127.0.0.1"
MAX_CONNECTIONS = 100  # at a time
REQUEST_S = 10.0  # for the head of a request, and between two requests
STUCK_S = 20.0  # for a browser that takes nothing of an answer
MAX_HEAD_BYTES = 16_384
GRACE_S = 1  # for answers in flight when the server ends
BACKLOG = 64


class GuardedConnection(H11Protocol):
    """A connection that is closed when it is idle, sends too slowly or takes nothing.

    uvicorn has a time limit only for the pause between two requests, not for a request that never
    ends, nor for an answer that nobody takes.
    """

    limits = (REQUEST_S, STUCK_S)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; where there are too many connections, the one that waits longest must go."""
        super().connection_made(transport)
        self._since = time.monotonic()  # when it began to wait
        self._unsent = 0  # bytes of the answer that the browser has not taken
        self._timer = self.loop.call_later(1.0, self._check)
        others = [one for one in self.connections if isinstance(one, GuardedConnection)]
        if len(others) > MAX_CONNECTIONS:
            waiting = [one for one in others if not one.is_answering] or [self]
            min(waiting, key=lambda one: one.waiting_since).abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._timer.cancel()
        super().connection_lost(exc)

    @property
    def is_answering(self) -> bool:
        """Whether a whole request is here and its answer is not done."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def waiting_since(self) -> float:
        """Since when there has been no request, in seconds of the monotonic clock."""
        return self._since

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._since = time.monotonic()
        super().on_response_complete()

    def abort(self) -> None:
        """Close at once, without sending what is left."""
        self.transport.abort()

    def _check(self) -> None:
        now, (request_s, stuck_s) = time.monotonic(), self.limits
        unsent = self.transport.get_write_buffer_size()
        if self.is_answering and (not unsent or unsent != self._unsent):
            self._since = now
        self._unsent = unsent
        if now - self._since > (stuck_s if self.is_answering or unsent else request_s):
            self.abort()
        else:
            self._timer = self.loop.call_later(min(1.0, request_s / 4), self._check)


class ViewServer(uvicorn.Server):
    """A server that has not begun. Its `run` takes the sockets; Ctrl-C ends it."""

    def __init__(self, app: ASGIApp, on_exit: Callable[[], None], listening: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=GuardedConnection,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                timeout_keep_alive=int(REQUEST_S),
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._on_exit = on_exit
        self._listening = listening
        # A browser that sends nonsense is no news for the user.
        debug = bool(os.environ.get("REMASK_DEBUG"))
        logging.getLogger("uvicorn.error").setLevel(logging.INFO if debug else logging.CRITICAL)

    def serve_until_stopped(self) -> None:
        """Answer until Ctrl-C, which raises KeyboardInterrupt when all connections are closed."""
        self.run(sockets=[self._listening])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then the rest."""
        self._on_exit()
        await super().shutdown(sockets)


def listen(port: int) -> socket.socket:
    """Return a listening socket; 0: a free port. Raises ConfigError where the port cannot be used."""
    listening = socket.socket(socket.AF_INET)
    try:
        if sys.platform != "win32":  # there, it would let two servers share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((ADDRESS, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"port {port} of {ADDRESS} cannot be used ({error.strerror}); choose another --port, or "
            "leave the option out for a free one"
        ) from None
    return listening


@contextmanager
def open_server(library: Library, port: int) -> Iterator[tuple["ViewServer", str]]:
    """Listen, and yield the server and the address with the key. Raises ConfigError."""
    with listen(port) as listening:
        own = int(listening.getsockname()[1])
        app = ViewApp(library)
        door = Door(app.routes, own)
        server = ViewServer(door, app.end, listening)
        yield server, f"http://{ADDRESS}:{own}{ENTRY}?token={door.token}"
