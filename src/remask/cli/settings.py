"""From a file and flags to one resolved configuration; flags win over the file.

Knows which flag is which key of remask.toml. Whether values make sense is decided by config.py, and
whether they fit the data by wire.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remask.config import Config, make_config, placed, read_prompt, read_toml
from remask.errors import ConfigError
from remask.task.promptfoo_files import is_config

DEFAULT = Path("remask.toml")
KEYS = {
    "target": ("target", "model"),
    "base_url": ("target", "base_url"),
    "metric": ("metric", "name"),
    "answer": ("metric", "answer"),
    "label": ("metric", "labels"),
    "input": ("data", "input"),
    "expected": ("data", "expected"),
    "split_column": ("data", "split"),
    "max_calls": ("budget", "calls"),
    "max_minutes": ("budget", "minutes"),
    "max_usd": ("budget", "usd"),
    "max_total_tokens": ("budget", "tokens"),
    "masker": ("search", "maskers"),
}


@dataclass(frozen=True, slots=True)
class Request:
    """What a command was asked for."""

    config: Config
    run_dir: Path | None  # None: a new folder under runs/


def read(source: str | None, flags: Mapping[str, Any]) -> Request:
    """`source`: a .toml or a prompt file; None: remask.toml here. ConfigError and DataError."""
    if source is not None and is_config(source):
        flags, source = {**flags, "data": flags.get("data") or source}, None
    bare = source is None and is_config(flags.get("data") or "")
    if source is None and not bare and not DEFAULT.exists():
        raise ConfigError(
            "nothing to work on: name a prompt file (with --data) or a remask.toml; there is no "
            "remask.toml in this folder"
        )
    path = DEFAULT if source is None else Path(source)
    if path.suffix.lower() != ".toml":
        values: dict[str, Any] = {"prompt": read_prompt(path)}
    else:
        values = {} if bare and not path.exists() else read_toml(path)
    run_dir = values.pop("run_dir", None)
    if run_dir is not None and not isinstance(run_dir, str):
        raise ConfigError(f"{path}: run_dir = {run_dir!r} must be a path in quotes")
    override(values, flags)
    _adopt(values)
    config = make_config(values, str(path))
    data = config.data
    if not (data.path or data.train or data.validation or data.test):
        raise ConfigError(
            "no data is named; give --data FILE, or a section [data] with path in remask.toml"
        )
    chosen = flags.get("run_dir") or run_dir
    return Request(config, Path(chosen) if chosen else None)


def override(values: dict[str, Any], flags: Mapping[str, Any]) -> None:
    """Put the flags that were given into the nested values."""
    for flag, (section, key) in KEYS.items():
        if flags.get(flag) not in (None, ()):
            _section(values, section)[key] = flags[flag]
    if flags.get("seed") is not None:
        values["seed"] = flags["seed"]
    if flags.get("data"):
        data = _section(values, "data")
        for split in ("train", "validation", "test"):  # the file's own sources give way
            data.pop(split, None)
        data["path"] = str(Path(flags["data"]).resolve())
    if flags.get("dlm"):
        _section(values, "dlm")["model"] = placed(flags["dlm"], Path.cwd())


def _adopt(values: dict[str, Any]) -> None:
    """What a promptfooconfig.yaml says, where it is the data and nothing else was said."""
    data = _section(values, "data")
    path = data.get("path")
    if not isinstance(path, str) or not is_config(path):
        return
    from remask.task.promptfoo import METRIC, asked

    found = asked(path, values.get("prompt"))
    if found.prompt is None:
        raise ConfigError(f"{path} states no prompt; name a prompt file before --data")
    values["prompt"] = found.prompt
    data.setdefault("role", found.role)
    data.setdefault("input", found.input)
    _section(values, "metric").setdefault("name", METRIC)


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    section = values.setdefault(name, {})
    if not isinstance(section, dict):
        raise ConfigError(f"{name} = {section!r}: must be a section, written [{name}]")
    return section
