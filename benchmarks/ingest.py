"""Measure how fast traces are read, and how much memory that takes.

    python -m benchmarks.ingest [--records 5000] [--repeats 20]
    python -m benchmarks.ingest --memory 50 300
    python -m benchmarks.ingest --scale [--records 1000000] [--no-watch]
    python -m benchmarks.ingest --page

The first form makes a file of chats (a system prompt of about 200 words, three exchanges) and reads
it in turn with `orjson.loads` for each line and with `remask.data.trace_reader`, in the same
process. The best of the repeats counts, in processor time. The targets are at most 3 times the bare
loop and, when redacting, at least 4,000 records a second on one core. The figures go to
benchmarks/results/ingest.json.

The second form makes files of 50 and 300 megabytes, in which each chat has its own user and
session, and runs three things on them, each in a process of its own: `remask traces inspect`,
`remask traces redact`, and the reading of `remask refine`. The figure is the peak memory of that
process, Python and imports included. It must not grow with the file. The target is a JSONL file of
2 GB in at most 300 MB. The figures go to benchmarks/results/memory.json.

--scale makes a million rated conversations in a temporary folder (5.5 GB, in $TMPDIR; it is deleted at
the end) and runs `remask traces inspect`, the reading of `remask refine` and the first night of `remask
watch` on them, with one worker, with two and in one process: seconds, peak memory, and whether the results
are equal. Needs Linux. The figures go to benchmarks/results/ingest_scale.json and, with --page, to
docs/how-to/workers.md.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

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
from remask.api.watch import watch
from remask.api.worker import make_readers
from remask.data.part_reader import count_records
from remask.data.prompt_traces import read_traces
from remask.data.redact.redact import Placeholders, redact_text
from remask.data.trace_reader import read_records
from remask.data.trace_record import Record
from remask.ids import rng_for
from remask.ports import Executor
from remask.propose.failure_modes import group_failures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEXT = (
    "please order the refund customer package arrived late would like to know when my new account "
    "was charged twice for a “blue” shirt and nobody answered my message yet\n thank you very "
    "much we are sorry about that, of course it can be returned within thirty days; the label is "
    "printed in the parcel.\n\n Is there anything else? No. Then I'd say: wait until Friday"
)
WORDS = TEXT.split(" ")
SYSTEM = "You answer the customers of a shop.\n"
GATHER = (
    f"import sys; from remask.data.prompt_traces import read_traces; read_traces({SYSTEM!r}, sys.argv[1:])"
)
MAIN = "from remask.cli import main; main()"
SCALE = RESULTS / "ingest_scale.json"
PAGE, PICTURE = DOCS / "how-to" / "workers.md", DOCS / "results" / "ingest.svg"


def write_chats(path: Path, records: int = sys.maxsize, size: int = sys.maxsize, own: bool = False) -> int:
    """Write chats until there are `records` of them or `size` characters; returns how many.

    own: each chat has its own session and e-mail address.
    """
    rng, count, written = rng_for(0, "ingest"), 0, 0
    system = SYSTEM + make_text(rng, 200)
    with path.open("w", encoding="utf-8") as file:
        while count < records and written < size:
            messages = [{"role": "system", "content": system}]
            who = f"user{count}@example.com: " if own else ""
            for _ in range(3):
                asked = f"{who}Order {count}: {make_text(rng, 40)}"
                messages.append({"role": "user", "content": asked})
                messages.append({"role": "assistant", "content": make_text(rng, 80)})
            more: dict[str, Any] = {}
            if own:
                more = {"id": f"call-{count}", "session_id": f"session-{count}"}
                more["score"] = float(count % 2)
            # As most clients write: with spaces, and characters as they are.
            written += file.write(json.dumps({"messages": messages} | more, ensure_ascii=False))
            written += file.write("\n")
            count += 1
    return count


def make_text(rng: np.random.Generator, n: int) -> str:
    """Draw about `n` words."""
    return " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), n))


# -- speed ----------------------------------------------------------------------------------------


def read_bare(path: Path) -> int:
    """Parse every line and do nothing else."""
    count = 0
    with path.open("rb") as file:
        for line in file:
            orjson.loads(line)
            count += 1
    return count


def read_parsed(path: Path) -> int:
    return sum(isinstance(item, Record) for item in read_records([path]))


def read_redacted(path: Path) -> int:
    names = Placeholders()
    hide = lru_cache(64)(lambda text: redact_text(text, names))  # as `remask traces redact` does
    count = 0
    for item in read_records([path]):
        assert isinstance(item, Record)
        hide(item.system or "")
        for turn in item.turns:
            hide(turn.text)
        count += 1
    return count


def measure_rates(path: Path, repeats: int, records: int) -> dict[str, float]:
    """Records a second of each way to read; they take turns, so that noise affects all alike."""
    ways = {"bare": read_bare, "parsed": read_parsed, "redacted": read_redacted}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, read_all in ways.items():
            start = time.process_time()
            assert read_all(path) == records
            best[name] = min(best[name], time.process_time() - start)
    return {name: records / seconds for name, seconds in best.items()}


def measure_speed(folder: Path, records: int, repeats: int) -> dict[str, Any]:
    path = folder / "chats.jsonl"
    write_chats(path, records)
    found = measure_rates(path, repeats, records)
    return {
        "records": records,
        "bytes_per_record": path.stat().st_size // records,
        "records_per_second": {name: round(rate) for name, rate in found.items()},
        "times_the_bare_loop": round(found["bare"] / found["parsed"], 2),
        "orjson": orjson.__version__,
    }


# -- memory ---------------------------------------------------------------------------------------


def run_measured(code: str, *arguments: str) -> dict[str, float]:
    """Run a process; its peak memory in MB, and its seconds."""
    start = time.monotonic()
    child = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, (code, arguments)
    return {
        "peak_mb": round(usage.ru_maxrss / 1024, 1),  # Linux: kilobytes
        "seconds": round(time.monotonic() - start, 1),
    }


def measure_memory(folder: Path, megabytes: int) -> dict[str, Any]:
    path, clean = folder / f"{megabytes}.jsonl", folder / f"{megabytes}-clean.jsonl"
    return {
        "megabytes": megabytes,
        "records": write_chats(path, size=megabytes << 20, own=True),
        "inspect": run_measured(MAIN, "traces", "inspect", str(path), "--json"),
        "redact": run_measured(MAIN, "traces", "redact", str(path), "-o", str(clean)),
        "refine_gathers": run_measured(GATHER, str(path)),
    }


# -- scale ----------------------------------------------------------------------------------------

FAILING = 10  # of 1,000 conversations, for each of these kinds of failure
MODES = (  # the name and the kind of the rating that knows of it, and its comment
    ("thumbs", "human", "Wrong price: delivery costs abroad are missing, although she asked about Norway."),
    ("thumbs", "human", "Rude tone towards an elderly widow whose husband had bought everything."),
    ("thumbs", "human", "Ignores that his bicycle arrived broken; wants photographs sent twice instead."),
    ("grade", "llm", "Far too long: six paragraphs repeat warranty law nobody wished explained."),
    ("grade", "llm", "Promises compensation which policy forbids; managers alone approve vouchers."),
    ("grade", "llm", "Switches language midway into Dutch, then apologises using French idioms."),
    ("passed", "code", "Invents tracking links: hostname unknown, checksum invalid, carrier nonexistent."),
    ("passed", "code", "Missing JSON fields: postcode, quantity, currency; schema validation stopped."),
)
PLACES = {"in process": 0, "1 worker": 1, "2 workers": 2}
LONG, SHORT = 160, 60  # words of an answer and of a message; together about 5 KB a conversation


def write_large(path: Path, records: int) -> int:
    """Write so many rated chats of about 5 KB, 8 % of which fail, and return the bytes."""
    rng = rng_for(0, "ingest", "scale")
    asked, answered = ([make_text(rng, words) for _ in range(400)] for words in (SHORT, LONG))
    system = make_system()
    with path.open("wb") as file:
        for number in range(records):
            picks = rng.integers(0, 400, 6)
            messages = [{"role": "system", "content": system}]
            for turn in range(3):
                text = f"user{number}@example.com: order {number}: {asked[picks[turn]]}"
                messages.append({"role": "user", "content": text})
                messages.append({"role": "assistant", "content": answered[picks[turn + 3]]})
            value = {"id": f"call-{number}", "session_id": f"session-{number}", "messages": messages}
            file.write(orjson.dumps(value | {"feedback": [rate_chat(int(rng.integers(1000)))]}) + b"\n")
    return path.stat().st_size


def make_system() -> str:
    """The system prompt of all conversations of the large file."""
    return SYSTEM + make_text(rng_for(0, "ingest", "system"), 200)


def rate_chat(draw: int) -> dict[str, Any]:
    """The rating of a conversation, by a number below 1,000."""
    number = draw // FAILING
    name, kind, comment = MODES[number % len(MODES)]
    if number >= len(MODES):
        return {"name": name, "kind": kind, "value": True}
    return {"name": name, "kind": kind, "value": 0.0 if name == "grade" else False, "comment": comment}


def run_stage(stage: str, path: str, workers: int) -> None:
    """Do one thing with the file in this process, with so many workers, and print what it took."""
    executor = make_readers(workers) if workers else None
    start = time.monotonic()
    found = STAGES[stage](Path(path), executor)
    seconds = round(time.monotonic() - start, 1)
    workers_used = list_children()
    took = {
        "seconds": seconds,
        "driver_cpu_s": read_processor_seconds(os.getpid()),
        "worker_cpu_s": [read_processor_seconds(pid) for pid in workers_used],
        "driver_mb": read_peak(os.getpid()),
        "worker_mb": [read_peak(pid) for pid in workers_used],
    }
    print(json.dumps({**took, **found}))
    if executor is not None:
        executor.close()


def inspect_large(path: Path, executor: Executor | None) -> dict[str, Any]:
    _, found = count_records([path], {}, executor)
    return {"records": found.records, "digest": digest(repr(found).encode())}


def refine_large(path: Path, executor: Executor | None) -> dict[str, Any]:
    """Read the conversations as `remask refine` does, and group the failures among them."""
    found = read_traces(make_system(), [path], executor=executor)
    modes = group_failures(found.traces).mode_of
    return {
        "drawn": len(found.traces),
        "failing": sum(trace.failing for trace in found.traces),
        "kinds": sorted(Counter(modes.values()).values(), reverse=True)[: len(MODES)],
        "notes": list(found.notes),
        "digest": digest(repr((found, sorted(modes.items()))).encode()),
    }


def watch_large(path: Path, executor: Executor | None) -> dict[str, Any]:
    """The first night of `remask watch`, which has no workers for its reading."""
    folder = path.parent
    (folder / "prompt.md").write_text(make_system())
    settings = f'prompt = "prompt.md"\n[watch]\ntraces = "{path}"\nstate = "{path.stem}.db"\n'
    (folder / "remask.toml").write_text(settings)
    night = watch(folder / "remask.toml", progress=False)
    return {"new": night.new, "drifted": night.drifted}


SCALE_COLUMNS = (
    "reading", "wall seconds", "processor seconds of the driver", "of the workers", "peak MB of the driver",
    "of the workers",
)  # fmt: skip
STAGES: dict[str, Callable[[Path, Executor | None], dict[str, Any]]] = {
    "inspect": inspect_large, "refine": refine_large, "watch": watch_large,
}  # fmt: skip


def digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=12).hexdigest()


def read_peak(pid: int) -> int:
    """Peak memory of a process in MB. On Linux getrusage of a child begins with that of its parent."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) // 1024


def read_processor_seconds(pid: int) -> float:
    """Processor time of a process since its start, imports included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return round(sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK"), 1)


def list_children() -> list[int]:
    """The processes that this process has started, whichever of its threads did."""
    tasks = Path("/proc/self/task").glob("*/children")
    return sorted(int(pid) for task in tasks for pid in task.read_text().split())


def measure_scale(folder: Path, records: int, watches: bool) -> dict[str, Any]:
    """Run each stage with each number of workers, one after another, each in a process of its own."""
    path = folder / "large.jsonl"
    size = write_large(path, records)
    print(f"made {records} conversations, {size / 1e9:.1f} GB", flush=True)
    found: dict[str, dict[str, Any]] = {}
    for stage in STAGES:
        for place, workers in PLACES.items():
            if stage == "watch" and (workers or not watches):
                continue
            words = f"from benchmarks.ingest import run_stage; run_stage({stage!r}, {str(path)!r}, {workers})"
            done = subprocess.run(
                [sys.executable, "-c", words], stdout=subprocess.PIPE, text=True, check=True
            )
            found.setdefault(stage, {})[place] = json.loads(done.stdout.splitlines()[-1])
            print(stage, place, done.stdout.splitlines()[-1], flush=True)
    equal = {
        stage: len({one["digest"] for one in places.values()}) == 1
        for stage, places in found.items()
        if stage != "watch"
    }
    return {"records": records, "bytes": size, "equal": equal, "stages": found}


def write_page() -> None:
    """Write the block of the page and its picture from the committed results."""
    results = read_json(SCALE)
    rows = []
    for stage, places in results["stages"].items():
        for place, one in places.items():
            each = [" + ".join(map(str, one[key])) or "–" for key in ("worker_cpu_s", "worker_mb")]
            driver = one["driver_cpu_s"], one["driver_mb"]
            rows.append(
                (f"{stage}, {place}", f"{one['seconds']:,.0f}", driver[0], each[0], driver[1], each[1])
            )
    same = "the same" if all(results["equal"].values()) else "NOT the same"
    refined = results["stages"]["refine"]["in process"]
    lines = [
        format_table(SCALE_COLUMNS, rows),
        "",
        f"{results['records']:,} conversations, {results['bytes'] / 1e9:.1f} GB of JSON Lines, 8 % of them "
        "failing. "
        f"Overview, drawn conversations and kinds of failure are {same} with any number of workers "
        f"({len(refined['kinds'])} kinds are planted; the largest that were found have "
        f"{', '.join(map(str, refined['kinds']))} of the "
        f"{refined['failing']:,} failures that were drawn). The machine had other work, so wall seconds say "
        "little; processor seconds include the start of each process.",
        "",
        link_picture("Seconds by workers", PICTURE, PAGE),
        "",
        f"Made by `{results['command']}` at commit {results['commit']} on {results['machine']}.",
    ]
    write_blocks(PAGE, {"scale": "\n".join(lines)})
    write_svg(draw_scale(results), PICTURE)


def draw_scale(results: dict[str, Any]) -> "Figure":
    """Wall time against the cores that parse; a dashed line where twice the cores took half the time."""
    from matplotlib.figure import Figure  # only pictures need it

    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    for stage in ("inspect", "refine"):
        seconds = [results["stages"][stage][place]["seconds"] for place in ("1 worker", "2 workers")]
        (line,) = axes.plot([1, 2], seconds, "o-", label=stage)
        axes.plot([1, 2], [seconds[0], seconds[0] / 2], "--", color=line.get_color(), alpha=0.5)
    axes.set_xticks([1, 2])
    axes.set_xlabel("cores that parse (dashed: half the time with two)")
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__file__, __doc__)
    option = parser.add_argument
    option("--records", type=int, help="Chats of the file. Default: 5000, of --scale 1000000.")
    option("--repeats", type=int, default=20, help="How often the file is read. Default: 20.")
    option(
        "--memory", type=int, nargs="+", metavar="MEGABYTES",
        help="Measure memory on files of these sizes instead of speed.",
    )  # fmt: skip
    option("--scale", action="store_true", help="Measure a large file with workers instead of speed.")
    option("--no-watch", action="store_true", help="Leave out the night of --scale, which takes longest.")
    add_page_option(parser)
    option("--out", type=Path, help="The results file. Default: as above.")
    args = parser.parse_args(words)
    if args.page:
        write_page()
        return
    about = describe_run(__file__, words, *([args.out] if args.out else []))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.memory:
            found = {"files": [measure_memory(folder, size) for size in args.memory]}
        elif args.scale:
            found = measure_scale(folder, args.records or 1_000_000, not args.no_watch)
        else:
            found = measure_speed(folder, args.records or 5_000, args.repeats)
    result = {**found, **about}
    name = RESULTS / ("memory.json" if args.memory else "ingest.json")
    write_json(args.out or (SCALE if args.scale else name), result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
