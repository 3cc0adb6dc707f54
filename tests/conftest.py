"""How the tests are ordered, and the fixtures that several rooms need.

Tests stand by room, as the package does: tests/data/test_rows.py tests src/remask/data/rows.py,
and what only a whole run shows stands under the room that starts it (api, cli, integrations). What
several files need stands in fakes/: small worlds with a known answer, servers on the loopback, tiny
checkpoints, and programs that are killed. tests/benchmarks tests the benchmarks' own code.

`pytest` runs the quick tier: under five minutes on two cores, without a network. What is marked
`slow` takes minutes and runs with `pytest -m slow`; where a quick test takes a sample, a slow one
takes all. Warnings are errors. No test reads a private name of another module.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import chdir
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from remask.models.backbone.transformer import Backbone

# Before the libraries are imported: they send nothing, ask nobody, and keep no files at home.
os.environ |= {
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
if os.access("/dev/shm", os.W_OK):
    # A run waits for the disk at each call. SIGKILL loses no write, so memory will do for tests.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/dev/shm")
if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread a process. Two processes with two threads each wait for one another's matrix
    # products on two cores, and take four times as long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key or an endpoint of the developer's own changes no test."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "INCEPTION_API_KEY", "REMASK_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in. Files that need more in it build on this fixture."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ram() -> Iterator[Path]:
    """A directory in memory where there is one: SIGKILL loses no write, so no disk is needed."""
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def base() -> "Backbone":
    """The built-in model in fp32, in which batches of other sizes differ by less than a choice."""
    import torch

    from remask.models.backbone.builtin_weights import load_base

    return load_base(dtype=torch.float32)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny checkpoint, for tests that only read it."""
    from fakes import checkpoints

    families = checkpoints.ALL | checkpoints.BASES

    @cache
    def folder(name: str) -> Path:
        parent = tmp_path_factory.mktemp("checkpoints")
        if name == "diffusion-gemma":
            return checkpoints.write_diffusion_gemma(parent)
        return checkpoints.write(families[name], parent)

    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run directory without models, for tests that change nothing in it."""
    from fakes.finished_run import play

    folder = tmp_path_factory.mktemp("finished") / "run"
    play(folder)
    return folder


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of MLflow in a file; making one takes seconds, so all tests share it."""
    import mlflow

    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    with chdir(folder):  # files go into the folder where the store is opened first
        mlflow.MlflowClient(uri).search_experiments()
    return uri
