"""A process that plays one small run with the real built-in models and kills it again and again.

    python killed_run.py FOLDER SEED KILLS

Known answer: every run that was killed and went on ends like FOLDER/whole, which was left alone.
Forks a child per attempt, because loading the models takes longer than the run. Each child is ended
by SIGKILL after a random time, until KILLS attempts have died; the next one may finish.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

import remask
from remask.ids import rng_for
from remask.models.backbone.builtin_weights import load_base

MESSAGES = Path(__file__).parents[2] / "examples" / "support" / "messages.jsonl"
ROWS = 12  # of each split, all from the example's train rows


def rows() -> list[dict[str, str]]:
    lines = [json.loads(line) for line in MESSAGES.read_text("utf-8").splitlines()]
    train = [line for line in lines if line["split"] == "train"][: 3 * ROWS]
    splits = ("train", "validation", "test")
    return [{**row, "split": splits[i % 3]} for i, row in enumerate(train)]


def play(folder: Path) -> None:
    if (folder / "run.db").exists():
        remask.resume(folder, data=rows())
        return
    remask.optimize(
        "Classify the message. Be short.",
        remask.Dataset(rows(), input="message", expected="topic", split="split"),
        max_calls=130,
        run_dir=folder,
        search=remask.Search(candidates=2, traces=3),
    )


def attempt(folder: Path, seconds: float | None) -> bool:
    """Play in a child; whether it finished before it was killed."""
    child = os.fork()
    if child == 0:
        play(folder)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if seconds is None and status != 0:
        sys.exit(f"the run failed with status {status}")
    return status == 0


def main() -> None:
    folder, seed, kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)  # no worker threads: a fork would lose them
    load_base()
    started = time.monotonic()
    attempt(folder / "whole", None)
    length = time.monotonic() - started
    rng = rng_for(seed, "kill")
    died = 0
    while died < kills:
        # Attempts get shorter than the run, so that kills fall everywhere and some run through.
        if attempt(folder / "killed", float(rng.uniform(0.05, 0.5)) * length):
            (folder / "killed").rename(folder / f"killed-{died}")
        else:
            died += 1
    attempt(folder / "killed", None)


if __name__ == "__main__":
    main()
