"""The pages of runs that change: nothing is missed, whoever looked first."""

import sqlite3
from pathlib import Path

import pytest

from fakes.finished_run import play, record
from remask.errors import ConfigError
from remask.events import RoundRejected, Started, encode
from remask.prompt import Prompt
from remask.runs.report.read_run import RunFollower, view_run
from remask.runs.store import Store
from remask.view.app import MAX_STREAMS
from remask.view.library import MAX_OPEN, RunPage


def test_a_page_shows_what_another_page_of_the_run_has_read_first(tmp_path: Path) -> None:
    play(tmp_path / "run", finish=False)
    page = RunPage("id", tmp_path / "run")
    page.look()
    before = dict(page.pieces)
    with Store.open(tmp_path / "run") as store:
        store.append(encode(RoundRejected(view_run(tmp_path / "run").state.round, "no candidate was better")))
    page.view()  # as the page of candidates does
    page.next_look = 0.0
    page.look()
    assert page.pieces["status"] != before["status"]
    page.close()


def test_a_page_whose_candidates_were_shown_first_has_all_its_pieces(tmp_path: Path) -> None:
    play(tmp_path / "run")
    page = RunPage("id", tmp_path / "run")
    page.view()
    page.look()
    assert "part-verdict" in page.pieces
    page.close()


def test_more_runs_are_open_than_streams_so_that_none_is_closed_under_one() -> None:
    assert MAX_OPEN > MAX_STREAMS


def test_a_reader_that_was_stopped_midway_goes_on_behind_what_it_has(tmp_path: Path) -> None:
    prompt = Prompt("Be brief.")
    with Store.create(tmp_path / "run", record()) as store:
        store.append(encode(Started(prompt.to_source(), prompt.id, 2)))
        reader = RunFollower(tmp_path / "run")
        for number in range(3):
            store.append(encode(RoundRejected(number, "no candidate was better")))
    db = sqlite3.connect(tmp_path / "run" / "run.db")
    good = db.execute("SELECT id FROM events WHERE n = 4").fetchone()[0]
    db.execute("UPDATE events SET id = 'broken' WHERE n = 4")
    db.commit()
    with pytest.raises(ConfigError, match="event 4 does not match"):
        reader.read_on()
    db.execute("UPDATE events SET id = ? WHERE n = 4", (good,))
    db.commit()
    db.close()
    reader.read_on()
    assert reader.count == 4 and reader.view().state == view_run(tmp_path / "run").state
    reader.close()
