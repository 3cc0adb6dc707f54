"""The files of a promptfoo configuration: YAML, JSON and texts, each complaint with its place.

Nothing is run. Knows nothing of what a configuration means.
"""

import json
from pathlib import Path
from typing import Any

from remask.errors import ConfigError, DataError

SUFFIXES = (".yaml", ".yml")


def is_config(path: str | Path) -> bool:
    """Whether `path` is read as a configuration of promptfoo, by the end of its name."""
    return str(path).lower().endswith(SUFFIXES)


def simple(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def read_text(file: Path, path: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"names the file {file.name}, which is not there", path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as UTF-8: {error}", file) from None


def read_json(text: str, file: Path, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"malformed JSON ({error}); mend it", file, line) from None


def read_value(said: str, path: Path) -> Any:
    """The value of another YAML or JSON file, named from `path`."""
    file = path.parent / said.removeprefix("file://")
    if file.suffix.lower() not in (".json", *SUFFIXES):
        raise DataError(f"{said!r} must be YAML or JSON; code is not run", path)
    read = read_json if file.suffix.lower() == ".json" else parse_yaml
    return read(read_text(file, path), file)


def read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError("there is no such file; check the path", path)
    found = parse_yaml(read_text(path, path), path)
    if not isinstance(found, dict) or "tests" not in found:
        raise DataError("is no configuration of promptfoo: it has no tests; add them", path)
    return found


def parse_yaml(text: str, path: Path) -> Any:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError(
            "reading promptfooconfig.yaml needs pyyaml: pip install 'remask[promptfoo]'"
        ) from None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        line = mark.line + 1 if mark else None
        raise DataError(f"not valid YAML ({problem}); mend it", path, line) from None
