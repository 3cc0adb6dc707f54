"""The lock of a run directory or of another file, so that only one process works in it.

The operating system frees the lock when its owner ends for any reason. So the file is never
removed, and its existence does not mean that the run is locked.
"""

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import orjson

from remask.errors import ConfigError, RunBusy

FILE = "run.lock"
MAX_OWNER_READS = 20
OWNER_READ_PAUSE_S = 0.05
MAX_SILENCE_S = 900.0  # of a run on another machine; a target call may take minutes
CLOCK_SLACK_S = 5.0  # /proc/stat has the start of the machine in whole seconds

if sys.platform == "win32":
    import msvcrt

    _BYTE = 1 << 30  # Windows forbids reading locked bytes, so lock one after the owner's name

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        # Closing also frees the lock, but on Windows not necessarily at once.
        os.lseek(descriptor, _BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    _HELD: tuple[type[OSError], ...] = (PermissionError,)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        """Do nothing: closing frees the lock, and LOCK_UN would free that of a fork, too."""

    _HELD = (BlockingIOError,)


class RunLock:
    """A lock that is held from `take` to `release` or to the end of the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, place: Path, file: Path | None = None) -> Self:
        """Lock a run directory, or another `place` with the lock file `file`.

        Raises RunBusy if this or another process has locked it.
        """
        file = file or place / FILE
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            reason = f"{file} cannot be opened ({error.strerror}); check its permissions"
            raise ConfigError(reason) from None
        try:
            _lock(descriptor)
        except _HELD:
            os.close(descriptor)
            reason = f"{place} is in use by {_read_owner(file)}; wait until it ends or stop it"
            raise RunBusy(reason) from None
        except OSError as error:
            os.close(descriptor)
            reason = f"{file} cannot be locked ({error.strerror}); put the run on a local disk"
            raise ConfigError(reason) from None
        try:
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, orjson.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        except OSError as error:
            os.close(descriptor)
            reason = f"{file} cannot be written ({error.strerror}); check the disk and its permissions"
            raise ConfigError(reason) from None
        return cls(descriptor)

    def release(self) -> None:
        with suppress(OSError):  # a full disk; then only a stale name stays
            os.ftruncate(self._descriptor, 0)  # so that the next owner is not reported as this process
        _unlock(self._descriptor)
        os.close(self._descriptor)


def is_held(folder: Path) -> bool:
    """Whether a live process works in `folder`, as far as can be told without taking the lock.

    The file names the owner, and a process that ends in an orderly way removes its name. A name that
    was left by a killed process does not count. Of a process on another machine, or in a container
    with another name, only its work can be seen: a run writes to its database every few seconds.
    """
    if not (folder / FILE).is_file():  # reading a pipe or a device might never end
        return False
    try:
        owner = orjson.loads((folder / FILE).read_bytes())
        pid, host = int(owner["pid"]), str(owner["host"])
        if host == socket.gethostname():
            return pid > 0 and _is_alive(pid) and not _is_younger(pid, (folder / FILE).stat().st_mtime)
        last = max(file.stat().st_mtime for file in folder.glob("run.db*"))
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return time.time() - last < MAX_SILENCE_S


def _is_alive(pid: int) -> bool:
    """Whether a process of this machine runs."""
    if sys.platform == "win32":  # where a signal 0 would end the process
        tasks = subprocess.run(
            ["tasklist", "/FI", f"PID eq {pid}", "/NH"], capture_output=True, text=True, check=False
        )
        return str(pid) in tasks.stdout.split()
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # a process of another user
        return True
    return True


def _is_younger(pid: int, since: float) -> bool:
    """Whether a process began after `since`, so that it only has the number of an earlier one.

    False where that is unknown: only Linux says it in files.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        lines = Path("/proc/stat").read_text().splitlines()
        booted = next(float(line.split()[1]) for line in lines if line.startswith("btime "))
        began = booted + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration, AttributeError):
        return False
    return began > since + CLOCK_SLACK_S


def _read_owner(file: Path) -> str:
    """Return the process in the file. Waits a moment if the owner has not written it yet."""
    for _ in range(MAX_OWNER_READS):
        try:
            owner = orjson.loads(file.read_bytes())
            return f"process {owner['pid']} on {owner['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(OWNER_READ_PAUSE_S)
    return "another process"
