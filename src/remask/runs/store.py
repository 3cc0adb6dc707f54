"""A run directory: events, the cache of target replies and the ledger, in one SQLite file.

Knows how to make values durable, who holds the directory, and what a kill leaves behind. Does not
know what an event means, how a budget is held, or what a target is.

One process writes, under an OS lock; anybody may read. What a call may cost is in the ledger
before the call is made. What it did cost and what it answered are written in one transaction.
"""

import math
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, replace
from itertools import count
from pathlib import Path
from typing import Any, Self

import orjson

from remask.errors import ConfigError
from remask.files import draft
from remask.ids import content_id
from remask.runs import database
from remask.runs.budget import Spend
from remask.runs.lock import RunLock

PAGE_ROWS = 256  # rows read at a time


def fingerprint(config: Mapping[str, Any]) -> str:
    """The id of a resolved configuration; any difference of content changes it."""
    return content_id("config", dict(config))


class RunReader:
    """A run that is read: takes no lock, and sees what a writer has made durable so far."""

    def __init__(self, folder: Path, db: sqlite3.Connection) -> None:
        self.folder = folder
        self._file = folder / database.FILE
        self._db = db

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def meta(self, key: str) -> str:
        """One of "config" (JSON), "fingerprint" and "created" (seconds since 1970)."""
        with database.translate_errors(self._file):
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise database.damaged_error(self._file, f"it does not say its {key}")
        return str(row[0])

    @property
    def config(self) -> dict[str, Any]:
        return database.parse_record(self._file, self.meta("config"))

    def events(self) -> Iterator[dict[str, Any]]:
        """All events in the order in which they were first appended.

        Reads page by page: an open cursor would keep the writer from committing.
        """
        last = 0
        while True:
            with database.translate_errors(self._file):
                rows = self._db.execute(
                    "SELECT n, id, body FROM events WHERE n > ? ORDER BY n LIMIT ?",
                    (last, PAGE_ROWS),
                ).fetchall()
            if not rows:
                return
            for n, id, body in rows:
                event = database.parse_record(self._file, body)
                if content_id("event", event) != id:
                    raise database.damaged_error(self._file, f"event {n} does not match its id")
                yield event
            last = rows[-1][0]

    def call_seconds(self) -> float:
        """Seconds of target calls alone, without what was booked beside them."""
        with database.translate_errors(self._file):
            row = self._db.execute(
                "SELECT coalesce(sum(seconds), 0) FROM ledger"
                " WHERE state != 'released' AND calls > 0"
            ).fetchone()
        return float(row[0])

    def history(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """All events, each with the calls that were booked by then (by the wall clock)."""
        with database.translate_errors(self._file):
            rows = self._db.execute(
                "SELECT (SELECT coalesce(sum(calls), 0) FROM ledger"
                " WHERE state != 'released' AND ledger.at <= events.at) FROM events ORDER BY n"
            ).fetchall()
        # Events that come after this look are left out: a run may go on meanwhile.
        for (calls,), event in zip(rows, self.events(), strict=False):
            yield calls, event

    def find_replies(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The stored replies among `keys`."""
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(keys), PAGE_ROWS):
            part = keys[start : start + PAGE_ROWS]
            marks = ",".join("?" * len(part))
            with database.translate_errors(self._file):
                rows = self._db.execute(
                    f"SELECT key, seal, body FROM cache WHERE key IN ({marks})", part
                ).fetchall()
            for key, seal, body in rows:
                found[key] = database.parse_record(self._file, body)
                if content_id("reply", key, found[key]) != seal:
                    raise database.damaged_error(
                        self._file, f"the reply {key} does not match its seal"
                    )
        return found

    def get_spend(self) -> Spend:
        """What is settled, reserved or uncertain."""
        with database.translate_errors(self._file):
            rows = self._db.execute(
                "SELECT calls, input_tokens, output_tokens, usd, seconds, uncertain FROM ledger"
                " WHERE state != 'released' ORDER BY id"
            ).fetchall()
        return sum((Spend(*row) for row in rows), Spend())


class MemoryStore:
    """The ledger and the cache in memory, for calls that belong to no run directory."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[Spend, bool]] = {}  # reservations: need, billed
        self._booked = Spend()  # settled and uncertain
        self._numbers = count()
        self._replies: dict[str, Any] = {}

    def find_replies(self, keys: Sequence[str]) -> dict[str, Any]:
        """The stored replies among `keys`."""
        return {key: self._replies[key] for key in keys if key in self._replies}

    def reserve(self, need: Spend, billed: bool) -> int:
        """Book the most that a call may cost before it is made; the number of the reservation.

        `billed`: if the process is killed before `settle`, the next `open` counts the reservation
        in full as uncertain; otherwise the next `open` releases it.
        """
        number = next(self._numbers)
        self._open[number] = (need, billed)
        return number

    def settle(self, reservation: int, actual: Spend, replies: Mapping[str, Any]) -> None:
        """Book what the calls did cost and store their replies by key, both or neither."""
        self._end(reservation, "settled", actual, replies)

    def release(self, reservation: int) -> None:
        """Nothing was spent: the calls were not made, or were refused as a whole."""
        self._end(reservation, "released", Spend(), {})

    def abandon(self, reservation: int) -> None:
        """The calls were cut off: book them as after a kill."""
        need, billed = self._open[reservation]
        if not billed:
            self.release(reservation)
            return
        self._end(reservation, "uncertain", replace(need, uncertain=need.calls), {})

    def get_spend(self) -> Spend:
        """What is settled, reserved or uncertain; kept in memory, costs no query."""
        return sum((need for need, _ in self._open.values()), self._booked)

    def _end(self, reservation: int, state: str, spend: Spend, replies: Mapping[str, Any]) -> None:
        del self._open[reservation]
        self._booked += spend
        self._replies |= replies


class Store(RunReader, MemoryStore):
    """The one writer of a run. Every method has made its change durable when it returns."""

    def __init__(self, folder: Path, db: sqlite3.Connection, lock: RunLock) -> None:
        RunReader.__init__(self, folder, db)
        MemoryStore.__init__(self)
        self._lock = lock
        self._closed = False

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any]) -> "Store":
        """Begin a run in the directory `path`, which is made if need be.

        Raises ConfigError where there is a run already, and RunBusy where another process is
        working. The file appears under its name only when it is whole.
        """
        folder = Path(path)
        file = folder / database.FILE
        with ExitStack() as undo:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"{folder} cannot be made a run directory: {error}") from None
            lock = RunLock.take(folder)
            undo.callback(lock.release)
            if file.exists():
                raise ConfigError(
                    f"{folder} holds a run already; continue it with `remask resume {folder}` "
                    "or name another directory"
                )
            with database.translate_errors(file), draft(file) as made:
                database.write_draft(
                    made,
                    {
                        "config": orjson.dumps(_normalize_config(config)).decode(),
                        "fingerprint": fingerprint(config),
                        "created": repr(time.time()),
                        "clean": "1",
                    },
                )
            db = database.connect(file)
            undo.callback(db.close)
            store = cls(folder, db, lock)
            store._begin()
            undo.pop_all()
        return store

    @classmethod
    def open(cls, path: str | Path, config: Mapping[str, Any] | None = None) -> "Store":
        """Continue the run in `path`; what a killed process left in flight is booked first.

        Raises ConfigError where there is no run, where it is damaged or of a newer remask, and
        where `config` is given and differs (naming the keys); RunBusy where another process
        works on it.
        """
        folder = Path(path)
        database.require_run(folder)
        with ExitStack() as undo:
            lock = RunLock.take(folder)
            undo.callback(lock.release)
            db = database.connect(folder / database.FILE)
            undo.callback(db.close)
            store = cls(folder, db, lock)
            store._check()
            if config is not None and store.meta("fingerprint") != fingerprint(config):
                changes = "; ".join(_list_differences(store.config, _normalize_config(config)))
                raise ConfigError(
                    f"{folder} was started with another configuration: {changes}; "
                    "restore these values or start a new run"
                )
            store._begin()
            undo.pop_all()
        return store

    @staticmethod
    def read(path: str | Path) -> RunReader:
        """Look at the run in `path`, running or not. Raises ConfigError as `open` does."""
        folder = Path(path)
        database.require_run(folder)
        with ExitStack() as undo:
            # Not mode=ro: only a connection that may write can roll back what a kill cut off.
            db = database.connect(folder / database.FILE)
            undo.callback(db.close)
            with database.translate_errors(folder / database.FILE):
                db.execute("PRAGMA query_only = ON")
            database.check_schema(folder / database.FILE, db)
            undo.pop_all()
        return RunReader(folder, db)

    def close(self) -> None:
        """Leave the run in order and let others have it. May be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            with self._transaction() as db:
                db.execute("UPDATE meta SET value = '1' WHERE key = 'clean'")
        finally:
            self._db.close()
            self._lock.release()

    def append(self, event: Mapping[str, Any], spend: Spend | None = None) -> bool:
        """Add an event unless an equal one is stored; whether it was new. `spend`: of the time up
        to it; a transaction of its own (`book`) would wait for the disk once more."""
        body = orjson.dumps(dict(event), option=orjson.OPT_SORT_KEYS)
        row = (content_id("event", dict(event)), time.time(), body)
        with self._transaction() as db:
            done = db.execute("INSERT OR IGNORE INTO events (id, at, body) VALUES (?, ?, ?)", row)
            if spend is not None:
                _insert_entry(db, "settled", spend, billed=False)
        self._booked += spend or Spend()
        return done.rowcount == 1

    def reserve(self, need: Spend, billed: bool) -> int:
        with self._transaction() as db:
            id = _insert_entry(db, "reserved", need, billed)
            self._open[id] = (need, billed)  # before the commit: a Ctrl-C may only over-count
        return id

    def get_spend(self) -> Spend:
        return MemoryStore.get_spend(self)

    def _end(self, reservation: int, state: str, spend: Spend, replies: Mapping[str, Any]) -> None:
        bodies = [
            (key, reservation, content_id("reply", key, dict(reply)), orjson.dumps(dict(reply)))
            for key, reply in replies.items()
        ]
        with self._transaction() as db:
            done = db.execute(
                "UPDATE ledger SET state = ?, calls = ?, input_tokens = ?, output_tokens = ?,"
                " usd = ?, seconds = ?, uncertain = ? WHERE id = ? AND state = 'reserved'",
                (state, *astuple(spend), reservation),
            )
            if done.rowcount != 1:
                raise ValueError(f"reservation {reservation} is not open")
            db.executemany("INSERT OR IGNORE INTO cache VALUES (?, ?, ?, ?)", bodies)
        super()._end(reservation, state, spend, {})

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with database.translate_errors(self._file):
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:  # Ctrl-C too: half a change must not stay open
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _check(self) -> None:
        """Raise ConfigError unless the file is whole and this remask can read it."""
        database.check_schema(self._file, self._db)
        if self.meta("clean") == "1":
            return
        with database.translate_errors(self._file):
            verdict = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise database.damaged_error(self._file, " ".join(str(verdict).split()))

    def _begin(self) -> None:
        """Take the run over: book what was in flight, and mark it as in use."""
        with database.translate_errors(self._file):
            self._db.execute(
                f"PRAGMA journal_mode = {database.journal_mode(sqlite3.sqlite_version_info)}"
            )
        with self._transaction() as db:
            db.execute("UPDATE meta SET value = '0' WHERE key = 'clean'")
            db.execute(
                "UPDATE ledger SET state = 'uncertain', uncertain = calls"
                " WHERE state = 'reserved' AND billed"
            )
            db.execute("UPDATE ledger SET state = 'released' WHERE state = 'reserved'")
        self._booked = super().get_spend()


def _normalize_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from JSON: tuples are lists."""
    value: dict[str, Any] = orjson.loads(orjson.dumps(dict(config)))
    return value


def _list_differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """A phrase for every key whose value differs, nested keys joined by dots."""
    found: list[str] = []
    for key in sorted({*old, *new}):
        was, now = old.get(key), new.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            found += _list_differences(was, now, f"{prefix}{key}.")
        elif key not in old or key not in new or orjson.dumps(was) != orjson.dumps(now):
            a, b = _cut_excerpts(_format_value(old, key), _format_value(new, key))
            found.append(f"{prefix}{key} is {a} in the run and {b} now")
    return found


def _format_value(config: Mapping[str, Any], key: str) -> str:
    return repr(config[key]) if key in config else "missing"


def _cut_excerpts(a: str, b: str, width: int = 60) -> tuple[str, str]:
    """Both texts from shortly before their first difference on, at most `width` characters."""
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), math.inf)
    start = max(0, int(min(same, len(a), len(b))) - width // 3)

    def cut(text: str) -> str:
        tail = text[start : start + width]
        return ("…" if start else "") + tail + ("…" if start + width < len(text) else "")

    return (cut(a), cut(b)) if max(len(a), len(b)) > width else (a, b)


def _insert_entry(db: sqlite3.Connection, state: str, spend: Spend, billed: bool) -> int:
    """A new row of the ledger; its number."""
    id = db.execute(
        "INSERT INTO ledger (state, at, billed, calls, input_tokens, output_tokens, usd, seconds,"
        " uncertain) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (state, time.time(), billed, *astuple(spend)),
    ).lastrowid
    assert id is not None
    return id


# --- A run directory, the only state of a run.
#
# `store.py` is the door: events, cache, ledger. `database.py` knows the SQLite file, `lock.py` the
# lock of the operating system.


__all__ = ["MemoryStore", "RunReader", "Store", "fingerprint"]
