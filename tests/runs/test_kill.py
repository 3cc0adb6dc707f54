"""kill -9 at random moments plus resume ends like the run that was left alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from fakes import ROOT
from remask.runs.store import Store

WORKER = ROOT / "tests" / "fakes" / "killed_run.py"


@pytest.mark.slow
@pytest.mark.parametrize("kills", [4, 20])  # CI takes the few (.ci/slow)
def test_killed_runs_end_like_the_whole_one(kills: int, tmp_path: Path) -> None:
    """The quick tests of store and meter kill a scripted run at every step."""
    subprocess.run([sys.executable, str(WORKER), str(tmp_path), "1", str(kills)], check=True)
    with Store.read(tmp_path / "whole") as store:
        whole, spent = list(store.events()), store.spent()
    assert [e["kind"] for e in whole][-2:] == ["Stopped", "Tested"]
    assert sum(e["kind"] == "Proposed" for e in whole) >= 2
    survivors = sorted(tmp_path.glob("killed*"))
    assert survivors
    for folder in survivors:
        with Store.read(folder) as store:
            assert list(store.events()) == whole
            again = store.spent()
        assert (again.calls, again.tokens, again.uncertain) == (spent.calls, spent.tokens, 0)
        assert (folder / "result.json").exists()
