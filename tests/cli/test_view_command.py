"""`remask view` as a command: what it prints, how it ends, and wrong input in one sentence."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
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


def read(address: str) -> str:
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor()
    )
    for _ in range(50):
        try:
            return opener.open(address, timeout=20).read().decode()
        except ConnectionError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")


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


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_can_only_be_read_is_shown(tmp_path: Path) -> None:
    runs, mount = tmp_path / "runs", tmp_path / "mount"
    play(runs / "one")
    mount.mkdir()
    made = subprocess.run(["mount", "--bind", runs, mount], capture_output=True)
    if made.returncode:
        pytest.skip("no mounting here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", mount], check=True)
        process, address = start(str(mount))
        try:
            assert "improved" in read(address)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
    finally:
        subprocess.run(["umount", "-l", mount], check=True)
