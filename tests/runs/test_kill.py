"""A run that is killed with -9 and resumed ends like an uninterrupted one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes import ENV, ROOT
from fakes.killed_refine import ROWS
from remask.runs.store import Store

WORKERS = ROOT / "tests" / "fakes"


@pytest.mark.slow
@pytest.mark.parametrize("kills", [4, 20])  # CI runs the first (.ci/slow)
def test_run_after_kills_ends_like_a_whole_run(kills: int, tmp_path: Path) -> None:
    """Other tests of store and meter kill a scripted run at every step."""
    subprocess.run(
        [sys.executable, str(WORKERS / "killed_run.py"), str(tmp_path), "1", str(kills)], check=True
    )
    with Store.read(tmp_path / "whole") as store:
        whole, spent = list(store.events()), store.get_spend()
    assert [e["kind"] for e in whole][-2:] == ["SearchEnded", "Tested"]
    assert sum(e["kind"] == "Proposed" for e in whole) >= 2
    survivors = sorted(tmp_path.glob("killed*"))
    assert survivors
    for folder in survivors:
        with Store.read(folder) as store:
            assert list(store.events()) == whole
            again = store.get_spend()
        assert (again.calls, again.tokens, again.uncertain) == (spent.calls, spent.tokens, 0)
        assert (folder / "result.json").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("target", ["alone", "target"])
@pytest.mark.parametrize("kills", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_refinement_after_kills_ends_like_a_whole_one(ram: Path, target: str, kills: int) -> None:
    """Killed at steps from the first to the last, and a second time if enough steps are left."""
    words = [sys.executable, str(WORKERS / "killed_refine.py"), str(ram), target, str(kills)]
    found = json.loads(subprocess.run(words, env=ENV, capture_output=True, check=True).stdout)
    whole = found["whole"]
    calls = ROWS if target == "target" else 0  # half are sealed, and each prompt is one request
    assert whole["again"] == 0 and whole["result"]["spend"]["calls"] == calls
    assert whole["result"]["verdict"] == ("improved" if calls else "unverified")
    assert {event["kind"] for event in whole["events"]} >= {"TracesRead", "Accepted", "Attributed"}
    assert len(found["killed"]) == kills
    for run in found["killed"]:
        assert run["kills"] >= 1, run["at"]
        assert run["events"] == whole["events"], run["at"]
        assert untimed(run["result"]) == untimed(whole["result"]), run["at"]
        first, second, last = run["again"]
        assert first <= calls / 2 and second - first <= calls / 2 and last == second, run["at"]
        spend = run["result"]["spend"]
        assert spend["calls"] - spend["uncertain"] == calls
        assert last <= spend["uncertain"], "calls that may be billed twice are booked"


def untimed(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in ("run_dir", "spend")}
