"""Playing a run: search, sealed test, result. `optimize` and `resume` of the public API.

A run directory is the whole state: a run is started, cut and resumed by the same lines, whether a
target or a likelihood chooses the edits.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from remask.api.arguments import (
    Budget,
    Data,
    Dataset,
    Denoiser,
    InspectTask,
    Judge,
    Label,
    Search,
    Target,
    rows_given,
    settle_arguments,
    settle_rows,
)
from remask.api.awaitable import make_async
from remask.api.build_models import Respond, make_target
from remask.api.build_task import Given
from remask.api.job import Hooks, Job, OnEvent, add_callback, new_run_dir, open_job
from remask.config import Config, make_config
from remask.data.synthetic import ask_queries
from remask.errors import ConfigError, TargetRefused, TargetUnreliable
from remask.events import Event, State, Tested, UnlabelledInputs, advance, decode, encode, fold
from remask.ports import Approximate, DenoiserModel, Metric, Scorer
from remask.runs.budget import Spend
from remask.runs.report.read_run import write_report
from remask.runs.result import Result, make_result, write_result
from remask.runs.store import Store
from remask.search.halving import rows_from_outcomes, run_final_test, search
from remask.search.likelihood import DEFAULT_CANDIDATES, LikelihoodPlan, search_by_likelihood
from remask.tasks.labelled import find_unpredicted_labels

TEST_SLACK = 1.3  # time set aside for the test, over what its calls took on average so far
MIN_QUERY_TOKENS = 256  # of an answer with messages: answers to users may be shorter


def optimize(
    prompt: str | Path,
    data: Data | Dataset | None = None,
    *,
    target: str | Respond | Target = "builtin",
    metric: str | Metric | Label | Judge = "label",
    denoiser: str | DenoiserModel | Denoiser = "builtin",
    max_calls: int | None = None,
    budget: Budget | None = None,
    search: Search | None = None,
    task: str | InspectTask = "",
    seed: int = 0,
    run_dir: str | Path | None = None,
    on_event: OnEvent | None = None,
) -> Result:
    """Optimise the text of a system prompt; returns when the sealed test is scored.

    prompt: the text, or a Path to its file. data: a path, mappings, pairs, a DataFrame, a dict with
    the keys train, validation and test, or a `Dataset`; without data the target is asked for
    messages of users. target: a name, a function `messages -> str`, or a `Target`. metric: "label",
    "exact", "contains", "f1", a function `(example, response) -> float | Score` from 0 to 1, a
    `Label` or a `Judge`. denoiser: a name, an object with `count` and `infill`, or a `Denoiser`.
    Target and metric may be async functions. max_calls: target calls in all, the test included
    (default 2,000); `budget` has other limits. task: a task of Inspect in place of data. run_dir: a
    new folder (default runs/DATE-TIME). on_event: called as `on_event(event, state, spend)` once an
    event is stored; what it raises ends the run, which can be resumed.

    Raises ConfigError and DataError before a call is spent, TargetRefused and TargetUnreliable.

    >>> import remask
    >>> rows = [(f"{n} + 1", str(n + 1)) for n in range(40)]
    >>> def respond(messages):
    ...     return "I do not know."
    >>> result = remask.optimize("Add.", rows, target=respond, max_calls=60)
    >>> result.verdict, result.test.n, result.spend.calls <= 60
    ('no evidence', 20, True)
    """
    more = {"seed": seed}
    values, given = settle_arguments(
        prompt, data=data, target=target, metric=metric, denoiser=denoiser, task=task,
        max_calls=max_calls, budget=budget, search=search, more=more,
    )  # fmt: skip
    hooks = add_callback(Hooks(), on_event)
    return start_run(settle_rows(values, given), given, run_dir or new_run_dir(), hooks)


def start_run(config: Config, given: Given, run_dir: str | Path, hooks: Hooks) -> Result:
    """A new run of a resolved configuration. Nothing is written where something is wrong."""
    folder = Path(run_dir)
    with open_job(config, given, hooks, folder) as job:
        job.require_all()
        with Store.create(folder, job.record) as store:
            return _play(job, store)


def resume(
    run_dir: str | Path,
    *,
    data: Data | Dataset | None = None,
    target: Respond | None = None,
    metric: Metric | None = None,
    denoiser: DenoiserModel | None = None,
    on_event: OnEvent | None = None,
) -> Result:
    """Continue a run that was cut, or give the result of a finished one.

    Functions, a denoiser object and rows in memory must be given again; all else is stored. Raises
    ConfigError that names the differing keys where data, code or settings have changed.

    >>> import remask
    >>> rows = [(f"{n} + 1", str(n + 1)) for n in range(40)]
    >>> def respond(messages):
    ...     return "I do not know."
    >>> def stop(event, state, spend):
    ...     raise KeyboardInterrupt
    >>> arguments = {"data": rows, "target": respond}
    >>> try:
    ...     remask.optimize("Add.", max_calls=60, run_dir="cut", on_event=stop, **arguments)
    ... except KeyboardInterrupt:
    ...     print(remask.resume("cut", **arguments).verdict)
    no evidence
    """
    given = Given(target, metric, denoiser, rows_given(data))
    return resume_run(run_dir, given, add_callback(Hooks(), on_event))


def resume_run(run_dir: str | Path, given: Given, hooks: Hooks) -> Result:
    """`resume` with the objects that the run needs."""
    folder = Path(run_dir)
    config = stored_config(folder)
    data = config.data
    named = data.path or data.train or data.queries or config.task.name or config.refine
    if not named and given.rows is None:
        raise ConfigError(
            f"{run_dir}: the rows were given in memory; resume from Python with data=…"
        )
    with open_job(config, given, hooks, folder) as job:
        job.require_run()
        with Store.open(folder, job.record) as store:
            return _play(job, store)


def stored_config(run_dir: str | Path) -> Config:
    """The configuration that a run directory was made with."""
    with Store.read(Path(run_dir)) as store:
        record = {k: v for k, v in store.config.items() if k not in ("data_id", "version")}
    return make_config(record, str(run_dir))


def _play(job: Job, store: Store) -> Result:
    """A run from wherever its store stands to its end, then the derived files."""
    job.ledger.open_store = store
    run = _Run(job, store)
    run.write_sources()
    for event in run.search():
        run.record(event)
    # A refinement without an edit is no claim; a search that found nothing still says how the
    # prompt does.
    claims = job.reading is None or run.state.accepted
    if job.tests and claims and run.state.tested is None:
        try:
            run.test()
        except (TargetRefused, TargetUnreliable):
            if job.reading is not None:  # what a likelihood found outlives a target that fails
                _finish(job, run)
            raise
    return _finish(job, run)


def _finish(job: Job, run: "_Run") -> Result:
    """The result and the files that are derived from it."""
    if job.reading is None:
        sources = {e.id: (e.input, "") for e in job.dataset.examples}
        warnings = job.dataset.warnings
    else:
        sources = {t.id: (t.query, t.explanation) for t in job.reading.conversations.read}
        warnings = ()
    spent = run.store.get_spend()
    result = make_result(run.state, sources, spent, warnings, str(job.run_dir))
    write_result(result, job.run_dir)
    write_report(job.run_dir)
    return result


class _Run:
    """A job with its store: where it stands, and how it goes on."""

    def __init__(self, job: Job, store: Store) -> None:
        self.job = job
        self.store = store
        self.state = fold(decode(event) for event in store.events())
        self._since, self._booked = time.monotonic(), store.get_spend().seconds

    def record(self, event: Event) -> None:
        """Make an event durable, unless it is already, and tell the watcher."""
        if self.store.append(encode(event), self._lap()):
            self.state = advance(self.state, event)
            self.job.hooks.watch(event, self.state, self.store.get_spend())
        self.job.ledger.reserved = reserve_test(self.job, self.store, self.state)

    def write_sources(self) -> None:
        """Say what the run starts from, where that is not rows with right answers. What a target
        wrote is an event before a row is made of it, so that a run that goes on never asks twice.
        """
        job = self.job
        if job.reading is not None:
            if self.state.traces_read is None:
                self.record(job.reading.event)
            return
        if job.basis != "labels" and self.state.unlabelled_inputs is None:
            queries = self._ask_queries() if job.basis == "prompt" else ()
            self.record(UnlabelledInputs(job.basis, job.config.metric.name, queries))
        if self.state.unlabelled_inputs is not None and self.state.unlabelled_inputs.queries:
            job.write_rows(self.state.unlabelled_inputs.queries)

    def search(self) -> Iterator[Event]:
        """The events from here to the end of the search."""
        job = self.job
        self.job.ledger.reserved = reserve_test(self.job, self.store, self.state)
        if job.reading is None:
            task, seed = job.task, job.config.seed
            return search(self.state, job.start, job.plan, task, job.proposer, seed)
        assert job.config.refine is not None
        assert isinstance(job.denoiser, Scorer)  # `require_all` saw to it
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

    def test(self) -> None:
        """The sealed test, for which nothing needs to be set aside any more."""
        job = self.job
        job.ledger.reserved = Spend()
        before, after = run_final_test(job.task, job.start, self.state.prompt(self.state.incumbent))
        drift = (
            job.denoiser.describe_approximation() if isinstance(job.denoiser, Approximate) else ""
        )
        self.record(
            Tested(
                rows_from_outcomes(before),
                rows_from_outcomes(after),
                find_unpredicted_labels(after, job.task.labels, job.config.metric.answer),
                sum(o.unparsed for o in after),
                (drift,) if drift else (),
            )
        )

    def _ask_queries(self) -> tuple[str, ...]:
        """What the target writes, within what the sealed test leaves of the budget."""
        job, config = self.job, self.job.config.target
        limit = config.max_tokens and max(config.max_tokens, MIN_QUERY_TOKENS)
        job.ledger.reserved = Spend(calls=job.test_calls)
        target = make_target(config.model_copy(update={"max_tokens": limit}), job.given.respond)
        return ask_queries(job.metered(target, limit), job.start, job.config.data.queries or 0)

    def _lap(self) -> Spend:
        """The time since the last event that was not spent in target calls (denoising, mostly)."""
        now, spent = time.monotonic(), self.store.get_spend().seconds
        seconds = max(0.0, now - self._since - (spent - self._booked))
        self._since, self._booked = now, spent + seconds
        return Spend(seconds=seconds)


def reserve_test(job: Job, store: Store, state: State) -> Spend:
    """What the sealed test will need: calls exactly, the rest as scored rows cost so far. A target
    that retries needs some calls more; what they do not use is left over.

    What a denoiser behind an API cost counts as cost of the rows: so too much is kept rather than
    too little, whatever its calls cost beside the target's.
    """
    if not job.tests or state.tested is not None:
        return Spend()
    spent, calls = store.get_spend(), job.test_calls
    rows = sum(len(rows) for rows in state.scores.values())
    scored = job.calls_per_row * rows
    share = TEST_SLACK * calls / max(1, min(spent.calls, scored or spent.calls))
    if job.config.task.name and rows:  # how many calls a sample takes is not known beforehand
        share = TEST_SLACK * 2 * job.rows("test") / rows
        calls = round(share * spent.calls)
    return Spend(
        calls=calls + (calls // 50 + 4 if job.retries else 0),
        input_tokens=round(share * spent.input_tokens),
        output_tokens=round(share * spent.output_tokens),
        usd=share * spent.usd,
        seconds=share * store.call_seconds(),
    )


optimize_async = make_async(optimize)
resume_async = make_async(resume)
