"""`remask check`: find problems before the first call, and estimate the cost of a run.

Checks one part after the other and continues after a problem, so that it reports all of them. Makes
no call that costs money: it asks a remote endpoint only for its list of models. Only a pilot
(`--pilot`) asks the target, after the report was printed.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import click
import orjson

from remask.api.build_goals import describe_goals, require_guard_rows
from remask.api.build_models import asks_api, describe_endpoint, describe_memory, make_price
from remask.api.build_proposer import check_proposer
from remask.api.build_task import describe_metric
from remask.api.forecast import DenoisingTime, measure_workload, time_calls, time_denoising
from remask.api.job import Hooks, Job, follow_steps, open_job
from remask.api.least_budget import require_least_budget
from remask.api.pilot import Pilot, plan_pilot, require_pilot, run_pilot
from remask.cli.interrupt import Interrupted, InterruptHandler, exit_stopped
from remask.cli.live import open_side_display
from remask.cli.settings import Request
from remask.config import TargetConfig
from remask.errors import RemaskError, TargetBusy
from remask.prompt import Prompt
from remask.propose.demonstrations import count_block_tokens
from remask.propose.languages import name_languages
from remask.propose.structure import hold_structure
from remask.runs.budget import Spend, format_amount, format_usd
from remask.runs.database import FILE
from remask.runs.progress import Follower, Workload
from remask.runs.report.summary import format_spend
from remask.sanitize import one_line
from remask.tasks.inspect.setup import make_models

Kind = Literal["ok", "problem", "note"]
CHARACTERS_PER_TOKEN = 4  # in English; rough
DENOISER_INPUT_TOKENS = 250  # of a request to a denoiser, without traces and prompt
DENOISER_OUTPUT_TOKENS = 60  # of its answer; rough
MAX_SHOWN_REGIONS = 6  # of the prompt
MODEL_LIST_TIMEOUT = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    about: str  # the part that was checked
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Cost:
    """The estimated cost of a run in one unit. None: unknown."""

    unit: str
    low: float | None  # no round finds a better prompt
    likely: float | None  # the search stops early
    high: float | None  # the whole budget is spent


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, and the estimated cost of a run without problems."""

    findings: tuple[Finding, ...]
    costs: tuple[Cost, ...]
    note: str = "Calls are exact limits. Tokens and minutes are rough."

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not _has_problem(self.findings)


def check_run(request: Request, json: bool, pilot_rows: int | None = None) -> bool:
    """Check everything and print the report. Returns whether no problem was found.

    pilot_rows: the number of rows of a pilot, which asks the target after the report was printed.
    """
    if pilot_rows is not None:
        require_pilot(request.config, pilot_rows)
    with open_job(request.config, request.given, run_dir=request.run_dir) as job:
        with open_side_display(json) as display, _use_hooks(job, display):
            report = examine_job(job, request, pilot_rows)
        if pilot_rows is None or not report.ok:
            print_report(report, json)
            return report.ok
        if not json:
            _print_findings(report)
        found = _ask_pilot(job, pilot_rows, json)
    if json:
        print_report(report, json, found)
    else:
        click.echo()
        for line in found.describe():
            click.echo(line)
        click.echo(f"The pilot spent {format_spend(found.spend)}, apart from the budget of a run.\nReady.")
    return True


def examine(request: Request, hooks: Hooks | None = None) -> Report:
    """Check everything. Problems become findings, not exceptions."""
    with open_job(request.config, request.given, hooks or Hooks(), request.run_dir) as job:
        return examine_job(job, request)


def examine_job(job: Job, request: Request, pilot_rows: int | None = None) -> Report:
    """Check the job of a request, as `examine` does, and that a pilot can be made."""
    config, hooks = job.config, job.hooks
    with follow_steps(hooks):
        findings: list[Finding] = []

        def add(about: str, check: Callable[[], Iterator[Finding] | None]) -> None:
            hooks.step(f"checking the {about}", len(findings), 0, Spend())
            known = {finding.text for finding in findings}
            # A wrong part is a problem of each part that needs it, too. It is reported once.
            findings.extend(f for f in _collect(about, check) if f.text not in known)

        add("run", lambda: _check_run_dir(request))
        add("prompt", lambda: _check_prompt(job))
        add("data", lambda: _check_data(job))
        add("budget", lambda: _check_budget(job))
        if not _has_problem(findings):
            add("plan", job.require_rows)
            add("budget", lambda: require_least_budget(job))
        add("goals", lambda: _check_goals(job))
        add("target", lambda: _check_target(job))
        add("denoiser", lambda: _check_denoiser(job))
        costs: tuple[Cost, ...] = ()
        if not _has_problem(findings):
            add("task", lambda: _check_task(job))
            if job.has_test:
                add("target", job.require_target)
            add("denoiser", job.require_all)
        if not _has_problem(findings):
            costs = _estimate_run(job, add, findings)
        if pilot_rows is not None and not _has_problem(findings):
            add("pilot", lambda: _describe_pilot(job, pilot_rows))
    calls = config.task.calls_per_sample
    note = f"All figures are rough: they assume {calls} calls per sample (task.calls_per_sample)."
    return Report(tuple(findings), costs, *([note] if config.task.name else []))


def _estimate_run(
    job: Job, add: Callable[[str, Callable[[], Iterator[Finding]]], None], findings: list[Finding]
) -> tuple[Cost, ...]:
    """Add what a run will do to the findings, and return what it may cost."""
    add("plan", lambda: _describe_plan(job))
    denoising = time_denoising(job)
    called = time_calls(job)
    if called is not None and job.config.target.model != "builtin":
        findings.append(Finding("target", "note", called.describe()))
    load = measure_workload(job, denoising, called)
    add("plan", lambda: _describe_denoising(load, denoising))
    costs = tuple(_estimate_costs(job, load))
    add("budget", lambda: _compare_with_limits(job, costs))
    return costs


@contextmanager
def _use_hooks(job: Job, hooks: Hooks) -> Iterator[None]:
    """Let the hooks follow the job in the block."""
    before, job.hooks = job.hooks, hooks
    try:
        yield
    finally:
        job.hooks = before


def _describe_pilot(job: Job, rows: int) -> Iterator[Finding]:
    """Say what the pilot costs, before it is spent."""
    yield Finding("pilot", "note", plan_pilot(job, rows).describe())


def _ask_pilot(job: Job, rows: int, json: bool) -> Pilot:
    """Make the pilot, with a display. Exits where the user interrupts it."""
    plan = plan_pilot(job, rows)
    if json:  # standard output has only the report
        click.echo(orjson.dumps({"kind": "PilotPlan", "calls": plan.calls, "tokens": plan.tokens,
                                 "usd": plan.usd}), err=True)  # fmt: skip
    with InterruptHandler() as signals:
        job.ledger.checkpoint = signals.checkpoint
        follower = Follower(job.ledger.budget, is_stopping=signals.is_pending)
        try:
            with open_side_display(json, follower) as display:
                hooks = replace(display, checkpoint=signals.checkpoint)
                with _use_hooks(job, hooks):
                    return run_pilot(job, plan)
        except (Interrupted, KeyboardInterrupt) as stop:
            exit_stopped("stopped", stop)


def _has_problem(findings: Sequence[Finding]) -> bool:
    return any(finding.kind == "problem" for finding in findings)


def _collect(about: str, check: Callable[[], Iterator[Finding] | None]) -> list[Finding]:
    """Return the findings of a check. An exception of remask is a problem."""
    found: list[Finding] = []
    try:
        found.extend(check() or ())
    except RemaskError as error:
        found.append(Finding(about, "problem", one_line(str(error))))
    return found


def _check_run_dir(request: Request) -> Iterator[Finding]:
    folder = request.run_dir
    place = folder or Path("runs")
    first = next(path for path in (place, *place.absolute().parents) if path.exists())  # that exists
    if not first.is_dir() or not os.access(first, os.W_OK | os.X_OK):
        why = "is not a folder" if not first.is_dir() else "cannot be written to"
        yield Finding("run", "problem", f"{place} cannot be made: {first} {why}; name another --run-dir")
    elif folder is None:
        yield Finding("run", "ok", "a new folder in runs/")
    elif (folder / FILE).exists():
        yield Finding("run", "problem", f"{folder} already holds a run; name another --run-dir")
    else:
        yield Finding("run", "ok", f"{folder} is free")


def _check_prompt(job: Job) -> Iterator[Finding]:
    whole = Prompt.parse(job.config.prompt)
    for name, part in (whole.components or {"": whole}).items():
        yield from _check_text(name, hold_structure(part, _find_labels(job)))
    if whole.editable:
        _ = job.start  # raises where anything else is wrong with the prompt


def _check_text(name: str, prompt: Prompt) -> Iterator[Finding]:
    """Say what is editable in a prompt, or in the component `name` of it."""
    frozen, about = prompt.frozen, f"{name}: " if name else ""
    yield Finding(
        "prompt",
        "ok" if prompt.editable or name else "problem",
        f"{about}{len(prompt.text)} characters; editable parts: {len(prompt.editable)}, "
        f"frozen parts: {len(frozen)}"
        + ("" if prompt.editable else "; leave some plain words outside frozen ones"),
    )
    for kind, spans in (("editable", prompt.editable), ("frozen", frozen)):
        for start, stop in spans[:MAX_SHOWN_REGIONS]:
            shown = one_line(prompt.text[start:stop], 70)
            at = "at its start" if start == stop else repr(shown)
            yield Finding("prompt", "note", f"{about}{kind}: {at}")
        if len(spans) > MAX_SHOWN_REGIONS:
            yield Finding("prompt", "note", f"{about}{kind}: {len(spans) - MAX_SHOWN_REGIONS} more")


def _find_labels(job: Job) -> tuple[str, ...]:
    """Return the labels of the task, which are frozen in the prompt; none where that is unknown."""
    config = job.config
    if config.metric.name != "label" or config.task.name or config.data.queries or job.reading:
        return ()
    try:
        return config.metric.labels or job.dataset.labels
    except RemaskError:  # reported as a problem of the data
        return ()


def _check_data(job: Job) -> Iterator[Finding]:
    config, dataset = job.config, job.dataset
    if config.data.queries:
        text = f"no data: the target will write {config.data.queries} messages"
        yield Finding("data", "ok", text)
        return
    counts = {s: sum(e.split == s for e in dataset.examples) for s in ("train", "validation", "test")}
    rows = ", ".join(f"{split} {count}" for split, count in counts.items())
    yield Finding("data", "ok", f"{len(dataset.examples)} rows: {rows}")
    yield Finding(
        "data", "note", f"first message: {one_line(job.redactor.redact(dataset.examples[0].input), 70)!r}"
    )
    if config.metric.name == "label" and not config.task.name:
        labels = config.metric.labels or dataset.labels
        yield Finding("data", "note", f"labels: {', '.join(map(one_line, labels))}")
    for warning in dataset.warnings:
        yield Finding("data", "note", f"warning: {one_line(warning)}")


def _check_goals(job: Job) -> Iterator[Finding]:
    if job.reading is None:
        yield from (Finding("goals", "note", one_line(text)) for text in describe_goals(job))
        require_guard_rows(job.goals)


def _check_budget(job: Job) -> Iterator[Finding]:
    _ = job.ledger
    limits = {k: v for k, v in job.config.budget.model_dump().items() if v is not None}
    text = ", ".join(format_amount(name, value) for name, value in limits.items()) or "no limit"
    yield Finding("budget", "ok", text)


def _check_target(job: Job) -> Iterator[Finding]:
    config = job.config.target
    if job.config.task.name:
        main, roles = make_models(job.config)
        named = ", ".join([str(main), *(f"{role}: {model}" for role, model in roles.items())])
        yield Finding("target", "ok", f"{named}: the package of the provider and a key were found")
        return
    if need := describe_memory(config):
        yield Finding("target", "note", need)
    _ = job.target
    if not config.model.startswith("openai:"):
        found = {"builtin": "weights were", "local": "weights were", "inspect": "provider and a key were"}
        what = found.get(config.model.partition(":")[0], "function was")
        yield Finding("target", "ok", f"{describe_endpoint(config)}: the {what} found")
        return
    yield Finding("target", "ok", f"{describe_endpoint(config)}: the openai package was found")
    yield _check_model_list(config)


def _check_model_list(config: TargetConfig) -> Finding:
    """Ask the endpoint for its models. No provider bills this request."""
    from remask.models.openai import OpenAITarget  # loads the SDK

    model, place = config.model.partition(":")[2], config.base_url or None
    try:
        with OpenAITarget(model, place, key_env=config.api_key_env, timeout=MODEL_LIST_TIMEOUT) as target:
            status, names = target.list_models()
    except TargetBusy as error:
        return Finding("target", "problem", one_line(f"{describe_endpoint(config)}: {error}"))
    if status in (401, 403):
        refusal = f"{describe_endpoint(config)} refuses the key in {config.api_key_env} ({status})"
        return Finding("target", "problem", refusal)
    if status != 200:
        return Finding("target", "ok", f"the server answers, but gives no model list ({status})")
    if names and model not in names:
        some = ", ".join(one_line(name, 40) for name in names[:5])
        text = f"warning: the server does not list {model!r}; it has {some}"
        return Finding("target", "note", text)
    return Finding("target", "ok", "the server answers" + (" and lists the model" if names else ""))


def _check_denoiser(job: Job) -> Iterator[Finding]:
    config = job.config.denoiser
    if need := describe_memory(config):
        yield Finding("denoiser", "note", need)
    start = Prompt.parse(job.config.prompt)
    check_proposer(job.config, start, job.denoiser)
    tokens = job.denoiser.count(start.text)
    if asks_api(config):
        text = "an API, which this command does not call; its calls count against the budget"
        yield Finding("denoiser", "ok", f"{describe_endpoint(config)}: {text}")
        yield Finding("prompt", "note", f"{tokens} tokens, estimated from its length")
        return
    yield Finding("denoiser", "ok", f"{config.model}: the weights were found")
    languages = name_languages(start)
    if config.model == "builtin" and languages and "english" not in languages:
        known = f"looks {languages[0]}" if len(languages) == 1 else "is in another language"
        text = f"warning: the built-in denoiser writes English, which is refused: the prompt {known}"
        yield Finding("denoiser", "note", text)
    yield Finding("prompt", "note", f"{tokens} tokens, as the denoiser counts")


def _check_task(job: Job) -> Iterator[Finding]:
    if job.config.task.name:
        yield Finding("task", "ok", job.place_prompt())
        return
    labels = () if job.config.data.queries else job.task.labels
    yield Finding("task", "ok", one_line(describe_metric(job.config, job.target, labels)))


def _describe_plan(job: Job) -> Iterator[Finding]:
    plan = job.plan
    most = plan.count_round_calls(job.rows("validation"))
    yield Finding(
        "plan", "ok",
        f"up to {plan.rounds} rounds of {plan.candidates} candidates on "
        f"{' + '.join(map(str, plan.rungs))} train rows and "
        f"{plan.count_validation_rows(job.rows('validation'))} validation rows, "
        f"at most {most:,} calls per round"
    )  # fmt: skip
    yield Finding("plan", "note", f"stops after {plan.patience} rounds without an accepted edit")
    spare = job.add_retries(job.test_calls) - job.test_calls
    more = f", with {spare} more for retries" if spare and job.test_calls else ""
    yield Finding("plan", "note", f"sealed test: {job.test_calls:,} calls, reserved first{more}")
    if calls := job.query_calls:
        yield Finding("plan", "note", f"messages of the target: at most {calls} calls")
    if calls := job.denoiser_calls_per_round(plan):
        yield Finding("plan", "note", f"denoiser: about {calls} further calls per round")


def _describe_denoising(load: Workload, denoising: DenoisingTime | None) -> Iterator[Finding]:
    if denoising is not None and (seconds := load.seconds_per_round) is not None:
        amount = f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.1f} minutes"
        text = f"denoising: about {amount} in each round, from a timed sample of {denoising.timed} steps"
        yield Finding("plan", "note", text)


def _estimate_costs(job: Job, load: Workload) -> Iterator[Cost]:
    calls = _estimate_calls(job, load)
    yield Cost("calls", *calls)
    rows = job.dataset.examples
    text = len(job.start.text) + sum(len(e.input) for e in rows) / len(rows)
    labelled = job.config.metric.name == "label" and not job.config.task.name
    answer = 8 if labelled else job.config.target.max_tokens or 256
    inputs = text / CHARACTERS_PER_TOKEN + 20
    share = job.denoiser_calls_per_round(job.plan) / load.round_calls  # of the calls, the denoiser's
    prompt = len(job.start.text) / CHARACTERS_PER_TOKEN
    read = prompt + job.config.search.context_tokens + DENOISER_INPUT_TOKENS
    each = (1 - share) * (inputs + answer) + share * (read + DENOISER_OUTPUT_TOKENS)
    # Examples in the prompt are read in each call: in none, in half of the calls, in all.
    shown = [part * (1 - share) * _estimate_block(job) for part in (0, 0.5, 1)]
    yield Cost("tokens", *(n * (each + more) for n, more in zip(calls, shown, strict=True)))
    price, other = job.ledger.price, make_price(job.config.denoiser)
    if price is None or (share and other is None):
        yield Cost("USD", None, None, None)
    else:
        usd = (1 - share) * price.usd(round(1000 * inputs), round(1000 * answer)) / 1000
        if other is not None:
            usd += share * other.usd(round(1000 * read), 1000 * DENOISER_OUTPUT_TOKENS) / 1000
        blocks = (price.usd(round(1000 * more), 0) / 1000 for more in shown)
        yield Cost("USD", *(n * (usd + more) for n, more in zip(calls, blocks, strict=True)))
    likely, high = load.count_all_rounds(), load.count_all_rounds(load.rounds)
    seconds = map(load.count_seconds, calls, (likely, likely, high))
    yield Cost("minutes", *(None if value is None else value / 60 for value in seconds))


def _estimate_block(job: Job) -> float:
    """Estimate the tokens of the most examples that a prompt may show."""
    if job.reading is not None:
        return 0.0
    rows = job.dataset.examples
    text = sum(len(e.input) + len(e.expected or "") for e in rows) / len(rows)
    return min(count_block_tokens(job.max_demos), job.max_demos * text / CHARACTERS_PER_TOKEN)


def _compare_with_limits(job: Job, costs: Sequence[Cost]) -> Iterator[Finding]:
    """Warn of limits below the likely cost. A limit that cannot pay a run is a problem before."""
    limits = job.config.budget.model_dump()
    for cost in costs:
        name = cost.unit.lower()
        limit = limits[name]
        if limit is not None and cost.likely is not None and limit < cost.likely:
            yield Finding(
                "budget", "note", f"warning: a run is likely to take {format_amount(name, cost.likely)}; "
                f"with {format_amount(name, limit)} the search may end early"
            )  # fmt: skip


def _estimate_calls(job: Job, load: Workload) -> tuple[int, int, int]:
    """Return the lowest, likely and highest number of calls of a run."""
    high, likely = load.count_calls(load.rounds), load.count_calls(load.count_all_rounds())
    validated = job.calls_per_row * job.plan.count_validation_rows(job.rows("validation"))
    # No candidate is validated, and the prompt stays, so that the test scores it alone.
    low = load.first_calls + load.patience * (load.round_calls - validated) + load.test_calls // 2
    return min(low, likely), likely, high


def print_report(report: Report, json: bool, pilot: Pilot | None = None) -> None:
    """Print the report. Findings contain no control characters."""
    if json:
        more = {} if pilot is None else {"pilot": {"matters": pilot.matters, **asdict(pilot)}}
        click.echo(orjson.dumps({"kind": "Check", "ok": report.ok, "findings": report.findings,
                                 "costs": report.costs, **more}))  # fmt: skip
        return
    _print_findings(report)
    click.echo("Ready." if report.ok else "Not ready. Fix the items marked PROBLEM.")


def _print_findings(report: Report) -> None:
    for finding in report.findings:
        mark = {"ok": "ok", "problem": "PROBLEM", "note": ""}[finding.kind]
        click.echo(f"{finding.about:<8} {mark:<8} {finding.text}")
    for i, cost in enumerate(report.costs):
        if not i:
            click.echo(f"\n{'estimate':<10}{'low':>12}{'likely':>12}{'high':>12}")
        amounts = "".join(f"{_format_cost(cost.unit, v):>12}" for v in (cost.low, cost.likely, cost.high))
        click.echo(f"{cost.unit:<10}{amounts}")
    if report.costs:
        click.echo(report.note)


def _format_cost(unit: str, value: float | None) -> str:
    if value is None:
        return "unknown"
    if unit == "USD":
        return format_usd(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"
