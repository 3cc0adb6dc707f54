"""How much quicker the denoisers are than the plain loop on the same weights.

    python benchmarks/denoiser/speed.py [--json] [--case issue3] [--seeds 8] [--dtype float32]
    python benchmarks/denoiser/speed.py --parts exact share --dtype bfloat16
    python benchmarks/denoiser/speed.py --scaling docs/scaling.svg
    python benchmarks/denoiser/speed.py --overhead DATA [--calls 300]

The plain loop is that of the public samplers (`plain_loop.py`): K candidates, a forward over traces
and prompt at every step, nothing kept. Ours starts with a context that it has not met. Ratios are
reference seconds over ours, measured one after the other in one run: processor seconds, so that
other work on the machine does not count. In float32 the tokens of both can be compared; bfloat16 is
what remask computes in where the processor multiplies it. Each part is printed to stderr when it
is done. The last form asks what remask itself costs: a run on DATA/sst2 (docs/benchmarks.md) and
the share of its time outside the models; the goal is 2 %.
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

sys.path.insert(0, str(Path(__file__).parents[2]))  # the checkout

import torch
from matplotlib.figure import Figure

from benchmarks.denoiser.plain_loop import Plain, write_as_llada
from benchmarks.record import write_svg
from benchmarks.tasks import load_task
from remask import optimize
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
class TrainingExample:
    """What is denoised: tokens of traces and prompt, masks in holes of eight."""

    context: int
    prompt: int
    masked: int
    steps: int
    candidates: int = 8


CASES = {"issue2": TrainingExample(600, 60, 16, 16), "issue3": TrainingExample(1000, 100, 24, 16)}
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
FIXED = CommitRule(
    0.3, commit="steps"
)  # the same number of steps for both; the default temperature
SEQUENTIAL = CommitRule(0.3, order="leftmost", commit="steps")  # one token at a time
PARALLEL = replace(SEQUENTIAL, commit="threshold", threshold=0.9)  # … and all that are certain
STEPS = 20  # of parallel commits for 24 masks: one token a step at first, two at the end


# -- what is denoised -----------------------------------------------------------------------------


def traces(denoiser: LocalDenoiser, tokens: int) -> Context:
    """As many traces as make about so many tokens."""
    made: list[Trace] = []
    while denoiser.count(render(tuple(made))) < tokens - 20:
        number = len(made)
        query = f"Order {number} has not come yet and nobody answers my letters."
        made.append(Trace(str(number), query, "complaint", "delivery", score=0.0))
    return tuple(made)


def canvas(denoiser: LocalDenoiser, case: TrainingExample) -> Canvas:
    """A prompt of so many tokens; a hole of eight masks behind each of its equal shares."""
    holes = case.masked // HOLE
    words = iter(PROMPT.split())
    parts: list[str | Hole] = []
    for _ in range(holes):
        text = next(words)
        while denoiser.count(text) < (case.prompt - case.masked) // holes - 1:
            text += f" {next(words)}"
        parts += [f"{text.rstrip('.')}. ", Hole("Be quick.", HOLE), " "]
    return tuple(parts[:-1])


def timed(
    denoiser: LocalDenoiser, context: Context, case: TrainingExample
) -> tuple[float, list[Fill]]:
    canvases = [canvas(denoiser, case)] * case.candidates
    start = time.process_time()
    fills = denoiser.infill(context, canvases, seed=0)
    return time.process_time() - start, fills


def embedded(base: Backbone, adapted: AdaptedModel, rule: CommitRule, steps: int) -> LocalDenoiser:
    """The built-in denoiser; it has met no context yet."""
    reading = make_builtin_mode(base, adapted)
    return LocalDenoiser("builtin", base, adapted.family, reading, rule, steps)


# -- what is measured -----------------------------------------------------------------------------


def exact(base: Backbone, adapted: AdaptedModel, case: TrainingExample) -> dict[str, Any]:
    """The built-in model against the plain loop: the same tokens, sooner."""
    ours = embedded(base, adapted, FIXED, case.steps)
    context = traces(ours, case.context)
    plain = Plain(make_builtin_mode(base, adapted))
    slow = LocalDenoiser("plain", base, adapted.family, plain, FIXED, case.steps)
    ours.infill((), [("Warm ", Hole("up", 2))], 0)
    new, fills = timed(ours, context, case)
    again, _ = timed(ours, context, case)
    reference, expected = timed(slow, context, case)
    return {
        "ratio_exact": reference / new,
        "identical_tokens": [f.texts for f in fills] == [f.texts for f in expected],
        "seconds_reference": reference,
        "seconds_new_context": new,
        "seconds_same_context": again,
        "context_tokens": ours.count(render(context)),
        "prompt_tokens": ours.count("".join(p for p in canvas(ours, case) if isinstance(p, str)))
        + case.masked,
    }


def parallel(
    base: Backbone, adapted: AdaptedModel, case: TrainingExample, seeds: int
) -> dict[str, Any]:
    """Parallel commits: seconds, and what the base says of the texts, against one at a time."""
    quick = embedded(base, adapted, PARALLEL, STEPS)
    slow = embedded(base, adapted, SEQUENTIAL, case.masked)
    context = traces(quick, case.context)
    seconds, _ = timed(quick, context, case)
    nats = {
        name: [base_nats(d, context, case, seed) for seed in range(seeds)]
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


def base_nats(denoiser: LocalDenoiser, context: Context, case: TrainingExample, seed: int) -> float:
    """Minus the base's log-probability per token of what is written, read left to right behind
    traces and prompt; the mean over the candidates."""
    shape = canvas(denoiser, case)
    fills = denoiser.infill(context, [shape] * case.candidates, seed)
    means = []
    for fill in fills:
        text, spans = written(shape, fill)
        tokens = sum(denoiser.count(text[a:b]) for a, b in spans)
        means.append(-sum(denoiser.score(context, text, spans)) / tokens)
    return statistics.mean(means)


def written(shape: Canvas, fill: Fill) -> tuple[str, list[tuple[int, int]]]:
    """The finished prompt, and where the fills stand in it."""
    text = "".join(p for p in apply_fills(shape, fill.texts) if isinstance(p, str))
    spans, at = [], 0
    for words in fill.texts:
        start = text.index(words, at)
        at = start + len(words)
        # The blank before it belongs to the first token.
        spans.append((start - (start > 0), at))
    return text, spans


def bidirectional(base: Backbone, case: TrainingExample) -> dict[str, Any]:
    """SmolLM2's weights as a LLaDA: approximate reuse against the plain loop."""
    rule = replace(FIXED, left_bias=0.0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "SmolLM2-as-LLaDA"
        write_as_llada(base, folder)
        backbone, family = load_family(str(folder), device="cpu", dtype=base.dtype)
    reading = Bidirectional(backbone, family)
    ours = LocalDenoiser(family.name, backbone, family, reading, rule, case.steps)
    slow = LocalDenoiser("plain", backbone, family, Plain(reading), rule, case.steps)
    context = traces(ours, case.context)
    new, fills = timed(ours, context, case)
    drift = ours.drift
    reference, expected = timed(slow, context, case)
    same = [
        a == b
        for f, g in zip(fills, expected, strict=True)
        for a, b in zip(f.texts, g.texts, strict=True)
    ]
    return {
        "ratio_bidirectional": reference / new,
        "drift": {**asdict(drift), "agreement": drift.agreement, "refresh": reading.refresh},
        "bidirectional_same_fills": sum(same) / len(same),
        "seconds_bidirectional": new,
        "seconds_bidirectional_reference": reference,
    }


def matmul_share(dtype: torch.dtype, case: TrainingExample) -> float:
    """Matrix products of one step of all candidates alone, over the whole forward, in seconds."""
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
    whole = best(
        lambda: adapted.backbone.read_region(ids, real, masked, past, adapted.gates), dtype
    )
    n, wide, head = rows * length, config.intermediate_size, d // heads
    keys = case.context + length
    linear = [(d, d), (d, shared * head), (d, shared * head), (d, d)]
    linear += [(d, wide), (d, wide), (wide, d)]
    products = 0.0
    for inner, outer in linear:
        x, w = torch.randn(n, inner).to(dtype), torch.randn(outer, inner).to(dtype)
        products += best(lambda x=x, w=w: torch.nn.functional.linear(x, w), dtype)
    q = torch.randn(rows * heads, length, head).to(dtype)
    k = torch.randn(rows * heads, keys, head).to(dtype)
    p = torch.randn(rows * heads, length, keys).to(dtype)
    products += best(lambda: q @ k.transpose(1, 2), dtype) + best(lambda: p @ k, dtype)
    return products * config.num_hidden_layers / whole


def best(call: Callable[[], object], dtype: torch.dtype) -> float:
    """Seconds of the quickest of a few calls."""
    found = []
    for _ in range(4 if dtype == torch.float32 else 2):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


def peak_mb(case: TrainingExample) -> float:
    """Most memory that a process takes which denoises the case once, as `remask` would."""
    # Two steps: how many there are does not change the peak.
    code = [sys.executable, __file__, "--peak", "--case", name_of(case)]
    done = subprocess.run(code, check=True, capture_output=True, text=True)
    return float(done.stdout)


def name_of(case: TrainingExample) -> str:
    return next(name for name, known in CASES.items() if known == case)


def show_peak(case: TrainingExample) -> None:
    base = load_base()
    denoiser = embedded(base, load_adapter(base), FIXED, 2)
    timed(denoiser, traces(denoiser, case.context), case)
    print(most_memory())


def most_memory() -> float:
    """MB that this process has held at most. What `getrusage` says of a child begins with what its
    parent held, so Linux is asked elsewhere."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def measure(name: str, parts: Sequence[str], dtype: torch.dtype, seeds: int) -> dict[str, Any]:
    """What the `parts` find, in their order."""
    case = CASES[name]
    base = load_base(dtype=dtype)
    adapted = load_adapter(base)
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "exact": lambda: exact(base, adapted, case),
        "parallel": lambda: parallel(base, adapted, case, seeds),
        "bidirectional": lambda: bidirectional(base, case),
        "share": lambda: {"matmul_share": matmul_share(dtype, case)},
        "memory": lambda: {"peak_mb": peak_mb(case)},
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


# -- how cost grows -------------------------------------------------------------------------------

WALKS: dict[str, Sequence[int]] = {
    "candidates": (1, 2, 4, 8, 16),
    "canvas tokens": (32, 56, 80, 104, 128),
    "earlier rounds": (0, 1, 2, 3, 4),
}


def walk() -> dict[str, list[tuple[int, float]]]:
    """Seconds against the number of candidates, the length of the canvas, and earlier rounds."""
    base = load_base(dtype=torch.float32)
    adapted = load_adapter(base)
    case = TrainingExample(context=500, prompt=80, masked=8, steps=4, candidates=4)
    denoiser = embedded(base, adapted, FIXED, case.steps)
    context = traces(denoiser, case.context)
    timed(denoiser, context, case)
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in WALKS}
    for n in WALKS["candidates"]:
        seconds, _ = timed(denoiser, context, replace(case, candidates=n))
        found["candidates"].append((n, seconds))
    for n in WALKS["canvas tokens"]:
        seconds, _ = timed(denoiser, context, replace(case, prompt=n))
        found["canvas tokens"].append((n, seconds))
    for n in WALKS["earlier rounds"]:
        # Each round reads other traces, as the search does.
        rest = tuple(replace(trace, query=f"{trace.query} ({n})") for trace in context)
        seconds, _ = timed(denoiser, rest, case)
        found["earlier rounds"].append((n, seconds))
    return found


def draw(found: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """Three small line charts side by side, as SVG."""
    figure = Figure(figsize=(9, 2.6), layout="tight")
    for axes, (name, points) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
        at, seconds = zip(*points, strict=True)
        axes.plot(at, seconds, color="#0b7285", marker="o")
        axes.set(xlabel=name, ylabel="seconds", ylim=(0, 1.1 * max(seconds)), xticks=at)
    write_svg(figure, path)


# -- what remask itself costs ---------------------------------------------------------------------

INSIDE: dict[str, tuple[type, Sequence[str]]] = {
    "target": (BuiltinTarget, ("choose", "respond")),
    "denoiser": (BuiltinDenoiser, ("infill", "score")),
    "loading": (BuiltinDenoiser, ("__init__",)),
}
SCHEDULER = Path("/proc/thread-self/schedstat")  # on a core, waiting for one; nanoseconds


def overhead(data: Path, calls: int, test: int) -> dict[str, Any]:
    """The share of wall time that one whole run on SST-2 spends outside the two models.

    Run directory, events and report are included. Loading the weights, which a run does once
    whatever its length, is in neither. Rows of the validation file stand in for a test, so that the
    sealed file is not read.
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
            setattr(room, method, watched(getattr(room, method), name, spent))
    with tempfile.TemporaryDirectory() as place:
        since = clock()
        result = optimize(
            task.seed_prompt,
            rows,
            answer=task.answer,
            budget=calls + 2 * test,
            run_dir=Path(place) / "run",
            settings={"data": {"split": "split"}},
        )
        seconds = clock() - since
    outside = seconds - sum(spent.values())
    seconds -= spent.pop("loading")
    inside = {f"seconds_{name}": value for name, value in spent.items()}
    return {"calls": result.spend.calls, "seconds": seconds, **inside,
            "share_outside": outside / seconds}  # fmt: skip


def watched(method: Callable[..., Any], name: str, spent: dict[str, float]) -> Callable[..., Any]:
    """`method`, which adds its seconds to those of `name`; no watched one calls another."""

    def timed(*args: Any, **kwargs: Any) -> Any:
        since = clock()
        try:
            return method(*args, **kwargs)
        finally:
            spent[name] += clock() - since

    return timed


def clock() -> float:
    """Seconds on the wall, without those that the main thread waited for a core that others had
    (Linux says so); waiting for the disk counts."""
    try:
        waited = int(SCHEDULER.read_text().split()[1]) / 1e9
    except OSError:
        waited = 0.0  # not Linux
    return time.perf_counter() - waited


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", choices=list(CASES), default="issue3")
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=PARTS, metavar="PART")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seeds", type=int, default=8, help="of the comparison of parallel texts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--scaling", type=Path, metavar="SVG", help="draw how cost grows instead")
    parser.add_argument("--overhead", type=Path, metavar="DATA", help="of a run on SST-2 instead")
    parser.add_argument("--calls", type=int, default=300, help="of that run's search")
    parser.add_argument("--test", type=int, default=40, help="rows of that run's test")
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        show_peak(CASES[args.case])
        return
    if args.scaling:
        found: dict[str, Any] = walk()
        draw(found, args.scaling)
    elif args.overhead:
        found = overhead(args.overhead, args.calls, args.test)
    else:
        found = measure(args.case, args.parts, getattr(torch, args.dtype), args.seeds)
    if args.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:32} {value}")


if __name__ == "__main__":
    main()
