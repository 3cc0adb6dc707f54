"""The SQLite file of a run: its tables, its settings, and what damage looks like.

Knows SQLite. Does not know what the rows mean or who may write. Errors of the file and of the disk
become ConfigError here, one sentence each; errors of the program stay what they are.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson

from remask.errors import ConfigError

FILE = "run.db"
SCHEMA = 1  # PRAGMA user_version
APPLICATION = 0x726D736B  # PRAGMA application_id: "rmsk"
MIN_WAL_VERSION = (3, 51, 3)  # before this version a WAL file could be reset while it was in use

_TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    # `at` is the wall clock: kept outside of the body, since the body alone is the identity.
    "CREATE TABLE events (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at REAL NOT NULL,"
    " body BLOB NOT NULL)",
    "CREATE TABLE ledger (id INTEGER PRIMARY KEY, at REAL NOT NULL, billed INTEGER NOT NULL,"
    " state TEXT NOT NULL CHECK (state IN ('reserved', 'settled', 'released', 'uncertain')),"
    " calls INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,"
    " usd REAL NOT NULL, seconds REAL NOT NULL, uncertain INTEGER NOT NULL)",
    "CREATE TABLE cache (key TEXT PRIMARY KEY, ledger INTEGER NOT NULL REFERENCES ledger (id),"
    " seal TEXT NOT NULL, body BLOB NOT NULL)",
)
_DAMAGE_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_ENVIRONMENT_CODES = (  # errors of the disk or of file permissions
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
)


def journal_mode(version: tuple[int, ...]) -> str:
    """WAL where this version of SQLite may be trusted with it, else DELETE."""
    return "WAL" if version >= MIN_WAL_VERSION else "DELETE"


def connect(file: Path) -> sqlite3.Connection:
    """A connection in autocommit mode; the file must be there."""
    # Of these few pragmas, even a general error can only be the fault of the file.
    with translate_errors(file, (*_DAMAGE_CODES, sqlite3.SQLITE_ERROR)), ExitStack() as undo:
        db = sqlite3.connect(f"{file.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None)
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
    """A flipped bit must be met by a check of ours, not by an error of the decoder."""
    return text.decode("utf-8", "replace")


def write_draft(draft: Path, meta: Mapping[str, str]) -> None:
    """A new database in an empty file, in one transaction; closed again, so that it can be
    renamed."""
    db = connect(draft)
    try:
        db.execute("BEGIN IMMEDIATE")
        for table in _TABLES:
            db.execute(table)
        db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {SCHEMA}")
        db.execute("COMMIT")
    finally:
        db.close()


def require_run(folder: Path) -> None:
    """Raise ConfigError where no run was ever begun."""
    if not (folder / FILE).is_file():
        raise ConfigError(f"{folder} holds no run (there is no {FILE} in it); check the path")


def check_schema(file: Path, db: sqlite3.Connection) -> None:
    """Raise ConfigError unless this is a run's database that this remask can read."""
    with translate_errors(file):
        application = db.execute("PRAGMA application_id").fetchone()[0]
        schema = db.execute("PRAGMA user_version").fetchone()[0]
        page_size = db.execute("PRAGMA page_size").fetchone()[0]
        tables = {row[0] for row in db.execute("SELECT sql FROM sqlite_master WHERE sql NOTNULL")}
    if application != APPLICATION:
        raise damaged_error(file, "it is not the database of a run")
    if schema > SCHEMA:
        raise ConfigError(
            f"{file} was written by a newer remask (schema {schema}, this one knows {SCHEMA}); "
            "upgrade remask"
        )
    # SQLite fills up a page that was cut off with zeros and takes them for content.
    if file.stat().st_size % page_size or tables != set(_TABLES):
        raise damaged_error(file, "a part of it is missing or changed")


@contextmanager
def translate_errors(file: Path, damage: tuple[int, ...] = _DAMAGE_CODES) -> Iterator[None]:
    """Turn what SQLite says of the file or the disk into one sentence; the rest stays a bug."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        # Absent on errors that Python's module raises by itself: those are bugs.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
        if code in damage:
            raise damaged_error(file, str(error)) from error
        if code in _ENVIRONMENT_CODES:
            raise ConfigError(
                f"{file} cannot be read or written: {error}; mend that, "
                f"then continue with `remask resume {file.parent}`"
            ) from error
        raise
    except UnicodeDecodeError as error:  # a complaint of SQLite that quotes the broken bytes
        raise damaged_error(file, "its text is no text") from error


def damaged_error(file: Path, why: str) -> ConfigError:
    return ConfigError(f"{file} is damaged: {why}; start a new run")


def parse_record(file: Path, body: str | bytes) -> dict[str, Any]:
    try:
        value: dict[str, Any] = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise damaged_error(file, f"a record is not JSON ({error})") from None
    return value
