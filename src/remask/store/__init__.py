"""A run directory, the only state of a run.

`store.py` is the door: events, cache, ledger. `database.py` knows the SQLite file, `lock.py` the
lock of the operating system.
"""

from remask.store.store import Reader, Store, fingerprint

__all__ = ["Reader", "Store", "fingerprint"]
