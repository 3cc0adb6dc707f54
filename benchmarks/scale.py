"""Workers: what they gain here, and what they would gain on more cores or GPUs.

    python -m benchmarks.scale [--rounds 2] [--out FILE]  # measure, five minutes a round on two quiet cores
    python -m benchmarks.scale --page  # simulate from the committed figures, and draw

Measures batches of denoising and requests to the built-in target in this process, with one and two
worker processes and with one and two actors of Ray, each worker with one thread, all in one run; and
what the driver itself needs for a round and for an item. A model of cost and time takes these
figures: each stage of a round (denoise, then the rungs) hands its items to free workers in order, and
the next stage begins when all are back. It is checked against the measured one and two workers, and
then asked for 1 to 64.
"""

import argparse
import heapq
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import remask
from benchmarks.record import (
    DOCS,
    RESULTS,
    add_page_option,
    describe_run,
    format_table,
    link_picture,
    make_parser,
    read_json,
    write_blocks,
    write_json,
    write_svg,
)
from remask.api.build_models import make_denoiser, make_target
from remask.api.worker import make_executor
from remask.config import make_config
from remask.dlm.canvas import MAX_BATCH_CANVASES
from remask.ports import Canvas, Context, Hole, Item
from remask.runs.executors.pool import gather, wait_for
from remask.runs.meter import MAX_CHUNK_CALLS, choose_chunk_size
from remask.types import Chat, Message, Trace

PAGE, PICTURE = DOCS / "results" / "scale.md", DOCS / "results" / "scale.svg"
BATCHES, REQUESTS, EXCHANGES = 4, 4, 200  # items of each kind that are timed
SETUPS: dict[str, dict[str, Any]] = {
    "in process, one thread": {},
    "in process, two threads": {"threads": 2},
    "one process": {"executor": "process:1"},
    "two processes": {"executor": "process:2"},
    "one actor of Ray": {"executor": "ray", "workers": 1},
    "two actors of Ray": {"executor": "ray", "workers": 2},
}
BASE = "in process, one thread"
WORKERS = (1, 2, 4, 8, 16, 32, 64)
CANDIDATES = 24
RUNGS = (48, 96, 150)  # calls of a round: all candidates, a third of them, those to validate

CONTEXT: Context = tuple(
    Trace(f"t{i}", f"Where is order {i}? I have waited {i} days.", "It is on its way.", desired="Ask for it.")
    for i in range(5)
)
LABELS = ("billing", "delivery", "account")


def make_canvases(count: int) -> list[Canvas]:
    return [("Help customers.", Hole("", 4 + 7 * i % 13), " Be polite to them.") for i in range(count)]


def make_chats(count: int) -> tuple[Chat, ...]:
    return tuple(
        (Message("system", "Name the topic of the message."), Message("user", f"My parcel {i} is late. " * 3))
        for i in range(count)
    )


# -- measure --------------------------------------------------------------------------------------


def open_setup(
    settings: Mapping[str, Any],
) -> tuple[dict[str, Callable[[], object]], Callable[[], None], Callable[[], None]]:
    """Load the models of a setup. Returns its work by kind, what warms it up, and what ends it."""
    run = {key: value for key, value in settings.items() if key != "threads"}
    config = make_config({"prompt": "-", "run": {**run, "threads": 1}}, "benchmark")
    executor = make_executor(config) if run else None
    denoiser = make_denoiser(config.denoiser, executor=executor)
    target = make_target(config.target, executor=executor)
    chats = make_chats(REQUESTS * MAX_CHUNK_CALLS)
    parts = [chats[i : i + MAX_CHUNK_CALLS] for i in range(0, len(chats), MAX_CHUNK_CALLS)]
    canvases = make_canvases(BATCHES * MAX_BATCH_CANVASES)

    def ask() -> object:
        if executor is None:
            return [target.choose(part, LABELS) for part in parts]
        futures = [executor.submit(Item("target", "choose", (part, LABELS))) for part in parts]
        return gather(futures, "part", [1] * len(futures))

    work = {"denoise": lambda: denoiser.infill(CONTEXT, canvases, 0), "choose": ask}

    def warm_up() -> None:
        """Let each worker load both models and do a little."""
        denoiser.infill(CONTEXT, canvases[: 2 * MAX_BATCH_CANVASES], 1)
        if executor is None:
            target.choose(parts[0][:4], LABELS)
            return
        first = [executor.submit(Item("target", "choose", (parts[0][:4], LABELS))) for _ in range(8)]
        gather(first, "part", [1] * len(first))

    if executor is not None:

        def exchange() -> object:
            return [wait_for(executor.submit(Item("target", "describe"))) for _ in range(EXCHANGES)]

        work["exchange"] = exchange
    return work, warm_up, executor.close if executor is not None else lambda: None


def measure_setups(rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of each kind of work in each setup: the shortest of the rounds, since other work only adds."""
    found: dict[str, dict[str, float]] = {name: {} for name in SETUPS}
    for number in range(rounds):
        for name, settings in SETUPS.items():
            torch.set_num_threads(settings.get("threads", 1))
            work, warm_up, close = open_setup(settings)
            try:
                warm_up()
                for kind, do in work.items():
                    began = time.perf_counter()
                    do()
                    seconds = time.perf_counter() - began
                    found[name][kind] = min(seconds, found[name].get(kind, seconds))
            finally:
                close()
            print(f"{number + 1}/{rounds} {name}: {found[name]}", flush=True)
    return found


class Words:
    """A denoiser without a model, so that a run costs only the driver's own work."""

    def count(self, text: str) -> int:
        return len(text.split())

    def infill(self, context: Context, canvases: Sequence[Canvas], seed: int) -> list[Any]:
        from remask.ports import Fill

        holes = [sum(isinstance(part, Hole) for part in canvas) for canvas in canvases]
        return [Fill((f"Be kind {seed % 97} {i}.",) * n, -1.0) for i, n in enumerate(holes)]


def measure_driver(folder: Path) -> dict[str, float]:
    """Seconds of the driver's own work: of a call, of which a round of 24 candidates has some 300."""
    rows = [{"input": f"item {i}", "label": "red"} for i in range(400)]
    calls = 3000
    began = time.perf_counter()
    result = remask.optimize(
        "Answer the question.", remask.Dataset(rows), target=lambda messages: "blue", metric="contains",
        denoiser=Words(), max_calls=calls, run_dir=folder / "run", progress=False,
    )  # fmt: skip
    return {"call": (time.perf_counter() - began) / result.spend.calls}


# -- model ----------------------------------------------------------------------------------------


def schedule(items: Sequence[float], workers: int, overhead: float) -> float:
    """Seconds until items are done that free workers take in order; the driver spends `overhead` on each.

    >>> schedule([1.0, 1.0, 1.0], 2, 0.0)
    2.0
    """
    free = [0.0] * workers
    for number, seconds in enumerate(items, 1):
        begin = max(heapq.heappop(free), number * overhead)
        heapq.heappush(free, begin + seconds)
    return max(free)


def cut(total: int, size: int) -> list[int]:
    """Cut so many calls or canvases into items, as the driver does.

    >>> cut(70, 32)
    [32, 32, 6]
    """
    return [min(size, total - begin) for begin in range(0, total, size)]


def predict_round(costs: Mapping[str, float], workers: int, scale: float = 1.0) -> float:
    """Seconds of a round: denoising, then the rungs one after the other, and the driver's own work.

    costs: seconds of a canvas, a call, an exchange with a worker, and the driver's own of a call.
    scale: by how much canvases and calls of another model cost more.
    """
    batches = [n * costs["canvas"] * scale for n in cut(CANDIDATES, MAX_BATCH_CANVASES)]
    seconds = schedule(batches, workers, costs["exchange"])
    for calls in RUNGS:
        requests = [n * costs["call"] * scale for n in cut(calls, choose_chunk_size(calls))]
        seconds += schedule(requests, workers, costs["exchange"]) + calls * costs["driver"]
    return seconds


def find_costs(found: Mapping[str, Any], setup: str) -> dict[str, float]:
    """The costs that the model takes, of one worker of a kind."""
    one = found["setups"][setup]
    return {
        "canvas": one["denoise"] / (BATCHES * MAX_BATCH_CANVASES),
        "call": one["choose"] / (REQUESTS * MAX_CHUNK_CALLS),
        "exchange": one["exchange"] / EXCHANGES,
        "driver": found["driver"]["call"],
    }


# -- page -----------------------------------------------------------------------------------------


def write_page() -> None:
    found = read_json(RESULTS / "scale.json")
    setups, base = found["setups"], found["setups"][BASE]
    table = format_table(
        ("setup", "denoise, s", "times", "choose, s", "times", "exchange of an item, ms"),
        [
            (
                name,
                f"{one['denoise']:.1f}",
                f"{base['denoise'] / one['denoise']:.2f}",
                f"{one['choose']:.1f}",
                f"{base['choose'] / one['choose']:.2f}",
                f"{one['exchange'] / EXCHANGES * 1e3:.1f}" if "exchange" in one else "",
            )
            for name, one in setups.items()
        ],
    )
    checks = []
    for one, two in (("one process", "two processes"), ("one actor of Ray", "two actors of Ray")):
        for kind, number in (("denoise", BATCHES), ("choose", REQUESTS)):
            each = [setups[one][kind] / number] * number
            said = schedule(each, 2, setups[one]["exchange"] / EXCHANGES)
            checks.append(
                (
                    f"{two}, {kind}",
                    f"{said:.1f}",
                    f"{setups[two][kind]:.1f}",
                    f"{said / setups[two][kind]:.2f}",
                )
            )
    check = format_table(("setup", "predicted, s", "measured, s", "ratio"), checks)
    costs = find_costs(found, "one process")
    gains = draw(costs)
    predicted = format_table(
        ("workers", *map(str, WORKERS)),
        [(name, *(f"{gain:.1f}" for gain in row)) for name, row in gains.items()],
    )
    about = (
        f"`{found['command']}`, commit {found['commit']}, {found['machine']}; {BATCHES} batches of "
        f"{MAX_BATCH_CANVASES} canvases, {REQUESTS} requests of {MAX_CHUNK_CALLS} choices. Rounds, of "
        f"which the shortest counts: {found['rounds']}."
    )
    blocks = {
        "measured": f"{table}\n\n{about}",
        "check": check,
        "predicted": f"{predicted}\n\n{link_picture('speed-up against workers', PICTURE, PAGE)}",
    }
    write_blocks(PAGE, blocks)


def draw(costs: Mapping[str, float]) -> dict[str, list[float]]:
    """Draw the speed-up of a round with 1 to 64 workers; returns it by model."""
    gains = {}
    for name, scale in (("the built-in models", 1.0), ("models that cost 20 times as much", 20.0)):
        one = predict_round(costs, 1, scale)
        gains[name] = [one / predict_round(costs, workers, scale) for workers in WORKERS]
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(WORKERS, WORKERS, color="0.8", label="ideal")
    for name, row in gains.items():
        axes.plot(WORKERS, row, marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="workers", ylabel="speed-up of a round (simulated)")
    axes.set_xticks(WORKERS, map(str, WORKERS))
    axes.set_yticks(WORKERS, map(str, WORKERS))
    axes.legend(frameon=False)
    write_svg(figure, PICTURE)
    return gains


def main(words: Sequence[str] | None = None) -> None:
    import tempfile

    parser = make_parser(__file__, __doc__)
    add_page_option(parser)
    parser.add_argument("--rounds", type=int, default=2, help="Times that all setups are measured.")
    parser.add_argument("--out", type=Path, default=RESULTS / "scale.json")
    args: argparse.Namespace = parser.parse_args(words)
    if args.page:
        write_page()
        return
    os.environ.update(RAY_worker_niceness="0")  # a cluster that this begins would give its actors less
    about = describe_run(__file__, words)
    with tempfile.TemporaryDirectory() as folder:
        driver = measure_driver(Path(folder))
    write_json(
        args.out, {**about, "rounds": args.rounds, "setups": measure_setups(args.rounds), "driver": driver}
    )


if __name__ == "__main__":
    main()
