"""Who may come in: the browser of the user, and no other web page.

A page in a browser can send requests to loopback addresses, in its own name (a foreign Origin) or
under a name that it lets point here (DNS rebinding: a foreign Host). So a request must name exactly
one of our own addresses with its port, and must carry no sign of a foreign page, whatever its method.
Then it needs the key of this server: the address that is printed has a token, which is exchanged for
a cookie. All of this is decided before routing, by the head of the request alone.
"""

import asyncio
import hmac
import re
import secrets
from collections.abc import Sequence
from urllib.parse import parse_qs

from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD")
ENTRY = "/open"  # the path that takes the token
STREAM_END = "/events"  # paths that end so are streams, which have no time limit
ANSWER_S = 60.0  # for an answer that is no stream
MAX_QUERY_CHARS = 4_000
_PATH = re.compile(rb"/[A-Za-z0-9_./-]*")

_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]
# {nonce}: of one answer. Styles and scripts are files of this server; nothing of a run is in them.
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
NO_KEY = "This page needs the key of the server. Open the address that <code>remask view</code> has printed."


class Door:
    """ASGI middleware in front of `app`; see the module."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.token = secrets.token_urlsafe(16)
        self._app = app
        self._hosts = frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost"))
        self._cookie_name = f"remask_view_{port}"  # cookies do not belong to a port
        self._cookie = secrets.token_urlsafe(16)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served, not {scope['type']}")
        nonce = scope["nonce"] = secrets.token_urlsafe(16)
        policy = (b"content-security-policy", _POLICY.format(nonce=nonce).encode())

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS, policy]
            await send(message)

        answer = self._refuse(scope) or self._admit(scope)
        if answer is not None:
            await answer(scope, receive, send_guarded)
        elif scope["path"].endswith(STREAM_END):
            await self._app(scope, receive, send_guarded)
        else:
            async with asyncio.timeout(ANSWER_S):
                await self._app(scope, receive, send_guarded)

    def _refuse(self, scope: Scope) -> Response | None:
        """Return the answer to a request that is not of a page of this server."""
        headers = scope["headers"]
        hosts = _get_all(headers, b"host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return _explain(403, "This name is not the address of the server.")
        own = f"http://{hosts[0].lower()}"
        if any(origin.lower() != own for origin in _get_all(headers, b"origin")):
            return _explain(403, "Requests of other web pages are refused.")
        if any(site not in ("same-origin", "none") for site in _get_all(headers, b"sec-fetch-site")):
            return _explain(403, "Requests of other web pages are refused.")
        if scope["method"] not in METHODS:
            return _explain(405, "This server only shows pages.", {"allow": ", ".join(METHODS)})
        if _get_all(headers, b"transfer-encoding") or _get_all(headers, b"content-length") not in ([], ["0"]):
            return _explain(400, "A request to this server has no body.")
        path = scope["raw_path"]
        if not _PATH.fullmatch(path) or b".." in path or b"//" in path:
            return _explain(404, "There is no such page.")
        if len(scope["query_string"]) > MAX_QUERY_CHARS:
            return _explain(400, "The address is too long.")
        return None

    def _admit(self, scope: Scope) -> Response | None:
        """Exchange the token for the cookie; return None for a request that has the cookie."""
        if scope["path"] == ENTRY:
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
            if len(given) == 1 and _is_same(given[0], self.token):
                answer = RedirectResponse("/", 303)
                answer.set_cookie(self._cookie_name, self._cookie, httponly=True, samesite="strict", path="/")
                return answer
            return _explain(403, NO_KEY)
        wanted = f"{self._cookie_name}={self._cookie}"
        sent = ";".join(_get_all(scope["headers"], b"cookie")).split(";")
        return None if any(_is_same(one.strip(), wanted) for one in sent) else _explain(403, NO_KEY)


def _get_all(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key == name]


def _is_same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _explain(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """Return a page of one sentence; it has nothing of the request. The connection ends with it."""
    page = f'<!doctype html><html lang="en"><title>remask view</title><p>{sentence}</p></html>\n'
    return HTMLResponse(page, status, {"connection": "close", **(headers or {})})
