"""A process that plays the command line on a disk that fails; failing_disk.c is preloaded into it.

    LD_PRELOAD=… python failing_disk.py < orders > answers

An order is a line of JSON: the folder to work in, the words of the command, which change of the
disk below `root` fails (`at`, from 1; 0: none), with which errno, and whether for ever; `record` is
a file for a recording of all changes, or "". Without words a run is started or continued from
Python, in the world of colours.py. Each is carried out in a child, since importing takes longer than
a small run. The answer: exit status, the number of changes, which one failed first, and what stands
on stderr.
"""

import ctypes
import io
import json
import os
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import openai

import remask
import remask.cli.check
import remask.cli.export
import remask.cli.optimize
import remask.cli.show
import remask.runs.report.html
import remask.stats
from fakes.colours import Oracle, Phrases, search
from remask.cli import main
from remask.errors import RemaskError

LOADED = (openai.AsyncOpenAI(api_key="none").chat.completions, remask.stats)  # parts that load late
# So few that each change of the disk can fail in turn.
ROWS = {
    split: [(f"item {i}", "red" if i % 2 else "blue") for i in range(10 * k, 10 * k + 4)]
    for k, split in enumerate(("train", "validation", "test"))
}


def play() -> None:
    """Start or continue a run in the current folder; errors end it as those of the command line."""
    try:
        if Path("run/run.db").exists():
            remask.resume("run", data=ROWS, target=Oracle(), denoiser=Phrases())
        else:
            remask.optimize(
                "Name it.", ROWS, target=Oracle(), denoiser=Phrases(), run_dir="run",
                max_calls=1000, search=search(candidates=4),
            )  # fmt: skip
    except RemaskError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def carry_out(order: dict[str, Any], disk: Any) -> dict[str, Any]:
    os.chdir(order["folder"])
    said, errors = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    if order["record"]:
        disk.disk_record(order["record"].encode())
    disk.disk_arm(order["root"].encode(), order["at"], order["errno"], order["for_ever"])
    try:
        with redirect_stdout(said), redirect_stderr(errors):
            main(order["words"]) if order["words"] else play()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        code = 1
        errors.write(traceback.format_exc())
    count, failed = disk.disk_count(), disk.disk_failed().decode()
    return {"code": code, "changes": count, "failed": failed, "stderr": errors.getvalue()}


def main_loop() -> None:
    disk = ctypes.CDLL(None)
    disk.disk_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    disk.disk_record.argtypes = [ctypes.c_char_p]
    disk.disk_failed.restype = ctypes.c_char_p
    disk.disk_count.restype = ctypes.c_long
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            print(json.dumps(carry_out(json.loads(line), disk)), flush=True)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main_loop()
