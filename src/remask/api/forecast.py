"""What a run may have to do, and how long that takes, from timed samples of its models.

The sample denoises some steps of a text that is thrown away. It changes no result: it draws from no
generator of the run, and what it caches are exact values.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from remask.api.build_models import asks_api
from remask.api.job import Job
from remask.dlm.canvas import MAX_BATCH_CANVASES
from remask.errors import RemaskError
from remask.ports import Canvas, Context, Hole, watch_steps
from remask.runs.budget import Spend
from remask.runs.progress import Workload
from remask.tasks.labelled import fill_answer, make_chat
from remask.types import Trace

MAX_TIMED_STEPS = 4
MAX_TIMED_SECONDS = 3.0  # a step that is running then is waited for
TIMED_TOKENS = 24  # of the hole: the denoiser needs one step for each
TIMED_CALLS = 8


class _Enough(Exception):
    """The sample has its steps."""


@dataclass(frozen=True, slots=True)
class DenoisingTime:
    """How long the denoiser takes, of a sample."""

    first: float  # seconds until the first step is done: it reads the conversations, too
    step: float  # seconds of each further step
    steps: int  # of a batch
    batch: int  # candidates in it
    timed: int  # steps that were timed

    def estimate_round(self, candidates: int) -> float:
        """Estimate the seconds of denoising of so many candidates."""
        batches = -(-candidates // self.batch)
        return batches * (self.first + (self.steps - 1) * self.step)


def time_denoising(job: Job) -> DenoisingTime | None:
    """Time a few steps of the denoiser. None where it is an API, or cannot be timed.

    Signals and limits are looked at as in a run; what they raise passes through.
    """
    config = job.config
    if asks_api(config.denoiser) or job.given.denoiser is not None:
        return None
    # Before the first exact reading, an approximate denoiser measures no error that a result names.
    most = min(MAX_TIMED_STEPS, config.denoiser.refresh)
    found: list[float] = []
    total = 1
    began = time.monotonic()
    job.hooks.step("timing a few denoising steps", 0, 0, Spend())

    def watch(what: str, done: int, steps: int) -> None:
        nonlocal total
        if what == "candidate":
            return
        job.hooks.checkpoint()
        if what == "denoising step":
            total = steps
            found.append(time.monotonic() - began)
            job.hooks.step(what, done, steps, Spend())
            if len(found) >= most or found[-1] > MAX_TIMED_SECONDS:
                raise _Enough

    count = min(MAX_BATCH_CANVASES, _count_candidates(job))
    try:
        with watch_steps(watch):
            job.denoiser.infill(_make_context(job), [_make_canvas(job, i) for i in range(count)], 0)
    except _Enough:
        pass
    except (RemaskError, ValueError, RuntimeError):  # the run itself will say what is wrong
        return None
    if not found:
        return None
    later = (found[-1] - found[0]) / (len(found) - 1) if len(found) > 1 else found[0]
    return DenoisingTime(found[0], later, total, count, len(found))


@dataclass(frozen=True, slots=True)
class CallTime:
    """How long a target on this machine takes, of a sample of calls."""

    seconds: float  # of one call
    tokens: int  # read and written in one call, on average

    def describe(self) -> str:
        """Say calls and tokens in a second."""
        return (
            f"{1 / self.seconds:,.2g} calls and about {self.tokens / self.seconds:,.0f} tokens per second, "
            "from a timed sample; what chats begin with alike is read once"
        )


def time_calls(job: Job) -> CallTime | None:
    """Time some calls of a target on this machine; None for any other target.

    A call of another target might cost money.
    """
    if (
        job.config.target.model.partition(":")[0] not in ("builtin", "local")
        or job.given.respond is not None
        or job.config.task.name
    ):
        return None
    if job.reading is not None and not job.has_test:
        return None
    rows = [row for row in job.dataset.examples if row.split != "test"][:TIMED_CALLS]
    if not rows or job.config.data.queries:
        return None
    job.hooks.step("timing a few calls", 0, 0, Spend())
    target = job.load_target()
    began = time.monotonic()
    chats = [make_chat(job.start, row, job.config.data.role) for row in rows]
    labels = job.task.labels if target.chooses else ()
    if labels:
        replies = target.choose(chats, [fill_answer(job.config.metric.answer, label) for label in labels])
    else:
        replies = target.respond(chats)
    tokens = sum(reply.input_tokens + reply.output_tokens for reply in replies)
    return CallTime((time.monotonic() - began) / len(rows), tokens // len(rows))


def measure_workload(job: Job, timed: DenoisingTime | None, called: CallTime | None) -> Workload:
    """Return what a run of this job may have to do, with the seconds of the samples."""
    seconds_per_call = called.seconds if called else None
    candidates = _count_candidates(job)
    by_round = timed.estimate_round(candidates) if timed else None
    if job.reading is not None:
        assert job.config.refine is not None
        rounds = job.config.refine.iterations
        return Workload(
            rounds, rounds, 0, 0, job.test_calls, candidates, job.ledger.budget, seconds_per_call, by_round
        )
    plan, validation = job.plan, job.rows("validation")
    if asks_api(job.config.denoiser):
        by_round = 0.0  # its calls are counted with those of the target
    return Workload(
        rounds=plan.rounds,
        patience=plan.patience,
        first_calls=job.calls_per_row * (plan.count_validation_rows(validation) + plan.guard)
        + job.query_calls,
        round_calls=job.calls_per_row * plan.count_round_calls(validation)
        + job.denoiser_calls_per_round(plan),
        test_calls=job.test_calls,
        candidates=candidates,
        limits=job.ledger.budget,
        seconds_per_call=seconds_per_call,
        seconds_per_round=by_round,
    )


def _count_candidates(job: Job) -> int:
    if job.reading is None:
        return job.plan.candidates
    return job.config.search.candidates or 8


def _make_canvas(job: Job, number: int) -> Canvas:
    """Make the prompt with a hole in an editable part, another one for each number.

    A denoiser reads equal canvases only once, which would take too little time.
    """
    prompt = job.start
    start, stop = prompt.editable[number % len(prompt.editable)]
    start = min(stop, start + number)
    stop = min(stop, start + 4 * TIMED_TOKENS)
    return (prompt.text[:start], Hole(prompt.text[start:stop], TIMED_TOKENS), prompt.text[stop:])


def _make_context(job: Job) -> Context:
    """Make conversations as a run reads them, as many as fit."""
    search = job.config.search
    if job.reading is not None:
        traces: Sequence[Trace] = job.reading.conversations.read
    else:
        rows = [e for e in job.dataset.examples if e.split == "train"]
        redact = job.redactor.redact
        traces = [Trace(e.id, redact(e.input), redact(e.expected or "")) for e in rows[: search.traces]]
    left, kept = search.context_tokens, []
    for trace in traces[: search.traces]:
        left -= job.denoiser.count(trace.query) + job.denoiser.count(trace.response)
        if left < 0:
            break
        kept.append(trace)
    return tuple(kept)
