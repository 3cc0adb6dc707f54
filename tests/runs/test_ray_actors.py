"""Actors of a real Ray cluster of several raylets: the same as processes, and what is lost."""

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import ENV
from fakes.scripted_worker import make
from remask.errors import BackendError, ConfigError, WorkerLost
from remask.ports import Item, wait_for
from remask.runs.executors.pool import Pool, gather

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]
KILLS = 40


def item(method: str, *arguments: Any) -> Item:
    return Item("any", method, arguments)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head and two more raylets, each with two CPUs."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENV, "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}.items():
            patch.setenv(name, value)
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        for _ in range(2):
            started.add_node(num_cpus=2)
        started.wait_for_nodes()
        yield started
        started.shutdown()


@pytest.fixture
def make_pool(cluster: Any) -> Iterator[Callable[..., Pool]]:
    from remask.runs.executors.ray_actors import make_ray_pool

    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    pools = []

    def start(workers: int | None = None, threads: int | None = None, **settings: Any) -> Pool:
        pools.append(make_ray_pool("ray", make, lambda number: settings, workers, threads, False))
        return pools[-1]

    yield start
    for pool in pools:
        pool.close()
    ray.shutdown()


def test_actors_do_items_and_raise_what_items_raise(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(3, more=10)
    futures = [pool.submit(item("sleep", 0.01 * (5 - number), number)) for number in range(5)]
    assert gather(futures, "part", [1] * 5) == list(range(5))
    assert wait_for(pool.submit(item("add", 1, 2))) == 13
    with pytest.raises(ConfigError, match=r"rows\.jsonl:3: bad row"):
        wait_for(pool.submit(item("fail", "data")))
    with pytest.raises(BackendError, match="ValueError"):
        wait_for(pool.submit(item("fail", "other")))


def test_the_number_of_workers_follows_the_cluster(make_pool: Callable[..., Pool]) -> None:
    assert make_pool().workers == 6
    assert make_pool(threads=2).workers == 3
    with pytest.raises(ConfigError, match=r"room for 3 workers that need 2 CPU each, but run\.workers is 4"):
        make_pool(4, 2)


def test_threads_are_those_of_the_settings(
    make_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # Ray passes it on
    assert wait_for(make_pool(1, 2).submit(item("getenv", "OMP_NUM_THREADS"))) == "2"


def test_work_of_a_lost_actor_is_done_once_more(make_pool: Callable[..., Pool], tmp_path: Path) -> None:
    pool = make_pool(2)
    assert wait_for(pool.submit(item("die_once", str(tmp_path / "mark")))) == "done"
    with pytest.raises(WorkerLost, match="two workers ended"):
        wait_for(pool.submit(item("die")))
    assert wait_for(pool.submit(item("add", 1, 1))) == 2


def test_the_others_go_on_while_actors_are_killed(
    make_pool: Callable[..., Pool], record_property: Any
) -> None:
    """40 kills at random moments: each item is answered, or its actor was killed twice."""
    pool, rng = make_pool(4), random.Random(1)
    pids = gather([pool.submit(item("pid")) for _ in range(16)], "part", [1] * 16)
    futures = [pool.submit(item("sleep", rng.uniform(0, 0.5), number)) for number in range(200)]
    killed, known = 0, set(pids)
    while killed < KILLS and not all(future.done() for future in futures):
        time.sleep(rng.uniform(0, 0.2))
        alive = [pid for pid in known if is_alive(pid)]
        if alive:
            os.kill(rng.choice(alive), signal.SIGKILL)
            killed += 1
        known |= find_actors()
    lost = [n for n, future in enumerate(futures) if future.exception() is not None]
    assert [futures[n].result() for n in range(200) if n not in lost] == [
        n for n in range(200) if n not in lost
    ]
    assert all(isinstance(futures[n].exception(), WorkerLost) for n in lost)
    record_property("runs", killed)
    assert killed == KILLS and 2 * len(lost) <= killed and 0 < pool.lost + len(lost) <= killed


def find_actors() -> set[int]:
    """The processes of actors on this machine."""
    found = set()
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if place.read_bytes().startswith(b"ray::_Actor"):
                found.add(int(place.parent.name))
        except OSError:
            continue
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::_Actor")
    except OSError:
        return False


def test_a_machine_that_leaves_takes_only_its_own_work(cluster: Any, make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(5)
    assert sorted(gather([pool.submit(item("add", n, 0)) for n in range(5)], "part", [1] * 5)) == list(
        range(5)
    )
    futures = [pool.submit(item("sleep", 0.3, number)) for number in range(30)]
    time.sleep(0.5)
    gone = list(cluster.worker_nodes)[-1]
    cluster.remove_node(gone, allow_graceful=False)
    cluster.add_node(num_cpus=2)  # a new machine takes its place
    assert gather(futures, "part", [1] * 30) == list(range(30))


def test_a_cluster_that_was_killed_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray has noted its address, at which nobody answers: a new cluster is begun."""
    from remask.runs.executors.ray_actors import make_ray_pool

    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        note = Path(folder) / "ray" / "ray_current_cluster"
        note.parent.mkdir()
        note.write_text("127.0.0.1:1")
        for name, value in {**ENV, "RAY_TMPDIR": folder, "RAY_worker_niceness": "0"}.items():
            monkeypatch.setenv(name, value)
        pool = make_ray_pool("ray", make, lambda number: {}, 1, None, False)
        try:
            assert wait_for(pool.submit(item("pid"))) != os.getpid()
        finally:
            pool.close()
