"""A synchronous map over a few threads that keeps the order of its items.

A single worker runs in the calling thread, so that a debugger works. If one item raises, items that
have not started are cancelled, and running ones are asked to stop through an event.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import copy_context
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _NotStarted(Exception):
    """Raised instead of starting an item after another one has raised."""


def map_in_order(
    answer: Callable[[Item, threading.Event], Result], items: Sequence[Item], workers: int
) -> list[Result]:
    """Return `answer(item, stop)` of every item, in order.

    `stop` is set when another item has raised or the user has pressed Ctrl-C. An item that waits
    for a retry should then give up instead of delaying the end. Raises the first exception.
    """
    stop = threading.Event()
    if workers == 1 or len(items) < 2:
        return [answer(item, stop) for item in items]

    def run_unless_stopped(item: Item) -> Result:
        if stop.is_set():
            raise _NotStarted
        try:
            return answer(item, stop)
        except BaseException:
            # The main thread may wake up some calls later, so it would set the event too late.
            stop.set()
            raise

    with ThreadPoolExecutor(min(workers, len(items))) as pool:
        futures = [pool.submit(copy_context().run, run_unless_stopped, item) for item in items]
        try:
            for future in as_completed(futures):  # finds the failure that happened first
                if not isinstance(future.exception(), _NotStarted):
                    future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]
