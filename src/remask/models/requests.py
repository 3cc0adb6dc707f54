"""Calls to a remote model: several at a time, with retries, each attempt booked before it is sent.

One thread books the attempts and reads what comes back, while the attempts themselves wait on an
event loop of another thread. So a signal, a limit or a refusal is seen within a tenth of a second,
also while every call waits for a server, and an attempt can be cut off.
"""

import heapq
import math
import time
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from queue import Empty, SimpleQueue

from remask.errors import BudgetSpent, NoWorker, TargetBusy, TargetError, TargetRefused, WorkerLost
from remask.models.learned_limits import Ticket
from remask.models.limiter import Limiter
from remask.ports import HELD, CallBook, Reply, report_step

Attempt = Callable[[int], "Future[Reply]"]  # starts an attempt of the call with this number
Wait = Callable[[int, int], float]  # (call, attempts so far) -> seconds
POLL_SECONDS = 0.1  # between two looks at signals and limits
GRACE_SECONDS = 1.5  # for calls in flight after the user has asked to stop
SHOWN_SECONDS = 1.0  # a wait for the endpoint that is worth a word
FAILURES_AT_FIRST = 8  # so many failures and never an answer: the endpoint is not asked for the rest
FAILURES_IN_A_ROW = 16  # of a busy server: an outage


def run_calls(
    attempt: Attempt,
    count: int,
    *,
    concurrency: int,
    max_attempts: int,
    wait: Wait,
    book: CallBook,
    answered: bool = False,
    limiter: Limiter | None = None,
    size: Callable[[int], int] = lambda call: 0,
    timeout: float = math.inf,
) -> list[Reply]:
    """Make `count` calls, at most `concurrency` at a time. Returns their replies, in order.

    `answered`: whether the endpoint has answered calls of earlier requests. `limiter`: of all calls to
    the endpoint; it says when each may be sent. `wait`: of a call that failed for a reason of its own.
    `size`: the characters of a call. `timeout`: the seconds of an attempt.

    A call that fails is a Reply with an `error`; `attempts` counts those that may be billed. In an
    outage the rest of the calls fail without being sent. An exception of `book` (a limit, or the
    user's wish to stop) and TargetRefused start no further attempt; those in flight may end, and
    what they answer is booked, before the exception is raised. After a wish to stop they have
    GRACE_SECONDS, and what is still in flight then is cut off.
    """
    calls = _Calls(attempt, count, concurrency, max_attempts, wait, book, answered)
    calls.limit(limiter or Limiter(), size, timeout)
    try:
        report_step("reply", 0, count)
        while calls.unfinished:
            calls.go_on()
            calls.report()
    finally:
        calls.cancel()
    if calls.stopped is not None:
        raise calls.stopped
    return calls.replies


class _Calls:
    """The calls of one request, between not started and finished."""

    def __init__(
        self,
        attempt: Attempt,
        count: int,
        concurrency: int,
        max_attempts: int,
        wait: Wait,
        book: CallBook,
        answered: bool,
    ) -> None:
        self.replies = [Reply("", error="not asked", attempts=0)] * count
        self.stopped: BaseException | None = None
        self._attempt, self._concurrency, self._max_attempts = attempt, concurrency, max_attempts
        self._wait, self._book = wait, book
        self._fresh = deque(range(count))
        self._waiting: list[tuple[float, int, str]] = []  # a heap of (time of the retry, call, why it failed)
        self._flying: dict[int, Future[Reply]] = {}
        self._ended: SimpleQueue[int] = SimpleQueue()
        self._tried = [0] * count  # attempts of each call
        self._billed = [0] * count  # of these, attempts that may be billed
        self._answered = answered
        self._failed = self._busy_in_a_row = 0  # calls
        self._reported = 0  # calls that have ended, as was last said
        self._deadline = float("inf")
        self._tickets: dict[int, Ticket] = {}

    def limit(self, limiter: Limiter, size: Callable[[int], int], timeout: float) -> None:
        self._limiter, self._size, self._timeout = limiter, size, timeout

    @property
    def unfinished(self) -> bool:
        if self.stopped is not None:
            return bool(self._flying) and time.monotonic() < self._deadline
        return bool(self._flying or self._fresh or self._waiting)

    def go_on(self) -> None:
        """Take the attempts that have ended, and start what may start now.

        All of it is booked in one commit, and nothing is sent before that commit.
        """
        ended = self._wait_for_ended()
        due: list[int] = []
        with self._book.group():
            for call in ended:
                self._finish(call, self._flying.pop(call))
            try:
                self._book.check()
                self._book_due(due)
            except (Exception, CancelledError) as error:
                self._stop(error)
        for call in due:
            self._send(call)

    def report(self) -> None:
        """Say how many calls have ended, where one has since the last time."""
        done = len(self.replies) - len(self._fresh) - len(self._waiting) - len(self._flying)
        if done > self._reported:
            self._reported = done
            report_step("reply", done, len(self.replies))
        elif (wait := self._find_wait()) >= SHOWN_SECONDS and not self._flying and self.stopped is None:
            report_step(HELD, math.ceil(wait), 0)

    def cancel(self) -> None:
        """Cut off what is in flight; it stays booked as uncertain."""
        for future in self._flying.values():
            future.cancel()
        for ticket in self._tickets.values():
            self._limiter.drop(ticket)

    def _wait_for_ended(self) -> list[int]:
        """Return the calls with an attempt that has ended; waits for one if nothing can start."""
        ended: list[int] = []
        timeout = POLL_SECONDS
        if self.stopped is None and len(self._flying) < self._count_allowed():
            timeout = min(timeout, self._find_wait())
        try:
            ended.append(self._ended.get(timeout=timeout) if timeout else self._ended.get_nowait())
            while True:
                ended.append(self._ended.get_nowait())
        except Empty:
            return ended

    def _find_wait(self) -> float:
        """Return the seconds until the next call may be sent; infinite: when an attempt has ended."""
        call, due = self._choose()
        if call is None:
            return math.inf
        now = time.monotonic()
        return max(due - now, self._limiter.find_wait(now, self._size(call)))

    def _choose(self) -> tuple[int | None, float]:
        """Return the call to send next, and from when on.

        A call whose wait is over goes before a new one, but where the endpoint refuses calls, a new one
        is tried: else the same call would use up all its attempts.
        """
        waiting = self._waiting[0] if self._waiting else None
        if waiting and (not self._fresh or (waiting[0] <= time.monotonic() and not self._limiter.closed)):
            return waiting[1], waiting[0]
        return (self._fresh[0], 0.0) if self._fresh else (None, 0.0)

    def _count_allowed(self) -> int:
        """Return how many attempts may be in flight."""
        return self._book.limit_flight(self._concurrency, len(self._fresh))

    def _book_due(self, due: list[int]) -> None:
        """Book what may start now, and add it to `due`: calls whose wait is over, then new ones."""
        while self.stopped is None and len(self._flying) + len(due) < self._count_allowed():
            if self._find_wait() > 0:
                return
            call, _ = self._choose()
            assert call is not None
            if self._fresh and call == self._fresh[0]:
                self._book.start(call, len(self._fresh) - 1)
                self._fresh.popleft()
            else:
                _, call, why = heapq.heappop(self._waiting)
                try:
                    self._book.start(call, len(self._fresh))
                except BudgetSpent:  # a row must not lose its only attempt to the retry of another
                    self._fail(call, f"{why}; no calls are left for a retry")
                    continue
            self._tickets[call] = self._limiter.start(time.monotonic(), self._size(call))
            due.append(call)

    def _send(self, call: int) -> None:
        self._tried[call] += 1
        future = self._attempt(call)
        self._flying[call] = future
        future.add_done_callback(lambda _: self._ended.put(call))

    def _finish(self, call: int, future: "Future[Reply]") -> None:
        error = future.exception()
        held = self._end(self._tickets.pop(call), error, future)
        if error is None:
            self._answered, self._busy_in_a_row = True, 0
            self._billed[call] += 1
            self.replies[call] = replace(future.result(), attempts=self._billed[call])
            self._book.finish(call, future.result())
            return
        if isinstance(error, NoWorker):
            self._book.drop(call)
        elif isinstance(error, WorkerLost):
            self._billed[call] += 1
            self._book.lose(call)
            error = TargetBusy(str(error))  # asked once more, of another worker
        elif isinstance(error, TargetError) and not error.billed:
            self._book.drop(call)
        elif isinstance(error, TargetError):
            self._billed[call] += 1
            self._book.finish(call, Reply("", error=str(error)))
        if isinstance(error, TargetBusy) and error.changed:
            self._tried[call] -= 1
        if isinstance(error, TargetRefused) or not isinstance(error, TargetError):
            self._stop(error)
        elif (
            not isinstance(error, TargetBusy)
            or self._tried[call] >= self._max_attempts
            or self.stopped is not None
        ):
            busy = isinstance(error, TargetBusy)
            self._fail(call, self._add_attempts(call, error) if busy else str(error))
            self._give_up_in_an_outage(busy)
        else:
            wait = 0.0 if held or error.changed else self._wait(call, self._tried[call])
            heapq.heappush(self._waiting, (time.monotonic() + wait, call, str(error)))

    def _end(self, ticket: Ticket, error: BaseException | None, future: "Future[Reply]") -> bool:
        """Tell the limiter how an attempt has ended. Returns whether it tells when to try it again."""
        now = time.monotonic()
        share = (now - ticket.at) / self._timeout
        if error is None:
            reply = future.result()
            self._limiter.finish(ticket, now, reply.input_tokens, reply.output_tokens, share)
        elif isinstance(error, TargetBusy) and error.crowded:
            return self._limiter.refuse(ticket, now, error.retry_after)
        elif isinstance(error, TargetError) and error.billed:
            self._limiter.finish(ticket, now, share=share)
        else:
            self._limiter.drop(ticket)
        return False

    def _add_attempts(self, call: int, why: object) -> str:
        tried = self._tried[call]
        return f"{why}; gave up after {tried} attempt{'s' if tried > 1 else ''}"

    def _fail(self, call: int, error: str) -> None:
        self.replies[call] = Reply("", error=error, attempts=self._billed[call])

    def _give_up_in_an_outage(self, busy: bool) -> None:
        """Fail the calls that were not sent where those before them show an outage."""
        self._failed += 1
        self._busy_in_a_row = self._busy_in_a_row + 1 if busy else 0
        none_answered = not self._answered and self._failed >= FAILURES_AT_FIRST
        if none_answered or self._busy_in_a_row >= FAILURES_IN_A_ROW:
            for call in self._fresh:
                self._fail(call, "the calls before it failed, so this one was given up")
            for _, call, why in self._waiting:
                self._fail(call, self._add_attempts(call, why))
            self._fresh.clear()
            self._waiting.clear()

    def _stop(self, error: BaseException) -> None:
        if self.stopped is None:
            self.stopped = error
            if not isinstance(error, BudgetSpent | TargetRefused):
                self._deadline = time.monotonic() + GRACE_SECONDS
