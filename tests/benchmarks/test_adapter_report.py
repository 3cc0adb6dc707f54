"""benchmarks/denoiser/adapter_report.py: searches with this adapter against others."""

import json
from pathlib import Path
from typing import Any

from benchmarks.denoiser.adapter_report import compare_searches, tabulate_searches
from benchmarks.search.cells import SYMBOLS

RIGHT, WRONG = SYMBOLS[-1], SYMBOLS[0]


def cell(task: str, optimiser: str, seed: int, right: int) -> dict[str, Any]:
    scores = RIGHT * right + WRONG * (10 - right)
    return {"task": task, "optimiser": optimiser, "seed": seed, "calls": 800,
            "withheld_rows": scores}  # fmt: skip


def test_searches_are_compared_where_all_have_played(tmp_path: Path) -> None:
    right = {"nothing": 3, "random_edits": 4, "remask": 6}
    grid = [cell(t, name, s, n) for t in ("sst2", "letters") for s in (0, 1)
            for name, n in right.items()]  # fmt: skip
    first = [cell("sst2", "remask", 0, 5), cell("sst2", "random_edits", 0, 9)]
    for name, rows in (("grid", grid), ("first", first)):
        (tmp_path / name).write_text(json.dumps({"commit": name, "rows": rows}))
    found = compare_searches(tmp_path / "first", tmp_path / "grid")
    assert found["seeds"] == {"sst2": [0]}
    assert found["scores"] == {
        "nothing": {"sst2": 30.0},
        "random_edits": {"sst2": 40.0},
        "first": {"sst2": 50.0},
        "remask": {"sst2": 60.0},
    }
    gap, low, high = found["differences"]["first"]
    assert gap == 10.0 and low <= gap <= high
    table = tabulate_searches({"searches": found})
    assert "| first adapter | 50.0 | 50.0 |" in table and "first adapter +10.0 points" in table
