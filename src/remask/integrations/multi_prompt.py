"""Improve the prompts of one program together, with a hard limit on runs of the program.

Each prompt is a component of the program (docs/how-to/components.md). The host (DSPy, MLflow) runs
the program and defines the rows. A run is never repeated: equal texts on the same row give the
stored result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from remask.api.arguments import Denoiser, Label, Search, settle_arguments
from remask.api.build_models import make_denoiser
from remask.api.build_proposer import make_proposer, refuse_demos
from remask.config import Config, make_config
from remask.errors import ConfigError
from remask.events import Accepted, State, advance
from remask.ids import content_id, rng_for
from remask.ports import DenoiserModel, Proposer
from remask.prompt import Prompt, join_components
from remask.propose.components import ComponentProposer
from remask.runs.budget import Limits
from remask.runs.ledger import Ledger
from remask.runs.store import MemoryStore
from remask.search.plan import make_plan
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
    rounds: int
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
class _ProgramTask:
    """Implements ports.Task for a prompt whose components are the prompts of the program."""

    bench: ProgramBench
    labels: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def ids(self, split: Split) -> tuple[str, ...]:
        """Return the ids of the rows of a split."""
        return self.bench.rows[split]

    def evaluate(self, prompt: Prompt, ids: Sequence[str]) -> list[Outcome]:
        """Run the program with these texts. Returns one Outcome per id, in order."""
        runs = self.bench.run_rows(read_texts(prompt), ids)
        return [
            Outcome(id, "failed", error=run.error)
            if run.score is None
            else Outcome(id, "scored", run.score, run.score, trace=_join_traces(id, run))
            for id, run in zip(ids, runs, strict=True)
        ]


def _join_traces(id: str, run: ProgramRun) -> Trace | None:
    """Make one trace of those of the components that took part in a run."""
    if not run.traces:
        return None
    last = list(run.traces.values())[-1]
    return replace(last, id=id, parts=run.traces)


def read_texts(prompt: Prompt) -> dict[str, str]:
    """Return the texts of the components."""
    return {name: part.text for name, part in prompt.components.items()}


def improve_program(
    start: Mapping[str, Prompt],
    bench: ProgramBench,
    proposers: Mapping[str, Proposer],
    seed: int,
    cautious: bool = False,
    on_improvement: Callable[[int, float], None] = lambda runs, score: None,
) -> ImprovedProgram:
    """Improve the components that have a proposer, in one search over all of them.

    `on_improvement` is called with the runs so far and the validation score, first for the texts of
    `start` and then for each change that is kept. Raises TargetUnreliable, and ConfigError where
    the allowed runs do not suffice for the validation rows.
    """
    size = len(bench.rows["validation"])
    if bench.max_runs <= size:
        raise ConfigError(
            f"{bench.max_runs} runs are too few to search: the {size} validation rows alone take "
            f"{size}; allow more runs or give fewer validation rows"
        )
    # The components share the score of a row, so every candidate is scored on all rows.
    plan = make_plan(bench.max_runs, len(bench.rows["train"]), size, cautious, min_validation=size)
    first = Prompt.parse(join_components({name: prompt.to_source() for name, prompt in start.items()}))
    before = after = bench.validate(read_texts(first))
    on_improvement(bench.runs, before)
    state, changed = State(), list[str]()
    for event in search(state, first, plan, _ProgramTask(bench), ComponentProposer(proposers), seed):
        state = advance(state, event)
        if isinstance(event, Accepted):
            changed += state.proposal(event.round, event.id).components
            after = bench.validate(read_texts(state.prompt(event.id)))
            on_improvement(bench.runs, after)
    texts = read_texts(state.prompt(state.incumbent))
    return ImprovedProgram(texts, before, after, bench.runs, state.round, tuple(changed), state.stopped)


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
