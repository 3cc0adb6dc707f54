"""A run with workers: the same results with any number of them, after kills too, and bad settings."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import remask
from fakes import ENV
from fakes.command import complaint
from fakes.command import remask as command
from fakes.http_run import REMASK
from fakes.killed_run import rows
from fakes.scripted_denoiser import ScriptedDenoiser
from remask.errors import ConfigError
from remask.runs.store import Store

# It scores prompts by their words, so that edits matter, and counts its calls in a file.
TARGET = '''
import os, time

def answer(messages):
    """Answer well where the prompt has good words."""
    with open("calls.txt", "a") as file:
        file.write(f"{os.getpid()}\\n")
    system, user = messages[0]["content"], messages[-1]["content"]
    number = int(user.split()[-1])
    good = sum(word in system for word in ("kindly", "sums", "number"))
    return "red" if (number * 7) % 10 < 4 + 2 * good else "blue"

def slow(messages):
    time.sleep(0.02)
    return answer(messages)

def broken(messages):
    return messages["content"]

def deadly(messages):
    if messages[-1]["content"].endswith(" 3") and not os.path.exists("died"):
        open("died", "w").close()
        os._exit(9)
    return answer(messages)
'''
PHRASES = ("Answer kindly.", "Think of sums.", "Name one number.", "Be brief.", "Say red.")
DATA = [
    {"input": f"item {i}", "label": "red", "split": ("train", "validation", "test")[i % 3]} for i in range(90)
]


@pytest.fixture
def here(here: Path) -> Path:
    (here / "target.py").write_text(TARGET)
    return here


def play(
    folder: str, workers: int | remask.Workers | None, function: str = "answer", **more: Any
) -> remask.Result:
    """A run with a scripted denoiser and the target of the file."""
    return remask.optimize(
        "Answer the question.", remask.Dataset(DATA, split="split"), target=f"target.py:{function}",
        metric="contains", denoiser=ScriptedDenoiser(PHRASES), max_calls=400, run_dir=folder, workers=workers,
        search=remask.Search(candidates=3), **more,
    )  # fmt: skip


def read_run(folder: Path | str) -> dict[str, Any]:
    """What a run has left, without seconds and folders: result, events, rows, export and spend."""
    path = Path(folder)
    result = json.loads((path / "result.json").read_text())
    del result["run_dir"], result["spend"]["seconds"]
    with Store.read(path) as store:
        events = list(store.events())
    assert command("export", path, "-o", f"{path}.best.json").exit_code == 0
    rows = (path / "rows.csv").read_text()
    return {"result": result, "events": events, "rows": rows, "export": Path(f"{path}.best.json").read_text()}


def count_calls(folder: Path) -> int:
    return len((folder / "calls.txt").read_text().splitlines())


def test_any_number_of_workers_finds_the_same(here: Path) -> None:
    found, calls = [], []
    for workers in (None, 1, 3, 8):
        result = play(f"run{workers}", workers)
        found.append(read_run(f"run{workers}"))
        calls.append(count_calls(here))
        assert result.spend.calls == calls[-1]
        (here / "calls.txt").unlink()
    assert all(one == found[0] for one in found[1:])
    assert found[0]["result"]["verdict"] == "improved"
    assert len(set(calls)) == 1


def test_the_workers_make_the_calls(here: Path) -> None:
    play("run", 3, "slow")
    makers = set((here / "calls.txt").read_text().split())
    assert len(makers) == 3 and str(os.getpid()) not in makers


def test_a_cut_run_goes_on_with_other_workers(here: Path) -> None:
    play("whole", None)

    def stop(event: object, state: Any, spend: Any) -> None:
        if spend.calls > 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play("run", 4, on_event=stop)
    data = remask.Dataset(DATA, split="split")
    remask.resume("run", data=data, denoiser=ScriptedDenoiser(PHRASES), workers=2)
    assert read_run("run") == read_run("whole")


def test_a_call_whose_worker_is_lost_is_uncertain_and_made_again(here: Path) -> None:
    whole = play("whole", 2)
    (here / "calls.txt").unlink()
    cut = play("run", 2, "deadly")
    assert (here / "died").exists()
    assert cut.prompt == whole.prompt and cut.test == whole.test
    assert (cut.spend.calls, cut.spend.uncertain) == (whole.spend.calls + 1, 1)
    assert count_calls(here) == whole.spend.calls


def test_a_bug_of_the_function_is_told_as_without_workers(here: Path) -> None:
    said = []
    for workers in (None, 2):
        with pytest.raises(ConfigError) as caught:
            play(f"run{workers}", workers, "broken")
        said.append(str(caught.value))
    assert "raised TypeError" in said[0] and "for all 8 calls" in said[0]
    assert said[1] in (said[0], said[0].replace(" 8 ", " 9 "))  # one more was in flight


def test_a_script_needs_no_guard(here: Path) -> None:
    """A worker does not run the user's main module again."""
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in DATA))
    (here / "script.py").write_text(
        "import remask\n"
        "job = {'target': 'target.py:answer', 'metric': 'contains', 'workers': 2}\n"
        "print('once', remask.evaluate('Answer.', 'rows.jsonl', **job).score.n)\n"
    )
    done = subprocess.run([sys.executable, "script.py"], env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("once") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "--workers (run.workers) is 0, but must be at least 1"),
        (["--executor", "dask"], "run.executor = 'dask'"),
        (["--executor", "process:2", "--workers", "3"], "differ; leave one of them out"),
    ],
)
def test_bad_settings_are_one_sentence(here: Path, words: list[str], message: str) -> None:
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in DATA))
    (here / "prompt.md").write_text("Answer the question.")
    job = ["--data", "rows.jsonl", "--target", "target.py:answer", "--metric", "contains", "--split-column"]
    line = complaint(command("optimize", "prompt.md", *job, "split", "--run-dir", "run", *words))
    assert message in line
    assert not (here / "run").exists()


def test_workers_do_not_stand_in_the_settings_of_the_run(here: Path) -> None:
    play("run", 2)
    with Store.read("run") as store:
        assert "run" not in store.config
    with pytest.raises(ConfigError, match="workers must be a number or a remask"):
        play("other", "4")  # type: ignore[arg-type]


# --- the real built-in model


def play_built_in(folder: Path, workers: remask.Workers | None) -> None:
    remask.optimize(
        "Classify the message. Be short.",
        remask.Dataset(rows(), input="message", expected="topic", split="split"),
        max_calls=130, run_dir=folder, search=remask.Search(candidates=10, traces=3), workers=workers,
    )  # fmt: skip


@pytest.mark.slow
def test_the_built_in_models_find_the_same_with_one_and_two_workers(tmp_path: Path) -> None:
    for count in (1, 2):
        play_built_in(tmp_path / str(count), remask.Workers("process", workers=count, threads=1))
    assert read_run(tmp_path / "1") == read_run(tmp_path / "2")


@pytest.mark.slow
def test_actors_of_ray_find_the_same(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cluster that the run begins and ends itself, with the target of the file and real models."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    play("one", 1)
    play("two", remask.Workers("ray", workers=2))
    assert read_run("one") == read_run("two")
    play_built_in(here / "built-in", remask.Workers("process", workers=1, threads=1))
    play_built_in(here / "ray", remask.Workers("ray", workers=2, threads=1))
    assert read_run("built-in") == read_run("ray")


@pytest.mark.slow
def test_a_killed_driver_goes_on_with_another_number_of_workers(here: Path, record_property: Any) -> None:
    """kill -9 of the driver at random moments; its workers end, and the results are those of one worker."""
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in DATA))
    (here / "prompt.md").write_text("Answer the question.")
    words = [
        *(
            "optimize",
            "prompt.md",
            "--data",
            "rows.jsonl",
            "--target",
            "target.py:slow",
            "--metric",
            "contains",
        ),
        *("--split-column", "split", "--max-calls", "200", "--denoiser-steps", "2"),
    ]
    start = REMASK
    assert subprocess.run([*start, *words, "--run-dir", "whole", "--workers", "1"], env=ENV).returncode == 0
    whole, rng = read_run("whole"), random.Random(3)
    process = subprocess.Popen([*start, *words, "--run-dir", "run", "--workers", "3"], env=ENV)
    for count in (2, 4, 1):
        time.sleep(rng.uniform(4, 12))
        process.send_signal(signal.SIGKILL)
        process.wait()
        again = ["resume", "run"] if (here / "run" / "run.db").exists() else [*words, "--run-dir", "run"]
        process = subprocess.Popen([*start, *again, "--workers", str(count)], env=ENV)
    assert process.wait() == 0
    record_property("runs", 3)
    found = read_run("run")
    assert found["result"]["spend"].pop("uncertain") <= 3 * 4  # of each kill, those in flight
    del found["result"]["spend"]["calls"], whole["result"]["spend"]["calls"]
    del whole["result"]["spend"]["uncertain"]
    assert found == whole


# A driver in a process of its own. It waits less for an actor that a cluster without a head cannot start.
DRIVER = """
import remask
from api.test_workers import play
from remask.runs.executors import ray_actors
ray_actors.START_SECONDS = 5
play("run", remask.Workers("ray"), "slow")
"""


@pytest.mark.slow
@pytest.mark.parametrize("machine", [False, True], ids=["server", "machine"])
def test_the_head_of_a_cluster_is_killed(here: Path, machine: bool, record_property: Any) -> None:
    """Without its server the run ends as ever, with actors that live; without its machine it is resumed."""
    pytest.importorskip("ray")
    play("whole", 1, "slow")
    made = count_calls(here)
    with start_head() as (find_processes, env):
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER], env=env, cwd=here, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 120
        while count_calls(here) < made + 60 and time.monotonic() < deadline:
            time.sleep(0.05)
        for part in find_processes():
            if machine or part.name() == "gcs_server":
                part.kill()
        assert made < count_calls(here) < 2 * made  # in the middle of the run
        _, said = process.communicate(timeout=120)
        assert process.returncode == int(machine), said
        if machine:
            assert "started no actor within 5 s" in said and "`remask resume`" in said
    if machine:
        data = remask.Dataset(DATA, split="split")
        remask.resume("run", data=data, denoiser=ScriptedDenoiser(PHRASES))
    record_property("runs", 1)
    found, whole = read_run("run"), read_run("whole")
    if machine:  # calls in flight were made once more
        assert found["result"]["spend"].pop("uncertain") <= 2
        del whole["result"]["spend"]["uncertain"], found["result"]["spend"]["calls"]
        del whole["result"]["spend"]["calls"]
    assert found == whole


@contextmanager
def start_head() -> Iterator[tuple[Callable[[], list[Any]], dict[str, str]]]:
    """Start a cluster of this machine. Yields what finds its processes, and the variables of a driver."""
    import psutil

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Ray notes the address of the last cluster below this folder, and sockets there need a short path.
    folder = tempfile.mkdtemp(prefix="r")
    env = {**ENV, "RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--num-cpus=2", f"--port={port}"]

    def find_processes() -> list[Any]:
        named = [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(word.endswith((f":{port}", f"={port}")) for word in process.info["cmdline"] or ())
        ]
        return [*named, *(child for one in named for child in one.children(recursive=True))]

    try:
        subprocess.run([*ray, "--include-dashboard=false"], env=env, check=True, stdout=subprocess.DEVNULL)
        yield find_processes, {**env, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    finally:
        for process in (started := find_processes()):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(started, timeout=20)
        shutil.rmtree(folder, ignore_errors=True)
