"""Build what counts beside the score: objectives, the preferred one, guard sets.

All of it is checked before a call is made. Raises ConfigError, in one sentence with the remedy.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from remask.api.build_models import make_price
from remask.api.build_task import Given, MeterTarget, make_metric
from remask.config import Config, MetricConfig, ObjectiveConfig, SearchConfig
from remask.data.dataset import LoadedDataset
from remask.errors import ConfigError
from remask.events import PROMPT_TOKENS, GoalsSet, GuardSet
from remask.models.function import hash_function_file, hash_source, is_function_file
from remask.models.limiter import Limiters
from remask.ports import Reply
from remask.stats import ALPHA, GUARD_TOLERANCE, bound_unseen_loss, count_guard_rows, share_alpha
from remask.tasks.measures import Measures
from remask.tasks.metrics import METRICS, Grader, make_grader

if TYPE_CHECKING:
    from remask.api.job import Job

USAGE = ("output_tokens", "usd", "latency")  # measured of each answer; less is better
MEASURED = (PROMPT_TOKENS, *USAGE)
ALIASES = {"shortest": PROMPT_TOKENS, "cheapest": "usd", "fastest": "latency"}


def make_goals(config: Config, dataset: LoadedDataset) -> GoalsSet:
    """Make the goals of a run. Checks all settings that need no model."""
    search = config.search
    check_objectives(config)
    objectives = {one.title: find_metric(one) is not None for one in config.objectives}
    prefer = ALIASES.get(search.prefer, search.prefer)
    if prefer == PROMPT_TOKENS:
        objectives.setdefault(prefer, False)
    if prefer and prefer not in objectives:
        raise ConfigError(
            f"search.prefer (--prefer) is {search.prefer}, and {prefer} is not measured; add [[objectives]] "
            f'with name = "{prefer}" (--objective {prefer}), or give one of: '
            f"{', '.join(dict.fromkeys(['shortest', *objectives]))}"
        )
    if search.goal == "preferred" and not prefer:
        raise ConfigError('search.goal = "preferred" needs search.prefer (--prefer), such as "shortest"')
    if search.within != SearchConfig().within and not prefer:
        raise ConfigError(
            f"search.within (--within) is {search.within:g}, and no objective is preferred; give "
            "search.prefer (--prefer) too, such as shortest"
        )
    guards = tuple(_make_guards(config, dataset))
    within = search.within if prefer else 0.0
    return GoalsSet(tuple(objectives.items()), prefer, within, search.goal == "preferred", guards)


def find_metric(objective: ObjectiveConfig) -> MetricConfig | None:
    """Return the second metric that an objective names; None for a measure such as tokens."""
    if objective.metric is None and (objective.name in METRICS or is_function_file(objective.name)):
        return MetricConfig(name=objective.name)
    return objective.metric


def check_objectives(config: Config) -> None:
    """Raise ConfigError where an objective cannot be measured with these settings."""
    seen: set[str] = set()
    for one in config.objectives:
        title, metric = one.title, find_metric(one)
        if not title:
            raise ConfigError("an entry of [[objectives]] has neither a name nor a metric; give one")
        if title in seen:
            raise ConfigError(f"the objective {title} stands twice in [[objectives]]; keep one of them")
        seen.add(title)
        if metric is not None and title in MEASURED:
            raise ConfigError(
                f"the objective {title} is measured without a metric; give the metric another name"
            )
        if metric is None and title not in MEASURED:
            raise ConfigError(
                f"the objective {title!r} is unknown; known: {', '.join(MEASURED)}, a metric "
                f"({', '.join(sorted(METRICS))}), FILE.py:FUNCTION, or any name with the key metric"
            )
        if config.task.name and title != PROMPT_TOKENS:
            raise ConfigError(
                f"the objective {title} is measured on rows of [data], not in a task of Inspect; "
                f"leave it out ({PROMPT_TOKENS} can stay)"
            )
        _check_measure(config, title)


def _check_measure(config: Config, title: str) -> None:
    target = config.target
    if title == "usd" and make_price(target) is None:
        raise ConfigError(
            "the objective usd needs the prices of the target; set target.input_price and "
            "target.output_price (US dollars per million tokens), or measure output_tokens"
        )
    function = target.model.startswith("function:") or is_function_file(target.model)
    if title in ("usd", "output_tokens") and function:
        raise ConfigError(
            f"the objective {title} needs the tokens of an answer, which a function as target does not "
            "report; name an endpoint, or measure prompt_tokens or latency"
        )
    here = target.model.partition(":")[0] in ("builtin", "local")
    if title == "output_tokens" and here and target.choose and config.metric.name == "label":
        raise ConfigError(
            f"the objective output_tokens: the target {target.model} chooses among labels and writes no "
            "answer; set target.choose = false, or leave the objective out"
        )


def refuse_goals(config: Config) -> None:
    """Raise ConfigError where `remask refine`, which asks no rows, is given what only rows measure."""
    search = config.search
    named = {"[[objectives]]": config.objectives, "search.prefer": search.prefer,
             "search.max_drop": search.max_drop, "data.group": config.data.group}  # fmt: skip
    for name, value in named.items():
        if value:
            raise ConfigError(
                f"{name}: remask refine measures no rows, only remask optimize does; leave it out"
            )


def hash_metrics(config: Config, given: Given) -> dict[str, str]:
    """Return the hash of the code of each objective that is a function, by its name."""
    found = {title: hash_source(function) for title, function in given.objectives.items()}
    for one in config.objectives:
        metric = find_metric(one)
        if metric is not None and is_function_file(metric.name):
            found[one.title] = hash_function_file(metric.name)
    return found


def _make_guards(config: Config, dataset: LoadedDataset) -> Iterator[GuardSet]:
    drops, group = config.search.max_drop, config.data.group
    if drops and (config.task.name or config.data.queries):
        raise ConfigError("search.max_drop (--max-drop) needs rows in a file, with a column data.group")
    if drops and not group:
        raise ConfigError(
            f"search.max_drop (--max-drop) names the guard set {next(iter(drops))}, but no column says which "
            "rows belong to it; set data.group (--group) to the name of that column"
        )
    if group and not drops:
        raise ConfigError(
            f"data.group (--group) is {group}, but no guard set is named; give --max-drop NAME=POINTS, "
            "or leave the column out"
        )
    for name, margin in drops.items():
        ids = {
            split: tuple(e.id for e in dataset.examples if e.guard == name and e.split == split)
            for split in ("validation", "test")
        }
        if empty := [split for split, rows in ids.items() if not rows]:
            raise ConfigError(
                f"the guard set {name} has no rows in the {' and the '.join(empty)} split: rows belong to it "
                f"whose column {group!r} is {name!r}; add such rows"
            )
        yield GuardSet(name, margin, ids["validation"], ids["test"])


def list_required_rows(goals: GoalsSet) -> Iterator[tuple[GuardSet, str, int, int, float]]:
    """Yield (guard set, split, its rows, rows needed, margin that its rows allow) of each split.

    With fewer rows no edit could be accepted, or no sealed test could show that the set holds: not
    even where no answer changes.
    """
    alphas = {"validation": share_alpha(1), "test": ALPHA / 2 / count_intervals(goals)}
    for guard in goals.guards:
        limit = guard.margin / 100 + GUARD_TOLERANCE
        for split, alpha in alphas.items():
            rows = len(getattr(guard, split))
            least = 100 * (bound_unseen_loss(rows, alpha) - GUARD_TOLERANCE)
            yield guard, split, rows, count_guard_rows(limit, alpha), least


def count_intervals(goals: GoalsSet) -> int:
    """Return how many intervals the sealed test gives: of the score, measured objectives and guards."""
    return 1 + sum(name != PROMPT_TOKENS for name, _ in goals.objectives) + len(goals.guards)


def require_guard_rows(goals: GoalsSet) -> None:
    """Raise ConfigError where a guard set has too few rows for its margin."""
    for guard, split, rows, needed, least in list_required_rows(goals):
        if rows < needed:
            raise ConfigError(
                f"the guard set {guard.name} has {rows} {split} rows (those of train count as validation), "
                f"and a loss of {guard.margin:g} + {100 * GUARD_TOLERANCE:g} points can only be excluded "
                f"with {needed} or more; add rows, or allow more: --max-drop "
                f"{guard.name}={_round_up(least):g}"
            )


def _round_up(points: float) -> float:
    return -(-points * 10 // 1) / 10


def make_measures(
    config: Config,
    dataset: LoadedDataset,
    given: Given,
    meter: MeterTarget,
    labels: Sequence[str],
    limiters: Limiters | None = None,
) -> Measures:
    """Make what measures the objectives of each answer. Raises ConfigError."""
    price = make_price(config.target)

    def count_tokens(reply: Reply) -> float:
        return float(reply.output_tokens) if reply.input_tokens or reply.output_tokens else float("nan")

    def add_usd(reply: Reply) -> float:
        assert price is not None  # `check_objectives` has checked this
        return price.usd(reply.input_tokens, reply.output_tokens) if reply.input_tokens else float("nan")

    readers: Mapping[str, Callable[[Reply], float]] = {
        "output_tokens": count_tokens,
        "usd": add_usd,
        "latency": lambda reply: reply.seconds or float("nan"),
    }
    graders: dict[str, Grader] = {}
    for one in config.objectives:
        if (metric := find_metric(one)) is None:
            continue
        settings = config.model_copy(update={"metric": metric})
        own = replace(given, metric=given.objectives.get(one.title))
        made = make_metric(settings, dataset, own, meter, limiters)
        if made in METRICS and any(e.expected is None for e in dataset.examples):
            raise ConfigError(
                f"the objective {one.title} needs the right answers; name their column with `expected`"
            )
        graders[one.title] = make_grader(made, metric.labels or labels, metric.timeout)
    usage = {one.title: readers[one.title] for one in config.objectives if one.title in readers}
    return Measures(usage, graders)


def describe_goals(job: "Job") -> Iterator[str]:
    """Say in sentences what counts beside the score, for `remask check`."""
    goals = job.goals
    if goals.objectives:
        named = ", ".join(f"{name} ({'more' if up else 'less'} is better)" for name, up in goals.objectives)
        yield f"beside the score: {named}"
    if goals.prefer:
        only = "; no edit is accepted for its score alone" if goals.only_preferred else ""
        yield f"preferred: {goals.prefer}, where the score is within {goals.within:g} points{only}"
    for guard, split, rows, needed, _ in list_required_rows(goals):
        yield (
            f"guard set {guard.name}: {rows} {split} rows, {needed} needed to exclude a loss of "
            f"{guard.margin:g} + {100 * GUARD_TOLERANCE:g} points where no answer changes; where answers "
            "change, about twice as many (docs/background/acceptance.md)"
        )
