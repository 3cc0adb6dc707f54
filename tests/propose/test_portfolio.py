"""The candidates of a round are divided among their sources by what the sources have won."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.scripted_denoiser import ScriptedDenoiser
from remask.config import MASKERS
from remask.events import Accepted, Event, Proposed, RoundRejected, Scored, Started, fold
from remask.ports import NOT_DENOISED
from remask.prompt import Prompt
from remask.propose.portfolio import DENOISER_FLOOR, MAX_FACTOR, divide, favour_library
from remask.propose.proposer import DiffusionProposer, ProposerConfig
from remask.search.scores import measure_rewards
from remask.types import Trace

rewards = st.dictionaries(st.sampled_from(sorted({*MASKERS, "demos"})), st.floats(0, 1e6), max_size=8)


def test_a_first_round_takes_the_maskers_in_turn() -> None:
    assert divide(MASKERS, 30) == [MASKERS[i % len(MASKERS)] for i in range(30)]


@given(st.integers(0, 60), rewards)
def test_every_division_is_whole_and_the_same_again(n: int, won: dict[str, float]) -> None:
    chosen = divide(MASKERS, n, won)
    assert len(chosen) == n and chosen == divide(MASKERS, n, won)
    assert set(chosen) <= set(MASKERS)
    assert chosen == divide(MASKERS, n + 7, won)[:n], "more candidates only add"


@given(rewards)
def test_the_denoiser_keeps_a_third(won: dict[str, float]) -> None:
    chosen = divide(MASKERS, 120, won)
    assert sum(name not in NOT_DENOISED for name in chosen) >= 120 * DENOISER_FLOOR - len(set(MASKERS))


def test_a_source_that_wins_gets_more_within_limits() -> None:
    order = ("insert", "span")
    shares = [Counter(divide(order, 100, {"insert": x, "span": 1.0}))["insert"] for x in (0, 0.5, 1, 2, 99)]
    assert shares == sorted(shares) and shares[2] == 50
    assert shares[-1] == round(100 * MAX_FACTOR / (MAX_FACTOR + 1))
    assert shares[0] == round(100 / (MAX_FACTOR + 1)), "no source is given up"


def test_where_the_traces_fill_its_slots_the_library_gets_the_insertions() -> None:
    favoured = Counter(favour_library(MASKERS))
    before = Counter(MASKERS)
    assert favoured["library"] == before["library"] + before["insert"]
    assert favour_library(("insert", "insert")) == ("insert", "insert"), "the library was turned off"
    order = tuple(name for name in MASKERS if name != "attribution")  # it needs probabilities
    config = ProposerConfig(order, traces=4, context_tokens=400, max_growth=3.0)
    proposer = DiffusionProposer(Prompt("Say it."), ScriptedDenoiser(("x",)), config)
    greetings = [Trace(f"t{i}", "q", "?", f"Dear {name}", score=0.0) for i, name in enumerate("abcd")]
    silent = [Trace(f"t{i}", "q", "?", name, score=0.0) for i, name in enumerate("abcd")]
    for traces, expected in ((greetings, favour_library(order)), (silent, order), ((), order)):
        drawn = proposer.plan(Prompt("Say it."), traces, len(order), 0).masks
        assert tuple(name for name, _ in drawn) == expected


def play(*rounds: tuple[tuple[str, int, bool], ...]) -> list[Event]:
    """The events of rounds of (masker, train rows asked, whether it was accepted)."""
    start = Prompt("Say it.")
    found: list[Event] = [Started(start.to_source(), start.id, 3)]
    for number, candidates in enumerate(rounds):
        for i, (masker, rows, accepted) in enumerate(candidates):
            prompt = Prompt(f"Say it {number} {i}.")
            found.append(
                Proposed(number, prompt.id, start.id, prompt.to_source(), 3, masker, (), (), (), 0.0)
            )
            found.append(Scored(number, prompt.id, "train", tuple((str(r), 1.0, 1.0) for r in range(rows))))
            if accepted:
                found.append(Accepted(number, prompt.id, start.id, 0.1, ()))
    return found


def test_rewards_follow_how_far_candidates_went() -> None:
    won = measure_rewards(
        fold(play((("anchor", 18, True), ("insert", 6, False), ("demos in, insert", 2, False)))), 18
    )
    assert won["anchor"] > won["insert"] > won["demos"]
    assert won["demos"] > 0.5, "one candidate says little"
    assert measure_rewards(fold(play()), 18) == {}


def test_rewards_do_not_count_the_rows_of_a_later_parent() -> None:
    events = play((("anchor", 18, True), ("insert", 2, False)), (("insert", 2, False),))
    winner = next(event.id for event in events if isinstance(event, Accepted))
    later = Scored(1, winner, "train", tuple((f"later {r}", 1.0, 1.0) for r in range(90)))
    ended = RoundRejected(1, "no better")
    assert measure_rewards(fold([*events, later, ended]), 18) == measure_rewards(fold([*events, ended]), 18)


def test_rewards_leave_the_running_round_out() -> None:
    whole = play((("anchor", 18, True), ("insert", 2, False)), (("insert", 18, False),))
    assert measure_rewards(fold(whole), 18) == pytest.approx(measure_rewards(fold(whole[:6]), 18))
