"""The search benchmark: task × optimiser × seed, in which only the optimiser varies.

    python benchmarks/search/run.py --data FOLDER --runs FOLDER [--jobs 2] [--optimisers NAME …]
    python benchmarks/search/run.py --data FOLDER --runs FOLDER --ceiling

--data holds the folders sst2, sst5, snli and mrpc, each with train.jsonl, validation.jsonl and
test.jsonl. --runs keeps every finished stage of a cell: the same command goes on where it was cut.
After each cell benchmarks/results/search.json is written anew. The protocol is in
docs/results/benchmarks.md; the tables come from benchmarks/search/report.py. --no-test is for
pilots: it leaves the sealed rows unread and writes its rows to the runs folder alone.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the checkout

from benchmarks.optimisers import NAMES as OPTIMISERS
from benchmarks.record import RESULTS, made_by
from benchmarks.search.ceiling import ceiling
from benchmarks.search.cells import Cell, gather, grid, play
from benchmarks.search.lab import Protocol, check_rows
from benchmarks.tasks import NAMES as TASKS
from benchmarks.tasks import load_task


def run_grid(
    cells: Sequence[Cell],
    protocol: Protocol,
    data: Path,
    runs: Path,
    test: bool,
    jobs: int,
    out: Path,
) -> int:
    """Play the cells, `jobs` at a time; a cell that fails is named and the others go on."""
    context, since, failed = multiprocessing.get_context("spawn"), time.perf_counter(), 0
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        about = made_by(__file__, data, runs, out)
        about["machine"] += ", 1 thread a cell"
        waiting = {
            pool.submit(play, c, protocol, data, runs, about["commit"], test): c for c in cells
        }
        for n, future in enumerate(as_completed(waiting), 1):
            cell, error = waiting[future], future.exception()
            failed += error is not None
            said = f"failed: {type(error).__name__}: {error}" if error else _times(future.result())
            minutes = (time.perf_counter() - since) / 60
            print(f"{n}/{len(cells)} {cell.name} {said} ({minutes:.1f} min)", flush=True)
            gather(runs, out, about)
    return failed


def main() -> None:
    arg = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arg.add_argument("--data", type=Path, required=True)
    arg.add_argument("--runs", type=Path, required=True)
    arg.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    arg.add_argument("--optimisers", nargs="+", choices=OPTIMISERS, default=list(OPTIMISERS))
    arg.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arg.add_argument("--calls", type=int, default=Protocol().calls)
    for rows in ("train", "validation", "withheld", "test"):
        usual = getattr(Protocol(), rows)
        arg.add_argument(f"--{rows}", type=int, default=usual, metavar="ROWS", help=f"{usual}")
    arg.add_argument(
        "--denoiser", default="builtin", help="builtin[:ADAPTER], such as an older one"
    )
    arg.add_argument("--jobs", type=int, default=1)
    arg.add_argument("--no-test", action="store_true", help="a pilot: the test stays sealed")
    arg.add_argument("--ceiling", action="store_true", help="best of many prompts, withheld rows")
    arg.add_argument("--prompts", type=int, default=100, help="that --ceiling samples for a task")
    arg.add_argument("--out", type=Path, help="results; default benchmarks/results/search.json")
    args = arg.parse_args()
    for threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[threads] = "1"  # the processes of the cells inherit it
    sizes = {name: getattr(args, name) for name in ("train", "validation", "withheld", "test")}
    if min(args.calls, args.jobs, args.prompts, *sizes.values()) < 1:
        arg.error("--calls, --jobs, --prompts and numbers of rows must be at least 1")
    protocol = Protocol(args.calls, **sizes, denoiser=args.dlm)
    if args.ceiling:
        for task in args.tasks:
            print(ceiling(task, args.data, args.runs, args.prompts, protocol), flush=True)
        return
    out = args.out or (args.runs / "search.json" if args.no_test else RESULTS / "search.json")
    cells = list(grid(args.tasks, args.optimisers, args.seeds))
    for task in {cell.task: None for cell in cells}:
        check_rows(load_task(task), args.data, protocol)
    sys.exit(
        bool(run_grid(cells, protocol, args.data, args.runs, not args.no_test, args.jobs, out))
    )


def _times(seconds: dict[str, float]) -> str:
    return ", ".join(f"{stage} {s:.0f} s" for stage, s in seconds.items()) or "was finished"


if __name__ == "__main__":
    main()
