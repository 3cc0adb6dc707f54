"""Who may come in: programs on this machine, and no web page.

A page that a browser shows can send requests to loopback addresses, in its own name (a foreign
Origin) or under a name that it lets point here (DNS rebinding: a foreign Host). So a request must
name exactly one of our own addresses with its port, and carry no sign of a foreign page, whatever
its method. This is decided before routing. Knows headers only.
"""

from collections.abc import Sequence
from ipaddress import ip_address

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from remask.errors import ConfigError
from remask.serve.wire import Problem, error_body

_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
]


def loopback(host: str) -> str:
    """The address to bind. Raises ConfigError for one that others on the network could reach."""
    address = "127.0.0.1" if host == "localhost" else host
    try:
        if ip_address(address).is_loopback:
            return address
    except ValueError:
        pass
    raise ConfigError(
        f"host {host!r} is no loopback address; the server has no passwords, so only programs on "
        "this machine may reach it: use 127.0.0.1, or a tunnel such as ssh -L"
    )


def own_names(address: str, port: int) -> frozenset[str]:
    """The values of Host that mean this server."""
    shown = f"[{address}]" if ":" in address else address
    return frozenset(f"{name}:{port}" for name in (shown, "localhost"))


class Door:
    """ASGI middleware in front of `app`; see the module."""

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served, not {scope['type']}")
        problem = self._objection(scope["headers"])
        if problem is None:
            await self._app(scope, receive, marked)
        else:
            await problem_response(problem)(scope, receive, marked)

    def _objection(self, headers: Sequence[tuple[bytes, bytes]]) -> Problem | None:
        def values(name: bytes) -> list[str]:
            return [value.decode("latin-1") for key, value in headers if key.lower() == name]

        hosts = values(b"host")
        if len(hosts) != 1 or hosts[0].lower() not in self._names:
            return Problem(403, f"the Host {hosts!r} is not this server's", code="foreign_host")
        own = {f"http://{name}" for name in self._names}
        if any(origin.lower() not in own for origin in values(b"origin")):
            return Problem(403, "requests of web pages are refused", code="foreign_origin")
        if any(site not in ("same-origin", "none") for site in values(b"sec-fetch-site")):
            return Problem(403, "requests of web pages are refused", code="foreign_origin")
        return None


def problem_response(problem: Problem) -> ASGIApp:
    """A problem as an answer."""
    from starlette.responses import Response

    return Response(error_body(problem), problem.status, media_type="application/json")
