"""`remask check`: everything that can be found wrong before a call is spent, and what a run costs.

Asks every room in turn and goes on after a problem, so that one look shows them all. Makes no call
that is billed: of a remote endpoint it only asks for the list of models.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import click
import orjson

from remask.api.build_models import asks_api, describe_endpoint, describe_memory, make_price
from remask.api.build_proposer import check_proposer
from remask.api.build_task import describe_metric
from remask.api.job import Job, open_job
from remask.cli.settings import Request
from remask.config import TargetConfig
from remask.errors import RemaskError, TargetBusy
from remask.prompt import Prompt
from remask.runs.database import FILE
from remask.sanitize import one_line
from remask.tasks.inspect.setup import make_models

Kind = Literal["ok", "problem", "note"]
SECONDS_PER_CALL = 0.08  # of the built-in target on two cores, rough; denoising comes on top
CHARACTERS_PER_TOKEN = 4  # rough, for English
ASK_ROOM = 250  # tokens of what a denoiser is told beside traces and prompt
WRITTEN = 60  # tokens of its answer, rough
SHOWN = 6  # regions of the prompt that are listed
TIMEOUT = 5.0  # seconds to wait for the list of models


@dataclass(frozen=True, slots=True)
class Finding:
    about: str
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Cost:
    """Low: no round finds anything. Likely: the search is over early. High: all is spent."""

    unit: str
    low: float | None  # None: unknown
    likely: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Report:
    findings: tuple[Finding, ...]
    costs: tuple[Cost, ...]
    note: str = "calls are exact bounds; tokens and minutes are rough, denoising not included"

    @property
    def ok(self) -> bool:
        return all(f.kind != "problem" for f in self.findings)


def examine(request: Request) -> Report:
    """Look at everything; problems become findings, not exceptions."""
    config = request.config
    with open_job(config, request.given, run_dir=request.run_dir) as job:
        findings: list[Finding] = []

        def look(about: str, find: Callable[[], Iterator[Finding] | None]) -> None:
            known = {finding.text for finding in findings}
            # A broken part shows in every part that needs it; it is said once.
            findings.extend(f for f in _tried(about, find) if f.text not in known)

        look("run", lambda: _run_dir(request))
        look("prompt", lambda: _prompt(job))
        look("data", lambda: _data(job))
        look("budget", lambda: _budget(job))
        if not _problems(findings):
            look("plan", job.require_rows)
        look("target", lambda: _target(job))
        look("denoiser", lambda: _dlm(job))
        costs: tuple[Cost, ...] = ()
        if not _problems(findings):
            look("task", lambda: _task(job))
            look("denoiser", job.require_all)
        if not _problems(findings):
            look("plan", lambda: _plan(job))
            costs = tuple(_costs(job))
    note = f"with {config.task.calls_per_sample} calls a sample (task.calls_per_sample): all rough"
    return Report(tuple(findings), costs, *([note] if config.task.name else []))


def _problems(findings: Sequence[Finding]) -> bool:
    return any(finding.kind == "problem" for finding in findings)


def _tried(about: str, look: Callable[[], Iterator[Finding] | None]) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(look() or ())
    except RemaskError as error:
        found.append(Finding(about, "problem", one_line(str(error))))
    return found


def _run_dir(request: Request) -> Iterator[Finding]:
    folder = request.run_dir
    if folder is None:
        yield Finding("run", "ok", "a new folder under runs/")
    elif (folder / FILE).exists():
        yield Finding("run", "problem", f"{folder} holds a run already; name another --run-dir")
    else:
        yield Finding("run", "ok", f"{folder} is free")


def _prompt(job: Job) -> Iterator[Finding]:
    prompt = Prompt.parse(job.config.prompt)
    frozen = prompt.frozen
    yield Finding(
        "prompt",
        "ok" if prompt.editable else "problem",
        f"{len(prompt.text)} characters, {len(prompt.editable)} editable and {len(frozen)} frozen "
        "regions" + ("" if prompt.editable else "; leave some plain words outside frozen ones"),
    )
    for name, spans in (("editable", prompt.editable), ("frozen", frozen)):
        for start, stop in spans[:SHOWN]:
            yield Finding("prompt", "note", f"{name}: {one_line(prompt.text[start:stop], 70)!r}")
        if len(spans) > SHOWN:
            yield Finding("prompt", "note", f"{name}: {len(spans) - SHOWN} more")
    if prompt.editable:
        _ = job.start  # says what else is wrong with it


def _data(job: Job) -> Iterator[Finding]:
    config, dataset = job.config, job.dataset
    if config.data.queries:
        yield Finding("data", "ok", f"none: {config.data.queries} messages, from the target")
        return
    counts = {s: sum(e.split == s for e in dataset.examples) for s in ("train", "validation", "test")}
    rows = ", ".join(f"{split} {count}" for split, count in counts.items())
    yield Finding("data", "ok", f"{len(dataset.examples)} rows: {rows}")
    yield Finding("data", "note", f"first message: {one_line(dataset.examples[0].input, 70)!r}")
    if config.metric.name == "label" and not config.task.name:
        labels = config.metric.labels or dataset.labels
        yield Finding("data", "note", f"labels: {', '.join(map(one_line, labels))}")
    for warning in dataset.warnings:
        yield Finding("data", "note", f"warning: {one_line(warning)}")


def _budget(job: Job) -> Iterator[Finding]:
    _ = job.ledger
    limits = {k: v for k, v in job.config.budget.model_dump().items() if v is not None}
    text = ", ".join(f"{value:,} {name}" for name, value in limits.items()) or "no limit"
    yield Finding("budget", "ok", text)


def _target(job: Job) -> Iterator[Finding]:
    config = job.config.target
    if job.config.task.name:
        main, roles = make_models(job.config)
        named = ", ".join([str(main), *(f"{role}: {model}" for role, model in roles.items())])
        yield Finding("target", "ok", f"{named}: the provider's package and a key are there")
        return
    _ = job.target
    if not config.model.startswith("openai:"):
        yield Finding("target", "ok", f"{describe_endpoint(config)}: the weights are there")
        return
    yield Finding("target", "ok", f"{describe_endpoint(config)}: the openai package is there")
    yield _models(config)


def _models(config: TargetConfig) -> Finding:
    """Ask the endpoint for its models, which no provider bills."""
    from remask.models.openai import OpenAITarget  # loads the SDK

    model, place = config.model.partition(":")[2], config.base_url or None
    try:
        with OpenAITarget(model, place, key_env=config.api_key_env, timeout=TIMEOUT) as target:
            status, names = target.list_models()
    except TargetBusy as error:
        return Finding("target", "problem", one_line(f"{describe_endpoint(config)}: {error}"))
    if status in (401, 403):
        refusal = f"{describe_endpoint(config)} refuses the key in {config.api_key_env} ({status})"
        return Finding("target", "problem", refusal)
    if status != 200:
        return Finding("target", "ok", f"the server answers, with no list ({status})")
    if names and model not in names:
        some = ", ".join(one_line(name, 40) for name in names[:5])
        text = f"warning: the server does not list {model!r}; it has {some}"
        return Finding("target", "note", text)
    return Finding("target", "ok", "the server answers" + (" and lists the model" if names else ""))


def _dlm(job: Job) -> Iterator[Finding]:
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
    yield Finding("denoiser", "ok", f"{config.model}: the weights are there")
    yield Finding("prompt", "note", f"{tokens} tokens of the diffusion model")


def _task(job: Job) -> Iterator[Finding]:
    if job.config.task.name:
        yield Finding("task", "ok", job.place_prompt())
        return
    labels = () if job.config.data.queries else job.task.labels
    yield Finding("task", "ok", one_line(describe_metric(job.config, job.target, labels)))


def _plan(job: Job) -> Iterator[Finding]:
    plan = job.plan
    most = plan.count_round_calls(job.rows("validation"))
    yield Finding(
        "plan", "ok",
        f"up to {plan.rounds} rounds of {plan.candidates} candidates on {' + '.join(map(str, plan.rungs))} "
        f"train rows and {plan.count_validation_rows(job.rows('validation'))} validation rows, {most:,} "
        "calls a round at most"
    )  # fmt: skip
    yield Finding("plan", "note", f"stops after {plan.patience} rounds without an accepted edit")
    yield Finding("plan", "note", f"sealed test: {job.test_calls:,} calls, set aside first")
    if asked := job.query_calls:
        yield Finding("plan", "note", f"messages from the target: {asked} calls at most")
    if asked := job.denoiser_calls_per_round(plan):
        yield Finding("plan", "note", f"denoiser: about {asked} calls a round more, an estimate")


def _costs(job: Job) -> Iterator[Cost]:
    low, likely, high = calls = _calls(job)
    yield Cost("calls", *calls)
    rows = job.dataset.examples
    text = len(job.start.text) + sum(len(e.input) for e in rows) / len(rows)
    labelled = job.config.metric.name == "label" and not job.config.task.name
    answer = 8 if labelled else job.config.target.max_tokens or 256
    inputs = text / CHARACTERS_PER_TOKEN + 20
    asked = _asked(job)
    read = len(job.start.text) / CHARACTERS_PER_TOKEN + job.config.search.context_tokens + ASK_ROOM
    each = (1 - asked) * (inputs + answer) + asked * (read + WRITTEN)
    yield Cost("tokens", *(n * each for n in calls))
    price, other = job.ledger.price, make_price(job.config.denoiser)
    if price is None or (asked and other is None):
        yield Cost("USD", None, None, None)
    else:
        usd = (1 - asked) * price.usd(round(1000 * inputs), round(1000 * answer)) / 1000
        if other is not None:
            usd += asked * other.usd(round(1000 * read), 1000 * WRITTEN) / 1000
        yield Cost("USD", *(n * usd for n in calls))
    if job.config.target.model == "builtin" and not asked:
        yield Cost("minutes", *(n * SECONDS_PER_CALL / 60 for n in (low, likely, high)))
    else:
        yield Cost("minutes", None, None, None)


def _asked(job: Job) -> float:
    """The share of a round's calls that go to the denoiser."""
    plan = job.plan
    asked = job.denoiser_calls_per_round(plan)
    scored = job.calls_per_row * plan.count_round_calls(job.rows("validation"))
    return asked / (asked + scored)


def _calls(job: Job) -> tuple[int, int, int]:
    """Calls of a whole run; those of a denoiser behind an API are estimated."""
    plan, validation = job.plan, job.rows("validation")
    test, per_row = job.test_calls, job.calls_per_row
    each = per_row * plan.count_round_calls(validation)
    each += job.denoiser_calls_per_round(plan)
    validated = per_row * plan.count_validation_rows(validation)
    test += job.query_calls
    limit = job.config.budget.calls
    most = validated + plan.rounds * each + test
    high = most if limit is None else min(limit, most)
    likely = min(high, validated + plan.patience * each + test)
    low = min(likely, validated + plan.patience * (each - validated) + test // 2)
    return low, likely, high


def show(report: Report, json: bool) -> None:
    """Print the report; never with control characters of what was read."""
    if json:
        click.echo(orjson.dumps({"kind": "Check", "ok": report.ok, "findings": report.findings,
                                 "costs": report.costs}))  # fmt: skip
        return
    for finding in report.findings:
        mark = {"ok": "ok", "problem": "PROBLEM", "note": ""}[finding.kind]
        click.echo(f"{finding.about:<8} {mark:<8} {finding.text}")
    for i, cost in enumerate(report.costs):
        if not i:
            click.echo(f"\n{'estimate':<10}{'low':>12}{'likely':>12}{'high':>12}")
        figures = "".join(f"{_amount(v):>12}" for v in (cost.low, cost.likely, cost.high))
        click.echo(f"{cost.unit:<10}{figures}")
    if report.costs:
        click.echo(report.note)
    click.echo("ready" if report.ok else "not ready: mend what is marked PROBLEM")


def _amount(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"
