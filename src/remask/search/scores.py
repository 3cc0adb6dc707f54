"""Search by scores: candidates race on paired train rows, then the winner is validated.

The search is a generator of events that depends only on its arguments. To resume an interrupted
run, fold its stored events into a State and iterate again: the interrupted round is repeated with
target calls from the cache, so the same events follow.

The race, the acceptance rule and the rest are our own design and not taken from arXiv 2602.18449.
"""

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence

from remask import events
from remask.errors import BudgetSpent
from remask.events import Event, Rows, State, advance
from remask.ids import rng_for, seed_for
from remask.ports import Proposal, Proposer, Task, evaluate_all, name_reward, report_step
from remask.prompt import Prompt
from remask.search.goals import (
    GUARD,
    choose_preferred,
    count_guard_tests,
    find_loss,
    find_preference,
    is_preferred,
    refuse_longer,
)
from remask.search.join_deletions import join_deletions
from remask.search.plan import SearchPlan, count_survivors
from remask.search.race import Race
from remask.stats import accepts, is_not_worse
from remask.types import MAX_FAILED, Outcome, Trace, mean_score

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
            if _is_perfect(state) and not state.goals.prefer:
                yield events.SearchEnded("all validation rows are already right")
                return
            for event in _run_round(state, plan, task, proposer, seed):
                yield event
                state = advance(state, event)
    except BudgetSpent as spent:
        yield from _choose_last(state)
        yield events.SearchEnded(str(spent))
        return
    yield from _choose_last(state)
    stale = state.rounds_without_gain
    reason = f"no better prompt in the last {stale} rounds"
    if stale < plan.patience:
        reason = f"all {plan.rounds} rounds were run" + (f", {reason}" if stale else "")
    yield events.SearchEnded(reason)


def _choose_last(state: State) -> Iterator[Event]:
    """Yield the choice of another accepted prompt than the last one, where it is preferred."""
    if (id := choose_preferred(state)) != state.incumbent:
        yield events.Chosen(id)


def run_final_test(
    task: Task,
    baseline: Prompt,
    best: Prompt,
    announce: Callable[[int, int], None] = lambda rows, left: None,
    guards: Sequence[str] = (),
) -> tuple[list[Outcome], list[Outcome]]:
    """Score both prompts once on all test rows, then on the sealed `guards`: rows of guard sets.

    An unchanged prompt is scored only once. The rows are scored in parts with both prompts each, so
    that a budget that ends too early leaves rows with both scores; the others have failed.
    Calls `announce(rows, left)` before it scores so many rows: `left` rows are to be scored after
    them, a row that two prompts answer counted twice.
    """
    ids = (*task.ids("test"), *guards)
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
    """Score the baseline on the validation and guard rows, unless the state has its scores."""
    if not state.baseline:
        yield events.Started(start.to_source(), start.id, proposer.count(start.text))
    if (start.id, "validation") not in state.scores:
        ids = _choose_validation_rows(task, plan, seed)
        yield _evaluate(task, [start], "validation", ids, state)[0][0]
    if state.goals.guards and (start.id, GUARD) not in state.scores:
        ids = tuple(id for guard in state.goals.guards for id in guard.validation)
        yield _evaluate(task, [start], GUARD, ids, state)[0][0]


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
    event, outcomes = _evaluate(task, [parent], "train", ids, state)[0]
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

    preference = find_preference(state, parent.id, outcomes)
    race = Race({o.example: o.ranking_score for o in outcomes if o.status == "scored"}, preference)
    tokens = {p.prompt.id: proposer.count(p.prompt.text) if preference else 0 for p in alive}
    ids = _alternate_answers(outcomes)
    seen, entered = 0, len(alive)
    for rung, rows in enumerate(plan.rungs):
        batch = ids[seen : seen + rows]
        seen += rows
        answered = _evaluate(task, [p.prompt for p in alive], "train", batch, state)
        for proposal, (event, outcomes) in zip(alive, answered, strict=True):
            yield event
            race.add(proposal, outcomes, tokens[proposal.prompt.id])
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
    before = state.scores[(parent.id, "validation")]
    report_step("scoring the best candidate on validation rows", 0, 0)
    outcomes: list[Outcome] = []
    rows: Rows = ()
    allowed = state.goals.within / 100 if state.goals.prefer else 0.0
    while len(rows) < len(ids) and not _is_futile([gain + allowed for gain in _subtract(rows, before)]):
        try:
            outcomes += task.evaluate(winner.prompt, ids[len(rows) : len(rows) + VALIDATION_PART_ROWS])
        except BudgetSpent:
            if len(rows) < ENOUGH_VALIDATION * len(ids):
                raise
            ids = ids[: len(rows)]
        else:
            mean_score(outcomes, MAX_FAILED * len(ids) / len(outcomes))  # as many may fail as of all rows
            rows = rows_from_outcomes(outcomes)
    yield events.Scored(state.round, winner.prompt.id, "validation", rows, list_values(state, outcomes))
    gains = _subtract(rows, before)
    total = sum(gains)
    objective = None
    if len(rows) >= len(ids):
        objective = _find_basis(state, plan, proposer.count(winner.prompt.text), rows, outcomes)
    if objective is None:
        reason = f"validation: {total:+.3g} points over {len(gains)} rows"
        if total > 0:
            reason += ", which may be chance"
        yield events.RoundRejected(state.round, reason)
        return
    if loss := (yield from _test_guards(state, task, winner)):
        yield events.RoundRejected(state.round, loss)
        return
    row_of = {trace.id: row for row, trace in traces_by_row.items()}
    drops = proposer.explain(winner, tuple(traces_by_row.values()))
    evidence = tuple(row_of[drop.trace] for drop in drops)
    gain = total / len(gains)
    yield events.Accepted(state.round, winner.prompt.id, parent.id, gain, evidence, objective)


def _find_basis(
    state: State, plan: SearchPlan, tokens: int, rows: Rows, outcomes: Sequence[Outcome]
) -> str | None:
    """Return what a winner is accepted for: "" for its score, or the preferred objective.

    None: it is not accepted. `tokens`: of its prompt; `rows`: its scores on all validation rows.
    """
    goals = state.goals
    on_incumbent, on_seed, on_leader = (
        _subtract(rows, state.scores[(id, "validation")])
        for id in (state.incumbent, state.baseline, state.leader)
    )
    if not goals.only_preferred and plan.accepts(on_incumbent, on_seed):
        return ""
    kept = is_not_worse(on_leader, goals.within / 100, plan.margin)
    return goals.prefer if kept and is_preferred(state, tokens, outcomes) else None


def _test_guards(state: State, task: Task, winner: Proposal) -> Generator[Event, None, str]:
    """Score the winner on the guard rows. Returns which guard set may lose too much; "" for none."""
    if not state.goals.guards:
        return ""
    report_step("scoring the best candidate on guard rows", 0, 0)
    outcomes: list[Outcome] = []

    def score(ids: Sequence[str]) -> dict[str, float | None]:
        outcomes.extend(task.evaluate(winner.prompt, ids))
        mean_score(outcomes, MAX_FAILED)
        return {id: score for id, score, _ in rows_from_outcomes(outcomes[-len(ids) :])}

    before = state.scores[(state.baseline, GUARD)]
    loss = find_loss(state.goals.guards, before, score, count_guard_tests(state, winner.prompt.id) + 1)
    yield events.Scored(state.round, winner.prompt.id, GUARD, rows_from_outcomes(outcomes))
    return loss


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
        proposals = proposer.propose(parent, traces, wanted, drawn_from, rewards)
        if state.goals.only_preferred:
            proposals = [*join_deletions(parent, proposals), *proposals]
        for proposal in proposals:
            if proposal.prompt.id not in seen:
                seen.add(proposal.prompt.id)
                proposal = refuse_longer(state, parent, proposal, proposer.count)
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
    task: Task, prompts: Sequence[Prompt], split: str, ids: Sequence[str], state: State
) -> list[tuple[events.Scored, list[Outcome]]]:
    """Score prompts on rows. Raises TargetUnreliable if too many rows of one of them failed."""
    scored = []
    for prompt, outcomes in zip(prompts, evaluate_all(task, prompts, ids), strict=True):
        mean_score(outcomes)
        rows, values = rows_from_outcomes(outcomes), list_values(state, outcomes)
        scored.append((events.Scored(state.round, prompt.id, split, rows, values), outcomes))
    return scored


def list_values(
    state: State, outcomes: Sequence[Outcome]
) -> tuple[tuple[str, tuple[float | None, ...]], ...]:
    """Return the measured objectives of outcomes, as events store them."""
    names = [name for name, _ in state.goals.objectives if name != events.PROMPT_TOKENS]
    return tuple((name, tuple(o.values.get(name) for o in outcomes)) for name in names)


def rows_from_outcomes(outcomes: Sequence[Outcome]) -> Rows:
    """Return the part of outcomes that events store."""
    return tuple((o.example, o.score if o.status == "scored" else None, o.ranking_score) for o in outcomes)


def rows_from_values(outcomes: Sequence[Outcome], name: str) -> Rows:
    """Return the values of a measured objective as rows, for a paired comparison."""
    return tuple((o.example, o.values.get(name), None) for o in outcomes)


def _is_perfect(state: State) -> bool:
    scores = state.scores[(state.incumbent, "validation")].values()
    return all(score is None or score >= 1 for score in scores)
