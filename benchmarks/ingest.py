"""How fast traces are read: plain chats against a bare loop of orjson, and with redaction.

    python benchmarks/ingest.py [--records 5000] [--repeats 20]

Makes a file of chats (a system prompt of about 200 words, three exchanges) and reads it in turn
with `orjson.loads` for each line and with `remask.data.trace_reader`, in the same process; best of
`--repeats` counts, in processor time. Targets: at most 3 times the bare loop; with redaction at
least 4,000 records a second on one core. Writes benchmarks/results/ingest.json.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import orjson

from remask.data.redact.redact import Pseudonyms, redact
from remask.data.trace_reader import read
from remask.data.trace_record import Record
from remask.ids import rng_for

RESULTS = Path(__file__).parent / "results" / "ingest.json"
TEXT = (
    "please order the refund customer package arrived late would like to know when my new account "
    "was charged twice for a “blue” shirt and nobody answered my message yet\n thank you very "
    "much we are sorry about that, of course it can be returned within thirty days; the label is "
    "printed in the parcel.\n\n Is there anything else? No. Then I'd say: wait until Friday"
)
WORDS = TEXT.split(" ")


def text(rng: object, n: int) -> str:
    """About `n` words."""
    return " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), n))  # type: ignore[attr-defined]


def write_chats(path: Path, records: int) -> None:
    rng = rng_for(0, "ingest")
    system = "You answer the customers of a shop.\n" + text(rng, 200)
    with path.open("w", encoding="utf-8") as file:
        for i in range(records):
            messages = [{"role": "system", "content": system}]
            for _ in range(3):
                messages.append({"role": "user", "content": f"Order {i}: {text(rng, 40)}"})
                messages.append({"role": "assistant", "content": text(rng, 80)})
            # As most clients write: with spaces, and characters as they are.
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


def bare(path: Path) -> int:
    count = 0
    with path.open("rb") as file:
        for line in file:
            orjson.loads(line)
            count += 1
    return count


def parsed(path: Path) -> int:
    return sum(isinstance(item, Record) for item in read([path]))


def redacted(path: Path) -> int:
    names = Pseudonyms()
    hide = lru_cache(64)(lambda text: redact(text, names))  # as `remask traces redact` does
    count = 0
    for item in read([path]):
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chats.jsonl"
        write_chats(path, args.records)
        found = rates(path, args.repeats, args.records)
        size = path.stat().st_size
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    result = {
        "records": args.records,
        "bytes_per_record": size // args.records,
        "records_per_second": {name: round(rate) for name, rate in found.items()},
        "times_the_bare_loop": round(found["bare"] / found["parsed"], 2),
        "machine": f"{platform.system()} {platform.machine()}, {cpu()}, processor time",
        "python": platform.python_version(),
        "orjson": orjson.__version__,
        "command": " ".join(["python", *sys.argv]),
        "commit": commit.stdout.strip(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def cpu() -> str:
    """What the processor calls itself, where Linux says so."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
