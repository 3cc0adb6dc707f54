"""The n-th change of the disk fails: a full, a broken and a read-only disk, once and for ever."""

import errno
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fakes.disk import Disk
from fakes.http_run import World, read_ledger, read_result, write_job
from fakes.server import Server
from remask.runs.report.read_run import view_run

SEED = 20261130
CODES = (errno.ENOSPC, errno.EIO, errno.EACCES)
KEPT = {"run.db", "run.lock", "result.json", "report.html", "rows.jsonl", "rows.csv"}
CONCURRENCY = 4


def choose(count: int, few: int, slow: bool) -> list[int]:
    """All numbers up to `count`, or a seeded sample with the first and the last changes in it."""
    if slow:
        return list(range(1, count + 1))
    third = few // 3
    ends = [*range(1, third + 1), *range(count - third + 1, count + 1)]
    return sorted({*ends, *random.Random(SEED).sample(range(1, count + 1), few - 2 * third)})


def require_sentence(found: dict[str, Any]) -> None:
    """The command succeeded, or ended with exit code 2 and one sentence."""
    text = found["stderr"]
    if found["code"] == 0:
        assert "Traceback" not in text, (found["failed"], text)
        return
    assert found["code"] == 2, (found["failed"], text)
    assert text.startswith("error: ") and text.count("\n") == 1, (found["failed"], text)
    assert "run" in text, "no path is named"


def list_left(folder: Path, failed: str, for_ever: bool) -> set[str]:
    """Names in the run directory, without drafts where the disk let one not be deleted."""
    names = {path.name for path in (folder / "run").iterdir()}
    undeletable = for_ever or failed.startswith("unlink")
    return {name for name in names if not (undeletable and name.startswith("."))}


def outcome(folder: Path) -> tuple[Any, ...]:
    result = read_result(folder)
    return tuple(result[key] for key in ("verdict", "prompt", "baseline", "best", "test", "edits"))


def play_on_failing_disk(disk: Disk, folder: Path, whole: Path, at: int, for_ever: bool) -> None:
    """Play the small run from Python with one failure, and then to its end."""
    folder.mkdir()
    failed = disk.play(folder, at=at, code=CODES[at % 3], for_ever=for_ever)
    require_sentence(failed)
    if (folder / "run" / "run.db").exists():
        view_run(folder / "run")
    again = disk.play(folder)
    assert again["code"] == 0, (failed["failed"], again["stderr"])
    assert outcome(folder) == outcome(whole), failed["failed"]
    read_ledger(folder)
    assert list_left(folder, failed["failed"], for_ever) <= KEPT, failed["failed"]


def play_command_on_failing_disk(disk: Disk, folder: Path, whole: Path, at: int, for_ever: bool) -> None:
    """Play `optimize` with one failure, then `show` and `resume`; the server counts."""
    world = World()
    with Server(default=world) as server:
        write_small_job(folder, server)
        failed = disk.play(folder, "optimize", "--plain", at=at, code=CODES[at % 3], for_ever=for_ever)
        require_sentence(failed)
        words = ("optimize",)
        if (folder / "run" / "run.db").exists():
            assert disk.play(folder, "show", "run")["code"] == 0
            words = ("resume", "run")
        again = disk.play(folder, *words, "--plain")
    assert again["code"] == 0, (failed["failed"], again["stderr"])
    spend = read_result(folder)["spend"]
    assert outcome(folder) == outcome(whole), failed["failed"]
    assert world.requests <= spend["calls"], failed["failed"]
    assert spend["uncertain"] <= CONCURRENCY, failed["failed"]
    assert list_left(folder, failed["failed"], for_ever) <= KEPT, failed["failed"]


def write_small_job(folder: Path, server: Server) -> None:
    write_job(folder, server, calls=1000, rows=(2, 2, 4), candidates=1, concurrency=CONCURRENCY)


def require_all(play: Any, disk: Disk, folder: Path, whole: Path, cases: list[tuple[int, bool]]) -> None:
    """Play each case; at the end, report all that went wrong."""
    problems: dict[str, tuple[int, str]] = {}
    for at, for_ever in cases:
        try:
            play(disk, folder, whole, at, for_ever)
        except AssertionError as error:
            text = str(error)
            problems.setdefault(text[-120:], (at, text[-1500:]))
        shutil.rmtree(folder)
    assert not problems, f"{len(cases)} cases; of each kind the first problem: {list(problems.values())}"


@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("slow", [False, pytest.param(True, id="all", marks=pytest.mark.slow)])
def test_run_on_a_failing_disk_ends_in_a_sentence_and_can_be_resumed(
    tmp_path: Path, disk: Disk, for_ever: bool, slow: bool, record_property: Any
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    found = disk.play(whole)
    assert found["code"] == 0, found
    numbers = choose(found["changes"], 12, slow)[:: 5 if for_ever and slow else 1]
    cases = [(n, for_ever) for n in numbers]
    record_property("row", "R2")
    record_property("runs", len(cases))
    require_all(play_on_failing_disk, disk, tmp_path / "cut", whole, cases)


@pytest.mark.parametrize("slow", [False, pytest.param(True, id="many", marks=pytest.mark.slow)])
def test_command_line_on_a_failing_disk_books_all_that_was_sent(
    tmp_path: Path, disk: Disk, slow: bool, record_property: Any
) -> None:
    whole = tmp_path / "whole"
    with Server(default=World()) as server:
        write_small_job(whole, server)
        found = disk.play(whole, "optimize", "--plain")
        assert found["code"] == 0, found
    cases = [(n, n % 2 == 0) for n in choose(found["changes"], 150 if slow else 3, False)]
    record_property("row", "R2")
    record_property("runs", len(cases))
    require_all(play_command_on_failing_disk, disk, tmp_path / "cut", whole, cases)


COMMANDS = (("show", "run"), ("show", "run", "--json"), ("report", "run"), ("resume", "run", "--plain"))


@pytest.mark.parametrize("words", [*COMMANDS, ("export", "run", "-o", "run/out.md")], ids=" ".join)
def test_command_on_a_disk_that_became_read_only_ends_in_a_sentence(
    tmp_path: Path, disk: Disk, words: Sequence[str], record_property: Any
) -> None:
    assert disk.play(tmp_path)["code"] == 0
    before = outcome(tmp_path)
    found = disk.play(tmp_path, *words, at=1, code=errno.EROFS, for_ever=True)
    require_sentence(found)
    assert outcome(tmp_path) == before
    if words[0] == "show":
        assert found["code"] == 0
    record_property("row", "R2")
    record_property("runs", 1)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anything")
def test_report_of_a_read_only_directory_ends_in_a_sentence(tmp_path: Path, disk: Disk) -> None:
    assert disk.play(tmp_path)["code"] == 0
    (tmp_path / "run").chmod(0o500)
    try:
        require_sentence(disk.play(tmp_path, "report", "run"))
        require_sentence(disk.play(tmp_path, "resume", "run"))
    finally:
        (tmp_path / "run").chmod(0o700)
