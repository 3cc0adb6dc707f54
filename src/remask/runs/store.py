"""The store of a run: events, cached replies and the ledger, in one SQLite file.

One process writes, with a lock of the operating system; any number can read. The upper bound of a
call's cost is stored before the call is made. Its cost and its reply are then stored in one
transaction.
"""

import math
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import astuple, replace
from itertools import count
from pathlib import Path
from typing import Any, Self

import orjson

from remask.errors import ConfigError
from remask.events import Event, Fold, decode
from remask.files import draft
from remask.ids import content_id
from remask.runs import database
from remask.runs.budget import Spend
from remask.runs.lock import RunLock
from remask.sanitize import hide_credentials, one_line

PAGE_ROWS = 256  # rows read at a time


def strip_credentials(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without the names and passwords in its URLs, which are never stored."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found[key] = strip_credentials(value)
        elif isinstance(value, list):
            found[key] = [strip_credentials(v) if isinstance(v, Mapping) else v for v in value]
        else:
            found[key] = hide_credentials(value) if key == "base_url" and value else value
    return found


def fingerprint(config: Mapping[str, Any]) -> str:
    """Return the hash of a resolved configuration."""
    return content_id("config", dict(config))


class RunReader:
    """A run that is only read: no lock is needed, and all that is committed can be seen."""

    def __init__(self, folder: Path, db: sqlite3.Connection) -> None:
        self.folder = folder
        self._file = folder / database.FILE
        self._db = db
        self._ended = 0, Spend()  # the last entry of the ledger before the first open one; the sum up to it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def meta(self, key: str) -> str:
        """Return "config" (JSON), "fingerprint" or "created" (seconds since 1970)."""
        with database.translate_errors(self._file):
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise database.damaged_error(self._file, f"it has no {key}")
        return str(row[0])

    @property
    def config(self) -> dict[str, Any]:
        config = database.parse_record(self._file, self.meta("config"))
        if fingerprint(config) != self.meta("fingerprint"):
            raise database.damaged_error(self._file, "its settings do not match their fingerprint")
        return config

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield all events in the order in which they were added."""
        return (event for _, _, event in self._read_events())

    def _read_events(
        self, kinds: Sequence[str] = (), after: int = 0, prompt: str = ""
    ) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Yield (number, calls booked before it, body) of the events behind the first `after`.

        With `kinds`, only of these kinds. With `prompt`, only of this id.
        """
        # Page by page, because an open cursor would block the commits of the writer.
        get = "AND json_extract(CAST(body AS TEXT), '$.{}') IN ({})"
        of = get.format("kind", ",".join("?" * len(kinds))) if kinds else ""
        of += get.format("id", "?") if prompt else ""
        values = (*kinds, *filter(None, (prompt,)))
        query = f"SELECT n, calls, id, body FROM events WHERE n > ? {of} ORDER BY n LIMIT ?"
        last = after
        while True:
            with database.translate_errors(self._file, database.FILE_DAMAGE_CODES):
                rows = self._db.execute(query, (last, *values, PAGE_ROWS)).fetchall()
            if not rows:
                return
            for n, calls, id, body in rows:
                if n != last + 1 and not kinds:
                    raise database.damaged_error(self._file, f"event {last + 1} is missing")
                event = database.parse_record(self._file, body)
                if (
                    content_id("event", event) != id
                    or type(calls) is not int
                    or not 0 <= calls < database.MAX_COUNT
                ):
                    raise database.damaged_error(self._file, f"event {n} does not match its id")
                yield n, calls, event
                last = n

    def find_events(self, *kinds: str, prompt: str = "") -> Iterator[Event]:
        """Yield the events of some kinds, and of the id `prompt` where it is given, as values in order."""
        for n, _, stored in self._read_events(kinds, prompt=prompt):
            try:
                yield decode(stored)
            except ValueError as error:
                raise database.damaged_error(self._file, f"event {n} {error}") from None

    def read_on(self, fold: Fold, after: int = 0) -> Iterator[tuple[int, Event]]:
        """Add the events behind the first `after` to `fold`; yield each with the calls before it."""
        for n, calls, stored in self._read_events(after=after):
            try:
                event = decode(stored)
                fold.add(event)
            except ValueError as error:
                raise database.damaged_error(self._file, f"event {n} {error}") from None
            yield calls, event

    def get_version(self) -> int:
        """Return a number that changes when another connection has changed the run."""
        with database.translate_errors(self._file):
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def call_seconds(self) -> float:
        """Return the seconds of target calls, without other booked time."""
        query = "SELECT coalesce(sum(seconds), 0) FROM ledger WHERE state != 'released' AND calls > 0"
        with database.translate_errors(self._file):
            return float(self._db.execute(query).fetchone()[0])

    def find_replies(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the stored replies by key."""
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
                    raise database.damaged_error(self._file, f"the reply {key} does not match its seal")
        return found

    def find_outcomes(self, prompt: str) -> dict[str, dict[str, Any]]:
        """Return the stored outcomes of a prompt by row, in the order in which they came."""
        with database.translate_errors(self._file):
            rows = self._db.execute(
                "SELECT row, seal, body FROM outcomes WHERE prompt = ? ORDER BY rowid", (prompt,)
            ).fetchall()
        found: dict[str, dict[str, Any]] = {}
        for row, seal, body in rows:
            found[row] = database.parse_record(self._file, body)
            if content_id("outcome", prompt, row, found[row]) != seal:
                raise database.damaged_error(self._file, f"the outcome of row {row} does not match its seal")
        return found

    def get_spend(self) -> Spend:
        """Return the sum of what is settled, reserved or uncertain. What has ended is read once."""
        last, found = self._ended
        with database.translate_errors(self._file):
            rows = self._db.execute(
                "SELECT id, state, calls, input_tokens, output_tokens, usd, seconds, uncertain FROM ledger"
                " WHERE id > ? ORDER BY id", (last,)
            ).fetchall()  # fmt: skip
        is_fixed = True  # whether all entries so far have ended
        for id, state, *row in rows:
            if state != "released":
                if not database.is_spend(row):
                    entry = one_line(repr(tuple(row)), 80)
                    raise database.damaged_error(self._file, f"its ledger has the entry {entry}")
                found += Spend(*row)
            if is_fixed := is_fixed and state != "reserved":
                self._ended = id, found
        return found


class MemoryStore:
    """The ledger and the cached replies in memory, for calls without a run directory."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[Spend, bool]] = {}  # reservations: (need, billed)
        self._needed, self._booked = Spend(), Spend()  # the sums: reserved; settled and uncertain
        self._numbers = count()
        self._replies: dict[str, Any] = {}

    def find_replies(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return the stored replies by key."""
        return {key: self._replies[key] for key in keys if key in self._replies}

    def group(self) -> AbstractContextManager[None]:
        """Return a block whose changes belong together."""
        return nullcontext()

    def reserve(self, need: Spend, billed: bool) -> int:
        """Book the upper bound of a call's cost; return the number of the reservation.

        If the process is killed before `settle`, the next `open` marks a `billed` reservation as
        uncertain and releases another one.
        """
        number = next(self._numbers)
        self._open[number], self._needed = (need, billed), self._needed + need
        return number

    def settle(self, reservation: int, actual: Spend, replies: Mapping[str, Any]) -> None:
        """Book the cost of the calls and store their replies by key, in one transaction."""
        self._end(reservation, "settled", actual, replies)

    def release(self, reservation: int) -> None:
        """Book nothing for calls that were not made, or were all refused."""
        self._end(reservation, "released", Spend(), {})

    def abandon(self, reservation: int) -> None:
        """Book interrupted calls like those of a killed process."""
        if reservation not in self._open:
            return  # its group was rolled back
        need, billed = self._open[reservation]
        if not billed:
            self.release(reservation)
            return
        self._end(reservation, "uncertain", replace(need, uncertain=need.calls), {})

    def get_spend(self) -> Spend:
        """Return the sum of what is settled, reserved or uncertain, without a query."""
        return self._booked + self._needed

    def get_booked(self) -> Spend:
        """Return the sum of what is settled or uncertain, which only grows."""
        return self._booked

    def _end(self, reservation: int, state: str, spend: Spend, replies: Mapping[str, Any]) -> None:
        need = self._open.pop(reservation)[0]
        self._needed = self._needed - need if self._open else Spend()  # so that no rest of a float stays
        self._booked += spend
        self._replies |= replies


class Store(RunReader, MemoryStore):
    """The writer of a run. Every method commits its change before it returns."""

    def __init__(self, folder: Path, db: sqlite3.Connection, lock: RunLock) -> None:
        RunReader.__init__(self, folder, db)
        MemoryStore.__init__(self)
        self._lock = lock
        self._closed = False
        self._failure: ConfigError | None = None  # of a change inside a group

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any]) -> "Store":
        """Create a run in the directory `path`, which is created if needed.

        The database appears only when it is complete. Raises ConfigError if there is a run already,
        and RunBusy if another process works in the directory.
        """
        folder = Path(path)
        file = folder / database.FILE
        with ExitStack() as undo:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                reason = f"the run directory {folder} cannot be created ({error.strerror}); use another path"
                raise ConfigError(reason) from None
            lock = RunLock.take(folder)
            undo.callback(lock.release)
            if file.exists():
                raise ConfigError(
                    f"{folder} already holds a run; continue it with `remask resume {folder}` or "
                    "use another directory"
                )
            with database.translate_errors(file), draft(file) as made:
                database.write_draft(
                    made,
                    {
                        "config": orjson.dumps(_normalize_config(config)).decode(),
                        "fingerprint": fingerprint(config),
                        "created": repr(time.time()),
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
        """Open the run in `path` to continue it. Interrupted calls of a killed process are booked.

        Raises ConfigError if there is no run, if it is damaged or of a newer version, or if
        `config` differs (with the keys), and RunBusy if another process works in the directory.
        """
        folder = Path(path)
        database.require_run(folder)
        with ExitStack() as undo:
            lock = RunLock.take(folder)
            undo.callback(lock.release)
            db = database.connect(folder / database.FILE)
            undo.callback(db.close)
            store = cls(folder, db, lock)
            database.require_sound(folder / database.FILE, db)
            if config is not None and store.meta("fingerprint") != fingerprint(config):
                changes = "; ".join(_list_differences(store.config, _normalize_config(config)))
                raise ConfigError(
                    f"{folder} was started with other settings: {changes}; restore these values or "
                    "start a new run"
                )
            store._begin()
            undo.pop_all()
        return store

    @staticmethod
    def read(path: str | Path) -> RunReader:
        """Open the run in `path` for reading, also while it runs. Raises ConfigError as `open`."""
        folder = Path(path)
        database.require_run(folder)
        with ExitStack() as undo:
            db = database.connect_to_read(folder / database.FILE)
            undo.callback(db.close)
            database.require_sound(folder / database.FILE, db)
            undo.pop_all()
        return RunReader(folder, db)

    def close(self) -> None:
        """Close the database and release the lock. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._db.close()
        self._lock.release()

    def append(self, event: Mapping[str, Any], spend: Spend | None = None) -> bool:
        """Add an event unless an equal one is stored; return whether it was new.

        spend: booked in the same transaction, which saves one wait for the disk.
        """
        body = orjson.dumps(dict(event), option=orjson.OPT_SORT_KEYS)
        row = (content_id("event", dict(event)), time.time(), self.get_spend().calls, body)
        with self._transaction() as db:
            done = db.execute("INSERT OR IGNORE INTO events (id, at, calls, body) VALUES (?, ?, ?, ?)", row)
            if spend is not None:
                _insert_entry(db, "settled", spend, billed=False)
        self._booked += spend or Spend()
        return done.rowcount == 1

    def keep_outcomes(self, prompt: str, outcomes: Mapping[str, Mapping[str, Any]]) -> None:
        """Store what came of rows under a prompt, over earlier outcomes of these rows."""
        rows = [
            (prompt, row, content_id("outcome", prompt, row, dict(body)), orjson.dumps(dict(body)))
            for row, body in outcomes.items()
        ]
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?)", rows)

    def book(self, spend: Spend) -> None:
        """Book what was spent without a call: time."""
        with self._transaction() as db:
            _insert_entry(db, "settled", spend, billed=False)
        self._booked += spend

    def count_replies(self) -> int:
        """Return the number of stored replies."""
        with database.translate_errors(self._file):
            return int(self._db.execute("SELECT count(*) FROM cache").fetchone()[0])

    def reserve(self, need: Spend, billed: bool) -> int:
        with self._transaction() as db:
            id = _insert_entry(db, "reserved", need, billed)
            self._open[id], self._needed = (need, billed), self._needed + need  # a Ctrl-C can only overcount
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
    def group(self) -> Iterator[None]:
        """Commit all changes of the block at once, at its end, or none where it raises."""
        before = dict(self._open), self._needed, self._booked
        try:
            with self._transaction():
                yield
        except BaseException:
            self._open, self._needed, self._booked = before
            raise

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._db.in_transaction:  # inside of a group
            try:
                with database.translate_errors(self._file):
                    yield self._db
            except ConfigError as error:
                self._failure = error
                raise
            return
        with database.translate_errors(self._file):
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                # After some errors of the disk, SQLite has rolled back the whole group. The block
                # may have caught the error, to book what else had ended.
                if self._failure is not None and not self._db.in_transaction:
                    raise self._failure
                self._db.execute("COMMIT")
            except BaseException:  # also for Ctrl-C, so that no transaction stays open
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _begin(self) -> None:
        """Book the interrupted calls of an earlier process."""
        with database.translate_errors(self._file):
            self._db.execute(f"PRAGMA journal_mode = {database.journal_mode(sqlite3.sqlite_version_info)}")
        with self._transaction() as db:
            db.execute(
                "UPDATE ledger SET state = 'uncertain', uncertain = calls WHERE state = 'reserved' AND billed"
            )
            db.execute("UPDATE ledger SET state = 'released' WHERE state = 'reserved'")
        self._booked = super().get_spend()


def _normalize_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the configuration as JSON does: tuples become lists."""
    value: dict[str, Any] = orjson.loads(orjson.dumps(dict(config)))
    return value


def _list_differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Describe every key with another value; nested keys are joined by dots."""
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
    """Cut both texts to `width` characters around their first difference."""
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), math.inf)
    start = max(0, int(min(same, len(a), len(b))) - width // 3)

    def cut(text: str) -> str:
        tail = text[start : start + width]
        return ("…" if start else "") + tail + ("…" if start + width < len(text) else "")

    return (cut(a), cut(b)) if max(len(a), len(b)) > width else (a, b)


def _insert_entry(db: sqlite3.Connection, state: str, spend: Spend, billed: bool) -> int:
    """Insert a row into the ledger and return its number."""
    id = db.execute(
        "INSERT INTO ledger (state, at, billed, calls, input_tokens, output_tokens, usd, seconds,"
        " uncertain) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (state, time.time(), billed, *astuple(spend)),
    ).lastrowid
    assert id is not None
    return id
