"""From a file and flags to one resolved configuration; flags win over the file.

Knows which flag is which key of remask.toml. Whether values make sense is decided by config.py, and
whether they fit the data by wire.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remask.config import QUERIES, Config, make_config, placed, read_prompt, read_toml
from remask.errors import ConfigError

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
    "queries": ("data", "queries"),
    "rubric": ("metric", "rubric"),
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
    if source is None and not DEFAULT.exists():
        raise ConfigError(
            "nothing to work on: name a prompt file (with --data) or a remask.toml; there is no "
            "remask.toml in this folder"
        )
    path = DEFAULT if source is None else Path(source)
    values = read_toml(path) if path.suffix.lower() == ".toml" else {"prompt": read_prompt(path)}
    run_dir = values.pop("run_dir", None)
    if run_dir is not None and not isinstance(run_dir, str):
        raise ConfigError(f"{path}: run_dir = {run_dir!r} must be a path in quotes")
    override(values, flags)
    config = make_config(values, str(path))
    data = config.data
    if not (data.path or data.train or data.validation or data.test or data.queries):
        config = _from_prompt(config, flags)
    chosen = flags.get("run_dir") or run_dir
    return Request(config, Path(chosen) if chosen else None)


def _from_prompt(config: Config, flags: Mapping[str, Any]) -> Config:
    """The configuration of a run that asks the target for messages. ConfigError where that is not
    what the command does, or nothing could score the answers."""
    if "queries" not in flags:
        raise ConfigError(
            "no data is named; give --data FILE, or a section [data] with path in remask.toml"
        )
    if config.metric.name != "judge":
        raise ConfigError(
            "no data is named; give --data FILE (or [data] with path in remask.toml), or start "
            "from the prompt alone with a judge: --judge openai:MODEL --rubric 'what a good answer "
            "is'"
        )
    data = config.data.model_copy(update={"queries": QUERIES})
    return config.model_copy(update={"data": data})


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
    if flags.get("judge"):
        _judged(values, flags)
    if flags.get("dlm"):
        _section(values, "dlm")["model"] = placed(flags["dlm"], Path.cwd())


def _judged(values: dict[str, Any], flags: Mapping[str, Any]) -> None:
    """Put the judge into the settings; it is asked at the target's server, unless a file says
    otherwise."""
    if flags.get("metric") not in (None, "judge"):
        raise ConfigError(f"--judge and --metric {flags['metric']} exclude each other; give one")
    metric = _section(values, "metric")
    if not metric.get("rubric"):
        raise ConfigError("--judge needs --rubric: say what a good answer is")
    metric["name"] = "judge"
    judge = _section(metric, "judge")
    judge["model"] = flags["judge"]
    judge.setdefault("base_url", values.get("target", {}).get("base_url", ""))


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    section = values.setdefault(name, {})
    if not isinstance(section, dict):
        raise ConfigError(f"{name} = {section!r}: must be a section, written [{name}]")
    return section
