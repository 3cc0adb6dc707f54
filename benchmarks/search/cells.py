"""A cell is one (task, optimiser, seed); its file is the whole truth about it, written in stages.

search → withheld → test. Each stage is durable before the next begins, so a killed cell goes on at
the stage it was in, and a finished one is not played again. Test rows are asked at most once: a
mark is durable before the first of them is, and a cell with that mark is refused.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from remask.trace import Outcome

LEVELS = 60  # a score is kept as one of so many steps, exact for 0, 1, halves to sixths
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


@dataclass(frozen=True, slots=True)
class Protocol:
    """What must be equal for two cells to be compared; fixed before the grid is run."""

    calls: int = 800
    checkpoints: tuple[int, ...] = (100, 200, 400, 800)
    train: int = 50  # rows to search on
    validation: int = 150
    withheld: int = 300  # rows for curves
    test: int = 1000  # sealed rows at most; a smaller file is used whole
    dlm: str = "embedded"  # of the optimisers that denoise

    @property
    def upto(self) -> tuple[int, ...]:
        return (*(c for c in self.checkpoints if c < self.calls), self.calls)


class Sealed(Exception):
    """The test rows of this cell were asked before."""


def grid(tasks: Sequence[str], optimisers: Sequence[str], seeds: Sequence[int]) -> Iterator[Cell]:
    """All cells, seeds outermost and optimisers innermost, so that a part of the grid compares all
    optimisers on the same tasks and seeds."""
    for seed in seeds:
        for task in tasks:
            for optimiser in optimisers:
                yield Cell(seed, task, optimiser)


class CellFile:
    """The durable record of one cell under `runs`."""

    def __init__(self, runs: Path, cell: Cell, protocol: Protocol) -> None:
        self.path = runs / "cells" / f"{cell.task}.{cell.optimiser}.{cell.seed}.json"
        self.record: dict[str, Any] = {"cell": asdict(cell), "protocol": _plain(asdict(protocol))}
        if self.path.exists():
            known = json.loads(self.path.read_text("utf-8"))
            if known["protocol"] != self.record["protocol"]:
                raise SystemExit(
                    f"{self.path}: made with {known['protocol']}, but {self.record['protocol']} is "
                    "asked now; give another --runs folder"
                )
            self.record = known

    def has(self, stage: str) -> bool:
        return stage in self.record

    def put(self, **stages: Any) -> None:
        """Whole or not at all, on disk when it returns."""
        self.record.update(stages)
        write_whole(self.path, json.dumps(self.record, indent=1))

    def begin_test(self) -> None:
        """Raises Sealed where test rows were asked before, finished or not."""
        if self.has("test") or self.has("test_begun"):
            raise Sealed(f"{self.path}: its test rows were asked before; they never are again")
        self.put(test_begun=True)


def write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.part")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def pack(outcomes: Sequence[Outcome]) -> str:
    """One symbol a row: its score in steps of 1/60, "-" for a row that failed."""
    return "".join(
        SYMBOLS[round(o.score * LEVELS)] if o.status == "scored" else FAILED for o in outcomes
    )


def unpack(text: str) -> list[float | None]:
    return [None if c == FAILED else SYMBOLS.index(c) / LEVELS for c in text]


def mean(text: str) -> float:
    scored = [score for score in unpack(text) if score is not None]
    return sum(scored) / len(scored)


def hidden(command: str, *folders: Path) -> str:
    """The command without the folders of this machine."""
    for folder in folders:
        command = re.sub(re.escape(str(folder)) + r"(?=\s|$)", "FOLDER", command)
    return command


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
