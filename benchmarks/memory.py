"""How much memory reading traces takes, and that it does not grow with the file.

    python benchmarks/memory.py [--megabytes 100 400] [--out FILE]

Makes a file of plain chats of each size (benchmarks/ingest.py makes the same) with a different
user and session in each record, and runs on it, each in a process of its own: `remask traces
inspect`, `remask traces redact`, and what `remask refine` gathers. The figure is the largest
resident size of that process, Python and imports included. Target: a JSONL of 2 GB in at most
300 MB.
Writes benchmarks/results/memory.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from remask.ids import rng_for

RESULTS = Path(__file__).parent / "results" / "memory.json"
GATHER = (
    "import sys; from remask.data.prompt_traces import gather; gather('Be kind.', sys.argv[1:])"
)
MAIN = "from remask.cli import main; main()"


def write_chats(path: Path, megabytes: int) -> int:
    """Records of about 3 kB each, no two alike; how many."""
    rng = rng_for(0, "memory")
    words = [f"word{i}" for i in range(5000)]
    size = records = 0
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes << 20:
            texts = [" ".join(words[i] for i in rng.integers(0, 5000, 90)) for _ in range(4)]
            record = {
                "id": f"call-{records}",
                "session_id": f"session-{records}",
                "messages": [
                    {"role": "system", "content": "You answer customers. Be kind."},
                    {"role": "user", "content": f"user{records}@example.com: {texts[0]}"},
                    {"role": "assistant", "content": texts[1]},
                    {"role": "user", "content": texts[2]},
                    {"role": "assistant", "content": texts[3]},
                ],
                "score": float(records % 2),
            }
            size += file.write(json.dumps(record) + "\n")
            records += 1
    return records


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


def measure(megabytes: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path, clean = Path(folder) / "chats.jsonl", Path(folder) / "clean.jsonl"
        records = write_chats(path, megabytes)
        return {
            "megabytes": megabytes,
            "records": records,
            "inspect": measured(MAIN, "traces", "inspect", str(path), "--json"),
            "redact": measured(MAIN, "traces", "redact", str(path), "-o", str(clean)),
            "refine_gathers": measured(GATHER, str(path)),
        }


def main() -> None:
    arg = argparse.ArgumentParser(description=__doc__)
    arg.add_argument("--megabytes", type=int, nargs="+", default=[100, 400])
    arg.add_argument("--out", type=Path, default=RESULTS)
    args = arg.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    result = {
        "files": [measure(size) for size in args.megabytes],
        "command": "python benchmarks/memory.py " + " ".join(sys.argv[1:]),
        "commit": commit.stdout.strip(),
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
