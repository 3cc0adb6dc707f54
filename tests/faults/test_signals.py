"""Signals at every phase, in real processes under a pseudo-terminal."""

import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from fakes.command import remask as command
from fakes.http_run import ENVIRONMENT, REMASK, World, finish, read_result, write_job
from fakes.server import Server, silent, status

pytestmark = pytest.mark.slow  # CI runs the samples (.ci/slow)

CONCURRENCY = 4
LONG = 90.0  # seconds of a call, and of a wait that a server asks for
MAX_STOP = 25.0  # seconds; two are promised, on a machine with nothing else to do
SHOW_CURSOR, HIDE_CURSOR = b"\x1b[?25h", b"\x1b[?25l"
ONCE = {"int": [signal.SIGINT], "term": [signal.SIGTERM], "hup": [signal.SIGHUP]}
SIGNALS = ONCE | {
    "int int": [signal.SIGINT, signal.SIGINT],
    "term term": [signal.SIGTERM, signal.SIGTERM],
    "hup hup": [signal.SIGHUP, signal.SIGHUP],
}


class Terminal:
    """A process under a pseudo-terminal, and what it wrote there."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._main, self._side = pty.openpty()
        self.before = termios.tcgetattr(self._side)
        self.written = b""
        self.process = subprocess.Popen(
            [*REMASK, *words], cwd=folder, env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100"},
            stdin=self._side, stdout=self._side, stderr=self._side, start_new_session=True,
        )  # fmt: skip

    def read(self, seconds: float = 0.02) -> None:
        """Read what is there, waiting so long for more; an unread terminal would block the process."""
        while select.select([self._main], [], [], seconds)[0]:
            self.written += os.read(self._main, 1 << 16)
            seconds = 0

    def wait_until(self, done: Callable[[], bool], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, self.written[-2000:]
            assert self.process.poll() is None, self.written[-2000:]
            self.read()

    def stop(self, signals: list[signal.Signals]) -> float:
        """Send signals, and wait for the end; the seconds from the last one."""
        for number in signals:
            self.process.send_signal(number)
            sent = time.monotonic()
            while time.monotonic() < sent + 0.4 and self.process.poll() is None:
                self.read()
            if self.process.poll() is not None:
                break
        while self.process.poll() is None and time.monotonic() < sent + MAX_STOP:
            self.read()
        took = time.monotonic() - sent
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.read()
        return took

    def require_restored(self) -> None:
        """The settings of the terminal are as before, and the cursor is not hidden."""
        assert termios.tcgetattr(self._side) == self.before
        assert self.written.rfind(HIDE_CURSOR) <= self.written.rfind(SHOW_CURSOR), self.written[-500:]

    def close(self) -> None:
        os.close(self._main)
        os.close(self._side)


def job(folder: Path, server: Server) -> None:
    write_job(folder, server, calls=1000, rows=(2, 2, 4), candidates=1, concurrency=CONCURRENCY)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], int]]:
    """The result of a run that nothing stops, and the number of its requests."""
    folder, world = tmp_path_factory.mktemp("whole"), World()
    with Server(default=world) as server, pytest.MonkeyPatch.context() as patch, chdir(folder):
        patch.setenv("NO_PROXY", "127.0.0.1")
        job(folder, server)
        assert command("optimize", "--plain").exit_code == 0
    yield read_result(folder), world.requests


def require_stopped(terminal: Terminal, signals: list[signal.Signals], took: float) -> None:
    number = signals[-1]
    assert took < MAX_STOP, "not ended"
    assert terminal.process.returncode == 128 + number, (terminal.process.returncode, terminal.written[-800:])
    assert b"Traceback" not in terminal.written, terminal.written[-1500:]
    terminal.require_restored()


def require_same_end(folder: Path, whole: dict[str, Any]) -> None:
    """The run can be continued, and ends as the run that nothing stopped."""
    code, errors = finish(folder)
    assert code == 0, errors
    result = read_result(folder)
    keys = ("verdict", "prompt", "best", "test")
    assert [result[k] for k in keys] == [whole[k] for k in keys]
    assert result["spend"]["uncertain"] <= CONCURRENCY


def play(folder: Path, phase: str, sent: list[signal.Signals], whole: tuple[dict[str, Any], int]) -> None:
    """Stop a run in a phase; then continue it."""
    result, requests = whole
    at = {"first call": 1, "search": requests // 2, "wait": requests // 2, "test": requests - 2}[phase]
    fault = status(429, headers={"Retry-After": str(LONG)}) if phase == "wait" else silent(LONG)
    world = World(fault=fault, fails=lambda number, _: number >= at)
    with Server(default=world) as server:
        job(folder, server)
        terminal = Terminal(folder, "optimize")
        try:
            terminal.wait_until(lambda: world.requests >= at)
            terminal.read(0.3)
            took = terminal.stop(sent)
            require_stopped(terminal, sent, took)
        finally:
            terminal.close()
        world.fault = None
        require_same_end(folder, result)


PHASES = ("first call", "search", "wait", "test")
FEW = (("search", "int int"), ("wait", "int"))


@pytest.mark.parametrize(
    ("phase", "name"),
    [pytest.param(p, s, marks=() if (p, s) in FEW else pytest.mark.slow) for p in PHASES for s in SIGNALS],
)
def test_signal_stops_a_run_soon_and_it_can_be_resumed(
    tmp_path: Path, whole: tuple[dict[str, Any], int], phase: str, name: str, record_property: Any
) -> None:
    record_property("row", "R5")
    record_property("runs", 1)
    play(tmp_path, phase, SIGNALS[name], whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONCE)
def test_signal_during_the_start_leaves_no_half_run(
    tmp_path: Path, whole: tuple[dict[str, Any], int], name: str, record_property: Any
) -> None:
    """Before the command has begun, the signal has its usual effect: a shell shows 130, 143 or 129."""
    (number,) = ONCE[name]
    pauses = (0.02, 0.1, 0.3, 0.6, 1.0, 1.5, 2.0)
    record_property("row", "R5")
    record_property("runs", len(pauses))
    for pause in pauses:
        folder = tmp_path / str(pause)
        with Server(default=World()) as server:
            job(folder, server)
            terminal = Terminal(folder, "optimize")
            try:
                terminal.read(pause)
                time.sleep(pause)
                took = terminal.stop([number])
                assert took < MAX_STOP
                assert terminal.process.returncode in (0, 128 + number, -number), terminal.written[-800:]
                terminal.require_restored()
            finally:
                terminal.close()
            require_same_end(folder, whole[0])


@pytest.fixture(scope="module")
def denoised(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a run with the built-in denoiser that nothing stops."""
    folder = tmp_path_factory.mktemp("denoised")
    with Server(default=World()) as server:
        use_builtin(folder, server)
        code, errors = finish(folder, timeout=500)
        assert code == 0, errors
    return read_result(folder)


def use_builtin(folder: Path, server: Server) -> None:
    job(folder, server)
    file = folder / "remask.toml"
    before, _, rest = file.read_text().partition("[denoiser]\n")
    denoiser = '[denoiser]\nmodel = "builtin"\nsteps = 24\n'
    file.write_text(f"{before}{denoiser}[search]\ndemos = 0{rest.partition('[search]')[2]}")


@pytest.mark.slow
@pytest.mark.parametrize("name", SIGNALS)
def test_signal_stops_denoising(
    tmp_path: Path, denoised: dict[str, Any], name: str, record_property: Any
) -> None:
    world, sent = World(), SIGNALS[name]
    record_property("row", "R5")
    record_property("runs", 1)
    with Server(default=world) as server:
        use_builtin(tmp_path, server)
        terminal = Terminal(tmp_path, "optimize")
        try:
            terminal.wait_until(lambda: world.requests >= 4)  # then the first candidate is written
            terminal.read(0.3)
            took = terminal.stop(sent)
            require_stopped(terminal, sent, took)
        finally:
            terminal.close()
        code, errors = finish(tmp_path, timeout=500)
        assert code == 0, errors
    keys = ("verdict", "prompt", "best", "test")
    assert [read_result(tmp_path)[k] for k in keys] == [denoised[k] for k in keys]


FIGURE = re.compile(rb"(\d+) of \d+ (?:calls|candidates)|denoising step (\d+) of \d+")


@pytest.mark.slow
def test_counts_of_work_move_in_the_panel_and_a_signal_shows_stopping(tmp_path: Path) -> None:
    with Server(default=World()) as server:
        use_builtin(tmp_path, server)
        terminal = Terminal(tmp_path, "optimize")
        try:
            terminal.wait_until(lambda: bool(FIGURE.search(terminal.written)))
            terminal.wait_until(lambda: len(set(FIGURE.findall(terminal.written))) >= 8)
            before = len(terminal.written)
            terminal.stop([signal.SIGINT])
            assert b"stopping: what is finished" in terminal.written[before:]
            require_stopped(terminal, [signal.SIGINT], 0)
        finally:
            terminal.close()
