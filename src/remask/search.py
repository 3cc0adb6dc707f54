"""The search: halve candidates on paired train rows, validate the winner, keep what is better.

A generator of events over a State. What it yields depends only on (state, plan, rooms), so a run
that was cut anywhere is resumed by folding the stored events and iterating again: the round that
was cut is replayed, its target calls come from the cache, and the same events follow. Knows
nothing of files, faces, models or where candidates come from.

Successive halving follows Jamieson and Talwalkar (arXiv 1502.07943); everything else, including
the acceptance rule, is our own design and not taken from arXiv 2602.18449.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from remask.errors import BudgetSpent
from remask.events import (
    Accepted,
    Event,
    Kept,
    Proposed,
    Rejected,
    Rows,
    Scored,
    Started,
    State,
    Stopped,
    advance,
)
from remask.evidence import AHEAD, Rule, improves
from remask.identity import rng_for, seed_for
from remask.ports import Proposal, Proposer, Task
from remask.prompt import Prompt
from remask.trace import Outcome, Split, Trace, mean_score

CAUTIOUS = 1.1  # the largest margin, in standard deviations of a sum whose true value is 0
ROUNDS_PER_MARGIN = 3  # so many rounds make a margin of one standard deviation
CANDIDATES, FEWEST = 24, 6  # of a round, at most and at least
TRAINED = 18  # train rows of a round
FEWEST_VALIDATED = 75  # rows, where there are so many: fewer tell too little of a candidate
DRAWS = 4  # times a round asks for proposals until it has enough unseen ones


@dataclass(frozen=True, slots=True)
class Plan:
    """How a search spends its calls; every number is derived from the budget by `make_plan`."""

    candidates: int  # per round
    rungs: tuple[int, ...]  # train rows that each rung adds; a third goes on to the next
    rounds: int  # at most
    patience: int  # rounds without an acceptance before the search gives up
    validation: int | None = None  # rows of that split that are asked; None: all
    accepts: Rule = improves  # whether the winner's leads on validation rows make it incumbent

    def validated(self, rows: int) -> int:
        """Validation rows that are asked, of so many."""
        return rows if self.validation is None else min(rows, self.validation)

    def round_calls(self, validation: int) -> int:
        """Target calls of one round, at most, with so many rows in the validation split."""
        return round_calls(self.candidates, self.rungs, self.validated(validation))


def make_plan(
    calls: int | None,
    train: int,
    validation: int,
    cautious: bool = False,
    fewest: int = FEWEST_VALIDATED,
) -> Plan:
    """A plan for `calls` target calls (without those of the final test; None: no limit).

    One round costs the incumbent on the train rows, the rungs, and the winner on validation. Most
    candidates are far worse than their parent, so there are many and two rows are enough to drop
    most of them. Calls that pay for no whole round are lost, so there are as many candidates as let
    whole rounds use up the budget. Few validation rows, `fewest` at least, buy more rounds; fewer
    still would do harm too often (docs/log.md, plans).
    """
    rungs, candidates = _rungs(min(train, TRAINED)), CANDIDATES
    if calls is None:
        return Plan(candidates, rungs, 30, 6, accepts=_rule(30, cautious))
    validation = min(validation, max(fewest, calls // 8))
    left = calls - validation
    rounds = -(-left // round_calls(candidates, rungs, validation))
    rounds = max(1, min(rounds, left // round_calls(FEWEST, rungs, validation)))
    while candidates > FEWEST and left < rounds * round_calls(candidates, rungs, validation):
        candidates -= 3
    return Plan(candidates, rungs, 4 * rounds, 6, validation, accepts=_rule(rounds, cautious))


def _rule(rounds: int, cautious: bool) -> Rule:
    """What must be ahead by how much: the more rounds a budget pays for, the more winners chance
    has, so the seed prompt is left by a margin that grows with them (docs/acceptance.md)."""
    if cautious:
        return partial(improves, step=CAUTIOUS, ahead=CAUTIOUS)
    return partial(improves, ahead=min(CAUTIOUS, max(AHEAD, rounds / ROUNDS_PER_MARGIN)))


def _rungs(rows: int) -> tuple[int, ...]:
    """Train rows for three rungs, each about twice as long as those before it together."""
    first = -(-rows // 9)
    second = min(2 * first, rows - first)
    return tuple(n for n in (first, second, rows - first - second) if n)


def survivors(alive: int) -> int:
    """Candidates that go on to the next rung."""
    return max(1, -(-alive // 3))


def round_calls(candidates: int, rungs: Sequence[int], validation: int) -> int:
    """Target calls of one round, at most."""
    alive, total = candidates, sum(rungs)
    for rung in rungs:
        total += alive * rung
        alive = survivors(alive)
    return total + validation


def search(
    state: State, start: Prompt, plan: Plan, task: Task, proposer: Proposer, seed: int
) -> Iterator[Event]:
    """Yield the events of a search from `state` on, up to and including Stopped.

    Raises TargetRefused and TargetUnreliable. A spent budget ends it as Stopped.
    """
    if state.stopped:
        return
    try:
        for event in _opening(state, start, plan, task, proposer, seed):
            yield event
            state = advance(state, event)
        while state.round < plan.rounds and state.stale < plan.patience:
            if _perfect(state):
                yield Stopped("every validation row that was asked is right already")
                return
            for event in _round(state, plan, task, proposer, seed):
                yield event
                state = advance(state, event)
    except BudgetSpent as spent:
        yield Stopped(f"budget: {spent}")
        return
    why = "no better prompt" if state.stale >= plan.patience else "all rounds played"
    yield Stopped(f"{why} in {state.stale} rounds" if state.stale else why)


def final_test(task: Task, baseline: Prompt, best: Prompt) -> tuple[list[Outcome], list[Outcome]]:
    """The sealed test: both prompts on all test rows, each scored once.

    Raises BudgetSpent and TargetUnreliable.
    """
    ids = task.ids("test")
    before = task.evaluate(baseline, ids)
    after = before if best.text == baseline.text else task.evaluate(best, ids)
    mean_score(before)
    mean_score(after)
    return before, after


def _opening(
    state: State, start: Prompt, plan: Plan, task: Task, proposer: Proposer, seed: int
) -> Iterator[Event]:
    """The baseline on the validation rows, unless the state has it already."""
    if not state.baseline:
        yield Started(start.marked(), start.id, proposer.count(start.text))
    if (start.id, "validation") not in state.scores:
        yield _score(task, start, "validation", _validation(task, plan, seed), 0)[0]


def _validation(task: Task, plan: Plan, seed: int) -> tuple[str, ...]:
    """The validation rows that are asked: the same ones in all of a search."""
    ids = tuple(task.ids("validation"))
    chosen = rng_for(seed, "validation").permutation(len(ids))[: plan.validated(len(ids))]
    return tuple(ids[i] for i in sorted(chosen))


def _round(state: State, plan: Plan, task: Task, proposer: Proposer, seed: int) -> Iterator[Event]:
    """One round: traces of the incumbent, candidates, halving, validation, verdict."""
    number, parent = state.round, state.prompt(state.incumbent)
    order = rng_for(seed, number, "rows").permutation(len(task.ids("train")))
    ids = tuple(task.ids("train")[i] for i in order[: sum(plan.rungs)])
    event, outcomes = _score(task, parent, "train", ids, number)
    yield event
    heard = {o.example: o.trace for o in outcomes if o.trace is not None}
    traces = tuple(heard.values())

    alive: list[Proposal] = []
    for proposal in _proposals(state, plan, proposer, parent, traces, seed):
        if proposal.objection:
            yield Rejected(
                number, parent.id, proposal.prompt.marked(), proposal.masker, proposal.objection
            )
        else:
            alive.append(proposal)
            yield _proposed(number, parent, proposal, proposer)
    if not alive:
        yield Kept(number, "no candidate passed the guard")
        return

    soft = {o.example: o.soft for o in outcomes if o.status == "scored"}
    ahead = {p.prompt.id: _Lead() for p in alive}
    seen = 0
    for rung, rows in enumerate(plan.rungs):
        batch = ids[seen : seen + rows]
        seen += rows
        for proposal in alive:
            event, outcomes = _score(task, proposal.prompt, "train", batch, number)
            yield event
            ahead[proposal.prompt.id].add(outcomes, soft, proposal.shown)
        alive.sort(key=lambda p: (-ahead[p.prompt.id].mean, p.prompt.id))
        if rung + 1 < len(plan.rungs):
            alive = alive[: survivors(len(alive))]
    winner = alive[0]
    if ahead[winner.prompt.id].mean <= 0:
        yield Kept(number, "no candidate was ahead on the train rows")
        return
    yield from _verdict(state, plan, task, proposer, parent, winner, heard, seed)


def _verdict(
    state: State,
    plan: Plan,
    task: Task,
    proposer: Proposer,
    parent: Prompt,
    winner: Proposal,
    heard: dict[str, Trace],
    seed: int,
) -> Iterator[Event]:
    """The winner on the validation rows; the plan's rule says whether it is accepted.

    `heard`: the trace of each train row that the proposals were drawn from.
    """
    ids = _validation(task, plan, seed)
    event, _ = _score(task, winner.prompt, "validation", ids, state.round)
    yield event
    gains = _leads(event.rows, state.scores[(parent.id, "validation")])
    total = sum(gains)
    if not plan.accepts(gains, _leads(event.rows, state.scores[(state.baseline, "validation")])):
        why = f"validation: {total:+.3g} points over {len(gains)} rows"
        yield Kept(state.round, f"{why}, too close to chance" if total > 0 else why)
        return
    rows = {trace.id: row for row, trace in heard.items()}
    drops = proposer.explain(winner, tuple(heard.values()))
    because = tuple(rows[drop.trace] for drop in drops)
    yield Accepted(state.round, winner.prompt.id, parent.id, total / len(gains), because)


def _leads(rows: Rows, before: Mapping[str, float | None]) -> list[float]:
    """Score minus that before, on the rows that have both."""
    pairs = [(score, before.get(id)) for id, score, _ in rows]
    return [a - b for a, b in pairs if a is not None and b is not None]


def _proposals(
    state: State,
    plan: Plan,
    proposer: Proposer,
    parent: Prompt,
    traces: Sequence[Trace],
    seed: int,
) -> Iterator[Proposal]:
    """Up to plan.candidates unseen proposals without objection; and all rejected ones."""
    seen, enough = set(state.seen_before(state.round)), plan.candidates
    for draw in range(DRAWS):
        drawn_from = seed_for(seed, state.round, "propose", draw)
        for proposal in proposer.propose(parent, traces, plan.candidates, drawn_from):
            if proposal.prompt.id not in seen:
                seen.add(proposal.prompt.id)
                enough -= not proposal.objection
                yield proposal
            if not enough:
                return


def _proposed(number: int, parent: Prompt, proposal: Proposal, proposer: Proposer) -> Proposed:
    prompt = proposal.prompt
    return Proposed(
        round=number,
        id=prompt.id,
        parent=parent.id,
        prompt=prompt.marked(),
        tokens=proposer.count(prompt.text),
        masker=proposal.masker,
        masks=proposal.masks,
        edits=proposal.edits,
        traces=proposal.traces,
        logp=proposal.logp,
    )


def _score(
    task: Task, prompt: Prompt, split: Split, ids: Sequence[str], number: int
) -> tuple[Scored, list[Outcome]]:
    """Evaluate; refuses (TargetUnreliable) where too many rows failed."""
    outcomes = task.evaluate(prompt, ids)
    mean_score(outcomes)
    return Scored(number, prompt.id, split, rows_of(outcomes)), outcomes


def rows_of(outcomes: Sequence[Outcome]) -> Rows:
    """The part of outcomes that events keep."""
    return tuple((o.example, o.score if o.status == "scored" else None, o.soft) for o in outcomes)


@dataclass(slots=True)
class _Lead:
    """How far a candidate is ahead of its parent on train rows so far, in soft scores: their noise
    is smaller than that of right or wrong, and on few rows that decides who survives."""

    total: float = 0.0
    rows: int = 0

    def add(
        self, outcomes: Sequence[Outcome], parent: dict[str, float], shown: Sequence[str]
    ) -> None:
        """Rows whose answers stand in one of the two prompts show nothing and are left out."""
        for o in outcomes:
            if o.status == "scored" and o.example in parent and o.example not in shown:
                self.total += o.soft - parent[o.example]
                self.rows += 1

    @property
    def mean(self) -> float:
        return self.total / self.rows if self.rows else 0.0


def _perfect(state: State) -> bool:
    scores = state.scores[(state.incumbent, "validation")].values()
    return all(score is None or score >= 1 for score in scores)
