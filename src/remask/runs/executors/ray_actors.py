"""Workers that are actors of a Ray cluster. remask must be installed on all of its machines."""

import atexit
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from remask.errors import BackendError, ConfigError
from remask.ports import Item
from remask.runs.executors.pool import NoneStarted, Pool, WorkerGone
from remask.runs.executors.processes import THREAD_VARIABLES, Answer, answer
from remask.sanitize import one_line

_MAX_ERROR_CHARACTERS = 200
START_SECONDS = 300  # for an actor, also where a machine must first be added to the cluster
CLOSE_SECONDS = 5  # for an actor, for leaving the cluster, or for an answer of its head
Make = Callable[[Any], Callable[[Item], Any]]  # settings -> what does items


class _Actor:
    """An actor: a process that Ray starts on a machine of the cluster."""

    def __init__(self, make: Make, settings: object, threads: int) -> None:
        # Before torch is loaded. Ray leaves a value that the driver's own environment has.
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
        self._do = make(settings)

    def ready(self) -> None:
        """Return when the actor runs."""

    def answer(self, item: Item) -> Answer:
        return answer(self._do, item)


class RayWorker:
    """Implements WorkerHandle with an actor."""

    def __init__(self, make: Make, settings: object, resources: dict[str, float]) -> None:
        # A lost actor is replaced by the pool, which knows what it was doing.
        options = {**resources, "max_restarts": 0, "max_task_retries": 0}
        self._make_actor = ray.remote(_Actor).options(**options).remote
        self._arguments = make, settings, int(resources["num_cpus"])
        self._actor: Any = None

    def start(self) -> None:
        """See WorkerHandle.start."""
        self.close()
        self._actor = self._make_actor(*self._arguments)
        self._get(self._actor.ready.remote(), START_SECONDS)

    def ask(self, item: Item) -> Any:
        """See WorkerHandle.ask."""
        done, value = self._get(self._actor.answer.remote(item))
        if done:
            return value
        raise value

    def _get(self, promise: Any, seconds: float | None = None) -> Any:
        """Return what an actor answers. Raises WorkerGone."""
        try:
            return ray.get(promise, timeout=seconds)
        except GetTimeoutError:
            raise NoneStarted(f"the Ray cluster started no actor within {seconds} s") from None
        except (RayError, ConnectionError) as error:  # the actor, its machine or the cluster
            last = (str(error).strip().splitlines() or [""])[-1]
            raise WorkerGone(f"{type(error).__name__}: {one_line(last, _MAX_ERROR_CHARACTERS)}") from None

    def close(self) -> None:
        """See WorkerHandle.close."""
        if self._actor is not None:
            _try(partial(ray.kill, self._actor))


class RayPool(Pool):
    """A pool that leaves the cluster at the end, where it has joined or begun it."""

    def __init__(self, make_handle: Callable[[int], RayWorker], workers: int, joined: bool) -> None:
        super().__init__(make_handle, workers)
        self._joined = joined

    def close(self) -> None:
        """See Executor.close."""
        super().close()
        if self._joined:
            _try(ray.shutdown)


def _try(end: Callable[[], object]) -> None:
    """End something, unless the cluster is gone. Then Ray raises, or waits for its head, at exit too."""

    def do() -> None:
        with suppress(Exception):
            end()

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(CLOSE_SECONDS)
    if thread.is_alive():  # Ray's own hooks would wait, too
        atexit.unregister(ray.shutdown)
        sys.excepthook = sys.__excepthook__


def make_ray_pool(
    address: str,
    make: Make,
    settings: Callable[[int], object],
    workers: int | None,
    threads: int | None,
    gpus: bool,
) -> RayPool:
    """Join the cluster, or begin one on this machine, and make a pool of actors on it.

    address: "ray" or "ray://HOST:PORT". threads: of a worker, by default 1; they are its CPUs for
    Ray. gpus: whether a worker can use a GPU. Raises ConfigError and BackendError.
    """
    joined = not ray.is_initialized()
    if joined:
        _join(address)
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    resources: dict[str, float] = {"num_cpus": threads or 1}
    if gpus and found.get("GPU"):
        resources["num_gpus"] = 1
    room = min(int(found.get(name, 0) // each) for name, each in _name_resources(resources).items())
    if (workers is not None and workers > room) or not room:
        if joined:
            ray.shutdown()
        needs = " and ".join(f"{each:g} {name}" for name, each in _name_resources(resources).items())
        raise ConfigError(
            f"the Ray cluster has room for {room} workers that need {needs} each, but run.workers is "
            f"{workers or 1}; use fewer workers or threads, or add machines"
        )
    return RayPool(lambda number: RayWorker(make, settings(number), resources), workers or room, joined)


def _name_resources(resources: dict[str, float]) -> dict[str, float]:
    """Return resources of an actor by the names that a cluster has for them."""
    return {{"num_cpus": "CPU", "num_gpus": "GPU"}[key]: value for key, value in resources.items()}


def _join(address: str) -> None:
    """Join the cluster. Raises BackendError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # remask sends no usage data
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as Ray will do by default
    # Without its head, Ray ends the driver after a minute, in the middle of whatever it does. Actors that
    # live go on without a head; where one must be started, START_SECONDS end the run.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(24 * 3600))
    options: dict[str, Any] = {} if address == "ray" else {"address": address}
    if not options and _is_last_one_gone():
        options = {"address": "local"}
    try:
        with _keep_signal_handlers():
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BackendError(
            f"the executor {address} cannot be used ({one_line(str(error), _MAX_ERROR_CHARACTERS)}); start "
            "the cluster, or name its address as ray://HOST:10001; where it wants a token, set "
            "RAY_AUTH_MODE=token"
        ) from None


def _is_last_one_gone() -> bool:
    """Return whether the last cluster of this machine was killed. Ray would look for it for ever."""
    if os.environ.get("RAY_ADDRESS"):
        return False
    note = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"
    try:
        host, _, port = note.read_text().strip().rpartition(":")
        place = host, int(port)
    except (OSError, ValueError):
        return False
    try:
        socket.create_connection(place, timeout=CLOSE_SECONDS).close()
    except OSError:
        return True
    return False


@contextmanager
def _keep_signal_handlers() -> Iterator[None]:
    """Keep the handlers of this process: Ray sets one of its own, which would end a run at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
