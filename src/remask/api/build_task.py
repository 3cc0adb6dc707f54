"""Build the task from settings: the rows, the metric, and for `refine` the conversations.

All calls of targets and judges go through a meter that the caller passes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from remask.api.build_models import DEFAULT_ANSWER_TOKENS, Respond, load_target_backbone, make_target
from remask.config import Config, DataConfig, RefineConfig
from remask.data.conversations import Conversations, split_conversations
from remask.data.dataset import Columns, DataSource, LoadedDataset, assign_guards, load
from remask.data.placeholders import fill
from remask.data.prompt_traces import read_traces
from remask.errors import ConfigError
from remask.events import ConversationCounts, TracesRead
from remask.models.chat_components import find_unknown_tools
from remask.models.function import is_function_file, load_function
from remask.models.limiter import Limiters
from remask.ports import Choose, DenoiserModel, Executor, Metric, TargetModel
from remask.prompt import Prompt
from remask.propose.demonstrations import count_block_tokens
from remask.propose.failure_modes import group_failures
from remask.propose.select_traces import MAX_CLASSES
from remask.tasks.labelled import LabelledTask, find_role
from remask.tasks.measures import Measures
from remask.tasks.metrics import METRICS, TOOL_CALL, Grader, JudgeMetric, make_judge
from remask.tasks.promptfoo import ASSERT, METRIC, RUBRIC, Assertions, find_values, is_config, read_tests
from remask.tasks.tool_calls import normalise_right_calls, parse_right_calls
from remask.types import TOOL, Example

if TYPE_CHECKING:
    from remask.tasks.inspect.task import Suite

MARK_TOKENS = 32  # of the window of a target on this machine, for the marks of a chat
CHOICE_TOKENS = 96  # of that window, for the longest label
MIN_TEST_ROWS = 12  # below which the verdict is nearly always "no evidence"
FEW_TEST_ROWS = 20  # below which the sealed test shows only very large gains
MeterTarget = Callable[[TargetModel, int | None], TargetModel]  # (target, max tokens of an answer)


@dataclass(frozen=True, slots=True)
class Given:
    """The objects that a user passes from Python, which settings cannot contain."""

    respond: Respond | None = None
    metric: Metric | None = None
    denoiser: DenoiserModel | None = None
    rows: DataSource | None = None  # in memory: all rows, or by split
    suite: "Suite | None" = None  # an Inspect task that was loaded already
    objectives: Mapping[str, Metric] = field(default_factory=dict)  # functions, by the objective's name


def make_dataset(config: Config, rows: DataSource | None = None) -> LoadedDataset:
    """Load and check the rows. Raises DataError and ConfigError."""
    data = config.data
    metric = config.metric.name
    # A column that the user names must exist. Only the default name may be absent.
    optional = metric not in METRICS and data.expected == DataConfig().expected
    expected = ASSERT if metric == METRIC else data.expected or None
    parse = normalise_right_calls if metric == TOOL_CALL else None
    columns = Columns(data.input, expected, data.split or None, optional, parse)
    files = {s: getattr(data, s) for s in ("train", "validation", "test") if getattr(data, s)}
    if data.queries:
        if rows is not None or data.path or files:
            raise ConfigError(
                "data.queries asks the target for messages in place of data; leave out either "
                "data.queries or the data"
            )
        return make_queried_dataset(config, [f"{number}" for number in range(data.queries)])
    if rows is None and bool(data.path) == bool(files):
        raise ConfigError(
            "name the data either as one file (data.path) or as data.train, data.validation and data.test"
        )
    if metric == METRIC and not is_config(data.path):
        raise ConfigError("the metric promptfoo needs a promptfooconfig.yaml as data.path")
    place = read_tests(Path(data.path)) if is_config(data.path) else data.path
    source = rows if rows is not None else files or place
    guards = (data.group, config.search.max_drop)
    found = load(source, columns, data.fractions, skip_invalid=data.skip_invalid, guards=guards)
    if data.group:
        found = assign_guards(found, guards)
    notes = list(found.warnings)
    if not found.labels:
        notes.append(f"the data has no right answers, so only the metric {metric} compares prompts")
    test = sum(example.split == "test" and not example.guard for example in found.examples)
    if 0 < test < FEW_TEST_ROWS:
        # Of a difference whose standard deviation per row is 0.5.
        width = 1.96 * 0.5 / test**0.5
        notes.append(
            f"only {test} test row{'s' if test > 1 else ''}: the test can show only very large "
            "gains (its 95 % interval is "
            f"about ±{width:.2f} wide); give more rows"
        )
    return replace(found, warnings=tuple(notes))


def make_queried_dataset(config: Config, queries: Sequence[str]) -> LoadedDataset:
    """Make rows of messages that the target wrote, or of placeholders before it has done so."""
    found = load([{"input": query} for query in queries], Columns(), config.data.fractions)
    wanted, metric = config.data.queries, config.metric.name
    note = (
        f"no data was given: the {len(found.examples)} rows are messages that the target wrote (it was asked "
        f"for {wanted}), and only the metric {metric} compares prompts; messages of real users may differ"
    )
    return replace(found, warnings=(*found.warnings, note))


def make_metric(
    settings: Config,
    dataset: LoadedDataset,
    given: Given,
    meter: MeterTarget,
    limiters: Limiters | None = None,
) -> str | Metric | Grader:
    """Return the name of a built-in metric, or the metric itself. Raises ConfigError."""
    config = settings.metric
    if given.metric is not None:
        return given.metric
    if config.name == "judge":
        if config.judge is None or not config.rubric:
            raise ConfigError(
                "the metric judge needs a model and a rubric; give --judge openai:MODEL --rubric "
                "TEXT, or metric.judge.model and metric.rubric"
            )
        judging = meter(make_target(config.judge, limiters=limiters), config.judge.max_tokens)
        return make_judge(judging, config.rubric, low=config.scale[0], high=config.scale[1])
    if config.name == METRIC:
        if config.judge is not None:
            judging = meter(make_target(config.judge, limiters=limiters), config.judge.max_tokens)
            return Assertions(JudgeMetric(judging, "", *config.scale))  # each row has its own
        if any(find_values(example, RUBRIC) for example in dataset.examples):
            raise ConfigError(f"a test has the assertion {RUBRIC}; name a judge: --judge MODEL")
        return Assertions()
    if is_function_file(config.name):
        return load_function(config.name, "metric", "(example, response) -> float")  # type: ignore[no-any-return]
    if config.name not in METRICS:
        known = ", ".join(sorted(METRICS))
        raise ConfigError(
            f"metric {config.name!r} is unknown; known: {known}, judge, promptfoo, or FILE.py:FUNCTION"
        )
    return config.name


def make_task(
    config: Config,
    dataset: LoadedDataset,
    target: TargetModel,
    metric: str | Metric | Grader,
    measures: Measures | None = None,
) -> LabelledTask:
    """Make the task of rows, target and metric. Raises ConfigError where they do not fit."""
    settings = config.metric
    if settings.name == TOOL_CALL:
        _check_tools(config, dataset.examples)
    return LabelledTask(
        dataset.examples,
        target,
        metric,
        labels=(settings.labels or dataset.labels) if settings.name == "label" else (),
        answer=settings.answer,
        repeats=settings.repeats,
        role=config.data.role,
        timeout=settings.timeout,
        measures=measures,
    )


def check_components(config: Config, start: Prompt) -> None:
    """Raise ConfigError where the target cannot use a component of the prompt."""
    names = tuple(start.components)
    if not names or config.task.name:  # of a task of Inspect, `place_prompt` finds what is wrong
        return
    if config.refine is not None:
        raise ConfigError("remask refine edits one text; use remask optimize for several components")
    if config.data.role == "user":
        raise ConfigError("data.role is for a prompt of one text; name the component `user` in its place")
    kind = config.target.model.partition(":")[0]
    if _is_function(config):
        return
    own = next((n for n in names if find_role(n) == "component" and not n.startswith(TOOL)), "")
    if own:
        raise ConfigError(
            f"the component {own!r} is no message and no tool: only a function as target can use it; "
            f"name it system, user, assistant (also system/2) or {TOOL}NAME"
        )
    tools = config.target.extra.get("tools") or []
    unknown = find_unknown_tools(tools, names)
    if unknown and kind in ("openai", "inspect"):
        raise ConfigError(
            f"the component {unknown[0]!r} describes a tool or a parameter that target.extra.tools does not "
            "have; add the tool there, in the form of OpenAI, or rename the component"
        )
    if unknown:
        raise ConfigError(f"the target {config.target.model} takes no tools, as {unknown[0]!r} is one")


def check_messages(config: Config, start: Prompt, examples: Sequence[Example]) -> None:
    """Raise ConfigError where the prompt is the message of each row, and the same for all rows."""
    part = start.components.get("user")
    if part is not None and not _is_function(config):
        what = "the component 'user' is the message of each row"
        remedy = ", or name it user/1: a message before that of the row"
    elif config.data.role == "user":
        what, part, remedy = 'the prompt is the message of each row (data.role = "user")', start, ""
    else:
        return
    texts = (fill(part.text, example.row) for example in examples)
    first = next(texts, None)
    if len(examples) > 1 and all(text == first for text in texts):
        raise ConfigError(f"{what}, and names no column of the rows; write one, such as {{input}}{remedy}")


def _is_function(config: Config) -> bool:
    return config.target.model.startswith("function:") or is_function_file(config.target.model)


def _check_tools(config: Config, examples: Sequence[Example]) -> None:
    """Raise ConfigError where the target has tools, but not one that a row wants."""
    offered = [tool.get("function", tool).get("name") for tool in config.target.extra.get("tools", ())]
    for example in examples if offered else ():
        for call in parse_right_calls(example.expected or "").calls:
            if call.name not in offered:
                raise ConfigError(
                    f"{example.place}: the right call is of the tool {call.name!r}, which target.extra.tools "
                    f"does not have, only {', '.join(map(str, offered))}; add it there, or correct the row"
                )


def describe_metric(config: Config, target: TargetModel, labels: Sequence[str]) -> str:
    """Say how answers of this target are scored."""
    if config.metric.name != "label":
        asked = config.target.model.startswith(("openai:", "inspect:"))
        missing = config.metric.name == TOOL_CALL and asked and not config.target.extra.get("tools")
        note = "; warning: the target gets no tools: set target.extra.tools" if missing else ""
        return f"metric {config.metric.name} on the response{note}"
    if target.chooses:
        return f"the target chooses among {', '.join(labels)}, each put into {config.metric.answer!r}"
    return f"the label that the response names: {', '.join(labels)}"


def describe_excess(config: Config, start: Prompt, dataset: LoadedDataset, demos: int) -> str:
    """Say why prompt, demonstrations and message do not fit a target that is read on this machine.

    Returns "" where they do, or where the target is elsewhere.
    """
    # Otherwise all calls would fail one by one.
    base = load_target_backbone(config.target)
    if base is None:
        return ""
    chosen = config.metric.name == "label" and config.target.choose
    answer = CHOICE_TOKENS if chosen else config.target.max_tokens or DEFAULT_ANSWER_TOKENS
    prompt = len(base.encode(start.text))
    longest = max((len(base.encode(e.input)) for e in dataset.examples), default=0)
    block = count_block_tokens(demos)
    if prompt + longest + block + MARK_TOKENS + answer <= base.context_length:
        return ""
    shown = f", and examples up to {block} (--demos)" if block else ""
    advice = "shorten them" if chosen else "shorten them, lower target.max_tokens (--answer-tokens),"
    return (
        f"the prompt has {prompt} tokens and the longest message {longest}{shown}; with {answer} for the "
        f"answer and {MARK_TOKENS} for the marks of a chat that is more than the {base.context_length} "
        f"tokens that the target {config.target.model} reads; {advice} or use another target"
    )


# --- conversations in place of rows


@dataclass(frozen=True, slots=True)
class TraceData:
    """The conversations of `refine`, split, and what a job needs of them."""

    config: Config  # with the metric that fits the right answers
    conversations: Conversations
    dataset: LoadedDataset
    choose: Choose  # selects the traces to read
    event: TracesRead


def read_conversations(
    config: Config, refine: RefineConfig, given: Given, executor: Executor | None = None
) -> TraceData:
    """Read, redact and split the trace files, which workers parse. Raises ConfigError and DataError."""
    if not config.prompt.strip():
        raise ConfigError("refine edits a prompt, and this one is empty; write some plain words into it")
    found = read_traces(
        Prompt.parse(config.prompt).text, refine.traces, refine.columns, refine.scales, refine.redact,
        config.seed, executor,
    )  # fmt: skip
    judged = config.metric.judge is not None or given.metric is not None
    parts = split_conversations(found.traces, found.messages if refine.verify else None, judged)
    notes = list(found.notes)
    if refine.verify:
        config = _choose_metric(config, parts.rows)
        parts, more = _limit_test_rows(config, parts)
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


def _choose_metric(config: Config, rows: Sequence[Example]) -> Config:
    """Return the settings with a metric: that of the user, or the one that fits the answers."""
    metric = config.metric
    if "name" in metric.model_fields_set:
        return config
    answers = {row.expected for row in rows}
    few = 2 <= len(answers) <= min(MAX_CLASSES, len(rows) // 2)
    name = "judge" if metric.judge is not None else "label" if few else "f1"
    return config.model_copy(update={"metric": metric.model_copy(update={"name": name})})


def _limit_test_rows(config: Config, parts: Conversations) -> tuple[Conversations, list[str]]:
    """Reduce the sealed rows to those that the budget pays for. Returns notes for the user too."""
    calls, notes = config.budget.calls, []
    test = [row for row in parts.rows if row.split == "test"]
    each = 2 * count_calls_per_row(config)
    if calls is not None and each * len(test) > calls:
        kept = test[: calls // each]
        if not kept:
            raise ConfigError(f"budget.calls = {calls} is too low for one test row; raise it")
        notes.append(f"budget.calls = {calls} pays for {len(kept)} of {len(test)} sealed rows")
        rest = tuple(row for row in parts.rows if row.split != "test" or row in kept)
        parts, test = replace(parts, rows=rest), kept
    if len(test) < MIN_TEST_ROWS:
        notes.append(f"only {len(test)} sealed rows: too few for a verdict")
    return parts, notes


def count_calls_per_row(config: Config) -> int:
    """Return the calls to score one row, judge included; an estimate for Inspect tasks."""
    if config.task.name:
        return config.metric.repeats * config.task.calls_per_sample
    metric = config.metric
    judges = int(metric.name == "judge" or (metric.name == METRIC and metric.judge is not None))
    judges += sum(one.metric is not None and one.metric.name == "judge" for one in config.objectives)
    return metric.repeats * (1 + judges)
