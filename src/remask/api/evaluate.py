"""`evaluate` of the public API: one prompt on rows, no search."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remask.api.build_models import Respond
from remask.api.build_task import Given
from remask.api.job import Data, Hooks, open_job, settle_arguments
from remask.config import Config
from remask.ports import Metric
from remask.runs.budget import Spend
from remask.runs.store import Store
from remask.stats import Estimate, estimate
from remask.tasks.labelled import labels_never_predicted
from remask.types import Split


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The outcome of `evaluate`: one prompt on rows, no search."""

    score: Estimate
    failed: int  # rows without a score
    unparsed: int  # responses in which no label was found; scored 0
    never_predicted: tuple[str, ...]  # labels that the target never gave
    spend: Spend


def evaluate(
    prompt: str,
    data: Data = (),
    *,
    task: str = "",
    target: str | Respond = "builtin",
    metric: str | Metric = "label",
    split: Split = "validation",
    input: str = "{input}",
    expected: str = "label",
    answer: str = "{label}",
    base_url: str = "",
    settings: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Score a prompt on the rows of one split, with interval and cost; no search."""
    config, given = settle_arguments(
        prompt,
        data,
        target,
        metric,
        "builtin",
        {
            "data": {"input": input, "expected": expected},
            "target": {"base_url": base_url},
            "task": {"name": task},
            "metric": {"answer": answer},
            "budget": {"calls": None},
        },
        settings,
    )
    return score_prompt(config, given, split, Hooks())


def score_prompt(config: Config, given: Given, split: Split, hooks: Hooks) -> Evaluation:
    """`evaluate` of a resolved configuration."""
    with (
        tempfile.TemporaryDirectory() as parent,
        open_job(config, given, hooks, Path(parent) / "run") as job,
    ):
        job.require_rows((split,))
        with Store.create(job.run_dir, job.record) as store:
            job.ledger.books = store
            outcomes = job.task.evaluate(job.start, job.task.ids(split))
            return Evaluation(
                score=estimate([o.score for o in outcomes if o.status == "scored"]),
                failed=sum(o.status == "failed" for o in outcomes),
                unparsed=sum(o.unparsed for o in outcomes),
                never_predicted=labels_never_predicted(
                    outcomes, job.task.labels, config.metric.answer
                ),
                spend=store.spent(),
            )
