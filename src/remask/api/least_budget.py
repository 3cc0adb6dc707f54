"""Refuse a budget that cannot pay a run: the sealed test, the score of the baseline and one round.

With less, a run would end with the error that a limit is reached, or without any candidate tried.
The number of calls is known. Tokens, dollars and minutes are estimated from below, so that no
budget is refused which might be enough.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from remask.api.build_models import asks_api, make_price
from remask.config import BudgetConfig
from remask.errors import ConfigError
from remask.runs.budget import format_amount
from remask.search.plan import MIN_CANDIDATES

if TYPE_CHECKING:
    from remask.api.job import Job

MAX_CHARACTERS_PER_TOKEN = 5  # of usual text; rough, and high, as a lower bound of the tokens needs
MIN_CHAT_TOKENS = 4  # that a chat template adds to a call
MIN_SECONDS_PER_CALL = {
    "builtin": 0.02,
    "local": 0.002,
    "openai": 0.002,
}  # of fast machines, by kind of target
MIN_DENOISING_SECONDS = 2.0  # of a round with the built-in denoiser, on a fast machine
OPTIONS = {
    "calls": "--max-calls",
    "tokens": "--max-total-tokens",
    "usd": "--max-usd",
    "minutes": "--max-minutes",
}


@dataclass(frozen=True, slots=True)
class LeastCalls:
    """The calls that a run needs at least, by what they are for."""

    queries: int  # of the target for messages, where there is no data
    test: int  # of the sealed test, with those set aside for its retries
    baseline: int  # of the baseline on validation rows
    search: int  # of one round: target, and a denoiser behind an API

    @property
    def total(self) -> int:
        """Return all calls."""
        return self.queries + self.test + self.baseline + self.search

    def describe(self) -> str:
        """Say what the calls are for."""
        parts = (
            (self.queries, "to write messages"),
            (self.test, "for the sealed test"),
            (self.baseline, "to score your prompt"),
            (self.search, "for one round of candidates"),
        )
        return ", ".join(f"{calls:,} {what}" for calls, what in parts if calls)


def count_least_calls(job: "Job") -> LeastCalls:
    """Count the calls of a run with one round; of a refinement, the calls of its test."""
    if job.reading is not None:
        return LeastCalls(0, job.test_calls, 0, 0)
    validation = job.rows("validation")
    # A budget that is small enough gives a round the fewest candidates, unless the user sets them.
    plan = replace(job.plan, candidates=job.config.search.candidates or MIN_CANDIDATES)
    per_row = job.calls_per_row
    written = plan.candidates if asks_api(job.config.denoiser) else 0  # by at least one call each
    return LeastCalls(
        job.query_calls,
        job.add_retries(job.test_calls),
        per_row * (plan.count_validation_rows(validation) + plan.guard),
        per_row * plan.count_round_calls(validation) + written,
    )


def require_least_budget(job: "Job") -> None:
    """Raise ConfigError where a limit of the budget cannot pay a run. Calls and loads nothing."""
    if not job.has_test:  # a refinement that calls no target
        return
    least, budget = count_least_calls(job), job.config.budget
    if budget.calls is not None and budget.calls < least.total:
        raise ConfigError(
            f"budget.calls ({OPTIONS['calls']}) is {budget.calls:,}, but a run needs {least.total:,} calls "
            f"or more: {least.describe()}; set it to {least.total:,} or more, or use fewer rows"
        )
    for name, limit, need in _estimate_needs(job, least.total, budget):
        if limit < need:
            raise ConfigError(
                f"budget.{name} ({OPTIONS[name]}) is {format_amount(name, limit)}, but a run needs "
                f"about {format_amount(name, need)} or more for its {least.total:,} calls "
                f"({least.describe()}); raise the limit or use fewer rows"
            )


def _estimate_needs(job: "Job", calls: int, budget: BudgetConfig) -> list[tuple[str, float, float]]:
    """Return (name, limit, lower bound of the need) of each limit that is set, but for calls."""
    rows = job.dataset.examples
    text = len(job.start.text) + sum(len(e.input) for e in rows) / max(1, len(rows))
    tokens = text / MAX_CHARACTERS_PER_TOKEN + MIN_CHAT_TOKENS  # read in one call; one is written
    price = make_price(job.config.target)
    usd = 0.0 if price is None else price.usd(round(calls * tokens), calls)
    target = job.config.target
    each = MIN_SECONDS_PER_CALL.get(target.model.partition(":")[0], 0.0)
    builtin = job.reading is None and job.config.denoiser.model.startswith("builtin")
    denoising = MIN_DENOISING_SECONDS if builtin else 0.0
    found = [
        ("tokens", budget.tokens, calls * (tokens + 1)),
        ("usd", budget.usd, usd),
        ("minutes", budget.minutes, (calls * each + denoising) / 60),
    ]
    return [(name, limit, need) for name, limit, need in found if limit is not None]
