"""From settings to a task: the rows, the metric, and for `refine` the conversations.

Whatever is called, a judge too, goes through a meter that the caller gives.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from remask.api.build_models import Respond, make_target
from remask.config import Config, DataConfig, RefineConfig
from remask.data.conversations import Conversations, split_conversations
from remask.data.dataset import Columns, DataSource, LoadedDataset, load
from remask.data.prompt_traces import read_traces
from remask.errors import ConfigError
from remask.events import ConversationCounts, TracesRead
from remask.ports import Choose, DenoiserModel, Metric, TargetModel
from remask.prompt import Prompt
from remask.propose.demonstrations import count_block_tokens
from remask.propose.failure_modes import group_failures
from remask.propose.select_traces import MAX_CLASSES
from remask.tasks.labelled import LabelledTask
from remask.tasks.metrics import METRICS, Grader, JudgeMetric, make_judge
from remask.tasks.promptfoo import (
    ASSERT,
    METRIC,
    RUBRIC,
    Assertions,
    find_values,
    is_config,
    read_tests,
)
from remask.types import Example

if TYPE_CHECKING:
    from remask.tasks.inspect.task import Suite

ANSWER_ROOM = 128  # tokens of the built-in target's window for roles and the answer
MIN_TEST_ROWS = 12  # below, the verdict can hardly be anything but "no evidence"
Metered = Callable[[TargetModel, int | None], TargetModel]  # … and the most tokens of one answer


@dataclass(frozen=True, slots=True)
class Given:
    """What the user brings as objects rather than as settings."""

    respond: Respond | None = None
    metric: Metric | None = None
    denoiser: DenoiserModel | None = None
    rows: DataSource | None = None  # in memory: all, or by split
    suite: "Suite | None" = None  # the task of Inspect, where it was loaded already


def make_dataset(config: Config, rows: DataSource | None = None) -> LoadedDataset:
    """The rows, checked. Raises DataError and ConfigError."""
    data = config.data
    metric = config.metric.name
    # Who names a column wants it: only the usual name may be missing.
    optional = metric not in METRICS and data.expected == DataConfig().expected
    expected = ASSERT if metric == METRIC else data.expected or None
    columns = Columns(data.input, expected, data.split or None, optional)
    files = {s: getattr(data, s) for s in ("train", "validation", "test") if getattr(data, s)}
    if data.queries:
        if rows is not None or data.path or files:
            raise ConfigError(
                "data.queries asks the target for messages where there is no data; leave it out, "
                "or the data"
            )
        return make_queried_dataset(config, [f"{number}" for number in range(data.queries)])
    if rows is None and bool(data.path) == bool(files):
        raise ConfigError(
            "name the data either as one file (path) or as train, validation and test files"
        )
    if metric == METRIC and not is_config(data.path):
        raise ConfigError("the metric promptfoo needs a promptfooconfig.yaml as data; name one")
    place = read_tests(Path(data.path)) if is_config(data.path) else data.path
    found = load(rows if rows is not None else files or place, columns, data.fractions)
    if found.labels:
        return found
    note = f"the data has no right answers: the metric {metric} alone says what is better"
    return replace(found, warnings=(*found.warnings, note))


def make_queried_dataset(config: Config, queries: Sequence[str]) -> LoadedDataset:
    """Rows of messages that the target wrote (or, before it has, of as many placeholders)."""
    found = load([{"input": query} for query in queries], Columns(), config.data.fractions)
    wanted, metric = config.data.queries, config.metric.name
    note = (
        f"no data was given: the {len(found.examples)} rows are messages that the target wrote "
        f"when asked for {wanted}, and the metric {metric} alone says what is better; real "
        "messages may differ"
    )
    return replace(found, warnings=(*found.warnings, note))


def make_metric(
    settings: Config, dataset: LoadedDataset, given: Given, metered: Metered
) -> str | Metric | Grader:
    """What scores an answer: the name of a metric, or the metric itself. Raises ConfigError."""
    config = settings.metric
    if given.metric is not None:
        return given.metric
    if config.name == "judge":
        if config.judge is None or not config.rubric:
            raise ConfigError(
                "the metric judge needs a model and a rubric: --judge openai:MODEL --rubric TEXT, "
                "or metric.judge.model and metric.rubric"
            )
        judging = metered(make_target(config.judge), config.judge.max_tokens)
        return make_judge(judging, config.rubric)
    if config.name == METRIC:
        if config.judge is not None:
            judging = metered(make_target(config.judge), config.judge.max_tokens)
            return Assertions(JudgeMetric(judging, rubric=""))  # each row has its own
        if any(find_values(example, RUBRIC) for example in dataset.examples):
            raise ConfigError(f"a test has the assertion {RUBRIC}; name a judge: --judge MODEL")
        return Assertions()
    if config.name not in METRICS:
        known = ", ".join(sorted(METRICS))
        raise ConfigError(f"metric {config.name!r} is unknown; known: {known}, judge, promptfoo")
    return config.name


def make_task(
    config: Config, dataset: LoadedDataset, target: TargetModel, metric: str | Metric | Grader
) -> LabelledTask:
    """The rows with target and metric. Raises ConfigError where they do not fit together."""
    settings = config.metric
    return LabelledTask(
        dataset.examples,
        target,
        metric,
        labels=(settings.labels or dataset.labels) if settings.name == "label" else (),
        answer=settings.answer,
        repeats=settings.repeats,
        role=config.data.role,
    )


def describe_metric(config: Config, target: TargetModel, labels: Sequence[str]) -> str:
    """How answers of this target are scored, in words."""
    if config.metric.name != "label":
        return f"metric {config.metric.name} on the response"
    if target.chooses:
        return f"forced choice among {', '.join(labels)} as {config.metric.answer!r}"
    return f"the first of {', '.join(labels)} found in the response"


def check_context_length(config: Config, start: Prompt, dataset: LoadedDataset) -> None:
    """Raise ConfigError where the prompt, the examples that it may show and the longest message are
    too long for the built-in target: its calls would all fail, one by one."""
    if config.target.model != "builtin":
        return
    from remask.models.backbone.builtin_weights import load_base

    base = load_base()
    prompt = len(base.encode(start.text))
    longest = max((len(base.encode(e.input)) for e in dataset.examples), default=0)
    block = count_block_tokens(config.search.demos)
    if prompt + longest + block + ANSWER_ROOM > base.context_length:
        shown = f", examples may have {block} (--demos)" if block else ""
        raise ConfigError(
            f"the prompt has {prompt} tokens and the longest message {longest}{shown}; with "
            f"{ANSWER_ROOM} for the answer that is more than the {base.context_length} that the "
            "built-in target reads; shorten them, or use another target"
        )


# --- conversations in place of rows


@dataclass(frozen=True, slots=True)
class TraceData:
    """Trace files as a job uses them."""

    config: Config  # with the metric that the right answers ask for
    conversations: Conversations
    dataset: LoadedDataset
    choose: Choose  # which traces are read at a time
    event: TracesRead


def read_conversations(config: Config, refine: RefineConfig, given: Given) -> TraceData:
    """Read, redact and split the trace files. Raises ConfigError and DataError."""
    found = read_traces(
        Prompt.parse(config.prompt).text,
        refine.traces,
        refine.columns,
        refine.scales,
        refine.redact,
    )
    judged = config.metric.judge is not None or given.metric is not None
    parts = split_conversations(found.traces, found.messages if refine.verify else None, judged)
    notes = list(found.notes)
    if refine.verify:
        config = _with_metric(config, parts.rows)
        parts, more = _affordable(config, parts)
        notes += more
    labels = tuple(sorted({e.expected for e in parts.rows if e.expected is not None}))
    counts = ConversationCounts(
        records=found.records,
        rejected=found.rejected,
        elsewhere=found.elsewhere,
        read=len(parts.read),
        held=len(parts.held_out),
        sealed=len(parts.sealed),
        redacted=refine.redact,
        secrets=found.secrets,
    )
    event = TracesRead(counts, tuple(notes), config.metric.name if refine.verify else "")
    dataset = LoadedDataset(parts.rows, (), labels)
    return TraceData(config, parts, dataset, group_failures(found.traces).select, event)


def _with_metric(config: Config, rows: Sequence[Example]) -> Config:
    """The settings with a metric: the user's, or the one that the right answers ask for."""
    metric = config.metric
    if "name" in metric.model_fields_set:
        return config
    answers = {row.expected for row in rows}
    few = 2 <= len(answers) <= min(MAX_CLASSES, len(rows) // 2)
    name = "judge" if metric.judge is not None else "label" if few else "f1"
    return config.model_copy(update={"metric": metric.model_copy(update={"name": name})})


def _affordable(config: Config, parts: Conversations) -> tuple[Conversations, list[str]]:
    """The conversations with as many sealed rows as the budget pays for, and what to say of it."""
    calls, notes = config.budget.calls, []
    test = [row for row in parts.rows if row.split == "test"]
    each = 2 * calls_per_row(config)
    if calls is not None and each * len(test) > calls:
        kept = test[: calls // each]
        if not kept:
            raise ConfigError(f"budget.calls = {calls} does not pay for one test row; raise it")
        notes.append(f"budget.calls = {calls} pays for {len(kept)} of {len(test)} sealed rows")
        rest = tuple(row for row in parts.rows if row.split != "test" or row in kept)
        parts, test = replace(parts, rows=rest), kept
    if len(test) < MIN_TEST_ROWS:
        notes.append(f"only {len(test)} sealed rows: too few for a verdict")
    return parts, notes


def calls_per_row(config: Config) -> int:
    """Calls to score one row: repeats, and a judge reads every response; of a sample of Inspect an
    estimate."""
    if config.task.name:
        return config.metric.repeats * config.task.calls_per_sample
    metric = config.metric
    judged = metric.name == "judge" or (metric.name == METRIC and metric.judge is not None)
    return metric.repeats * (2 if judged else 1)
