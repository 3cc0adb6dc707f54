"""The public API: `optimize`, `resume`, `evaluate`. With wire.py the only place that wires rooms.

A run directory is the whole state: a run is started, cut and resumed by the same lines.
"""

import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from remask.budget import Spend
from remask.config import QUERIES, Config, make_config
from remask.denoisers import make_denoiser
from remask.errors import ConfigError
from remask.events import Event, State, Tested, advance, decode, encode, fold
from remask.evidence import Estimate, estimate
from remask.hooks import Hooks, Watcher, followed
from remask.opening import check_task, open_task
from remask.ports import Approximate, Denoiser, Metric, Remote, Task
from remask.proposers import make_proposer, with_demos
from remask.report.files import write_report
from remask.result import RESULT, Result, make_result
from remask.search import final_test, rows_of, search
from remask.sourcing import sourced
from remask.store import Store
from remask.target.meter import Account, Meter
from remask.task.labelled import never_emitted
from remask.trace import Outcome, Split
from remask.wire import (
    Data,
    Job,
    Parts,
    Respond,
    make_budget,
    make_price,
    prepare,
)

TEST_SLACK = 1.3  # time set aside for the test, over what its calls took on average so far


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The outcome of `evaluate`: one prompt on rows, no search."""

    score: Estimate
    failed: int  # rows without a score
    unparsed: int  # responses in which no label was found; scored 0
    silent: tuple[str, ...]  # labels that the target never gave
    spend: Spend


def optimize(
    prompt: str,
    data: Data | None = None,
    *,
    task: str = "",
    target: str | Respond = "embedded",
    metric: str | Metric = "label",
    dlm: str | Denoiser = "embedded",
    budget: int | Mapping[str, float] | None = 2000,
    seed: int = 0,
    run_dir: str | Path | None = None,
    input: str = "{input}",
    expected: str = "label",
    answer: str = "{label}",
    base_url: str = "",
    settings: Mapping[str, Any] | None = None,
    on_event: Watcher | None = None,
    hooks: Hooks | None = None,
) -> Result:
    """Optimise the text of a system prompt; returns when the sealed test is scored.

    data: a file (JSONL or CSV) or an iterable of row dicts. input: template over its columns, the
    user message; expected: the column of the right answer. Rows without it are scored by a metric
    that needs none: "judge" or a callable. Without data the target is asked for messages of users
    (settings["data"]["queries"], by default 80). task: in place of data a task of Inspect, with a
    target "inspect:PROVIDER/MODEL". target: "embedded", "openai:MODEL" or a callable
    `messages -> str`. metric: a name or a callable `(example, response) -> float | Score`. budget:
    target calls in all, or limits by name (calls, tokens, minutes, usd). settings: other keys of
    remask.toml, nested as there. on_event: called with each event once it is stored, the state,
    and what was spent; what it raises ends the run, which can be resumed.

    Raises ConfigError and DataError before a call is spent, TargetRefused and TargetUnreliable.
    """
    config, parts = settle_arguments(
        prompt,
        data,
        target,
        metric,
        dlm,
        {
            "seed": seed,
            "data": {"input": input, "expected": expected},
            "target": {"base_url": base_url},
            "task": {"name": task},
            "metric": {"answer": answer},
            "budget": dict(budget) if isinstance(budget, Mapping) else {"calls": budget},
        },
        settings,
    )
    return begin(config, parts, run_dir or new_run_dir(), followed(hooks, on_event))


def begin(config: Config, parts: Parts, run_dir: str | Path, hooks: Hooks) -> Result:
    """A new run of a resolved configuration."""
    job = prepare(config, parts)
    # Whatever is wrong with task or models shows here, before anything is written.
    check_task(job)
    denoiser = make_denoiser(config.dlm, parts.denoiser)
    with_demos(config, job.start, make_proposer(config, job.start, denoiser))
    with Store.create(Path(run_dir), job.record) as store:
        return _play(job, denoiser, store, Path(run_dir), hooks)


def resume(
    run_dir: str | Path,
    *,
    target: Respond | None = None,
    metric: Metric | None = None,
    dlm: Denoiser | None = None,
    rows: Iterable[Mapping[str, Any]] | None = None,
    on_event: Watcher | None = None,
    hooks: Hooks | None = None,
) -> Result:
    """Go on with a run that was cut. Functions and in-memory rows must be given again.

    Raises ConfigError that names the differing keys where data, code or settings have changed.
    """
    config = stored_config(run_dir)
    data = config.data
    named = data.path or data.train or data.queries or config.task.name
    if not named and rows is None:
        raise ConfigError(f"{run_dir}: the rows were given in memory; go on from Python with rows=")
    job = prepare(config, Parts(target, metric, dlm, None if rows is None else tuple(rows)))
    with Store.open(Path(run_dir), job.record) as store:
        denoiser = make_denoiser(config.dlm, dlm)
        return _play(job, denoiser, store, Path(run_dir), followed(hooks, on_event))


def evaluate(
    prompt: str,
    data: Data = (),
    *,
    task: str = "",
    target: str | Respond = "embedded",
    metric: str | Metric = "label",
    split: Split = "validation",
    input: str = "{input}",
    expected: str = "label",
    answer: str = "{label}",
    base_url: str = "",
    settings: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Score a prompt on the rows of one split, with interval and cost; no search."""
    config, parts = settle_arguments(
        prompt,
        data,
        target,
        metric,
        "embedded",
        {
            "data": {"input": input, "expected": expected},
            "target": {"base_url": base_url},
            "task": {"name": task},
            "metric": {"answer": answer},
            "budget": {"calls": None},
        },
        settings,
    )
    return score(config, parts, split, Hooks())


def score(config: Config, parts: Parts, split: Split, hooks: Hooks) -> Evaluation:
    """`evaluate` of a resolved configuration."""
    job = prepare(config, parts, (split,))
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.create(Path(folder) / "run", job.record) as store,
        open_task(job, open_account(job, store, hooks)) as task,
    ):
        outcomes = task.evaluate(job.start, task.ids(split))
        return Evaluation(
            score=estimate([o.score for o in outcomes if o.status == "scored"]),
            failed=sum(o.status == "failed" for o in outcomes),
            unparsed=sum(o.unparsed for o in outcomes),
            silent=_silent(job, task, outcomes),
            spend=store.spent(),
        )


def settle_arguments(
    prompt: str,
    data: Data | None,
    target: str | Respond,
    metric: str | Metric,
    dlm: str | Denoiser,
    values: dict[str, Any],
    settings: Mapping[str, Any] | None,
) -> tuple[Config, Parts]:
    """Arguments of the library as a Config, and the code that came with them."""
    values["prompt"] = prompt
    values["target"]["model"] = target if isinstance(target, str) else _name("function", target)
    values["metric"]["name"] = metric if isinstance(metric, str) else _name("function", metric)
    values["dlm"] = {"model": dlm if isinstance(dlm, str) else _name("object", dlm)}
    rows = None
    if data is None:
        if not values.get("task", {}).get("name"):
            values["data"]["queries"] = QUERIES
    elif isinstance(data, str | os.PathLike):
        values["data"]["path"] = str(Path(data).resolve())
    else:
        rows = tuple(data)
    parts = Parts(
        respond=None if isinstance(target, str) else target,
        metric=None if isinstance(metric, str) else metric,
        denoiser=None if isinstance(dlm, str) else dlm,
        rows=rows,
    )
    return make_config(merged(values, settings or {}), "settings"), parts


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings; `above` wins."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        out[key] = merged(old, value) if both else value  # type: ignore[arg-type]
    return out


def stored_config(run_dir: str | Path) -> Config:
    """The configuration that a run directory was made with."""
    with Store.read(Path(run_dir)) as store:
        record = {k: v for k, v in store.config.items() if k not in ("data_id", "version")}
    return make_config(record, str(run_dir))


def new_run_dir(parent: str | Path = "runs") -> Path:
    """runs/DATE-TIME, with a number where that exists."""
    stamp = Path(parent) / datetime.now().strftime("%Y%m%d-%H%M%S")
    number = 2
    path = stamp
    while path.exists():
        path, number = stamp.with_name(f"{stamp.name}-{number}"), number + 1
    return path


def _play(job: Job, denoiser: Denoiser, store: Store, run_dir: Path, hooks: Hooks) -> Result:
    """A run from wherever its store stands to its end, then the derived files."""
    account = open_account(job, store, hooks)
    job = sourced(job, account, hooks.watch)
    with (
        open_task(job, account) as task,
        _open_denoiser(job, denoiser, account) as opened,
    ):
        state = _search_and_test(job, opened, task, account, hooks)
    queries = {e.id: e.input for e in job.dataset.examples}
    result = make_result(state, queries, store.spent(), job.dataset.warnings, str(run_dir))
    write_result(result, run_dir)
    write_report(run_dir)
    return result


def _search_and_test(
    job: Job, denoiser: Denoiser, task: Task, account: Account, hooks: Hooks
) -> State:
    """Search from wherever the store stands, then the sealed test."""
    store = account.store
    plain = make_proposer(job.config, job.start, denoiser, task.labels)
    proposer = with_demos(job.config, job.start, plain)
    state = fold(decode(event) for event in store.events())
    clock = _Clock(store)

    def record(event: Event, state: State) -> State:
        if store.append(encode(event), clock.lap()):
            state = advance(state, event)
            hooks.watch(event, state, store.spent())
        return state

    account.held = _held(job, store, state)
    for event in search(state, job.start, job.plan, task, proposer, job.config.seed):
        state = record(event, state)
        account.held = _held(job, store, state)
    if state.tested is None:
        account.held = Spend()
        before, after = final_test(task, job.start, state.prompt(state.incumbent))
        unparsed = sum(o.unparsed for o in after)
        drift = denoiser.approximation() if isinstance(denoiser, Approximate) else ""
        tested = Tested(
            rows_of(before),
            rows_of(after),
            _silent(job, task, after),
            unparsed,
            (drift,) if drift else (),
        )
        state = record(tested, state)
    return state


def write_result(result: Result, run_dir: Path) -> None:
    """result.json, whole or not at all."""
    text = orjson.dumps(result.to_dict(), option=orjson.OPT_INDENT_2)
    temporary = run_dir / f".{RESULT}"
    temporary.write_bytes(text)
    temporary.replace(run_dir / RESULT)


def open_account(job: Job, store: Store, hooks: Hooks) -> Account:
    budget, price = make_budget(job.config)
    return Account(store, budget, price, gate=hooks.gate)


@contextmanager
def _open_denoiser(job: Job, denoiser: Denoiser, account: Account) -> Iterator[Denoiser]:
    """The denoiser; where it is an API its calls are metered, and it is closed at the end."""
    if not isinstance(denoiser, Remote):
        yield denoiser
        return
    target, price = denoiser.target, make_price(job.config.dlm)
    try:
        yield denoiser.through(Meter(target, account, denoiser.max_output, price))
    finally:
        target.close()


def _held(job: Job, store: Store, state: State) -> Spend:
    """What the sealed test will need: calls exactly, the rest as scored rows cost so far. A target
    that retries needs some calls more; what they do not use is left over.

    What a denoiser behind an API cost counts as cost of the rows: so too much is kept rather than
    too little, whatever its calls cost beside the target's.
    """
    spent, calls = store.spent(), job.test_calls
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


class _Clock:
    """The time between events that was not spent in target calls (denoising, mostly)."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.since, self.booked = time.monotonic(), store.spent().seconds

    def lap(self) -> Spend:
        """To be booked with the event; the next lap takes it for booked."""
        now, spent = time.monotonic(), self.store.spent().seconds
        seconds = max(0.0, now - self.since - (spent - self.booked))
        self.since, self.booked = now, spent + seconds
        return Spend(seconds=seconds)


def _silent(job: Job, task: Task, outcomes: list[Outcome]) -> tuple[str, ...]:
    return never_emitted(outcomes, task.labels, job.config.metric.answer)


def _name(kind: str, code: Any) -> str:
    return f"{kind}:{getattr(code, '__qualname__', type(code).__qualname__)}"
