"""From settings to rooms: which target, metric, denoiser and rows a `Config` names.

Part of the composition root, with run.py. Imports heavy rooms only when they are asked for.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from remask import __version__
from remask.budget import Budget, Price
from remask.config import (
    Config,
    DataConfig,
    DlmConfig,
    EndpointConfig,
    RoleConfig,
    TargetConfig,
)
from remask.demos import block_tokens
from remask.denoisers import asks_api
from remask.errors import ConfigError
from remask.identity import content_id
from remask.inspecting import inspect_dataset
from remask.placeholders import fill
from remask.ports import Chooser, Denoiser, Metric, Target
from remask.prompt import Prompt
from remask.queries import calls_for
from remask.search import FEWEST_VALIDATED, Plan, make_plan
from remask.task.dataset import SPLITS, Columns, Dataset, load, require_splits
from remask.task.labelled import LabelledTask
from remask.task.metrics import METRICS, Grader, Judge, judge
from remask.task.promptfoo import ASSERT, METRIC, RUBRIC, Assertions, is_config, read_tests, values
from remask.trace import Split

ANSWER_TOKENS = 64  # of the embedded target where max_tokens is none
ANSWER_ROOM = 128  # tokens of the embedded target's window for roles and the answer
ASKED_PER_CANDIDATE = 2  # calls of such a denoiser: a second hole, a second try, a second draw
Respond = Callable[[list[dict[str, str]]], str]  # a user's model: messages -> text
Metered = Callable[[Target, int | None], Target]  # … and the most tokens of one answer
Data = str | os.PathLike[str] | Iterable[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the user brings as code rather than as settings."""

    respond: Respond | None = None
    metric: Metric | None = None
    denoiser: Denoiser | None = None
    rows: Iterable[Mapping[str, Any]] | None = None


def make_target(config: TargetConfig, respond: Respond | None = None) -> Target:
    """The target, not yet metered. Raises ConfigError and BackendError."""
    kind, _, name = config.model.partition(":")
    if kind == "embedded":
        from remask.backbone.weights import load_base
        from remask.target.embedded import EmbeddedTarget

        return EmbeddedTarget(load_base(), max_tokens=config.max_tokens or ANSWER_TOKENS)
    if kind == "openai" and name:
        from remask.target.openai import OpenAITarget

        return OpenAITarget(
            name,
            base_url=config.base_url or None,
            key_env=config.api_key_env,
            temperature=config.temperature,
            max_tokens=config.max_tokens,
            **config.reach,
        )
    if kind == "function":
        if respond is None:
            raise ConfigError(
                f"the target {config.model} is a Python function; go on from Python: "
                "remask.resume(run_dir, target=that_function)"
            )
        from remask.target.function import FunctionTarget

        return FunctionTarget(respond)
    if kind == "inspect":
        raise ConfigError(
            f"the target {config.model} runs tasks of Inspect: remask optimize --task"
        )
    raise ConfigError(
        f"target {config.model!r} is unknown; use embedded, openai:MODEL (with base_url for other "
        "servers), or a callable in Python"
    )


def make_dataset(config: Config, rows: Iterable[Mapping[str, Any]] | None = None) -> Dataset:
    """The rows, checked. Raises DataError and ConfigError."""
    if config.task.name:
        return inspect_dataset(config)
    data = config.data
    metric = config.metric.name
    # Who names a column wants it: only the usual name may be missing.
    optional = metric not in METRICS and data.expected == DataConfig().expected
    expected = ASSERT if metric == METRIC else data.expected or None
    columns = Columns(data.input, expected, data.split or None, optional)
    files = {s: getattr(data, s) for s in ("train", "validation", "test") if getattr(data, s)}
    if metric == METRIC and not is_config(data.path):
        raise ConfigError("the metric promptfoo needs a promptfooconfig.yaml as data; name one")
    if data.queries:
        if rows is not None or data.path or files:
            raise ConfigError(
                "data.queries asks the target for messages where there is no data; leave it out, "
                "or the data"
            )
        return queried_dataset(config, [f"{number}" for number in range(data.queries)])
    if rows is None and bool(data.path) == bool(files):
        raise ConfigError(
            "name the data either as one file (path) or as train, validation and test files"
        )
    place = read_tests(Path(data.path)) if is_config(data.path) else data.path
    found = load(rows if rows is not None else files or place, columns, data.fractions)
    if found.labels:
        return found
    note = f"the data has no right answers: the metric {metric} alone says what is better"
    return replace(found, warnings=(*found.warnings, note))


def queried_dataset(config: Config, queries: Sequence[str]) -> Dataset:
    """Rows of messages that the target wrote (or, before it has, of as many placeholders)."""
    found = load([{"input": query} for query in queries], Columns(), config.data.fractions)
    wanted, metric = config.data.queries, config.metric.name
    note = (
        f"no data was given: the {len(found.examples)} rows are messages that the target wrote "
        f"when asked for {wanted}, and the metric {metric} alone says what is better; real "
        "messages may differ"
    )
    return replace(found, warnings=(*found.warnings, note))


def make_task(config: Config, dataset: Dataset, parts: Parts, metered: Metered) -> LabelledTask:
    """The task around the target; whatever is called, a judge too, goes through `metered`."""
    metric = config.metric
    target = make_target(config.target, parts.respond)
    return LabelledTask(
        dataset.examples,
        metered(target, config.target.max_tokens),
        _metric(config, dataset, parts, metered),
        labels=(metric.labels or dataset.labels) if metric.name == "label" else (),
        answer=metric.answer,
        repeats=metric.repeats,
        role=config.data.role,
    )


def make_budget(config: Config) -> tuple[Budget, Price | None]:
    """The limits, and the target's price. Raises ConfigError for dollars without prices."""
    limits = config.budget
    paid: dict[str, EndpointConfig | RoleConfig] = {"target": config.target}
    paid |= {f"task.roles.{role}": given for role, given in config.roles().items()}
    if asks_api(config.dlm):
        paid["dlm"] = config.dlm
    for name, endpoint in paid.items():
        if limits.usd is not None and make_price(endpoint) is None:
            raise ConfigError(
                f"budget.usd needs {name}.input_price and {name}.output_price (US dollars per "
                "million tokens): without a price no spend in dollars can be known"
            )
    budget = Budget(limits.calls, limits.tokens, limits.minutes, limits.usd)
    return budget, make_price(config.target)


def make_price(config: EndpointConfig | RoleConfig) -> Price | None:
    """None where one of the two prices is not given."""
    if config.input_price is None or config.output_price is None:
        return None
    return Price(config.input_price, config.output_price)


def data_id(dataset: Dataset) -> str:
    """Changes when any row or its split changes."""
    return content_id("data", sorted([e.id, e.split] for e in dataset.examples))


def endpoint(config: TargetConfig | DlmConfig) -> str:
    """A model and its place in words, for plans and reports."""
    host = urlsplit(config.base_url).netloc if config.base_url else ""
    return f"{config.model} at {host}" if host else config.model


@dataclass(frozen=True, slots=True)
class Job:
    """A configuration with everything that could be checked before the first target call."""

    config: Config
    parts: Parts
    start: Prompt
    dataset: Dataset
    record: dict[str, Any]  # what identifies the run: configuration, data, version

    def rows(self, split: str) -> int:
        return sum(1 for e in self.dataset.examples if e.split == split)

    @property
    def basis(self) -> str:
        """What the run starts from: labels, inputs alone, or the prompt alone."""
        if self.config.data.queries:
            return "prompt"
        return "labels" if self.dataset.labels else "inputs"

    @property
    def asked_calls(self) -> int:
        """Calls for messages that the target writes, at most."""
        return calls_for(self.config.data.queries) if self.config.data.queries else 0

    @property
    def test_calls(self) -> int:
        """What the sealed test costs at most; set aside before the search may spend anything.
        Of a task of Inspect this is what it is expected to cost, until some samples have run."""
        return 2 * self.rows("test") * self.calls_per_row

    @property
    def retries(self) -> bool:
        """Whether a call may take more than one attempt."""
        remote = self.config.target.model.startswith(("openai:", "inspect:"))
        return remote and self.config.target.retries > 0

    @property
    def calls_per_row(self) -> int:
        """Calls to score one row: repeats, and a judge reads every response; of a sample of
        Inspect an estimate."""
        if self.config.task.name:
            return self.config.metric.repeats * self.config.task.calls_per_sample
        metric = self.config.metric
        judged = metric.name == "judge" or (metric.name == METRIC and metric.judge is not None)
        return metric.repeats * (2 if judged else 1)

    @property
    def plan(self) -> Plan:
        calls = self.config.budget.calls
        set_aside = self.test_calls + self.asked_calls
        left = None if calls is None else (calls - set_aside) // self.calls_per_row
        plan = self._plan(left)
        if left is None or not asks_api(self.config.dlm):
            return plan
        # What the denoiser asks comes from the same calls.
        rows = plan.round_calls(self.rows("validation"))
        share = rows / (rows + self.asked_per_round(plan) / self.calls_per_row)
        return self._plan(int(left * share))

    def _plan(self, rows: int | None) -> Plan:
        """A plan for so many rows to score."""
        search = self.config.search
        plan = make_plan(rows, self.rows("train"), self.rows("validation"), search.cautious)
        return replace(plan, candidates=search.candidates or plan.candidates)

    def asked_per_round(self, plan: Plan) -> int:
        """Calls of a round that go to the denoiser where it is an API; an estimate."""
        return ASKED_PER_CANDIDATE * plan.candidates if asks_api(self.config.dlm) else 0


def prepare(config: Config, parts: Parts, needed: Sequence[Split] = SPLITS) -> Job:
    """Check what can be checked without a model or a call; ConfigError and DataError.

    `needed`: the splits that must have rows; with all of them the budget must allow a search.
    """
    start = Prompt.parse(config.prompt)
    if not start.editable:
        raise ConfigError(
            "the prompt has no editable text: all of it is variables, code, links or [[keep]] "
            "regions; leave some plain words outside"
        )
    _check_source(config, start)
    dataset = make_dataset(config, parts.rows)
    require_splits(dataset.examples, needed)
    make_budget(config)
    record = {
        **config.model_dump(mode="json"),
        "data_id": data_id(dataset),
        "version": __version__,
    }
    job = Job(config, parts, start, dataset, record)
    calls = config.budget.calls
    validated = min(job.rows("validation"), FEWEST_VALIDATED)
    least = job.asked_calls + job.test_calls + job.calls_per_row * validated
    if needed == SPLITS and calls is not None and calls <= least:
        raise ConfigError(
            f"budget.calls = {calls} leaves nothing to search with: the sealed test takes "
            f"{job.test_calls} calls and what comes before the search {least - job.test_calls}; "
            "raise the budget or use fewer test rows"
        )
    return job


def _check_source(config: Config, start: Prompt) -> None:
    """Raise ConfigError where the target shall write the rows and they could not be used."""
    if not config.data.queries:
        return
    if config.metric.name in METRICS:
        raise ConfigError(
            f"the metric {config.metric.name} needs right answers and no data is given; give "
            "--data FILE, or name a judge: --judge openai:MODEL --rubric 'what a good answer is'"
        )
    row = {"input": ""}  # what a row would fill; <tags> are filled by none
    columns = [v for v in start.variables if not v.startswith("<") and fill(v, row)]
    if columns:
        raise ConfigError(
            f"the prompt has the variable {columns[0]}, which only rows of data can fill; give "
            "--data FILE"
        )


def _metric(
    settings: Config, dataset: Dataset, parts: Parts, metered: Metered
) -> str | Metric | Grader:
    config = settings.metric
    if parts.metric is not None:
        return parts.metric
    if config.name == "judge":
        if config.judge is None or not config.rubric:
            raise ConfigError(
                "the metric judge needs a model and a rubric: --judge openai:MODEL --rubric TEXT, "
                "or metric.judge.model and metric.rubric"
            )
        judging = metered(make_target(config.judge), config.judge.max_tokens)
        return judge(judging, config.rubric)
    if config.name == METRIC:
        if config.judge is not None:
            judging = metered(make_target(config.judge), config.judge.max_tokens)
            return Assertions(Judge(judging, rubric=""))  # each row has its own
        if any(values(example, RUBRIC) for example in dataset.examples):
            raise ConfigError(f"a test has the assertion {RUBRIC}; name a judge: --judge MODEL")
        return Assertions()
    if config.name not in METRICS:
        known = ", ".join(sorted(METRICS))
        raise ConfigError(f"metric {config.name!r} is unknown; known: {known}, judge, promptfoo")
    return config.name


def check_choice(config: Config, target: Target, labels: Sequence[str]) -> str:
    """How labels are read from this target, in words."""
    if config.metric.name != "label":
        return f"metric {config.metric.name} on the response"
    if isinstance(target, Chooser):
        return f"forced choice among {', '.join(labels)} as {config.metric.answer!r}"
    return f"the first of {', '.join(labels)} found in the response"


def check_fit(job: Job) -> None:
    """Raise ConfigError where the prompt, the examples that it may show and the longest message are
    too long for the embedded target: its calls would all fail, one by one."""
    if job.config.target.model != "embedded":
        return
    from remask.backbone.weights import load_base

    base = load_base()
    prompt = len(base.encode(job.start.text))
    longest = max(len(base.encode(e.input)) for e in job.dataset.examples)
    block = block_tokens(job.config.search.demos)
    if prompt + longest + block + ANSWER_ROOM > base.window:
        shown = f", examples may have {block} (--demos)" if block else ""
        raise ConfigError(
            f"the prompt has {prompt} tokens and the longest message {longest}{shown}; with "
            f"{ANSWER_ROOM} for the answer that is more than the {base.window} that the embedded "
            "target reads; shorten them, or use another target"
        )
