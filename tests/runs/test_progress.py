"""The progress of a run: it never goes backwards, and what it counts is what the ledger has."""

import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import remask
from fakes.finished_run import play
from remask.api.job import Hooks
from remask.api.show_progress import add_follower, describe_left, describe_work, format_duration, render_html
from remask.cli.live import JsonLines, PlainLines, describe_workload
from remask.events import State, advance
from remask.ports import Fill, Hole
from remask.runs.budget import Limits, Spend
from remask.runs.progress import Follower, Progress, Workload
from remask.runs.report.read_run import view_run

LOAD = Workload(
    rounds=10,
    patience=4,
    first_calls=50,
    round_calls=100,
    test_calls=60,
    candidates=8,
    limits=Limits(calls=600),
)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


STEPS = st.tuples(
    st.sampled_from(("call", "reply", "answer", "token", "denoising step", "candidate", "text", "row")),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(0, 5),  # calls that are booked with it
    st.floats(0, 30),  # seconds that it took
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_progress_counts_all_work_and_stays_within_its_totals(
    steps: list[tuple[str, int, int, int, float]],
) -> None:
    clock, spend = Clock(), Spend()
    follower = Follower(clock=clock)
    follower.plan(LOAD, State(), spend)
    before = follower.progress
    for what, done, total, calls, seconds in steps:
        clock.now += seconds
        spend += Spend(calls=calls, seconds=seconds)
        follower.step(what, min(done, total), total, spend)
        now = follower.progress
        assert now.work == before.work + 1
        assert now.spend == spend
        assert now.seconds >= before.seconds
        assert now.seconds_left is None or now.seconds_left >= 0
        assert not now.total or now.done <= now.total
        assert now.step <= now.steps or not now.steps
        same = now.total == before.total  # else they are calls of another request
        if what in ("reply", "answer") and before.unit == "calls" and same:
            assert now.done >= before.done
        before = now


def follow(**settings: Any) -> tuple[remask.Result, list[Progress], list[tuple[int, int]]]:
    """Run `optimize` with fakes: the result, the progress after each change, calls of both counts."""
    from remask.api.arguments import settle_arguments, settle_rows
    from remask.api.job import choose_run_dir
    from remask.api.optimize import start_run

    rows = [(f"{n} + 1", str(n + 1)) for n in range(40)]
    values, given_ = settle_arguments(
        "Add.", data=rows, target=lambda messages: messages[-1]["content"], metric="contains",
        denoiser=Phrases(), task="", max_calls=200, budget=None, search=remask.Search(candidates=3),
        more={"seed": 0},
    )  # fmt: skip
    follower, seen, counts = Follower(), [], []
    told = add_follower(Hooks(), follower, lambda: seen.append(follower.progress))

    def watch(event: Any, state: State, spend: Spend) -> None:
        told.watch(event, state, spend)
        counts.append((follower.progress.spend.calls, spend.calls))

    with choose_run_dir(settings["run_dir"]) as folder:
        result = start_run(settle_rows(values, given_), given_, folder, replace(told, watch=watch))
    return result, seen, counts


class Phrases:
    def count(self, text: str) -> int:
        return len(text.split())

    def infill(self, context: Any, canvases: Any, seed: int) -> list[Fill]:
        return [
            Fill(tuple(f"Say number {seed % 97 + n}." for part in canvas if isinstance(part, Hole)), 0.0)
            for n, canvas in enumerate(canvases)
        ]


def test_counts_of_a_run_are_those_of_the_ledger_and_only_grow(tmp_path: Path) -> None:
    result, seen, counts = follow(run_dir=tmp_path / "run")
    assert counts and all(shown == booked for shown, booked in counts)
    assert seen[-1].spend.calls == result.spend.calls
    for before, now in pairwise(seen):
        assert now.work >= before.work
        assert now.spend.calls >= before.spend.calls
        assert now.round >= before.round or not now.round or now.phase.startswith("sealed test")
        same = (now.phase, now.unit, now.total) == (before.phase, before.unit, before.total)
        assert not same or now.done >= before.done or now.done == 0
    assert any(now.unit == "calls" and now.total for now in seen)
    assert all(now.rounds >= now.round for now in seen if now.rounds)


def test_time_left_follows_what_calls_and_denoising_took() -> None:
    clock = Clock()
    follower = Follower(clock=clock)
    load = replace(LOAD, limits=Limits(), seconds_per_call=0.5, seconds_per_round=20.0)
    follower.plan(load, State(), Spend())
    first = follower.progress.seconds_left
    assert first == pytest.approx((50 + 4 * 100 + 60) * 0.5 + 4 * 20)
    assert load.estimate_seconds() == pytest.approx(first)
    clock.now = 50.0
    follower.step("call", 50, 50, Spend(calls=50))  # a second each, twice the sample
    later = follower.progress.seconds_left
    assert later == pytest.approx((4 * 100 + 50 - 50 + 60) * 1.0 + 4 * 20)


def test_time_left_is_unknown_where_a_part_could_not_be_timed() -> None:
    follower = Follower(clock=Clock())
    follower.plan(LOAD, State(), Spend())
    assert follower.progress.seconds_left is None
    assert describe_left(follower.progress) == "not known yet"
    assert describe_workload(LOAD) == ""
    assert "denoising in each round" in describe_workload(replace(LOAD, seconds_per_round=30.0))
    whole = replace(LOAD, seconds_per_round=30.0, seconds_per_call=1.0)
    assert describe_workload(whole) == "estimate: about 10 minutes in all, denoising included"


def test_limit_on_minutes_bounds_the_time_left() -> None:
    load = replace(LOAD, limits=Limits(minutes=1), seconds_per_call=9.0, seconds_per_round=99.0)
    follower = Follower(clock=Clock())
    follower.plan(load, State(), Spend(seconds=20))
    assert follower.progress.seconds_left == 40
    assert load.estimate_seconds() == 60


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "under a minute"), (61, "about 1 minute"), (300, "about 5 minutes"), (9000, "about 2.5 hours")],
)
def test_durations_are_said_as_estimates(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


def test_a_round_that_asks_for_more_candidates_goes_on_counting() -> None:
    follower = Follower()
    seen = []
    for done, total in ((0, 8), (4, 8), (8, 8), (0, 8), (8, 8), (0, 2), (2, 2)):
        follower.step("candidate", done, total)
        seen.append((follower.progress.candidate, follower.progress.candidates))
    assert seen == [(0, 8), (4, 8), (8, 8), (8, 16), (16, 16), (16, 18), (18, 18)]


def test_denoising_step_and_candidates_are_named() -> None:
    follower = Follower(clock=Clock())
    follower.step("candidate", 16, 24)
    follower.step("denoising step", 7, 24)
    assert describe_work(follower.progress) == "16 of 24 candidates, denoising step 7 of 24"


def test_calls_of_a_chunk_count_on_from_those_before() -> None:
    follower = Follower(clock=Clock())
    follower.step("call", 32, 75)
    for done in (8, 16):
        follower.step("answer", done, 32)
        assert (follower.progress.done, follower.progress.total) == (32 + done, 75)
    follower.step("call", 64, 75)
    assert follower.progress.done == 64


def test_stopping_is_shown_without_an_event() -> None:
    asked = []
    follower = Follower(clock=Clock(), is_stopping=lambda: bool(asked))
    assert not follower.progress.stopping
    asked.append(1)
    assert follower.progress.stopping and follower.progress.phase.startswith("stopping")


def test_json_tells_the_progress_at_most_once_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    follower = Follower(clock=clock)
    face = JsonLines(follower, clock)
    for tenth in range(50):
        clock.now = tenth / 10
        follower.step("call", tenth, 50)
        face.tick()
    clock.now = 60
    face.tick()
    face.tick()
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["kind"] for line in found} == {"Progress"}
    assert 0.9 <= found[0]["seconds"] <= 1.0
    assert len(found) == 5  # and nothing twice where no work was done
    assert [line["done"] for line in found] == sorted(line["done"] for line in found)


def test_plain_lines_tell_the_progress_within_a_second_and_then_every_ten(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    follower = Follower(Limits(calls=100), clock=clock)
    face = PlainLines(follower, Path("run"), clock)
    for second in range(31):
        clock.now = float(second)
        follower.step("call", second, 50, Spend(calls=second))
        face.tick()
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3
    assert all(f"{n} of 50 calls" in line for n, line in zip((1, 11, 21), out, strict=False))
    assert out[0].startswith("[1 of 100 calls] ")


def test_follower_reads_a_whole_run_and_escapes_its_text(tmp_path: Path) -> None:
    play(tmp_path / "run", prompt="Work at level 5. <script>")
    follower, state = Follower(clock=Clock()), State()
    for calls, event in view_run(tmp_path / "run").history:
        state = advance(state, event)
        follower.event(event, state, Spend(calls=calls))
    now = follower.progress
    assert now.best is not None and now.baseline is not None and now.best.mean > now.baseline.mean
    assert now.accepted == len(state.accepted) and now.seconds_left == 0
    assert "<script>" not in render_html(now, state)
    json.dumps(now.encode())
