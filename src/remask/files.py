"""Write files as a whole or not at all, and never over an existing file unasked."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from remask.errors import ConfigError


@contextmanager
def draft(path: Path) -> Iterator[Path]:
    """Yield a temporary file to write; put it in the place of `path` when the block ends.

    The file is on the disk before the rename, which is atomic. Where the block raises, `path` stays
    as it was and the temporary file is deleted. Raises ConfigError where `path` cannot be written,
    and in place of an OSError of the block.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
        made = Path(name)
        try:
            yield made
            made.chmod(0o644)  # mkstemp makes a file that only its owner can read
            with made.open("rb+") as file:
                os.fsync(file.fileno())
            made.replace(path)
        finally:
            made.unlink(missing_ok=True)
    except OSError as error:
        why = error.strerror or error  # safetensors raises without strerror
        raise ConfigError(f"{path} cannot be written: {why}; check the folder and its permissions") from None


def write(path: Path, content: str | bytes, force: bool = False) -> None:
    """Write `content` to `path` as a whole or not at all.

    `force`: replace an existing file. Raises ConfigError where the file exists already or cannot be
    written.
    """
    require_free(path, force)
    with draft(path) as made:
        made.write_bytes(content.encode() if isinstance(content, str) else content)


def require_free(path: Path, force: bool) -> None:
    """Raise ConfigError where `path` exists, unless `force` allows to replace it."""
    if path.exists() and not force:
        raise ConfigError(f"{path} exists already; name another file, or give --force to replace it")
