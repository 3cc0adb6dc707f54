"""The search on a task with a known optimum: invariants of a run."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.worlds import TOP, LevelProposer, LevelTask, level
from remask.errors import TargetUnreliable
from remask.events import (
    Accepted,
    Event,
    Proposed,
    Refused,
    RoundRejected,
    Scored,
    SearchEnded,
    Started,
    State,
    decode,
    encode,
    fold,
)
from remask.prompt import Prompt
from remask.search.plan import SearchPlan, count_round_calls, make_plan
from remask.search.scores import VALIDATION_PART_ROWS, run_final_test, search
from remask.types import Outcome, Split

START = Prompt("Work at level 2.")
PLAN = SearchPlan(candidates=6, rungs=(5, 5, 10), rounds=40, patience=6)


def play(task: LevelTask, seed: int = 0, state: State | None = None, plan: SearchPlan = PLAN):
    return list(search(state or State(), START, plan, task, LevelProposer(), seed))


def test_search_finds_the_known_optimum() -> None:
    events = play(LevelTask())
    state = fold(events)
    assert level(state.prompt(state.incumbent)) == TOP
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], SearchEnded)
    assert "already right" in state.stopped


def test_search_depends_only_on_the_seed() -> None:
    assert play(LevelTask()) == play(LevelTask())
    assert play(LevelTask()) != play(LevelTask(), seed=1)


@settings(deadline=None, max_examples=60)
@given(cut=st.integers(0, 400), limit=st.integers(60, 900), seed=st.integers(0, 3))
def test_search_gives_the_same_events_when_resumed(cut: int, limit: int, seed: int) -> None:
    plan = replace(PLAN, rungs=(2, 4, 6, 6), validation=40, calls=limit)  # its candidates follow what is left
    whole = play(LevelTask(limit=limit), seed, plan=plan)
    task = LevelTask(limit=limit)
    log: list[Event] = []
    for event in search(State(), START, plan, task, LevelProposer(), seed):
        if len(log) == cut:
            break
        log.append(event)
    for event in search(fold(log), START, plan, task, LevelProposer(), seed):
        if event not in log:  # the store ignores what it has
            log.append(event)
    assert log == list(dict.fromkeys(whole))


@settings(deadline=None, max_examples=40)
@given(limit=st.integers(1, 700), seed=st.integers(0, 50))
def test_search_keeps_the_budget(limit: int, seed: int) -> None:
    task = LevelTask(limit=limit)
    events = play(task, seed)
    assert task.calls <= limit
    assert isinstance(events[-1], SearchEnded)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000))
def test_search_proposes_no_edit_twice(seed: int) -> None:
    events = play(LevelTask(), seed)
    proposed = [e for e in events if isinstance(e, Proposed)]
    known = {START.id} | {p.id for p in proposed}
    assert all(p.parent in known for p in proposed)
    assert len({p.id for p in proposed}) == len(proposed), "an edit was proposed again"
    accepted = [START.id] + [e.id for e in events if isinstance(e, Accepted)]
    assert all(
        e.parent == a for e, a in zip([e for e in events if isinstance(e, Accepted)], accepted, strict=False)
    )
    state = fold(events)
    means = [sum(s or 0 for s in state.scores[(id, "validation")].values()) for id in accepted]
    assert all(a < b for a, b in pairwise(means)), "accepted without being ahead"
    assert all(e.gain > 0 for e in events if isinstance(e, Accepted))


def test_search_spends_no_call_on_refused_candidates() -> None:
    task = LevelTask()
    list(search(State(), START, PLAN, task, LevelProposer(forbidden=1.0), 0))
    assert {lv for lv, _ in task.asked} == {2}, "only the start prompt was asked"


def test_search_ends_each_round_once_without_test_rows() -> None:
    task = LevelTask()
    events = play(task)
    ends = [e.round for e in events if isinstance(e, Accepted | RoundRejected)]
    assert ends == sorted(set(ends))
    assert not any(id.startswith("test") for _, id in task.asked)
    assert not any(e.split == "test" for e in events if isinstance(e, Scored))
    assert any(isinstance(e, Refused) for e in events)


def test_search_stops_when_nothing_improves() -> None:
    proposer = LevelProposer(steps=(-1, 0))
    events = list(search(State(), START, PLAN, LevelTask(), proposer, 0))
    state = fold(events)
    assert state.incumbent == START.id
    assert "no better prompt in the last 6 rounds" in state.stopped


def test_search_refuses_to_rank_on_failures() -> None:
    task = LevelTask(fails=frozenset({"validation-0", "validation-1"}))
    with pytest.raises(TargetUnreliable, match="2"):
        play(task)


def test_run_final_test_scores_an_unchanged_prompt_once() -> None:
    task = LevelTask()
    before, after = run_final_test(task, START, START)
    assert before == after
    assert task.calls == task.rows


def test_events_survive_json() -> None:
    import orjson

    for event in play(LevelTask()):
        assert decode(orjson.loads(orjson.dumps(encode(event)))) == event


@given(calls=st.integers(1, 20_000), train=st.integers(1, 500), validation=st.integers(1, 500))
def test_make_plan_keeps_within_the_splits(calls: int, train: int, validation: int) -> None:
    plan = make_plan(calls, train, validation)
    assert plan.candidates >= 4
    assert 1 <= sum(plan.rungs) <= train
    assert 1 <= plan.count_validation_rows(validation) <= validation
    assert plan.count_round_calls(validation) <= count_round_calls(plan.candidates, plan.rungs, validation)


@given(calls=st.integers(200, 20_000))
def test_make_plan_fits_whole_rounds_into_the_budget(calls: int) -> None:
    """With 50 train and 150 validation rows, the planned rounds use no more than the budget."""
    plan = make_plan(calls, 50, 150)
    rounds = plan.rounds // 4
    assert rounds >= 1
    assert plan.count_validation_rows(150) + rounds * plan.count_round_calls(150) <= calls


def test_make_plan_increases_the_margin_with_the_rounds() -> None:
    ahead = [1.0] * 14 + [-1.0] * 9 + [0.0] * 77  # Σd = 5 = 1.04 sqrt(Σd²)
    small, large = make_plan(400, 50, 150), make_plan(2400, 200, 200)
    assert small.accepts(ahead, ahead) and not large.accepts(ahead, ahead)
    assert not large.accepts(ahead, [0.0] * 100)
    assert not make_plan(None, 50, 150).accepts(ahead, ahead)
    assert large.accepts(ahead, [1.0] * 12 + [0.0] * 88)
    assert not make_plan(2400, 200, 200, cautious=True).accepts(ahead, [1.0] * 12 + [0.0] * 88)


def test_search_always_uses_the_same_validation_rows() -> None:
    task, plan = LevelTask(), replace(PLAN, validation=20)
    asked = [
        {row for row, _, _ in event.rows}
        for event in play(task, 3, plan=plan)
        if isinstance(event, Scored) and event.split == "validation"
    ]
    assert len(asked) > 2
    assert all(rows == asked[0] for rows in asked)
    assert len(asked[0]) == 20 < len(task.ids("validation"))


def test_a_winner_that_falls_behind_is_not_asked_on() -> None:
    """Candidates that are better on train rows and worse on validation rows cost one part of them."""

    class Trap(LevelTask):
        def evaluate(self, prompt: Prompt, ids: Sequence[str]) -> list[Outcome]:
            good = level(prompt) == 3
            value = {"train": float(good), "validation": 0.9 - 0.5 * good}
            self.calls += len(ids)
            return [Outcome(i, "scored", value[i[:-4].rstrip("-")], value[i[:-4].rstrip("-")]) for i in ids]

        def ids(self, split: Split) -> tuple[str, ...]:
            return tuple(f"{split}-{i:03}" for i in range(100))

    events = play(Trap(), plan=replace(PLAN, patience=1))
    validated = [e for e in events if isinstance(e, Scored) and e.split == "validation"]
    assert [len(e.rows) for e in validated] == [100, VALIDATION_PART_ROWS]
    ended = next(e for e in events if isinstance(e, RoundRejected))
    assert ended.reason == f"validation: -16 points over {VALIDATION_PART_ROWS} rows"


def test_as_many_rows_may_fail_in_one_part_as_in_all() -> None:
    plan = replace(PLAN, patience=1)
    order = [row for row, _, _ in next(e for e in play(LevelTask(rows=100)) if isinstance(e, Scored)).rows]
    better = LevelProposer(steps=(3,), forbidden=0.0)
    task = LevelTask(rows=100, fails=frozenset(order[:2]))
    events = list(search(State(), START, plan, task, better, 0))
    assert any(isinstance(e, Accepted) for e in events)
    with pytest.raises(TargetUnreliable, match="3 of 100"):
        play(LevelTask(rows=100, fails=frozenset(order[:3])))


def test_a_budget_that_ends_in_a_validation_decides_on_most_rows() -> None:
    plan = replace(PLAN, candidates=4, rungs=(4, 4), rounds=1)
    better = LevelProposer(steps=(3,), forbidden=0.0)
    whole = LevelTask(rows=40)
    list(search(State(), START, plan, whole, better, 0))

    def count_validated(missing: int) -> list[int]:
        task = LevelTask(rows=40, limit=whole.calls - missing)
        events = list(search(State(), START, plan, task, better, 0))
        decided = isinstance(events[-2], Accepted | RoundRejected)
        rows = [len(e.rows) for e in events if isinstance(e, Scored) and e.split == "validation"]
        assert decided == (len(rows) == 2)
        return rows

    assert count_validated(0) == [40, 40]
    assert count_validated(3) == [40, VALIDATION_PART_ROWS]
    assert count_validated(20) == [40], "too few rows to decide"
