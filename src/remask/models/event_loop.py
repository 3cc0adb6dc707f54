"""Wait in synchronous code for coroutines of the user's async functions.

A target or a metric may be an async function. Its coroutines run on the event loop of the caller if
that called `optimize_async`, so an HTTP client that was created there keeps working. Otherwise they
run on one loop of our own, in its own thread.
"""

import asyncio
import inspect
import threading
from collections.abc import Awaitable
from contextvars import ContextVar
from functools import cache, partial
from typing import Any

LOOP: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("LOOP", default=None)
_START_LOCK = threading.Lock()  # with `cache` alone, several threads could each start a loop


def wait_for_result(value: Any) -> Any:
    """Return `value`, or its result if it is awaitable. Never call it on the thread of the loop."""
    if not inspect.isawaitable(value):
        return value
    future = asyncio.run_coroutine_threadsafe(_await(value), LOOP.get() or get_own_loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def is_async(fn: Any) -> bool:
    """Return whether a call of `fn` gives a coroutine, as far as its definition shows."""
    while isinstance(fn, partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
        getattr(fn, "__call__", None)  # noqa: B004
    )


def get_own_loop() -> asyncio.AbstractEventLoop:
    """Return the loop of our own, starting its thread at the first call."""
    with _START_LOCK:
        return _start_loop()


@cache
def _start_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="remask-async", daemon=True).start()
    return loop


async def _await(value: Awaitable[Any]) -> Any:
    return await value
