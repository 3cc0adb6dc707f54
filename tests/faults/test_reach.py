"""What a run touches: files outside of its folder, other hosts, other processes."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from fakes.http_run import ENVIRONMENT, World, write_job
from fakes.server import Server

# Notes each connection, process and file that is opened for writing; a hook cannot be removed.
WATCHED = """
import json, os, sys
seen = []
def hook(event, values):
    if event == "socket.connect":
        seen.append([event, repr(values[1])])
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"):
        seen.append([event, repr(values)[:200]])
    elif event == "open" and isinstance(values[0], (str, bytes)) and (
        (isinstance(values[1], str) and set(values[1]) & set("wax+"))
        or values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    ):
        seen.append([event, os.path.abspath(os.fsdecode(values[0]))])
    elif event in ("os.remove", "os.rename", "os.mkdir", "sqlite3.connect"):
        seen.append([event, os.path.abspath(os.fsdecode(values[0]).removeprefix("file://").partition("?")[0])])
sys.addaudithook(hook)
from remask.cli import main
try:
    main()
finally:
    os.write(int(os.environ["SEEN"]), json.dumps(seen).encode())
"""
COMMANDS = (
    ("check",),
    ("eval",),
    ("optimize", "--plain"),
    ("show", "run"),
    ("report", "run"),
    ("export", "run", "-o", "run/prompt.md"),
)


def watch(folder: Path, words: tuple[str, ...]) -> list[list[str]]:
    """Run a command; return what it touched."""
    place = folder.parent / "seen.json"
    with place.open("wb") as seen:
        done = subprocess.run(
            [sys.executable, "-c", WATCHED, *words], cwd=folder, pass_fds=[seen.fileno()],
            env={**ENVIRONMENT, "SEEN": str(seen.fileno())}, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return [list(one) for one in json.loads(place.read_bytes())]


def is_scratch(path: str) -> bool:
    """Whether Python made it: a file of eight letters that tries a temporary folder, or such a folder."""
    folder = Path(tempfile.gettempdir())
    if not Path(path).is_relative_to(folder):
        return False
    name = Path(path).relative_to(folder).parts[0]
    return len(name) == 8 or name.startswith("tmp")


@pytest.mark.skipif(sys.platform == "win32", reason="passes a file descriptor")
def test_commands_touch_the_run_and_the_named_server_alone(tmp_path: Path, record_property: Any) -> None:
    folder = tmp_path / "job"
    with Server(default=World()) as server:
        write_job(folder, server, rows=(2, 2, 4), candidates=1)
        port = server.url.rpartition(":")[2].partition("/")[0]
        for words in COMMANDS:
            for event, what in watch(folder, words):
                if event == "socket.connect":
                    assert f"'127.0.0.1', {port})" in what, (words, what)
                elif event == "subprocess.Popen":  # the openai SDK names the processor in a header
                    assert "'uname', '-p'" in what, (words, what)
                else:
                    assert event in ("open", "os.remove", "os.rename", "os.mkdir", "sqlite3.connect"), (
                        words,
                        what,
                    )
                    allowed = what.startswith(str(folder / "run")) or what == os.devnull or is_scratch(what)
                    assert allowed, (words, event, what)
    record_property("runs", len(COMMANDS))
