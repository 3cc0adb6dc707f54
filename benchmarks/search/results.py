"""From the files of the cells to one results file: a row per task, optimiser, seed and calls."""

import json
from pathlib import Path
from typing import Any

from benchmarks.search.cells import mean, write_whole


def gather(runs: Path, out: Path, about: dict[str, str]) -> None:
    """Write `out` from all cells that have their curve; `commit` names all that searched."""
    rows = [row for path in sorted((runs / "cells").glob("*.json")) for row in _rows(path)]
    commits = ", ".join(sorted({row["commit"] for row in rows if "commit" in row}))
    write_whole(out, json.dumps({**about, "commit": commits, "rows": rows}, indent=1))


def _rows(path: Path) -> list[dict[str, Any]]:
    record = json.loads(path.read_text("utf-8"))
    if "withheld" not in record:
        return []
    cell, search, rows = record["cell"], record["search"], []
    last = max(map(int, record["withheld"]))
    for calls, scores in sorted(record["withheld"].items(), key=lambda item: int(item[0])):
        row = {
            **{key: cell[key] for key in ("task", "optimiser", "seed")},
            "calls": int(calls),
            "withheld": round(mean(scores), 4),
            "prompt": search["prompts"][calls],
            "withheld_rows": scores,
        }
        if int(calls) == last:
            row |= {"spent": search["calls"]}
            row |= {key: search[key] for key in ("seconds", "cpu_seconds", "stopped", "commit")}
            if "test" in record:
                row |= {
                    "test": round(mean(record["test"]), 4),
                    "n_test": len(record["test"]),
                    "seed_test": round(mean(record["seed_test"]), 4),
                    "test_rows": record["test"],
                    "seed_test_rows": record["seed_test"],
                }
        rows.append(row)
    return rows
