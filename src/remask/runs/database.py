"""The SQLite files of a run and of `remask watch`: tables, settings, and checks for damage.

Errors of the file or of the disk are raised as ConfigError. Errors of the program are not caught.
"""

import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from remask.errors import ConfigError

FILE = "run.db"
MAX_COUNT = 1 << 53  # of calls and tokens; larger numbers are no counts
MIN_WAL_VERSION = (3, 51, 3)  # older versions of SQLite can reset a WAL file that is in use


@dataclass(frozen=True, slots=True)
class FileLayout:
    """What a kind of file holds, and what its errors advise."""

    name: str  # "the database of a run"
    tables: tuple[str, ...]
    application: int  # PRAGMA application_id
    schema: int  # PRAGMA user_version
    restart: str = "start a new run"  # where the file is of no use
    proceed: str = "then continue with `remask resume {folder}`"  # where the disk is at fault


_TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    # `at` is the wall clock, and `calls` are those booked before the event. They are not part of the
    # body, because the id is a hash of the body.
    "CREATE TABLE events (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at REAL NOT NULL,"
    " calls INTEGER NOT NULL, body BLOB NOT NULL)",
    "CREATE TABLE ledger (id INTEGER PRIMARY KEY, at REAL NOT NULL, billed INTEGER NOT NULL,"
    " state TEXT NOT NULL CHECK (state IN ('reserved', 'settled', 'released', 'uncertain')),"
    " calls INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,"
    " usd REAL NOT NULL, seconds REAL NOT NULL, uncertain INTEGER NOT NULL)",
    "CREATE TABLE cache (key TEXT PRIMARY KEY, ledger INTEGER NOT NULL REFERENCES ledger (id),"
    " seal TEXT NOT NULL, body BLOB NOT NULL)",
    # What came of a validation or test row under a prompt, for reports. Nothing is computed from it.
    "CREATE TABLE outcomes (prompt TEXT NOT NULL, row TEXT NOT NULL, seal TEXT NOT NULL,"
    " body BLOB NOT NULL, PRIMARY KEY (prompt, row))",
)
RUN = FileLayout("the database of a run", _TABLES, 0x726D736B, 2)  # "rmsk"
_DAMAGE_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# Where nothing but the file can cause an error: in JSON of the file, and in pragmas.
FILE_DAMAGE_CODES = (*_DAMAGE_CODES, sqlite3.SQLITE_ERROR)
_ENVIRONMENT_CODES = (  # errors of the disk or of file permissions
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
)


def journal_mode(version: tuple[int, ...]) -> str:
    """Return "WAL" if this version of SQLite handles it correctly, else "DELETE"."""
    return "WAL" if version >= MIN_WAL_VERSION else "DELETE"


def connect_to_read(file: Path) -> sqlite3.Connection:
    """Connect to a file that exists, for reading alone, also while another process writes."""
    try:
        # Not mode=ro: only a connection that may write can roll back an interrupted change.
        return _connect_and_look(file)
    except ConfigError as error:
        # In WAL mode SQLite needs to write a file beside the database, which a disk that can only be
        # read does not allow. Without changes in a WAL file, the database is whole by itself.
        code = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF
        wal = file.with_name(f"{file.name}-wal")
        changes = wal.exists() and wal.stat().st_size
        if code not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or changes:
            raise
        return _connect_and_look(file, "mode=ro&immutable=1")


def _connect_and_look(file: Path, *options: str) -> sqlite3.Connection:
    with ExitStack() as undo:
        db = connect(file, *options)
        undo.callback(db.close)
        with translate_errors(file):
            db.execute("PRAGMA query_only = ON")
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        undo.pop_all()
    return db


def connect(file: Path, options: str = "mode=rw", *, layout: FileLayout = RUN) -> sqlite3.Connection:
    """Connect in autocommit mode to a file that exists."""
    with translate_errors(file, FILE_DAMAGE_CODES, layout), ExitStack() as undo:
        db = sqlite3.connect(f"{file.resolve().as_uri()}?{options}", uri=True, isolation_level=None)
        undo.callback(db.close)
        db.text_factory = _decode_text
        db.execute("PRAGMA busy_timeout = 30000")
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cell_size_check = ON")
        db.execute("PRAGMA mmap_size = 0")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA synchronous = FULL")
        undo.pop_all()
    return db


def _decode_text(text: bytes) -> str:
    """Decode without an error, so that our own checks find damaged text."""
    return text.decode("utf-8", "replace")


def write_draft(draft: Path, meta: Mapping[str, str], layout: FileLayout = RUN) -> None:
    """Write a new database to an empty file in one transaction, and close it for renaming."""
    db = connect(draft)
    try:
        db.execute("BEGIN IMMEDIATE")
        for table in layout.tables:
            db.execute(table)
        db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        db.execute(f"PRAGMA application_id = {layout.application}")
        db.execute(f"PRAGMA user_version = {layout.schema}")
        db.execute("COMMIT")
    finally:
        db.close()


def require_run(folder: Path) -> None:
    """Raise ConfigError if `folder` has no run."""
    if not (folder / FILE).is_file():
        raise ConfigError(f"{folder} is not the folder of a run (it has no {FILE}); check the path")


def require_sound(file: Path, db: sqlite3.Connection, layout: FileLayout = RUN) -> None:
    """Raise ConfigError unless this is an undamaged database of this layout that this remask can read."""
    with translate_errors(file, layout=layout):
        application = db.execute("PRAGMA application_id").fetchone()[0]
        schema = db.execute("PRAGMA user_version").fetchone()[0]
        page_size = db.execute("PRAGMA page_size").fetchone()[0]
        tables = {row[0] for row in db.execute("SELECT sql FROM sqlite_master WHERE sql NOTNULL")}
    if application != layout.application:
        raise damaged_error(file, f"it is not {layout.name}", layout)
    known = layout.schema
    if schema > known:
        raise ConfigError(
            f"{file} was written by a newer remask (schema {schema}, this one knows {known}); upgrade remask"
        )
    if schema < known:
        raise ConfigError(
            f"{file} was written by an older remask (schema {schema}, this one knows {known}); "
            f"{layout.restart}"
        )
    # SQLite pads a truncated page with zeros and reads them as content, so check the size.
    if file.stat().st_size % page_size or tables != set(layout.tables):
        raise damaged_error(file, "a part of it is missing or changed", layout)
    with translate_errors(file, layout=layout):
        verdict = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    if verdict != "ok":
        raise damaged_error(file, " ".join(verdict.split()), layout)


@contextmanager
def translate_errors(
    file: Path, damage: tuple[int, ...] = _DAMAGE_CODES, layout: FileLayout = RUN
) -> Iterator[None]:
    """Raise errors of SQLite about the file or the disk as ConfigError; others are bugs."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        # Errors that Python's own module raises have no code; these are bugs.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
        if code in damage:
            raise damaged_error(file, str(error), layout) from error
        if code in _ENVIRONMENT_CODES:
            raise ConfigError(
                f"{file} cannot be read or written ({error}); fix this, "
                f"{layout.proceed.format(folder=file.parent)}"
            ) from error
        raise
    except UnicodeDecodeError as error:  # an error message of SQLite that quotes broken bytes
        raise damaged_error(file, "its text is not UTF-8", layout) from error


def damaged_error(file: Path, why: str, layout: FileLayout = RUN) -> ConfigError:
    return ConfigError(f"{file} is damaged: {why}; {layout.restart}")


def parse_record(file: Path, body: Any, layout: FileLayout = RUN) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except (orjson.JSONDecodeError, TypeError) as error:  # TypeError: the column holds a number
        raise damaged_error(file, f"a record is not JSON ({error})", layout) from None
    if not isinstance(value, dict):
        raise damaged_error(file, "a record is no JSON object", layout)
    return value


def is_spend(row: Sequence[object]) -> bool:
    """Return whether a row of the ledger holds whole numbers and amounts that a run can spend."""
    *counts, usd, seconds, uncertain = row
    whole = all(type(n) is int and 0 <= n < MAX_COUNT for n in (*counts, uncertain))
    amounts = all(type(x) is float and 0 <= x < math.inf for x in (usd, seconds))
    return whole and amounts and uncertain <= counts[0]  # type: ignore[operator]
