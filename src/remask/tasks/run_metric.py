"""Run the user's metric on one row: with a time limit, and with a reason where it gives no score.

A Python function cannot be stopped from outside. So it runs in a daemon thread, which is given up
when the time is over, when the user stops the run and when the run has no time left; the thread
ends with the process.
"""

import math
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from numbers import Real
from queue import SimpleQueue
from typing import Any

import numpy as np

from remask.errors import BudgetSpent, TargetRefused
from remask.models.event_loop import wait_for_result
from remask.ports import WAITING, Metric, report_step
from remask.sanitize import clip, one_line
from remask.types import Score

METRIC_TIMEOUT = 120.0  # seconds for one row
POLL_SECONDS = 0.1  # between two looks at signals and at the time limit
MAX_HANGS = 3  # in one batch of rows; the others then fail at once
TOLERANCE = 1e-6  # of rounding beyond 0 and 1
MAX_FEEDBACK_CHARS = 20_000  # of one row; what a denoiser reads of it is much shorter
MAX_ERROR_CHARS = 200
# Errors of functions that only work in the thread that made their objects.
_THREAD_ERRORS = ("main thread", "same thread", "no current event loop in thread")


class _Hung(Exception):
    """A function took too long, or others did before it."""


@dataclass(slots=True)
class _Call:
    """A call in another thread, and its result once it is done."""

    run: Callable[[], Any]
    value: Any = None
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def make(self) -> None:
        """Run the function, and keep what it returns or raises."""
        try:
            self.value = self.run()
        except BaseException as error:  # code of the user may raise anything, SystemExit too
            self.error = error
        self.done.set()


class MetricRunner:
    """Runs functions one after another. Used as a context manager."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout  # seconds; None: no limit, and the thread of the caller
        self._inbox: SimpleQueue[_Call | None] | None = None
        self._hangs = 0

    def __enter__(self) -> "MetricRunner":
        return self

    def __exit__(self, *_: object) -> None:
        if self._inbox is not None:
            self._inbox.put(None)

    def run(self, function: Callable[[], Any]) -> _Call:
        """Return the call of the function, once it is done or has hung.

        What the function raises is the `error` of the call. Raises only what a signal or the limit
        of time raises meanwhile.
        """
        call = _Call(partial(copy_context().run, function))
        if self._timeout is None:
            call.make()
            return call
        if self._hangs >= MAX_HANGS:
            call.error = _Hung(f"was not run, because it hung on {self._hangs} rows before")
            return call
        if self._inbox is None:
            self._inbox = SimpleQueue()
            threading.Thread(target=_work, args=(self._inbox,), name="remask-metric", daemon=True).start()
        self._inbox.put(call)
        if not _wait(call, self._timeout):
            self._inbox.put(None)  # the thread ends with the function, if that ever ends
            self._inbox = None  # the next call gets a new thread
            self._hangs += 1
            return _Call(call.run, error=_Hung(f"took over {self._timeout:g} s (metric.timeout)"))
        if isinstance(call.error, Exception) and any(w in _say(call.error) for w in _THREAD_ERRORS):
            self._timeout = None
            return self.run(function)
        return call


def _wait(call: _Call, timeout: float) -> bool:
    """Wait until a call is done; returns False after `timeout` seconds. Raises what ends the run."""
    end = time.monotonic() + timeout
    while (left := end - time.monotonic()) > 0:
        if call.done.wait(min(left, POLL_SECONDS)):
            return True
        report_step(WAITING, 0, 0)
    return call.done.is_set()


def _work(inbox: "SimpleQueue[_Call | None]") -> None:
    while (call := inbox.get()) is not None:
        call.make()


def run_metric(runner: MetricRunner, metric: Metric, *args: Any) -> Score | str:
    """Return the score of a row, or the reason why it has none. Awaits async functions.

    Raises what ends a run: BudgetSpent, TargetRefused, KeyboardInterrupt, and what a signal or the
    limit of time raises while the metric runs.
    """
    name = name_metric(metric)
    call = runner.run(lambda: wait_for_result(metric(*args)))
    if call.error is None:
        return read_score(call.value, name)
    if isinstance(call.error, BudgetSpent | TargetRefused | KeyboardInterrupt):
        raise call.error  # of a metered model inside the metric, or of the user
    if isinstance(call.error, _Hung):
        return f"metric {name} {call.error}"
    return f"metric {name} raised {type(call.error).__name__}: {_say(call.error)}"


def read_score(value: Any, name: str) -> Score | str:
    """Return a score of 0 to 1 from what a metric returned, or what is wrong with it."""
    feedback: Any = ""
    if isinstance(value, Score):
        value, feedback = value.value, value.feedback
    wrong = f"metric {name} returned {_show(value)}; return a number from 0 to 1"
    try:
        if getattr(value, "shape", None) == ():  # an array or a tensor that holds one number
            value = value.item()
        if not isinstance(value, Real | Decimal | np.bool_):
            return wrong
        number = float(value)
    except Exception:  # too large, or an object of the user that cannot be converted
        return wrong
    if math.isnan(number) or not -TOLERANCE <= number <= 1 + TOLERANCE:
        return wrong
    return Score(min(1.0, max(0.0, number)), _clean_feedback(feedback))


def name_metric(metric: Any) -> str:
    """Return the name of a metric for messages: that of its function or class."""
    while isinstance(metric, partial):
        metric = metric.func
    name = getattr(metric, "__name__", None) or type(metric).__name__
    return one_line(str(name), 60)


def _clean_feedback(feedback: Any) -> str:
    """Return feedback as a text of limited length without lone surrogates."""
    if feedback is None:
        return ""
    try:
        text = clip(feedback if isinstance(feedback, str) else str(feedback), MAX_FEEDBACK_CHARS)
    except Exception:  # an object of the user that cannot be shown
        return ""
    return text.encode("utf-8", "replace").decode("utf-8")


def _say(error: BaseException) -> str:
    try:
        return one_line(str(error), MAX_ERROR_CHARS)
    except Exception:  # an exception of the user that cannot be shown
        return "(its text cannot be shown)"


def _show(value: Any) -> str:
    try:
        return one_line(repr(value), 60)
    except Exception:  # a number of over 4300 digits, or an object of the user
        return f"a {type(value).__name__} that cannot be shown"
