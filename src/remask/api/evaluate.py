"""`evaluate` of the public API: score one prompt on rows, without a search."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from remask.api.arguments import (
    Budget,
    Data,
    Dataset,
    Function,
    InspectTask,
    Judge,
    Label,
    Target,
    Workers,
    get_prompt,
    settle_arguments,
    settle_rows,
)  # fmt: skip
from remask.api.awaitable import make_async
from remask.api.build_models import Respond
from remask.api.build_task import Given
from remask.api.job import Hooks, Job, open_job
from remask.api.show_progress import open_progress
from remask.config import Config
from remask.errors import ConfigError
from remask.ports import ONLY_REPORTED, Metric, watch_steps
from remask.prompt import Prompt
from remask.runs.budget import Spend
from remask.runs.result import compare_rows
from remask.runs.store import Store
from remask.search.scores import rows_from_outcomes
from remask.stats import Comparison, Estimate, estimate
from remask.tasks.labelled import find_unpredicted_labels
from remask.types import Split, describe_cut, mean_score

MAX_ERRORS = 3


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of `evaluate`."""

    score: Estimate
    failed: int  # rows without a score
    unparsed: int  # responses without a label; scored 0
    never_predicted: tuple[str, ...]  # labels that the target never gave
    spend: Spend
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()  # the first few different reasons why rows have no score
    comparison: Comparison | None = None  # with another prompt on the same rows (`against`)


def evaluate(
    prompt: str | Path | Mapping[str, str],
    data: Data | Dataset | None = None,
    *,
    target: str | Respond | Target = "builtin",
    metric: str | Metric | Label | Judge | Function = "label",
    split: Split = "validation",
    against: str | Path | Mapping[str, str] | None = None,
    task: str | InspectTask = "",
    budget: Budget | None = None,
    workers: int | Workers | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Score a prompt on the rows of one split, with a 95 % interval and the cost, without a search.

    against: another prompt, which is scored on the same rows; `comparison` says whether `prompt` is
    better. The other arguments are those of `optimize`; without `budget` there is no limit. Raises
    ConfigError and DataError before the first call, BudgetSpent, TargetRefused and TargetUnreliable.

    >>> import remask
    >>> rows = [(f"{n} + 1", str(n + 1)) for n in range(40)]
    >>> def respond(messages):
    ...     return str(eval(messages[-1]["content"]))
    >>> found = remask.evaluate("Add.", rows, target=respond, metric="exact", split="test")
    >>> found.score.mean, found.score.n
    (1.0, 20)
    """
    other = None if against is None else get_prompt(against)
    values, given = settle_arguments(
        prompt, data=data, target=target, metric=metric, task=task,
        budget=budget or Budget(calls=None), workers=workers, more={},
    )  # fmt: skip
    with open_progress(progress, Hooks()) as hooks:
        return score_prompt(settle_rows(values, given), given, split, hooks, other)


def score_prompt(
    config: Config, given: Given, split: Split, hooks: Hooks, against: str | None = None
) -> Evaluation:
    """Score the prompt of a configuration on the rows of one split.

    against: another prompt, which is scored on the same rows and is the baseline of a comparison.
    """
    with tempfile.TemporaryDirectory() as parent, open_job(config, given, hooks, Path(parent) / "run") as job:
        job.require_rows((split,))
        other = None if against is None else Prompt.parse(against)
        if other is not None and other.components.keys() != job.start.components.keys():
            raise ConfigError("the two prompts have different components; give both the same names")
        with Store.create(job.run_dir, job.record) as store:
            job.ledger.open_store = store
            hooks.step(f"scoring the prompt on {split} rows", 0, 0, store.get_booked())
            with follow_limits(job):
                outcomes = job.task.evaluate(job.start, job.task.ids(split))
            mean_score(outcomes, max_failed=1.0)  # raises where no row has a score
            comparison: Comparison | None = None
            doubts: tuple[str, ...] = ()
            if other is not None:
                hooks.step(f"scoring the other prompt on {split} rows", 0, 0, store.get_booked())
                with follow_limits(job):
                    before = job.task.evaluate(other, job.task.ids(split))
                mean_score(before, max_failed=1.0)
                comparison, doubts = compare_rows(rows_from_outcomes(before), rows_from_outcomes(outcomes))
            errors = [o.error for o in outcomes if o.status == "failed"]
            return Evaluation(
                score=estimate([o.score for o in outcomes if o.status == "scored"]),
                failed=len(errors),
                errors=tuple(dict.fromkeys(errors))[:MAX_ERRORS],
                unparsed=sum(o.unparsed for o in outcomes),
                never_predicted=find_unpredicted_labels(outcomes, job.task.labels, config.metric.answer),
                spend=store.get_spend(),
                warnings=(*job.notes, *describe_cut(outcomes), *job.task.warnings, *doubts),
                comparison=comparison,
            )


@contextmanager
def follow_limits(job: Job) -> Iterator[None]:
    """Pass the steps of the block to the hooks of the job, and stop it where a limit is reached."""
    store = job.ledger.store
    began = time.monotonic() - store.get_spend().seconds

    def check(what: str, done: int, total: int) -> None:
        job.hooks.step(what, done, total, store.get_booked())
        if what not in ONLY_REPORTED:  # calls book their own time, a metric does not
            more = time.monotonic() - began - store.get_spend().seconds
            job.ledger.require(Spend(seconds=max(0.0, more)))

    with watch_steps(check):
        yield


evaluate_async = make_async(evaluate)
