"""How a file appears: whole or not at all, and never over another one unasked. Knows bytes only."""

import os
import tempfile
from pathlib import Path

from remask.errors import ConfigError


def write(path: Path, content: str, force: bool = False) -> None:
    """Write `content` to `path` whole or not at all; ConfigError where it exists or cannot be."""
    require_free(path, force)
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        draft = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content.encode())
            draft.chmod(0o644)  # mkstemp makes it private
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; mend that") from None


def require_free(path: Path, force: bool) -> None:
    """Raise ConfigError where there is a file that may not be replaced."""
    if path.exists() and not force:
        raise ConfigError(
            f"{path} exists already; name another file, or give --force to replace it"
        )
