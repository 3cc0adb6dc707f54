"""Several prompts of one program, improved in turns under one hard cap on runs of the program.

Each turn is one round of the search on one component while the others stay as they are. A
change is kept where the program does better on the validation rows. What runs, and what a row is,
the host says. Runs of equal texts on equal rows are free.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from remask.api.arguments import Denoiser, Label, Search, settle_arguments
from remask.api.build_models import make_denoiser
from remask.api.build_proposer import make_proposer, refuse_demos
from remask.config import Config, make_config
from remask.errors import ConfigError
from remask.events import State, advance
from remask.ids import content_id, rng_for, seed_for
from remask.ports import DenoiserModel, Proposer
from remask.prompt import Prompt
from remask.runs.budget import Limits
from remask.runs.meter import Ledger
from remask.runs.store import MemoryStore
from remask.search.halving import search
from remask.search.plan import SearchPlan, make_plan
from remask.types import Outcome, Split, Trace

AnyDenoiser = str | DenoiserModel | Denoiser
NO_PARTS: Mapping[str, float] = {}


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of the program on one row."""

    score: float | None  # 1 is perfect; None: the run failed, which is no score
    traces: Mapping[str, Trace]  # of each component that took part
    error: str = ""  # why it failed
    parts: Mapping[str, float] = field(default_factory=lambda: NO_PARTS)  # scores by name


Texts = Mapping[str, str]  # of each component
Run = Callable[[Texts, Sequence[str]], list[Ran]]  # texts and row ids: one Ran per id, in order


@dataclass(frozen=True, slots=True)
class Improved:
    """What became of the components; scores are means on rows that chose them."""

    texts: dict[str, str]
    before: float  # on the validation rows
    after: float
    runs: int  # of the program, of those that the cap allows
    turns: int
    changed: tuple[str, ...]  # components, in the order in which changes were accepted
    stopped: str


@dataclass(slots=True)
class Bench:
    """The program with its rows, its cap and what it has answered already."""

    run: Run
    rows: Mapping[Split, tuple[str, ...]]
    cap: int
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(MemoryStore(), Limits(calls=self.cap))

    @property
    def runs(self) -> int:
        """Of the program so far, of those that the cap allows."""
        return self.ledger.store.get_spend().calls

    def ask(self, texts: Texts, ids: Sequence[str]) -> list[Ran]:
        """Raises BudgetSpent before a run that would pass the cap. Failed runs are not stored."""
        keys = [content_id("run", sorted(texts.items()), id) for id in ids]
        known = self.ledger.ask(
            dict(zip(keys, ids, strict=True)),
            lambda missing: self.run(texts, missing),
            keep=lambda ran: ran.score is not None,
        )
        return [known[key] for key in keys]

    def mean(self, texts: Texts) -> float:
        """On the validation rows, as far as they have a score."""
        ran = self.ask(texts, self.rows["validation"])
        scores = [one.score for one in ran if one.score is not None]
        return sum(scores) / len(scores) if scores else 0.0


@dataclass(frozen=True, slots=True)
class _Component:
    """The program as a Task of one of its prompts."""

    bench: Bench
    name: str
    others: Texts
    labels: tuple[str, ...] = ()

    def ids(self, split: Split) -> tuple[str, ...]:
        return self.bench.rows[split]

    def evaluate(self, prompt: Prompt, ids: Sequence[str]) -> list[Outcome]:
        ran = self.bench.ask({**self.others, self.name: prompt.text}, ids)
        return [
            Outcome(id, "failed", error=one.error)
            if one.score is None
            else Outcome(id, "scored", one.score, one.score, trace=one.traces.get(self.name))
            for id, one in zip(ids, ran, strict=True)
        ]


def improve(
    start: Mapping[str, Prompt],
    bench: Bench,
    proposers: Mapping[str, Proposer],
    seed: int,
    cautious: bool = False,
    tell: Callable[[int, float], None] = lambda runs, score: None,
) -> Improved:
    """Improve the components that have a proposer, one round each in turn.

    `tell` hears runs and validation score whenever a change is kept. Raises TargetUnreliable, and
    ConfigError where the cap cannot pay for the validation rows.
    """
    names = tuple(proposers)
    size = len(bench.rows["validation"])
    if bench.cap <= size:
        raise ConfigError(
            f"{bench.cap} runs leave nothing to search with: the {size} validation rows alone take "
            f"{size}; raise the cap or give fewer validation rows"
        )
    # All components share the score of all rows.
    plan = make_plan(bench.cap, len(bench.rows["train"]), size, cautious, min_validation=size)
    best = dict(start)
    texts = {name: prompt.text for name, prompt in best.items()}
    before = after = bench.mean(texts)
    tell(bench.runs, before)
    turn = stale = 0
    changed: list[str] = []
    stopped = "all rounds played"
    while turn < plan.rounds * len(names):
        name = names[turn % len(names)]
        state = _turn(best[name], plan, _Component(bench, name, texts), proposers[name],
                      seed_for(seed, "turn", turn))  # fmt: skip
        turn += 1
        if state.accepted:
            best[name] = state.prompt(state.incumbent)
            texts = {**texts, name: best[name].text}
            changed.append(name)
            stale, after = 0, bench.mean(texts)
            tell(bench.runs, after)
        elif state.round:
            stale += 1
        else:
            stopped = state.stopped
            break
        if stale >= plan.patience * len(names):
            stopped = f"no better prompt in {stale} rounds"
            break
    return Improved(texts, before, after, bench.runs, turn, tuple(changed), stopped)


def _turn(
    prompt: Prompt, plan: SearchPlan, task: _Component, proposer: Proposer, seed: int
) -> State:
    """One round of the search; a state of round 0 where it ended before a verdict."""
    state = State()
    for event in search(state, prompt, replace(plan, rounds=1), task, proposer, seed):
        state = advance(state, event)
    return state


def halves(ids: Sequence[str], seed: int) -> dict[Split, tuple[str, ...]]:
    """Train and validation halves, drawn by the seed, where the host has only one list."""
    order = [ids[i] for i in rng_for(seed, "halves").permutation(len(ids))]
    middle = len(order) // 2
    if not middle:
        raise ConfigError(f"{len(ids)} rows are too few: one half is read, the other validates")
    return {"train": tuple(order[:middle]), "validation": tuple(order[middle:])}


def settle(
    denoiser: AnyDenoiser, search: Search | None, answer: str
) -> tuple[Config, DenoiserModel | None]:
    """The configuration, and the denoiser where it is the user's own object. ConfigError."""
    values, given = settle_arguments(
        "-", data=None, target=None, metric=Label(answer=answer), denoiser=denoiser, search=search,
        more={},
    )  # fmt: skip
    config = make_config(values, "arguments")
    refuse_demos(config, "an integration")
    return config, given.denoiser


def proposers(
    start: Mapping[str, Prompt], config: Config, given: DenoiserModel | None, labels: Sequence[str]
) -> dict[str, Proposer]:
    """One for each component that has editable text; they share the denoiser."""
    denoiser = make_denoiser(config.denoiser, given)
    return {
        name: make_proposer(config, prompt, denoiser, labels)
        for name, prompt in start.items()
        if prompt.editable
    }
