"""What tests share: small worlds with a known answer, a loopback server, tiny checkpoints."""

import json
import os
from pathlib import Path

ROOT = Path(__file__).parents[2]  # the checkout
# Of a process that imports remask and these fakes.
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT / "tests")))}


class Cut(Exception):
    """What ends a run in the middle, as Ctrl-C does."""


def write_lines(path: Path, *rows: object) -> Path:
    """Write JSON Lines; the path."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path
