"""Damaged run directories: detected in one sentence or harmless, and never another result."""

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

import remask
from fakes.colours import Oracle, Phrases, rows, search
from fakes.command import remask as command
from remask.errors import RemaskError
from remask.ids import content_id

SEED = 20261130
PAGE = 4096
Change = Callable[[Path, random.Random], None]  # damages a run directory
ROWS = rows(80)


def play(folder: Path, **more: Any) -> remask.Result:
    return remask.optimize(
        "Name it. Be brief.", remask.Dataset(ROWS, split="split"), target=Oracle(), denoiser=Phrases(),
        max_calls=400, run_dir=folder, search=search(candidates=4), **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run `done`, and `cut`: the same run as a kill leaves it."""
    folder, seen = tmp_path_factory.mktemp("runs"), []

    def watch(event: object, *_: object) -> None:
        seen.append(event)
        if len(seen) == 9:
            shutil.copytree(folder / "done", folder / "cut")

    play(folder / "done", on_event=watch)
    assert len(seen) > 12
    return folder


def outcome(result: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(result[key] for key in ("verdict", "prompt", "baseline", "best", "test"))


def try_all(run: Path, whole: dict[str, Any]) -> bool:
    """Try every command on a run; whether one of them found damage.

    Each must end in one sentence, or with the result of the whole run.
    """
    found = False
    result_file = run / "result.json"
    for words in (
        ("show", run),
        ("show", run, "--json"),
        ("report", run),
        ("export", run, "-o", run / "out.md"),
    ):
        said = command(*words)
        assert said.exit_code in (0, 2), (words, said.output, said.exception)
        assert said.exception is None or isinstance(said.exception, SystemExit), (words, said.exception)
        if said.exit_code:
            found = True
            assert said.stderr.startswith("error: ") and said.stderr.count("\n") == 1, said.stderr
        elif "--json" in words and (shown := json.loads(said.stdout)["result"]):
            assert outcome(shown) == outcome(whole), words
    try:
        remask.resume(run, data=remask.Dataset(ROWS, split="split"), target=Oracle(), denoiser=Phrases())
    except RemaskError as error:
        assert error.exit_code == 2 and "\n" not in str(error), error
        return True
    assert outcome(json.loads(result_file.read_text())) == outcome(whole), "resume"
    return found


def read_whole(runs: Path) -> dict[str, Any]:
    return dict(json.loads((runs / "done" / "result.json").read_text()))


# -- bytes -----------------------------------------------------------------------------------------


def damage_bytes(run: Path, rng: random.Random) -> None:
    """Flip, overwrite, swap, insert or cut bytes of the database."""
    file = run / "run.db"
    data = bytearray(file.read_bytes())
    at, size = rng.randrange(len(data)), len(data)
    kind = rng.choice(
        ("flip", "flip", "flips", "zeros", "cut", "swap", "swap", "grow", "noise", "header", "insert")
    )
    if kind in ("flip", "flips"):
        for _ in range(1 if kind == "flip" else rng.choice((8, 100))):
            data[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == "zeros":
        data[at : at + 512] = bytes(len(data[at : at + 512]))
    elif kind == "cut":
        del data[at:]
    elif kind == "swap":
        a, b = (PAGE * rng.randrange(size // PAGE) for _ in range(2))
        data[a : a + PAGE], data[b : b + PAGE] = data[b : b + PAGE], data[a : a + PAGE]
    elif kind == "grow":
        data += data[:at]
    elif kind == "noise":
        data[at : at + 64] = rng.randbytes(len(data[at : at + 64]))
    elif kind == "header":
        data[rng.randrange(100)] = rng.randrange(256)
    else:
        data[at:at] = rng.randbytes(rng.randrange(1, 9))
    file.write_bytes(data)


@pytest.mark.parametrize(
    "count", [pytest.param(25, id="few"), pytest.param(1000, id="many", marks=pytest.mark.slow)]
)
def test_damaged_bytes_are_found_or_harmless(
    runs: Path, tmp_path: Path, count: int, record_property: Any
) -> None:
    whole, problems, found = read_whole(runs), [], 0
    for number in range(count):
        rng = random.Random(SEED + number)
        run = tmp_path / "run"
        shutil.copytree(runs / rng.choice(("done", "cut")), run)
        damage_bytes(run, rng)
        try:
            found += try_all(run, whole)
        except AssertionError as error:
            problems.append((number, str(error)[-600:]))
        shutil.rmtree(run)
    record_property("row", "R7")
    record_property("runs", count)
    record_property("detected", found)
    assert not problems, f"{len(problems)} of {count}; the first: {problems[:3]}"
    assert found >= count / 3


# -- content that is well formed -------------------------------------------------------------------


def sql(*statements: str) -> Change:
    def change(run: Path, _: random.Random) -> None:
        db = sqlite3.connect(run / "run.db")
        for statement in statements:
            db.execute(statement)
        db.commit()
        db.close()

    return change


def add_event(body: Any) -> Change:
    """Add an event that has the right id."""

    def change(run: Path, _: random.Random) -> None:
        db = sqlite3.connect(run / "run.db")
        stored = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        row = (content_id("event", body), stored)
        db.execute("INSERT INTO events (id, at, calls, body) VALUES (?, 0, 0, ?)", row)
        db.commit()
        db.close()

    return change


def edit_event(kind: str, **values: Any) -> Change:
    """Change values of the first event of a kind, and its id; a value of None removes the key."""

    def change(run: Path, _: random.Random) -> None:
        db = sqlite3.connect(run / "run.db")
        for n, body in db.execute("SELECT n, body FROM events ORDER BY n").fetchall():
            event = {**orjson.loads(body)}
            if event["kind"] == kind:
                event = {k: v for k, v in {**event, **values}.items() if v is not None}
                stored = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
                id = content_id("event", event)
                db.execute("UPDATE events SET id = ?, body = ? WHERE n = ?", (id, stored, n))
                break
        db.commit()
        db.close()

    return change


def put(name: str, content: bytes) -> Change:
    return lambda run, _: (run / name).write_bytes(content) and None


def replace_with(name: str, what: str) -> Change:
    """Replace a file by a directory, a pipe or a link to a device."""

    def change(run: Path, _: random.Random) -> None:
        path = run / name
        path.unlink()
        if what == "directory":
            path.mkdir()
        elif what == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(what)

    return change


FOUND: dict[str, Change] = {  # every command must say that something is wrong
    "newer schema": sql("PRAGMA user_version = 99"),
    "another program's database": sql("PRAGMA application_id = 1"),
    "another table": sql("CREATE TABLE x (a)"),
    "trigger": sql("CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM ledger; END"),
    "settings that are no JSON": sql("UPDATE meta SET value = '{' WHERE key = 'config'"),
    "settings that are a list": sql("UPDATE meta SET value = '[1]' WHERE key = 'config'"),
    "settings without a key": sql("UPDATE meta SET value = '{}' WHERE key = 'config'"),
    "settings that are a number": sql("UPDATE meta SET value = 7 WHERE key = 'config'"),
    "another fingerprint": sql("UPDATE meta SET value = 'x' WHERE key = 'fingerprint'"),
    "no settings": sql("DELETE FROM meta"),
    "a missing event": sql("DELETE FROM events WHERE n = 5"),
    "events out of order": sql("UPDATE events SET n = n + 100 WHERE n = 3"),
    "no first event": sql("DELETE FROM events WHERE n = 1"),
    "event that is a number": sql("UPDATE events SET body = 5 WHERE n = 3"),
    "event that is a list": add_event([1]),
    "calls that are text": sql("UPDATE ledger SET calls = 'abc' WHERE id = 1"),
    "negative calls": sql("UPDATE ledger SET calls = -100 WHERE id = 2"),
    "huge calls": sql("UPDATE ledger SET calls = 9000000000000000000 WHERE id = 2"),
    "fractional calls": sql("UPDATE ledger SET calls = 0.5 WHERE id = 2"),
    "dollars that are text": sql("UPDATE ledger SET usd = 'x', seconds = x'00' WHERE id = 2"),
    "infinite seconds": sql("UPDATE ledger SET seconds = 9e999 WHERE id = 2"),
    "negative tokens": sql("UPDATE ledger SET input_tokens = -5 WHERE id = 2"),
    "more uncertain than called": sql("UPDATE ledger SET uncertain = 99 WHERE id = 2"),
    "unknown kind": add_event({"kind": "Hacked", "x": 1}),
    "kind that is a list": add_event({"kind": ["Scored"]}),
    "no kind": add_event({"x": 1}),
    "event with another key": add_event({"kind": "SearchEnded", "reason": "x", "more": 1}),
    "event without a key": add_event({"kind": "SearchEnded"}),
    "rows that are text": add_event({"kind": "Scored", "round": 0, "id": "x", "split": "test", "rows": "x"}),
    "unknown prompt": add_event({"kind": "Scored", "round": 0, "id": "x", "split": "train", "rows": []}),
    "unknown parent": add_event(
        {"kind": "Accepted", "round": 9, "id": "x", "parent": "y", "gain": 1.0, "attributions": []}
    ),
    "rounds that are true": add_event({"kind": "RoundRejected", "round": True, "reason": "x"}),
    "negative round": add_event({"kind": "RoundRejected", "round": -7, "reason": "x"}),
    "prompt of another id": edit_event("Started", prompt="Give me all."),
    "tokens that are text": edit_event("Started", tokens="9"),
    "no tokens": edit_event("Started", tokens=None),
    "edit outside of the prompt": edit_event("Proposed", edits=[[5000, 5001, "x"]]),
    "edit of two parts": edit_event("Proposed", edits=[[1, 2]]),
    "unclosed mark": edit_event("Started", prompt="Name it. [[keep]]", id="x"),
    "split of another name": edit_event("Scored", split="tests"),
    "score that is text": edit_event("Scored", rows=[["a", "1", 0.0]]),
    "test of other rows": add_event({"kind": "Tested", "baseline": [["a", 1, 1]], "best": [["b", 1, 1]]}),
    "database that is a directory": replace_with("run.db", "directory"),
    "database that is a pipe": replace_with("run.db", "pipe"),
    "database that is a device": replace_with("run.db", "/dev/zero"),
    "database that is nothing": replace_with("run.db", "/dev/null"),
}  # fmt: skip
REPAIRED: dict[str, Change] = {  # `show` may say what is wrong; `resume` makes it right
    "result that is no JSON": put("result.json", b"{"),
    "result that is a list": put("result.json", b"[]"),
    "result that is noise": put("result.json", b"\xff\xfe\x00"),
    "empty result": put("result.json", b""),
    "deep result": put("result.json", b"[" * 200_000),
    "no result": lambda run, _: (run / "result.json").unlink(),
    "no last event": sql("DELETE FROM events WHERE n = (SELECT max(n) FROM events)"),
    "no events": sql("DELETE FROM events"),
    "no replies": sql("DELETE FROM cache"),
    "text for the time": sql("UPDATE meta SET value = 'abc' WHERE key = 'created'"),
    "noise in the lock": put("run.lock", b"\xff" * 100),
    "noise in the journal": put("run.db-journal", bytes(range(256)) * 16),
    "noise in the log": put("run.db-wal", bytes(range(256)) * 16),
    "report that is noise": put("report.html", b"\xff"),
}
BLOCKED: dict[str, Change] = {  # found by the commands that need the file
    "lock that is a directory": replace_with("run.lock", "directory"),
    "lock that is a pipe": replace_with("run.lock", "pipe"),
    "result that is a directory": replace_with("result.json", "directory"),
    "result that is a pipe": replace_with("result.json", "pipe"),
    "report that is a directory": replace_with("report.html", "directory"),
}


@pytest.mark.parametrize("name", FOUND)
def test_odd_content_is_found(runs: Path, tmp_path: Path, name: str, record_property: Any) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "done", run)
    FOUND[name](run, random.Random(SEED))
    assert try_all(run, read_whole(runs))
    record_property("row", "R7")
    record_property("runs", 1)


@pytest.mark.parametrize("name", [*REPAIRED, *BLOCKED])
def test_other_damage_is_a_sentence_or_harmless(
    runs: Path, tmp_path: Path, name: str, record_property: Any
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "done", run)
    (REPAIRED | BLOCKED)[name](run, random.Random(SEED))
    found = try_all(run, read_whole(runs))
    assert found or name in REPAIRED
    if name in REPAIRED:
        assert outcome(json.loads((run / "result.json").read_text())) == outcome(read_whole(runs))
    record_property("row", "R7")
    record_property("runs", 1)


def test_another_result_is_not_shown(runs: Path, tmp_path: Path, record_property: Any) -> None:
    whole = read_whole(runs)
    for number, (key, value) in enumerate({"prompt": "Do harm.", "test": {"best": 0.1}}.items()):
        run = tmp_path / str(number)
        shutil.copytree(runs / "done", run)
        new = {**whole[key], **value} if isinstance(value, dict) else value
        (run / "result.json").write_text(json.dumps({**whole, key: new}))
        assert "does not match the events" in command("show", run).stderr
        assert try_all(run, whole)
    record_property("row", "R7")
    record_property("runs", 2)
