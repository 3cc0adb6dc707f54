"""Hash seeds and the number of calls in flight change no byte of the results (row R10)."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from fakes.http_run import ENVIRONMENT, REMASK, World, write_job
from fakes.server import Server

pytestmark = pytest.mark.slow  # CI runs the samples (.ci/slow)

FEW = [("0", 1), ("1", 8)]
MANY = [(seed, concurrency) for seed in ("0", "1", "7") for concurrency in (1, 8, 64)]


@pytest.mark.parametrize(
    "cases", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)]
)
def test_results_are_the_same_bytes(
    tmp_path: Path, cases: list[tuple[str, int]], record_property: Any
) -> None:
    found = set()
    for number, (seed, concurrency) in enumerate(cases):
        folder = tmp_path / str(number)
        with Server(default=World()) as server:
            # Outside of the address nothing differs, and the address is not in the results.
            write_job(folder, server, calls=400, concurrency=concurrency)
            environment = {**ENVIRONMENT, "PYTHONHASHSEED": seed}
            words = [*REMASK, "optimize", "--json"]
            done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            export = [*REMASK, "export", "run", "-o", "best.json"]
            subprocess.run(export, cwd=folder, env=environment, check=True, capture_output=True)
        result = (folder / "run" / "result.json").read_text()
        lines = [line for line in result.splitlines() if '"seconds"' not in line and '"run_dir"' not in line]
        found.add(("\n".join(lines), (folder / "best.json").read_bytes()))
    assert len(found) == 1
    record_property("runs", len(cases))
