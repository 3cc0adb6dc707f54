"""A job: the settings of a run and everything that is built from them, each thing once.

`open_job` makes a job. Each part is built on first use and closed with the job, so that a command
builds only what it needs, and `remask check` can check the parts one by one. A job writes nothing
to disk: a caller with a store assigns it to `job.ledger.open_store`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remask import __version__
from remask.api import build_task
from remask.api.awaitable import raise_if_cancelled
from remask.api.build_goals import hash_metrics, make_goals, make_measures, refuse_goals, require_guard_rows
from remask.api.build_models import asks_api, limit_spend, make_denoiser, make_price, make_target
from remask.api.build_proposer import choose_demos, make_prompt_proposer, make_proposer, refuse_demos
from remask.api.build_task import Given, TraceData
from remask.api.least_budget import require_least_budget
from remask.api.worker import make_executor
from remask.config import Config
from remask.data.dataset import SPLITS, LoadedDataset, require_splits
from remask.data.placeholders import fill
from remask.data.redact.redact import Redactor
from remask.data.synthetic import count_max_calls
from remask.errors import ConfigError
from remask.events import Event, GoalsSet, State
from remask.ids import content_id
from remask.models.function import hash_function_file, hash_source, is_function_file
from remask.models.limiter import Limiters
from remask.ports import (
    DenoiserModel,
    Executor,
    Metric,
    Proposer,
    Remote,
    Scorer,
    TargetModel,
    Task,
    watch_steps,
)
from remask.prompt import Prompt
from remask.propose.redacting import RedactingProposer
from remask.runs.budget import Price, Spend
from remask.runs.ledger import Ledger
from remask.runs.meter import Meter
from remask.runs.progress import Workload
from remask.runs.store import strip_credentials
from remask.search.plan import SearchPlan, make_plan
from remask.tasks.metrics import METRICS, Grader
from remask.types import Split

if TYPE_CHECKING:
    from remask.tasks.inspect.task import Suite

# Of a denoiser behind an API, estimated: a candidate may have a second hole or need a second try.
CALLS_PER_CANDIDATE = 2
TEST_SPARE_CALLS = 12
LOG_FOLDER = "inspect"  # in the run directory, for the logs of Inspect
OnEvent = Callable[[Event, State, Spend], None]  # (event, state after it, spend so far)
OnWork = Callable[[str, int, int, Spend], None]  # (what a step is, steps done, in all, spend so far)
OnPlan = Callable[[Workload, State, Spend], None]  # (what may have to be done, state, spend so far)


def _ignore(event: Event, state: State, spend: Spend) -> None:
    """Ignore an event: the default of Hooks.watch."""


def _ignore_step(what: str, done: int, total: int, spend: Spend) -> None:
    """Ignore a step: the default of Hooks.step."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Functions that follow and interrupt a run. They cannot change its result."""

    watch: OnEvent = _ignore  # called after each event was stored
    checkpoint: Callable[[], None] = raise_if_cancelled  # called before each chunk of calls
    step: OnWork = _ignore_step  # called after each step of long work: a call, a step of denoising
    plan: OnPlan | None = None  # called when the run is opened; None: nothing is timed for it


@contextmanager
def follow_steps(hooks: Hooks) -> Iterator[None]:
    """Pass the steps of the block to the hooks, where no store of a run counts yet."""
    with watch_steps(lambda what, done, total: hooks.step(what, done, total, Spend())):
        yield


def add_callback(hooks: Hooks | None, on_event: OnEvent | None) -> Hooks:
    """Return hooks that call `on_event` first for each event, since other hooks may end the run."""
    hooks = hooks or Hooks()
    if on_event is None:
        return hooks
    first, then = on_event, hooks.watch

    def watch(event: Event, state: State, spend: Spend) -> None:
        first(event, state, spend)
        then(event, state, spend)

    return replace(hooks, watch=watch)


@contextmanager
def open_job(
    config: Config, given: Given | None = None, hooks: Hooks | None = None, run_dir: Path | None = None
) -> Iterator["Job"]:
    """Open the job of these settings, and close the connections of its targets at the end.

    The trace files of `refine` are read at once, since the metric may depend on them. Raises
    ConfigError and DataError.
    """
    with ExitStack() as stack:
        job = Job(config, given or Given(), hooks or Hooks(), run_dir or Path(), stack)
        job.read_conversations()
        yield job


class Job:
    """The parts of a run. Each part is built on first use.

    Building a part may raise ConfigError, DataError and BackendError.
    """

    def __init__(self, config: Config, given: Given, hooks: Hooks, run_dir: Path, stack: ExitStack) -> None:
        self.config = config
        self.given = given
        self.hooks = hooks
        self.run_dir = run_dir
        self.reading: TraceData | None = None  # the trace files of `refine`; None for a run on rows
        self._stack = stack
        self._targets: list[TargetModel] = []  # all that were metered
        self.limiters = Limiters()  # of the endpoints of target, judge and denoiser

    # --- the parts, in the order in which they depend on each other

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger of all calls of this job, with their limits."""
        budget, price = limit_spend(self.config)

        def redact(text: str) -> str:  # the rows are read when the first answer comes
            return self.redactor.redact(text)

        return Ledger(None, budget, price, checkpoint=self.hooks.checkpoint, redact=redact)

    @cached_property
    def redactor(self) -> Redactor:
        """Removes secrets from what is stored and from what the denoiser reads."""
        config = self.config
        enabled = config.data.redact if config.refine is None else config.refine.redact
        # Rows that the target will write are redacted when they come.
        examples = () if config.data.queries else self.dataset.examples
        return Redactor((text for e in examples for text in (e.input, e.expected or "")), enabled)

    @cached_property
    def start(self) -> Prompt:
        """The prompt to start from. Raises ConfigError where it has no editable text."""
        start = Prompt.parse(self.config.prompt)
        if not start.editable:
            raise ConfigError(
                "the prompt has no editable text: all of it is variables, code, links or [[keep]] "
                "regions; leave some plain words outside"
            )
        _check_queries(self.config, start)
        build_task.check_components(self.config, start)
        return start

    @cached_property
    def suite(self) -> "Suite":
        """The Inspect task of the settings."""
        from remask.tasks.inspect.setup import load

        return self.given.suite or load(self.config)

    @cached_property
    def dataset(self) -> LoadedDataset:
        """The rows. Where the target will write them: placeholders until `write_rows`."""
        if self.config.task.name:
            return self.suite.dataset
        if self.reading is not None:
            return self.reading.dataset
        return build_task.make_dataset(self.config, self.given.rows)

    @cached_property
    def executor(self) -> Executor | None:
        """The workers that parse conversations and ask models on this machine; None: this process."""
        executor = make_executor(self.config)
        if executor is not None:
            self._stack.callback(executor.close)
        return executor

    @cached_property
    def target(self) -> TargetModel:
        """The model whose prompt is optimised, metered."""
        return self.meter(self.load_target(), self.config.target.max_tokens, raw=True)

    @cached_property
    def metric(self) -> str | Metric | Grader:
        """The metric. The calls of a judge are metered like those of the target."""
        return build_task.make_metric(self.config, self.dataset, self.given, self.meter, self.limiters)

    @cached_property
    def task(self) -> Task:
        """The task, which scores prompts: rows, target and metric."""
        if self.config.task.name:
            from remask.tasks.inspect.setup import make_inspect_task

            logs = Path(self.config.task.logs or self.run_dir / LOG_FOLDER)
            return make_inspect_task(self.config, self.suite, self.start, self.ledger, logs)
        config, dataset = self.config, self.dataset
        build_task.check_messages(config, self.start, dataset.examples)
        measures = make_measures(
            config, dataset, self.given, self.meter, config.metric.labels or dataset.labels, self.limiters
        )
        return build_task.make_task(config, dataset, self.target, self.metric, measures)

    @cached_property
    def goals(self) -> GoalsSet:
        """What counts beside the score. Raises ConfigError where that cannot be measured."""
        return make_goals(self.config, self.dataset)

    @cached_property
    def denoiser(self) -> DenoiserModel:
        """The diffusion language model. The calls of an API are metered."""
        config = self.config.denoiser
        denoiser = make_denoiser(config, self.given.denoiser, self.limiters, self.executor)
        if not isinstance(denoiser, Remote):
            return denoiser
        price = make_price(config)
        return denoiser.with_target(self.meter(denoiser.target, denoiser.max_output, price))

    @cached_property
    def proposer(self) -> Proposer:
        """The proposer of candidates, which allows prompts to contain the labels of the task."""
        if self.reading is not None:
            choose = self.reading.choose
            return make_proposer(self.config, self.start, self.denoiser, choose=choose)
        labels = () if self.config.data.queries else self.task.labels
        made = make_prompt_proposer(self.config, self.start, self.denoiser, labels, self.max_demos)
        return RedactingProposer(made, self.redactor.redact)

    @cached_property
    def max_demos(self) -> int:
        """How many train rows a prompt may show. Raises ConfigError as `choose_demos`."""
        demos = choose_demos(self.config, self.dataset.examples)
        asked = self.config.search.demos is not None
        excess = build_task.describe_excess(self.config, self.start, self.dataset, demos)
        return demos if asked or not excess else 0

    @cached_property
    def plan(self) -> SearchPlan:
        """The plan of the search for the calls that are not reserved for the test."""
        calls = self.config.budget.calls
        reserved = self.test_calls + self.query_calls
        left = None if calls is None else (calls - reserved) // self.calls_per_row
        plan = self._make_plan(left)
        if left is None or not asks_api(self.config.denoiser):
            return plan
        # The calls of the denoiser come from the same budget.
        rows = plan.count_round_calls(self.rows("validation"))
        share = rows / (rows + self.denoiser_calls_per_round(plan) / self.calls_per_row)
        return self._make_plan(int(left * share))

    @property
    def record(self) -> dict[str, Any]:
        """The configuration, the id of the data and the version, which identify the run."""
        parts: dict[str, Any] = {"data_id": self._data_id, "version": __version__}
        if self.given.metric is not None:
            parts["metric_code"] = hash_source(self.given.metric)
        elif is_function_file(self.config.metric.name):
            parts["metric_code"] = hash_function_file(self.config.metric.name)
        if codes := hash_metrics(self.config, self.given):
            parts["objective_code"] = codes
        return {**strip_credentials(self.config.model_dump(mode="json")), **parts}

    # --- numbers that follow from the parts

    def rows(self, split: str) -> int:
        """Return the number of rows of a split, without those of guard sets."""
        return sum(1 for e in self.dataset.examples if e.split == split and not e.guard)

    def guard_rows(self, split: str) -> int:
        """Return the number of rows of guard sets in a split."""
        return sum(1 for e in self.dataset.examples if e.split == split and e.guard)

    @property
    def basis(self) -> str:
        """The basis of the run: "labels", "inputs" (no right answers) or "prompt" (no rows)."""
        if self.config.data.queries:
            return "prompt"
        return "labels" if self.dataset.labels else "inputs"

    @property
    def query_calls(self) -> int:
        """The maximum number of calls to let the target write messages."""
        return count_max_calls(self.config.data.queries) if self.config.data.queries else 0

    @property
    def has_test(self) -> bool:
        """Whether the run ends with a sealed test."""
        return self.config.refine is None or self.config.refine.verify

    @property
    def test_calls(self) -> int:
        """The maximum number of calls of the sealed test, which are reserved before the search.

        For an Inspect task it is an estimate, until some samples have run.
        """
        rows = self.rows("test") + self.guard_rows("test")
        return 2 * rows * self.calls_per_row if self.has_test else 0

    def add_retries(self, calls: int) -> int:
        """Return the calls to set aside for so many calls.

        A target that retries gets some more, also for calls in flight that are cut off. How many
        there are does not matter, so the number of calls in flight does not change a result.
        """
        return calls + (calls // 50 + TEST_SPARE_CALLS if self.retries else 0)

    @property
    def retries(self) -> bool:
        """Whether a call of the target may take more than one attempt."""
        remote = self.config.target.model.startswith(("openai:", "inspect:"))
        return remote and self.config.target.retries > 0

    @property
    def calls_per_row(self) -> int:
        """The calls to score one row; an estimate for an Inspect task."""
        return build_task.count_calls_per_row(self.config)

    @property
    def notes(self) -> list[str]:
        """Sentences of the targets for the user, each once."""
        return list(dict.fromkeys(note for target in self._targets for note in target.notes))

    def denoiser_calls_per_round(self, plan: SearchPlan) -> int:
        """Return the estimated calls of a round to a denoiser that is an API; else 0."""
        return CALLS_PER_CANDIDATE * plan.candidates if asks_api(self.config.denoiser) else 0

    # --- actions

    def read_conversations(self) -> None:
        """Read the trace files of `refine`, if there are any. Raises ConfigError and DataError."""
        if self.config.refine is not None:
            self.reading = build_task.read_conversations(
                self.config, self.config.refine, self.given, self.executor
            )
            self.config = self.reading.config

    def load_target(self) -> TargetModel:
        """Load the target without a meter, to time it outside the budget."""
        return make_target(self.config.target, self.given.respond, self.limiters, self.executor)

    def meter(
        self, target: TargetModel, max_output: int | None, price: Price | None = None, raw: bool = False
    ) -> TargetModel:
        """Return the target with metered calls, see Meter; it is closed with the job."""
        self._stack.callback(target.close)
        self._targets.append(target)
        return Meter(target, self.ledger, max_output, price, raw)

    def require_rows(self, splits: Sequence[Split] = SPLITS) -> None:
        """Raise where prompt, rows or budget are wrong. Calls and loads nothing."""
        _ = self.start
        require_splits(self.dataset.examples, splits)
        _ = self.ledger

    def require_run(self) -> None:
        """Raise where the settings are wrong for a run. Calls and loads nothing."""
        if self.reading is None:
            self.require_rows()
            require_guard_rows(self.goals)
            return
        _ = self.start, self.ledger
        refuse_demos(self.config, "remask refine")
        refuse_goals(self.config)

    def require_all(self) -> None:
        """Raise where anything is wrong with the job that can be found without a call."""
        self._say("reading the data", 0)
        self.require_run()
        require_least_budget(self)
        if self.has_test:
            self._say("loading the target", 1)
            self.require_target()
        self._say("loading the denoiser", 2)
        if self.reading is not None:
            self.require_scorer()
        _ = self.proposer
        self._say("loading the denoiser", 3)

    def _say(self, part: str, done: int) -> None:
        """Tell the hooks which of the three parts of a run comes next, and how many are ready."""
        self.hooks.step(part, done, 3, Spend())

    def require_scorer(self) -> None:
        """Raise ConfigError where the denoiser gives no probabilities, which `refine` needs."""
        config = self.config.denoiser
        if asks_api(config) or not isinstance(self.denoiser, Scorer):
            raise ConfigError(
                f"refine ranks by log-probabilities, which the denoiser {config.model} does not give; use "
                "the built-in denoiser, local:FOLDER or local:HUB_ID, or remask optimize with labelled rows"
            )

    def require_target(self) -> None:
        """Raise where target, metric or task are wrong."""
        # With data.queries the target has not written the rows of the task yet.
        _ = (self.target, self.metric) if self.config.data.queries else self.task
        if self.config.task.name:
            self.place_prompt()
        if excess := build_task.describe_excess(self.config, self.start, self.dataset, self.max_demos):
            raise ConfigError(excess)

    def place_prompt(self) -> str:
        """Say where the Inspect task sends the prompt. Raises ConfigError where it does not."""
        from remask.tasks.inspect.setup import require_prompt

        return require_prompt(self.suite, self.start)

    def write_rows(self, queries: Sequence[str]) -> None:
        """Replace the placeholders by messages that the target wrote."""
        assert "task" not in vars(self), "the task was built from placeholders"
        self.dataset = build_task.make_queried_dataset(self.config, queries)

    def _make_plan(self, rows: int | None) -> SearchPlan:
        """Make a plan for a number of rows to score; None: no limit."""
        search = self.config.search
        splits = self.rows("train"), self.rows("validation")
        plan = make_plan(rows, *splits, search.cautious, guard=self.guard_rows("validation"))
        return replace(plan, candidates=search.candidates, calls=None) if search.candidates else plan

    @cached_property
    def _data_id(self) -> str:
        """An id that changes where any row or its split changes."""
        if self.reading is not None:
            return self.reading.conversations.id
        rows = [[e.id, e.split, *([e.guard] if e.guard else [])] for e in self.dataset.examples]
        return content_id("data", sorted(rows))


@contextmanager
def choose_run_dir(given: str | Path | None) -> Iterator[Path]:
    """Yield the folder for a run: the given one, or a new folder runs/DATE-TIME.

    A new folder is made at once, so that runs which begin in the same second get different ones.
    It is removed where no run was begun in it. Raises ConfigError where it cannot be made.
    """
    if given:
        yield Path(given)
        return
    path = _make_run_dir(Path("runs"))
    try:
        yield path
    finally:
        for folder in (path, path.parent):
            with suppress(OSError):  # a folder that is not empty
                folder.rmdir()


def _make_run_dir(parent: Path) -> Path:
    """Make runs/DATE-TIME, with a number after it where that exists. Raises ConfigError."""
    stamp = parent / datetime.now().strftime("%Y%m%d-%H%M%S")
    number, path = 2, stamp
    while True:
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            path, number = stamp.with_name(f"{stamp.name}-{number}"), number + 1
        except OSError as error:
            raise ConfigError(
                f"the folder {path} cannot be made ({error.strerror}); give --run-dir"
            ) from None


def _check_queries(config: Config, start: Prompt) -> None:
    """Raise ConfigError where the target would write rows that the run cannot use."""
    if not config.data.queries:
        return
    if config.metric.name in METRICS:
        raise ConfigError(
            f"the metric {config.metric.name} needs right answers and no data is given; give "
            "--data FILE, or name a judge: --judge openai:MODEL --rubric 'what a good answer is'"
        )
    row = {"input": ""}  # the only column of such rows; <tags> are never filled
    columns = [v for v in start.variables if not v.startswith("<") and fill(v, row)]
    if columns:
        raise ConfigError(
            f"the prompt has the variable {columns[0]}, which only a column of data can fill; give "
            "--data FILE"
        )
