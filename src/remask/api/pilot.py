"""`pilot` of the public API: does the prompt matter here, are answers noisy, what can the test show?

A pilot asks the target a few train rows under very different prompts, before a run is paid for. It
reads no answer to a validation or test row, so a run and its sealed test are as they would be
without it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean, pvariance

from remask.api.arguments import (
    Budget,
    Data,
    Dataset,
    Function,
    Judge,
    Label,
    Target,
    settle_arguments,
    settle_rows,
)
from remask.api.awaitable import make_async
from remask.api.build_models import Respond
from remask.api.evaluate import follow_limits
from remask.api.job import Hooks, Job, open_job
from remask.api.show_progress import open_progress
from remask.config import Config
from remask.errors import ConfigError
from remask.ids import rng_for
from remask.ports import Metric
from remask.prompt import Prompt
from remask.propose.pilot_prompts import make_pilot_prompts
from remask.runs.budget import Spend, format_usd
from remask.runs.store import MemoryStore
from remask.sanitize import one_line
from remask.stats import (
    ALPHA,
    TOLERANCE,
    Estimate,
    Spread,
    count_rows_needed,
    estimate,
    find_power,
    measure_spread,
)
from remask.tasks.labelled import LabelledTask
from remask.types import Outcome, describe_cut, mean_score

DEFAULT_PILOT_ROWS = 40
MIN_PILOT_ROWS = 12  # with fewer, chance alone moves the mean score by 30 points
MAX_ROWS_AGAIN = 20  # that are asked a second time, to see how noisy answers are
MAX_FAILED = 0.2  # of the answers; the rows of failed ones are left out for all prompts
GAINS = (0.02, 0.05, 0.1)  # for which the power of the sealed test is told
CHARACTERS_PER_TOKEN = 4  # in English; rough
LABEL_TOKENS = 8  # of an answer that names a label, rough
ON_THIS_MACHINE = ("builtin", "local")  # targets that give the same answer at temperature 0


@dataclass(frozen=True, slots=True)
class PilotPlan:
    """What a pilot will ask."""

    prompts: tuple[tuple[str, Prompt], ...]  # name and prompt, yours first
    rows: tuple[str, ...]  # ids of train rows
    again: tuple[str, ...]  # of these, those that are asked twice; () where answers cannot vary
    calls: int  # without retries
    retries: bool  # whether a call may take further attempts
    tokens: int  # rough
    usd: float | None  # rough; None: unknown

    def describe(self) -> str:
        """Say what the pilot costs."""
        twice = f", {len(self.again)} of them twice" if self.again else ""
        usd = "" if self.usd is None else f", about {format_usd(self.usd)}"
        more = " (retries come on top)" if self.retries else ""
        return (
            f"{self.calls:,} calls{more}, about {self.tokens:,} tokens{usd}: "
            f"{len(self.prompts)} prompts on {len(self.rows)} train rows{twice}"
        )


@dataclass(frozen=True, slots=True)
class PilotPrompt:
    """A prompt of a pilot and its score."""

    name: str
    text: str
    score: Estimate


@dataclass(frozen=True, slots=True)
class Power:
    """The probability that the sealed test shows a true gain."""

    gain: float
    probability: float | None  # None: the score of your prompt leaves no room for such a gain


@dataclass(frozen=True, slots=True)
class Pilot:
    """The result of a pilot."""

    prompts: tuple[PilotPrompt, ...]  # yours first
    spread: Spread  # of the mean scores of the prompts
    changed: Estimate | None  # share of rows with another score when asked again; None: not asked
    differing: float  # mean share of rows on which your prompt and another one differ
    test_rows: int
    power: tuple[Power, ...]  # of the sealed test
    needed_rows: int  # test rows that show 5 points with a power of 80 %, about
    spend: Spend
    warnings: tuple[str, ...] = ()

    @property
    def matters(self) -> bool:
        """Whether prompts matter here; a false alarm in at most 5 % of pilots."""
        return self.spread.differs

    def describe(self) -> Iterator[str]:
        """Say what the pilot found, line by line."""
        width = max(len(prompt.name) for prompt in self.prompts)
        yield f"Mean scores on {self.spread.n} train rows, with 95 % intervals:"
        for prompt in self.prompts:
            score = prompt.score
            yield f"  {prompt.name:<{width}}  {score.mean:.3f} ({score.low:.3f} to {score.high:.3f})"
        yield self._describe_spread()
        if self.changed is not None:
            yield self._describe_noise(self.changed)
        if self.test_rows:
            yield self._describe_test()
        yield from (f"warning: {one_line(warning)}" for warning in self.warnings)

    def _describe_spread(self) -> str:
        found, scores = self.spread, [prompt.score.mean for prompt in self.prompts]
        if not self.differing:  # chance cannot be told from rows that are all alike
            each = f"No prompt made a difference: each of {found.n} rows got the "
            if scores[0] == 0:
                todo = "check the metric and the right answers, or use a target that can do the task"
                return f"{each}score 0; {todo}."
            if scores[0] == 1:
                return f"{each}score 1; there is nothing to improve; give harder rows."
            return f"{each}same score under each prompt; see whether the target reads the prompt."
        apart = f"{100 * found.range:.1f} points lie between the best and the worst of {len(scores)} prompts"
        chance = (
            f"chance alone gives up to {100 * found.chance:.1f} in 95 of 100 cases ({_format_p(found.p)})"
        )
        if found.differs:
            return (
                f"Prompts matter here: {apart} on {found.n} rows, and {chance}. The true distance is "
                f"between {100 * found.low:.1f} and {100 * found.high:.1f} points (95 %). Where prompts do "
                f"not matter, at most {_percent(ALPHA)} of pilots say that they do."
            )
        return (
            f"No evidence that prompts matter here: {apart} on {found.n} rows, and {chance}. The true "
            f"distance is at most {100 * found.high:.1f} points (95 %); more rows would tell more."
        )

    def _describe_noise(self, changed: Estimate) -> str:
        rows = round(changed.mean * changed.n)
        text = (
            f"Asked again under your prompt, {rows} of {changed.n} rows got another score "
            f"({_percent(changed.mean)}, 95 % interval {_percent(changed.low)} to {_percent(changed.high)})."
        )
        if changed.mean >= 0.1:
            text += " Answers are noisy: metric.repeats = 3 averages them, for three times the calls."
        return text

    def _describe_test(self) -> str:
        chances = [
            f"{_percent(power.probability)} for +{100 * power.gain:.0f} points"
            for power in self.power
            if power.probability is not None
        ]
        if not self.differing:
            return "What the sealed test could show is not known: these prompts differ from yours on no row."
        if not chances:
            return f"Your prompt scores {self.prompts[0].score.mean:.3f}, which leaves no room for a gain."
        last = chances.pop()
        text = (
            f"The sealed test of {self.test_rows} rows shows a true gain with a probability of "
            f"{', '.join(chances)}{' and ' if chances else ''}{last}, if a better prompt differs from "
            f"yours on {_percent(self.differing)} of the rows, as these prompts do on average."
        )
        if self.needed_rows > self.test_rows:
            text += f" About {self.needed_rows:,} test rows show +5 points with a probability of 80 %."
        return text


def pilot(
    prompt: str | Path,
    data: Data | Dataset,
    *,
    rows: int = DEFAULT_PILOT_ROWS,
    target: str | Respond | Target = "builtin",
    metric: str | Metric | Label | Judge | Function = "label",
    budget: Budget | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Pilot:
    """Ask the target some train rows under very different prompts, before a run is paid for.

    Says whether prompts matter here at all, how noisy answers are, and what the sealed test could
    show. rows: train rows to ask, each under up to six prompts; up to 20 are asked twice where the
    target may answer differently. The other arguments are those of `optimize`; without `budget`
    there is no limit. Raises ConfigError and DataError before the first call, BudgetSpent,
    TargetRefused and TargetUnreliable.

    >>> import remask
    >>> rows = [(f"{n} + 1", str(n + 1)) for n in range(80)]
    >>> def respond(messages):
    ...     return "It is a number." if "sentences" in messages[0]["content"] else "7"
    >>> found = remask.pilot("Add.", rows, rows=20, target=respond, metric="exact")
    >>> found.matters, found.spread.n, found.spend.calls
    (False, 20, 100)
    """
    values, given = settle_arguments(
        prompt, data=data, target=target, metric=metric, budget=budget or Budget(calls=None),
        more={"seed": seed},
    )  # fmt: skip
    config = settle_rows(values, given)
    require_pilot(config, rows)
    with open_progress(progress, Hooks()) as hooks, open_job(config, given, hooks) as job:
        return run_pilot(job, plan_pilot(job, rows))


def require_pilot(config: Config, rows: int) -> None:
    """Raise ConfigError where no pilot can be made. Reads nothing."""
    if config.task.name or config.data.queries:
        what = "a task of Inspect" if config.task.name else "a run without data"
        raise ConfigError(f"a pilot asks train rows, which {what} does not have; leave --pilot out")
    if rows < MIN_PILOT_ROWS:
        raise ConfigError(
            f"a pilot needs {MIN_PILOT_ROWS} rows or more, not {rows}, and {DEFAULT_PILOT_ROWS} say more"
        )


def plan_pilot(job: Job, rows: int) -> PilotPlan:
    """Plan a pilot on `rows` train rows, or on all where there are fewer. Calls nothing.

    Raises ConfigError where there are too few rows, or where the budget cannot pay the calls.
    """
    job.require_rows(("train",))
    if job.start.components:
        raise ConfigError(
            "a pilot asks under very different system prompts, so it takes a prompt of one text; leave the "
            "pilot out, or give the component system as the prompt"
        )
    ids = job.task.ids("train")
    if len(ids) < MIN_PILOT_ROWS:
        raise ConfigError(f"a pilot needs {MIN_PILOT_ROWS} train rows, and the data has {len(ids)}")
    order = rng_for(job.config.seed, "pilot").permutation(len(ids))
    chosen = tuple(ids[i] for i in order[:rows])
    target = job.config.target
    here = job.given.respond is None and target.model.partition(":")[0] in ON_THIS_MACHINE
    fixed = here and not target.temperature
    again = () if fixed else chosen[:MAX_ROWS_AGAIN]
    prompts = tuple(make_pilot_prompts(job.start, job.task.labels))
    asked = len(prompts) * len(chosen) + len(again)
    calls = asked * job.calls_per_row
    limit = job.config.budget.calls
    if limit is not None and calls > limit:
        most = (limit // job.calls_per_row - len(again)) // len(prompts)
        fewer = f"ask {most} rows or fewer, or raise" if most >= MIN_PILOT_ROWS else "raise"
        raise ConfigError(
            f"a pilot on {len(chosen)} rows needs {calls:,} calls and budget.calls (--max-calls) is "
            f"{limit:,}; {fewer} the limit"
        )
    tokens, usd = _estimate_cost(job, prompts, calls)
    return PilotPlan(prompts, chosen, again, calls, job.retries, tokens, usd)


def _estimate_cost(job: Job, prompts: Sequence[tuple[str, Prompt]], calls: int) -> tuple[int, float | None]:
    """Estimate the tokens and the US dollars of a pilot."""
    examples = job.dataset.examples
    text = fmean(len(prompt.text) for _, prompt in prompts) + fmean(len(e.input) for e in examples)
    written = LABEL_TOKENS if job.config.metric.name == "label" else job.config.target.max_tokens or 256
    read = text / CHARACTERS_PER_TOKEN + 20
    price = job.ledger.price
    usd = None if price is None else calls * price.usd(round(1000 * read), 1000 * written) / 1000
    return round(calls * (read + written)), usd


def run_pilot(job: Job, plan: PilotPlan) -> Pilot:
    """Ask the target and measure. Raises BudgetSpent, TargetRefused and TargetUnreliable."""
    job.ledger.open_store = MemoryStore()
    task = job.task
    assert isinstance(task, LabelledTask)  # `require_pilot` allows no task of Inspect
    with follow_limits(job):
        job.hooks.step("asking train rows under different prompts", 0, 0, Spend())
        outcomes = task.evaluate_all([prompt for _, prompt in plan.prompts], plan.rows)
        mean_score(list(chain.from_iterable(outcomes)), MAX_FAILED, "answers")
        more: list[Outcome] = []
        if plan.again:
            job.hooks.step("asking some rows again", 0, 0, job.ledger.store.get_booked())
            [more] = task.evaluate_all([job.start], plan.again, again=True)
    failed = sum(outcome.status == "failed" for each in (*outcomes, more) for outcome in each)
    scores = _take_complete(outcomes)
    spread = measure_spread(scores)
    differing, deviation = _compare_with_first(scores)
    mean, test = fmean(scores[0]), job.rows("test")
    power = tuple(
        Power(gain, None if mean + gain > 1 else find_power(max(1, test), gain, differing, deviation))
        for gain in GAINS
    )
    answers = list(chain.from_iterable(outcomes))
    notes = [*job.notes, *describe_cut(answers), *task.warnings]
    if unparsed := sum(outcome.unparsed for outcome in answers):
        notes.insert(0, f"{unparsed} of {len(answers)} answers name no label, and were scored 0")
    if len(plan.rows) == len(task.ids("train")):
        notes.insert(0, f"the pilot asked all {len(plan.rows)} train rows; more would tell more")
    if failed:
        notes.insert(0, f"{failed} answers have no score; their rows were left out for all prompts")
    return Pilot(
        prompts=tuple(
            PilotPrompt(name, prompt.text, estimate(of_prompt))
            for (name, prompt), of_prompt in zip(plan.prompts, scores, strict=True)
        ),
        spread=spread,
        changed=_measure_noise(outcomes[0], more),
        differing=differing,
        test_rows=test,
        power=power,
        needed_rows=count_rows_needed(0.05, differing if deviation is None else deviation**2),
        spend=job.ledger.store.get_spend(),
        warnings=tuple(notes),
    )


def _take_complete(outcomes: Sequence[Sequence[Outcome]]) -> list[list[float]]:
    """Return the scores by prompt, of the rows that have one under each prompt."""
    rows = zip(*outcomes, strict=True)
    complete = [[o.score for o in row] for row in rows if all(o.status == "scored" for o in row)]
    if len(complete) < 2:
        mean_score([Outcome("", "failed", error="a call failed for nearly every row")])
    return [list(of_prompt) for of_prompt in zip(*complete, strict=True)]


def _compare_with_first(scores: Sequence[Sequence[float]]) -> tuple[float, float | None]:
    """Return the mean share of rows on which another prompt differs from the first one.

    And the standard deviation of the differences where scores are not 0 or 1, else None.
    """
    first, *others = scores
    gaps = [[b - a for a, b in zip(first, other, strict=True)] for other in others]
    differing = fmean(fmean(abs(gap) > TOLERANCE for gap in of_pair) for of_pair in gaps)
    if all(score in (0, 1) for of_prompt in scores for score in of_prompt):
        return differing, None
    return differing, fmean(pvariance(of_pair) for of_pair in gaps) ** 0.5


def _measure_noise(first: Sequence[Outcome], again: Sequence[Outcome]) -> Estimate | None:
    """Return the share of rows whose score changed; None where none was asked twice."""
    known = {outcome.example: outcome for outcome in first}
    pairs = [(known[outcome.example], outcome) for outcome in again]
    both = [(a, b) for a, b in pairs if a.status == b.status == "scored"]
    return estimate([float(abs(a.score - b.score) > TOLERANCE) for a, b in both]) if both else None


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _format_p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


pilot_async = make_async(pilot)
