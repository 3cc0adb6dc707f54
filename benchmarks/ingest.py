"""How fast traces are read, and how much memory that takes.

    python benchmarks/ingest.py [--records 5000] [--repeats 20]
    python benchmarks/ingest.py --memory 50 300

The first makes a file of chats (a system prompt of about 200 words, three exchanges) and reads it
in turn with `orjson.loads` for each line and with `remask.data.trace_reader`, in the same process;
the best of `--repeats` counts, in processor time. Targets: at most 3 times the bare loop;
redacting, at least 4,000 records a second on one core. Writes benchmarks/results/ingest.json.

The second makes files of so many megabytes, in which each chat has a user and a session of its own,
and runs on them, each in a process of its own: `remask traces inspect`, `remask traces redact`, and
what `remask refine` gathers. The figure is the largest resident size of that process, Python and
imports included; it must not grow with the file. Target: a JSONL of 2 GB in at most 300 MB. Writes
benchmarks/results/memory.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout

import numpy as np
import orjson

from benchmarks.record import RESULTS, made_by, write_json
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
    "import sys; from remask.data.prompt_traces import read_traces; "
    f"read_traces({SYSTEM!r}, sys.argv[1:])"
)
MAIN = "from remask.cli import main; main()"


def write_chats(
    path: Path, records: int = sys.maxsize, size: int = sys.maxsize, own: bool = False
) -> int:
    """Chats until there are so many `records` or characters; how many. `own`: each with a session
    and an e-mail address of its own."""
    rng, count, written = rng_for(0, "ingest"), 0, 0
    system = SYSTEM + text(rng, 200)
    with path.open("w", encoding="utf-8") as file:
        while count < records and written < size:
            messages = [{"role": "system", "content": system}]
            who = f"user{count}@example.com: " if own else ""
            for _ in range(3):
                asked = f"{who}Order {count}: {text(rng, 40)}"
                messages.append({"role": "user", "content": asked})
                messages.append({"role": "assistant", "content": text(rng, 80)})
            more: dict[str, Any] = {}
            if own:
                more = {"id": f"call-{count}", "session_id": f"session-{count}"}
                more["score"] = float(count % 2)
            # As most clients write: with spaces, and characters as they are.
            written += file.write(json.dumps({"messages": messages} | more, ensure_ascii=False))
            written += file.write("\n")
            count += 1
    return count


def text(rng: np.random.Generator, n: int) -> str:
    """About `n` words."""
    return " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), n))


# -- speed ----------------------------------------------------------------------------------------


def bare(path: Path) -> int:
    count = 0
    with path.open("rb") as file:
        for line in file:
            orjson.loads(line)
            count += 1
    return count


def parsed(path: Path) -> int:
    return sum(isinstance(item, Record) for item in read_records([path]))


def redacted(path: Path) -> int:
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


def rates(path: Path, repeats: int, records: int) -> dict[str, float]:
    """Records a second of each way; the ways take turns, so that noise meets all."""
    ways: tuple[Callable[[Path], int], ...] = (bare, parsed, redacted)
    best = dict.fromkeys((way.__name__ for way in ways), float("inf"))
    for _ in range(repeats):
        for way in ways:
            start = time.process_time()
            assert way(path) == records
            best[way.__name__] = min(best[way.__name__], time.process_time() - start)
    return {name: records / seconds for name, seconds in best.items()}


def speed(folder: Path, records: int, repeats: int) -> dict[str, Any]:
    path = folder / "chats.jsonl"
    write_chats(path, records)
    found = rates(path, repeats, records)
    return {
        "records": records,
        "bytes_per_record": path.stat().st_size // records,
        "records_per_second": {name: round(rate) for name, rate in found.items()},
        "times_the_bare_loop": round(found["bare"] / found["parsed"], 2),
        "orjson": orjson.__version__,
    }


# -- memory ---------------------------------------------------------------------------------------


def measured(code: str, *arguments: str) -> dict[str, float]:
    """Peak in MB and seconds of a process."""
    start = time.monotonic()
    child = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, (code, arguments)
    return {
        "peak_mb": round(usage.ru_maxrss / 1024, 1),  # Linux: kilobytes
        "seconds": round(time.monotonic() - start, 1),
    }


def memory(folder: Path, megabytes: int) -> dict[str, Any]:
    path, clean = folder / f"{megabytes}.jsonl", folder / f"{megabytes}-clean.jsonl"
    return {
        "megabytes": megabytes,
        "records": write_chats(path, size=megabytes << 20, own=True),
        "inspect": measured(MAIN, "traces", "inspect", str(path), "--json"),
        "redact": measured(MAIN, "traces", "redact", str(path), "-o", str(clean)),
        "refine_gathers": measured(GATHER, str(path)),
    }


def main() -> None:
    arg = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arg.add_argument("--records", type=int, default=5_000)
    arg.add_argument("--repeats", type=int, default=20)
    arg.add_argument("--memory", type=int, nargs="+", metavar="MEGABYTES", help="instead of speed")
    arg.add_argument("--out", type=Path, help="default: as said above")
    args = arg.parse_args()
    about = made_by(__file__, *([args.out] if args.out else []))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.memory:
            found = {"files": [memory(folder, size) for size in args.memory]}
        else:
            found = speed(folder, args.records, args.repeats)
    result = {**found, **about}
    write_json(args.out or RESULTS / ("memory.json" if args.memory else "ingest.json"), result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
