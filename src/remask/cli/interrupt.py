"""Ctrl-C and SIGTERM: once ends the run at the next point where nothing is lost, twice at once.

The handlers are installed by the command line only, never by the library, and are put back.
A signal sets a flag; the run looks at it before each chunk of target calls and after each event.
"""

import os
import signal
from types import FrameType
from typing import Any, Self

ADVICE = b"\nstopping after the calls in flight; Ctrl-C again stops at once\n"


class Interrupted(Exception):
    """The user asked to stop, and the run stands at a safe point."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Watch:
    """Holds the handlers while it is entered."""

    def __init__(self) -> None:
        self._seen = 0  # the first signal that came
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def checkpoint(self) -> None:
        """Raises Interrupted once a signal has come."""
        if self._seen:
            raise Interrupted(self._seen)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._seen:
            raise KeyboardInterrupt
        self._seen = number
        os.write(2, ADVICE)  # not print: the signal may have come within a print
