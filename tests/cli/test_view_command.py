"""`remask view` as a command: what it prints, how it ends, and wrong input in one sentence."""

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from fakes import ROOT
from fakes.command import remask as command
from fakes.finished_run import play


@pytest.mark.parametrize("name", ["missing", "file"])
def test_no_folder_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    done = command("view", tmp_path / name)
    assert done.exit_code == 2
    assert done.output.startswith("error: ") and done.output.count("\n") == 1


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = command("view", tmp_path, "--port", str(taken.getsockname()[1]))
    assert done.exit_code == 2
    assert "cannot be used" in done.output and done.output.count("\n") == 1


@pytest.mark.parametrize("words", [("--host", "0.0.0.0"), ("--port", "70000"), ("--port", "x")])
def test_wrong_options_are_one_sentence(tmp_path: Path, words: tuple[str, str]) -> None:
    done = command("view", tmp_path, *words)
    assert done.exit_code == 2 and done.output.count("\n") == 1


def start(*words: str, **options: object) -> tuple[subprocess.Popen[str], str]:
    """Start the command, and return it with the address that it prints."""
    code = "from remask.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "view", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,  # type: ignore[call-overload]
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    address = next((line.strip() for line in lines if line.startswith("http")), "")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/open\?token=[\w-]{22}", address), lines
    return process, address


def test_ctrl_c_ends_it_within_two_seconds_also_with_an_open_stream(tmp_path: Path) -> None:
    play(tmp_path / "one")
    process, address = start(str(tmp_path))
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor()
    )
    assert "one" in opener.open(address, timeout=20).read().decode()
    with opener.open(address.partition("open?")[0] + "events", timeout=20) as stream:
        assert stream.readline().startswith(b"retry")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
        assert time.monotonic() - began < 2.0
    assert process.returncode == 0 and out.endswith("stopped\n") and "Traceback" not in out


# Shows a folder as a user who may only read it; first another one, so that all modules are loaded.
READ_ONLY = """
import os, sys
from pathlib import Path
from remask.view.library import Library
for folder in map(Path, sys.argv[1:]):
    library = Library(folder)
    for run in library.list_runs():
        page = library.find(run.id)
        page.look()
        print(folder.name, run.name, run.state, page.problem or len(page.pieces))
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_a_folder_that_can_only_be_read_is_shown(tmp_path: Path) -> None:
    play(tmp_path / "one")
    folder = Path(tempfile.mkdtemp())  # not tmp_path, which another user cannot enter
    try:
        play(folder / "done")
        play(folder / "half", finish=False)
        with closing(sqlite3.connect(folder / "half" / "run.db")) as db:  # as newer SQLite writes it
            assert db.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
        for path in (*folder.rglob("*"), folder):
            path.chmod(0o555 if path.is_dir() else 0o444)
        env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        words = [sys.executable, "-c", READ_ONLY, str(tmp_path), str(folder)]
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
        lines = sorted(line for line in done.stdout.splitlines() if line.startswith(folder.name))
        states = [line.split()[1:] for line in lines]
        assert states == [["done", "finished", "12"], ["half", "stopped", "12"]], done.stderr
    finally:
        for path in (folder, folder / "done", folder / "half"):
            path.chmod(0o755)
        shutil.rmtree(folder)
