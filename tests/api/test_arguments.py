"""The arguments of the public functions: rows of any kind, the classes of the settings, and that
Python, remask.toml and the command line mean the same by the same words."""

import importlib
import inspect
import json
import math
import shlex
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import remask
from fakes import write_lines
from fakes.colours import Oracle, Phrases
from remask.api.arguments import settle_arguments, settle_rows
from remask.api.build_task import make_dataset
from remask.cli import main
from remask.cli.settings import read, read_refinement
from remask.config import Config, MetricConfig
from remask.errors import ConfigError
from remask.runs.result import read_result
from remask.types import Example

PROMPT = "Name it. Be brief."
ROWS = [{"input": f"item {i}", "label": "red" if i % 2 else "blue"} for i in range(24)]
PAIRS = [(row["input"], row["label"]) for row in ROWS]


def load(data: Any) -> tuple[Example, ...]:
    """The rows of a run with these data."""
    values, given = settle_arguments(PROMPT, data=data, target="builtin", metric="label", more={})
    return make_dataset(settle_rows(values, given), given.rows).examples


def split_of(data: Any) -> dict[str, str]:
    return {example.input: example.split for example in load(data)}


# --- rows


def frame(rows: list[dict[str, Any]], library: str) -> Any:
    """A DataFrame of pandas or polars, where that is installed."""
    return pytest.importorskip(library).DataFrame(rows)


def lines(folder: Path) -> Path:
    return write_lines(folder / "rows.jsonl", *ROWS)


def table(folder: Path) -> Path:
    text = "input,label\n" + "".join(f"{text},{label}\n" for text, label in PAIRS)
    (folder / "rows.csv").write_text(text)
    return folder / "rows.csv"


KINDS: dict[str, Callable[[Path], Any]] = {
    "a tuple of mappings": lambda folder: tuple(ROWS),
    "pairs": lambda folder: PAIRS,
    "a zip": lambda folder: zip(*zip(*PAIRS, strict=True), strict=True),
    "a generator": lambda folder: (row for row in ROWS),
    "pandas": lambda folder: frame(ROWS, "pandas"),
    "polars": lambda folder: frame(ROWS, "polars"),
    "a path": lines,
    "the name of a file": lambda folder: str(table(folder)),
    "a Dataset": lambda folder: remask.Dataset(ROWS),
    "a Dataset of a file": lambda folder: remask.Dataset(path=lines(folder)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_every_kind_are_the_same_rows(tmp_path: Path, kind: str) -> None:
    assert load(KINDS[kind](tmp_path)) == load(ROWS)


def test_rows_that_can_be_read_once_are_kept() -> None:
    data = remask.Dataset(row for row in ROWS)
    assert load(data) == load(data) == load(ROWS)


def test_splits_may_be_rows_pairs_frames_and_files(tmp_path: Path) -> None:
    frames = pytest.importorskip("pandas").DataFrame(ROWS[:8])
    validation = write_lines(tmp_path / "v.jsonl", *ROWS[8:16])
    mixed = {"train": frames, "validation": validation, "test": PAIRS[16:]}
    rows = {"train": ROWS[:8], "validation": ROWS[8:16], "test": ROWS[16:]}
    paths = {split: str(write_lines(tmp_path / f"{split}.jsonl", *part)) for split, part in rows.items()}
    expected = {row["input"]: split for split, part in rows.items() for row in part}
    for data in (mixed, rows, paths, remask.Dataset(**mixed), remask.Dataset(**paths)):
        assert split_of(data) == expected


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_missing_values_of_a_frame_are_empty(library: str) -> None:
    missing = [math.nan if library == "pandas" else None, None, 3.5]
    rows = [{**row, "note": missing[i % 3]} for i, row in enumerate(ROWS)]
    examples = load(remask.Dataset(frame(rows, library), input="{input}|{note}"))
    assert {example.input for example in examples} == {
        f"item {i}|{'3.5' if i % 3 == 2 else ''}" for i in range(24)
    }


def test_a_missing_answer_in_a_frame_is_said() -> None:
    rows = [*ROWS, {"input": "item 24", "label": None}]
    with pytest.raises(ConfigError, match="data:25: the right answer is empty"):
        load(frame(rows, "pandas"))


def test_pairs_fill_the_columns_that_are_named() -> None:
    data = remask.Dataset(PAIRS, input="{message} =", expected="topic")
    assert {(e.input, e.expected) for e in load(data)} == {(f"{a} =", b) for a, b in PAIRS}


# --- what is wrong is one sentence

WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "a number": (lambda: load(5), "data of type int cannot be read; give a path"),
    "bytes": (lambda: load(b"rows"), "expected an object like"),
    "numbers": (lambda: load([1, 2]), "expected an object like"),
    "texts": (lambda: load(["a", "b"]), "expected an object like"),
    "triples": (lambda: load([("a", "b", "c")]), "expected an object like"),
    "a column": (lambda: load(frame(ROWS, "pandas")["input"]), "expected an object like"),
    "no rows": (lambda: load([]), "no rows"),
    "no splits": (lambda: load({}), "an empty dict"),
    "a wrong split": (lambda: load({"train": 5}), "data of type int cannot be read"),
    "no file": (lambda: load("nowhere.csv"), r"nowhere\.csv"),
    "rows twice": (lambda: remask.Dataset(ROWS, train=ROWS), "give the rows once"),
    "rows and a file": (lambda: remask.Dataset(ROWS, path="rows.csv"), "give the rows once"),
    "an unknown key": (lambda: remask.Target("openai:m", modle="m"), r"key 'modle'.*known here"),
    "another key": (lambda: remask.Search(masker=["span"]), "key 'masker'; known here: .*maskers"),
    "a wrong type": (lambda: remask.Target(3), "remask.Target: model is 3, but must be a text"),
    "a wrong value": (
        lambda: remask.Judge("openai:m", "Good.", repeats=0), "repeats is 0, but must be at least 1"
    ),
    "a wrong text": (lambda: remask.Denoiser(order="luck"), "order is 'luck', but must be 'confidence', "),
    "one label": (lambda: remask.Label(labels="red"), "remask.Label: labels is 'red', but must be a list"),
    "a negative limit": (
        lambda: remask.optimize(PROMPT, ROWS, max_calls=-5), "^max_calls is -5, but must be at least 1$"
    ),
    "no time": (lambda: remask.Budget(minutes=0), "minutes is 0, but must be more than 0$"),
    "endless time": (lambda: remask.Budget(usd=math.inf), "usd is inf, but must be a finite number$"),
    "no masker": (
        lambda: remask.Search(maskers=["luck"]), "Search: maskers.0 is 'luck', but must be [^;]*$"
    ),
    "two limits": (
        lambda: remask.optimize(PROMPT, ROWS, max_calls=5, budget=remask.Budget(calls=5)),
        "give max_calls, or budget",
    ),
    "rows and a task": (
        lambda: remask.optimize(PROMPT, ROWS, task="a/b"), "both rows .* and a task"
    ),
    "no prompt": (lambda: remask.optimize(3, ROWS), "prompt must be a text, a Path or a dict of texts"),
    "a target of a number": (
        lambda: remask.optimize(PROMPT, ROWS, target=5),
        "target must be a name, a function or a remask.Target, not int",
    ),
    "a target of another class": (
        lambda: remask.optimize(PROMPT, ROWS, target=remask.Denoiser()),
        "target must be .*, not Denoiser",
    ),
    "a metric of a class": (
        lambda: remask.optimize(PROMPT, ROWS, metric=remask.Judge),
        "metric must be a name, a function or a remask.Label, Judge or Function, not ",
    ),
    "a denoiser that writes nothing": (
        lambda: remask.optimize(PROMPT, ROWS, denoiser=Oracle()),
        "denoiser must be a name, an object with infill or a remask.Denoiser, not Oracle",
    ),
    "a task of a number": (lambda: remask.optimize(PROMPT, task=5), "task must be a name or"),
    "a search of a dict": (
        lambda: remask.optimize(PROMPT, ROWS, search={"candidates": 2}),
        "search must be a remask.Search, not dict",
    ),
    "a budget of a number": (
        lambda: remask.optimize(PROMPT, ROWS, budget=60),
        "budget must be a remask.Budget, not int",
    ),
    "no prompt file": (lambda: remask.optimize(Path("p.md"), ROWS), r"p\.md.*no such prompt file"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_sentence(here: Path, name: str) -> None:
    make, says = WRONG[name]
    with pytest.raises(ConfigError, match=says) as error:
        make()
    first, *problems = str(error.value).splitlines()  # all rows that are wrong are listed below
    assert not problems or first.endswith(":")
    assert not list(here.iterdir())


# --- the classes

CLASSES = {
    "data": remask.Dataset,
    "target": remask.Target,
    "task": remask.InspectTask,
    "denoiser": remask.Denoiser,
    "search": remask.Search,
    "budget": remask.Budget,
    "run": remask.Workers,
}


def test_the_first_argument_is_given_by_position_or_by_name() -> None:
    assert remask.Target("openai:m") == remask.Target(model="openai:m")
    assert remask.Denoiser("mercury") == remask.Denoiser(model="mercury")
    assert remask.InspectTask("a/b") == remask.InspectTask(name="a/b")
    assert remask.Judge("openai:m", "Good.") == remask.Judge(model="openai:m", rubric="Good.")
    assert load(remask.Dataset(ROWS)) == load(remask.Dataset(data=ROWS))
    with pytest.raises(TypeError, match="multiple values"):
        remask.Target("openai:m", model="openai:n")


@pytest.mark.parametrize("name", [*(c.__name__ for c in CLASSES.values()), "Label", "Judge"])
def test_tab_completion_shows_every_key(name: str) -> None:
    cls = getattr(remask, name)
    keys = list(inspect.signature(cls).parameters)
    assert set(keys) - {"data"} == set(cls.model_fields)
    first = {
        "Dataset": "data",
        "InspectTask": "name",
        "Target": "model",
        "Denoiser": "model",
        "Workers": "executor",
    }
    assert keys[0] == first.get(name, keys[0])


def test_a_function_as_metric_has_settings() -> None:
    def grade(example: Any, response: str) -> float:
        return 1.0

    config = config_of(
        remask.optimize, PROMPT, "rows.csv", metric=remask.Function(grade, timeout=5, repeats=2)
    )
    name = f"function:{grade.__qualname__}"
    assert (config.metric.name, config.metric.timeout, config.metric.repeats) == (name, 5, 2)
    _, given = settle_arguments("x", data="rows.csv", target=None, metric=remask.Function(grade), more={})
    assert given.metric is grade
    with pytest.raises(ConfigError, match="needs a function, not str"):
        remask.Function("grade")  # type: ignore[arg-type]


def test_the_public_names_are_those_that_dir_lists() -> None:
    importlib.import_module("remask.api.optimize")  # which leaves its room in the namespace
    names = [name for name in dir(remask) if not name.startswith("__")]
    modules = ["errors", "events", "ports", "types"]
    assert names == sorted([*remask.__all__, *modules])
    assert "optimize" in names and "api" not in names
    for name in names:
        assert inspect.getdoc(getattr(remask, name)), name


# --- Python, remask.toml and the command line

Words = dict[str, dict[str, Any]]

# Values of every key, in their order none of them the default.
VALUES: dict[str, dict[str, list[Any]]] = {
    "data": {
        "input": ["{question}", "question"],
        "expected": ["topic", ""],
        "split": ["part"],
        "redact": [False],
        "skip_invalid": [True],
        "group": ["set"],
        "role": ["user"],
        "fractions": [[0.25, 0.5, 0.25]],
        "queries": [12, 40],
    },
    "target": {
        "extra": [{"reasoning_effort": "low"}],
        "headers": [{"X-Team": "$TEAM"}],
        "model_args": [{"x": "y"}],
        "model": ["openai:m", "inspect:openai/m"],
        "base_url": ["http://127.0.0.1:1/v1"],
        "concurrency": [1, 20],
        "requests_per_minute": [500.0],
        "tokens_per_minute": [30000.0],
        "timeout": [0.5, 600.0],
        "retries": [0],
        "input_price": [0.0, 1.5],
        "output_price": [2.0],
        "api_key_env": ["KEY"],
        "temperature": [0.7],
        "max_tokens": [16],
        "choose": [False],
        "device": ["cpu"],
        "dtype": ["float32"],
        "revision": ["c0ffee"],
    },
    "task": {
        "args": [{"copies": 2, "hard": True, "names": ["a", "b"]}],
        "model_args": [{"x": "y"}],
        "roles": [{"user": "openai/m"}, {"user": {"model": "openai/m", "base_url": "http://x"}}],
        "scorer": ["match/score"],
        "logs": ["logs"],
        "calls_per_sample": [3],
    },
    "denoiser": {
        "extra": [{"reasoning_effort": "low"}],
        "headers": [{"X-Team": "$TEAM"}],
        "model_args": [{"x": "y"}],
        "model": ["builtin:own.safetensors", "local:model", "local:a/b", "mercury", "chat:m"],
        "base_url": ["http://127.0.0.1:1/v1"],
        "concurrency": [2],
        "requests_per_minute": [60.0],
        "tokens_per_minute": [9000.0],
        "timeout": [5.0],
        "retries": [1],
        "input_price": [0.5],
        "output_price": [0.5],
        "revision": ["c" * 40],
        "adapter": ["own.safetensors"],
        "family": ["dream"],
        "device": ["cpu"],
        "dtype": ["float32"],
        "steps": [8],
        "temperature": [0.9],
        "position_temperature": [0.0],
        "order": ["margin"],
        "commit": ["factor"],
        "threshold": [0.5],
        "factor": [2.0],
        "entropy_bound": [0.2],
        "block": [8],
        "top_p": [0.5],
        "guidance": [1.0],
        "cache": ["exact"],
        "refresh": [2],
        "api_key_env": ["KEY"],
        "max_tokens": [64],
        "send_seed": [False],
    },
    "search": {
        "maskers": [["insert"], ["span", "rewrite"]],
        "candidates": [2],
        "traces": [3],
        "context_tokens": [64],
        "max_growth": [1.5],
        "max_tokens": [90],
        "demos": [4],
        "cautious": [True],
        "prefer": ["shortest", "polite"],
        "within": [2.5],
        "goal": ["preferred"],
        "max_drop": [{"safety": 0.0, "privacy": 1.5}],
    },
    "budget": {"calls": [60], "tokens": [9000], "minutes": [1.5], "usd": [0.25]},
    "run": {"executor": ["process:2", "ray", "ray://10.0.0.7:10001"], "workers": [2], "threads": [1]},
}
PATHS = {"path", "train", "validation", "test"}
LABEL = {"answer": ["It is {label}."], "labels": [["red", "blue"]], "repeats": [2]}
NAMES = ["label", "exact", "contains", "f1", "promptfoo", "score.py:grade"]


def some(values: dict[str, list[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the keys, each with one of its values."""
    return st.fixed_dictionaries({}, optional={key: st.sampled_from(found) for key, found in values.items()})


places = st.sampled_from(
    [
        {"data": {"path": "rows.jsonl"}},
        {"data": {"train": "a.csv", "validation": "b.csv", "test": "c.csv"}},
        {"task": {"name": "package/task"}},
        {"task": {"name": "desk.py@desk"}},  # which stands in the folder
    ]
)
judges = some(VALUES["target"]).map(lambda keys: {"model": "builtin", **keys})
metrics = st.one_of(
    some(LABEL),
    st.sampled_from(NAMES).map(lambda name: {"name": name}),
    st.builds(
        lambda judge, more: {"name": "judge", "judge": judge, "rubric": "Good.", **more},
        judges,
        some({"repeats": [3], "scale": [[0.0, 1.0]]}),
    ),
)
sections = st.fixed_dictionaries({name: some(keys) for name, keys in VALUES.items()})


def merge(place: Words, words: Words, metric: dict[str, Any]) -> Words:
    merged = {name: place.get(name, {}) | keys for name, keys in words.items()}
    return merged | {"metric": metric}


def as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {as_toml(part)}" for key, part in value.items()) + "}"
    return json.dumps(value)


def write_toml(words: Words, seed: int, folder: Path) -> Path:
    text = "".join(f"{name} = {as_toml(keys)}\n" for name, keys in words.items() if keys)
    (folder / "remask.toml").write_text(f'prompt = "prompt.md"\nseed = {seed}\n{text}')
    return folder / "remask.toml"


def make_metric(keys: dict[str, Any]) -> Any:
    """What a user writes in Python for a section [metric]."""
    if "judge" in keys:
        judge = dict(keys["judge"])
        more = {key: keys[key] for key in keys.keys() - {"name", "judge", "rubric"}}
        return remask.Judge(judge.pop("model"), keys["rubric"], **judge, **more)
    return keys["name"] if "name" in keys else remask.Label(**keys)


def make_arguments(words: Words) -> dict[str, Any]:
    """What a user writes in Python for these sections; an empty one is left out."""
    given = {
        "workers" if name == "run" else name: CLASSES[name](**words[name])
        for name in CLASSES
        if words.get(name)
    }
    if words.get("metric"):
        given["metric"] = make_metric(words["metric"])
    return given


def config_of(function: Callable[..., Any], *arguments: Any, **more: Any) -> Config:
    """The configuration that a public function makes of its arguments."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("optimize", "refine"):
            patch.setattr(f"remask.api.{module}.start_run", lambda config, *rest: config)
        found: Config = function(*arguments, **more)
    return found


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with the files that the words name."""
    with TemporaryDirectory() as place, chdir(place):
        folder = Path(place).resolve()
        (folder / "prompt.md").write_text(PROMPT + "\n")
        (folder / "desk.py").write_text("")
        (folder / "score.py").write_text("def grade(example, response): return 1")
        (folder / "model").mkdir()
        yield folder


def test_the_values_below_name_every_key() -> None:
    for name, section in CLASSES.items():
        assert set(VALUES[name]) | PATHS | {"name"} >= set(section.model_fields), name
    assert {"name", "judge", "rubric", "scale", "timeout", *LABEL} == set(MetricConfig.model_fields)
    names = {"prompt", "components", "seed", "refine", "metric", "objectives", "watch", *CLASSES}
    assert set(Config.model_fields) == names


@settings(max_examples=60, deadline=None)
@given(places, sections, metrics, st.integers(0, 2**31))
def test_python_and_a_file_mean_the_same(
    folder: Path, place: Words, words: Words, metric: dict[str, Any], seed: int
) -> None:
    words = merge(place, words, metric)
    written = read(str(write_toml(words, seed, folder)), {}).config
    made = config_of(remask.optimize, Path("prompt.md"), seed=seed, **make_arguments(words))
    assert made == written
    for name, section in words.items():  # the words have arrived
        assert getattr(made, name).model_fields_set >= section.keys()


REFINE = {
    "columns": [["input=frage,output=antwort"]],
    "scales": [["stars=1..5"]],
    "redact": [False],
    "lock": ["text", "none"],
    "iterations": [2],
}


@settings(max_examples=30, deadline=None)
@given(some(REFINE), sections, st.one_of(st.just({}), metrics), st.booleans(), st.integers(0, 2**31))
def test_python_and_a_file_mean_the_same_in_refine(
    folder: Path, refine: dict[str, Any], words: Words, metric: Any, verify: bool, seed: int
) -> None:
    words = {name: words[name] for name in ("denoiser", "search", "budget")} | {"metric": metric}
    words["target"] = {"model": "openai:m"} if verify else {}
    if refine.get("lock") == "text":
        words["search"].pop("maskers", None)  # they follow from the lock
    section = {"traces": ["log.jsonl"], "verify": verify, **refine}
    file = write_toml({**words, "refine": section}, seed, folder)
    flags = {"judge": None, "target": None, "files": (), "redact": None}
    written = read_refinement(str(file), flags).config
    arguments = {**make_arguments(words), **refine, "seed": seed}
    made = config_of(remask.refine, Path("prompt.md"), folder / "log.jsonl", **arguments)
    assert made == written
    # Only a metric that the user named keeps the right answers from choosing one.
    assert "name" in written.metric.model_fields_set or "name" not in metric


URL = "http://127.0.0.1:1/v1"
FLAGS: dict[str, Callable[[], dict[str, Any]]] = {
    "--data rows.csv --input '{q}' --expected topic --split-column part": lambda: {
        "data": remask.Dataset("rows.csv", input="{q}", expected="topic", split="part")
    },
    "--data rows.csv --split-column part": lambda: {"data": remask.Dataset("rows.csv", split="part")},
    "--data rows.csv --skip-invalid": lambda: {"data": remask.Dataset("rows.csv", skip_invalid=True)},
    "--queries 40": lambda: {"data": remask.Dataset(queries=40)},
    f"--target openai:m --base-url {URL}": lambda: {"target": remask.Target("openai:m", base_url=URL)},
    "--target openai:m --temperature omit --answer-tokens 4000 --extra reasoning_effort=low": lambda: {
        "target": remask.Target(
            "openai:m", temperature="omit", max_tokens=4000, extra={"reasoning_effort": "low"}
        )
    },
    "--target openai:m --concurrency 3": lambda: {"target": remask.Target("openai:m", concurrency=3)},
    f"--target local:a/b --revision {'0' * 40}": lambda: {
        "target": remask.Target("local:a/b", revision="0" * 40)
    },
    f"--denoiser local:a/b --revision {'0' * 40} --denoiser-steps 5 --denoiser-temperature 0.4": lambda: {
        "denoiser": remask.Denoiser("local:a/b", revision="0" * 40, steps=5, temperature=0.4)
    },
    "--metric exact": lambda: {"metric": "exact"},
    "--answer 'It is {label}.' --label red --label blue": lambda: {
        "metric": remask.Label(answer="It is {label}.", labels=["red", "blue"])
    },
    "--metric score.py:grade": lambda: {"metric": "score.py:grade"},
    "--judge openai:m --rubric 'x' --judge-scale 0..1": lambda: {
        "metric": remask.Judge("openai:m", "x", scale=(0, 1))
    },
    "--judge openai:m --rubric 'Be kind.'": lambda: {"metric": remask.Judge("openai:m", "Be kind.")},
    "--task desk.py@desk -T copies=2 -T name=x --role user=openai/m": lambda: {
        "task": remask.InspectTask(
            "desk.py@desk", args={"copies": 2, "name": "x"}, roles={"user": "openai/m"}
        )
    },
    "--denoiser local:model --adapter own.safetensors": lambda: {
        "denoiser": remask.Denoiser("local:model", adapter="own.safetensors")
    },
    "--denoiser builtin:own.safetensors": lambda: {"denoiser": "builtin:own.safetensors"},
    "--denoiser chat:m": lambda: {"denoiser": "chat:m"},
    "--max-calls 60": lambda: {"max_calls": 60},
    "--max-calls 60 --max-minutes 1.5 --max-usd 0.25 --max-total-tokens 900": lambda: {
        "budget": remask.Budget(calls=60, minutes=1.5, usd=0.25, tokens=900)
    },
    "--masker span --masker insert --max-tokens 90 --demos 4": lambda: {
        "search": remask.Search(maskers=["span", "insert"], max_tokens=90, demos=4)
    },
    "--seed 5": lambda: {"seed": 5},
    "--workers 3": lambda: {"workers": 3},
    "--workers 2 --executor ray": lambda: {"workers": remask.Workers("ray", workers=2)},
    "--objective latency --objective score.py:grade --objective f1": lambda: {
        "objectives": ["latency", "score.py:grade", "f1"]
    },
    "--prefer shortest --within 2.5 --max-drop safety=0 --max-drop privacy=1.5": lambda: {
        "search": remask.Search(prefer="shortest", within=2.5, max_drop={"safety": 0, "privacy": 1.5})
    },
    "--data rows.csv --group set": lambda: {"data": remask.Dataset("rows.csv", group="set")},
}


def parse(name: str, *words: str) -> dict[str, Any]:
    """What the command line makes of these words."""
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return command.make_context(name, list(words)).params


@pytest.mark.parametrize("flags", FLAGS)
def test_python_and_the_command_line_mean_the_same(folder: Path, flags: str) -> None:
    words = shlex.split(flags)
    placed = {"--data", "--task", "--queries"} & set(words)
    more = [] if placed else ["--data", "rows.csv"]
    if "--queries" in words:  # which needs a metric without right answers
        more = ["--judge", "openai:m", "--rubric", "Good."]
    given = parse("optimize", "prompt.md", *words, *more)
    arguments = {"data": None if placed else "rows.csv"} | FLAGS[flags]()
    if "--queries" in words:
        arguments["metric"] = remask.Judge("openai:m", "Good.")
    made = config_of(remask.optimize, Path("prompt.md"), **arguments)
    assert made == read(given.pop("source"), given).config


def test_objectives_mean_the_same_in_python_and_in_a_file(folder: Path) -> None:
    rubric = {"name": "judge", "rubric": "Kind.", "judge": {"model": "openai:m"}, "scale": [0.0, 1.0]}
    file = write_toml({"data": {"path": "rows.jsonl"}}, 0, folder)
    named = [{"name": "usd"}, {"metric": "score.py:grade"}, {"name": "kind", "metric": rubric}]
    with file.open("a") as out:
        out.write(f"objectives = [{', '.join(map(as_toml, named))}]\n")
    judge = remask.Judge("openai:m", "Kind.", scale=(0, 1))
    made = config_of(
        remask.optimize, Path("prompt.md"), "rows.jsonl",
        objectives=["usd", remask.Objective(metric="score.py:grade"), remask.Objective("kind", judge)],
    )  # fmt: skip
    assert made.objectives == read(str(file), {}).config.objectives
    assert [one.title for one in made.objectives] == ["usd", "grade", "kind"]


def test_every_flag_of_optimize_is_compared() -> None:
    shown = {word for flags in FLAGS for word in shlex.split(flags)}
    left = [p for p in main.commands["optimize"].params if not shown & set(p.opts)]
    assert {option.name for option in left} == {
        *("source", "run_dir", "component", "prompt_file", "prompt_from", "track", "plain", "json"),
        *("fail_unless", "junit", "summary"),
    }


def test_python_and_the_command_line_mean_the_same_in_refine(folder: Path) -> None:
    flags = (
        "prompt.md --traces log.jsonl --iterations 2 --lock none --scale stars=1..5 --redact off "
        "--map input=frage,output=antwort --masker span --target openai:m --metric f1 --seed 3"
    )
    given = parse("refine", *shlex.split(flags))
    made = config_of(
        remask.refine,
        Path("prompt.md"),
        "log.jsonl",
        iterations=2,
        lock="none",
        scales=["stars=1..5"],
        redact=False,
        columns=["input=frage,output=antwort"],
        search=remask.Search(maskers=["span"]),
        target="openai:m",
        metric="f1",
        seed=3,
    )
    assert made == read_refinement(given.pop("source"), given).config


def test_objects_have_a_name_in_the_settings() -> None:
    made = config_of(
        remask.optimize, PROMPT, ROWS, target=Oracle(), metric=lambda row, text: 1.0,
        denoiser=Phrases(),
    )  # fmt: skip
    assert made.target.model == "function:Oracle"
    assert made.metric.name.startswith("function:test_objects")
    assert made.denoiser.model == "object:Phrases"
    assert isinstance(made, BaseModel) and made.data.queries is None


# --- what is shown


@pytest.mark.parametrize("prompt", ["word " * 4000, "line\n" * 4000, "\N{TAG SPACE}" * 20_000])
def test_a_result_is_shown_on_one_screen(finished_run: Path, prompt: str) -> None:
    result = read_result(finished_run)
    assert result is not None
    text = repr(replace(result, prompt=prompt, best=replace(result.best, prompt=prompt)))
    assert sum(math.ceil(len(line) / 100) for line in text.splitlines()) < 24
    assert result.verdict in text and "sealed test rows" in text
