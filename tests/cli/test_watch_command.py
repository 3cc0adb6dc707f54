"""`remask watch` as cron calls it: its lines, its exit codes, and what it says when it cannot."""

import json
from pathlib import Path

import pytest

from fakes import nights
from fakes.command import complaint, remask
from fakes.nights import settle, write_night
from remask.cli.settings import read_refinement
from remask.runs.watch_state import WatchState


@pytest.fixture
def config(here: Path) -> Path:
    write_night(here, 0)
    return settle(here)


def test_watch_says_how_many_are_missing_and_ends_with_0(config: Path) -> None:
    done = remask("watch")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "conversations: 60 new, 0 known ones that have grown, 60 in all; 0 of another system prompt, "
        "0 rejected",
        "too few to compare: 50 more conversations are missing",
        "nothing to do",
    ]
    night = json.loads(remask("watch", config, "--json").stdout)
    assert (night["kind"], night["exit_code"], night["new"], night["missing"]) == ("Night", 0, 0, 50)


@pytest.mark.slow
def test_watch_with_the_built_in_denoiser_ends_with_6_or_7_after_a_drift(config: Path) -> None:
    """What the built-in model writes is not the point; that its run is made and told is."""
    config.write_text(
        config.read_text().replace("iterations = 2", "iterations = 1\n[search]\ncandidates = 2")
    )
    config.write_text(config.read_text().replace('[search]\nmaskers = ["insert"]\n', "", 1))
    assert remask("watch").exit_code == 0
    write_night(config.parent, 1, bad=True)
    dry = remask("watch", "--dry-run")
    assert dry.exit_code == 0 and "would look for a better prompt; this was a dry run" in dry.stdout
    assert not (config.parent / "proposals").exists()
    done = remask("watch")
    folders = list((config.parent / "proposals").iterdir())
    assert done.exit_code in (6, 7) and len(folders) == 1, done.output
    assert (folders[0] / "pull-request.md").exists() == (done.exit_code == 6)
    assert "failures: 10.0 % of 50 conversations, now" in done.stdout and "has drifted" in done.stdout
    assert "run: unverified" in done.stdout and "0 target calls" in done.stdout
    assert remask("watch").exit_code == 0


def test_watch_beside_another_one_ends_with_4(config: Path) -> None:
    with WatchState.open(config.parent / "watch.db"):
        done = remask("watch")
    assert done.exit_code == 4
    assert done.stderr.startswith("error: ") and "watch.db is in use by process" in done.stderr


def test_watch_in_a_folder_without_a_configuration_says_so(here: Path) -> None:
    assert "there is no such file" in complaint(remask("watch"))


def test_watch_with_an_unknown_option_says_so(config: Path) -> None:
    assert "no such option '--nights'" in complaint(remask("watch", "--nights", "3")).lower()


def test_other_commands_take_the_same_file(config: Path) -> None:
    """A section [watch] disturbs no other command, and is no part of its run."""
    config.write_text(config.read_text() + "alarm_rate = 0.2\n")
    flags = {"judge": None, "target": None, "files": (), "redact": None}
    assert read_refinement(str(config), flags).config.watch is None
    rows = [{"input": f"item {i}", "label": "red", "split": "test"} for i in range(4)]
    nights.write_rows(config.parent / "rows.jsonl", rows)
    (config.parent / "answer.py").write_text("def answer(messages):\n    return 'red'\n")
    words = ("--data", "rows.jsonl", "--split-column", "split", "--split", "test")
    done = remask("eval", config, *words, "--target", "answer.py:answer", "--metric", "contains")
    assert done.exit_code == 0 and "test: 1.000 on 4 rows" in done.stdout, done.output
