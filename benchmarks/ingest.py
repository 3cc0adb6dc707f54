"""Measure how fast traces are read, and how much memory that takes.

    python -m benchmarks.ingest [--records 5000] [--repeats 20]
    python -m benchmarks.ingest --memory 50 300

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
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.record import RESULTS, describe_run, make_parser, write_json
from remask.data.redact.redact import Placeholders, redact_text
from remask.data.trace_reader import read_records
from remask.data.trace_record import Record
from remask.ids import rng_for

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


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__file__, __doc__)
    option = parser.add_argument
    option("--records", type=int, default=5_000, help="Chats of the file. Default: 5000.")
    option("--repeats", type=int, default=20, help="How often the file is read. Default: 20.")
    option(
        "--memory", type=int, nargs="+", metavar="MEGABYTES",
        help="Measure memory on files of these sizes instead of speed.",
    )  # fmt: skip
    option("--out", type=Path, help="The results file. Default: as above.")
    args = parser.parse_args(words)
    about = describe_run(__file__, words, *([args.out] if args.out else []))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.memory:
            found = {"files": [measure_memory(folder, size) for size in args.memory]}
        else:
            found = measure_speed(folder, args.records, args.repeats)
    result = {**found, **about}
    write_json(args.out or RESULTS / ("memory.json" if args.memory else "ingest.json"), result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
