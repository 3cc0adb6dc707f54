"""Large files are read in little memory: many records, and one line of a hundred megabytes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes import ENV

# Of the process, Python and imports included; torch is not imported.
MAX_BYTES = 300 << 20
READ = """
import sys
from remask.cli import main
try:
    main(["traces", "inspect", *sys.argv[1:]])
finally:
    with open("/proc/self/status") as file:  # ru_maxrss would count the process that started this one
        print("peak", 1024 * next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")))
"""


def inspect(path: Path) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], env=ENV, capture_output=True, text=True, timeout=900
    )
    return done.stdout + done.stderr, int(done.stdout.rpartition("peak")[2])


def chat(number: int) -> bytes:
    messages = [("user", f"Where is order {number}?"), ("assistant", f"Order {number} comes tomorrow.")]
    value = {"id": number, "messages": [{"role": role, "content": text} for role, text in messages]}
    return json.dumps(value).encode() + b"\n"


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
@pytest.mark.parametrize("records", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_many_records_are_read_in_little_memory(tmp_path: Path, records: int, record_property: Any) -> None:
    path = tmp_path / "many.jsonl"
    with path.open("wb") as file:
        file.writelines(map(chat, range(records)))
    said, peak = inspect(path)
    assert f"{records:,}" in said or str(records) in said, said
    assert peak < MAX_BYTES
    record_property("runs", records)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux counts it")
def test_a_line_of_a_hundred_megabytes_is_left_out_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        file.write(chat(1))
        file.write(b'{"messages": [{"role": "user", "content": "')
        for _ in range(100):
            file.write(b"word " * ((1 << 20) // 5))
        file.write(b'"}]}\n')
        file.write(chat(2))
    said, peak = inspect(path)
    assert "line 2" in said or ":2" in said, said
    assert peak < 2 * MAX_BYTES
