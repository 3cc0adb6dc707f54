"""Parse one JSON value strictly, with an explanation of what is wrong.

`parse` uses orjson, which is fast enough for files of gigabytes but accepts duplicate keys. These
are found by counting quotation marks, and only if the counts differ the slower `parse_exact` reads
the value again.
"""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import orjson

from remask.data.trace_record import UnreadableRecord

TOO_DEEP = "malformed JSON (nested too deeply); flatten it"


def parse(raw: bytes) -> Any:
    """Parse `raw`. NaN and Infinity become null, since some tools write them.

    Raises UnreadableRecord.
    """
    try:
        value = orjson.loads(raw)
        written = orjson.dumps(value)  # raises TypeError if the value is nested too deeply
    except orjson.JSONDecodeError:
        return _parse_again(raw)
    except TypeError as error:
        raise UnreadableRecord(TOO_DEEP) from error
    if _count_quotes(raw) != _count_quotes(written):
        parse_exact(raw, _ignore_constant)
    return value


def parse_all(whole: bytes, lines: Sequence[bytes], checked: bool) -> list[Any] | None:
    """Parse `lines`, of which `whole` consists; None if `parse` must look at each line.

    checked: also check for duplicate keys and for depth. This takes as long as parsing, but one
    check of many lines is much faster than a check of each.
    """
    try:
        values = [orjson.loads(line) for line in lines]
        if checked and _count_quotes(whole) != _count_quotes(orjson.dumps(values)):
            return None
    except (orjson.JSONDecodeError, TypeError):
        return None
    return values


def _count_quotes(raw: bytes) -> int:
    """Count quotation marks. Parsing and writing a value again keeps their number, unless a key
    occurs twice or a mark is written as an escape code."""
    return int(np.count_nonzero(np.frombuffer(raw, np.uint8) == 0x22))


def _parse_again(raw: bytes) -> Any:
    """Return the value if only constants are wrong, else raise the reason."""
    value = parse_exact(raw, _ignore_constant)
    try:
        return orjson.loads(orjson.dumps(value))
    except TypeError as error:
        if "recursion" in str(error).lower():
            raise UnreadableRecord(TOO_DEEP) from error
        raise UnreadableRecord("holds half of a surrogate pair; save it as proper Unicode") from error


def parse_exact(raw: bytes, constants: Callable[[str], Any] | None = None) -> Any:
    """Parse `raw` with exact integers of any size; orjson converts long ones to floats.

    constants: converts NaN and Infinity; None: they are errors. With `float`, numbers that are too
    large become infinite, so that the caller can judge only the values that it uses. Deep nesting
    and halves of surrogate pairs are not checked. Raises UnreadableRecord.
    """
    text = decode_utf8(raw)
    try:
        return json.loads(
            text,
            object_pairs_hook=_build_object,
            parse_constant=constants or _reject_constant,
            parse_float=float if constants is float else _parse_finite,
        )
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")  # as in "Invalid control character at"
        reason = f"{what[:1].lower()}{what[1:]} at column {error.colno}"
        todo = "write one value per line" if error.msg == "Extra data" else "fix it"
        raise UnreadableRecord(f"malformed JSON ({reason}); {todo}", error.lineno) from error
    except RecursionError as error:
        raise UnreadableRecord(TOO_DEEP) from error
    except UnreadableRecord:
        raise
    except ValueError as error:  # an integer with more digits than Python reads
        raise UnreadableRecord("malformed JSON (a number is too large); fix it") from error


def decode_utf8(raw: bytes) -> str:
    """Decode `raw`. Raises UnreadableRecord if it is not UTF-8 or contains NUL."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        byte, line = f"0x{raw[error.start]:02x}", 1 + raw.count(b"\n", 0, error.start)
        raise UnreadableRecord(f"byte {byte} is not UTF-8; save the file as UTF-8", line) from error
    if "\0" in text:
        line = 1 + text.count("\n", 0, text.index("\0"))
        raise UnreadableRecord("holds a NUL character; save the file as plain UTF-8 text", line)
    return text


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UnreadableRecord(f"malformed JSON (the key {twice[:40]!r} appears twice); remove one")
    return found


def _reject_constant(name: str) -> NoReturn:
    raise UnreadableRecord(f"malformed JSON ({name} is not a JSON number); write null")


def _parse_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise UnreadableRecord(f"malformed JSON (the number {text[:20]} is too large); fix it")
    return number


def _ignore_constant(_: str) -> None:
    return None
