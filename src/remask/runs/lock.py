"""The lock of a run directory: one process works in it, whoever comes second learns its number.

Knows the operating system's file locks. Does not know what the directory holds. The system frees
the lock when its owner ends, however it ends, so the file itself is never removed and says nothing.
"""

import os
import socket
import sys
import time
from pathlib import Path
from typing import Self

import orjson

from remask.errors import ConfigError, RunBusy

FILE = "run.lock"
MAX_OWNER_READS = 20
OWNER_READ_PAUSE_S = 0.05  # seconds

if sys.platform == "win32":
    import msvcrt

    _BYTE = 1 << 30  # Windows lets nobody read locked bytes: this one is behind the owner's name

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        # Closing frees the lock too, but Windows does not promise that it does so at once.
        os.lseek(descriptor, _BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    _HELD: tuple[type[OSError], ...] = (PermissionError,)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        """Closing frees it, and only closing leaves a lock alone that a fork shares with us."""

    _HELD = (BlockingIOError,)


class RunLock:
    """Held from `take` to `release` or the end of the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, folder: Path) -> Self:
        """Raises RunBusy where another process (or this one) holds `folder`."""
        file = folder / FILE
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(f"{file} cannot be opened: {error.strerror}; mend that") from None
        try:
            _lock(descriptor)
        except _HELD:
            os.close(descriptor)
            raise RunBusy(
                f"{folder} is in use by {_read_owner(file)}; wait until it ends, or stop it"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise ConfigError(
                f"{file} cannot be locked: {error.strerror}; put the run on a local disk"
            ) from None
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, orjson.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        return cls(descriptor)

    def release(self) -> None:
        os.ftruncate(self._descriptor, 0)  # whoever comes next must not be taken for us
        _unlock(self._descriptor)
        os.close(self._descriptor)


def _read_owner(file: Path) -> str:
    """Who signed the file. An owner that has the lock and not yet signed is given a moment."""
    for _ in range(MAX_OWNER_READS):
        try:
            owner = orjson.loads(file.read_bytes())
            return f"process {owner['pid']} on {owner['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(OWNER_READ_PAUSE_S)
    return "another process"
