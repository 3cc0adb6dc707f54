"""A study of denoising steps: from settings to its outcome. Part of the composition root.

Takes what `optimize` takes and is made of the same parts; the sealed test stays sealed. With a
folder the paid answers are kept there, so that a study that was cut goes on for nothing.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from remask.api.build_models import asks_api, endpoint, make_denoiser
from remask.api.build_proposer import make_proposer
from remask.api.job import Hooks, Job, open_account, prepare
from remask.budget import Spend
from remask.config import Config
from remask.errors import BudgetSpent, ConfigError
from remask.evidence import estimate
from remask.opening import check_task, open_task
from remask.store import Store
from remask.store.database import FILE
from remask.study import (
    STEPS,
    Cell,
    Design,
    Studied,
    Study,
    cells,
    counted,
    tabulated,
    validated,
    whole_rounds,
)
from remask.trace import Split

ROUNDS = 3
CANDIDATES = 8
TRAIN = 16  # rows that candidates are ranked on
VALIDATION = 60  # rows that score the best of them
LONGEST = 256  # steps, as of [dlm] steps
CALLS = "calls"  # folder with the paid answers, in that of the outcome
SPLITS: tuple[Split, ...] = ("train", "validation")  # that a study looks at


@dataclass(frozen=True, slots=True)
class Order:
    """Everything that decides a study."""

    config: Config
    steps: tuple[int, ...] = STEPS
    candidates: int = CANDIDATES
    rounds: int | None = None  # None: as many as the limit on calls pays for, at most ROUNDS
    rows: int = VALIDATION  # validation rows, at most
    parts: Parts = field(default_factory=Parts)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A study that can begin, and what it costs at most."""

    job: Job
    design: Design
    calls: int  # of the target; of a task of Inspect an estimate

    @property
    def sentence(self) -> str:
        """The cost, for the user, before it is spent."""
        d, limit = self.design, self.job.config.budget.calls
        about = "about" if self.job.config.task.name else "at most"
        return (
            f"{about} {self.calls:,} target calls{f' (limit {limit:,})' if limit else ''}: "
            f"{counted(d.rounds)} of {d.candidates} candidates in {len(d.steps)} numbers of steps, "
            f"each candidate on {d.train} train rows, the best of them on {d.validation} "
            "validation rows; the test rows stay sealed"
        )


def prepared(order: Order) -> Prepared:
    """Check what can be checked before a call; ConfigError, DataError and BackendError."""
    config = order.config
    if config.data.queries:
        raise ConfigError("a study needs rows: give --data FILE, or [data] path in remask.toml")
    steps = tuple(sorted(set(order.steps)))
    for name, values, most in (
        ("steps", steps, LONGEST),
        ("candidates", (order.candidates,), LONGEST),
        ("rounds", () if order.rounds is None else (order.rounds,), LONGEST),
        ("rows", (order.rows,), 1_000_000),
    ):
        if wrong := [n for n in values if not 1 <= n <= most]:
            raise ConfigError(f"{name}: {wrong[0]} is not between 1 and {most:,}")
    if not steps:
        raise ConfigError("steps: name at least one number of steps")
    if asks_api(config.dlm):
        raise ConfigError(
            f"the denoiser {config.dlm.model} is an API, whose steps cannot be chosen; study the "
            "embedded one or local:PLACE"
        )
    job = prepare(config, order.parts, SPLITS)
    design = Design(
        steps,
        order.candidates,
        order.rounds or ROUNDS,
        min(TRAIN, job.rows("train")),
        min(order.rows, job.rows("validation")),
    )
    if order.rounds is None:
        design = replace(design, rounds=_affordable(job, design))
    calls, limit = _calls(job, design), config.budget.calls
    if limit is not None and calls > limit:
        raise ConfigError(
            f"a study of {counted(design.rounds)} takes {calls:,} target calls, but the limit is "
            f"{limit:,}; raise --max-calls, or study fewer rounds, steps, candidates or rows"
        )
    check_task(job)
    return Prepared(job, design, calls)


def _affordable(job: Job, design: Design) -> int:
    """The rounds that the limit on calls pays for: at least one, which may be too many."""
    limit = job.config.budget.calls
    fit = [
        rounds
        for rounds in range(1, design.rounds + 1)
        if limit is None or _calls(job, replace(design, rounds=rounds)) <= limit
    ]
    return max(fit, default=1)


def _calls(job: Job, design: Design) -> int:
    """Calls at most. A target that retries may take some more for the same rows."""
    calls = job.calls_per_row * design.rows_scored
    return calls + (calls // 50 + 4 if job.retries else 0)


def play(
    ready: Prepared,
    folder: Path | None = None,
    watch: Callable[[Cell], None] = lambda cell: None,
    gate: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Study:
    """A whole study. `watch` hears every cell; `gate` is called before each chunk of target calls,
    and both may raise to stop. clock: seconds, of the denoising.

    Where another limit than that on calls ends it early, the rounds that are whole count. Raises
    TargetRefused, TargetUnreliable, and BudgetSpent where no round is whole.
    """
    job, design, seed = ready.job, ready.design, ready.job.config.seed
    denoiser = _studied(job)
    with _store(job, design, folder) as store:
        account = open_account(job, store, Hooks(gate=gate))
        if not job.config.task.name:  # there an estimate, which must not end it
            account.budget = replace(account.budget, calls=ready.calls)
        with open_task(job, account) as task:
            proposer = make_proposer(job.config, job.start, denoiser, task.labels)
            baseline = validated(task, job.start, design, seed)
            found: list[Cell] = []
            notes: list[str] = []
            try:
                for cell in cells(job.start, design, proposer, denoiser, task, seed, clock):
                    store.book(Spend(seconds=cell.seconds))
                    found.append(cell)
                    watch(cell)
            except BudgetSpent as spent:
                if not whole_rounds(found, design):
                    raise
                notes.append(f"ended early: {spent}")
        kept = whole_rounds(found, design)
        return Study(
            prompt=job.start.text,
            design=design,
            target=endpoint(job.config.target),
            denoiser=job.config.dlm.model,
            rounds=len(kept) // len(design.steps),
            baseline=estimate([o.score for o in baseline if o.status == "scored"]),
            rows=tabulated(job.start.text, kept, design),
            cells=tuple(kept),
            most_calls=ready.calls,
            calls=store.spent().calls,
            notes=tuple(notes),
        )


def _studied(job: Job) -> Studied:
    """The denoiser. ConfigError where its steps cannot be chosen, or it gives no probabilities."""
    denoiser = make_denoiser(job.config.dlm, job.parts.denoiser)
    if not isinstance(denoiser, Studied):
        raise ConfigError(
            f"a study chooses the steps of a denoiser and asks it for probabilities, which "
            f"{job.config.dlm.model} does not offer; study the embedded one or local:PLACE"
        )
    return denoiser


@contextmanager
def _store(job: Job, design: Design, folder: Path | None) -> Iterator[Store]:
    """Where calls are booked and answers kept: for good, or as long as the study takes."""
    # Another limit buys more rounds, which begin with the ones that were paid for.
    record = {key: value for key, value in job.record.items() if key != "budget"}
    record["study"] = {key: value for key, value in asdict(design).items() if key != "rounds"}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / CALLS if folder is None else folder / CALLS
        begin = Store.open if (place / FILE).exists() else Store.create
        with begin(place, record) as store:
            yield store
