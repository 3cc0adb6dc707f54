"""The arguments of `optimize`, `refine`, `evaluate` and `resume`.

The classes are the sections of `remask.toml`, with the same keys. All settings become one `Config`.
The objects that no file can contain (rows, functions, a denoiser) become `Given`.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, ValidationError

from remask import config as sections
from remask.api.build_models import Respond, load_tools
from remask.api.build_task import Given
from remask.config import QUERIES, Config, make_config, merged
from remask.errors import ConfigError, describe_problems
from remask.files import make_absolute, read_prompt
from remask.ports import DenoiserModel, Metric
from remask.prompt import join_components

DEFAULT_MAX_CALLS = 2000  # where neither max_calls nor a budget is given

Rows = str | os.PathLike[str] | Iterable[Any]  # a file, a DataFrame, mappings, or pairs
Data = Rows | Mapping[str, Rows]  # all rows, or those of train, validation and test


class _Checked(sections.Section):
    """A section of the settings that is made in Python: a wrong key or value is a ConfigError."""

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            where = f"remask.{type(self).__name__}"
            raise ConfigError(describe_problems(error, type(self), where)) from None


class Dataset(_Checked, sections.DataConfig):
    """The rows and the meaning of their columns: `Dataset("rows.csv", expected="topic")`.

    The rows are a path (JSONL, JSON, CSV, TSV), mappings, a DataFrame, pairs (message, right
    answer), or a dict with the keys train, validation and test. `input` is a template over the
    columns, such as "{question}". `expected` is the column of the right answer, and `split` is the
    column with train, validation or test. Raises ConfigError for an unknown key or a wrong value.

    >>> import remask
    >>> remask.Dataset([("2 + 2", "4"), ("3 + 3", "6")], input="{input} =").input
    '{input} ='
    """

    _rows: Any = PrivateAttr(None)

    def __init__(self, data: Data | None = None, **settings: Any) -> None:
        named = {name: settings.pop(name) for name in PLACES if name in settings}
        if data is not None and named:
            raise ConfigError("give the rows once: all together, or by split")
        paths, rows = _locate(named or data)
        super().__init__(**settings | paths)
        self._rows = rows


class Target(_Checked, sections.TargetConfig):
    """The frozen model whose prompt is optimised: `Target("openai:gpt-4.1-mini", temperature=0)`.

    Names are "builtin", "local:FOLDER", "local:FILE.gguf", "local:HUB_ID" (with `revision`),
    "openai:MODEL" (with `base_url` for any compatible server), and "inspect:PROVIDER/MODEL" for any
    provider that Inspect knows. `timeout` is in seconds. Prices are in US dollars per million tokens.
    Raises ConfigError for an unknown key or a wrong value.

    >>> import remask
    >>> remask.Target("openai:my-model", base_url="http://127.0.0.1:8000/v1").concurrency
    8
    """

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        super().__init__(**settings if model is None else settings | {"model": model})


class Denoiser(_Checked, sections.DenoiserConfig):
    """The diffusion language model that writes the edits: `Denoiser("local:FOLDER", steps=8)`.

    Names are "builtin", "builtin:ADAPTER", "local:FOLDER", "local:HUB_ID" (with `revision`),
    "mercury", "chat:MODEL" and "inspect:PROVIDER/MODEL". Raises ConfigError for an unknown key or a
    wrong value.

    >>> import remask
    >>> remask.Denoiser("builtin", steps=8).steps
    8
    """

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        super().__init__(**settings if model is None else settings | {"model": model})


class Workers(_Checked, sections.RunConfig):
    """Where models on this machine work: `Workers("process", workers=4)` or `Workers("ray")`.

    Equal numbers of threads give equal results, with any number of workers. Raises ConfigError for
    an unknown key or a wrong value.

    >>> import remask
    >>> remask.Workers("process", workers=4, threads=2).threads
    2
    """

    def __init__(self, executor: str | None = None, **settings: Any) -> None:
        super().__init__(**settings if executor is None else settings | {"executor": executor})


class InspectTask(_Checked, sections.TaskConfig):
    """An Inspect task in place of rows: `InspectTask("inspect_evals/tau2_airline")`.

    `args` are the arguments of the task, and `roles` are its other models, such as
    {"user": "PROVIDER/MODEL"}. Raises ConfigError for an unknown key or a wrong value.

    >>> import remask
    >>> remask.InspectTask("inspect_evals/tau2_airline", args={"message_limit": 40}).name
    'inspect_evals/tau2_airline'
    """

    def __init__(self, name: str | None = None, **settings: Any) -> None:
        super().__init__(**settings if name is None else settings | {"name": name})


class Label(_Checked):
    """The metric "label": the allowed label that a response names is its answer.

    `answer` is the text of an answer with {label}. `labels` are the allowed labels (empty: those of
    the data). `repeats` is the number of calls per row. Raises ConfigError for a wrong value.

    >>> import remask
    >>> remask.Label(answer="This is about {label}.").repeats
    1
    """

    answer: str = "{label}"
    """Text of an answer, with {label}."""
    labels: tuple[str, ...] = ()
    """Labels that are allowed. Empty: those in the data."""
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    """Number of calls per row; their scores are averaged."""


class Judge(_Checked, sections.TargetConfig):
    """The metric "judge": a model reads a response and scores it from 0 to 1.

    `rubric` says what a good response is, and `scale` the worst and the best score. The other keys
    are those of a Target. Raises ConfigError for an unknown key or a wrong value.

    >>> import remask
    >>> remask.Judge("openai:my-model", "The answer is polite and at most three sentences.").repeats
    1
    """

    rubric: str
    """What a good answer is."""
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    """Number of calls per row; their scores are averaged."""
    scale: tuple[float, float] = (0, 10)
    """The worst and the best score that it gives."""

    def __init__(self, model: str, rubric: str, **settings: Any) -> None:
        super().__init__(model=model, rubric=rubric, **settings)


class Function(_Checked):
    """A function as metric, with settings: `Function(grade, timeout=600)`.

    The function takes an example and a response, and returns a number from 0 to 1 or a
    `remask.Score`. `timeout` is the limit in seconds for one row (None: no limit, and it runs in
    the thread of the search); `repeats` is the number of calls per row.

    >>> import remask
    >>> remask.Function(lambda example, response: len(response) < 80, timeout=5).repeats
    1
    """

    timeout: Annotated[float, Field(gt=0)] | None = sections.MetricConfig().timeout
    """Seconds that the function may take for one row."""
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    """Number of calls per row; their scores are averaged."""
    _function: Any = PrivateAttr(None)

    def __init__(self, function: Metric, **settings: Any) -> None:
        super().__init__(**settings)
        if not callable(function):
            raise ConfigError(f"remask.Function needs a function, not {type(function).__name__}")
        self._function = function


class Search(_Checked, sections.SearchConfig):
    """How candidates are proposed and accepted: `Search(candidates=12, demos=4)`.

    Raises ConfigError for an unknown key or a wrong value.

    >>> import remask
    >>> remask.Search(maskers=["insert"]).traces
    8
    """


class Budget(_Checked, sections.BudgetConfig):
    """Hard limits of a run, the sealed test included: calls, tokens, minutes, usd.

    None means no limit. Raises ConfigError for an unknown key or a wrong value.

    >>> import remask
    >>> remask.Budget(minutes=30).calls
    2000
    """


class Objective(_Checked, sections.ObjectiveConfig):
    """What counts beside the score: `Objective("latency")`, `Objective(metric=polite)`.

    `name` is "prompt_tokens", "output_tokens", "usd" or "latency"; of these less is better. `metric`
    is a second metric, of which more is better: a name, a function `(example, response) -> float`
    or a Judge. Raises ConfigError for a wrong value.

    >>> import remask
    >>> remask.Objective(metric="f1").title
    'f1'
    """

    _function: Any = PrivateAttr(None)

    def __init__(self, name: str = "", metric: "str | Metric | Judge | None" = None) -> None:
        settings: dict[str, Any] = {"name": name} if name else {}
        if metric is not None:
            _require_types(metric=metric)
            settings["metric"] = _read_metric(metric)
        super().__init__(**settings)
        self._function = _get_object(metric)


PLACES = ("path", "train", "validation", "test")  # keys of [data] that name a file
# What each argument may be: its types, what an object of the user has, and all of it in words.
_ALLOWED: dict[str, tuple[Any, str, str]] = {
    "prompt": (str | Path | Mapping, "", "a text, a Path or a dict of texts"),
    "target": (str | Target | None, "__call__", "a name, a function or a remask.Target"),
    "metric": (
        *(str | Label | Judge | Function | None, "__call__"),
        "a name, a function or a remask.Label, Judge or Function",
    ),
    "denoiser": (str | Denoiser | None, "infill", "a name, an object with infill or a remask.Denoiser"),
    "task": (str | InspectTask, "", "a name or a remask.InspectTask"),
    "search": (Search | None, "", "a remask.Search"),
    "budget": (Budget | None, "", "a remask.Budget"),
    "workers": (int | Workers | None, "", "a number or a remask.Workers"),
}


def get_prompt(prompt: str | Path | Mapping[str, str]) -> str:
    """Return the text of a prompt that is given as text, as the Path of its file, or by component.

    Raises ConfigError where the text is the name of a file.
    """
    if isinstance(prompt, Path):
        return read_prompt(prompt)
    if isinstance(prompt, Mapping):
        return join_components(prompt)
    if not isinstance(prompt, str):
        raise ConfigError(f"a prompt is text, a Path or a dict of texts, not {type(prompt).__name__}")
    if len(prompt) < 200 and "\n" not in prompt and Path(prompt).is_file():
        raise ConfigError(f"the prompt {prompt!r} is the name of a file; give Path({prompt!r}) to read it")
    return prompt


def settle_arguments(
    prompt: str | Path | Mapping[str, str],
    *,
    data: Data | Dataset | None,
    target: str | Respond | Target | None,
    metric: str | Metric | Label | Judge | Function | None,
    denoiser: str | DenoiserModel | Denoiser | None = "builtin",
    task: str | InspectTask = "",
    max_calls: int | None = None,
    budget: Budget | None = None,
    search: Search | None = None,
    objectives: Sequence[str | Objective] = (),
    workers: int | Workers | None = None,
    more: Mapping[str, Any],
) -> tuple[dict[str, Any], Given]:
    """Convert the arguments to the nested values of `remask.toml`, and the objects among them.

    `more` are further keys, which override the others. Raises ConfigError.
    """
    _require_types(prompt=prompt, target=target, metric=metric, denoiser=denoiser)
    _require_types(task=task, search=search, budget=budget, workers=workers)
    data = data if isinstance(data, Dataset) or data is None else Dataset(data)
    values: dict[str, Any] = {
        "prompt": get_prompt(prompt),
        "data": _read_section(data),
        "task": _read_section(task, "name") if task else {},
        "search": _read_section(search),
        "denoiser": _read_section(denoiser, "model", "object"),
        "budget": _read_limits(max_calls, budget),
        "run": read_workers(workers),
    }
    measured = [one if isinstance(one, Objective) else Objective(one) for one in _list_objectives(objectives)]
    if measured:
        values["objectives"] = [one.model_dump(exclude_unset=True) for one in measured]
    if target is not None:
        values["target"] = _read_section(target, "model", "function")
    if metric is not None:
        values["metric"] = _read_metric(metric)
    given = Given(
        respond=_get_object(target), metric=_get_object(metric), denoiser=_get_object(denoiser),
        rows=None if data is None else data._rows,
        objectives={one.title: one._function for one in measured if one._function is not None},
    )  # fmt: skip
    make_absolute(values, Path.cwd())
    return load_tools(merged(values, more)), given


def settle_rows(values: dict[str, Any], given: Given) -> Config:
    """Make the configuration of a run on rows. Without rows, the target is asked for messages."""
    data, task = values["data"], values["task"]
    named = given.rows is not None or any(data.get(key) for key in PLACES)
    if named and task.get("name"):
        raise ConfigError("both rows (data) and a task of Inspect are given; keep one of them")
    if not named and not task.get("name"):
        data.setdefault("queries", QUERIES)
    return make_config(values, "arguments")


def read_workers(workers: int | Workers | None) -> dict[str, Any]:
    """Return the keys of [run]. Raises ConfigError for a number that cannot be."""
    if isinstance(workers, int):
        workers = Workers(workers=workers)
    return _read_section(workers)


def name_object(kind: str, value: Any) -> str:
    """Return the name of a model or metric in the settings; for an object, kind and Python name."""
    if isinstance(value, str):
        return value
    return f"{kind}:{getattr(value, '__qualname__', type(value).__qualname__)}"


def _require_types(**arguments: Any) -> None:
    """Raise ConfigError for an argument of a wrong type."""
    for name, value in arguments.items():
        types, able, words = _ALLOWED[name]
        own = able and hasattr(value, able) and not isinstance(value, type)
        if not isinstance(value, types) and not own:
            raise ConfigError(f"{name} must be {words}, not {type(value).__name__}")


def _list_objectives(objectives: Any) -> Iterable[str | Objective]:
    """Return the objectives. Raises ConfigError where they are no list of names or Objectives."""
    fine = isinstance(objectives, list | tuple)
    if not fine or not all(isinstance(one, str | Objective) for one in objectives):
        raise ConfigError('objectives must be a list of names or remask.Objective, such as ["latency"]')
    return objectives  # type: ignore[no-any-return]


def _locate(data: Any) -> tuple[dict[str, str], Any]:
    """Return files as keys of [data], or rows in memory, which can be read more than once."""
    if data is None:
        return {}, None
    if isinstance(data, Mapping) and not data:
        raise ConfigError("data is an empty dict; give it the keys train, validation and test")
    if isinstance(data, str | os.PathLike):
        return {"path": str(Path(data).resolve())}, None
    if not isinstance(data, Mapping):
        return {}, _hold_rows(data)
    if all(isinstance(place, str | os.PathLike) for place in data.values()) and not (
        data.keys() - set(PLACES)
    ):
        return {split: str(Path(place).resolve()) for split, place in data.items() if place}, None
    return {}, {str(split): _hold_rows(place) for split, place in data.items()}


def _hold_rows(rows: Any) -> Any:
    """Return a path or rows that can be read more than once. Raises ConfigError."""
    if isinstance(rows, str | os.PathLike):
        return Path(rows).resolve()
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # a DataFrame of pandas or polars
        return rows
    try:
        return tuple(rows)
    except TypeError:
        raise ConfigError(
            f"data of type {type(rows).__name__} cannot be read; give a path, mappings, pairs, a "
            "DataFrame, or a dict with the keys train, validation and test"
        ) from None


def _read_section(section: Any, key: str = "", kind: str = "") -> dict[str, Any]:
    """Return the keys that were set in a section. A name or an object is the value of `key`."""
    if section is None:
        return {}
    if isinstance(section, sections.Section):
        return section.model_dump(exclude_unset=True)
    return {key: name_object(kind, section)}


def _get_object(value: Any) -> Any:
    """Return an argument that is an object of the user; None for a name or a section."""
    if isinstance(value, Function):
        return value._function
    return None if value is None or isinstance(value, str | sections.Section) else value


def _read_metric(metric: str | Metric | Label | Judge | Function) -> dict[str, Any]:
    """Return the keys of [metric]."""
    if isinstance(metric, Function):
        name = name_object("function", metric._function)
        return {"name": name, **metric.model_dump(exclude_unset=True)}
    if isinstance(metric, Label):
        return {"name": "label", **metric.model_dump(exclude_unset=True)}
    if not isinstance(metric, Judge):
        return {"name": name_object("function", metric)}
    judge = metric.model_dump(exclude_unset=True)
    own: dict[str, Any] = {k: judge.pop(k) for k in ("rubric", "repeats", "scale") if k in judge}
    return {"name": "judge", "judge": judge, **own}


def _read_limits(max_calls: int | None, budget: Budget | None) -> dict[str, Any]:
    """Return the keys of [budget]. Raises ConfigError for a wrong limit, or for both arguments."""
    if budget is not None and max_calls is not None:
        raise ConfigError("give max_calls, or budget=remask.Budget(calls=…), not both")
    if budget is not None:
        return _read_section(budget)
    if isinstance(max_calls, int) and max_calls < 1:
        raise ConfigError(f"max_calls is {max_calls}, but must be at least 1")
    return {"calls": DEFAULT_MAX_CALLS if max_calls is None else max_calls}
