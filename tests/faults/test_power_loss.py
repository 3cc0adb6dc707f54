"""The power is cut at random moments of a run: it can be read and resumed."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from fakes.disk import Disk
from fakes.http_run import read_result
from fakes.power_loss import cut_power, read_recording
from remask.errors import ConfigError
from remask.runs.report.read_run import view_run

SEED = 20261130


@pytest.mark.parametrize(("states", "resumed"), [(40, 4), pytest.param(500, 60, marks=pytest.mark.slow)])
def test_a_run_can_be_read_and_resumed_after_a_power_loss(
    tmp_path: Path, disk: Disk, states: int, resumed: int, record_property: Any
) -> None:
    """Of what was not made safe by fsync, a random part is missing (fakes/power_loss.py)."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    assert disk.play(whole, record=tmp_path / "recording")["code"] == 0
    changes = read_recording(tmp_path / "recording")
    assert {change.kind for change in changes} >= {"c", "w", "s", "r"}
    readable = 0
    for number in range(states):
        rng = random.Random(SEED + number)
        files = cut_power(changes[: rng.randint(1, len(changes))], rng)
        for path, content in files.items():
            place = cut / Path(path).relative_to(whole)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        if (cut / "run" / "run.db").exists():
            require_readable(cut / "run")
            readable += 1
        if number < resumed:
            cut.mkdir(exist_ok=True)
            again = disk.play(cut)
            assert again["code"] == 0, (number, again["stderr"])
            assert outcome(cut) == outcome(whole), number
        shutil.rmtree(cut, ignore_errors=True)
    record_property("row", "R4")
    record_property("runs", states)
    assert readable > states / 2


def require_readable(run: Path) -> None:
    """The run can be shown; a result of other events is found, and said with what to do."""
    try:
        view_run(run)
    except ConfigError as error:
        assert "remask resume" in str(error), error


def outcome(folder: Path) -> tuple[Any, ...]:
    result = read_result(folder)
    return tuple(result[key] for key in ("verdict", "prompt", "baseline", "best", "test", "edits"))
