"""A cell is one (task, optimiser, seed). One file holds everything about it, written in stages.

The stages are search, withheld and test. Each is on disk before the next begins, so a killed cell
continues at the stage it was in, and a finished one is not run again. Test rows are asked at most
once: a mark is on disk before the first of them is asked, and a cell with that mark is refused.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.optimisers import load_optimiser
from benchmarks.record import read_json, write_json
from benchmarks.search.lab import (
    BUILTIN,
    Lab,
    Optimiser,
    Protocol,
    load_search_rows,
    load_target,
    load_test_rows,
    load_withheld_rows,
    make_task,
    open_lab,
)
from benchmarks.tasks import BenchTask, load_task
from remask.errors import BudgetSpent
from remask.ids import content_id
from remask.ports import TargetModel
from remask.prompt import Prompt
from remask.types import Example, Outcome, mean_score

LEVELS = 60  # a score is stored as a multiple of 1/60, which is exact for halves to sixths
SYMBOLS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[: LEVELS + 1]
FAILED = "-"


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    seed: int
    task: str
    optimiser: str

    @property
    def name(self) -> str:
        return f"{self.task}/{self.optimiser}/{self.seed}"


class Sealed(Exception):
    """The test rows of this cell were asked before."""


def list_cells(tasks: Sequence[str], optimisers: Sequence[str], seeds: Sequence[int]) -> Iterator[Cell]:
    """Yield all cells, seeds outermost and optimisers innermost, so that a part of the grid
    compares all optimisers on the same tasks and seeds."""
    for seed in seeds:
        for task in tasks:
            for optimiser in optimisers:
                yield Cell(seed, task, optimiser)


class CellFile:
    """The durable record of one cell under `runs`."""

    def __init__(self, runs: Path, cell: Cell, protocol: Protocol) -> None:
        self.path = runs / "cells" / f"{cell.task}.{cell.optimiser}.{cell.seed}.json"
        plain = json.loads(json.dumps(asdict(protocol)))  # as it comes back from the file
        self.record: dict[str, Any] = {"cell": asdict(cell), "protocol": plain}
        if self.path.exists():
            known = read_json(self.path)
            known["protocol"].setdefault("target", BUILTIN)  # older files had no other one
            if known["protocol"] != self.record["protocol"]:
                raise SystemExit(
                    f"{self.path}: made with {known['protocol']}, but now the protocol is "
                    f"{self.record['protocol']}; give another --runs folder"
                )
            self.record = known

    def has(self, stage: str) -> bool:
        return stage in self.record

    def put(self, **stages: Any) -> None:
        """Store stages, all or none; they are on disk when this returns."""
        self.record.update(stages)
        write_json(self.path, self.record)

    def check_target(self, target: TargetModel) -> None:
        """Raises SystemExit where the search of this cell asked another model."""
        known = self.record["search"].get("target", target.identity)  # older files do not name it
        if known != target.identity:
            raise SystemExit(
                f"{self.path}: its search asked {known}, but now the target is {target.identity}"
            )

    def begin_test(self) -> None:
        """Raises Sealed where test rows were asked before, finished or not."""
        if self.has("test") or self.has("test_begun"):
            raise Sealed(f"{self.path}: its test rows were asked before and may not be asked again")
        self.put(test_begun=True)


def pack(outcomes: Sequence[Outcome]) -> str:
    """One symbol a row: its score as a multiple of 1/60, "-" for a row that failed."""
    return "".join(SYMBOLS[round(o.score * LEVELS)] if o.status == "scored" else FAILED for o in outcomes)


def unpack(text: str) -> list[float | None]:
    return [None if c == FAILED else SYMBOLS.index(c) / LEVELS for c in text]


def average(text: str) -> float:
    """The mean of packed scores, without the rows that failed."""
    scores = [score for score in unpack(text) if score is not None]
    return sum(scores) / len(scores)


def run_cell(
    cell: Cell,
    protocol: Protocol,
    data: Path,
    runs: Path,
    commit: str,
    test: bool,
    make_target: Callable[[BenchTask], TargetModel] = load_target,
    load: Callable[[str], Optimiser] = load_optimiser,
) -> dict[str, float]:
    """Finish a cell from whatever stage it has; returns the seconds of each stage.

    Without `test` the sealed rows are not read from disk. Raises SystemExit where the search had
    another target of the same name.
    """
    bench, file, seconds = load_task(cell.task), CellFile(runs, cell, protocol), {}
    if file.has("withheld") and (file.has("test_begun") or not test):
        return {}
    target, since = make_target(bench), time.perf_counter()
    if file.has("search"):
        file.check_target(target)
    else:
        rows = load_search_rows(bench, data, cell.seed, protocol)
        lab = open_lab(bench, rows, target, protocol.calls, cell.seed, protocol.denoiser)
        found = run_search(lab, load(cell.optimiser), protocol)
        file.put(search={**found, "commit": commit, "target": target.identity})
        seconds["search"] = time.perf_counter() - since
    prompts = file.record["search"]["prompts"]
    if not file.has("withheld"):
        since, rows = time.perf_counter(), load_withheld_rows(bench, data, protocol)
        file.put(withheld={c: score_rows(bench, rows, target, p, runs) for c, p in prompts.items()})
        seconds["withheld"] = time.perf_counter() - since
    if test:
        since = time.perf_counter()
        file.begin_test()
        rows, last = load_test_rows(bench, data, protocol), prompts[str(protocol.calls)]
        file.put(
            test=score_rows(bench, rows, target, last, runs),
            seed_test=score_rows(bench, rows, target, bench.seed_prompt, runs),
        )
        seconds["test"] = time.perf_counter() - since
    return seconds


def run_search(lab: Lab, optimise: Optimiser, protocol: Protocol) -> dict[str, Any]:
    """Run the search under its cap: the prompts at its checkpoints, its calls and its time."""
    since, cpu, stopped = time.perf_counter(), time.process_time(), "done"
    try:
        optimise(lab)
    except BudgetSpent:
        stopped = "budget"
    return {
        "prompts": {str(calls): lab.find_incumbent(calls) for calls in protocol.upto},
        "incumbents": lab.incumbents,
        "calls": lab.counted.spent,
        "seconds": round(time.perf_counter() - since, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "stopped": stopped,
    }


def score_rows(
    bench: BenchTask, rows: tuple[Example, ...], target: TargetModel, prompt: str, runs: Path
) -> str:
    """Packed scores of a prompt on rows that no search sees. Raises TargetUnreliable.

    Equal questions are asked once for all optimisers, because the target is deterministic.
    """
    key = content_id("scores", target.identity, bench.name, bench.answer, prompt, [e.id for e in rows])
    path = runs / "scores" / f"{key}.json"
    if not path.exists():
        outcomes = make_task(bench, rows, target).evaluate(Prompt(prompt), [e.id for e in rows])
        mean_score(outcomes)
        write_json(path, pack(outcomes))
    text: str = read_json(path)
    return text


def gather_rows(runs: Path, out: Path, about: dict[str, Any]) -> None:
    """Write `out` from all cells that have their curve: a row per task, optimiser, seed and calls.

    Rows that `out` has of other cells stay, so that another machine may continue a grid from the
    committed results. `commit` names the commits of all their searches.
    """
    here = [row for path in sorted((runs / "cells").glob("*.json")) for row in _rows(path)]
    measured = {_cell_of(row) for row in here}
    before = read_json(out)["rows"] if out.exists() else []
    rows = [row for row in before if _cell_of(row) not in measured] + here
    commits = ", ".join(sorted({row["commit"] for row in rows if "commit" in row}))
    write_json(out, {**about, "commit": commits, "rows": sorted(rows, key=_sort_key)})


def find_finished(out: Path, protocol: Protocol, test: bool) -> set[Cell]:
    """The cells that the results file has, with their test unless it is not asked for.

    Raises SystemExit where the file was made with another protocol.
    """
    if not out.exists():
        return set()
    known = read_json(out)
    plain = json.loads(json.dumps(asdict(protocol)))
    if known.get("protocol", plain) != plain:
        raise SystemExit(f"{out}: made with {known['protocol']}, not {plain}; give another --out")
    return {_cell_of(row) for row in known["rows"] if ("test" if test else "spent") in row}


def _cell_of(row: dict[str, Any]) -> Cell:
    return Cell(row["seed"], row["task"], row["optimiser"])


def _sort_key(row: dict[str, Any]) -> tuple[str, str, int, int]:
    return row["task"], row["optimiser"], row["seed"], row["calls"]


def _rows(path: Path) -> list[dict[str, Any]]:
    record = read_json(path)
    if "withheld" not in record:
        return []
    cell, search, rows = record["cell"], record["search"], []
    last = max(map(int, record["withheld"]))
    for calls, scores in sorted(record["withheld"].items(), key=lambda item: int(item[0])):
        row = {
            **{key: cell[key] for key in ("task", "optimiser", "seed")},
            "calls": int(calls),
            "withheld": round(average(scores), 4),
            "prompt": search["prompts"][calls],
            "withheld_rows": scores,
        }
        if int(calls) == last:
            row |= {"spent": search["calls"]}
            row |= {key: search[key] for key in ("seconds", "cpu_seconds", "stopped", "commit")}
            if "test" in record:
                row |= {
                    "test": round(average(record["test"]), 4),
                    "n_test": len(record["test"]),
                    "seed_test": round(average(record["seed_test"]), 4),
                    "test_rows": record["test"],
                    "seed_test_rows": record["seed_test"],
                }
        rows.append(row)
    return rows
