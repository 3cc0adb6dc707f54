"""A job: the settings of a run and everything that is built from them, each thing once.

`open_job` is the one way in. What a job holds is built when it is first asked for and closed with
the job, so that a command builds what it needs and `remask check` can look at one part after the
other. Nothing here is written to disk: who has a store puts it into
`job.ledger.books`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remask import __version__
from remask.api import build_task
from remask.api.awaitable import raise_if_cancelled
from remask.api.build_models import asks_api, limit_spend, make_denoiser, make_price, make_target
from remask.api.build_proposer import make_proposer, refuse_demos, with_demos
from remask.api.build_task import Given, TraceData
from remask.config import Config
from remask.data.dataset import SPLITS, LoadedDataset, require_splits
from remask.data.placeholders import fill
from remask.data.synthetic import count_max_calls
from remask.errors import ConfigError
from remask.events import Event, State
from remask.ids import content_id
from remask.ports import DenoiserModel, Metric, Proposer, Remote, Scorer, TargetModel, Task
from remask.prompt import Prompt
from remask.runs.budget import Price, Spend
from remask.runs.meter import Ledger, Meter
from remask.search.plan import MIN_VALIDATION_ROWS, SearchPlan, make_plan
from remask.tasks.metrics import METRICS, Grader
from remask.types import Split

if TYPE_CHECKING:
    from remask.tasks.inspect.task import Suite

CALLS_PER_CANDIDATE = 2  # of a denoiser behind an API: a second hole, a second try, a second draw
LOGS = "inspect"  # folder of Inspect's logs in the run directory
OnEvent = Callable[[Event, State, Spend], None]  # what happened, all so far, what was spent


def _ignore(event: Event, state: State, spend: Spend) -> None:
    """The watcher of runs that nobody watches."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """How a face follows and interrupts a run; neither can change what it does."""

    watch: OnEvent = _ignore  # after each event is durable
    checkpoint: Callable[[], None] = raise_if_cancelled  # before each chunk of calls


def add_callback(hooks: Hooks | None, on_event: OnEvent | None) -> Hooks:
    """The hooks, with one more watcher, which hears each event first: others may stop the run."""
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
    config: Config,
    given: Given | None = None,
    hooks: Hooks | None = None,
    run_dir: Path | None = None,
) -> Iterator["Job"]:
    """The job of these settings; its targets' connections are closed at the end.

    Reads the trace files of `refine` at once, since the metric may follow from them. Raises
    ConfigError and DataError.
    """
    given = given or Given()
    reading = None
    if config.refine is not None:
        reading = build_task.read_conversations(config, config.refine, given)
        config = reading.config
    with ExitStack() as stack:
        yield Job(config, given, hooks or Hooks(), run_dir or Path(), reading, stack)


class Job:
    """What a run is made of. Every part is built on first use; ConfigError, DataError and
    BackendError say what is wrong with it."""

    def __init__(
        self,
        config: Config,
        given: Given,
        hooks: Hooks,
        run_dir: Path,
        reading: TraceData | None,
        stack: ExitStack,
    ) -> None:
        self.config = config
        self.given = given
        self.hooks = hooks
        self.run_dir = run_dir
        self.reading = reading  # the trace files of `refine`; None: there are rows
        self._stack = stack

    # --- the parts, in the order in which they depend on each other

    @cached_property
    def ledger(self) -> Ledger:
        """The limits, and the books that all calls of this job share."""
        budget, price = limit_spend(self.config)
        return Ledger(None, budget, price, checkpoint=self.hooks.checkpoint)

    @cached_property
    def start(self) -> Prompt:
        """The prompt to start from, which must have editable text."""
        start = Prompt.parse(self.config.prompt)
        if not start.editable:
            raise ConfigError(
                "the prompt has no editable text: all of it is variables, code, links or [[keep]] "
                "regions; leave some plain words outside"
            )
        _check_source(self.config, start)
        return start

    @cached_property
    def suite(self) -> "Suite":
        """The task of Inspect that is named."""
        from remask.tasks.inspect.setup import load

        return self.given.suite or load(self.config)

    @cached_property
    def dataset(self) -> LoadedDataset:
        """The rows, whatever they come from. Of a prompt alone: as many placeholders as messages
        will be asked for, until `write_rows` has put messages in their place."""
        if self.config.task.name:
            return self.suite.dataset
        if self.reading is not None:
            return self.reading.dataset
        return build_task.make_dataset(self.config, self.given.rows)

    @cached_property
    def target(self) -> TargetModel:
        """The model whose prompt is optimised, metered."""
        config = self.config.target
        return self.metered(make_target(config, self.given.respond), config.max_tokens)

    @cached_property
    def metric(self) -> str | Metric | Grader:
        """What scores an answer. A judge's calls are metered like the target's."""
        return build_task.make_metric(self.config, self.dataset, self.given, self.metered)

    @cached_property
    def task(self) -> Task:
        """The rows with target and metric: how a prompt does on them."""
        if self.config.task.name:
            from remask.tasks.inspect.setup import make_inspect_task

            logs = Path(self.config.task.logs or self.run_dir / LOGS)
            return make_inspect_task(self.config, self.suite, self.start, self.ledger, logs)
        return build_task.make_task(self.config, self.dataset, self.target, self.metric)

    @cached_property
    def denoiser(self) -> DenoiserModel:
        """The diffusion language model; where it is an API its calls are metered."""
        config = self.config.denoiser
        denoiser = make_denoiser(config, self.given.denoiser)
        if not isinstance(denoiser, Remote):
            return denoiser
        price = make_price(config)
        return denoiser.with_target(self.metered(denoiser.target, denoiser.max_output, price))

    @cached_property
    def proposer(self) -> Proposer:
        """What writes candidates. It knows the task's labels, which a prompt may name."""
        if self.reading is not None:
            choose = self.reading.choose
            return make_proposer(self.config, self.start, self.denoiser, choose=choose)
        labels = () if self.config.data.queries else self.task.labels
        plain = make_proposer(self.config, self.start, self.denoiser, labels)
        return with_demos(self.config, self.start, plain)

    @cached_property
    def plan(self) -> SearchPlan:
        """How the search spends its calls, by what the budget leaves."""
        calls = self.config.budget.calls
        set_aside = self.test_calls + self.asked_calls
        left = None if calls is None else (calls - set_aside) // self.calls_per_row
        plan = self._plan(left)
        if left is None or not asks_api(self.config.denoiser):
            return plan
        # What the denoiser asks comes from the same calls.
        rows = plan.count_round_calls(self.rows("validation"))
        share = rows / (rows + self.asked_per_round(plan) / self.calls_per_row)
        return self._plan(int(left * share))

    @property
    def record(self) -> dict[str, Any]:
        """What identifies the run: configuration, data, version."""
        return {
            **self.config.model_dump(mode="json"),
            "data_id": self._data_id,
            "version": __version__,
        }

    # --- numbers that follow from them

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
        return count_max_calls(self.config.data.queries) if self.config.data.queries else 0

    @property
    def tests(self) -> bool:
        """Whether the run ends with a sealed test."""
        return self.config.refine is None or self.config.refine.verify

    @property
    def test_calls(self) -> int:
        """What the sealed test costs at most; set aside before the search may spend anything.
        Of a task of Inspect this is what it is expected to cost, until some samples have run."""
        return 2 * self.rows("test") * self.calls_per_row if self.tests else 0

    @property
    def retries(self) -> bool:
        """Whether a call may take more than one attempt."""
        remote = self.config.target.model.startswith(("openai:", "inspect:"))
        return remote and self.config.target.retries > 0

    @property
    def calls_per_row(self) -> int:
        """Calls to score one row; of a sample of Inspect an estimate."""
        return build_task.calls_per_row(self.config)

    def asked_per_round(self, plan: SearchPlan) -> int:
        """Calls of a round that go to the denoiser where it is an API; an estimate."""
        return CALLS_PER_CANDIDATE * plan.candidates if asks_api(self.config.denoiser) else 0

    # --- what is done with them

    def metered(
        self, target: TargetModel, max_output: int | None, price: Price | None = None
    ) -> TargetModel:
        """The target with its calls booked in the ledger, and closed with the job."""
        self._stack.callback(target.close)
        return Meter(target, self.ledger, max_output, price)

    def require_rows(self, splits: Sequence[Split] = SPLITS) -> None:
        """Raise where prompt, rows or budget would not do; nothing is called or loaded."""
        _ = self.start
        require_splits(self.dataset.examples, splits)
        _ = self.ledger
        if splits == SPLITS:
            self._require_calls()

    def require_run(self) -> None:
        """Raise where the settings make no run; nothing is called or loaded."""
        if self.reading is None:
            self.require_rows()
            return
        _ = self.start, self.ledger
        refuse_demos(self.config, "remask refine")

    def require_all(self) -> None:
        """Raise whatever is wrong with the job, as far as it shows without a call."""
        self.require_run()
        if self.tests:
            self.require_target()
        if self.reading is not None:
            self.require_scorer()
        _ = self.proposer

    def require_scorer(self) -> None:
        """Raise ConfigError where the denoiser gives no probabilities, which rank in `refine`."""
        config = self.config.denoiser
        if asks_api(config) or not isinstance(self.denoiser, Scorer):
            raise ConfigError(
                f"refine ranks by log-probabilities, which the denoiser {config.model} does not "
                "give; use the built-in one or local:PLACE, or give labelled rows to remask "
                "optimize"
            )

    def require_target(self) -> None:
        """Raise what is wrong with target, metric and task."""
        written = not self.config.data.queries  # the target has not written its rows yet
        _ = self.task if written else (self.target, self.metric)
        if self.config.task.name:
            self.place_prompt()
        build_task.check_context_length(self.config, self.start, self.dataset)

    def place_prompt(self) -> str:
        """How the task of Inspect places the prompt, in words; ConfigError where it does not."""
        from remask.tasks.inspect.setup import require_prompt

        return require_prompt(self.suite, self.start)

    def write_rows(self, queries: Sequence[str]) -> None:
        """Put messages that the target wrote in the place of the placeholders."""
        assert "task" not in vars(self), "a task has been made of placeholders"
        self.dataset = build_task.make_queried_dataset(self.config, queries)

    def _plan(self, rows: int | None) -> SearchPlan:
        """A plan for so many rows to score."""
        search = self.config.search
        plan = make_plan(rows, self.rows("train"), self.rows("validation"), search.cautious)
        return replace(plan, candidates=search.candidates or plan.candidates)

    @cached_property
    def _data_id(self) -> str:
        """Changes when any row or its split changes."""
        if self.reading is not None:
            return self.reading.conversations.id
        return content_id("data", sorted([e.id, e.split] for e in self.dataset.examples))

    def _require_calls(self) -> None:
        calls = self.config.budget.calls
        validated = min(self.rows("validation"), MIN_VALIDATION_ROWS)
        least = self.asked_calls + self.test_calls + self.calls_per_row * validated
        if calls is not None and calls <= least:
            raise ConfigError(
                f"budget.calls = {calls} leaves nothing to search with: the sealed test takes "
                f"{self.test_calls} calls and what comes before the search "
                f"{least - self.test_calls}; raise the budget or use fewer test rows"
            )


def new_run_dir(parent: str | Path = "runs") -> Path:
    """runs/DATE-TIME, with a number where that exists."""
    stamp = Path(parent) / datetime.now().strftime("%Y%m%d-%H%M%S")
    number = 2
    path = stamp
    while path.exists():
        path, number = stamp.with_name(f"{stamp.name}-{number}"), number + 1
    return path


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
