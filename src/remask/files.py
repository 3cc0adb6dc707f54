"""How a file appears: whole or not at all, and never over another one unasked. Knows bytes only."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from remask.errors import ConfigError


@contextmanager
def draft(path: Path) -> Iterator[Path]:
    """A new file beside `path` to write and close, which is then put in its place by one rename,
    on the disk by then. Where the block raises, `path` stays what it was and the draft goes.
    Raises ConfigError where `path` cannot be written, also for an OSError of the block."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
        made = Path(name)
        try:
            yield made
            made.chmod(0o644)  # mkstemp makes it private
            with made.open("rb+") as file:
                os.fsync(file.fileno())
            made.replace(path)
        finally:
            made.unlink(missing_ok=True)
    except OSError as error:
        why = error.strerror or error  # safetensors gives no strerror
        raise ConfigError(f"{path} cannot be written: {why}; mend that") from None


def write(path: Path, content: str | bytes, force: bool = False) -> None:
    """Write `content` to `path` whole or not at all. `force`: also over a file that is there.
    Raises ConfigError where it exists or cannot be."""
    require_free(path, force)
    with draft(path) as made:
        made.write_bytes(content.encode() if isinstance(content, str) else content)


def require_free(path: Path, force: bool) -> None:
    """Raise ConfigError where there is a file that may not be replaced."""
    if path.exists() and not force:
        raise ConfigError(
            f"{path} exists already; name another file, or give --force to replace it"
        )
