"""Search by scores: candidates race on paired train rows, then the winner is validated.

The search is a generator of events that depends only on its arguments. To resume an interrupted
run, fold its stored events into a State and iterate again: the interrupted round is repeated with
target calls from the cache, so the same events follow.

The race, the acceptance rule and the rest are our own design and not taken from arXiv 2602.18449.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from remask import events
from remask.errors import BudgetSpent
from remask.events import Event, Rows, State, advance
from remask.ids import rng_for, seed_for
from remask.ports import Proposal, Proposer, Task, evaluate_all, name_reward, report_step
from remask.prompt import Prompt
from remask.search.plan import SearchPlan, count_survivors
from remask.search.race import Race
from remask.stats import accepts
from remask.types import MAX_FAILED, Outcome, Split, Trace, mean_score

TEST_PART_ROWS = 128  # a multiple of the meter's chunks, so that batches stay the same
VALIDATION_PART_ROWS = 32  # between two looks at a winner; one chunk of the meter
ENOUGH_VALIDATION = 0.75  # of the rows are enough to decide where the budget ends
FUTILE_MARGIN = 0.5  # a winner that is behind by so many sqrt(Σd²) is not asked on
PRIOR_CANDIDATES = 4  # of the mean reward, that each source of candidates counts as having had
MAX_DRAWS = 4  # requests for proposals in a round, until there are enough new ones


def search(
    state: State, start: Prompt, plan: SearchPlan, task: Task, proposer: Proposer, seed: int
) -> Iterator[Event]:
    """Yield the events of a search from `state` on, up to events.SearchEnded.

    A spent budget also ends with SearchEnded. Raises TargetRefused and TargetUnreliable.
    """
    if state.stopped:
        return
    try:
        for event in _score_baseline(state, start, plan, task, proposer, seed):
            yield event
            state = advance(state, event)
        while state.round < plan.rounds and state.rounds_without_gain < plan.patience:
            if _is_perfect(state):
                yield events.SearchEnded("all validation rows are already right")
                return
            for event in _run_round(state, plan, task, proposer, seed):
                yield event
                state = advance(state, event)
    except BudgetSpent as spent:
        yield events.SearchEnded(str(spent))
        return
    stale = state.rounds_without_gain
    reason = f"no better prompt in the last {stale} rounds"
    if stale < plan.patience:
        reason = f"all {plan.rounds} rounds were run" + (f", {reason}" if stale else "")
    yield events.SearchEnded(reason)


def run_final_test(
    task: Task, baseline: Prompt, best: Prompt, announce: Callable[[int, int], None] = lambda rows, left: None
) -> tuple[list[Outcome], list[Outcome]]:
    """Score both prompts once on all test rows.

    An unchanged prompt is scored only once. The rows are scored in parts with both prompts each, so
    that a budget that ends too early leaves rows with both scores; the others have failed.
    Calls `announce(rows, left)` before it scores so many rows: `left` rows are to be scored after
    them, a row that two prompts answer counted twice.
    """
    ids = task.ids("test")
    prompts = [baseline] if best.text == baseline.text else [baseline, best]
    before: list[Outcome] = []
    after: list[Outcome] = []
    size = TEST_PART_ROWS
    while len(before) < len(ids):
        part = ids[len(before) : len(before) + size]
        try:
            scored = []
            for later in reversed(range(len(prompts))):
                left = later * len(part) + len(prompts) * (len(ids) - len(before) - len(part))
                announce(len(part), left)
                scored.append(task.evaluate(prompts[-1 - later], part))
        except BudgetSpent as spent:
            if size > 1:
                size = 1  # rows that were paid before the budget ended are stored, and cost nothing
                continue
            scored = [[Outcome(part[0], "failed", error=str(spent))]]
        before += scored[0]
        after += scored[-1]
    return before, after


def _score_baseline(
    state: State, start: Prompt, plan: SearchPlan, task: Task, proposer: Proposer, seed: int
) -> Iterator[Event]:
    """Score the baseline on the validation rows, unless the state has its scores."""
    if not state.baseline:
        yield events.Started(start.to_source(), start.id, proposer.count(start.text))
    if (start.id, "validation") not in state.scores:
        ids = _choose_validation_rows(task, plan, seed)
        yield _evaluate(task, [start], "validation", ids, 0)[0][0]


def _choose_validation_rows(task: Task, plan: SearchPlan, seed: int) -> tuple[str, ...]:
    """Choose the validation rows of the plan, the same ones in the whole search.

    They are in random order, so that the first ones speak for all.
    """
    ids = tuple(task.ids("validation"))
    order = rng_for(seed, "validation").permutation(len(ids))
    return tuple(ids[i] for i in order[: plan.count_validation_rows(len(ids))])


def _run_round(state: State, plan: SearchPlan, task: Task, proposer: Proposer, seed: int) -> Iterator[Event]:
    """Run one round: traces of the incumbent, candidates, their race, validation of the winner."""
    number, parent = state.round, state.prompt(state.incumbent)
    order = rng_for(seed, number, "rows").permutation(len(task.ids("train")))
    ids = tuple(task.ids("train")[i] for i in order[: sum(plan.rungs)])
    event, outcomes = _evaluate(task, [parent], "train", ids, number)[0]
    yield event
    traces_by_row = {o.example: o.trace for o in outcomes if o.trace is not None}
    traces = tuple(traces_by_row.values())

    alive: list[Proposal] = []
    for proposal in _draw_proposals(state, plan, proposer, parent, ids, traces, seed):
        yield record_proposal(number, parent, proposal, proposer)
        if not proposal.violation:
            alive.append(proposal)
    if not alive:
        yield events.RoundRejected(number, "no candidate passed the guard")
        return

    race = Race({o.example: o.ranking_score for o in outcomes if o.status == "scored"})
    ids = _alternate_answers(outcomes)
    seen, entered = 0, len(alive)
    for rung, rows in enumerate(plan.rungs):
        batch = ids[seen : seen + rows]
        seen += rows
        answered = _evaluate(task, [p.prompt for p in alive], "train", batch, number)
        for proposal, (event, outcomes) in zip(alive, answered, strict=True):
            yield event
            race.add(proposal, outcomes)
        alive = race.drop(alive, count_survivors(entered, rung))
        if len(alive) == 1 and race.measure_lead(alive[0]) > 0:
            break
    winner = alive[0]
    if race.measure_lead(winner) <= 0:
        yield events.RoundRejected(number, "no candidate was better on the train rows")
        return
    yield from _validate_winner(state, plan, task, proposer, parent, winner, traces_by_row, seed)


def _validate_winner(
    state: State,
    plan: SearchPlan,
    task: Task,
    proposer: Proposer,
    parent: Prompt,
    winner: Proposal,
    traces_by_row: dict[str, Trace],
    seed: int,
) -> Iterator[Event]:
    """Score the winner on the validation rows and accept or reject it by the plan's rule.

    traces_by_row: the traces that the candidates were written from, by id of the train row.
    """
    ids = _choose_validation_rows(task, plan, seed)
    before, seeded = (state.scores[(id, "validation")] for id in (parent.id, state.baseline))
    report_step("scoring the best candidate on validation rows", 0, 0)
    outcomes: list[Outcome] = []
    rows: Rows = ()
    while len(rows) < len(ids) and not _is_futile(_subtract(rows, before)):
        try:
            outcomes += task.evaluate(winner.prompt, ids[len(rows) : len(rows) + VALIDATION_PART_ROWS])
        except BudgetSpent:
            if len(rows) < ENOUGH_VALIDATION * len(ids):
                raise
            ids = ids[: len(rows)]
        else:
            mean_score(outcomes, MAX_FAILED * len(ids) / len(outcomes))  # as many may fail as of all rows
            rows = rows_from_outcomes(outcomes)
    yield events.Scored(state.round, winner.prompt.id, "validation", rows)
    gains = _subtract(rows, before)
    total = sum(gains)
    if len(rows) < len(ids) or not plan.accepts(gains, _subtract(rows, seeded)):
        reason = f"validation: {total:+.3g} points over {len(gains)} rows"
        if total > 0:
            reason += ", which may be chance"
        yield events.RoundRejected(state.round, reason)
        return
    row_of = {trace.id: row for row, trace in traces_by_row.items()}
    drops = proposer.explain(winner, tuple(traces_by_row.values()))
    evidence = tuple(row_of[drop.trace] for drop in drops)
    yield events.Accepted(state.round, winner.prompt.id, parent.id, total / len(gains), evidence)


def _alternate_answers(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Return the rows of a round so that rows with other right answers take turns.

    A prompt that makes the target give one label to all rows would else win a rung in which that
    label is frequent. Rows of which each has an answer of its own keep their order.
    """
    seen = Counter[str]()
    turns = []
    for outcome in outcomes:
        answer = outcome.trace.desired if outcome.trace is not None else None
        turns.append((seen[answer or ""], outcome.example))
        seen[answer or ""] += bool(answer)
    order = sorted(range(len(turns)), key=lambda i: turns[i][0])
    return tuple(turns[i][1] for i in order)


def _is_futile(gains: Sequence[float]) -> bool:
    """Whether a winner is so far behind that the other validation rows would hardly change it.

    To stop early can only reject, so it accepts no harmful prompt (docs/background/acceptance.md).
    """
    return sum(gains) < 0 and accepts([-gain for gain in gains], FUTILE_MARGIN)


def _subtract(rows: Rows, before: Mapping[str, float | None]) -> list[float]:
    """Return score minus score before, on the rows that have both."""
    pairs = [(score, before.get(id)) for id, score, _ in rows]
    return [a - b for a, b in pairs if a is not None and b is not None]


def _draw_proposals(
    state: State,
    plan: SearchPlan,
    proposer: Proposer,
    parent: Prompt,
    ids: Sequence[str],
    traces: Sequence[Trace],
    seed: int,
) -> Iterator[Proposal]:
    """Yield the new proposals of the plan that the guard allows, and all refused ones.

    ids: the train rows of the round, whose `traces` the candidates are written from.
    """
    seen = set(state.earlier_prompts(state.round))
    spent = _count_calls(state, seen, parent, ids) - len(ids)  # the plan of a round counts them itself
    wanted = enough = plan.choose_candidates(spent)
    rewards = measure_rewards(state, sum(plan.rungs))
    for draw in range(MAX_DRAWS):
        drawn_from = seed_for(seed, state.round, "propose", draw)
        for proposal in proposer.propose(parent, traces, wanted, drawn_from, rewards):
            if proposal.prompt.id not in seen:
                seen.add(proposal.prompt.id)
                enough -= not proposal.violation
                yield proposal
            if not enough:
                return


def _count_calls(state: State, earlier: Collection[str], parent: Prompt, asked: Collection[str]) -> int:
    """Count the rows that prompts of earlier rounds were asked, and those of `parent` in this round.

    A resumed round counts as many as when it was first run, so it draws the same candidates.
    """
    scored = {key: set(rows) for key, rows in state.scores.items() if key[0] in earlier}
    scored[(parent.id, "train")] = scored.get((parent.id, "train"), set()) | set(asked)
    return sum(map(len, scored.values()))


def measure_rewards(state: State, rows: int) -> dict[str, float]:
    """Return what each source and component has won in earlier rounds, as a factor of the mean.

    The reward of a candidate is the share of the `rows` train rows of a round that it was asked on,
    which is what the race gave it, and 1 more where it was accepted. Each source counts as if it had
    PRIOR_CANDIDATES more of the mean reward, since a few candidates say little.
    """
    accepted = {event.id for event in state.accepted}
    by_source: dict[str, list[float]] = {}
    every = []
    for proposed in state.proposals.values():
        if proposed.round < state.round:
            # An accepted candidate is asked on more rows later, as the parent of other rounds.
            asked = min(1.0, len(state.scores.get((proposed.id, "train"), ())) / rows)
            every.append(reward := asked + (proposed.id in accepted))
            for source in (proposed.masker.partition(" ")[0], *map(name_reward, proposed.components)):
                by_source.setdefault(source, []).append(reward)
    if not any(every):
        return {}
    mean = sum(every) / len(every)
    return {
        source: (sum(found) + PRIOR_CANDIDATES * mean) / (len(found) + PRIOR_CANDIDATES) / mean
        for source, found in sorted(by_source.items())
    }


def record_proposal(number: int, parent: Prompt, proposal: Proposal, proposer: Proposer) -> Event:
    """Return the event of a proposal of round `number`, refused by the guard or not."""
    if proposal.violation:
        return events.Refused.from_proposal(number, parent, proposal)
    tokens = proposer.count(proposal.prompt.text)
    return events.Proposed.from_proposal(number, parent, proposal, tokens)


def _evaluate(
    task: Task, prompts: Sequence[Prompt], split: Split, ids: Sequence[str], number: int
) -> list[tuple[events.Scored, list[Outcome]]]:
    """Score prompts on rows. Raises TargetUnreliable if too many rows of one of them failed."""
    scored = []
    for prompt, outcomes in zip(prompts, evaluate_all(task, prompts, ids), strict=True):
        mean_score(outcomes)
        event = events.Scored(number, prompt.id, split, rows_from_outcomes(outcomes))
        scored.append((event, outcomes))
    return scored


def rows_from_outcomes(outcomes: Sequence[Outcome]) -> Rows:
    """Return the part of outcomes that events store."""
    return tuple((o.example, o.score if o.status == "scored" else None, o.ranking_score) for o in outcomes)


def _is_perfect(state: State) -> bool:
    scores = state.scores[(state.incumbent, "validation")].values()
    return all(score is None or score >= 1 for score in scores)
