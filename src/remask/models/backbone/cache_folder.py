"""The user's cache folder: its place, folders that appear whole, and hashes of large files."""

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from remask.errors import BackendError, ConfigError
from remask.files import write

LARGE_FILE_BYTES = 64 << 20  # smaller files are hashed every time
# A file that was written later than this before it was hashed may be written again with the same
# time of change, since file systems keep that time with a limited resolution.
SETTLED_SECONDS = 2.0


def find_cache_root() -> Path:
    """Return the user's cache folder for remask: REMASK_CACHE, XDG_CACHE_HOME/remask or
    ~/.cache/remask."""
    if chosen := os.environ.get("REMASK_CACHE"):
        return Path(chosen).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "remask"


@contextmanager
def make_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which becomes `folder` by one rename when the block ends.

    Two processes may make the same folder at the same time; the first one stays. Raises
    BackendError where the cache cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder.parent) as scratch:
            unpacked = Path(scratch) / folder.name
            unpacked.mkdir()
            yield unpacked
            try:
                unpacked.rename(folder)
            except OSError:
                # If the folder exists, another process has unpacked the same content.
                if not folder.is_dir():
                    raise
    except OSError as error:
        why = error.strerror or error
        raise BackendError(
            f"{folder}: weights cannot be written there ({why}); make room, or name another folder in "
            "the variable REMASK_CACHE"
        ) from error


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file.

    That of a large file is kept in the cache folder, by its path, size and time of change, so that
    a gigabyte is not read twice at every start. Raises OSError.
    """
    seen = path.stat()
    if seen.st_size < LARGE_FILE_BYTES:
        return _compute_hash(path)
    state = f"{path.resolve()}\n{seen.st_size}\n{seen.st_mtime_ns}\n{seen.st_ino}"
    kept = find_cache_root() / "hashes" / hashlib.sha256(state.encode()).hexdigest()[:32]
    with suppress(OSError, ValueError):
        if re.fullmatch("[0-9a-f]{64}", known := kept.read_text("ascii")):
            return known
    found = _compute_hash(path)
    if time.time() - seen.st_mtime > SETTLED_SECONDS:
        with suppress(OSError, ConfigError):  # without it the file is hashed again next time
            kept.parent.mkdir(parents=True, exist_ok=True)
            write(kept, found, force=True)
    return found


def _compute_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
