"""Coroutines of the user, awaited from code that is not async.

A target or a metric may be an async function. Its coroutines run on the event loop of the caller
where that called `optimize_async` (so an HTTP client made there keeps working), else on one loop of
our own, in a thread of its own.
"""

import asyncio
import inspect
import threading
from collections.abc import Awaitable
from contextvars import ContextVar
from functools import cache, partial
from typing import Any

LOOP: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("LOOP", default=None)
_STARTING = threading.Lock()  # `cache` alone would let several threads start a loop each


def result_of(value: Any) -> Any:
    """`value`, or what it gives where it is awaitable. Never call it on the loop's own thread."""
    if not inspect.isawaitable(value):
        return value
    future = asyncio.run_coroutine_threadsafe(_await(value), LOOP.get() or own_loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def is_async(fn: Any) -> bool:
    """Whether a call of `fn` gives a coroutine, as far as it shows without a call."""
    while isinstance(fn, partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
        getattr(fn, "__call__", None)  # noqa: B004
    )


def own_loop() -> asyncio.AbstractEventLoop:
    """The loop of programs that have none."""
    with _STARTING:
        return _start_loop()


@cache
def _start_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="remask-async", daemon=True).start()
    return loop


async def _await(value: Awaitable[Any]) -> Any:
    return await value
