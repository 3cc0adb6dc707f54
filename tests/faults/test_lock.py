"""Two processes on one run directory: one works, and the other says who does."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from fakes.http_run import World, read_ledger, read_result, start, write_job
from fakes.server import Server

pytestmark = pytest.mark.slow  # CI runs the samples (.ci/slow)

SEED = 20261130
MIN_CALLS = 5  # of the process that is cut, so that there is something to continue


def cut_run(folder: Path, world: World) -> None:
    """Leave a run that was killed in the middle."""
    world.delay = 0.05
    process = start(folder)
    while world.answered < MIN_CALLS and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    world.delay = 0.0


def race(folder: Path, words: tuple[str, ...], pause: float) -> tuple[list[int], list[str], list[int]]:
    """Start two processes `pause` seconds apart: exit codes, what they complain of, process ids."""
    both = [start(folder, *words)]
    time.sleep(pause)
    both.append(start(folder, *words))
    errors = [process.communicate(timeout=120)[1] for process in both]
    return [process.returncode for process in both], errors, [process.pid for process in both]


@pytest.mark.parametrize("words", [("optimize",), ("resume", "run")], ids=" ".join)
@pytest.mark.parametrize(
    "count", [pytest.param(1, id="few"), pytest.param(20, id="many", marks=pytest.mark.slow)]
)
def test_one_of_two_processes_works_and_the_other_names_it(
    tmp_path: Path, words: tuple[str, ...], count: int, record_property: Any
) -> None:
    rng = random.Random(SEED)
    record_property("row", "R6")
    record_property("runs", count)
    for number in range(count):
        folder, world = tmp_path / str(number), World()
        with Server(default=world) as server:
            write_job(folder, server, calls=1000, rows=(2, 2, 4), candidates=1, concurrency=1)
            if words == ("resume", "run"):
                cut_run(folder, world)
            world.delay = 0.1  # the first works for seconds, so that the second always meets it
            codes, errors, pids = race(folder, words, rng.choice([0.0, rng.uniform(0, 0.5)]))
        winner = codes.index(0)
        assert codes[1 - winner] == 4, (codes, errors)
        said = errors[1 - winner]
        assert f"process {pids[winner]} on " in said and said.count("\n") == 1, said
        ledger = read_ledger(folder)
        assert world.requests <= sum(ledger.values())
        assert world.requests - world.repeated >= read_result(folder)["test"]["n"]
