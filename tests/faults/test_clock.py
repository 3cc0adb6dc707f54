"""The clock of the machine jumps by an hour, or the machine sleeps for ten minutes."""

import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import remask
from fakes.colours import Oracle, Phrases, dataset, optimize
from remask.errors import BudgetSpent, TargetUnreliable
from remask.runs.report.read_run import view_run
from remask.runs.report.summary import list_points

SEED = 20261130
JUMPS = (-3600.0, 3600.0, -86_400.0, 600.0)


class Clock:
    """The wall clock with jumps at random readings."""

    def __init__(self, rng: random.Random, chance: float) -> None:
        self.real, self.shift, self.rng, self.chance = time.time, 0.0, rng, chance

    def __call__(self) -> float:
        if self.rng.random() < self.chance:
            self.shift += self.rng.choice(JUMPS)
        return self.real() + self.shift


def read_outcome(run: Path) -> dict[str, Any]:
    result = json.loads((run / "result.json").read_text())
    del result["run_dir"], result["spend"]["seconds"]
    return dict(result)


@pytest.mark.parametrize("runs", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_a_run_ends_the_same_whatever_the_wall_clock_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int, record_property: Any
) -> None:
    optimize(tmp_path / "whole", max_calls=600)
    whole = read_outcome(tmp_path / "whole")
    for number in range(runs):
        run = tmp_path / f"run{number}"
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", Clock(random.Random(SEED + number), 0.1))
            result = optimize(run, max_calls=600)
        assert read_outcome(run) == whole
        assert 0 <= result.spend.seconds < 600
        calls = [point.calls for point in list_points(view_run(run).history)]
        assert calls == sorted(calls) and calls[-1] <= result.spend.calls
    record_property("runs", runs)


def test_a_sleep_past_the_time_limit_ends_the_search_and_the_run_can_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, slept = time.monotonic, 0.0

    def watch(event: Any, state: Any, spend: Any) -> None:
        nonlocal slept
        if state.proposals and not slept:
            slept = 600.0

    monkeypatch.setattr(time, "monotonic", lambda: real() + slept)
    budget, run = remask.Budget(calls=600, minutes=5), tmp_path / "run"
    with pytest.raises(TargetUnreliable, match=r"the time is used up.*remask resume"):
        optimize(run, budget=budget, on_event=watch)
    result = remask.resume(run, data=dataset(), target=Oracle(), denoiser=Phrases())
    assert "5 minutes" in result.stopped and result.spend.seconds >= 600
    assert result.test is not None and result.test.n == 180


def test_time_that_ends_in_the_test_leaves_it_to_a_resumed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verdict on the rows until then would depend on the speed of the machine."""
    real, slept, tested = time.monotonic, 0.0, 0
    oracle = Oracle()

    def target(messages: list[dict[str, str]]) -> str:
        nonlocal slept, tested
        tested += testing
        if tested == 150:  # of 180 rows twice
            slept = 600.0
        return oracle(messages)

    testing = False

    def watch(event: Any, state: Any, spend: Any) -> None:
        nonlocal testing
        testing = bool(state.stopped)

    monkeypatch.setattr(time, "monotonic", lambda: real() + slept)
    budget, run = remask.Budget(calls=600, minutes=5), tmp_path / "run"
    with pytest.raises(TargetUnreliable, match=r"of 180 rows.*the time is used up.*remask resume"):
        optimize(run, target=target, budget=budget, on_event=watch)
    result = remask.resume(run, data=dataset(), target=target, denoiser=Phrases())
    assert result.test is not None and result.test.n == 180


def hang_on_some_rows(lock: threading.Event) -> Any:
    def metric(example: Any, response: str) -> float:
        if example.input.endswith("5"):
            lock.wait(60)
        return float(response == example.expected)

    return metric


def test_the_time_limit_cuts_a_metric_that_hangs_and_the_run_can_be_finished(tmp_path: Path) -> None:
    lock, run, began = threading.Event(), tmp_path / "run", time.monotonic()
    limits = remask.Budget(calls=600, minutes=0.03)
    with pytest.raises(TargetUnreliable, match="minutes used"):
        optimize(run, data=dataset(100), metric=hang_on_some_rows(lock), budget=limits)
    assert time.monotonic() - began < 5
    lock.set()
    result = remask.resume(
        run, data=dataset(100), target=Oracle(), denoiser=Phrases(), metric=hang_on_some_rows(lock)
    )
    assert result.test.n == 40


def test_the_time_limit_of_an_evaluation_cuts_a_metric_that_hangs() -> None:
    lock, began = threading.Event(), time.monotonic()
    with pytest.raises(BudgetSpent, match="minutes used"):
        remask.evaluate(
            "Name it.", dataset(100), target=Oracle(), metric=hang_on_some_rows(lock), split="train",
            budget=remask.Budget(calls=None, minutes=0.03),
        )  # fmt: skip
    lock.set()
    assert time.monotonic() - began < 4
