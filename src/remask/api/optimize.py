"""`optimize` and `resume` of the public API: search, sealed test, result.

A run directory contains the whole state of a run, so starting and resuming use the same code. This
is also the code of `refine`, where a likelihood chooses the edits.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from math import ceil
from pathlib import Path

from remask.api.arguments import (
    Budget,
    Data,
    Dataset,
    Denoiser,
    Function,
    InspectTask,
    Judge,
    Label,
    Objective,
    Search,
    Target,
    Workers,
    settle_arguments,
    settle_rows,
)
from remask.api.awaitable import make_async
from remask.api.build_models import Respond, make_target
from remask.api.build_task import Given
from remask.api.forecast import measure_workload, time_calls, time_denoising
from remask.api.job import Hooks, Job, OnEvent, add_callback, choose_run_dir, follow_steps, open_job
from remask.api.show_progress import open_progress
from remask.config import Config, RunConfig, make_config
from remask.data.synthetic import ask_queries
from remask.errors import ConfigError, TargetRefused, TargetUnreliable
from remask.events import (
    PROMPT_TOKENS,
    Event,
    Fold,
    Started,
    State,
    Tested,
    TestPostponed,
    UnlabelledInputs,
    advance,
    encode,
)
from remask.ports import ONLY_REPORTED, Approximate, DenoiserModel, Metric, Scorer, Task, watch_steps
from remask.runs.budget import Spend
from remask.runs.outcomes import RecordingTask
from remask.runs.report.read_run import write_report
from remask.runs.report.summary import IDENTITY
from remask.runs.result import MIN_TESTED, Result, make_result, write_result
from remask.runs.reused_rows import count_earlier_tests, identify_test_rows
from remask.runs.store import Store
from remask.search.likelihood import DEFAULT_CANDIDATES, LikelihoodPlan, search_by_likelihood
from remask.search.scores import rows_from_outcomes, rows_from_values, run_final_test, search
from remask.tasks.labelled import find_unpredicted_labels
from remask.types import Outcome, describe_cut

TEST_SLACK = 1.3  # reserved cost of the test, over its expected cost by the mean of past calls
MAX_UNBOOKED_SECONDS = 10.0  # of denoising; a kill loses at most these
MIN_QUERY_TOKENS = 256  # of an answer with messages; answers to users may have a lower limit


def optimize(
    prompt: str | Path | Mapping[str, str],
    data: Data | Dataset | None = None,
    *,
    target: str | Respond | Target = "builtin",
    metric: str | Metric | Label | Judge | Function = "label",
    denoiser: str | DenoiserModel | Denoiser = "builtin",
    max_calls: int | None = None,
    budget: Budget | None = None,
    search: Search | None = None,
    objectives: Sequence[str | Objective] = (),
    task: str | InspectTask = "",
    seed: int = 0,
    workers: int | Workers | None = None,
    run_dir: str | Path | None = None,
    on_event: OnEvent | None = None,
    progress: bool | None = None,
) -> Result:
    """Optimise the text of a system prompt, and compare both prompts on the sealed test rows.

    prompt: the text, a Path to its file, or the texts of a program by name, such as {"system": …,
    "tool:search": …}; see docs/how-to/components.md. data: a path, mappings, pairs, a DataFrame, a dict with
    the keys train, validation and test, or a `Dataset`; without data the target is asked for
    messages of users. target: a name, a function `messages -> str`, or a `Target`. metric: "label",
    "exact", "contains", "f1", "json", "number", a function `(example, response) -> float | Score`
    from 0 to 1, a `Label` or a `Judge`. denoiser: a name, an object with `count` and `infill`, or a
    `Denoiser`. Target and metric may be async functions. max_calls: target calls in all, the test included
    (default: 2,000); `budget` has other limits. objectives: what is measured beside the score, such
    as "latency" or a `remask.Objective`. task: an Inspect task in place of data. workers: processes, or
    other `Workers`, that denoise and ask models on this machine. run_dir: a new folder (default:
    runs/DATE-TIME). on_event: called as `on_event(event, state, spend)` after an event was stored; an
    exception that it raises ends the run, which can then be resumed.
    progress: show how far the run is (default: in a terminal and in a notebook).

    Raises ConfigError and DataError before the first call, TargetRefused and TargetUnreliable.

    >>> import remask
    >>> rows = [(f"{n} + 1", str(n + 1)) for n in range(24)]
    >>> def respond(messages):
    ...     return "I do not know."
    >>> search = remask.Search(candidates=2)
    >>> result = remask.optimize("Add.", rows, target=respond, max_calls=60, search=search)
    >>> result.verdict, result.test.n, result.spend.calls <= 60
    ('no evidence', 12, True)
    """
    values, given = settle_arguments(
        prompt, data=data, target=target, metric=metric, denoiser=denoiser, task=task,
        max_calls=max_calls, budget=budget, search=search, objectives=objectives, workers=workers,
        more={"seed": seed},
    )  # fmt: skip
    hooks = add_callback(Hooks(), on_event)
    config = settle_rows(values, given)
    with choose_run_dir(run_dir) as folder, open_progress(progress, hooks, str(folder)) as shown:
        return start_run(config, given, folder, shown)


def start_run(config: Config, given: Given, run_dir: str | Path, hooks: Hooks) -> Result:
    """Start a run of a configuration. Nothing is written where anything is wrong with it."""
    folder = Path(run_dir)
    with follow_steps(hooks), open_job(config, given, hooks, folder) as job:
        job.require_all()
        with Store.create(folder, job.record) as store:
            return _complete_run(job, store)


def resume(
    run_dir: str | Path,
    *,
    data: Data | Dataset | None = None,
    target: Respond | None = None,
    metric: Metric | None = None,
    denoiser: DenoiserModel | None = None,
    objectives: Sequence[str | Objective] = (),
    workers: int | Workers | None = None,
    on_event: OnEvent | None = None,
    progress: bool | None = None,
) -> Result:
    """Continue an interrupted run, or return the result of a finished one.

    Functions, also of objectives, a denoiser object and rows in memory must be passed again; all else
    is stored. workers, progress: as for `optimize`; the run may have had others. Raises ConfigError,
    which names the keys, where data, code or settings have changed.

    >>> import remask
    >>> rows = [(f"{n} + 1", str(n + 1)) for n in range(24)]
    >>> def respond(messages):
    ...     return "I do not know."
    >>> def stop(event, state, spend):
    ...     raise KeyboardInterrupt
    >>> again = {"data": rows, "target": respond}
    >>> search = remask.Search(candidates=2)
    >>> try:
    ...     remask.optimize(
    ...         "Add.", max_calls=60, search=search, run_dir="cut", on_event=stop, **again
    ...     )
    ... except KeyboardInterrupt:
    ...     print(remask.resume("cut", **again).verdict)
    no evidence
    """
    values, given = settle_arguments(
        "-", data=data, target=target, metric=metric, denoiser=denoiser, objectives=objectives,
        workers=workers, more={},
    )  # fmt: skip
    with open_progress(progress, add_callback(Hooks(), on_event), str(run_dir)) as hooks:
        return resume_run(run_dir, given, hooks, RunConfig(**values["run"]))


def resume_run(run_dir: str | Path, given: Given, hooks: Hooks, workers: RunConfig) -> Result:
    """Continue a run with the objects that it needs."""
    folder = Path(run_dir)
    config = load_config(folder).model_copy(update={"run": workers})
    data = config.data
    named = data.path or data.train or data.queries or config.task.name or config.refine
    if not named and given.rows is None:
        raise ConfigError(f"{run_dir}: the rows were given in memory; resume from Python with data=…")
    with follow_steps(hooks), open_job(config, given, hooks, folder) as job:
        job.require_run()
        with Store.open(folder, job.record) as store:
            return _complete_run(job, store)


def load_config(run_dir: str | Path) -> Config:
    """Load the configuration of a run directory."""
    with Store.read(Path(run_dir)) as store:
        record = {k: v for k, v in store.config.items() if k not in IDENTITY}
    return make_config(record, str(run_dir))


def _complete_run(job: Job, store: Store) -> Result:
    """Continue a run from the last stored event to its end, and write the derived files."""
    job.ledger.open_store = store
    run = _Run(job, store)
    with run.check_steps():
        run.write_sources()
        if run.state.baseline:
            run.say_plan(timed=False)
        for event in run.search():
            run.record(event)
            if isinstance(event, Started):
                run.say_plan(timed=True)
        # A refinement without an edit needs no test. A search without one still reports the score.
        needs_test = job.has_test and (job.reading is None or run.state.accepted)
        if needs_test and run.state.tested is None:
            try:
                run.test()
            except (TargetRefused, TargetUnreliable):
                if job.reading is not None:  # the refined prompt is a result without the test, too
                    _finish(job, run)
                raise
    return _finish(job, run)


def _finish(job: Job, run: "_Run") -> Result:
    """Make the result and write result.json and the report."""
    if job.reading is None:
        sources = {e.id: (job.redactor.redact(e.input), "") for e in job.dataset.examples}
        warnings = job.dataset.warnings
    else:
        sources = {t.id: (t.query, t.explanation) for t in job.reading.conversations.read}
        warnings = ()
    if "task" in job.__dict__:  # it was built, so it may have scored something
        warnings = (*warnings, *job.task.warnings)
    spent = run.store.get_spend()
    result = make_result(run.state, sources, spent, warnings, str(job.run_dir))
    write_result(result, job.run_dir)
    write_report(job.run_dir)
    return result


class _Run:
    """A job with its store and the state of the search."""

    def __init__(self, job: Job, store: Store) -> None:
        self.job = job
        self.store = store
        fold = Fold()
        for _ in store.read_on(fold):
            pass
        self.state = fold.state
        self._since, self._booked = time.monotonic(), store.get_spend().seconds

    @cached_property
    def _task(self) -> Task:
        """The task of the job, whose outcomes are stored."""
        job = self.job
        return RecordingTask(
            job.task,
            self.store,
            lambda: job.dataset.examples,
            job.redactor.redact,
            lambda prompt: prompt == self.state.incumbent,
        )

    def record(self, event: Event) -> None:
        """Store an event, unless it is stored already, and pass it to the hooks."""
        if self.store.append(encode(event), self._measure_time()):
            self.state = advance(self.state, event)
            self.job.hooks.watch(event, self.state, self.store.get_spend())
        self.job.ledger.reserved = reserve_test(self.job, self.store, self.state)

    def write_sources(self) -> None:
        """Record the sources of the rows, where these are not rows with right answers."""
        # The messages of a target are stored before they become rows, so that a resumed run does
        # not ask for them again.
        job = self.job
        if job.reading is not None:
            if self.state.traces_read is None:
                self.record(job.reading.event)
            return
        if job.goals != self.state.goals:
            self.record(job.goals)
        if job.basis != "labels" and self.state.unlabelled_inputs is None:
            queries = self._ask_queries() if job.basis == "prompt" else ()
            self.record(UnlabelledInputs(job.basis, job.config.metric.name, queries))
        if self.state.unlabelled_inputs is not None and self.state.unlabelled_inputs.queries:
            job.write_rows(self.state.unlabelled_inputs.queries)

    def search(self) -> Iterator[Event]:
        """Yield the events from the current state to the end of the search."""
        job = self.job
        self.job.ledger.reserved = reserve_test(self.job, self.store, self.state)
        if job.reading is None:
            return search(self.state, job.start, job.plan, self._task, job.proposer, job.config.seed)
        assert job.config.refine is not None
        assert isinstance(job.denoiser, Scorer)  # `require_all` has checked this
        settings, parts = job.config.search, job.reading.conversations
        plan = LikelihoodPlan(
            iterations=job.config.refine.iterations,
            candidates=settings.candidates or DEFAULT_CANDIDATES,
            traces=settings.traces,
            context_tokens=settings.context_tokens,
            free_numbers=job.config.refine.lock == "none",
        )
        return search_by_likelihood(
            self.state, job.start, parts.read, parts.held_out, plan, job.proposer, job.denoiser,
            job.config.seed, job.reading.choose,
        )  # fmt: skip

    def say_plan(self, timed: bool) -> None:
        """Tell the hooks what the run may have to do; `timed`: with a timed sample of its models."""
        job = self.job
        if job.hooks.plan is not None:
            samples = (time_denoising(job), time_calls(job)) if timed else (None, None)
            job.hooks.plan(measure_workload(job, *samples), self.state, self.store.get_spend())

    @contextmanager
    def check_steps(self) -> Iterator[None]:
        """Between the steps of denoising and of local answers, look at signals and the time limit."""
        try:
            with watch_steps(self._check_step):
                yield
        finally:
            with suppress(ConfigError):  # the disk; the error that ends the run says it
                self.store.book(self._measure_time())

    def _check_step(self, what: str, done: int, total: int) -> None:
        self.job.hooks.step(what, done, total, self.store.get_booked())
        if what in ONLY_REPORTED:
            return
        time_spent = self._measure_time(peek=True)
        if time_spent.seconds > MAX_UNBOOKED_SECONDS:
            self.store.book(self._measure_time())
            time_spent = Spend()
        self.job.ledger.require(time_spent)

    def test(self) -> None:
        """Run the sealed test with the calls that were reserved for it.

        Raises TargetUnreliable where more rows failed than a verdict allows, and asking them again
        may help. Where that has been done, the verdict is given without them.
        """
        job = self.job
        job.ledger.reserved = Spend()
        if self.state.postponed is not None:
            # The user has resumed the run for this test. Time that is used up must not end it again.
            job.ledger.budget = replace(job.ledger.budget, minutes=None)
        best = self.state.prompt(self.state.incumbent)
        guards = [id for guard in self.state.goals.guards for id in guard.test]
        before, after = run_final_test(self._task, job.start, best, self._announce_rows, guards)
        failed = [a if a.error else b for a, b in zip(before, after, strict=True) if a.error or b.error]
        # A resumed run has no limit of time for the test, so time alone is no reason to give it up.
        untimed = replace(job.ledger, budget=replace(job.ledger.budget, minutes=None))
        again = Spend(calls=len(failed) * job.calls_per_row)
        if len(failed) == len(before) or (
            len(failed) > (1 - MIN_TESTED) * len(before)
            and self.state.postponed is None
            and not untimed.find_shortfall(again)
        ):
            self.record(TestPostponed(len(failed), job.redactor.redact(failed[0].error)))
            raise TargetUnreliable(
                f"{len(failed)} of {len(before)} rows of the sealed test have no score; the first: "
                f"{failed[0].error}; nothing is lost, `remask resume {job.run_dir}` asks these rows again"
            )
        denoiser = job.denoiser
        note = denoiser.describe_approximation() if isinstance(denoiser, Approximate) else ""
        notes = [*job.notes, *describe_cut(after), *([note] if note else [])]
        self.record(self._describe_test(before, after, tuple(notes)))

    def _describe_test(
        self, before: Sequence[Outcome], after: Sequence[Outcome], notes: tuple[str, ...]
    ) -> Tested:
        """Return the event of the test. The rows of guard sets come last in the outcomes."""
        job, goals = self.job, self.state.goals
        scored = len(before) - sum(len(guard.test) for guard in goals.guards)
        guards, start = [], scored
        for guard in goals.guards:
            part = slice(start, start := start + len(guard.test))
            guards.append((guard.name, rows_from_outcomes(before[part]), rows_from_outcomes(after[part])))
        before, after = before[:scored], after[:scored]
        measured = [name for name, _ in goals.objectives if name != PROMPT_TOKENS]
        return Tested(
            rows_from_outcomes(before),
            rows_from_outcomes(after),
            find_unpredicted_labels(after, job.task.labels, job.config.metric.answer),
            sum(o.unparsed for o in after),
            notes,
            self._count_earlier_tests([outcome.example for outcome in before]),
            tuple((name, rows_from_values(before, name), rows_from_values(after, name)) for name in measured),
            tuple(guards),
        )

    def _announce_rows(self, rows: int, left: int) -> None:
        """Say that the target is asked for `rows` rows of the test now, and for `left` after them."""
        # A row may take further calls after its first one: repeats, and a judge.
        self.job.ledger.later_calls = (rows + left) * self.job.calls_per_row - rows

    def _count_earlier_tests(self, rows: list[str]) -> int:
        """Return how often the runs beside this one have tested other prompts on these rows."""
        known = identify_test_rows(self.store.config, rows)
        return count_earlier_tests(
            self.store.folder, known, baseline=self.state.baseline, best=self.state.incumbent
        )

    def _ask_queries(self) -> tuple[str, ...]:
        """Ask the target for messages, with the calls that are not reserved for the test."""
        job, config = self.job, self.job.config.target
        limit = config.max_tokens and max(config.max_tokens, MIN_QUERY_TOKENS)
        job.ledger.reserved = Spend(calls=job.test_calls)
        target = make_target(config.model_copy(update={"max_tokens": limit}), job.given.respond, job.limiters)
        return ask_queries(job.meter(target, limit), job.start, job.config.data.queries or 0)

    def _measure_time(self, peek: bool = False) -> Spend:
        """Return the time since the last booking without that of target calls: mostly denoising.

        It must be booked, unless it is only a `peek`.
        """
        now, spent = time.monotonic(), self.store.get_spend().seconds
        seconds = max(0.0, now - self._since - (spent - self._booked))
        if not peek:
            self._since, self._booked = now, spent + seconds
        return Spend(seconds=seconds)


def reserve_test(job: Job, store: Store, state: State) -> Spend:
    """Return what to reserve for the sealed test: calls, tokens, dollars and seconds.

    All but the calls are estimated by the cost of past rows. A target that retries gets as many
    attempts for an answer as the search needed, and some more for attempts that are cut off.
    """
    # The cost of a denoiser behind an API counts as cost of the rows, so the estimate is too high
    # rather than too low.
    if not job.has_test or state.tested is not None:
        return Spend()
    spent, calls = store.get_spend(), job.test_calls
    rows = sum(len(rows) for rows in state.scores.values())
    scored = job.calls_per_row * rows
    share = TEST_SLACK * calls / max(1, min(spent.calls, scored or spent.calls))
    if job.config.task.name and rows:  # the calls of a sample are not known in advance
        share = TEST_SLACK * 2 * job.rows("test") / rows
        calls = round(share * spent.calls)
    if job.retries:
        tries = min(1 + job.config.target.retries, spent.calls / max(1, store.count_replies()))
        calls = ceil(calls * max(1, tries))
    return Spend(
        calls=job.add_retries(calls),
        input_tokens=round(share * spent.input_tokens),
        output_tokens=round(share * spent.output_tokens),
        usd=share * spent.usd,
        seconds=share * store.call_seconds(),
    )


optimize_async = make_async(optimize)
resume_async = make_async(resume)
