"""From a file and flags to one resolved configuration; flags win over the file.

Knows which flag is which key of remask.toml. Whether values make sense is decided by config.py, and
whether they fit the data by api/job.py.
"""

import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remask.api.build_task import Given
from remask.api.refine import make_refine_config
from remask.config import QUERIES, Config, make_config, placed, placed_task, read_prompt, read_toml
from remask.errors import ConfigError
from remask.tasks.inspect.setup import find_system_prompt, load
from remask.tasks.promptfoo import METRIC, is_config

DEFAULT = Path("remask.toml")
PLACES = ("path", "train", "validation", "test")  # of [data]
SAME_NAMES = {  # options that are called like their key
    "target": ("base_url",),
    "metric": ("answer", "rubric"),
    "data": ("input", "expected", "queries"),
    "search": ("max_tokens", "demos", "candidates"),
    "refine": ("columns", "scales", "iterations", "lock"),
}
KEYS = {name: (section, name) for section, names in SAME_NAMES.items() for name in names} | {
    "target": ("target", "model"),
    "metric": ("metric", "name"),
    "label": ("metric", "labels"),
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
    given: Given = field(default_factory=Given)


def read(source: str | None, flags: Mapping[str, Any]) -> Request:
    """`source`: a .toml or a prompt file; None: remask.toml here. ConfigError and DataError."""
    if source is not None and is_config(source):
        raise ConfigError(f"{source} holds tests; name a prompt: PROMPT.md --data {source}")
    values, path = _values(source, flags)
    run_dir = _take_run_dir(values, flags, path)
    override(values, flags)
    prompt_from = _take_prompt_from(values)
    if is_config(_section(values, "data").get("path", "")):
        _section(values, "metric").setdefault("name", METRIC)
    values.pop("refine", None)  # of `remask refine`, which may share the file
    config = make_config(values, str(path))
    given = Given()
    if prompt_from:
        given = Given(suite=(suite := load(config)))
        config = config.model_copy(update={"prompt": find_system_prompt(suite)})
    named = any(getattr(config.data, place) for place in PLACES)
    if config.task.name and named:
        raise ConfigError("both rows (data) and a task of Inspect are named; keep one of them")
    if not (config.task.name or named or config.data.queries):
        config = _from_prompt(config, flags)
    return Request(config, run_dir, given)


def read_refinement(source: str, flags: Mapping[str, Any]) -> Request:
    """The settings of `remask refine`: a prompt file or a remask.toml, and flags, which win."""
    values, path = _values(source, flags)
    run_dir = _take_run_dir(values, flags, path)
    if flags["judge"] and not flags["target"]:
        raise ConfigError("--judge grades the answers of a target; give --target too")
    override(values, flags)
    refine = _section(values, "refine")
    if flags["files"]:
        refine["traces"] = [str(Path(file).resolve()) for file in flags["files"]]
    if flags["redact"] is not None:
        refine["redact"] = flags["redact"] == "on"
    refine["verify"] = bool(flags["target"]) or bool(refine.get("verify"))
    if not refine.get("traces"):
        raise ConfigError(
            "no conversations are named; give --traces FILE, or a section [refine] with traces in remask.toml"
        )
    return Request(make_refine_config(values, str(path)), run_dir)


def _take_run_dir(values: dict[str, Any], flags: Mapping[str, Any], path: Path) -> Path | None:
    """Take `run_dir` out of the values; the flag wins. ConfigError."""
    said = values.pop("run_dir", None)
    if said is not None and not isinstance(said, str):
        raise ConfigError(f"{path}: run_dir = {said!r} must be a path in quotes")
    chosen = flags.get("run_dir") or said
    return Path(chosen) if chosen else None


def _take_prompt_from(values: dict[str, Any]) -> bool:
    """Take `prompt_from` out of the values; whether the task's own system message is the prompt."""
    wanted = values.pop("prompt_from", "")
    if not wanted:
        return False
    if wanted != "system" or values.get("prompt"):
        raise ConfigError(f'prompt_from = {wanted!r}: it can only be "system", and in place of a prompt')
    task = values.get("task")
    if not isinstance(task, dict) or not task.get("name"):
        raise ConfigError("prompt_from needs a task of Inspect: name one with --task")
    values["prompt"] = "-"  # until the task is loaded
    return True


def _values(source: str | None, flags: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """What the file says; and its path, for errors."""
    prompt = flags.get("prompt_file")
    if source is None and not DEFAULT.exists():
        if prompt:
            return {"prompt": read_prompt(Path(prompt))}, Path(prompt)
        if flags.get("task"):
            return {}, Path("flags")
        raise ConfigError(
            "nothing to work on: name a prompt file (with --data) or a remask.toml; there is no "
            "remask.toml in this folder"
        )
    path = DEFAULT if source is None else Path(source)
    values = read_toml(path) if path.suffix.lower() == ".toml" else {"prompt": read_prompt(path)}
    if prompt:
        values["prompt"] = read_prompt(Path(prompt))
    return values, path


def _from_prompt(config: Config, flags: Mapping[str, Any]) -> Config:
    """The configuration of a run that asks the target for messages. ConfigError where that is not
    what the command does, or nothing could score the answers."""
    if "queries" not in flags:
        raise ConfigError(
            "no data is named; give --data FILE, or a section [data] with path in remask.toml; or "
            "--task for a task of Inspect"
        )
    if config.metric.name != "judge":
        raise ConfigError(
            "no data is named; give --data FILE (or [data] with path in remask.toml), --task "
            "for a task of Inspect, or start from the prompt alone with a judge: --judge "
            "openai:MODEL --rubric 'what a good answer is'"
        )
    data = config.data.model_copy(update={"queries": QUERIES})
    return config.model_copy(update={"data": data})


def override(values: dict[str, Any], flags: Mapping[str, Any]) -> None:
    """Put the flags that were given into the nested values."""
    for flag, (section, key) in KEYS.items():
        if flags.get(flag) not in (None, ()):
            _section(values, section)[key] = flags[flag]
    if flags.get("task"):
        _section(values, "task")["name"] = placed_task(flags["task"], Path.cwd())
    for flag, key in (("task_arg", "args"), ("role", "roles")):
        for word in flags.get(flag) or ():
            name, value = _pair(word, flag)
            _section(_section(values, "task"), key)[name] = value
    if flags.get("prompt_from"):
        values["prompt_from"] = flags["prompt_from"]
        if not flags.get("prompt_file"):
            values.pop("prompt", None)
    if flags.get("seed") is not None:
        values["seed"] = flags["seed"]
    if flags.get("data"):
        data = _section(values, "data")
        for split in ("train", "validation", "test"):  # the file's own sources give way
            data.pop(split, None)
        data["path"] = str(Path(flags["data"]).resolve())
    if flags.get("judge"):
        _judged(values, flags)
    if flags.get("denoiser"):
        _section(values, "denoiser")["model"] = placed(flags["denoiser"], Path.cwd())
    if flags.get("adapter"):
        _section(values, "denoiser")["adapter"] = str(Path.cwd() / flags["adapter"])


def _judged(values: dict[str, Any], flags: Mapping[str, Any]) -> None:
    """Put the judge into the settings; it is asked at the target's server, unless a file says
    otherwise."""
    if flags.get("metric") not in (None, "judge", METRIC):
        raise ConfigError(f"--judge and --metric {flags['metric']} exclude each other; give one")
    metric = _section(values, "metric")
    if metric.get("rubric") and flags.get("metric") != METRIC:
        metric["name"] = "judge"
    elif not is_config(_section(values, "data").get("path", "")):  # whose tests have rubrics
        raise ConfigError("--judge needs --rubric: say what a good answer is")
    judge = _section(metric, "judge")
    judge["model"] = flags["judge"]
    judge.setdefault("base_url", values.get("target", {}).get("base_url", ""))


def _pair(word: str, flag: str) -> tuple[str, Any]:
    """KEY=VALUE; the value of a task's argument is read as TOML where it can be, as 5 or true."""
    name, equals, value = word.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--{flag.replace('_', '-')} {word!r}: write NAME=VALUE")
    if flag == "task_arg":
        with suppress(tomllib.TOMLDecodeError):
            return name.strip(), tomllib.loads(f"value = {value}")["value"]
    return name.strip(), value


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    section = values.setdefault(name, {})
    if not isinstance(section, dict):
        raise ConfigError(f"{name} = {section!r}: must be a section, written [{name}]")
    return section
