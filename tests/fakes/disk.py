"""A disk that fails, or whose changes are recorded: runs are played in children of failing_disk.py."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from fakes import ROOT
from fakes.http_run import ENVIRONMENT


class Disk:
    """Plays runs in children of one process, on a disk that fails."""

    def __init__(self, library: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "fakes" / "failing_disk.py")],
            env={**ENVIRONMENT, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def play(
        self,
        folder: Path,
        *words: str,
        at: int = 0,
        code: int = 0,
        for_ever: bool = False,
        record: Path | None = None,
    ) -> dict[str, Any]:
        """Run the command, or the small run from Python, with the `at`-th change of the disk failing."""
        order = {
            "folder": str(folder), "words": words, "root": f"{folder}/run", "at": at, "errno": code,
            "for_ever": for_ever, "record": str(record or ""),
        }  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(order)}\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate()
