"""What `remask watch` remembers, in one SQLite file: conversations, looks, and how far was read.

A conversation is a row that is found by its key, so reading it again changes nothing. It only grows:
of two forms the longer one stays, with the ratings of both. Where the key is made of the content, each
shorter form has a key of its own, by which the row is found, too. Thus it does not matter how often,
in which order and in which file a conversation comes. All of one reading is one transaction.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import orjson

from remask.errors import ConfigError
from remask.files import draft
from remask.runs import database
from remask.runs.lock import RunLock

MAX_ALIKE = 100  # conversations that begin alike, among which the one that goes on is looked for

_TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    # In the order in which they came. `marks` are hashes of the ratings. `body` is a chat without
    # secrets, or NULL where no window needs it any more.
    "CREATE TABLE conversations (n INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,"
    " turns INTEGER NOT NULL, marks TEXT NOT NULL, body BLOB)",
    # Keys of shorter forms of a conversation.
    "CREATE TABLE forms (key TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE sources (place TEXT PRIMARY KEY, read_to REAL NOT NULL)",
    "CREATE TABLE looks (n INTEGER PRIMARY KEY, day TEXT NOT NULL,"
    " state TEXT NOT NULL CHECK (state IN ('pending', 'done')), body BLOB NOT NULL)",
)
LAYOUT = database.FileLayout(
    "a state of remask watch", _TABLES, 0x726D7777, 2,  # "rmww"
    restart="put a copy back, or move it away to begin with a new reference",
    proceed="then run the command again",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Arrival:
    """A conversation as it was read."""

    key: str  # a hash; of a content with the number of equal ones up to here, such as "5d41.2"
    turns: int
    marks: frozenset[str]  # hashes of its ratings and of the right response
    make_body: Callable[[], dict[str, Any]]  # redacts the texts, which takes most of the time
    forms: tuple[str, ...] = ()  # keys of its shorter forms, longest first, where they have others


@dataclass(frozen=True, slots=True)
class Look:
    """One comparison, and what became of it."""

    n: int
    day: str
    pending: bool  # whether the proposal is still to be made
    body: dict[str, Any]


class WatchState:
    """The state, open for this process alone, or a copy of it that is forgotten."""

    def __init__(self, file: Path, db: sqlite3.Connection, lock: RunLock | None) -> None:
        self._file, self._db, self._lock = file, db, lock

    @classmethod
    def open(cls, file: Path) -> Self:
        """Open the state, which is made where there is none.

        Raises ConfigError for a folder that is not there and a file that is damaged, and RunBusy
        where another process has it.
        """
        _require_folder(file)
        with ExitStack() as undo:
            lock = RunLock.take(file, file.with_name(f"{file.name}.lock"))
            undo.callback(lock.release)
            if not file.exists():
                with database.translate_errors(file, layout=LAYOUT), draft(file) as made:
                    database.write_draft(made, {}, LAYOUT)
            db = database.connect(file, layout=LAYOUT)
            undo.callback(db.close)
            database.require_sound(file, db, LAYOUT)
            undo.pop_all()
        return cls(file, db, lock)

    @classmethod
    def copy(cls, file: Path) -> Self:
        """Return a copy, a file of SQLite that goes with this process. Raises ConfigError as `open`."""
        _require_folder(file)
        db = sqlite3.connect("", isolation_level=None)
        with ExitStack() as undo:
            undo.callback(db.close)
            if file.exists():
                with closing(database.connect_to_read(file)) as stored:
                    database.require_sound(file, stored, LAYOUT)
                    with database.translate_errors(file, layout=LAYOUT):
                        stored.backup(db)
            else:
                for table in _TABLES:
                    db.execute(table)
            undo.pop_all()
        return cls(file, db, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        if self._lock is not None:
            self._lock.release()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Store what the block does as a whole, or nothing where it raises."""
        with database.translate_errors(self._file, layout=LAYOUT):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _ask(self, query: str, *values: object) -> list[Any]:
        with database.translate_errors(self._file, layout=LAYOUT):
            return self._db.execute(query, values).fetchall()

    # --- conversations

    def add(self, found: Arrival) -> Literal["new", "grown", "known"]:
        """Store a conversation. Call this within `change`."""
        row = self._find(found)
        if row is None:
            marks = " ".join(sorted(found.marks))
            ((n,),) = self._ask(
                "INSERT INTO conversations (key, turns, marks, body) VALUES (?, ?, ?, ?) RETURNING n",
                found.key, found.turns, marks, orjson.dumps(found.make_body()),
            )  # fmt: skip
            self._add_forms(n, found.forms)
            return "new"
        n, key, turns, marks, stored = row
        known = frozenset(str(marks).split())
        longer = found.turns > turns
        if stored is None or not (longer or found.marks - known):
            return "known"
        body, other = self._parse(stored), found.make_body()
        if longer:
            body, other = other, body
            if key != found.key:
                self._add_forms(n, (key, *found.forms))
                self._ask("UPDATE conversations SET key = ? WHERE n = ?", found.key, n)
        body = merge(body, other, same_length=found.turns == turns)
        self._ask(
            "UPDATE conversations SET turns = ?, marks = ?, body = ? WHERE n = ?",
            max(turns, found.turns), " ".join(sorted(known | found.marks)), orjson.dumps(body), n,
        )  # fmt: skip
        return "grown"

    def _find(self, found: Arrival) -> Any:
        """Return n, key, turns, marks and body of a conversation in any of its forms; None: it is new."""
        ask = "SELECT n, key, turns, marks, body FROM conversations WHERE"
        rows = self._ask(f"{ask} key = ?", found.key)
        rows = rows or self._ask(f"{ask} n = (SELECT n FROM forms WHERE key = ?)", found.key)
        for form in found.forms:
            rows = rows or self._ask(f"{ask} key = ?", form)
            if not rows and self._ask("SELECT n FROM forms WHERE key = ?", form):
                # One of several that begin alike went on before this one, and has taken its number.
                text, number = form.rsplit(".")
                others = [f"{text}.{i}" for i in range(max(1, int(number) - MAX_ALIKE), int(number))]
                marks = ", ".join("?" * len(others))
                last = "ORDER BY length(key) DESC, key DESC LIMIT 1"
                rows = self._ask(f"{ask} key IN ({marks}) {last}", *others)
        return rows[0] if rows else None

    def _add_forms(self, n: int, forms: tuple[str, ...]) -> None:
        """Store keys by which a conversation is found beside its own; others keep theirs."""
        for form in forms:
            self._ask("INSERT OR IGNORE INTO forms VALUES (?, ?)", form, n)

    @property
    def count(self) -> int:
        """How many conversations were ever counted."""
        return int(self._ask("SELECT coalesce(max(n), 0) FROM conversations")[0][0])

    def bodies(self, first: int, last: int) -> dict[str, dict[str, Any]]:
        """Return the chats number first to last by their keys, in order."""
        rows = self._ask(
            "SELECT key, body FROM conversations WHERE n BETWEEN ? AND ? AND body NOTNULL ORDER BY n",
            first,
            last,
        )
        found = {str(key): self._parse(body) for key, body in rows}
        if not all(isinstance(body.get("messages"), list) for body in found.values()):
            raise database.damaged_error(self._file, "a conversation has no messages", LAYOUT)
        return found

    def forget(self, first: int, last: int) -> None:
        """Delete the texts of the conversations first to last; they stay counted."""
        self._ask(
            "UPDATE conversations SET body = NULL WHERE n BETWEEN ? AND ? AND body NOTNULL", first, last
        )

    # --- how far was read, and settings

    def read_to(self, place: str) -> float | None:
        """Return up to when a server was read, in seconds since 1970; None: never."""
        rows = self._ask("SELECT read_to FROM sources WHERE place = ?", place)
        return float(rows[0][0]) if rows else None

    def set_read_to(self, place: str, time: float) -> None:
        self._ask("INSERT OR REPLACE INTO sources VALUES (?, ?)", place, time)

    def meta(self, key: str) -> str:
        """Return a stored value; "" where there is none."""
        rows = self._ask("SELECT value FROM meta WHERE key = ?", key)
        return str(rows[0][0]) if rows else ""

    @property
    def start(self) -> int:
        """The number of the first conversation of the reference."""
        try:
            return int(self.meta("start"))
        except ValueError:
            raise database.damaged_error(self._file, "it has no reference", LAYOUT) from None

    def set_meta(self, **values: object) -> None:
        for key, value in values.items():
            self._ask("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, str(value))

    # --- looks

    def last_look(self) -> Look | None:
        rows = self._ask("SELECT n, day, state, body FROM looks ORDER BY n DESC LIMIT 1")
        if not rows:
            return None
        n, day, state, body = rows[0]
        found = self._parse(body)
        kinds = {"name": str, "first": int, "last": int, "tests": list, "kinds": list}
        for key, kind in kinds.items():
            if not isinstance(found.get(key), kind):
                raise database.damaged_error(self._file, f"a comparison has no {key!r}", LAYOUT)
        return Look(n, day, state == "pending", found)

    def add_look(self, day: str, body: Mapping[str, Any], pending: bool) -> None:
        state = "pending" if pending else "done"
        self._ask("INSERT INTO looks (day, state, body) VALUES (?, ?, ?)", day, state, orjson.dumps(body))

    def finish_look(self, look: Look, **more: object) -> None:
        """Mark a look as done, and store more about it."""
        body = orjson.dumps({**look.body, **more})
        self._ask("UPDATE looks SET state = 'done', body = ? WHERE n = ?", body, look.n)

    def _parse(self, body: object) -> dict[str, Any]:
        return database.parse_record(self._file, body, LAYOUT)


def merge(body: Mapping[str, Any], other: Mapping[str, Any], same_length: bool) -> dict[str, Any]:
    """Return the chat `body` with the ratings of both, and of a form of the same length with its answer.

    >>> merge({"messages": [1, 2], "feedback": [3]}, {"messages": [1], "feedback": [4]}, False)
    {'messages': [1, 2], 'feedback': [3, 4]}
    """
    found = dict(body)
    notes = {orjson.dumps(note): note for some in (body, other) for note in some.get("feedback") or ()}
    if notes:
        found["feedback"] = [notes[key] for key in sorted(notes)]
    if same_length and "expected" in other:
        found.setdefault("expected", other["expected"])
    return found


def _require_folder(file: Path) -> None:
    if not file.parent.is_dir():
        raise ConfigError(
            f"{file.parent}, the folder of the state, does not exist; make it, or correct [watch] state"
        )
    if file.is_dir():
        raise ConfigError(f"{file} is a folder; name a file in it as [watch] state")
