"""Handle Ctrl-C and SIGTERM: the first signal stops a run at a safe point, the second one at once.

Only the command line installs these handlers, never the library, and it restores the old ones. A
signal sets a flag, which the run checks before each chunk of target calls and after each event.
"""

import os
import signal
from types import FrameType
from typing import Any, Self

ADVICE = b"\nstopping after the running calls; press Ctrl-C again to stop at once\n"


class Interrupted(Exception):
    """The user asked to stop, and the run is at a safe point."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class InterruptHandler:
    """Installs the signal handlers while it is entered."""

    def __init__(self) -> None:
        self._seen = 0  # number of the first signal; 0 for none
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def checkpoint(self) -> None:
        """Raise Interrupted after a signal."""
        if self._seen:
            raise Interrupted(self._seen)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._seen:
            raise KeyboardInterrupt
        self._seen = number
        os.write(2, ADVICE)  # not print: the signal may have interrupted a print
