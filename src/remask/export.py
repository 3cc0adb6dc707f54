"""A prompt as a file for other tools: plain text, or a list of chat messages.

Knows the two shapes and how a file appears whole or not at all. Does not know runs.
"""

import os
import tempfile
from pathlib import Path

import orjson

from remask.errors import ConfigError
from remask.prompt import Prompt


def render(prompt: Prompt, path: Path, marked: bool = False) -> str:
    """What the file holds: messages for `.json`, else the text and a final newline.

    `marked` puts the [[keep]] marks back, so that the file can be optimised again.
    """
    text = prompt.marked() if marked else prompt.text
    if path.suffix.lower() != ".json":
        return text + "\n"
    messages = [{"role": "system", "content": text}]
    return orjson.dumps(messages, option=orjson.OPT_INDENT_2).decode() + "\n"


def write(path: Path, content: str, force: bool = False) -> None:
    """Write `content` to `path` whole or not at all; ConfigError where it exists or cannot be."""
    if path.exists() and not force:
        raise ConfigError(
            f"{path} exists already; name another file, or give --force to replace it"
        )
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
