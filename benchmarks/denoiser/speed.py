"""Compare the speed of the denoisers with the plain loop on the same weights.

    python -m benchmarks.denoiser.speed [--json] [--case issue3] [--seeds 8] [--dtype float32]
    python -m benchmarks.denoiser.speed --parts exact share --dtype bfloat16
    python -m benchmarks.denoiser.speed --scaling
    python -m benchmarks.denoiser.speed --overhead FOLDER [--calls 300]
    python -m benchmarks.denoiser.speed --page

The plain loop is that of the public samplers (`plain_loop.py`): for each candidate a forward pass
over traces and prompt at every step, and nothing is kept. Ours starts with a context that it has
not seen. Ratios are the seconds of the plain loop over ours, measured one after the other in one
run. Seconds are processor seconds, so other work on the machine does not count. In float32 the
tokens of both can be compared; bfloat16 is what remask computes in on processors that multiply it.
Each part is printed to stderr when it is done.

--scaling measures how seconds grow, writes benchmarks/results/scaling.json and draws the picture of
docs/results/speed.md; --page draws it from that file. --overhead measures the cost of remask
itself: the share of the time of a run on SST-2 that is spent outside the models. The goal is 2 %.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.denoiser.plain_loop import Plain, write_as_llada
from benchmarks.record import (
    DOCS,
    RESULTS,
    ROOT,
    add_page_option,
    describe_run,
    make_parser,
    read_json,
    write_json,
    write_svg,
)
from benchmarks.tasks import load_task
from remask import Dataset, Label, optimize
from remask.dlm.adapter import AdaptedModel, load_adapter
from remask.dlm.bidirectional import Bidirectional
from remask.dlm.build import BuiltinDenoiser, load_family, make_builtin_mode
from remask.dlm.canvas import apply_fills
from remask.dlm.denoiser import LocalDenoiser
from remask.dlm.render import render
from remask.dlm.sampler import CommitRule
from remask.models.backbone.builtin_weights import load_base
from remask.models.backbone.transformer import Backbone
from remask.models.builtin import BuiltinTarget
from remask.ports import Canvas, Context, Fill, Hole
from remask.types import Trace


@dataclass(frozen=True, slots=True)
class Case:
    """A task for the denoiser: tokens of traces and prompt, and masks in holes of eight."""

    context: int
    prompt: int
    masked: int
    steps: int
    candidates: int = 8


CASES = {"issue2": Case(600, 60, 16, 16), "issue3": Case(1000, 100, 24, 16)}
PARTS = ("exact", "parallel", "bidirectional", "share", "memory")
HOLE = 8  # tokens
PROMPT = """
You read one message of a customer of an online shop and name the team that should answer it. The
teams are delivery, payment, returns and account. Delivery looks after parcels that are late, lost
or damaged on their way. Payment looks after invoices, refunds and cards that were refused. Returns
takes back what does not fit or does not work. Account helps those who cannot log in or want to
change their address. If two teams could answer, choose the one that the customer needs first. Do
not promise anything and do not ask for more. Ignore greetings, thanks and signatures. Answer with
the name of one team in small letters and nothing else at all
"""
SCALING = RESULTS / "scaling.json"
PICTURE = DOCS / "results" / "scaling.svg"
# The same number of steps for both, at the default temperature.
FIXED = CommitRule(0.3, commit="steps")
SEQUENTIAL = CommitRule(0.3, order="leftmost", commit="steps")  # one token at a time
# One token at a time, and all others that are certain. 24 masks in at most 20 steps: one token a
# step at first, two at the end.
PARALLEL = replace(SEQUENTIAL, commit="threshold", threshold=0.9)
STEPS = 20


# -- what the denoiser reads and writes -----------------------------------------------------------


def make_traces(denoiser: LocalDenoiser, tokens: int) -> Context:
    """Traces that have about this many tokens together."""
    made: list[Trace] = []
    while denoiser.count(render(tuple(made))) < tokens - 20:
        number = len(made)
        query = f"Order {number} has not come yet and nobody answers my letters."
        made.append(Trace(str(number), query, "complaint", "delivery", score=0.0))
    return tuple(made)


def make_canvas(denoiser: LocalDenoiser, case: Case) -> Canvas:
    """The prompt of a case, in equal parts with a hole of eight masks after each."""
    holes = case.masked // HOLE
    words = iter(PROMPT.split())
    parts: list[str | Hole] = []
    for _ in range(holes):
        text = next(words)
        while denoiser.count(text) < (case.prompt - case.masked) // holes - 1:
            text += f" {next(words)}"
        parts += [f"{text.rstrip('.')}. ", Hole("Be quick.", HOLE), " "]
    return tuple(parts[:-1])


def time_infill(denoiser: LocalDenoiser, context: Context, case: Case) -> tuple[float, list[Fill]]:
    canvases = [make_canvas(denoiser, case)] * case.candidates
    start = time.process_time()
    fills = denoiser.infill(context, canvases, seed=0)
    return time.process_time() - start, fills


def make_builtin(base: Backbone, adapted: AdaptedModel, rule: CommitRule, steps: int) -> LocalDenoiser:
    """The built-in denoiser, which has not seen any context yet."""
    reading = make_builtin_mode(base, adapted)
    return LocalDenoiser("builtin", base, adapted.family, reading, rule, steps)


# -- what is measured -----------------------------------------------------------------------------


def measure_exact(base: Backbone, adapted: AdaptedModel, case: Case) -> dict[str, Any]:
    """The built-in model against the plain loop, whose tokens are the same."""
    ours = make_builtin(base, adapted, FIXED, case.steps)
    context = make_traces(ours, case.context)
    plain = Plain(make_builtin_mode(base, adapted))
    slow = LocalDenoiser("plain", base, adapted.family, plain, FIXED, case.steps)
    ours.infill((), [("Warm ", Hole("up", 2))], 0)
    new, fills = time_infill(ours, context, case)
    again, _ = time_infill(ours, context, case)
    reference, expected = time_infill(slow, context, case)
    text = "".join(p for p in make_canvas(ours, case) if isinstance(p, str))
    return {
        "ratio_exact": reference / new,
        "identical_tokens": [f.texts for f in fills] == [f.texts for f in expected],
        "seconds_reference": reference,
        "seconds_new_context": new,
        "seconds_same_context": again,
        "context_tokens": ours.count(render(context)),
        "prompt_tokens": ours.count(text) + case.masked,
    }


def measure_parallel(base: Backbone, adapted: AdaptedModel, case: Case, seeds: int) -> dict[str, Any]:
    """Parallel commits against one token at a time: seconds, and nats of the texts."""
    quick = make_builtin(base, adapted, PARALLEL, STEPS)
    slow = make_builtin(base, adapted, SEQUENTIAL, case.masked)
    context = make_traces(quick, case.context)
    seconds, _ = time_infill(quick, context, case)
    nats = {
        name: [measure_nats(d, context, case, seed) for seed in range(seeds)]
        for name, d in (("parallel", quick), ("sequential", slow))
    }
    delta = [p - s for p, s in zip(nats["parallel"], nats["sequential"], strict=True)]
    return {
        "seconds_parallel": seconds,
        "parallel_nats": statistics.mean(nats["parallel"]),
        "sequential_nats": statistics.mean(nats["sequential"]),
        "parallel_nats_delta": statistics.mean(delta),
        "parallel_nats_error": statistics.stdev(delta) / seeds**0.5 if seeds > 1 else None,
        "parallel_seeds": seeds,
    }


def measure_nats(denoiser: LocalDenoiser, context: Context, case: Case, seed: int) -> float:
    """Nats per written token under the base, which reads traces and prompt left to right; the mean
    over the candidates."""
    shape = make_canvas(denoiser, case)
    fills = denoiser.infill(context, [shape] * case.candidates, seed)
    means = []
    for fill in fills:
        text, spans = locate_fills(shape, fill)
        tokens = sum(denoiser.count(text[a:b]) for a, b in spans)
        means.append(-sum(denoiser.score(context, text, spans)) / tokens)
    return statistics.mean(means)


def locate_fills(shape: Canvas, fill: Fill) -> tuple[str, list[tuple[int, int]]]:
    """The finished prompt, and the places of the fills in it."""
    text = "".join(p for p in apply_fills(shape, fill.texts) if isinstance(p, str))
    spans, at = [], 0
    for words in fill.texts:
        start = text.index(words, at)
        at = start + len(words)
        # The space before a fill belongs to its first token.
        spans.append((start - (start > 0), at))
    return text, spans


def measure_bidirectional(base: Backbone, case: Case) -> dict[str, Any]:
    """Approximate reuse against the plain loop, with SmolLM2's weights in LLaDA's layout."""
    rule = replace(FIXED, left_bias=0.0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "SmolLM2-as-LLaDA"
        write_as_llada(base, folder)
        backbone, family = load_family(str(folder), device="cpu", dtype=base.dtype)
    reading = Bidirectional(backbone, family)
    ours = LocalDenoiser(family.name, backbone, family, reading, rule, case.steps)
    slow = LocalDenoiser("plain", backbone, family, Plain(reading), rule, case.steps)
    context = make_traces(ours, case.context)
    new, fills = time_infill(ours, context, case)
    error = ours.approximation_error
    reference, expected = time_infill(slow, context, case)
    same = [
        a == b for f, g in zip(fills, expected, strict=True) for a, b in zip(f.texts, g.texts, strict=True)
    ]
    return {
        "ratio_bidirectional": reference / new,
        "approximation_error": {**asdict(error), "agreement": error.agreement, "refresh": reading.refresh},
        "bidirectional_same_fills": sum(same) / len(same),
        "seconds_bidirectional": new,
        "seconds_bidirectional_reference": reference,
    }


def measure_matmul_share(dtype: torch.dtype, case: Case) -> float:
    """The share of a step of all candidates that its matrix products take."""
    base = load_base(dtype=dtype)
    adapted = load_adapter(base)
    config = base.model.config
    rows, length = case.candidates, case.prompt + 2
    d, heads, shared = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    generator = torch.Generator().manual_seed(0)
    context = torch.randint(20, 40000, (1, case.context), generator=generator)
    _, past = base.read(context, torch.ones_like(context, dtype=torch.bool))
    ids = torch.randint(20, 40000, (rows, length), generator=generator)
    real, masked = torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    whole = time_best(lambda: adapted.backbone.read_region(ids, real, masked, past, adapted.gates), dtype)
    n, wide, head = rows * length, config.intermediate_size, d // heads
    keys = case.context + length
    linear = [(d, d), (d, shared * head), (d, shared * head), (d, d)]
    linear += [(d, wide), (d, wide), (wide, d)]
    products = 0.0
    for inner, outer in linear:
        x, w = torch.randn(n, inner).to(dtype), torch.randn(outer, inner).to(dtype)
        products += time_best(lambda x=x, w=w: torch.nn.functional.linear(x, w), dtype)
    q = torch.randn(rows * heads, length, head).to(dtype)
    k = torch.randn(rows * heads, keys, head).to(dtype)
    p = torch.randn(rows * heads, length, keys).to(dtype)
    products += time_best(lambda: q @ k.transpose(1, 2), dtype) + time_best(lambda: p @ k, dtype)
    return products * config.num_hidden_layers / whole


def time_best(call: Callable[[], object], dtype: torch.dtype) -> float:
    """Seconds of the quickest of a few calls."""
    found = []
    for _ in range(4 if dtype == torch.float32 else 2):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


def measure_peak(name: str) -> float:
    """The peak memory in MB of a process that denoises the case once, as `remask` would."""
    # Two steps: how many there are does not change the peak.
    code = [sys.executable, "-m", "benchmarks.denoiser.speed", "--peak", "--case", name]
    done = subprocess.run(code, check=True, capture_output=True, text=True, cwd=ROOT)
    return float(done.stdout)


def show_peak(case: Case) -> None:
    base = load_base()
    denoiser = make_builtin(base, load_adapter(base), FIXED, 2)
    time_infill(denoiser, make_traces(denoiser, case.context), case)
    print(read_peak())


def read_peak() -> float:
    """The peak memory of this process in MB.

    On Linux `getrusage` of a child begins with the memory of its parent, so /proc is read instead.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def measure(name: str, parts: Sequence[str], dtype: torch.dtype, seeds: int) -> dict[str, Any]:
    """Measure the `parts` in their order."""
    case = CASES[name]
    base = load_base(dtype=dtype)
    adapted = load_adapter(base)
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "exact": lambda: measure_exact(base, adapted, case),
        "parallel": lambda: measure_parallel(base, adapted, case, seeds),
        "bidirectional": lambda: measure_bidirectional(base, case),
        "share": lambda: {"matmul_share": measure_matmul_share(dtype, case)},
        "memory": lambda: {"peak_mb": measure_peak(name)},
    }
    found: dict[str, Any] = {"case": name, **asdict(case), "dtype": str(dtype)}
    found |= {"threads": torch.get_num_threads(), "model": adapted.backbone.identity}
    for part in parts:
        made = ways[part]()
        print(json.dumps(made), file=sys.stderr, flush=True)
        found |= made
    if {"exact", "parallel"} <= set(parts):
        found["ratio_parallel"] = found["seconds_reference"] / found["seconds_parallel"]
    return found


# -- how the seconds grow -------------------------------------------------------------------------

WALKS: dict[str, Sequence[int]] = {
    "candidates": (1, 2, 4, 8, 16),
    "canvas tokens": (32, 56, 80, 104, 128),
    "earlier rounds": (0, 1, 2, 3, 4),
}


def measure_scaling() -> dict[str, list[tuple[int, float]]]:
    """Seconds by the number of candidates, the length of the canvas, and earlier rounds."""
    base = load_base(dtype=torch.float32)
    adapted = load_adapter(base)
    case = Case(context=500, prompt=80, masked=8, steps=4, candidates=4)
    denoiser = make_builtin(base, adapted, FIXED, case.steps)
    context = make_traces(denoiser, case.context)
    time_infill(denoiser, context, case)
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in WALKS}
    for n in WALKS["candidates"]:
        seconds, _ = time_infill(denoiser, context, replace(case, candidates=n))
        found["candidates"].append((n, seconds))
    for n in WALKS["canvas tokens"]:
        seconds, _ = time_infill(denoiser, context, replace(case, prompt=n))
        found["canvas tokens"].append((n, seconds))
    for n in WALKS["earlier rounds"]:
        # Each round reads other traces, as the search does.
        rest = tuple(replace(trace, query=f"{trace.query} ({n})") for trace in context)
        seconds, _ = time_infill(denoiser, rest, case)
        found["earlier rounds"].append((n, seconds))
    return found


def draw_scaling(found: dict[str, list[tuple[int, float]]]) -> Figure:
    """Draw three small line charts side by side."""
    figure = Figure(figsize=(9, 2.6), layout="tight")
    for axes, (name, points) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
        at, seconds = zip(*points, strict=True)
        axes.plot(at, seconds, color="#0b7285", marker="o")
        axes.set(xlabel=name, ylabel="seconds", ylim=(0, 1.1 * max(seconds)), xticks=at)
    return figure


def write_page() -> None:
    """Draw the picture of the page from the committed results."""
    write_svg(draw_scaling(read_json(SCALING)["seconds"]), PICTURE)


# -- the cost of remask itself --------------------------------------------------------------------

INSIDE: dict[str, tuple[type, Sequence[str]]] = {
    "target": (BuiltinTarget, ("choose", "respond")),
    "denoiser": (BuiltinDenoiser, ("infill", "score")),
    "loading": (BuiltinDenoiser, ("__init__",)),
}
SCHEDULER = Path("/proc/thread-self/schedstat")  # on a core, waiting for one; nanoseconds


def measure_overhead(data: Path, calls: int, test: int) -> dict[str, Any]:
    """The share of wall time that one whole run on SST-2 spends outside the two models.

    Run directory, events and report are included. Loading the weights is not: a run does it once,
    however long it is. Rows of the validation file serve as test rows, so the test file is not
    read.
    """
    task = load_task("sst2")
    known = {file: task.read(data, file) for file in ("train", "validation")}
    rows = [{**row, "split": "train"} for row in known["train"][:24]]
    rows += [{**row, "split": "validation"} for row in known["train"][24:48]]
    rows += [{**row, "split": "test"} for row in known["validation"][:test]]
    load_base()  # kept for the process: the run finds it loaded
    spent = dict.fromkeys(INSIDE, 0.0)
    for name, (room, methods) in INSIDE.items():
        for method in methods:
            setattr(room, method, watch(getattr(room, method), name, spent))
    with tempfile.TemporaryDirectory() as place:
        since = read_clock()
        result = optimize(
            task.seed_prompt,
            Dataset(rows, split="split"),
            metric=Label(answer=task.answer),
            max_calls=calls + 2 * test,
            run_dir=Path(place) / "run",
        )
        seconds = read_clock() - since
    outside = seconds - sum(spent.values())
    seconds -= spent.pop("loading")
    inside = {f"seconds_{name}": value for name, value in spent.items()}
    return {"calls": result.spend.calls, "seconds": seconds, **inside,
            "share_outside": outside / seconds}  # fmt: skip


def watch(method: Callable[..., Any], name: str, spent: dict[str, float]) -> Callable[..., Any]:
    """Wrap `method`, so that it adds its seconds to `spent[name]`. No watched method calls another
    one."""

    def timed(*args: Any, **kwargs: Any) -> Any:
        since = read_clock()
        try:
            return method(*args, **kwargs)
        finally:
            spent[name] += read_clock() - since

    return timed


def read_clock() -> float:
    """Seconds of wall time, without the time that the main thread waited for a processor, which
    Linux tells. Waiting for the disk counts."""
    try:
        waited = int(SCHEDULER.read_text().split()[1]) / 1e9
    except OSError:
        waited = 0.0  # not Linux
    return time.perf_counter() - waited


def read_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    option = parser.add_argument
    option("--case", choices=list(CASES), default="issue3", help="The canvas and its context.")
    option(
        "--parts", choices=PARTS, nargs="+", default=PARTS, metavar="PART",
        help=f"The parts to measure: {', '.join(PARTS)}. Default: all parts.",
    )  # fmt: skip
    option(
        "--dtype", choices=("float32", "bfloat16"), default="float32",
        help="The number format of the models. Default: float32.",
    )  # fmt: skip
    option("--seeds", type=int, default=8, help="Seeds of the part parallel.")
    option("--threads", type=int, default=1, help="Threads of the processor.")
    option("--json", action="store_true", help="Print one line of JSON instead of a table.")
    option("--scaling", action="store_true", help="Measure how the seconds grow instead.")
    option(
        "--overhead", type=Path, metavar="FOLDER",
        help="Measure the cost of remask itself instead, on the data sets of this folder.",
    )  # fmt: skip
    option("--calls", type=int, default=300, help="Calls of the search of --overhead.")
    option("--test", type=int, default=40, help="Test rows of the run of --overhead.")
    option("--peak", action="store_true", help=argparse.SUPPRESS)
    add_page_option(parser)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    args = read_arguments(words)
    torch.set_num_threads(args.threads)
    if args.page:
        write_page()
        return
    if args.peak:
        show_peak(CASES[args.case])
        return
    if args.scaling:
        about = describe_run(__file__, words)
        found: dict[str, Any] = measure_scaling()
        write_json(SCALING, {**about, "seconds": found})
        write_page()
    elif args.overhead:
        found = measure_overhead(args.overhead, args.calls, args.test)
    else:
        found = measure(args.case, args.parts, getattr(torch, args.dtype), args.seeds)
    if args.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:32} {value}")


if __name__ == "__main__":
    main()
