"""Read small files; write files as a whole or not at all, and replace one only on request.

`require_prompt` refuses a file of rows where a prompt file is expected, and `make_absolute` places the
paths of a configuration.
"""

import os
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from remask.errors import ConfigError, DataError

# Of files that hold rows. A text in one of them is no prompt, even where it could be read as one.
ROW_SUFFIXES = frozenset(
    {".csv", ".tsv", ".jsonl", ".ndjson", ".gz", ".xlsx", ".xls", ".ods", ".parquet", ".db", ".sqlite"}
)

SERVERS = ("langfuse", "mlflow")  # of traces, that `remask watch` reads


def read_file(path: Path, missing: str) -> bytes:
    """Return the content of a file. `missing`: what is said where there is none.

    Raises DataError for a folder too, a file that cannot be read, and a pipe or device, which may
    never end.
    """
    try:
        if path.is_dir():
            raise DataError("this is a folder; name a file in it", path)
        if path.exists() and not path.is_file():
            raise DataError("is not a regular file; give the path of a file", path)
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(missing, path) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise DataError(f"cannot be read: {getattr(error, 'strerror', None) or error}", path) from None


def require_prompt(path: Path, content: bytes) -> None:
    """Raise DataError where the file at `path` holds rows in place of a prompt."""
    if path.suffix.lower() in ROW_SUFFIXES or _holds_json_rows(content):
        raise DataError("this file holds rows, not a prompt; name a text file such as prompt.md", path)


def _holds_json_rows(content: bytes) -> bool:
    """Whether the content is an array of objects without the roles of chat messages, or JSON Lines."""
    text = content.removeprefix(b"\xef\xbb\xbf").strip()
    if text[:1] not in (b"[", b"{"):
        return False
    try:
        found = orjson.loads(text if text.startswith(b"[") else b"[" + b",".join(text.splitlines()) + b"]")
    except orjson.JSONDecodeError:
        return False
    rows = [row for row in found if isinstance(row, dict) and "role" not in row]
    return len(rows) == len(found) > 1


@contextmanager
def draft(path: Path) -> Iterator[Path]:
    """Yield a temporary file to write; put it in the place of `path` when the block ends.

    The file is on the disk before the rename, which is atomic, and has the permissions of the file
    that it replaces. Where the block raises, `path` stays as it was and the temporary file is
    deleted. Raises ConfigError where `path` cannot be written, and in place of an OSError of the
    block.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
        made = Path(name)
        try:
            yield made
            # mkstemp makes a file that only its owner can read.
            made.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
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


def stamp(file: Path) -> tuple[int, int]:
    """Return a value that changes when the file is written; (0, 0) where there is none."""
    try:
        seen = file.stat()
    except OSError:
        return 0, 0
    return seen.st_mtime_ns, seen.st_size


def read_prompt(path: Path) -> str:
    """The text of a prompt file; a final newline is not part of the prompt. It may be empty."""
    content = read_file(path, "there is no such prompt file")
    require_prompt(path, content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}; save the prompt as UTF-8", path) from None
    return text.rstrip("\r\n")


# --- paths of a configuration


def parse_toml(path: Path) -> dict[str, Any]:
    """The nested values of a TOML file, as they stand there."""
    try:
        content = read_file(path, "there is no such file; write one or use flags")
        return tomllib.loads(content.decode("utf-8-sig"))  # editors of Windows write the mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"not valid TOML: {error}", path) from None
    except RecursionError:
        raise DataError("not valid TOML: it is nested too deep", path) from None


def read_toml(path: Path) -> dict[str, Any]:
    """The nested values of a `remask.toml`, paths made absolute, `prompt` read from its file."""
    values = parse_toml(path)
    base = path.resolve().parent
    make_absolute(values, base)
    if isinstance(prompt := values.get("prompt"), str) and prompt:
        values["prompt"] = read_prompt(base / prompt)
    for name in ("refine", "watch"):
        section = values.get(name)
        if isinstance(section, dict) and isinstance(files := section.get("traces"), str | list):
            named = [files] if isinstance(files, str) else files
            section["traces"] = [place_traces(str(file), base) for file in named]
    return values


def read_toml_value(value: Any, annotation: Any) -> Any:
    """Convert a value of a `remask.toml` to what its key, of such a type, expects.

    TOML has no null: "none" or "omit" stands for it. And true is no number, where pydantic reads 1.
    """
    parts = getattr(annotation, "__args__", (annotation,))
    kinds = [getattr(part, "__origin__", part) for part in parts]  # of Annotated
    if type(None) in kinds and value in ("none", "omit"):
        return None
    as_number = isinstance(value, bool) and bool not in kinds and (int in kinds or float in kinds)
    return str(value).lower() if as_number else value


def make_absolute(values: dict[str, Any], base: Path) -> None:
    """Make the paths of nested values that are relative to `base` absolute, in place."""

    def place(where: Any, key: str, found: Callable[[str, Path], str]) -> None:
        if isinstance(where, dict) and isinstance(where.get(key), str) and where[key]:
            where[key] = found(where[key], base)

    def below(place: str, base: Path) -> str:
        return str(base / place)

    for key in ("path", "train", "validation", "test"):
        place(values.get("data"), key, below)
    place(values.get("denoiser"), "model", placed)
    place(values.get("denoiser"), "adapter", below)
    place(values.get("task"), "name", place_task)
    place(values.get("metric"), "name", place_function_file)
    place(values.get("target"), "model", place_target)
    if isinstance(metric := values.get("metric"), dict):
        place(metric.get("judge"), "model", place_target)
    if isinstance(target := values.get("target"), dict):
        place(target.get("extra"), "tools", below)
    objectives = values.get("objectives")
    for one in objectives if isinstance(objectives, list) else ():
        place(one, "name", place_function_file)
        place(one, "metric", place_function_file)
        place(one.get("metric") if isinstance(one, dict) else None, "name", place_function_file)
    place(values, "run_dir", below)
    place(values.get("watch"), "state", below)
    place(values.get("watch"), "proposals", below)


def is_server(place: str) -> bool:
    """Whether a place of conversations is `langfuse:URL` or `mlflow:URI`, and no file."""
    return place.partition(":")[0] in SERVERS


def place_traces(place: str, base: Path) -> str:
    """A file, folder or pattern with the whole path; a server as it is. Raises ConfigError."""
    if not place.strip():
        raise ConfigError("traces holds an empty text; name a file, a folder, a pattern or a server")
    if "://" in place and not is_server(place):
        raise ConfigError(
            f"traces holds {place!r}, which is no file; servers are langfuse:URL and mlflow:URL"
        )
    return place if is_server(place) else str(base / place)


def placed(model: str, base: Path) -> str:
    """local:PLACE with the whole path, where there is such a folder or file, else it is a hub id;
    and builtin:ADAPTER with that of the file."""
    kind, _, place = model.partition(":")
    there = base / place
    known = (kind == "local" and there.exists()) or kind == "builtin"
    return f"{kind}:{there}" if place and known else model


def place_target(model: str, base: Path) -> str:
    """local:PLACE and FILE.py:FUNCTION with the whole path; other targets as they are."""
    return placed(model, base) if model.startswith("local:") else place_function_file(model, base)


def place_task(name: str, base: Path) -> str:
    """FILE.py@TASK with the whole path, where there is such a file below `base`."""
    file, at, task = name.partition("@")
    path = base / file
    return f"{path.resolve()}{at}{task}" if path.is_file() else name


def place_function_file(name: str, base: Path) -> str:
    """FILE.py:FUNCTION with the whole path of the file; other names of metrics and targets as they
    are."""
    file, colon, function = name.rpartition(":")
    return f"{(base / file).resolve()}:{function}" if colon and file.endswith(".py") else name
