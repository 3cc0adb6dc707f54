"""The list of the runs of a folder: states, damaged runs among good ones, and the lock."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.command import complaint, remask
from fakes.finished_run import play
from remask.errors import ConfigError
from remask.runs.lock import RunLock, is_held
from remask.runs.report.list_runs import list_runs
from remask.runs.report.read_run import view_run, write_report


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished and a stopped run."""
    folder = tmp_path_factory.mktemp("runs")
    play(folder / "done")
    play(folder / "cut", finish=False)
    return folder


@pytest.fixture
def runs(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "runs"))


def test_runs_come_newest_first_and_other_folders_are_skipped(runs: Path) -> None:
    (runs / "notes").mkdir()
    (runs / "notes.txt").write_text("x")
    cut, done = list_runs(runs)
    assert (cut.name, cut.state, cut.verdict, cut.test) == ("cut", "stopped", "", None)
    assert (done.name, done.state, done.kind) == ("done", "finished", "optimize")
    assert (done.target, done.data, done.problem) == ("openai:m", "rows.jsonl", "")
    seen = view_run(runs / "done")
    assert seen.result is not None
    assert (done.verdict, done.test, done.spend) == (seen.result.verdict, seen.result.test, seen.spend)
    assert (done.tokens_before, done.tokens_after) == (seen.result.baseline.tokens, seen.result.best.tokens)
    assert cut.spend == view_run(runs / "cut").spend
    assert done.id != cut.id and list_runs(runs)[1].id == done.id


def test_a_run_whose_process_lives_is_running_and_looking_takes_no_lock(runs: Path) -> None:
    lock = RunLock.take(runs / "cut")
    try:
        assert {run.name: run.state for run in list_runs(runs)} == {"cut": "running", "done": "finished"}
    finally:
        lock.release()
    assert not is_held(runs / "cut")
    RunLock.take(runs / "cut").release()


def owner(folder: Path, **fields: object) -> None:
    (folder / "run.lock").write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()} | fields))


def test_the_name_of_a_dead_process_is_no_owner(runs: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    owner(runs / "cut", pid=process.pid)
    assert not is_held(runs / "cut")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux says when a process began")
def test_a_younger_process_of_the_same_number_is_no_owner(runs: Path) -> None:
    owner(runs / "cut")
    assert is_held(runs / "cut")
    os.utime(runs / "cut" / "run.lock", (time.time(), time.time() - 10 * 365 * 86400))
    assert not is_held(runs / "cut")


def test_of_another_machine_only_the_work_is_seen(runs: Path) -> None:
    owner(runs / "cut", host="elsewhere", pid=1)
    assert is_held(runs / "cut")
    os.utime(runs / "cut" / "run.db", (1e9, 1e9))
    assert not is_held(runs / "cut")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": "x", "host": 1}', '{"pid": -1}', "\0"])
def test_a_lock_file_with_nonsense_is_free(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.lock").write_text(text)
    assert not is_held(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_run_is_one_sentence_among_good_ones(good: Path, data: st.DataObject) -> None:
    """Any bytes of the database or of the result may be overwritten or cut off."""
    folder = Path(shutil.copytree(good, good.parent / f"damaged-{time.time_ns()}"))
    try:
        file = shutil.copytree(folder / "done", folder / "odd") / data.draw(
            st.sampled_from(["run.db", "result.json"])
        )
        content = bytearray(file.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content = content[:at]
        else:
            junk = data.draw(st.binary(min_size=1, max_size=200))
            content[at : at + len(junk)] = junk
        file.write_bytes(content)
        found = {run.name: run for run in list_runs(folder)}
        assert (found["done"].state, found["cut"].state) == ("finished", "stopped")
        odd = found["odd"]
        assert odd.state in ("damaged", "finished"), "some bytes change nothing that a list shows"
        assert (odd.state == "damaged") == bool(odd.problem)
        assert "\n" not in odd.problem
        table = remask("runs", folder)
        assert table.exit_code == 0 and "done" in table.output
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are of Unix")
def test_a_lock_that_is_a_pipe_is_not_read(runs: Path) -> None:
    (runs / "cut" / "run.lock").unlink()
    os.mkfifo(runs / "cut" / "run.lock")
    assert {run.name: run.state for run in list_runs(runs)} == {"cut": "stopped", "done": "finished"}


def test_two_hundred_runs_are_listed_at_once(good: Path, tmp_path: Path) -> None:
    for n in range(200):
        shutil.copytree(good / "done", tmp_path / f"run-{n}")
    assert len(list_runs(tmp_path)) == 200
    start = time.process_time()
    list_runs(tmp_path)
    assert time.process_time() - start < 1, "files that did not change are not read again"


def test_a_summary_follows_the_files(runs: Path) -> None:
    assert {run.name: run.state for run in list_runs(runs)}["done"] == "finished"
    (runs / "done" / "result.json").unlink()
    assert {run.name: run.state for run in list_runs(runs)}["done"] == "stopped"


@pytest.mark.parametrize(
    ("name", "words"),
    [("nowhere", "no folder"), ("notes.txt", "is a file"), ("done", "is one run"), ("", "")],
)
def test_a_folder_without_runs_is_one_sentence(runs: Path, name: str, words: str) -> None:
    (runs / "notes.txt").write_text("x")
    if words:
        with pytest.raises(ConfigError, match=words):
            list_runs(runs / name)
        assert words in complaint(remask("runs", runs / name))
    (runs / "empty").mkdir()
    assert remask("runs", runs / "empty").output.startswith("no runs in ")


def test_runs_as_a_table_and_as_json_say_the_same(runs: Path) -> None:
    lines = remask("runs", runs).output.splitlines()
    assert lines[1].split()[0] == "cut" and "stopped" in lines[1]
    assert "improved" in lines[2] and "+0.500 (+0.352 to +0.648)" in lines[2] and "389 calls" in lines[2]
    found = json.loads(remask("runs", runs, "--json").output)
    assert found["kind"] == "Runs"
    assert [run["name"] for run in found["runs"]] == ["cut", "done"]
    assert found["runs"][1]["test"]["difference"] == 0.5


def test_show_says_what_a_running_run_does_and_never_to_resume_it(runs: Path) -> None:
    stopped = remask("show", runs / "cut").output
    assert f"continue with: remask resume {runs / 'cut'}" in stopped and "was stopped" in stopped
    lock = RunLock.take(runs / "cut")
    try:
        running = remask("show", runs / "cut").output
        assert "the run is running: sealed test of baseline and best prompt" in running
        assert "resume" not in running
        assert json.loads(remask("show", runs / "cut", "--json").output)["running"] is True
        with pytest.raises(ConfigError, match="it is running, so wait") as error:
            write_report(runs / "cut")
        assert "resume" not in str(error.value)
    finally:
        lock.release()
