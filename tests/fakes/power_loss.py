"""What a disk may hold after the power was cut: a model of files, from a recording of failing_disk.c.

All that a finished fsync covers is there. Of what came later on a file, any part may be missing, and
the last write may be half done; of names made, replaced or removed later, any may be missing. This
is harsher than most file systems are.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class DiskChange:
    """One change: c and n (open, n empties the file), w (write), t (cut), s (fsync), r, u."""

    kind: str
    at: int
    path: str
    data: bytes


@dataclass
class _File:
    safe: bytes = b""
    pending: list[DiskChange] = field(default_factory=list)


def read_recording(path: Path) -> list[DiskChange]:
    raw, changes, place = path.read_bytes(), [], 0
    while place < len(raw):
        end = raw.index(b"\n", place)
        kind, at, size, name = raw[place:end].decode().split(" ", 3)
        place = end + 1 + int(size)
        changes.append(DiskChange(kind, int(at), name, raw[end + 1 : place]))
    return changes


def cut_power(changes: list[DiskChange], rng: random.Random) -> dict[str, bytes]:
    """Return the files by path that are left where the power was cut after `changes`."""
    names: dict[str, _File] = {}  # as the process saw them
    safe_names: dict[str, _File] = {}
    waiting: list[tuple[str, str, _File | None]] = []  # (folder, path, file), names that may be lost
    for change in changes:
        folder = change.path.rpartition("/")[0]
        if change.kind in "cn" and change.path not in names:
            names[change.path] = _File()
            waiting.append((folder, change.path, names[change.path]))
        elif change.kind in "nwt":
            names[change.path].pending.append(change)
        elif change.kind == "s" and change.path in names:
            file = names[change.path]
            file.safe, file.pending = _apply(file.safe, file.pending), []
            mine = {path for _, path, made in waiting if made is file}
            _settle(waiting, safe_names, lambda entry, mine=mine: entry[1] in mine)
        elif change.kind == "s":  # a folder
            _settle(waiting, safe_names, lambda entry, name=change.path: entry[0] == name)
        elif change.kind in "ru":
            file = names.pop(change.path, None)
            waiting.append((folder, change.path, None))
            if change.kind == "r" and file is not None:
                to = change.data.decode()
                names[to] = file
                waiting.append((to.rpartition("/")[0], to, file))
    if rng.random() < 0.5:  # the names are kept in order, as by a journal
        waiting = waiting[: rng.randint(0, len(waiting))]
    else:
        waiting = [entry for entry in waiting if rng.random() < 0.5]
    _settle(waiting, safe_names, lambda entry: True)
    return {path: _tear(file, rng) for path, file in safe_names.items()}


def _settle(waiting: list, names: dict[str, _File], chosen) -> None:
    for entry in [entry for entry in waiting if chosen(entry)]:
        waiting.remove(entry)
        if entry[2] is None:
            names.pop(entry[1], None)
        else:
            names[entry[1]] = entry[2]


def _tear(file: _File, rng: random.Random) -> bytes:
    kept = [change for change in file.pending if rng.random() < 0.5]
    if kept and kept[-1].kind == "w":
        last = kept[-1]
        kept[-1] = DiskChange("w", last.at, last.path, last.data[: rng.randint(0, len(last.data))])
    return _apply(file.safe, kept)


def _apply(content: bytes, changes: list[DiskChange]) -> bytes:
    for change in changes:
        if change.kind == "n":
            content = b""
        elif change.kind == "t":
            content = content[: change.at].ljust(change.at, b"\0")
        else:
            content = content.ljust(change.at, b"\0")
            content = content[: change.at] + change.data + content[change.at + len(change.data) :]
    return content
