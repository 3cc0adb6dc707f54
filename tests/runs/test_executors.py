"""A pool of worker processes: items in order, lost workers, what cannot be sent, and the end."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import ENV
from remask.errors import BackendError, ConfigError, WorkerLost
from remask.ports import Item, wait_for, watch_steps
from remask.runs.executors.pool import STARTS, Pool, WorkerGone, gather
from remask.runs.executors.processes import ProcessWorker

MODULE = "fakes.scripted_worker"
KILLS = 40


def item(method: str, *arguments: Any) -> Item:
    return Item("any", method, arguments)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ProcessWorker]]:
    """The workers of the pools of a test, which are closed at its end."""
    monkeypatch.setenv("PYTHONPATH", ENV["PYTHONPATH"])
    yield (made := [])
    for one in made:
        one.close()


def make_pool(workers: list[ProcessWorker], count: int, **settings: Any) -> Pool:
    def make(number: int) -> ProcessWorker:
        workers.append(ProcessWorker(MODULE, settings, 1))
        return workers[-1]

    return Pool(make, count)


def test_results_come_in_the_order_of_the_items(workers: list[ProcessWorker]) -> None:
    pool = make_pool(workers, 3, more=10)
    waits = [0.05, 0.0, 0.02, 0.0, 0.03]
    futures = [pool.submit(item("sleep", wait, number)) for number, wait in enumerate(waits)]
    steps: list[tuple[int, int]] = []
    with watch_steps(lambda what, done, total: steps.append((done, total)) if what == "part" else None):
        assert gather(futures, "part", [1, 2, 1, 1, 1]) == [0, 1, 2, 3, 4]
    assert steps == [(done, 6) for done in (0, 1, 3, 4, 5, 6)]
    assert wait_for(pool.submit(item("add", 1, 2))) == 13
    pool.close()
    assert [one.pid is not None for one in workers] == [True] * 3


def test_a_worker_starts_with_its_first_item(workers: list[ProcessWorker]) -> None:
    pool = make_pool(workers, 2)
    assert [one.pid for one in workers] == [None, None]
    wait_for(pool.submit(item("pid")))
    assert sum(one.pid is not None for one in workers) == 1
    pool.close()


def test_an_exception_of_an_item_reaches_the_driver(workers: list[ProcessWorker]) -> None:
    pool = make_pool(workers, 1)
    with pytest.raises(ConfigError) as caught:  # a DataError, whose arguments are not its text
        wait_for(pool.submit(item("fail", "data")))
    assert str(caught.value) == "rows.jsonl:3: bad row"
    with pytest.raises(BackendError, match="ValueError: <function"):
        wait_for(pool.submit(item("fail", "other")))
    assert wait_for(pool.submit(item("print", "what a user's code prints is no answer"))) is None
    assert wait_for(pool.submit(item("add", 1, 1))) == 2
    pool.close()


def test_work_of_a_lost_worker_is_done_once_more(workers: list[ProcessWorker], tmp_path: Path) -> None:
    pool = make_pool(workers, 2)
    mark = str(tmp_path / "mark")
    assert wait_for(pool.submit(item("die_once", mark))) == "done"
    assert pool.lost == 1
    with pytest.raises(WorkerLost, match=r"two workers ended, .*signal 9.*use fewer workers"):
        wait_for(pool.submit(item("die")))
    with pytest.raises(WorkerLost, match="exit code 7: no memory is left"):
        wait_for(pool.submit(item("leave", 7)))
    Path(mark).unlink()
    with pytest.raises(WorkerLost, match="a worker ended before"):  # a call that may be billed
        wait_for(pool.submit(item("die_once", mark), again=False))
    assert wait_for(pool.submit(item("add", 1, 1))) == 2
    pool.close()


def test_the_others_go_on_while_workers_are_killed(
    workers: list[ProcessWorker], record_property: Any
) -> None:
    """40 kills at random moments: each item is answered, or its worker was killed twice."""
    pool, rng = make_pool(workers, 4), random.Random(1)
    futures = [pool.submit(item("sleep", rng.uniform(0, 0.05), number)) for number in range(400)]
    killed = 0
    while killed < KILLS and not all(future.done() for future in futures):
        time.sleep(rng.uniform(0, 0.05))
        pid = rng.choice(workers).pid
        if pid is not None:
            try:
                os.kill(pid, signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                continue
    lost = [number for number, future in enumerate(futures) if future.exception() is not None]
    answered = [future.result() for number, future in enumerate(futures) if number not in lost]
    assert answered == [number for number in range(400) if number not in lost]
    assert all(isinstance(futures[number].exception(), WorkerLost) for number in lost)
    record_property("runs", killed)
    assert killed == KILLS and 2 * len(lost) <= killed and 0 < pool.lost + len(lost) <= killed
    pool.close()


class Late:
    """A worker of a cluster whose machine leaves while it starts."""

    def __init__(self, failures: int) -> None:
        self.failures, self.starts = failures, 0

    def start(self) -> None:
        self.starts += 1
        if self.starts <= self.failures:
            raise WorkerGone("the machine leaves")

    def ask(self, item: Item) -> Any:
        return item.method

    def close(self) -> None:
        pass


def test_a_start_that_fails_is_no_loss_of_the_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remask.runs.executors.pool.PAUSE_SECONDS", 0.0)
    for failures in (0, 1, STARTS - 1):
        pool = Pool([Late(failures)].__getitem__, 1)
        assert wait_for(pool.submit(item("add"), again=False)) == "add"
        assert pool.lost == 0
        pool.close()
    pool = Pool(lambda number: Late(STARTS), 1)
    with pytest.raises(WorkerLost, match=r"no worker can be started \(the machine leaves\)"):
        wait_for(pool.submit(item("add")))
    pool.close()


def test_closing_ends_items_that_run(workers: list[ProcessWorker]) -> None:
    pool = make_pool(workers, 1)
    running, later = pool.submit(item("sleep", 60.0)), pool.submit(item("sleep", 60.0))
    while workers[0].pid is None:
        time.sleep(0.01)
    began = time.monotonic()
    pool.close()
    assert time.monotonic() - began < 20
    assert later.cancelled() and isinstance(running.exception(), WorkerLost)


def test_signals_and_limits_are_looked_at_while_a_worker_works(workers: list[ProcessWorker]) -> None:
    pool = make_pool(workers, 1)

    def stop(what: str, done: int, total: int) -> None:
        if what == "waiting":
            raise KeyboardInterrupt

    with watch_steps(stop), pytest.raises(KeyboardInterrupt):
        gather([pool.submit(item("sleep", 60.0))] * 2, "part", [1, 1])
    pool.close()


def test_workers_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    """Also one that is working: nothing is left that computes for nobody."""
    code = """
import time
from remask.ports import Item
from remask.runs.executors.pool import Pool
from remask.runs.executors.processes import ProcessWorker
pool = Pool(lambda number: ProcessWorker("fakes.scripted_worker", {}, 1), 2)
print(pool.submit(Item("any", "pid")).result(), flush=True)
pool.submit(Item("any", "sleep", (600.0,)))
time.sleep(600)
"""
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=ENV)
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    driver.kill()
    driver.wait()
    driver.stdout.close()
    deadline = time.monotonic() + 30
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(pid)


def is_alive(pid: int) -> bool:
    """Whether a process computes; one that nobody waits for is no more than an entry."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
