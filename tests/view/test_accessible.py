"""axe-core finds nothing on the pages of `remask view`, on a screen and on a telephone."""

from pathlib import Path

from fakes.axe import needs_axe, require_accessible
from fakes.finished_run import play
from fakes.large_run import write_large_run
from fakes.viewing import Viewing
from remask.runs.report.list_runs import list_runs
from remask.runs.store import Store


@needs_axe
def test_axe_finds_nothing_on_the_pages(tmp_path: Path) -> None:
    play(tmp_path / "good")
    play(tmp_path / "other", "Work at level 9.")
    play(tmp_path / "stopped", finish=False)
    write_large_run(tmp_path / "running", 60)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.db").write_bytes(b"no database" * 100)
    with Store.open(tmp_path / "running"), Viewing(tmp_path, (20.0, 30.0)) as server:
        base = server.address.partition("/open")[0]
        ids = {run.name: run.id for run in list_runs(tmp_path)}
        runs = [f"/runs/{ids[name]}" for name in ("good", "stopped", "running")]
        compare = "/compare?" + "&".join(f"run={ids[name]}" for name in ("good", "other", "running"))
        paths = ["/", *runs, f"{runs[2]}/candidates", compare, "/compare"]
        require_accessible(server.address, *(base + path for path in paths))
