"""Which failures a refinement reads: frequent kinds first, then what differs most."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.propose.failure_modes import group_failures
from remask.types import Feedback, Trace

LATE = "my parcel is late and nobody answers the phone"
RUDE = "the agent was rude to my mother yesterday evening"
LOST = "where can the lost suitcase be collected tomorrow"


def count(text: str) -> int:
    return len(text.split())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def complaint(i: int, said: str, source: str = "", score: float = 0.0) -> Trace:
    return Trace(f"t{i}", f"{said} number{i}", "sorry", None, (), score, source)


def other(i: int) -> Trace:
    return complaint(1000 + i, f"alpha{i} beta{i} gamma{i} delta{i} epsilon{i}")


def select(traces: list[Trace], seed: int = 0, most: int = 8) -> list[str]:
    return [t.query for t in group_failures(traces).select(traces, 10_000, count, rng(seed), most)]


def test_select_takes_frequent_modes_first_then_different_failures() -> None:
    traces = [complaint(i, LATE) for i in range(9)] + [complaint(20 + i, RUDE) for i in range(5)]
    traces += [other(i) for i in range(40)]
    for seed in range(5):
        found = select(traces, seed)
        assert LATE in found[0] and RUDE in found[1]
        assert not any(LATE in query or RUDE in query for query in found[2:]), "one of each kind"
    assert select(traces, 1) != select(traces, 2) and select(traces, 1) == select(traces, 1)


def test_mode_frequency_is_its_number_of_sources() -> None:
    flood = [complaint(i, LATE, "one user") for i in range(300)]
    traces = [*flood, complaint(900, LOST, "a"), complaint(901, LOST, "b")]
    grouped = group_failures(traces)
    assert [grouped.source_counts[grouped.mode_of[t.id]] for t in (traces[0], traces[-1])] == [1, 2]
    found = select(traces, most=3)
    assert LOST in found[0]
    others = [replace(other(i), source=f"user {i}") for i in range(20)]
    chosen = group_failures(flood + others).select(flood + others, 10_000, count, rng(), 8)
    assert sum(t.source == "one user" for t in chosen) <= 1


def test_modes_of_labels_are_confusions() -> None:
    pairs = [("red", "blue")] * 6 + [("blue", "red")] * 3 + [("red", "green")]
    traces = [Trace(f"t{i}", f"item {i}", b, a, (), 0.0, f"s{i}") for i, (a, b) in enumerate(pairs)]
    grouped = group_failures(traces)
    assert sorted(grouped.source_counts.values()) == [1, 3, 6]
    chosen = grouped.select(traces, 10_000, count, rng(), 3)
    assert [(t.desired, t.response) for t in chosen] == [
        ("red", "blue"), ("blue", "red"), ("red", "green"),
    ]  # fmt: skip


def test_modes_depend_on_feedback() -> None:
    notes = (Feedback("comment", "far too slow and without any apology to the customer"),)
    traces = [replace(other(i), feedback=notes, query=f"alpha{i}") for i in range(4)]
    assert set(group_failures(traces).source_counts.values()) == {4}


words = st.lists(st.sampled_from(["late", "rude", "lost", "parcel", "agent", "phone", "red"]), max_size=6)
some = st.builds(
    Trace,
    id=st.uuids().map(str),
    query=words.map(" ".join),
    response=words.map(" ".join),
    desired=st.none() | words.map(" ".join),
    score=st.none() | st.floats(0, 1),
    source=st.sampled_from(["", "a", "b"]),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(some, max_size=20), st.integers(0, 80), st.integers(1, 8), st.integers(0, 9))
def test_select_respects_the_limits_of_a_context(
    traces: list[Trace], limit: int, most: int, seed: int
) -> None:
    grouped = group_failures(traces)
    assert set(grouped.mode_of) == {t.id for t in traces if t.failing}
    chosen = grouped.select(traces, limit, count, rng(seed), most)
    assert len(chosen) == len({t.id for t in chosen}) <= most
    parts = [p for t in chosen for p in (t.query, t.response, t.desired or "")]
    assert sum(map(count, parts)) <= limit
    kind = [t.failing for t in chosen]
    assert kind == sorted(kind, reverse=True)


def test_group_failures_takes_seconds_for_thousands() -> None:
    traces = [complaint(i, f"word{i % 97} about{i % 89} thing{i % 83} {LATE}") for i in range(3000)]
    grouped = group_failures(traces)
    assert sum(grouped.source_counts.values()) == 3000
