"""Improve several prompts of one program in turn, with a hard limit on runs of the program.

Each prompt is a component of the program. A turn is one round of the search on one component, while
the others stay as they are. A change is kept where it raises the score on the validation rows. The
host (DSPy, MLflow) runs the program and defines the rows. A run is never repeated: equal texts on
the same row give the stored result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from remask.api.arguments import Denoiser, Label, Search, settle_arguments
from remask.api.build_models import make_denoiser
from remask.api.build_proposer import make_proposer, refuse_demos
from remask.config import Config, make_config
from remask.errors import ConfigError
from remask.events import State, fold
from remask.ids import content_id, rng_for, seed_for
from remask.ports import DenoiserModel, Proposer
from remask.prompt import Prompt
from remask.runs.budget import Limits
from remask.runs.meter import Ledger
from remask.runs.store import MemoryStore
from remask.search.plan import SearchPlan, make_plan
from remask.search.scores import search
from remask.types import Outcome, Split, Trace

AnyDenoiser = str | DenoiserModel | Denoiser


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """One run of the program on one row."""

    score: float | None  # 1 is perfect; None: the run failed
    traces: Mapping[str, Trace]  # by component, of those that took part
    error: str = ""  # why it failed
    parts: Mapping[str, float] = field(default_factory=dict)  # scores by scorer


Texts = Mapping[str, str]  # component -> text
Run = Callable[[Texts, Sequence[str]], list[ProgramRun]]  # (texts, row ids) -> one run per id


@dataclass(frozen=True, slots=True)
class ImprovedProgram:
    """The improved texts. Scores are means on the validation rows, which chose the texts."""

    texts: dict[str, str]
    before: float  # validation score of the first texts
    after: float  # validation score of `texts`
    runs: int  # of the program, of the allowed ones
    turns: int
    changed: tuple[str, ...]  # components, in the order in which changes were accepted
    stopped: str  # why the search stopped


@dataclass(slots=True)
class ProgramBench:
    """A program with its rows, its maximum number of runs and the results of earlier runs."""

    run: Run
    rows: Mapping[Split, tuple[str, ...]]
    max_runs: int
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(MemoryStore(), Limits(calls=self.max_runs))

    @property
    def runs(self) -> int:
        """Return the number of runs so far."""
        return self.ledger.store.get_spend().calls

    def run_rows(self, texts: Texts, ids: Sequence[str]) -> list[ProgramRun]:
        """Run the program on rows. Returns one run per id, in order. Failed runs are not stored.

        Raises BudgetSpent before a run that would pass `max_runs`.
        """
        keys = [content_id("run", sorted(texts.items()), id) for id in ids]
        known = self.ledger.ask(
            dict(zip(keys, ids, strict=True)),
            lambda missing: self.run(texts, missing),
            keep=lambda ran: ran.score is not None,
        )
        return [known[key] for key in keys]

    def validate(self, texts: Texts) -> float:
        """Return the mean score on the validation rows that have a score; 0 where none has."""
        runs = self.run_rows(texts, self.rows["validation"])
        scores = [run.score for run in runs if run.score is not None]
        return sum(scores) / len(scores) if scores else 0.0


@dataclass(frozen=True, slots=True)
class _ComponentTask:
    """Implements ports.Task for one component of the program."""

    bench: ProgramBench
    name: str
    others: Texts
    labels: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def ids(self, split: Split) -> tuple[str, ...]:
        """Return the ids of the rows of a split."""
        return self.bench.rows[split]

    def evaluate(self, prompt: Prompt, ids: Sequence[str]) -> list[Outcome]:
        """Run the program with this text of the component. Returns one Outcome per id, in order."""
        runs = self.bench.run_rows({**self.others, self.name: prompt.text}, ids)
        return [
            Outcome(id, "failed", error=run.error)
            if run.score is None
            else Outcome(id, "scored", run.score, run.score, trace=run.traces.get(self.name))
            for id, run in zip(ids, runs, strict=True)
        ]


def improve_program(
    start: Mapping[str, Prompt],
    bench: ProgramBench,
    proposers: Mapping[str, Proposer],
    seed: int,
    cautious: bool = False,
    on_improvement: Callable[[int, float], None] = lambda runs, score: None,
) -> ImprovedProgram:
    """Improve the components that have a proposer, one round each in turn.

    `on_improvement` is called with the runs so far and the validation score, first for the texts of
    `start` and then for each change that is kept. Raises TargetUnreliable, and ConfigError where
    the allowed runs do not suffice for the validation rows.
    """
    names = tuple(proposers)
    size = len(bench.rows["validation"])
    if bench.max_runs <= size:
        raise ConfigError(
            f"{bench.max_runs} runs are too few to search: the {size} validation rows alone take "
            f"{size}; allow more runs or give fewer validation rows"
        )
    # The components share the score of a row, so every candidate is scored on all rows.
    plan = make_plan(bench.max_runs, len(bench.rows["train"]), size, cautious, min_validation=size)
    best = dict(start)
    texts = {name: prompt.text for name, prompt in best.items()}
    before = after = bench.validate(texts)
    on_improvement(bench.runs, before)
    turn = turns_without_gain = 0
    changed: list[str] = []
    stopped = "all rounds played"
    while turn < plan.rounds * len(names):
        name = names[turn % len(names)]
        state = _play_round(best[name], plan, _ComponentTask(bench, name, texts), proposers[name],
                      seed_for(seed, "turn", turn))  # fmt: skip
        turn += 1
        if state.accepted:
            best[name] = state.prompt(state.incumbent)
            texts = {**texts, name: best[name].text}
            changed.append(name)
            turns_without_gain, after = 0, bench.validate(texts)
            on_improvement(bench.runs, after)
        elif state.round:
            turns_without_gain += 1
        else:
            stopped = state.stopped
            break
        if turns_without_gain >= plan.patience * len(names):
            stopped = f"no better prompt in {turns_without_gain} rounds"
            break
    return ImprovedProgram(texts, before, after, bench.runs, turn, tuple(changed), stopped)


def _play_round(
    prompt: Prompt, plan: SearchPlan, task: _ComponentTask, proposer: Proposer, seed: int
) -> State:
    """Play one round of the search. The state has round 0 where the budget ended it before."""
    return fold(search(State(), prompt, replace(plan, rounds=1), task, proposer, seed))


def split_in_half(ids: Sequence[str], seed: int) -> dict[Split, tuple[str, ...]]:
    """Split rows into a train and a validation half at random, where the host has only one list."""
    order = [ids[i] for i in rng_for(seed, "halves").permutation(len(ids))]
    middle = len(order) // 2
    if not middle:
        raise ConfigError(f"{len(ids)} rows are too few: they are split into train and validation rows")
    return {"train": tuple(order[:middle]), "validation": tuple(order[middle:])}


def resolve_settings(
    denoiser: AnyDenoiser, search: Search | None, answer: str
) -> tuple[Config, DenoiserModel | None]:
    """Return the configuration, and the denoiser where it is an object. Raises ConfigError."""
    values, given = settle_arguments(
        "-", data=None, target=None, metric=Label(answer=answer), denoiser=denoiser, search=search,
        more={},
    )  # fmt: skip
    config = make_config(values, "arguments")
    refuse_demos(config, "an integration")
    return config, given.denoiser


def make_proposers(
    start: Mapping[str, Prompt], config: Config, given: DenoiserModel | None, labels: Sequence[str]
) -> dict[str, Proposer]:
    """Make a proposer for each component with editable text. They share the denoiser."""
    denoiser = make_denoiser(config.denoiser, given)
    return {
        name: make_proposer(config, prompt, denoiser, labels)
        for name, prompt in start.items()
        if prompt.editable
    }
