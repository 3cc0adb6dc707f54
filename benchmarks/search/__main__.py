"""Compare optimisers of a prompt: task × optimiser × seed, in which only the optimiser varies.

    python -m benchmarks.search --data FOLDER --runs FOLDER [--jobs 2] [--optimisers NAME …]
    python -m benchmarks.search --data FOLDER --runs FOLDER --ceiling
    python -m benchmarks.search --data FOLDER --runs FOLDER --transfer --target local:PLACE
    python -m benchmarks.search --page

The data folder holds the folders sst2, sst5, snli and mrpc, each with train.jsonl, validation.jsonl
and test.jsonl. The runs folder keeps every finished stage of a cell, so the same command continues
a run that was cut. After each cell benchmarks/results/search_CALLS.json is written again, with the
CALLS of --calls; --target local:PLACE asks a model on this machine in place of the built-in one, and
then it is search_local_CALLS.json. The protocol and the results are in docs/results/benchmarks.md.
"""

import argparse
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.optimisers import NAMES as OPTIMISERS
from benchmarks.record import add_page_option, describe_run, make_parser
from benchmarks.search.ceiling import measure_ceiling
from benchmarks.search.cells import Cell, find_finished, gather_rows, list_cells, run_cell
from benchmarks.search.lab import BUILTIN, LOCAL, Protocol, check_rows, check_target, load_target, name_target
from benchmarks.search.page import TRANSFER, load_results, name_results, write_page
from benchmarks.search.transfer import list_found, measure_transfer
from benchmarks.tasks import DRAWN, FREE, load_task
from benchmarks.tasks import NAMES as TASKS

SIZES = ("train", "validation", "withheld", "test")


def run_grid(
    cells: Sequence[Cell],
    protocol: Protocol,
    data: Path,
    runs: Path,
    test: bool,
    jobs: int,
    out: Path,
    about: dict[str, Any],
    target: str,
    minutes: float,
) -> int:
    """Run the cells, `jobs` at a time; a cell that fails is named and the others continue.

    about: of the results file. target: with its place on this machine. minutes: after them no cell
    is begun. Returns how many failed.
    """
    context, since, failed, n = multiprocessing.get_context("spawn"), time.perf_counter(), 0, 0
    left, waiting = iter(cells), dict[Future[dict[str, float]], Cell]()
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        fixed = (protocol, data, runs, about["commit"], test, partial(load_target, target=target))

        def passed() -> float:
            return (time.perf_counter() - since) / 60

        while True:
            while len(waiting) < jobs and passed() < minutes and (cell := next(left, None)):
                waiting[pool.submit(run_cell, cell, *fixed)] = cell
            if not waiting:
                return failed
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                cell, error, n = waiting.pop(future), future.exception(), n + 1
                failed += error is not None
                said = f"failed: {type(error).__name__}: {error}" if error else ""
                said = said or _format_seconds(future.result())
                print(f"{n}/{len(cells)} {cell.name} {said} ({passed():.1f} min)", flush=True)
                gather_rows(runs, out, about)


def describe_grid(
    words: Sequence[str] | None, target: str, protocol: Protocol, *folders: Path
) -> dict[str, Any]:
    """What the results file says about the run, without the folders of this machine."""
    shown = [word.replace(target, protocol.target) for word in (sys.argv[1:] if words is None else words)]
    about = describe_run(__file__, shown, *folders)
    machine = f"{about['machine']}, 1 thread a cell"
    return {**about, "machine": machine, "target": protocol.target, "protocol": asdict(protocol)}


def _format_seconds(seconds: dict[str, float]) -> str:
    return ", ".join(f"{stage} {s:.0f} s" for stage, s in seconds.items()) or "was finished"


def read_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    option = parser.add_argument
    option("--data", type=Path, help="The folder of the data sets.")
    option("--runs", type=Path, help="The folder that keeps every finished stage of a cell.")
    option(
        "--tasks", nargs="+", choices=TASKS, default=[*FREE, *DRAWN], help="Default: the grid in own words."
    )
    option(
        "--optimisers", nargs="+", choices=OPTIMISERS, default=list(OPTIMISERS),
        help="Default: all optimisers.",
    )  # fmt: skip
    option("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Default: 0 1 2.")
    option("--calls", type=int, default=Protocol().calls, help="Target calls of one search.")
    for rows in SIZES:
        default = getattr(Protocol(), rows)
        option(
            f"--{rows}", type=int, default=default, metavar="ROWS",
            help=f"The number of {rows} rows. Default: {default}.",
        )  # fmt: skip
    option(
        "--denoiser", default="builtin",
        help="The denoiser: builtin, or builtin:ADAPTER for another adapter.",
    )  # fmt: skip
    option(
        "--target", default=BUILTIN,
        help="The frozen target: builtin, or local:PLACE for a model on this machine. Default: builtin.",
    )  # fmt: skip
    option("--jobs", type=int, default=1, help="How many cells run at a time. Default: 1.")
    option("--minutes", type=float, default=math.inf, help="Begin no cell after so many minutes.")
    option(
        "--no-test", action="store_true",
        help="For pilots: read no test row and write the rows to the runs folder only.",
    )  # fmt: skip
    option(
        "--ceiling", action="store_true",
        help="Score many prompts on the withheld rows instead of running optimisers.",
    )  # fmt: skip
    option(
        "--transfer", action="store_true",
        help="Score prompts of the results files on the withheld rows of the other target instead.",
    )  # fmt: skip
    option("--prompts", type=int, default=100, help="Prompts that --ceiling samples for a task.")
    option("--out", type=Path, help="The results file. See above for the default.")
    add_page_option(parser)
    args = parser.parse_args(words)
    if not args.page and (args.data is None or args.runs is None):
        parser.error("--data and --runs are needed to measure; --page needs neither")
    if args.target != BUILTIN and not (args.target.startswith(LOCAL) and name_target(args.target) != LOCAL):
        parser.error(f"--target {args.target}: give builtin, or local: and a folder or a GGUF file")
    if args.transfer and args.target == BUILTIN:
        parser.error("--transfer needs --target local:PLACE, the second of its two targets")
    if min(args.calls, args.jobs, args.prompts, *(getattr(args, name) for name in SIZES)) < 1:
        parser.error("--calls, --jobs, --prompts and numbers of rows must be at least 1")
    return args


def main(words: Sequence[str] | None = None) -> None:
    args = read_arguments(words)
    if args.page:
        print(write_page())
        return
    for threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[threads] = "1"  # the processes of the cells inherit it
    sizes = {name: getattr(args, name) for name in SIZES}
    named = name_target(args.target)
    protocol = Protocol(args.calls, **sizes, denoiser=args.denoiser, target=named)
    if args.ceiling:
        for task in args.tasks:
            found = measure_ceiling(task, args.data, args.runs, args.prompts, protocol, args.target)
            print(found, flush=True)
        return
    if args.transfer:
        transfer_prompts(args, words, protocol)
        return
    out = args.out or (args.runs / "search.json" if args.no_test else name_results(args.calls, named))
    test = not args.no_test
    known = find_finished(out, protocol, test)
    cells = [c for c in list_cells(args.tasks, args.optimisers, args.seeds) if c not in known]
    for task in {cell.task: None for cell in cells}:
        check_rows(load_task(task), args.data, protocol)
    check_target(args.target)
    about = describe_grid(words, args.target, protocol, args.data, args.runs, out)
    grid = (cells, protocol, args.data, args.runs, test, args.jobs, out, about, args.target, args.minutes)
    failed = run_grid(*grid)
    sys.exit(bool(failed))


def transfer_prompts(args: argparse.Namespace, words: Sequence[str] | None, protocol: Protocol) -> None:
    """Score prompts of the built-in and of the local target on the other one."""
    out = args.out or TRANSFER
    check_target(args.target)
    found = {}
    for place in (BUILTIN, args.target):
        results = load_results(place)
        for data in results.values():
            if data.get("target", BUILTIN) != name_target(place):
                raise SystemExit(f"the results of local runs are of {data['target']}; give that target")
        found[place] = [
            one
            for one in list_found(results)
            if one.task in args.tasks and one.optimiser in args.optimisers and one.seed in args.seeds
        ]
    about = describe_grid(words, args.target, protocol, args.data, args.runs, out)
    measure_transfer(found, args.data, args.runs, out, args.jobs, about)


if __name__ == "__main__":
    main()
