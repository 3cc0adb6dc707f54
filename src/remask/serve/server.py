"""Listening: one socket on a loopback address, and an end that lets answers finish.

Knows uvicorn and where the model comes from; what is answered is in app.py.
"""

import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from remask.backbone.weights import load_base
from remask.errors import ConfigError
from remask.models.embedded import EmbeddedTarget
from remask.serve.app import make_app
from remask.serve.door import loopback, own_names

GRACE = 5  # seconds for answers in flight when the server stops
CONNECTIONS = 256  # at a time; more get 503


def run(host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until a signal ends it; `ready` gets the base URL once the socket listens.

    Raises ConfigError where the address cannot be used, BackendError where the weights are missing.
    """
    address = loopback(host)
    with listen(address, port) as listening:
        own = listening.getsockname()[1]
        app = make_app(EmbeddedTarget(load_base()), own_names(address, own))
        shown = f"[{address}]" if ":" in address else address
        ready(f"http://{shown}:{own}/v1")
        make_server(app).run(sockets=[listening])


def make_server(app: ASGIApp) -> uvicorn.Server:
    """A server that has not begun. Its `run` takes the sockets; `should_exit` ends it."""
    settings = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
    )
    return uvicorn.Server(settings)


def listen(address: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError where the port is taken or forbidden."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen(CONNECTIONS)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"port {port} of {address} cannot be used: {error.strerror}; try --port 0"
        ) from None
    return listening
