"""The arguments of the library: what `optimize`, `refine`, `evaluate` and `resume` take.

The classes are the sections of `remask.toml`, with the same keys; the first argument is usually
given by position. Everything becomes one `Config`, and the objects that no file can hold (rows,
functions, a denoiser) become `Given`.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, ValidationError

from remask import config as sections
from remask.api.build_models import Respond
from remask.api.build_task import Given
from remask.config import QUERIES, Config, make_absolute, make_config, merged, read_prompt
from remask.data.dataset import DataSource
from remask.errors import ConfigError
from remask.ports import DenoiserModel, Metric

CALLS = 2000  # of a run where neither max_calls nor a budget is given

Rows = str | os.PathLike[str] | Iterable[Any]  # a file, a DataFrame, mappings, or pairs
Data = Rows | Mapping[str, Rows]  # all rows, or those of train, validation and test


class Dataset(sections.DataConfig):
    """Where the rows are and what their columns mean: `Dataset("rows.csv", expected="topic")`.

    The rows: a path (JSONL, JSON, CSV, TSV), mappings, a DataFrame, pairs (message, right answer),
    or a dict with the keys train, validation and test. `input` is a template over the columns, such
    as "{question}"; `expected` is the column of the right answer, `split` the one that names the
    split of a row. Raises ConfigError for an unknown key or a wrong value.

    >>> import remask
    >>> remask.Dataset([("2 + 2", "4"), ("3 + 3", "6")], input="{input} =").input
    '{input} ='
    """

    _rows: Any = PrivateAttr(None)

    def __init__(self, data: Data | None = None, **settings: Any) -> None:
        named = {name: settings.pop(name) for name in PLACES if name in settings}
        if data is not None and named:
            raise ConfigError("give the rows once: either all in one place, or split by split")
        paths, rows = _locate(named or data)
        _fill(self, settings | paths)
        self._rows = rows


class Target(sections.TargetConfig):
    """The frozen model whose prompt is optimised: `Target("openai:gpt-4.1-mini", temperature=0)`.

    Names: "builtin", "openai:MODEL" (with `base_url` for any compatible server), and for tasks of
    Inspect "inspect:PROVIDER/MODEL". `timeout` is in seconds, prices are US dollars per million
    tokens. Raises ConfigError for an unknown key or a wrong value.

    >>> import remask
    >>> remask.Target("openai:my-model", base_url="http://127.0.0.1:8000/v1").concurrency
    8
    """

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        _fill(self, settings if model is None else settings | {"model": model})


class Denoiser(sections.DenoiserConfig):
    """The diffusion language model that writes the edits: `Denoiser("local:FOLDER", steps=8)`.

    Names: "builtin", "builtin:ADAPTER", "local:FOLDER", "local:HUB_ID" (with `revision`),
    "mercury" and "chat:MODEL". Raises ConfigError for an unknown key or a wrong value.

    >>> import remask
    >>> remask.Denoiser("builtin", steps=8).steps
    8
    """

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        _fill(self, settings if model is None else settings | {"model": model})


class InspectTask(sections.TaskConfig):
    """A task of Inspect in place of rows: `InspectTask("inspect_evals/tau2_airline")`.

    `args` are the task's own, `roles` its other models, such as {"user": "PROVIDER/MODEL"}. Raises
    ConfigError for an unknown key or a wrong value.

    >>> import remask
    >>> remask.InspectTask("inspect_evals/tau2_airline", args={"message_limit": 40}).name
    'inspect_evals/tau2_airline'
    """

    def __init__(self, name: str | None = None, **settings: Any) -> None:
        _fill(self, settings if name is None else settings | {"name": name})


class Label(sections.Section):
    """The metric "label": the first allowed label in the response counts.

    `answer` is how the target would say a label, `labels` are those allowed (empty: those of the
    data), `repeats` is how often each row is asked. Raises ConfigError for a wrong value.

    >>> import remask
    >>> remask.Label(answer="This is about {label}.").repeats
    1
    """

    answer: str = "{label}"
    labels: tuple[str, ...] = ()
    repeats: Annotated[int, Field(ge=1, le=100)] = 1

    def __init__(self, **settings: Any) -> None:
        _fill(self, settings)


class Judge(sections.TargetConfig):
    """The metric "judge": a model reads the answer and says how good it is, from 0 to 1.

    Beside `rubric` (what a good answer is) it takes the keys of a Target. Raises ConfigError for an
    unknown key or a wrong value.

    >>> import remask
    >>> remask.Judge("openai:my-model", "The answer is polite and at most three sentences.").repeats
    1
    """

    rubric: str
    repeats: Annotated[int, Field(ge=1, le=100)] = 1

    def __init__(self, model: str, rubric: str, **settings: Any) -> None:
        _fill(self, settings | {"model": model, "rubric": rubric})


class Search(sections.SearchConfig):
    """How candidates are written and accepted: `Search(candidates=12, demos=4)`.

    Raises ConfigError for an unknown key or a wrong value.

    >>> import remask
    >>> remask.Search(maskers=["insert"]).traces
    8
    """

    def __init__(self, **settings: Any) -> None:
        _fill(self, settings)


class Budget(sections.BudgetConfig):
    """Limits that are never passed, the sealed test included: calls, tokens, minutes, usd.

    None means no limit. Raises ConfigError for an unknown key or a wrong value.

    >>> import remask
    >>> remask.Budget(minutes=30).calls
    2000
    """

    def __init__(self, **settings: Any) -> None:
        _fill(self, settings)


PLACES = ("path", "train", "validation", "test")  # keys of [data] that name a file


def settle_arguments(
    prompt: str | Path,
    *,
    data: Data | Dataset | None,
    target: str | Respond | Target | None,
    metric: str | Metric | Label | Judge | None,
    denoiser: str | DenoiserModel | Denoiser = "builtin",
    task: str | InspectTask = "",
    max_calls: int | None = None,
    budget: Budget | None = None,
    search: Search | None = None,
    more: Mapping[str, Any],
) -> tuple[dict[str, Any], Given]:
    """The arguments as the nested values of `remask.toml`, and the objects that came with them.

    `more` are other keys, which win. Raises ConfigError.
    """
    if isinstance(prompt, Path):
        prompt = read_prompt(prompt)
    if not isinstance(prompt, str):
        raise ConfigError(f"the prompt is a text or a Path, not {type(prompt).__name__}")
    data = data if isinstance(data, Dataset) or data is None else Dataset(data)
    values: dict[str, Any] = {
        "prompt": prompt,
        "data": _values(data),
        "task": _values(task, "name") if task else {},
        "search": _values(search),
        "denoiser": _values(denoiser, "model", "object"),
        "budget": _limits(max_calls, budget),
    }
    if target is not None:
        values["target"] = _values(target, "model", "function")
    if metric is not None:
        values["metric"] = _metric(metric)
    given = Given(
        respond=_object(target), metric=_object(metric), denoiser=_object(denoiser),
        rows=None if data is None else data._rows,
    )  # fmt: skip
    make_absolute(values, Path.cwd())
    return merged(values, more), given


def settle_rows(values: dict[str, Any], given: Given) -> Config:
    """The configuration of a run on rows; without any, the target is asked for messages."""
    data, task = values["data"], values["task"]
    named = given.rows is not None or any(data.get(key) for key in PLACES)
    if named and task.get("name"):
        raise ConfigError("both rows (data) and a task of Inspect are given; keep one of them")
    if not named and not task.get("name"):
        data.setdefault("queries", QUERIES)
    return make_config(values, "arguments")


def name_of(kind: str, value: Any) -> str:
    """The name of a model or a metric in the settings; of an object what it is called."""
    if isinstance(value, str):
        return value
    return f"{kind}:{getattr(value, '__qualname__', type(value).__qualname__)}"


def rows_given(data: Data | Dataset | None) -> DataSource | None:
    """Rows that were given in memory, as `Given` holds them. Raises ConfigError."""
    if data is None:
        return None
    rows: DataSource | None = (data if isinstance(data, Dataset) else Dataset(data))._rows
    return rows


def _fill(section: sections.Section, values: Mapping[str, Any]) -> None:
    """Validate `values` into a new section; what is wrong is one sentence."""
    try:
        sections.Section.__init__(section, **values)
    except ValidationError as error:
        raise ConfigError(
            f"remask.{type(section).__name__}: {sections.problems(error, type(section))}"
        ) from None


def _locate(data: Any) -> tuple[dict[str, str], Any]:
    """Files as keys of [data], or rows in memory, which can be read more than once."""
    if data is None:
        return {}, None
    if isinstance(data, Mapping) and not data:
        raise ConfigError("data is an empty dict; give it the keys train, validation and test")
    if isinstance(data, str | os.PathLike):
        return {"path": str(Path(data).resolve())}, None
    if not isinstance(data, Mapping):
        return {}, _held(data)
    if all(isinstance(place, str | os.PathLike) for place in data.values()) and not (
        data.keys() - set(PLACES)
    ):
        return {split: str(Path(place).resolve()) for split, place in data.items() if place}, None
    return {}, {str(split): _held(place) for split, place in data.items()}


def _held(rows: Any) -> Any:
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


def _values(section: Any, key: str = "", kind: str = "") -> dict[str, Any]:
    """A section's own keys, as far as they were set; a name or an object alone is its `key`."""
    if section is None:
        return {}
    if isinstance(section, sections.Section):
        return section.model_dump(exclude_unset=True)
    return {key: name_of(kind, section)}


def _object(value: Any) -> Any:
    """An argument that is an object of the user's, and no name or section."""
    return None if value is None or isinstance(value, str | sections.Section) else value


def _metric(metric: str | Metric | Label | Judge) -> dict[str, Any]:
    if isinstance(metric, Label):
        return {"name": "label", **metric.model_dump(exclude_unset=True)}
    if not isinstance(metric, Judge):
        return {"name": name_of("function", metric)}
    judge = metric.model_dump(exclude_unset=True)
    own: dict[str, Any] = {k: judge.pop(k) for k in ("rubric", "repeats") if k in judge}
    return {"name": "judge", "judge": judge, **own}


def _limits(max_calls: int | None, budget: Budget | None) -> dict[str, Any]:
    if budget is not None and max_calls is not None:
        raise ConfigError("give max_calls, or budget=remask.Budget(calls=…), not both")
    if budget is not None:
        return _values(budget)
    return {"calls": CALLS if max_calls is None else max_calls}
