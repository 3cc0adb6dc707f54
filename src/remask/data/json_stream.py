"""Read JSON values from a file one at a time: JSON Lines, an array, or documents, also gzipped.

`read_values` detects the layout from the first bytes. Callers that know the layout use `read_lines`
or `read_array` with `read_text_blocks`. With `exact`, integers keep any size and every object is
checked for duplicate keys.

Memory is limited by the largest value, not by the file. A broken value becomes a RejectedRecord
with its line, and reading continues after it.
"""

import codecs
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from remask.data.strict_json import parse, parse_all, parse_exact
from remask.data.trace_record import RejectedRecord, UnreadableRecord, Value
from remask.errors import DataError

BLOCK_BYTES = 1 << 16  # read at a time (larger blocks are slower), and used to detect the layout
# Duplicate keys are looked for in this many blocks of JSON Lines, and later in one block of
# CHECK_INTERVAL_BLOCKS: a program that writes a key twice usually does it in every line.
FULLY_CHECKED_BLOCKS = 64
CHECK_INTERVAL_BLOCKS = 16
MAX_VALUE_BYTES = 32 << 20  # bytes of a line or of an element of an array
MAX_DOCUMENT_BYTES = 128 << 20  # bytes of an object over many lines
MAX_GZIP_RATIO = 200  # unpacked bytes per packed byte, checked after the first block
GZIP_MAGIC = b"\x1f\x8b"
UNSUPPORTED_MAGIC = {
    b"PAR1": "Parquet", b"PK\x03\x04": "a zip archive", b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"BZh": "bzip2-compressed", b"\xfd7zXZ": "xz-compressed", b"SQLite format 3": "a database",
    b"%PDF": "a PDF", b"\x89PNG": "a picture", b"\x7fELF": "a program",
}  # fmt: skip
ENCODINGS_BY_BOM = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
        codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip

# Tokens that show where an element ends: a string (group 1 is its closing quote), or a bracket.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)'
_TOKEN = re.compile(_STRING + rb"|[\[{]|[\]}]", re.DOTALL)
_MESSAGE_LIST = re.compile(rb'\[\s*\{\s*"(?:role|from)"\s*:')  # the start of one conversation
_SCALAR = re.compile(rb'(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[^",\]])*+', re.DOTALL)


def check_file(path: Path) -> None:
    """Raise DataError if `path` is not a regular file."""
    if not path.exists():
        raise DataError("there is no such file; check the path", path)
    if not path.is_file():
        raise DataError("is not a regular file; give the path of a file", path)


def file_suffix(path: Path) -> str:
    """Return the suffix in lower case, without .gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read_values(path: Path) -> Iterator[Value | RejectedRecord]:
    """Yield the values of a JSON file. Raises DataError if it cannot be read."""
    content = read_text_blocks(path)
    try:
        head = next(content, b"")
        content = chain([head], content)
        match detect_layout(head):
            case "array":
                yield from read_array(content, path)
            case "document":
                yield from read_documents(content, path)
            case _:
                yield from read_lines(content, path)
    except UnreadableRecord as error:  # the file, or the rest of it, cannot be read
        yield RejectedRecord(str(path), error.line, str(error))


def read_text_blocks(path: Path) -> Iterator[bytes]:
    """Yield the unpacked file as UTF-8 without a byte order mark.

    Raises DataError and UnreadableRecord.
    """
    check_file(path)
    content = read_raw_blocks(path)
    head = next(content, b"")
    if head.startswith(GZIP_MAGIC):
        content = _gunzip(chain([head], content))
        head = next(content, b"")
    coding = _detect_coding(head)
    content = chain([head.removeprefix(codecs.BOM_UTF8)], content)
    yield from _transcode(content, coding) if coding else content


def find_first_line(path: Path) -> int | None:
    """Return where the lines of a plain JSON Lines file in UTF-8 begin; None for any other file.

    A file that begins with a block of blanks is another file, too. Raises DataError.
    """
    head = next(read_raw_blocks(path), b"")
    text = head.removeprefix(codecs.BOM_UTF8)
    try:
        plain = not head.startswith(GZIP_MAGIC) and not _detect_coding(head)
        return len(head) - len(text) if plain and text.strip() and detect_layout(text) == "lines" else None
    except UnreadableRecord:
        return None


def _detect_coding(head: bytes) -> str:
    """Return the encoding of a file that begins with `head`; "" for UTF-8. Raises UnreadableRecord."""
    for magic, kind in UNSUPPORTED_MAGIC.items():
        if head.startswith(magic):
            raise UnreadableRecord(f"is {kind}, which cannot be read; save it as JSON Lines or CSV")
    coding = next((name for mark, name in ENCODINGS_BY_BOM.items() if head.startswith(mark)), "")
    return coding or _detect_utf16(head[:512])


def _detect_utf16(head: bytes) -> str:
    """Return the encoding of UTF-16 without a mark, of which every other byte is mostly zero; else ""."""
    first, second = head[::2], head[1::2]
    if len(head) < 8 or b"\0\0" in head:
        return ""
    if not first.count(0) and second.count(0) > len(second) // 2:
        return "utf-16-le"
    return "utf-16-be" if not second.count(0) and first.count(0) > len(first) // 2 else ""


def read_line_batches(
    content: Iterator[bytes], number: int = 1
) -> Iterator[tuple[int, bytes, list[bytes] | None]]:
    """Yield (number of the first line, bytes of whole lines, the same lines split).

    The lines are None for one line that is larger than MAX_VALUE_BYTES, which is left out. `number`
    is that of the first line of `content`.
    """
    carry, dropped = b"", False
    for block in content:
        cut = block.rfind(b"\n")
        if cut < 0:
            dropped = dropped or len(carry) + len(block) > MAX_VALUE_BYTES
            carry = b"" if dropped else carry + block
            continue
        whole, rest = carry + block[:cut], block[cut + 1 :]
        if dropped:
            yield number, b"", None
            number, dropped = number + 1, False
            _, newline, whole = whole.partition(b"\n")
            if not newline:
                carry = rest
                continue
        lines = whole.split(b"\n")
        yield number, whole, lines
        number, carry = number + len(lines), rest
    if carry or dropped:
        yield number, carry, (None if dropped else [carry])


def read_raw_blocks(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yield the bytes of a file from `start` to `end`. Raises DataError."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            left = sys.maxsize if end is None else end - start
            while block := file.read(min(BLOCK_BYTES, left)):
                yield block
                left -= len(block)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror}); check the file", path) from error


def _gunzip(packed: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack gzip data, also of several members. Raises UnreadableRecord beyond MAX_GZIP_RATIO."""
    unpacker = zlib.decompressobj(wbits=31)
    taken = given = 0
    for block in packed:
        taken += len(block)
        while block:
            try:
                out = unpacker.decompress(block, BLOCK_BYTES)
            except zlib.error as error:
                reason = "the gzip data is damaged from here on; compress the file again"
                raise UnreadableRecord(reason) from error
            given += len(out)
            if given > BLOCK_BYTES and given > MAX_GZIP_RATIO * taken:
                reason = f"unpacks to more than {MAX_GZIP_RATIO} times its size; unpack it first"
                raise UnreadableRecord(reason)
            if out:
                yield out
            if unpacker.eof:
                block = unpacker.unused_data.lstrip(b"\0")
                unpacker = zlib.decompressobj(wbits=31) if block else unpacker
            else:
                block = unpacker.unconsumed_tail
                if not block and len(out) == BLOCK_BYTES:
                    yield from _drain(unpacker)
    if not unpacker.eof:
        raise UnreadableRecord("the gzip data ends too early; compress the file again")


def _transcode(content: Iterator[bytes], coding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(coding)()
    try:
        for block in content:
            yield decoder.decode(block).encode()
        yield decoder.decode(b"", True).encode()
    except UnicodeError as error:
        raise UnreadableRecord(f"is not {coding.upper()} from here on; save it as UTF-8") from error


def detect_layout(head: bytes) -> str:
    """Return "lines", "array" or "document", for a file that begins with `head`."""
    text = head.lstrip()
    first, _, rest = text.partition(b"\n")
    second = rest.lstrip().partition(b"\n")[0]
    whole = _is_complete(first)
    if text.startswith(b"["):
        if _MESSAGE_LIST.match(text):
            return "document"
        return "lines" if whole and rest.strip() else "array"
    if text and not text.startswith(b"{"):
        if b"\0" in head[:1024]:
            raise UnreadableRecord("holds binary data; give a text file with JSON or CSV")
        if not re.search(rb"^\s*[\[{]", head, re.MULTILINE):
            raise UnreadableRecord("holds no JSON; give a JSON, JSON Lines or CSV file")
        start = re.search(rb"^\{[ \t\r]*\n", head, re.MULTILINE)  # of an object over many lines
        return "document" if start else "lines"
    if whole or not rest.strip():
        return "lines"
    opened = first.rstrip().endswith((b"{", b"[", b":"))
    return "document" if opened or not _is_complete(second) else "lines"


def _is_complete(line: bytes) -> bool:
    try:
        parse(line)
    except UnreadableRecord:
        return False
    return True


def parse_row(raw: bytes) -> Any:
    """Parse a row of a data set. NaN stays, since the column may not be used."""
    return parse_exact(raw, float)


def read_lines(
    content: Iterator[bytes], path: Path, exact: bool = False, first_line: int = 1, first_block: int = 0
) -> Iterator[Value | RejectedRecord]:
    """Yield the values of JSON Lines. Blank lines are skipped.

    `first_line` and `first_block` are the numbers of the line and of the block of the file with
    which `content` begins.
    """
    read = parse_row if exact else parse
    for place, (number, whole, found) in enumerate(read_line_batches(content, first_line), first_block):
        if found is None:
            yield RejectedRecord(str(path), number, too_large_reason(MAX_VALUE_BYTES))
            continue
        checked = place < FULLY_CHECKED_BLOCKS or place % CHECK_INTERVAL_BLOCKS == 0
        if not exact and (known := parse_all(whole, found, checked)) is not None:
            yield from map(Value, known, range(number, number + len(known)))
            continue
        for line_number, line in enumerate(found, number):
            if line and not line.isspace():
                yield _parse_value(line, line_number, path, read)


def _parse_value(raw: bytes, line: int, path: Path, read: Callable[[bytes], Any]) -> Value | RejectedRecord:
    """Parse `raw`, which begins on that line, with `read`."""
    try:
        return Value(read(raw), line)
    except UnreadableRecord as error:
        return RejectedRecord(str(path), line + (error.line or 1) - 1, str(error))


def too_large_reason(limit: int) -> str:
    return f"is larger than {limit >> 20} MiB; split it or leave it out"


class _Window:
    """A moving part of a file: bytes are added at its end and dropped at its start."""

    def __init__(self, content: Iterator[bytes]) -> None:
        self._content = content
        self.data = b""
        self.at = 0  # position in `data`
        self.line = 1  # line number of `at`

    def grow(self) -> bool:
        """Read more bytes; return False at the end of the file.

        At least as much is read as is held, so that scanning again takes linear time in total.
        """
        held = self.data[self.at :]
        parts, size = [held], 0
        for block in self._content:
            parts.append(block)
            size += len(block)
            if size >= len(held):
                break
        self.data, self.at = b"".join(parts), 0
        return size > 0

    def advance(self, to: int) -> None:
        self.line += self.data.count(b"\n", self.at, to)
        self.at = to

    def next_byte(self, skip: bytes = b" \t\r\n") -> bytes:
        """Skip the bytes in `skip` and return the next one; b"" at the end of the file."""
        while True:
            to = self.at
            while to < len(self.data) and self.data[to] in skip:
                to += 1
            self.advance(to)
            if to < len(self.data):
                return self.data[to : to + 1]
            if not self.grow():
                return b""


def read_array(content: Iterator[bytes], path: Path, exact: bool = False) -> Iterator[Value | RejectedRecord]:
    """Yield the elements of an array that may be larger than memory; none for an empty file."""
    window = _Window(content)
    if not (byte := window.next_byte()):
        return
    if byte != b"[":
        reason = "expected an array of objects: [{…}, {…}]; name a file of objects per line .jsonl"
        raise UnreadableRecord(reason, window.line)
    window.advance(window.at + 1)
    ready = empty = True  # ready: an element may begin here
    while (byte := window.next_byte()) not in (b"]", b""):
        line = window.line
        if byte == b",":
            if ready:
                yield RejectedRecord(str(path), line, "malformed JSON (extra comma); remove it")
            window.advance(window.at + 1)
            ready = True
            continue
        if not ready:
            yield RejectedRecord(str(path), line, "malformed JSON (missing comma); add it here")
        yield _parse_value(_cut_element(window, MAX_VALUE_BYTES), line, path, parse_row if exact else parse)
        ready, empty = False, False
    if byte == b"":
        raise UnreadableRecord("malformed JSON (the array has no end: truncated file)", window.line)
    if ready and not empty:
        reason = "malformed JSON (comma before the end of the array); remove it"
        yield RejectedRecord(str(path), window.line, reason)
    window.advance(window.at + 1)
    if window.next_byte():
        yield RejectedRecord(str(path), window.line, "malformed JSON (text after the array)")


def read_documents(
    content: Iterator[bytes], path: Path, exact: bool = False
) -> Iterator[Value | RejectedRecord]:
    """Yield values over many lines, one after another, as OpenTelemetry's console exporter writes them.

    Other output of the program may stand between them; it is rejected.
    """
    window = _Window(content)
    while byte := window.next_byte():
        line = window.line
        if byte in b"[{":
            raw = _cut_element(window, MAX_DOCUMENT_BYTES)
            yield _parse_value(raw, line, path, parse_row if exact else parse)
            continue
        while window.next_byte() not in (b"{", b"["):
            if not _skip_line(window):
                break
        yield RejectedRecord(str(path), line, "holds text that is no JSON; it was left out")


def _skip_line(window: _Window) -> bool:
    """Advance to the next line; return False at the end of the file."""
    while (end := window.data.find(b"\n", window.at)) < 0:
        window.advance(len(window.data))
        if not window.grow():
            return False
    window.advance(end + 1)
    return True


def _cut_element(window: _Window, limit: int) -> bytes:
    """Remove the next element from the window. At the end of the file it may be incomplete."""
    while True:
        stop = _find_end(window.data, window.at)
        held = len(window.data) - window.at
        if stop is None and held > limit:
            raise UnreadableRecord(f"an element {too_large_reason(limit)}", window.line)
        if stop is None and window.grow():
            continue
        end = len(window.data) if stop is None else stop
        raw = window.data[window.at : end]
        window.advance(end)
        return raw


def _find_end(data: bytes, start: int) -> int | None:
    """Return the end of the element at `start`; None if it continues after `data`."""
    if data[start : start + 1] not in (b"{", b"["):
        match = _SCALAR.match(data, start)
        return match.end() if match and start < match.end() < len(data) else None
    depth = 0
    for token in _TOKEN.finditer(data, start):
        byte = data[token.start()]
        if byte == 0x22:
            if not token[1]:
                return None
        elif byte in b"[{":
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                return token.end()
    return None


def _drain(unpacker: "zlib._Decompress") -> Iterator[bytes]:
    """Yield what the unpacker still holds after it has read its whole input."""
    while out := unpacker.decompress(b"", BLOCK_BYTES):
        yield out
