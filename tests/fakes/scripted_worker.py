"""A worker without models: `python -m fakes.scripted_worker`.

Its settings are a dict. Items: ("any", "add", (a, b)), "pid", "fail", "sleep", "die", and "die_once",
which ends the process where the file of that name does not exist yet.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from remask.errors import DataError
from remask.ports import Item
from remask.runs.executors.processes import serve


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(file: str) -> str:
    if not Path(file).exists():
        Path(file).touch()
        die()
    return "done"


def fail(kind: str) -> None:
    if kind == "data":
        raise DataError("bad row", "rows.jsonl", 3)
    raise ValueError(lambda: None)  # it cannot be pickled


def sleep(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


def leave(code: int) -> None:
    print("no memory is left", file=sys.stderr, flush=True)
    os._exit(code)


def make(settings: dict[str, Any]) -> Callable[[Item], Any]:
    """Make what does the items."""
    methods: dict[str, Callable[..., Any]] = {
        "add": lambda a, b: a + b + settings.get("more", 0),
        "pid": os.getpid,
        "getenv": os.environ.get,
        "print": print,
        **{"die": die, "die_once": die_once, "fail": fail, "sleep": sleep, "leave": leave},
    }
    return lambda item: methods[item.method](*item.arguments)


if __name__ == "__main__":
    serve(make)
