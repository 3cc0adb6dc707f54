"""Cut files into parts that can be read apart: some whole files, or whole lines of a large one.

The cuts depend on the files alone, never on who reads the parts, so the records are the same for any
number of workers.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remask.data.json_stream import BLOCK_BYTES, find_first_line, read_lines, read_raw_blocks
from remask.data.trace_record import RejectedRecord, Value
from remask.errors import DataError

PART_BYTES = 16 << 20  # of files; a part is as long as its last line ends later


@dataclass(frozen=True, slots=True)
class Download:
    """JSON values in memory, which are read like those of a file with this name."""

    name: str
    values: Sequence[Any]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Piece:
    """A file, or whole lines of one, up to where it ended when the parts were made."""

    path: Path
    inode: int
    end: int
    start: int = 0
    line: int = 0  # number of its first line, from 1; 0: the file is read as a whole

    def __str__(self) -> str:
        return str(self.path)

    @property
    def is_here(self) -> bool:
        """Whether this machine has the file under its path."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return found.st_ino == self.inode and found.st_size >= self.end

    def read_lines(self) -> Iterator[Value | RejectedRecord]:
        """Yield the values of its lines. Raises DataError."""
        content = read_raw_blocks(self.path, self.start, self.end)
        block = self.start // BLOCK_BYTES
        return read_lines(content, self.path, first_line=self.line, first_block=block)


@dataclass(frozen=True, slots=True)
class Part:
    """What is read in one go."""

    pieces: tuple[Piece | Download, ...]
    joined: bool = False  # whether the pieces hold records of which other pieces have something, too

    @property
    def is_here(self) -> bool:
        """Whether this machine has all of its files."""
        return all(piece.is_here for piece in self.pieces if isinstance(piece, Piece))


def take_whole(file: Path | Download) -> Piece | Download:
    """Return a file as one piece. Raises DataError."""
    return file if isinstance(file, Download) else _describe(file)


def cut_files(files: Iterable[Path | Download], part_bytes: int) -> Iterator[Part]:
    """Yield the parts of files whose records are each in one place. Raises DataError.

    A part has `part_bytes` and the rest of a line, or less. Only plain JSON Lines in UTF-8 are cut.
    Small files that follow each other are one part.
    """
    pieces: list[Piece | Download] = []
    size = 0
    for file in files:
        for piece in [file] if isinstance(file, Download) else _cut_file(file, part_bytes):
            length = piece.end - piece.start if isinstance(piece, Piece) else 0
            if pieces and size + length > part_bytes:
                yield Part(tuple(pieces))
                pieces, size = [], 0
            pieces.append(piece)
            size += length
    if pieces:
        yield Part(tuple(pieces))


def _cut_file(path: Path, part_bytes: int) -> Iterator[Piece]:
    whole = _describe(path)
    start, line = find_first_line(path), 1
    if start is None:
        yield whole
        return
    while start < whole.end:
        end, lines = _find_cut(path, start, whole.end, part_bytes)
        yield Piece(path, whole.inode, end, start, line)
        start, line = end, line + lines


def _find_cut(path: Path, start: int, end: int, part_bytes: int) -> tuple[int, int]:
    """Return where the line ends that has the last byte of a part, and how many lines the part has."""
    stop, lines = min(start + part_bytes, end), 0
    if stop < end:  # else nobody asks for the number of its lines
        for block in read_raw_blocks(path, start, stop):
            lines += block.count(b"\n")
        for block in read_raw_blocks(path, stop, end):
            if cut := block.find(b"\n") + 1:
                return stop + cut, lines + 1
            stop += len(block)
    return end, lines


def _describe(path: Path) -> Piece:
    try:
        found = os.stat(path)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror}); check the file", path) from error
    return Piece(path, found.st_ino, found.st_size)
