"""What remask itself costs: the share of a run's wall time outside the two models.

    python benchmarks/overhead.py --data FOLDER [--calls 100] [--test 40] [--json]

FOLDER holds SST-2 as train.jsonl and validation.jsonl. One real `remask.optimize` with the embedded
models, run directory, events and report included. Inside: the target's answers and the denoiser's
infilling and scoring. Loading the weights, which a run does once whatever its length, is told apart
and is in neither. Linux says how long the process waited for a core that others had; that time is
taken off, waiting for the disk is not.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from remask import optimize
from remask.backbone.weights import load_base
from remask.dlm.embedded import EmbeddedDenoiser
from remask.models.embedded import EmbeddedTarget

TIMED = {
    "target": (EmbeddedTarget, ("choose", "respond")),
    "denoiser": (EmbeddedDenoiser, ("infill", "score")),
    "loading": (EmbeddedDenoiser, ("__init__",)),
}
SCHEDULER = Path("/proc/thread-self/schedstat")  # on a core, waiting for one; nanoseconds
GOAL = 0.02


def clock() -> float:
    """Seconds on the wall, without those that the main thread waited for a core."""
    try:
        waited = int(SCHEDULER.read_text().split()[1]) / 1e9
    except OSError:
        waited = 0.0  # not Linux
    return time.perf_counter() - waited


class Stopwatch:
    """Seconds within the wrapped methods, by name. None of them nests."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(TIMED, 0.0)

    def around(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            since = clock()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds[name] += clock() - since

        return timed


def rows_of(folder: Path, train: int, validation: int, test: int) -> list[dict[str, str]]:
    """The first rows of the training file to search on; those of the validation file stand in
    for a test, so that the sealed file is not read."""
    found = []
    for file, parts in (
        ("train", (("train", train), ("validation", validation))),
        ("validation", (("test", test),)),
    ):
        lines = iter((folder / f"{file}.jsonl").open(encoding="utf-8"))
        for split, n in parts:
            found += [{**json.loads(next(lines)), "split": split} for _ in range(n)]
    return found


def measure(folder: Path, calls: int, test: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    load_base()  # kept for the process: the run finds it loaded
    watch = Stopwatch()
    for name, (room, methods) in TIMED.items():
        for method in methods:
            setattr(room, method, watch.around(name, getattr(room, method)))
    rows = rows_of(folder, 24, 24, test)
    with tempfile.TemporaryDirectory() as place:
        since = clock()
        result = optimize(
            "Classify the sentiment.",
            rows,
            answer="The sentiment is {label}.",
            budget=calls + 2 * test,
            run_dir=Path(place) / "run",
            settings={"data": {"split": "split"}},
        )
        seconds = clock() - since
    outside = seconds - sum(watch.seconds.values())
    seconds -= watch.seconds.pop("loading")
    return {
        "calls": result.spend.calls,
        "seconds": round(seconds, 2),
        "inside": {name: round(inside, 2) for name, inside in watch.seconds.items()},
        "share_outside": round(outside / seconds, 4),
        "goal": GOAL,
    }


def main() -> None:
    arg = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arg.add_argument("--data", type=Path, required=True)
    arg.add_argument("--calls", type=int, default=100, help="for the search")
    arg.add_argument("--test", type=int, default=40, help="rows of the test")
    arg.add_argument("--json", action="store_true", help="print one line of JSON")
    args = arg.parse_args()
    found = measure(args.data, args.calls, args.test)
    if args.json:
        print(json.dumps(found))
        return
    inside = ", ".join(f"{name} {seconds} s" for name, seconds in found["inside"].items())
    print(f"{found['calls']} calls in {found['seconds']} s: {inside}")
    print(f"outside the models: {found['share_outside']:.2%}; goal: under {GOAL:.0%}")


if __name__ == "__main__":
    main()
