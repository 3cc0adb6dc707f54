"""Make one configuration from a file and the options; options override the file.

This module defines which option sets which key of remask.toml. config.py checks the values, and
api/job.py checks whether they fit the data.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from remask.api.build_models import load_tools
from remask.api.build_task import Given
from remask.api.refine import make_refine_config
from remask.api.shorten import SHORTEN_DEFAULTS, SHORTEN_GOAL
from remask.config import PROMPT_PLACES, QUERIES, Config, RunConfig, make_config, merged
from remask.data.places import expand_places, read_places, read_tools
from remask.errors import ConfigError
from remask.files import place_function_file, place_target, place_task, placed, read_prompt, read_toml
from remask.prompt import join_components
from remask.tasks.inspect.setup import find_prompt, load
from remask.tasks.promptfoo import METRIC, is_config
from remask.types import TOOL

ALL_TOOLS = f"{TOOL}*"  # the component that takes the descriptions of all tools in a file
DEFAULT = Path("remask.toml")
_PAIRS = {"component": "PLACE", "max_drop": "POINTS"}  # what stands behind NAME= in an option
NOTHING: Mapping[str, Any] = MappingProxyType({})
PLACES = ("path", "train", "validation", "test")  # of [data]
SAME_NAMES = {  # options that are called like their key
    "target": ("base_url", "concurrency"),
    "metric": ("answer", "rubric"),
    "data": ("input", "expected", "queries", "skip_invalid", "group"),
    "search": ("max_tokens", "demos", "candidates", "prefer", "within"),
    "refine": ("columns", "scales", "iterations", "lock"),
    "run": ("executor", "workers"),
}
KEYS = {name: (section, name) for section, names in SAME_NAMES.items() for name in names} | {
    "target": ("target", "model"),
    "temperature": ("target", "temperature"),
    "answer_tokens": ("target", "max_tokens"),
    "denoiser_steps": ("denoiser", "steps"),
    "denoiser_temperature": ("denoiser", "temperature"),
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
    """The settings of a command."""

    config: Config
    run_dir: Path | None  # None: a new folder in runs/
    given: Given = field(default_factory=Given)


def read(
    source: str | None,
    flags: Mapping[str, Any],
    below: Mapping[str, Any] = NOTHING,
    above: Mapping[str, Any] = NOTHING,
) -> Request:
    """Read the settings of a command on rows.

    `source`: a .toml or a prompt file; None: remask.toml in the current folder. `below`: settings
    of the command that file and options override; `above`: those that override them. Raises
    ConfigError and DataError.
    """
    if source is not None and is_config(source):
        raise ConfigError(f"{source} contains tests; name a prompt file and give --data {source}")
    values, path = _read_values(source, flags)
    values = merged(deepcopy(dict(below)), values)  # the options are written into the result
    run_dir = _take_run_dir(values, flags, path)
    override(values, flags)
    _read_components(values, flags, path)
    values = merged(values, above)
    prompt_from = _take_prompt_from(values)
    if is_config(_get_section(values, "data").get("path", "")):
        _get_section(values, "metric").setdefault("name", METRIC)
    values.pop("refine", None)  # for `remask refine`, which may use the same file
    values.pop("watch", None)
    config = make_config(load_tools(values), str(path), _name_options(flags))
    given = Given()
    if prompt_from:
        given = Given(suite=(suite := load(config)))
        prompt = find_prompt(suite, components=prompt_from == "components")
        config = config.model_copy(update={"prompt": prompt})
    named = any(getattr(config.data, place) for place in PLACES)
    if config.task.name and named:
        raise ConfigError("both rows (data) and an Inspect task (task) are given; keep one of them")
    if not (config.task.name or named or config.data.queries):
        config = _ask_for_messages(config, flags)
    return Request(config, run_dir, given)


def read_shortening(source: str | None, flags: Mapping[str, Any]) -> Request:
    """Read the settings of `remask shorten`. Raises ConfigError and DataError."""
    if flags["prefer"] not in (None, "shortest", "prompt_tokens") or flags["demos"]:
        name = "--demos adds text" if flags["demos"] else f"--prefer {flags['prefer']} is not the length"
        raise ConfigError(f"remask shorten makes prompts shorter, and {name}; leave it out")
    return read(source, flags, {"search": {**SHORTEN_DEFAULTS}}, {"search": {**SHORTEN_GOAL}})


def read_refinement(source: str, flags: Mapping[str, Any]) -> Request:
    """Read the settings of `remask refine`. `source`: a .toml or a prompt file.

    Raises ConfigError and DataError.
    """
    values, path = _read_values(source, flags)
    run_dir = _take_run_dir(values, flags, path)
    if flags["judge"] and not flags["target"]:
        raise ConfigError("--judge grades the answers of a target; give --target too")
    override(values, flags)
    values.pop("watch", None)  # for `remask watch`
    refine = _get_section(values, "refine")
    if flags["files"]:
        refine["traces"] = [str(Path(file).resolve()) for file in flags["files"]]
    if flags["redact"] is not None:
        refine["redact"] = flags["redact"] == "on"
    refine["verify"] = bool(flags["target"]) or bool(refine.get("verify"))
    if not refine.get("traces"):
        raise ConfigError(
            "no conversations are given; give --traces FILE, or a section [refine] with the key "
            "traces in remask.toml"
        )
    values = load_tools(values)
    return Request(make_refine_config(values, str(path), _name_options(flags)), run_dir)


def read_workers(flags: Mapping[str, Any]) -> RunConfig:
    """Read the options of the workers alone, for `remask resume`. Raises ConfigError."""
    given = {name: flags[name] for name in SAME_NAMES["run"] if flags[name] is not None}
    return make_config({"prompt": "-", "run": given}, "flags", _name_options(given)).run


def _take_run_dir(values: dict[str, Any], flags: Mapping[str, Any], path: Path) -> Path | None:
    """Remove `run_dir` from the values and return it; the option overrides it. ConfigError."""
    value = values.pop("run_dir", None)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{path}: run_dir = {value!r} must be a path in quotes")
    chosen = flags.get("run_dir") or value
    return Path(chosen) if chosen else None


def _read_components(values: dict[str, Any], flags: Mapping[str, Any], path: Path) -> None:
    """Read the texts of the components into the prompt, and their tools into the target.

    Raises ConfigError and DataError.
    """
    given = _get_section(values, "components")
    sections = {name: {"place": value} if isinstance(value, str) else value for name, value in given.items()}
    for section in sections.values():
        if isinstance(section, dict) and isinstance(section.get("place"), str):
            section["place"] = str(path.resolve().parent / section["place"])
    for name, place in _parse_pairs(flags, "component"):
        sections[name] = {"place": str(Path.cwd() / place)}
    values["components"] = sections
    if not all(isinstance(one, dict) and isinstance(one.get("place"), str) for one in sections.values()):
        return  # make_config says which key is wrong
    if sections and (values.get("prompt") or values.get("prompt_from")):
        raise ConfigError("both a prompt and components are given; make the prompt a component `system`")
    found: dict[str, dict[str, Any]] = {}
    tools = []
    for name, section in sections.items():
        for component, place in expand_places({name: section["place"]}).items():
            if component in found:
                raise ConfigError(f"two components have the name {component!r}; leave one of them out")
            found[component] = {**section, "place": place}
        tools += read_tools(section["place"]) if name == ALL_TOOLS else []
    if sections:
        values["components"] = found
        values["prompt"] = join_components(read_places({name: one["place"] for name, one in found.items()}))
    target = _get_section(values, "target")
    asks_api = str(target.get("model", "")).startswith(("openai:", "inspect:"))  # others have no tools
    if tools and asks_api and not _get_section(values, "task").get("name"):
        _get_section(target, "extra").setdefault("tools", tools)


def _take_prompt_from(values: dict[str, Any]) -> str:
    """Remove `prompt_from` and return what of the Inspect task is the prompt; "" for nothing.

    Raises ConfigError.
    """
    wanted = values.pop("prompt_from", "")
    if not wanted:
        return ""
    if wanted not in PROMPT_PLACES or values.get("prompt"):
        allowed = " or ".join(f'"{place}"' for place in PROMPT_PLACES)
        raise ConfigError(f"prompt_from = {wanted!r}: give {allowed}, and no prompt beside it")
    task = values.get("task")
    if not isinstance(task, dict) or not task.get("name"):
        raise ConfigError("prompt_from needs an Inspect task; name one with --task")
    values["prompt"] = "-"  # replaced after the task was loaded
    return str(wanted)


def _read_values(source: str | None, flags: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """Read the file. Returns its values, and its path for error messages."""
    prompt = flags.get("prompt_file")
    if source is None and not DEFAULT.exists():
        if prompt:
            return {"prompt": read_prompt(Path(prompt))}, Path(prompt)
        if flags.get("task") or flags.get("component"):
            return {}, Path("flags")
        raise ConfigError(
            "there is no remask.toml in this folder; name a prompt file (with --data) or another toml file"
        )
    path = DEFAULT if source is None else Path(source)
    values = read_toml(path) if path.suffix.lower() == ".toml" else {"prompt": read_prompt(path)}
    if prompt:
        values["prompt"] = read_prompt(Path(prompt))
    return values, path


def _ask_for_messages(config: Config, flags: Mapping[str, Any]) -> Config:
    """Return the configuration of a run that asks the target for messages.

    Raises ConfigError where the command cannot do that, or no judge could score the answers.
    """
    if "queries" not in flags:
        raise ConfigError(
            "no data is given; give --data FILE, or data.path in remask.toml, or --task for an Inspect task"
        )
    if config.metric.name != "judge":
        raise ConfigError(
            "no data is given; give --data FILE (or data.path in remask.toml), or --task for an "
            "Inspect task, or let the target write messages and a judge score the answers: --judge "
            "openai:MODEL --rubric 'what a good answer is'"
        )
    data = config.data.model_copy(update={"queries": QUERIES})
    return config.model_copy(update={"data": data})


def override(values: dict[str, Any], flags: Mapping[str, Any]) -> None:
    """Write the options that were given into the nested values."""
    for flag, (section, key) in KEYS.items():
        if flags.get(flag) not in (None, ()):
            _get_section(values, section)[key] = flags[flag]
    if flags.get("target"):
        _get_section(values, "target")["model"] = place_target(flags["target"], Path.cwd())
    if flags.get("metric"):
        _get_section(values, "metric")["name"] = place_function_file(flags["metric"], Path.cwd())
    if scale := flags.get("judge_scale"):
        ends = re.fullmatch(r"(-?\d+(?:\.\d+)?)\.\.(-?\d+(?:\.\d+)?)", scale.strip())
        if ends is None:
            raise ConfigError(f"--judge-scale {scale!r}: write LOW..HIGH, such as 0..1")
        _get_section(values, "metric")["scale"] = [float(ends[1]), float(ends[2])]
    if flags.get("task"):
        _get_section(values, "task")["name"] = place_task(flags["task"], Path.cwd())
    for flag, key in (("task_arg", "args"), ("role", "roles")):
        for name, value in _parse_pairs(flags, flag):
            _get_section(_get_section(values, "task"), key)[name] = value
    for name, value in _parse_pairs(flags, "extra"):
        _get_section(_get_section(values, "target"), "extra")[name] = value
    for name, points in _parse_pairs(flags, "max_drop"):
        _get_section(_get_section(values, "search"), "max_drop")[name] = points
    if named := flags.get("objective"):
        values["objectives"] = [
            *values.get("objectives", ()),
            *({"name": place_function_file(name, Path.cwd())} for name in named),
        ]
    if flags.get("prompt_from"):
        values["prompt_from"] = flags["prompt_from"]
        if not flags.get("prompt_file"):
            values.pop("prompt", None)
    if flags.get("seed") is not None:
        values["seed"] = flags["seed"]
    if flags.get("data"):
        data = _get_section(values, "data")
        for split in ("train", "validation", "test"):  # the option replaces all files
            data.pop(split, None)
        data["path"] = str(Path(flags["data"]).resolve())
    if flags.get("judge"):
        _set_judge(values, flags)
    if flags.get("denoiser"):
        _get_section(values, "denoiser")["model"] = placed(flags["denoiser"], Path.cwd())
    if flags.get("revision"):
        _set_revision(values, flags["revision"])
    if flags.get("adapter"):
        _get_section(values, "denoiser")["adapter"] = str(Path.cwd() / flags["adapter"])


def _set_revision(values: dict[str, Any], revision: str) -> None:
    """Write the revision beside the one model that is a hub id. ConfigError where that is unclear."""
    found = []
    for name in ("target", "denoiser"):
        kind, _, place = str(_get_section(values, name).get("model", "")).partition(":")
        if kind == "local" and "@" not in place and not Path(place).expanduser().exists():
            found.append(name)
    if len(found) != 1:
        both = "target and denoiser are both hub ids" if found else "no model is local:HUB_ID"
        raise ConfigError(
            f"--revision {revision}: it is not clear for which model: {both}; write local:HUB_ID@REVISION"
        )
    _get_section(values, found[0])["revision"] = revision


def _name_options(flags: Mapping[str, Any]) -> dict[str, str]:
    """Return the options that were given by the key that they set, for error messages."""
    named = {"columns": "map", "scales": "scale", "files": "traces"}
    keys = {**KEYS, "files": ("refine", "traces"), "max_drop": ("search", "max_drop")}
    return {
        ".".join(key): f"--{named.get(flag, flag).replace('_', '-')}"
        for flag, key in keys.items()
        if flags.get(flag) not in (None, ())
    }


def _set_judge(values: dict[str, Any], flags: Mapping[str, Any]) -> None:
    """Write the judge into the values, by default with the server of the target. ConfigError."""
    if flags.get("metric") not in (None, "judge", METRIC):
        raise ConfigError(f"--judge and --metric {flags['metric']} exclude each other; give one")
    metric = _get_section(values, "metric")
    if metric.get("rubric") and flags.get("metric") != METRIC:
        metric["name"] = "judge"
    elif not is_config(_get_section(values, "data").get("path", "")):  # its tests have rubrics
        raise ConfigError("--judge needs --rubric, which says what a good answer is")
    judge = _get_section(metric, "judge")
    judge["model"] = flags["judge"]
    target = values.get("target", {})
    # The server of a target of another provider does not know the judge.
    if _find_provider(target.get("model", "")) in ("", _find_provider(flags["judge"])):
        judge.setdefault("base_url", target.get("base_url", ""))
    if flags.get("concurrency"):
        judge.setdefault("concurrency", flags["concurrency"])


def _find_provider(model: object) -> str:
    """Return whose server a model is asked at: openai, inspect:PROVIDER, or "" for no server."""
    kind, _, name = str(model).partition(":")
    if kind == "inspect":
        return f"{kind}:{name.partition('/')[0]}"
    return kind if kind == "openai" else ""


def _parse_pairs(flags: Mapping[str, Any], flag: str) -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of an option that may be repeated, but not with one name."""
    seen: dict[str, str] = {}
    for word in flags.get(flag) or ():
        name, value = _parse_pair(word, flag)
        if name in seen:
            both = f"{seen[name]!r} and {word!r}"
            raise ConfigError(f"--{flag.replace('_', '-')} has two values of {name}: {both}; give one")
        seen[name] = word
        yield name, value


def _parse_pair(word: str, flag: str) -> tuple[str, Any]:
    """Parse KEY=VALUE. A value of --task-arg is read as TOML where possible, such as 5 or true."""
    name, equals, value = word.partition("=")
    needed = flag in ("component", "max_drop")  # other values may be empty
    if not equals or not name.strip() or (needed and not value.strip()):
        raise ConfigError(f"--{flag.replace('_', '-')} {word!r}: write NAME={_PAIRS.get(flag, 'VALUE')}")
    if flag in ("task_arg", "extra", "max_drop"):
        with suppress(tomllib.TOMLDecodeError, RecursionError):
            return name.strip(), tomllib.loads(f"value = {value}")["value"]
    return name.strip(), value


def _get_section(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a section of the values, which is created where it is missing. ConfigError."""
    section = values.setdefault(name, {})
    if not isinstance(section, dict):
        raise ConfigError(f"{name} = {section!r} must be a section, written [{name}]")
    return section
