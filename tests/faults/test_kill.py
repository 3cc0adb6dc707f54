"""kill -9 of the command line at random moments, against a server that counts what is billed."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from fakes.http_run import World, finish, read_ledger, read_result, start, write_job
from fakes.server import Server

MOST_STARTS = 12
# One small case is quick; the others are slow.
RUNS = pytest.mark.parametrize(
    ("runs", "concurrency"),
    [
        pytest.param(1, 8, id="few-8"),
        pytest.param(2, 1, id="few-1", marks=pytest.mark.slow),
        pytest.param(40, 1, id="many-1", marks=pytest.mark.slow),
        pytest.param(40, 8, id="many-8", marks=pytest.mark.slow),
    ],
)
SEED = 20261130
NO_LIMIT = 2500  # calls: more than twice of what a run makes


def play_with_kills(folder: Path, world: World, rng: random.Random, whole: int) -> int:
    """Run to the end with one to three kills, each at a random request; returns the kills."""
    kills, wanted = 0, rng.choice([1, 1, 2, 3])
    for _ in range(MOST_STARTS):
        process = start(folder)
        if kills < wanted:
            at = world.requests + rng.randrange(max(1, whole - world.requests) + 1)
            pause = rng.choice([0.0, 0.0, rng.uniform(0, 0.02), rng.uniform(0, 0.3)])
            while process.poll() is None and world.requests < at:
                time.sleep(0.001)
            time.sleep(pause)
            if process.poll() is None:
                process.kill()
                kills += 1
                process.communicate()
                continue
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        return kills
    raise AssertionError(f"not finished after {MOST_STARTS} starts")


def compare(
    tmp_path: Path, runs: int, concurrency: int, calls: int, record_property: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """An uncut run, and `runs` that are killed and resumed; each with what the server counted."""
    world = World()
    with Server(default=world) as server:
        write_job(tmp_path / "whole", server, calls=calls, concurrency=concurrency)
        assert finish(tmp_path / "whole") == (0, "")
        whole = {**read_result(tmp_path / "whole"), "requests": world.requests}
    found = []
    for number in range(runs):
        rng, world, folder = random.Random(SEED + number), World(), tmp_path / f"killed{number}"
        with Server(default=world) as server:
            write_job(folder, server, calls=calls, concurrency=concurrency)
            kills = play_with_kills(folder, world, rng, whole["requests"])
            found.append(
                read_result(folder) | {"kills": kills, "requests": world.requests, "repeated": world.repeated}
            )
        read_ledger(folder)
    record_property("runs", runs)
    record_property("kills", sum(run["kills"] for run in found))
    return found, whole


@RUNS
def test_a_killed_run_ends_like_the_whole_run_where_the_limit_does_not_bind(
    tmp_path: Path, concurrency: int, runs: int, record_property: Any
) -> None:
    found, whole = compare(tmp_path, runs, concurrency, NO_LIMIT, record_property)
    assert 2 * whole["requests"] <= NO_LIMIT
    for run in found:
        lost = run["kills"] * concurrency  # calls in flight
        assert (run["prompt"], run["best"], run["test"]) == (whole["prompt"], whole["best"], whole["test"])
        assert run["spend"]["calls"] - whole["spend"]["calls"] <= lost
        assert run["spend"]["uncertain"] <= lost
        assert run["repeated"] <= run["spend"]["uncertain"]
        assert run["requests"] <= run["spend"]["calls"]


@RUNS
def test_a_killed_run_tests_all_rows_where_the_limit_binds(
    tmp_path: Path, concurrency: int, runs: int, record_property: Any
) -> None:
    found, whole = compare(tmp_path, runs, concurrency, 150, record_property)
    assert "calls" in whole["stopped"], whole["stopped"]
    for run in found:
        assert run["test"]["n"] == 20, run
        assert run["requests"] <= 150 and run["spend"]["calls"] <= 150
        assert run["repeated"] <= run["kills"] * concurrency
