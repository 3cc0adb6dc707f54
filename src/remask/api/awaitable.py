"""The public functions for programs with an event loop: `await remask.optimize_async(…)`.

The work runs in a thread, so the loop stays free. Async functions that the user gives as target or
metric are awaited on that loop. A cancelled task stops before the next calls, and its run can be
resumed.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial, wraps
from typing import ParamSpec, TypeVar

from remask.models.event_loop import LOOP

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")
CANCELLED: ContextVar[threading.Event | None] = ContextVar("CANCELLED", default=None)


def make_async(function: Callable[Arguments, Answer]) -> Callable[Arguments, Awaitable[Answer]]:
    """Return the function as a coroutine function, with the same arguments and errors."""

    @wraps(function)
    async def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        loop, cancelled, context = asyncio.get_running_loop(), threading.Event(), copy_context()
        context.run(LOOP.set, loop)
        context.run(CANCELLED.set, cancelled)
        work = loop.run_in_executor(None, partial(context.run, function, *args, **kwargs))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            cancelled.set()
            with suppress(BaseException):  # wait until the run has released its folder
                await work
            raise

    name = function.__name__
    call.__name__ = call.__qualname__ = f"{name}_async"
    call.__doc__ = f"`{name}` for programs with an event loop; a cancelled run can be resumed."
    return call


def raise_if_cancelled() -> None:
    """Raise CancelledError where the task that awaits this run was cancelled."""
    cancelled = CANCELLED.get()
    if cancelled is not None and cancelled.is_set():
        raise asyncio.CancelledError
