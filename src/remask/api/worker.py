"""A worker: it builds its models from the settings of a run and does items of work with them.

`python -m remask.api.worker` is the worker of the executor `process`; an actor of Ray makes the same
Worker. A worker parses files of conversations, but reads no rows, writes no file and makes no call to
an API.
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from remask.api.build_models import make_denoiser, make_target
from remask.config import Config, DenoiserConfig, RunConfig, TargetConfig, make_config
from remask.data.part_reader import PartReader
from remask.errors import ConfigError, name_missing_extra
from remask.ports import DenoiserModel, Executor, Item, TargetModel
from remask.runs.executors.pool import Pool
from remask.runs.executors.processes import ProcessWorker, serve


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is made from."""

    number: int  # of the worker, from 0
    folder: str  # where paths in the settings begin
    target: TargetConfig
    denoiser: DenoiserConfig


class Worker:
    """Does items with models that are loaded with their first item."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        if Path(settings.folder).is_dir():  # another machine may not have it
            os.chdir(settings.folder)

    def __call__(self, item: Item) -> Any:
        """Return the result of an item."""
        return getattr(getattr(self, item.role), item.method)(*item.arguments)

    @cached_property
    def reader(self) -> PartReader:
        """What reads parts of trace files."""
        return PartReader()

    @cached_property
    def denoiser(self) -> DenoiserModel:
        """The denoiser of the settings."""
        self._choose_gpu(self._settings.denoiser)
        return make_denoiser(self._settings.denoiser)

    @cached_property
    def target(self) -> TargetModel:
        """The target of the settings."""
        self._choose_gpu(self._settings.target)
        return make_target(self._settings.target)

    def _choose_gpu(self, config: TargetConfig | DenoiserConfig) -> None:
        """Take the GPUs of this machine in turn. An actor of Ray sees only its own."""
        if config.model.startswith("local:"):
            import torch

            if gpus := torch.cuda.device_count():
                torch.cuda.set_device(self._settings.number % gpus)


@name_missing_extra()
def make_executor(config: Config) -> Executor | None:
    """Make the executor of the settings; None where all is done in this process.

    Nothing is started yet. Raises ConfigError and BackendError.
    """
    run = config.run
    kind, _, rest = run.executor.partition(":")
    if not kind and run.workers is None:
        return None
    folder = str(Path.cwd())

    def settings(number: int) -> WorkerSettings:
        return WorkerSettings(number, folder, config.target, config.denoiser)

    if kind == "ray":
        from remask.runs.executors.ray_actors import make_ray_pool

        gpus = any(one.model.startswith("local:") for one in (config.target, config.denoiser))
        return make_ray_pool(run.executor, Worker, settings, run.workers, run.threads, gpus)
    count = _count_processes(run, rest)
    threads = run.threads or max(1, count_cores() // count)
    return Pool(lambda number: ProcessWorker("remask.api.worker", settings(number), threads), count)


def make_readers(workers: int) -> Executor:
    """Make processes that only read files of conversations. Raises ConfigError."""
    run = make_config({"prompt": "", "run": {"workers": workers}}, "--workers", {"run.workers": "--workers"})
    executor = make_executor(run)
    assert executor is not None
    return executor


def _count_processes(run: RunConfig, rest: str) -> int:
    """Return the number of worker processes. Raises ConfigError where two are given."""
    if rest and run.workers is not None and int(rest) != run.workers:
        raise ConfigError(
            f"run.executor = {run.executor!r} and run.workers = {run.workers} differ; leave one of them out"
        )
    return int(rest) if rest else run.workers or count_cores()


def count_cores() -> int:
    """Return the cores that this process may use."""
    find_allowed = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(find_allowed(0)) if find_allowed else os.cpu_count() or 1


if __name__ == "__main__":
    serve(Worker)
