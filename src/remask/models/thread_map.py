"""One ordered, synchronous map over a few threads.

Knows nothing of targets. One worker runs inline, so that a debugger works. When one item raises,
what has not started is cancelled and what runs is told to stop through an event.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import copy_context
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Stopped(Exception):
    """An item that was not begun, because another one had raised."""


def ordered_map(
    answer: Callable[[Item, threading.Event], Result], items: Sequence[Item], workers: int
) -> list[Result]:
    """`answer(item, stop)` of every item, in order.

    `stop` is set once another item has raised or the user has pressed Ctrl-C: an item that waits
    for a retry then gives up instead of delaying the end.
    """
    stop = threading.Event()
    if workers == 1 or len(items) < 2:
        return [answer(item, stop) for item in items]

    def unless_stopped(item: Item) -> Result:
        if stop.is_set():
            raise _Stopped
        try:
            return answer(item, stop)
        except BaseException:
            stop.set()  # here, not in the main thread: that may wake up some calls too late
            raise

    with ThreadPoolExecutor(min(workers, len(items))) as pool:
        futures = [pool.submit(copy_context().run, unless_stopped, item) for item in items]
        try:
            for future in as_completed(futures):  # the first failure, not the first in order
                if not isinstance(future.exception(), _Stopped):
                    future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]
