"""Processes that work on the store of a run and end by SIGKILL, at a step that is counted.

    killed_store.py hold FOLDER NAME      open the run, append NAME, say "held", wait for stdin
    killed_store.py create FOLDER STEP    make a run and die at that step
    killed_store.py work FOLDER           say "go" and play the workload, or what is left of it
    killed_store.py kill BASE billed      play it whole, then killed at each step (or at those on
                                          stdin), resumed, killed again, resumed; print a report

A step is an SQL statement or a call of the target. Known answer: every row is answered by
"ROW of SIZE", where SIZE is that of its batch, and 5 rounds of 50 rows, 30 of them known, pass the
limit of 120 calls in the fourth. Folding is not needed: the whole workload is played again after a
kill, and cache and insert-or-ignore make that a continuation.
"""

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from remask.errors import BudgetSpent, RemaskError
from remask.ports import Reply, TargetModel
from remask.runs import database
from remask.runs.budget import Limits
from remask.runs.database import FILE, connect
from remask.runs.ledger import Ledger
from remask.runs.meter import Meter
from remask.runs.store import Store
from remask.types import Chat, Message

ROUNDS = 5
LIMIT = 120  # calls


class Steps:
    """Counts steps; at step `kill` the process ends."""

    def __init__(self, kill: int) -> None:
        self.n, self.kill = 0, kill

    def __call__(self, _: object = None) -> None:
        self.n += 1
        if self.n == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)


def count_statements(steps: Steps) -> None:
    """Make every statement of the stores that are opened from here on a step."""

    def counted(file: Path) -> Any:
        db = connect(file)
        db.set_trace_callback(steps)
        return db

    database.connect = counted


def is_killed(play: Callable[[], object]) -> bool:
    """Play in a child; whether it was killed. It must have ended well otherwise."""
    child = os.fork()
    if child == 0:
        play()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and status != 0:
        sys.exit(f"the child failed with status {status}")
    return os.WIFSIGNALED(status)


class BatchTarget(TargetModel):
    """Like floats under another batch size: an answer depends on the whole batch."""

    identity = "scripted:kill"

    def __init__(self, billed: bool, steps: Steps, log: int) -> None:
        self.billed, self.steps, self.log = billed, steps, log

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        replies = []
        for chat in chats:
            self.steps()
            os.write(self.log, b".")  # counted by the file system, whatever becomes of us
            text = chat[-1].content
            replies.append(Reply(f"{text} of {len(chats)}", "", len(text), 3))
        return replies


def work(folder: Path, billed: bool, kill: int) -> int:
    """Play the workload in `folder` from wherever it stands; the steps it took."""
    steps = Steps(kill)
    count_statements(steps)
    log = os.open(f"{folder}.calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    clock = itertools.count()
    with Store.open(folder) if (folder / FILE).exists() else Store.create(folder, {}) as store:
        ledger = Ledger(store, Limits(calls=LIMIT), clock=lambda: next(clock))
        meter = Meter(BatchTarget(billed, steps, log), ledger)
        try:
            for number in range(ROUNDS):
                store.append({"kind": "Proposed", "round": number})
                rows = [f"row {n}" for n in range(number * 20, number * 20 + 50)]
                replies = meter.respond([(Message("user", row),) for row in rows])
                texts = [reply.text for reply in replies]
                store.append({"kind": "Scored", "round": number, "texts": texts})
            store.append({"kind": "SearchEnded", "reason": "done"})
        except BudgetSpent as spent:
            store.append({"kind": "SearchEnded", "reason": str(spent)})
    os.close(log)
    return steps.n


def dump(folder: Path) -> dict[str, Any]:
    """What stands in a run, and the calls that its target counted."""
    with Store.read(folder) as run:
        events, spent = list(run.events()), asdict(run.get_spend())
    db = connect(folder / FILE)
    cache = db.execute("SELECT key, body FROM cache ORDER BY key").fetchall()
    check = db.execute("PRAGMA integrity_check").fetchone()[0]
    db.close()
    return {
        "events": events,
        "cache": [[key, body.decode()] for key, body in cache],
        "spent": spent,
        "check": check,
        "calls": os.path.getsize(f"{folder}.calls"),
    }


def kill(base: Path, billed: bool, points: Sequence[int] | None) -> dict[str, Any]:
    """The uncut run, and runs killed at each of `points`, or at every step; each twice."""
    total = work(base / "whole", billed, 0)
    killed = []
    for at in points or range(1, total + 1):
        folder = base / f"kill{at}"
        kills = 0
        for point in (at, at // 2 + 1, 0):  # killed, killed again on the way, then left in peace
            kills += is_killed(partial(work, folder, billed, point))
        killed.append({"at": at, "kills": kills, **dump(folder)})
    return {"total": total, "whole": dump(base / "whole"), "killed": killed}


def hold(folder: Path, name: str) -> None:
    try:
        with Store.open(folder) as store:
            store.append({"by": name})
            print("held", flush=True)
            sys.stdin.read()
    except RemaskError as error:
        print(type(error).__name__, error, flush=True)
        sys.exit(error.exit_code)


def main() -> None:
    command, folder = sys.argv[1], Path(sys.argv[2])
    if command == "hold":
        hold(folder, sys.argv[3])
    elif command == "create":
        count_statements(Steps(int(sys.argv[3])))
        Store.create(folder, {"a": 1})
    elif command == "work":
        print("go", flush=True)
        work(folder, False, 0)
    elif command == "kill":
        points = json.loads(sys.stdin.read() or "null")
        print(json.dumps(kill(folder, sys.argv[3] == "billed", points)))


if __name__ == "__main__":
    main()
