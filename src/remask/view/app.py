"""The pages of `remask view` and their addresses. Every answer is made in the one reading thread."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from remask.errors import ConfigError
from remask.sanitize import one_line
from remask.view import pages
from remask.view.library import PAUSE_S, Library, LivePage

MAX_STREAMS = 24
ALIVE_S = 10.0  # a line that shows a silent stream is alive, and finds out who is gone
RETRY_MS = 1_500


class ViewApp:
    """Answers requests that have passed the door."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._thread = ThreadPoolExecutor(1, "remask-view")
        self._streams = 0
        self._ending = asyncio.Event()
        self.routes = Starlette(
            routes=[
                Route("/", self._show_list),
                Route("/events", self._stream_list),
                Route("/compare", self._show_comparison),
                Route("/runs/{id}", self._show_run),
                Route("/runs/{id}/events", self._stream_run),
                Route("/runs/{id}/candidates", self._show_candidates),
                *(Route(f"/{name}", self._send_file) for name in pages.FILES),
            ],
            exception_handlers={
                404: lambda request, _: _page(request, pages.render_message("There is no such page."), 404),
                ConfigError: lambda request, error: _page(
                    request, pages.render_message(one_line(str(error))), 500
                ),
            },
        )
        self.routes.router.redirect_slashes = False

    def end(self) -> None:
        """End all streams. What is being read is left."""
        self._ending.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _read(self, work: Callable[..., Any], *values: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *values)

    async def _send_file(self, request: Request) -> Response:
        kind, text = pages.read_file(request.url.path[1:])
        return Response(text, media_type=kind)

    async def _show_list(self, request: Request) -> Response:
        def work() -> str:
            return pages.render_list(self._library.look_at_list(), self._library.folder)

        return _page(request, await self._read(work))

    async def _show_run(self, request: Request) -> Response:
        def work() -> str | None:
            page = self._library.find(request.path_params["id"])
            if page is None:
                return None
            page.look()
            return pages.render_run(page)

        return _page(request, await self._read(work))

    async def _show_candidates(self, request: Request) -> Response:
        def work() -> str | None:
            page = self._library.find(request.path_params["id"])
            query = request.query_params
            number = int(query["page"]) if query.get("page", "").isdecimal() else 1
            if page is None:
                return None
            return pages.render_candidates(page.id, page.view(), number, query.get("sort", ""))

        return _page(request, await self._read(work))

    async def _show_comparison(self, request: Request) -> Response:
        ids = list(dict.fromkeys(request.query_params.getlist("run")))[: len(pages.LETTERS)]

        def work() -> str | None:
            found = [self._library.find(id) for id in ids]
            seen = [(page.id, page.view()) for page in found if page is not None]
            if len(seen) < len(ids):
                return None
            chosen = (request.query_params.get("from", ""), request.query_params.get("to", ""))
            return pages.render_comparison(seen, chosen)

        return _page(request, await self._read(work))

    async def _stream_list(self, request: Request) -> Response:
        return await self._stream(request, self._library.look_at_list)

    async def _stream_run(self, request: Request) -> Response:
        def look() -> LivePage | None:
            page = self._library.find(request.path_params["id"])
            if page is not None:
                page.look()
            return page

        return await self._stream(request, look)

    async def _stream(self, request: Request, look: Callable[[], LivePage | None]) -> Response:
        if await self._read(look) is None:
            return _page(request, None)
        if self._streams >= MAX_STREAMS:
            return _page(request, pages.render_message("Too many pages are open. Close some."), 503)
        since = request.headers.get("last-event-id") or request.query_params.get("since", "")
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        return StreamingResponse(self._send_changes(look, since), media_type="text/event-stream")

    async def _send_changes(self, look: Callable[[], LivePage | None], since: str) -> AsyncIterator[bytes]:
        """Yield events with the pieces that changed, until the browser or the server goes."""

        def find() -> tuple[str, bytes | None]:
            page = look()
            if page is None:
                return "", None
            stamp, pieces = page.find_changes(since)
            return stamp, orjson.dumps({"pieces": pieces, "order": page.order})

        self._streams += 1
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            sent = time.monotonic()
            while not self._ending.is_set():
                try:
                    stamp, data = await self._read(find)
                except (ConfigError, RuntimeError):  # the folder is gone, or the server ends
                    return
                if data is None:
                    return
                if stamp != since:
                    yield b"id: %s\ndata: %s\n\n" % (stamp.encode(), data)
                    since, sent = stamp, time.monotonic()
                elif time.monotonic() - sent > ALIVE_S:
                    yield b": alive\n\n"
                    sent = time.monotonic()
                try:
                    await asyncio.wait_for(self._ending.wait(), PAUSE_S)
                except TimeoutError:
                    continue
        finally:
            self._streams -= 1


def _page(request: Request, body: str | None, status: int = 200) -> Response:
    """Return a page; `body` None: there is no such run."""
    if body is None:
        return _page(request, pages.render_message("There is no such run in this folder."), 404)
    return HTMLResponse(body.replace(pages.NONCE, request.scope["nonce"]), status)
