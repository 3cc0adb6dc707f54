"""Nights of a watch whose process is killed at a step, then called again.

    killed_watch.py BASE COUNT

Watches three nights in BASE/whole, and in COUNT further folders with a kill at a step of the third
night, which finds a drift and makes a proposal; the call after the kill is killed, too, half as far on,
and the last one is left in peace. Steps, spread evenly, are SQL statements of the state and of the run,
requests to the denoiser, and files that are written. Prints what each folder holds in the end. Known
answer: all hold the same.
"""

import json
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from fakes import nights
from fakes.killed_refine import SteppingListener
from fakes.killed_store import Steps, is_killed
from remask import files
from remask.runs import database

NIGHT = 2  # the bad one


def count_steps(steps: Steps) -> None:
    """Make a step of every statement of a database and of every file that is put in its place."""
    connect, replace = database.connect, Path.replace

    def counted(file: Path, *options: str, **more: Any) -> Any:
        db = connect(file, *options, **more)
        db.set_trace_callback(steps)
        return db

    def placed(self: Path, target: Any) -> Path:
        steps()
        return replace(self, target)

    database.connect = counted
    files.Path.replace = placed  # type: ignore[method-assign]


def play(folder: Path, kill: int) -> int:
    """One call on the bad night; the steps it took."""
    steps = Steps(kill)
    count_steps(steps)
    denoiser = SteppingListener()
    denoiser.steps = steps
    nights.watch_night(folder / "remask.toml", NIGHT, denoiser=denoiser)
    return steps.n


def prepare(folder: Path) -> None:
    """A folder with two quiet nights that were watched, and the files of a bad one."""
    folder.mkdir()
    config = nights.settle(folder)
    for night in range(NIGHT):
        nights.write_night(folder, night)
        nights.watch_night(config, night)
    nights.write_night(folder, NIGHT, bad=True)


def report(folder: Path) -> dict[str, Any]:
    """The state, and the files of the proposal whose content depends on nothing but what was read."""
    with closing(database.connect(folder / "watch.db")) as db:
        tables = {
            name: [[str(value) for value in row] for row in db.execute(f"SELECT * FROM {name} ORDER BY 1")]
            for name in ("meta", "conversations", "looks")
        }
    proposals = sorted(folder.glob("proposals/*"))
    names = ("prompt.md", "changes.diff", "conversations.jsonl")
    texts = {name: (proposals[0] / name).read_text() for name in names}
    result = json.loads((proposals[0] / "result.json").read_text())
    kept = {key: result[key] for key in ("prompt", "verdict", "candidates")}
    return {"state": tables, "proposals": [path.name for path in proposals], "texts": texts, "result": kept}


def main() -> None:
    base, count = Path(sys.argv[1]), int(sys.argv[2])
    prepare(base / "whole")
    total = play(base / "whole", 0)
    killed = []
    for at in (1 + total * k // count for k in range(count)):
        folder, kills = base / f"kill{at}", 0
        prepare(folder)
        for point in (at, at // 2 + 1, 0):
            kills += is_killed(partial(play, folder, point))
        killed.append({"at": at, "kills": kills, **report(folder)})
    print(json.dumps({"total": total, "whole": report(base / "whole"), "killed": killed}))


if __name__ == "__main__":
    main()
