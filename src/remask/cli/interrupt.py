"""Handle Ctrl-C, SIGTERM and SIGHUP: the first signal stops a run at a safe point, the second at once.

Only the command line installs these handlers, never the library, and it restores the old ones where
no signal came. A signal sets a flag, which the run checks between denoising steps, before each call
and ten times a second while it waits for answers.
"""

import os
import signal
import socket
import sys
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn, Self

import click

ADVICE = b"\nstopping: what is finished within two seconds is kept; press Ctrl-C again to stop at once\n"
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(Exception):
    """The user asked to stop, and the run is at a safe point."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class StoppedAtOnce(KeyboardInterrupt):
    """The user asked a second time to stop."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


class InterruptHandler:
    """Installs the signal handlers while it is entered."""

    def __init__(self) -> None:
        self._seen = 0  # number of the first signal; 0 for none
        self._before: dict[int, Any] = {}
        self._arrived, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._arrived.setblocking(False)
        self._wakeup_before = -1

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        self._wakeup_before = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        # The process is about to end with its own exit code; another signal must not change that.
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if self._seen else handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._arrived.close()
        self._wake.close()

    def is_pending(self) -> bool:
        """Return whether a signal has come, for another thread.

        Python calls a handler only when the main thread is back from a long step; the socket has the
        number of the signal at once.
        """
        if self._seen:
            return True
        try:
            numbers = self._arrived.recv(4096, socket.MSG_PEEK)
        except OSError:  # nothing has arrived, or it is closed
            return False
        return any(number in SIGNALS for number in numbers)  # others have handlers of their own

    def checkpoint(self) -> None:
        """Raise Interrupted after a signal."""
        if self._seen:
            raise Interrupted(self._seen)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._seen:
            raise StoppedAtOnce(number)
        self._seen = number
        with suppress(OSError):  # the terminal may be gone
            os.write(2, ADVICE)  # not print: the signal may have interrupted a print


def exit_stopped(message: str, stop: BaseException) -> NoReturn:
    """Say that the user has stopped the command, and exit with the code of the signal."""
    with suppress(OSError):  # the terminal may be gone
        click.echo(message, err=True)
    sys.exit(getattr(stop, "exit_code", 130))
