"""The store of a run: durability, locking, refusals, and detection of damage."""

import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes import ENV, ROOT, Cut
from remask.errors import ConfigError, RemaskError, RunBusy
from remask.runs.budget import Spend
from remask.runs.database import connect, journal_mode
from remask.runs.lock import RunLock
from remask.runs.store import Store, fingerprint

CONFIG = {"prompt": "Sort the mail.", "budget": {"calls": 240, "usd": None}, "seed": 7}
WORKER = ROOT / "tests" / "fakes" / "killed_store.py"

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcé", max_size=3), inner),
    max_leaves=8,
)
json_events = st.dictionaries(st.text("kindvalue", max_size=5), json_values, max_size=4)


def child(*args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WORKER), *map(str, args)],
        env=ENV,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rows(folder: Path, query: str) -> list[tuple]:
    db = sqlite3.connect(folder / "run.db")
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


@pytest.fixture
def connections(monkeypatch) -> list[sqlite3.Connection]:
    """The connections of all opened stores and readers, the latest last."""
    opened = []
    monkeypatch.setattr(
        "remask.runs.database.connect", lambda file: opened.append(connect(file)) or opened[-1]
    )
    return opened


def change(folder: Path, statement: str) -> None:
    db = sqlite3.connect(folder / "run.db", isolation_level=None)
    db.execute(statement)
    db.close()


# --- events, cache, meta -------------------------------------------------------------------


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(json_events, max_size=8))
def test_events_are_stored_once_and_in_order(tmp_path_factory, events):
    folder = tmp_path_factory.mktemp("run")
    first: dict[bytes, dict] = {}
    with Store.create(folder, CONFIG) as store:
        for event in events:
            body = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
            assert store.append(event) == (body not in first)
            first.setdefault(body, event)
    with Store.open(folder) as store:
        assert list(store.events()) == list(first.values())
        assert not any([store.append(event) for event in events])  # a replay adds nothing


def test_events_may_be_appended_while_they_are_read(tmp_path):
    with Store.create(tmp_path / "run", CONFIG) as store:
        for n in range(3):
            store.append({"n": n})
        seen = []
        for event in store.events():
            seen.append(event["n"])
            if event["n"] < 1:
                store.append({"n": 3})
        assert seen == [0, 1, 2, 3]


def test_events_and_replies_are_read_by_pages(tmp_path, monkeypatch):
    monkeypatch.setattr("remask.runs.store.PAGE_ROWS", 3)
    with Store.create(tmp_path / "run", CONFIG) as store:
        for n in range(10):
            store.append({"n": n})
        replies = {f"k{n}": {"text": str(n)} for n in range(10)}
        store.settle(store.reserve(Spend(calls=10), billed=False), Spend(calls=10), replies)
        assert [e["n"] for e in store.events()] == list(range(10))
        assert store.find_replies([*replies, "unknown"]) == replies
        assert store.find_replies([]) == {}


def test_append_ignores_the_wall_clock(tmp_path, monkeypatch):
    with Store.create(tmp_path / "run", CONFIG) as store:
        monkeypatch.setattr("time.time", lambda: 1.0)
        assert store.append({"kind": "RoundRejected"})
        monkeypatch.setattr("time.time", lambda: 2.0)
        assert not store.append({"kind": "RoundRejected"})
        assert rows(tmp_path / "run", "SELECT at FROM events") == [(1.0,)]


def test_append_commits_the_event(tmp_path):
    with Store.create(tmp_path / "run", CONFIG) as store:
        store.append({"n": 1})
        with Store.read(tmp_path / "run") as reader:
            assert list(reader.events()) == [{"n": 1}]


def test_append_books_the_time(tmp_path):
    with Store.create(tmp_path / "run", CONFIG) as store:
        store.append({"n": 1}, Spend(seconds=2.0))
        # A repeated event is not stored, but its time is booked.
        assert not store.append({"n": 1}, Spend(seconds=0.5))
        store.append({"n": 2})
        assert store.get_spend() == Spend(seconds=2.5)
    with Store.read(tmp_path / "run") as reader:
        assert reader.get_spend() == Spend(seconds=2.5)


def test_meta_and_config(tmp_path):
    with Store.create(tmp_path / "run", CONFIG) as store:
        assert store.config == CONFIG
        assert store.meta("fingerprint") == fingerprint(CONFIG)
        assert float(store.meta("created")) > 1.7e9
        with pytest.raises(ConfigError, match="it has no nonsense"):
            store.meta("nonsense")


# --- the ledger ----------------------------------------------------------------------------


def test_reserve_settle_release_abandon(tmp_path):
    need = Spend(calls=4, input_tokens=40, output_tokens=10, usd=0.5, seconds=2)
    actual = Spend(calls=3, input_tokens=21, output_tokens=7, usd=0.25, seconds=1)
    with Store.create(tmp_path / "run", CONFIG) as store:
        first, second = store.reserve(need, billed=True), store.reserve(need, billed=True)
        assert store.get_spend() == need + need
        store.settle(first, actual, {})
        store.release(second)
        assert store.get_spend() == actual
        store.abandon(store.reserve(need, billed=True))
        store.abandon(store.reserve(need, billed=False))
        expected = actual + replace(need, uncertain=4)
        assert store.get_spend() == expected
    with Store.open(tmp_path / "run") as store:
        assert store.get_spend() == expected


@pytest.mark.parametrize("again", ["settle", "release"])
def test_settle_refuses_a_closed_reservation(tmp_path, again):
    with Store.create(tmp_path / "run", CONFIG) as store:
        id = store.reserve(Spend(calls=1), billed=True)
        store.settle(id, Spend(calls=1), {"a": {"text": "x"}})
        with pytest.raises(ValueError, match=f"reservation {id} is not open"):
            if again == "settle":
                store.settle(id, Spend(calls=1), {"b": {"text": "y"}})
            else:
                store.release(id)
        assert store.get_spend() == Spend(calls=1)
        assert store.find_replies(["b"]) == {}


ledger_steps = st.lists(
    st.tuples(
        st.sampled_from(["settle", "release", "abandon", "leave"]),
        st.booleans(),
        st.integers(0, 9),
        st.floats(0, 1),
    ),
    max_size=10,
)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(ledger_steps)
def test_get_spend_is_equal_in_memory_and_file(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("run")
    left = Spend()  # open reservations that the next process finds
    store = Store.create(folder, CONFIG)
    for end, billed, calls, usd in steps:
        need = Spend(calls=calls, usd=usd)
        id = store.reserve(need, billed)
        if end == "settle":
            store.settle(id, need, {})
        elif end == "release":
            store.release(id)
        elif end == "abandon":
            store.abandon(id)
        else:
            left += need if not billed else Spend(uncertain=-calls)
    with Store.read(folder) as reader:
        assert same(reader.get_spend(), store.get_spend())
    before = store.get_spend()
    store.close()
    with Store.open(folder) as store:  # unbilled ones are free, billed ones become uncertain
        expected = before + Spend(-left.calls, usd=-left.usd, uncertain=-left.uncertain)
        assert same(store.get_spend(), expected)


def same(a: Spend, b: Spend) -> bool:
    exact = (a.calls, a.input_tokens, a.output_tokens, a.uncertain)
    return exact == (b.calls, b.input_tokens, b.output_tokens, b.uncertain) and math.isclose(
        a.usd, b.usd, abs_tol=1e-9
    )


class CutAt:
    """A connection that fails at the n-th statement after `at` is set to n."""

    def __init__(self, file: Path) -> None:
        self._db, self.at = connect(file), 0

    def _step(self) -> None:
        self.at -= 1
        if self.at == 0:
            raise Cut

    def execute(self, *args):
        if args[0] != "ROLLBACK":
            self._step()
        return self._db.execute(*args)

    def executemany(self, *args):
        self._step()
        return self._db.executemany(*args)

    def __getattr__(self, name):
        return getattr(self._db, name)


@pytest.mark.parametrize("at", [1, 2, 3, 4])  # BEGIN, ledger, cache, COMMIT
def test_settle_is_all_or_nothing(tmp_path, at, monkeypatch):
    opened = []
    monkeypatch.setattr("remask.runs.database.connect", lambda f: opened.append(CutAt(f)) or opened[-1])
    with Store.create(tmp_path / "run", CONFIG) as store:
        id = store.reserve(Spend(calls=2), billed=True)
        opened[-1].at = at
        with pytest.raises(Cut):
            store.settle(id, Spend(calls=1), {"a": {"text": "x"}})
        assert store.get_spend() == Spend(calls=2)  # still reserved, in full
        assert rows(tmp_path / "run", "SELECT state, calls FROM ledger") == [("reserved", 2)]
        assert store.find_replies(["a"]) == {}
        store.settle(id, Spend(calls=1), {"a": {"text": "x"}})  # and it can still be settled
        assert store.get_spend() == Spend(calls=1)
        assert store.find_replies(["a"]) == {"a": {"text": "x"}}


def test_reserve_commits_the_reservation(tmp_path):
    with Store.create(tmp_path / "run", CONFIG) as store:
        store.reserve(Spend(calls=3), billed=True)
        with Store.read(tmp_path / "run") as reader:
            assert reader.get_spend() == Spend(calls=3)


# --- create, open, refuse ------------------------------------------------------------------


def test_create_refuses_an_existing_run(tmp_path):
    Store.create(tmp_path / "run", CONFIG).close()
    with pytest.raises(ConfigError, match="already holds a run; continue it with `remask resume"):
        Store.create(tmp_path / "run", CONFIG)
    Store.open(tmp_path / "run", CONFIG).close()  # the refusal did not keep the lock


@pytest.mark.parametrize("method", [Store.open, Store.read])
def test_open_refuses_a_missing_run(tmp_path, method):
    with pytest.raises(ConfigError, match="is not the folder of a run"):
        method(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_create_refuses_a_file_as_directory(tmp_path):
    (tmp_path / "run").write_text("something else")
    with pytest.raises(ConfigError, match="cannot be created"):
        Store.create(tmp_path / "run", CONFIG)


def test_open_names_changed_settings(tmp_path):
    folder = tmp_path / "run"
    Store.create(folder, CONFIG).close()
    long = "You sort the mail of a shop. " * 8
    changed = {"prompt": CONFIG["prompt"], "budget": {"calls": 300, "usd": 1.5}, "seed": True, "new": long}
    with pytest.raises(ConfigError) as caught:
        Store.open(folder, changed)
    sentence = str(caught.value)
    assert "budget.calls is 240 in the run and 300 now" in sentence
    assert "budget.usd is None in the run and 1.5 now" in sentence
    assert "seed is 7 in the run and True now" in sentence
    assert "new is missing in the run" in sentence
    assert "prompt" not in sentence and len(sentence) < 500
    Store.open(folder, CONFIG).close()


def test_open_shows_where_long_values_differ(tmp_path):
    long = "You sort the mail of a shop. " * 8
    Store.create(tmp_path / "run", {"prompt": long + "Be kind."}).close()
    with pytest.raises(ConfigError) as caught:
        Store.open(tmp_path / "run", {"prompt": long + "Be brief."})
    assert "Be kind." in str(caught.value) and "Be brief." in str(caught.value)


def test_open_ignores_tuples_and_key_order(tmp_path):
    Store.create(tmp_path / "run", {"a": [1, 2], "b": {"x": 1, "y": 2}}).close()
    Store.open(tmp_path / "run", {"b": {"y": 2, "x": 1}, "a": (1, 2)}).close()


def test_open_refuses_a_newer_schema(tmp_path):
    Store.create(tmp_path / "run", CONFIG).close()
    change(tmp_path / "run", "PRAGMA user_version = 99")
    for method in (Store.open, Store.read):
        with pytest.raises(ConfigError, match=r"newer remask \(schema 99, .*; upgrade remask"):
            method(tmp_path / "run")


def test_connect_sets_the_pragmas(tmp_path, connections):
    with Store.create(tmp_path / "run", CONFIG):
        get = {
            name: connections[-1].execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "trusted_schema")
        }
    assert get["journal_mode"] == journal_mode(sqlite3.sqlite_version_info).lower()
    assert (get["synchronous"], get["foreign_keys"], get["trusted_schema"]) == (2, 1, 0)


def test_journal_mode_depends_on_the_version():
    assert journal_mode((3, 40, 1)) == journal_mode((3, 51, 2)) == "DELETE"
    assert journal_mode((3, 51, 3)) == journal_mode((3, 52, 0)) == "WAL"


# --- damage --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "run"
    with Store.create(folder, CONFIG) as store:
        for n in range(60):
            store.append({"n": n, "text": "word " * 40})
        replies = {f"{n:024x}": {"text": "reply " * 30} for n in range(60)}
        store.settle(store.reserve(Spend(calls=60), billed=True), Spend(calls=60), replies)
    return folder


@pytest.fixture
def folder(sound, tmp_path) -> Path:
    """A copy of the run, which a test may damage."""
    return Path(shutil.copytree(sound, tmp_path / "run"))


def use(folder: Path) -> None:
    """Read everything that a resumed run reads."""
    with Store.open(folder, CONFIG) as store:
        list(store.events())
        store.find_replies([f"{n:024x}" for n in range(60)])
        store.append({"n": -1})
        store.settle(store.reserve(Spend(calls=1), billed=True), Spend(calls=1), {})


@pytest.mark.parametrize("content", [b"", b"x", b"not a database, but long enough to be taken for one" * 100])
def test_open_refuses_what_is_not_a_database(folder, content):
    (folder / "run.db").write_bytes(content)
    for method in (Store.open, Store.read):
        with pytest.raises(ConfigError, match=r"run\.db is damaged: .*; start a new run"):
            method(folder)


def test_open_refuses_another_database(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    change(folder, "CREATE TABLE other (a)")
    with pytest.raises(ConfigError, match="it is not the database of a run"):
        Store.open(folder)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_open_refuses_a_truncated_file(folder, share):
    content = (folder / "run.db").read_bytes()
    (folder / "run.db").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ConfigError, match="is damaged"):
        use(folder)


def test_open_checks_the_whole_file(folder):
    page = rows(folder, "SELECT rootpage FROM sqlite_master WHERE name = 'cache'")[0][0]
    size = rows(folder, "PRAGMA page_size")[0][0]
    content = bytearray((folder / "run.db").read_bytes())
    content[(page - 1) * size : page * size] = bytes(size)
    (folder / "run.db").write_bytes(content)
    with pytest.raises(ConfigError, match="is damaged"):
        Store.open(folder)


def test_events_detects_a_changed_event(folder):
    content = (folder / "run.db").read_bytes()
    assert b'"n":59' in content
    (folder / "run.db").write_bytes(content.replace(b'"n":59', b'"n":58'))
    with Store.open(folder) as store, pytest.raises(ConfigError, match="event 60 does not match"):
        list(store.events())


def test_find_replies_detects_a_changed_reply(folder):
    content = (folder / "run.db").read_bytes()
    (folder / "run.db").write_bytes(content.replace(b'{"text":"reply', b'{"text":"Reply'))
    with Store.open(folder) as store, pytest.raises(ConfigError, match="does not match its seal"):
        store.find_replies([f"{3:024x}"])


def test_open_reports_flipped_bytes_in_a_sentence(sound, tmp_path):
    content = (sound / "run.db").read_bytes()
    found = 0
    for seed in range(60):
        draw = random.Random(seed)
        broken = bytearray(content)
        for _ in range(draw.choice([1, 8, 200])):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        folder = tmp_path / f"flip{seed}"
        shutil.copytree(sound, folder)
        (folder / "run.db").write_bytes(broken)
        try:
            use(folder)
        except RemaskError as error:
            assert "\n" not in str(error)
            found += 1
    assert found >= 20  # most of the flips in used bytes were detected


# --- two processes -------------------------------------------------------------------------


def test_lock_allows_one_of_two_processes(tmp_path):
    folder = tmp_path / "run"
    Store.create(folder, CONFIG).close()
    both = [child("hold", folder, n) for n in range(2)]
    said = [process.stdout.readline() for process in both]
    winner = both[said.index("held\n")]
    loser = both[1 - said.index("held\n")]
    assert said[both.index(loser)].startswith("RunBusy")
    assert f"process {winner.pid} on " in said[both.index(loser)]
    winner.communicate()
    loser.communicate()
    assert (winner.returncode, loser.returncode) == (0, 4)
    with Store.open(folder) as store:
        assert list(store.events()) == [{"by": str(both.index(winner))}]


def test_lock_of_a_killed_owner_is_free(tmp_path):
    folder = tmp_path / "run"
    Store.create(folder, CONFIG).close()
    owner = child("hold", folder, "a")
    assert owner.stdout.readline() == "held\n"
    with pytest.raises(RunBusy, match=f"process {owner.pid}"):
        Store.open(folder)
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    assert str(owner.pid) in (folder / "run.lock").read_text()  # the stale file is still there
    with Store.open(folder) as store:
        assert list(store.events()) == [{"by": "a"}]


def test_lock_without_an_owner_names_another_process(tmp_path, monkeypatch):
    monkeypatch.setattr("remask.runs.lock.OWNER_READ_PAUSE_S", 0)
    lock = RunLock.take(tmp_path)
    (tmp_path / "run.lock").write_text("")
    with pytest.raises(RunBusy, match="in use by another process"):
        RunLock.take(tmp_path)
    lock.release()
    RunLock.take(tmp_path).release()


def test_reader_follows_a_writer_and_cannot_write(tmp_path, connections):
    folder = tmp_path / "run"
    with Store.create(folder, CONFIG) as store, Store.read(folder) as reader:
        for n in range(20):
            store.append({"n": n})
            id = store.reserve(Spend(calls=1), billed=False)
            store.settle(id, Spend(calls=1), {f"k{n}": {"text": "x"}})
            pending = reader.events()
            assert next(pending) == {"n": 0}  # a half-read list does not block the writer
            assert [event["n"] for event in reader.events()] == list(range(n + 1))
            assert reader.get_spend() == store.get_spend() == Spend(calls=n + 1)
        assert reader.config == CONFIG
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connections[-1].execute("DELETE FROM events")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anything")
def test_read_accepts_a_read_only_run(folder):
    (folder / "run.db").chmod(0o400)
    with Store.read(folder) as reader:
        assert reader.get_spend().calls == 60
    with pytest.raises(ConfigError, match="cannot be read or written"):
        Store.open(folder)


def test_append_reports_a_full_disk(tmp_path, connections):
    with Store.create(tmp_path / "run", CONFIG) as store:
        store.append({"n": 0})
        db = connections[-1]
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(ConfigError, match=r"full.*then continue with `remask resume"):
            store.append({"text": "x" * 10**6})
        db.execute("PRAGMA max_page_count = 100000")
        assert store.append({"n": 1})
        assert list(store.events()) == [{"n": 0}, {"n": 1}]


def test_create_leaves_no_half_run_after_a_kill(tmp_path):
    folder = tmp_path / "run"
    for at in (1, 3, 9, 11):
        maker = child("create", folder, at)
        maker.communicate()
        assert maker.returncode == -signal.SIGKILL
        with pytest.raises(ConfigError, match="is not the folder of a run"):
            Store.open(folder)
    with Store.create(folder, CONFIG) as store:
        assert store.append({"n": 1})
