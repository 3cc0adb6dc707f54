"""A refinement that is killed at a step, resumed, killed again and resumed.

    killed_refine.py BASE alone|target COUNT

Kills runs in BASE at COUNT steps, spread evenly over those of an uncut run, and prints a report. A
step is an SQL statement, a request to the denoiser or a call of the target. Known answer: every
run ends like BASE/whole, and its target is asked again only what was in flight at a kill.
"""

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import remask
from fakes.conversations import START, Listener, Painter, write_log
from fakes.killed_store import Steps, count_statements, is_killed
from remask.ports import Context
from remask.runs.database import FILE, connect
from remask.runs.result import RESULT
from remask.runs.store import Store

ROWS = 24  # conversations, half of which are sealed where there is a target


class SteppingListener(Listener):
    """Every request is a step."""

    steps: Steps

    def infill(self, context: Context, canvases: Any, seed: int) -> Any:
        self.steps()
        return super().infill(context, canvases, seed)

    def score(self, context: Context, text: str, spans: Sequence[tuple[int, int]]) -> list[float]:
        self.steps()
        return super().score(context, text, spans)


class SteppingPainter(Painter):
    """Every call is a step, and a byte in a file, which the file system keeps."""

    steps: Steps
    log: Path

    def __call__(self, messages: list[dict[str, str]]) -> str:
        self.steps()
        with self.log.open("ab") as file:
            file.write(b".")
        return super().__call__(messages)


def log_of(folder: Path) -> Path:
    return folder.with_suffix(".calls")


def play(folder: Path, verify: bool, kill: int) -> int:
    """Play a run to its end from wherever it stands; the steps it took."""
    steps = Steps(kill)
    count_statements(steps)
    denoiser, target = SteppingListener(), SteppingPainter()
    denoiser.steps = target.steps = steps
    target.log = log_of(folder)
    parts: dict[str, Any] = {"denoiser": denoiser, "target": target if verify else None}
    if (folder / FILE).exists():
        remask.resume(folder, **parts)
    else:
        search = remask.Search(maskers=["insert"], traces=4)
        files = folder.parent / "log.jsonl"
        remask.refine(START, files, iterations=3, run_dir=folder, search=search, **parts)
    return steps.n


def asked_again(folder: Path) -> int:
    """Calls of the target whose answer is not in the run: they were in flight at a kill."""
    calls = log_of(folder).stat().st_size if log_of(folder).exists() else 0
    if not calls:
        return 0
    db = connect(folder / FILE)
    (answers,) = db.execute("SELECT count(*) FROM cache").fetchone()
    db.close()
    return calls - int(answers)


def report(folder: Path) -> dict[str, Any]:
    with Store.read(folder) as store:
        events = list(store.events())
    return {"events": events, "result": json.loads((folder / RESULT).read_text())}


def main() -> None:
    base, verify, count = Path(sys.argv[1]), sys.argv[2] == "target", int(sys.argv[3])
    write_log(base, ROWS)
    total = play(base / "whole", verify, 0)
    killed = []
    for at in (1 + total * k // count for k in range(count)):
        folder, kills, again = base / f"kill{at}", 0, []
        for point in (at, at // 2 + 1, 0):  # killed, killed again on the way, then left in peace
            kills += is_killed(partial(play, folder, verify, point))
            again.append(asked_again(folder))
        killed.append({"at": at, "kills": kills, "again": again, **report(folder)})
    whole = {"again": asked_again(base / "whole"), **report(base / "whole")}
    print(json.dumps({"total": total, "whole": whole, "killed": killed}))


if __name__ == "__main__":
    main()
