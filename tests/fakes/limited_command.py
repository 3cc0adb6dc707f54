"""A process that plays commands on hostile files, with limits of time and memory.

    python limited_command.py < orders > answers

An order is a line of JSON: the folder to work in, the words of the command, its seconds and MiB.
Each is carried out in a child, since importing torch takes longer than a refusal. The answer: exit
status (-1: it had to be killed), what it printed, and `ran`: what Python executed, imported or
unpickled from the folder, and each process or connection that was started.
"""

import io
import json
import os
import resource
import signal
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import torch

import remask.cli.check
import remask.dlm.build
import remask.runs.report.html
from remask.cli import main
from remask.models.backbone.builtin_weights import load_base

LOADED = (remask.cli.check, remask.dlm.build, remask.runs.report.html)
FROM_THE_FOLDER = ("exec", "compile", "import", "marshal.loads", "open")
NEVER = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect")


def watch(folder: str, ran: list[str]) -> None:
    """Note what is executed from now on. A hook can not be removed, but the child ends."""

    def hook(event: str, values: tuple[Any, ...]) -> None:
        code = event in FROM_THE_FOLDER and folder in repr(values)
        if event in NEVER or (code and (event != "open" or ".py" in repr(values[0]))):
            ran.append(f"{event} {values!r:.120}")

    sys.addaudithook(hook)


def carry_out(order: dict[str, Any]) -> dict[str, Any]:
    os.chdir(order["folder"])
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    most = size + (order["mib"] << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    ran: list[str] = []
    watch(order["folder"], ran)
    said, errors = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(errors):
            main(order["words"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        code = 1
        errors.write(traceback.format_exc())
    said.seek(0)
    return {"code": code, "stdout": said.read(), "stderr": errors.getvalue(), "ran": ran}


def main_loop() -> None:
    torch.set_num_threads(1)  # no worker threads: a fork would lose them
    load_base()  # the target of the commands
    for line in sys.stdin:
        order = json.loads(line)
        out, back = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(order["seconds"])
            os.write(back, json.dumps(carry_out(order)).encode())
            os._exit(0)
        os.close(back)
        with open(out, "rb") as pipe:
            answer = pipe.read().decode()
        os.waitpid(child, 0)
        print(answer or json.dumps({"code": -1, "stdout": "", "stderr": "killed", "ran": []}), flush=True)


if __name__ == "__main__":
    main_loop()
