"""A pool of workers: each takes one item at a time, and a lost one is replaced."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Protocol

from remask.errors import NoWorker, WorkerLost
from remask.ports import Item, report_step, wait_for

# A cluster may try to start a worker on a machine that is just leaving.
STARTS, PAUSE_SECONDS = 4, 1.0  # the pause doubles with each start


class WorkerGone(Exception):
    """A worker ended while it had an item; the text says how."""


class NoneStarted(WorkerGone):
    """No worker was started within the time for that, so another try would only double it."""


class WorkerHandle(Protocol):
    """The driver's end of one worker. It is used by one thread at a time."""

    def start(self) -> None:
        """Start the worker, or a new one in its place. Raises WorkerGone."""

    def ask(self, item: Item) -> Any:
        """Return the result of an item, or raise what it raised. Raises WorkerGone."""

    def close(self) -> None:
        """End the worker at once, also from another thread."""


class Pool:
    """Implements ports.Executor with a thread for each worker, which waits for its answers.

    A worker is started with its first item, so no more of them run than there is work for.
    """

    def __init__(self, make_handle: Callable[[int], WorkerHandle], workers: int) -> None:
        """`make_handle` gets the number of the worker, from 0."""
        self.workers = workers
        self.lost = 0  # workers that were replaced
        self._closed = False
        self._handles = [make_handle(number) for number in range(workers)]
        self._started = [False] * workers
        self._idle: SimpleQueue[int] = SimpleQueue()
        for number in range(workers):
            self._idle.put(number)
        self._threads = ThreadPoolExecutor(workers, "remask-worker")

    def submit(self, item: Item, again: bool = True) -> Future[Any]:
        """See Executor.submit."""
        return self._threads.submit(self._do, item, 2 if again else 1)

    def close(self) -> None:
        """See Executor.close."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for handle in self._handles:
            handle.close()
        self._threads.shutdown(wait=True)

    def _do(self, item: Item, attempts: int) -> Any:
        number = self._idle.get_nowait()  # there are as many threads as workers
        try:
            for left in range(attempts - 1, -1, -1):
                try:
                    return self._ask(number, item)
                except WorkerGone as gone:
                    self._started[number] = False
                    if self._closed or not left:
                        raise WorkerLost(self._describe_loss(item, attempts, gone)) from None
                    self.lost += 1
        finally:
            self._idle.put(number)

    def _ask(self, number: int, item: Item) -> Any:
        if self._closed:
            raise WorkerGone("the run ends")
        if not self._started[number]:
            self._start(number)
        return self._handles[number].ask(item)

    def _start(self, number: int) -> None:
        """Start a worker. A start that fails is no loss of the item, which nobody has begun."""
        for left in range(STARTS - 1, -1, -1):
            try:
                self._handles[number].start()
                self._started[number] = True
                return
            except WorkerGone as gone:
                if self._closed or not left or isinstance(gone, NoneStarted):
                    raise NoWorker(
                        f"no worker can be started ({gone}); what is paid is stored, so `remask resume` goes "
                        "on from here, also with another executor or without one"
                    ) from None
            time.sleep(PAUSE_SECONDS * 2 ** (STARTS - 1 - left))

    def _describe_loss(self, item: Item, attempts: int, gone: WorkerGone) -> str:
        twice = "two workers ended, one after the other," if attempts > 1 else "a worker ended"
        return (
            f"{twice} before the work of the {item.role} was done ({gone}); if memory ran out, use fewer "
            "workers; what is paid is stored, so `remask resume` goes on from here"
        )


def gather(futures: Sequence["Future[Any]"], what: str, sizes: Sequence[int]) -> list[Any]:
    """Return the results in order; reports `what` as steps of these sizes. Gives up the rest on an error."""
    done, total, found = 0, sum(sizes), []
    try:
        report_step(what, done, total)
        for future, size in zip(futures, sizes, strict=True):
            found.append(wait_for(future))
            done += size
            report_step(what, done, total)
    except BaseException:
        for future in futures:
            future.cancel()
        raise
    return found
