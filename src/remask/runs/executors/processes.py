"""Workers that are processes on this machine.

A worker is a new Python process, which gets its settings and its items as pickles on its standard
input. It does not run the main module again, so a user's script needs no guard, and it ends with
the driver, since then its input ends.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import remask
from remask.errors import BackendError, RemaskError
from remask.ports import Item
from remask.runs.executors.pool import WorkerGone
from remask.sanitize import clip, one_line

# What libraries of linear algebra read when they are loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_MAX_ERROR_CHARACTERS = 200
Answer = tuple[bool, Any]  # (whether the work was done, its result or the exception)


class ProcessWorker:
    """Implements WorkerHandle with a process. `module` is run as the worker, see `serve`."""

    def __init__(self, module: str, settings: object, threads: int) -> None:
        """`settings` go to the worker first; `threads` is the number that it computes with."""
        self._module, self._settings, self._threads = module, settings, threads
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The id of the process, while there is one."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """See WorkerHandle.start."""
        self._end()
        package = str(Path(remask.__file__).parent.parent)
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        threads = dict.fromkeys(THREAD_VARIABLES, str(self._threads))
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it is read when the process has ended
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", self._module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **threads},
            start_new_session=True,  # so that Ctrl-C reaches the driver alone
        )  # fmt: skip
        if self._closed:  # the run ended meanwhile
            self._end()
        self._send(self._settings)

    def ask(self, item: Item) -> Any:
        """See WorkerHandle.ask."""
        process = self._process
        if process is None or process.stdout is None:
            raise WorkerGone("the run ends")
        self._send(item)
        try:
            done, value = pickle.load(process.stdout)  # written by our own worker
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            raise WorkerGone(self._describe_end()) from None
        if done:
            return value
        raise value

    def close(self) -> None:
        """See WorkerHandle.close."""
        self._closed = True
        self._end()

    def _send(self, value: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            pickle.dump(value, self._process.stdin)
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise WorkerGone(self._describe_end()) from None

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(OSError, ValueError):
                if stream is not None:
                    stream.close()

    def _describe_end(self) -> str:
        """Say how the process ended, with the last line that it wrote as an error."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1.0)
        code, lines = self._process.returncode, []
        with suppress(OSError, ValueError):
            if self._errors is not None:
                self._errors.seek(0)
                lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return f"{how}: {clip(one_line(lines[-1]), _MAX_ERROR_CHARACTERS)}" if lines else how


def serve(make: Callable[[Any], Callable[[Item], Any]]) -> None:
    """Be a worker: read settings, make what does items, and answer items until the input ends.

    What the code of a user prints goes to the standard error, since the answers are written to the
    standard output.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    waiting: SimpleQueue[Any] = SimpleQueue()
    requests = sys.stdin.buffer

    def read() -> None:
        while True:
            try:
                waiting.put(pickle.load(requests))  # written by our own driver
            except (EOFError, OSError):
                os._exit(0)  # the driver has ended, whatever is being computed

    threading.Thread(target=read, daemon=True).start()
    do = make(waiting.get())
    while True:
        item = waiting.get()
        pickle.dump(answer(do, item), answers)
        answers.flush()


def answer(do: Callable[[Item], Any], item: Item) -> Answer:
    """Return the result of an item, or the exception, in a form that can be sent."""
    try:
        value: Any = do(item)
        done = True
    except Exception as error:
        value, done = error, False
    try:
        pickle.loads(pickle.dumps(value))
    except Exception as problem:
        if done:
            return False, BackendError(f"the result of {item.role} cannot be sent: {problem}")
        return False, _simplify(value)
    return done, value


def _simplify(error: Exception) -> Exception:
    """Return an exception of the same meaning and text that can be sent."""
    for kind in type(error).__mro__:
        if issubclass(kind, RemaskError):
            with suppress(Exception):
                return pickle.loads(pickle.dumps(kind(str(error))))  # type: ignore[no-any-return]
    return BackendError(f"{type(error).__name__}: {error}")
