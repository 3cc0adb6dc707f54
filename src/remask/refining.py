"""The public `refine`: conversations to a better prompt, and where a target is named, to a verdict.

Part of the composition root, beside run.py and made of the same parts. The run directory holds
result.json and report.md; of a verification also the paid replies, in `verification/`.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import orjson

from remask.condition import MAX_CLASSES, failing
from remask.config import Config, make_config
from remask.denoisers import asks_api, make_denoiser
from remask.errors import ConfigError
from remask.gather import Gathered, gather
from remask.hooks import Hooks
from remask.identity import content_id
from remask.opening import check_task, open_task
from remask.packing import kinds
from remask.ports import Denoiser, Metric, Scorer
from remask.prompt import Prompt
from remask.proposers import make_proposer, refuse_demos
from remask.refined import Conversations, Refined, make_refined
from remask.refinement import Loop, Round, refinements
from remask.result import RESULT, compare_rows
from remask.run import merged, new_run_dir, open_account
from remask.search import final_test, rows_of
from remask.store import Store
from remask.task.dataset import Dataset
from remask.trace import Example, Split, Trace
from remask.wire import Job, Parts, Respond, data_id

ITERATIONS = 8
CANDIDATES = 8
MASKERS = ("blame", "span", "insert", "sentence")  # drawn in turn
CONTEXT = 1000  # tokens of conversations that are read at a time: no call is paid for them
Lock = Literal["text", "numbers", "none"]  # what of the prompt may not change
LOCKS: tuple[Lock, ...] = get_args(Lock)
PAGE = "report.md"
VERIFICATION = "verification"  # folder in the run directory
# Half of what can be asked again is sealed, as in `optimize`; the rest is read, or measures.
TURNS: Mapping[bool, tuple[Split, ...]] = {
    False: ("train", "validation"),
    True: ("train", "test", "validation", "test"),
}
QUESTIONS = 12  # test rows below which the verdict can hardly be anything but "no evidence"


@dataclass(frozen=True, slots=True)
class Order:
    """Everything that decides a refinement."""

    config: Config
    files: tuple[str, ...]
    iterations: int = ITERATIONS
    columns: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()
    hide: bool = True  # redact
    lock: Lock = "numbers"
    verify: bool = False
    parts: Parts = field(default_factory=Parts)


def _ignore(found: Round) -> None:
    """The watcher of refinements that nobody watches."""


def refine(
    prompt: str,
    traces: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    iterations: int = ITERATIONS,
    candidates: int = CANDIDATES,
    columns: Sequence[str] = (),
    scales: Sequence[str] = (),
    redact: bool = True,
    lock: Lock = "numbers",
    dlm: str | Denoiser = "embedded",
    target: str | Respond | None = None,
    metric: str | Metric | None = None,
    seed: int = 0,
    run_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Refined:
    """Refine a system prompt by the conversations in the files `traces`; no labels are needed.

    Without `target` nothing is verified, and the verdict is "unverified". With it, baseline and
    refined prompt are compared on conversations that the refinement has not seen: `metric` compares
    the answers with corrections and well-rated responses (by default "judge" where
    settings["metric"]["judge"] is given, "label" where the right answers are a few labels, else
    "f1").
    columns, scales: as `--map` and `--scale`. lock: what of the prompt may not change: "text" (only
    new sentences are put between), "numbers" or "none". settings: any other keys of remask.toml.

    Raises ConfigError and DataError before anything is computed, TargetRefused and
    TargetUnreliable in the verification; result.json is then written all the same, unverified.
    """
    values: dict[str, Any] = {"prompt": prompt, "seed": seed, "search": {"candidates": candidates}}
    values["dlm"] = {"model": dlm if isinstance(dlm, str) else "object:denoiser"}
    if target is not None:
        values["target"] = {"model": target if isinstance(target, str) else "function:target"}
    if metric is not None:
        values["metric"] = {"name": metric if isinstance(metric, str) else "function:metric"}
    files = [traces] if isinstance(traces, str | os.PathLike) else list(traces)
    order = Order(
        config=configured(merged(values, settings or {}), "settings"),
        files=tuple(os.fspath(file) for file in files),
        iterations=iterations,
        columns=tuple(columns),
        scales=tuple(scales),
        hide=redact,
        lock=lock,
        verify=target is not None,
        parts=Parts(
            respond=None if target is None or isinstance(target, str) else target,
            metric=None if metric is None or isinstance(metric, str) else metric,
            denoiser=None if isinstance(dlm, str) else dlm,
        ),
    )
    return play(order, Path(run_dir) if run_dir else new_run_dir())


def configured(values: Mapping[str, Any], where: str) -> Config:
    """Settings with the defaults of a refinement. Raises ConfigError."""
    search = {"maskers": MASKERS, "candidates": CANDIDATES, "context_tokens": CONTEXT}
    return make_config(merged({"search": search}, values), where)


def _locked(order: Order) -> Config:
    """The settings, in which the maskers obey the lock. Raises ConfigError."""
    search = order.config.search
    if order.lock not in LOCKS:
        raise ConfigError(f"lock is {order.lock!r}; known: {', '.join(LOCKS)}")
    if order.lock != "text":
        return order.config
    if search.maskers not in (MASKERS, ("insert",)):
        raise ConfigError(
            "the lock on the text leaves only the masker insert; leave out --masker, or the lock"
        )
    search = search.model_copy(update={"maskers": ("insert",)})
    return order.config.model_copy(update={"search": search})


def play(
    order: Order,
    run_dir: Path,
    watch: Callable[[Round], None] = _ignore,
    gate: Callable[[], None] = lambda: None,
) -> Refined:
    """A whole refinement. `watch` sees every iteration when it is over; `gate` is called before
    each chunk of target calls, and both may raise to stop."""
    config = _locked(order)
    refuse_demos(config, "remask refine")
    if order.iterations < 1:
        raise ConfigError(f"iterations is {order.iterations}; it must be at least 1")
    _check_free(run_dir, order.verify)
    start = Prompt.parse(config.prompt)
    gathered = gather(start.text, order.files, order.columns, order.scales, order.hide)
    rows = _rows(order, gathered)
    splits = _splits(gathered.traces, {row.trace.id for row in rows})
    job, warnings = _job(order, start, rows, splits) if order.verify else (None, [])
    read, held, sealed = _parted(gathered.traces, splits)
    denoiser, scorer = _ranking(order)
    choose = kinds(gathered.traces).pack
    proposer = make_proposer(config, start, denoiser, choose=choose)
    search = config.search
    loop = Loop(
        iterations=order.iterations,
        candidates=search.candidates or CANDIDATES,
        traces=search.traces,
        context_tokens=search.context_tokens,
        free_numbers=order.lock == "none",
    )
    rounds = []
    for one in refinements(start, read, held, loop, proposer, scorer, config.seed, choose):
        rounds.append(one)
        watch(one)
    seen = Conversations(
        records=gathered.records,
        rejected=gathered.rejected,
        elsewhere=gathered.elsewhere,
        read=len(read),
        held=len(held),
        sealed=len(sealed),
        redacted=order.hide,
        secrets=gathered.secrets,
    )
    notes = (*gathered.notes, *warnings)
    result = make_refined(start, rounds, read, seen, notes, str(run_dir))
    if job is None or not result.edits:
        return _written(result, run_dir)
    return _verified(result, job, run_dir, gate)


# --- before anything is computed


def _check_free(run_dir: Path, verify: bool) -> None:
    """A result is never overwritten, unless its verification was cut and goes on."""
    cut = verify and (run_dir / VERIFICATION).exists()
    if (run_dir / RESULT).exists() and not cut:
        raise ConfigError(f"{run_dir} holds a result already; name another run directory")


def _ranking(order: Order) -> tuple[Denoiser, Scorer]:
    """The denoiser, and again as what gives probabilities. ConfigError where it cannot."""
    config = order.config.dlm
    denoiser = None if asks_api(config) else make_denoiser(config, order.parts.denoiser)
    if not isinstance(denoiser, Scorer):
        raise ConfigError(
            f"refine ranks by log-probabilities, which the denoiser {config.model} does not give; "
            "use the embedded one or local:PLACE, or give labelled rows to remask optimize"
        )
    return denoiser, denoiser


@dataclass(frozen=True, slots=True)
class _Row:
    """A conversation that a target can be asked again."""

    trace: Trace
    input: str


def _rows(order: Order, gathered: Gathered) -> list[_Row]:
    """Conversations of one message whose right answer is known, or that a judge is to grade."""
    if not order.verify:
        return []
    judged = order.config.metric.judge is not None or order.parts.metric is not None
    return [
        _Row(trace, gathered.asked[trace.id])
        for trace in gathered.traces
        if trace.id in gathered.asked and (judged or (trace.desired or "").strip())
    ]


def _splits(traces: Sequence[Trace], askable: set[str]) -> dict[str, Split]:
    """A split for every query, drawn by content; failing and other conversations take their equal
    shares in each split. Only queries that can be asked again come into the sealed split."""
    bad = {trace.query for trace in traces if failing(trace)}
    again = {trace.query for trace in traces if trace.id in askable}
    order = sorted(
        {trace.query for trace in traces},
        key=lambda query: (query in again, query not in bad, content_id("split", query)),
    )
    splits: dict[str, Split] = {}
    for kind in (False, True):
        turns = TURNS[kind]
        queries = [query for query in order if (query in again) == kind]
        splits |= {query: turns[i % len(turns)] for i, query in enumerate(queries)}
    return splits


def _parted(traces: Sequence[Trace], splits: Mapping[str, Split]) -> list[tuple[Trace, ...]]:
    """Traces that are read, held out, sealed. ConfigError where one of the first two is empty."""
    parts = [
        tuple(trace for trace in traces if splits[trace.query] == split)
        for split in ("train", "validation", "test")
    ]
    if not parts[0] or not parts[1]:
        raise ConfigError(
            f"{len(traces)} usable conversations with {len(splits)} different queries are too few: "
            "one part is read and another measures what was written; give more"
        )
    return parts


def _job(
    order: Order, start: Prompt, rows: Sequence[_Row], splits: Mapping[str, Split]
) -> tuple[Job, list[str]]:
    """The verification, as far as it can be known and checked before the loop, and warnings."""
    if not rows:
        raise ConfigError(
            "nothing to verify with: no conversation is a single message with a correction, an "
            "expected answer or a well-rated response; name a judge, or leave the target out"
        )
    examples = tuple(
        {
            (row.input, row.trace.desired): Example(
                content_id("example", row.input, row.trace.desired),
                splits[row.trace.query],
                row.input,
                row.trace.desired,
            )
            for row in rows
        }.values()
    )
    config = order.config
    metric = config.metric
    if "name" not in metric.model_fields_set:
        metric = metric.model_copy(update={"name": _metric(order, examples)})
        config = config.model_copy(update={"metric": metric})
    job = _made(order, config, start, examples)
    calls, warnings = config.budget.calls, []
    if calls is not None and job.test_calls > calls:
        fits = calls // (2 * job.calls_per_row)
        test = [e for e in examples if e.split == "test"][:fits]
        if not test:
            raise ConfigError(f"budget.calls = {calls} does not pay for one test row; raise it")
        warnings.append(
            f"budget.calls = {calls} pays for {len(test)} of {job.rows('test')} sealed rows"
        )
        kept = {e.id for e in test}
        job = _made(
            order, config, start, [e for e in examples if e.split != "test" or e.id in kept]
        )
    if job.rows("test") < QUESTIONS:
        warnings.append(f"only {job.rows('test')} sealed rows: too few for a verdict")
    check_task(job)  # whatever is wrong with target and metric shows here
    return job, warnings


def _made(order: Order, config: Config, start: Prompt, examples: Sequence[Example]) -> Job:
    labels = tuple(sorted({e.expected for e in examples if e.expected is not None}))
    dataset = Dataset(tuple(examples), (), labels)
    record = {**config.model_dump(mode="json"), "data_id": data_id(dataset)}
    return Job(config, order.parts, start, dataset, record)


def _metric(order: Order, examples: Sequence[Example]) -> str:
    """The metric where the user names none."""
    if order.config.metric.judge is not None:
        return "judge"
    answers = {e.expected for e in examples}
    return "label" if 2 <= len(answers) <= min(MAX_CLASSES, len(examples) // 2) else "f1"


# --- afterwards


def _verified(result: Refined, job: Job, run_dir: Path, gate: Callable[[], None]) -> Refined:
    """The comparison of both prompts on the sealed rows, each answered once."""
    best = Prompt.parse(result.marked)
    folder = run_dir / VERIFICATION
    record = {**job.record, "refined": best.marked()}
    opened = Store.open if folder.exists() else Store.create
    with opened(folder, record) as store:
        _written(result, run_dir)  # what is there already outlives a target that fails
        with open_task(job, open_account(job, store, Hooks(gate=gate))) as task:
            before, after = final_test(task, job.start, best)
        spend = store.spent()
    test, failed = compare_rows(rows_of(before), rows_of(after))
    warnings = list(result.warnings)
    if failed:
        warnings.append(f"{failed} sealed rows have no score because the call failed; left out")
    return _written(
        replace(
            result,
            verdict=test.verdict,
            test=test,
            metric=job.config.metric.name,
            spend=spend,
            warnings=tuple(warnings),
        ),
        run_dir,
    )


def _written(result: Refined, run_dir: Path) -> Refined:
    """result.json and report.md, each whole or not at all."""
    from remask.report.markdown import render

    run_dir.mkdir(parents=True, exist_ok=True)
    pages = {
        RESULT: orjson.dumps(result.to_dict(), option=orjson.OPT_INDENT_2),
        PAGE: render(result).encode(),
    }
    for name, content in pages.items():
        draft = run_dir / f".{name}"
        draft.write_bytes(content)
        draft.replace(run_dir / name)
    return result
