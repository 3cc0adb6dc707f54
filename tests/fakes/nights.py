"""Nights of a service whose conversations are read by `remask watch`.

Known answer: of the sentences that Listener writes, "Think of colours." is the one that failing
conversations (with the comment "Colours!") speak for. 60 conversations a night; on quiet nights one
in ten fails, on bad nights seven in ten.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import remask
from fakes.conversations import START, Listener, line
from remask import Night

FIRST = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
EACH = 60  # conversations of a night
SETTINGS = """\
prompt = "prompt.md"
{more}
[search]
maskers = ["insert"]
[refine]
traces = ["log-*.jsonl"]
iterations = 2
[watch]
window = 50
"""


def tell(i: int, fails: bool, **more: Any) -> dict[str, Any]:
    """A conversation with its feedback."""
    said = {"name": "u", "value": not fails, "comment": "Colours!" if fails else "", "kind": "human"}
    answer = "red" if i % 2 else "blue"
    more = {"user": f"item {i % EACH}", **more}  # the same messages each night
    return line(i, answer="grey" if fails else answer, expected=answer, feedback=[said], **more)


def tell_night(night: int, bad: bool) -> list[dict[str, Any]]:
    return [tell(night * EACH + i, i % 10 < (7 if bad else 1)) for i in range(EACH)]


def write_night(folder: Path, night: int, bad: bool = False) -> Path:
    path = folder / f"log-{night}.jsonl"
    return write_rows(path, tell_night(night, bad))


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settle(folder: Path, more: str = "", settings: str = SETTINGS) -> Path:
    """Write prompt.md and remask.toml; `more` stands at the top level."""
    (folder / "prompt.md").write_text(START + "\n")
    config = folder / "remask.toml"
    config.write_text(settings.replace("{more}", more))
    return config


def watch_night(config: Path, night: int = 0, **more: Any) -> Night:
    """One call, on the day of that number."""
    more = {"denoiser": Listener(), **more}
    return remask.watch(config, now=FIRST + timedelta(days=night), **more)
