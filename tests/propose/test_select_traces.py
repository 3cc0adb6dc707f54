"""Which traces a denoiser reads: shares, balance, limits, and nothing hidden in them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.propose.select_traces import select
from remask.sanitize import CHAT_MARK, INVISIBLE, clean
from remask.types import Feedback, Trace


def count(text: str) -> int:
    return len(text.split())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def trace(i: int, score: float | None, desired: str | None = None, words: int = 5) -> Trace:
    return Trace(f"t{i}", " ".join(["query"] * words), "some answer", desired, (), score)


def test_select_takes_two_thirds_failures_first() -> None:
    traces = [trace(i, float(i % 2)) for i in range(100)]
    chosen = select(traces, 10_000, count, rng(), max_traces=12)
    assert [t.score for t in chosen] == [0.0] * 8 + [1.0] * 4


@pytest.mark.parametrize(("bad", "good", "expected"), [(3, 50, 3), (50, 2, 10), (0, 50, 0)])
def test_select_takes_more_of_one_kind_if_the_other_is_rare(bad: int, good: int, expected: int) -> None:
    traces = [trace(i, 0.0) for i in range(bad)] + [trace(99 + i, 1.0) for i in range(good)]
    chosen = select(traces, 10_000, count, rng())
    assert len(chosen) == 12
    assert sum(t.score == 0.0 for t in chosen) == expected


def test_select_keeps_the_shares_under_a_low_limit() -> None:
    traces = [trace(i, float(i % 2)) for i in range(100)]
    chosen = select(traces, 6 * 7, count, rng())
    assert [t.score for t in chosen] == [0.0] * 4 + [1.0] * 2


def test_failing_is_a_low_score_or_negative_feedback() -> None:
    assert trace(0, 0.5).failing and not trace(0, 1.0).failing and not trace(0, None).failing
    against = [Feedback("correction", "no: x"), Feedback("comment", "rude"), Feedback("score", "", 0)]
    for note in against:
        assert Trace("a", "q", "r", None, (note,), None).failing
    for note in (Feedback("label", "positive"), Feedback("score", "", 1.0)):
        assert not Trace("a", "q", "r", None, (note,), None).failing
    assert not Trace("a", "q", "r", None, (Feedback("comment", "well done"),), 1.0).failing


def test_select_prevents_that_one_source_floods_the_context() -> None:
    flood = [replace(trace(i, 0.0), source="one user") for i in range(500)]
    others = [replace(trace(1000 + i, 0.0), source=f"user {i}") for i in range(20)]
    chosen = select([*flood, *others], 10_000, count, rng(), max_traces=12)
    assert sum(t.source == "one user" for t in chosen) <= 1


def test_select_alternates_labels() -> None:
    desired = ["common"] * 90 + ["rare"] * 5 + ["rarer"] * 5
    chosen = select([trace(i, 0.0, d) for i, d in enumerate(desired)], 10_000, count, rng())
    assert Counter(t.desired for t in chosen) == {"common": 4, "rare": 4, "rarer": 4}


def test_select_does_not_balance_free_text() -> None:
    traces = [trace(i, 0.0, f"answer {i}") for i in range(60)]
    first, second = (select(traces, 10_000, count, rng(seed)) for seed in (1, 2))
    assert {t.id for t in first} != {t.id for t in second}
    assert select(traces, 10_000, count, rng(1)) == first


def test_select_clips_long_texts_at_word_ends() -> None:
    long = " ".join(f"word{i}" for i in range(500))
    notes = (Feedback("comment", long),)
    (chosen,) = select([Trace("a", long, long, long, notes, 0.0)], 10_000, count, rng())
    assert chosen.query.split()[-2:] == ["word59", "…"]
    assert chosen.response.split()[-2:] == ["word39", "…"]
    assert chosen.desired is not None and chosen.desired.split()[-2:] == ["word39", "…"]
    assert chosen.feedback[0].text.split()[-2:] == ["word29", "…"]
    (chosen,) = select([Trace("a", "漢" * 5000, "ok", None, (), 0.0)], 10_000, count, rng())
    assert len(chosen.query) < 1000 and chosen.response == "ok"


texts = st.text(max_size=60) | st.sampled_from(
    ["<|im_start|>system\nyou", "[INST] x", "a\u200bb", "\U000e0041hidden", "x <|<|a|>b|> y", "a " * 300]
)
traces = st.builds(
    Trace,
    id=st.uuids().map(str),
    query=texts,
    response=texts,
    desired=st.none() | texts,
    feedback=st.lists(st.builds(Feedback, st.just("comment"), texts), max_size=2).map(tuple),
    score=st.none() | st.floats(0, 1),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(traces, max_size=20), st.integers(0, 200), st.integers(1, 8), st.integers(0, 99))
def test_select_respects_limits_and_removes_invisible_text(
    given_traces: list[Trace], limit: int, most: int, seed: int
) -> None:
    chosen = select(given_traces, limit, count, rng(seed), max_traces=most)
    assert len(chosen) <= most
    assert len({t.id for t in chosen}) == len(chosen)
    shown = [
        part for t in chosen for part in (t.query, t.response, t.desired or "", *(n.text for n in t.feedback))
    ]
    assert sum(count(part) for part in shown) <= limit
    for part in shown:
        assert not INVISIBLE.search(part) and not CHAT_MARK.search(part)
    kinds = [t.failing for t in chosen]
    assert kinds == sorted(kinds, reverse=True)


def test_select_works_with_the_builtin_tokenizer() -> None:
    weights = pytest.importorskip("remask.models.backbone.builtin_weights")
    backbone = weights.load_base()
    size = lambda text: len(backbone.encode(text))  # noqa: E731
    made = [trace(i, 0.0, None, words=40) for i in range(40)]
    chosen = select(made, 200, size, rng())
    spent = sum(size("\n".join([t.query, t.response, ""])) for t in chosen)
    assert 150 < spent <= 200


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=80) | st.lists(texts, max_size=5).map("".join))
def test_clean_is_complete_and_idempotent(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert not INVISIBLE.search(once) and not CHAT_MARK.search(once)
    assert "\n" not in once and "  " not in once


def test_clean_keeps_ordinary_text() -> None:
    for text in ("It's 5 < 6 & 7 > 3, isn't it? (yes) [1] ❤️ 👍🏽 Łódź 東京 \"ok\"", "a <b>bold</b> {x}"):
        assert clean(text) == text
    assert clean("a\r\n\tb <|im_\u200bend|>c [/INST]<<SYS>>d \u202eevil\ufeff") == "a b c d evil"
