"""One JSON value from bytes, strictly, and in words what is wrong with it.

`parse` reads with orjson, for files of gigabytes. It lets pass a key that stands twice: that is
found by counting quotes, and only where the counts differ is the value read again by `parse_exact`,
which is slower. An escaped NUL is text, which is cleaned where it is used. Knows nothing of files.
"""

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import orjson

from remask.data.trace_record import UnreadableRecord

TOO_DEEP = "malformed JSON (nested too deeply); flatten it"


def parse(raw: bytes, constants: bool = False) -> Any:
    """The value of `raw`. With `constants`, NaN and Infinity are read as null, as tools write them
    that save whole logs. Raises Unusable."""
    try:
        value = orjson.loads(raw)
        written = orjson.dumps(value)  # fails where nested deeper than readers may follow
    except orjson.JSONDecodeError:
        return _parse_again(raw, constants)
    except TypeError as error:
        raise UnreadableRecord(TOO_DEEP) from error
    if _count_quotes(raw) != _count_quotes(written):
        parse_exact(raw, constants)
    return value


def parse_all(whole: bytes, lines: Sequence[bytes], checked: bool) -> list[Any] | None:
    """The values of `lines`, which `rewrite` is made of, where all of them are plainly fine; None:
    ask `parse` for each. `checked`: also for keys that stand twice and for depth, which takes as
    long as reading; one look at many lines still costs far less than a look at each."""
    try:
        values = [orjson.loads(line) for line in lines]
        if checked and _count_quotes(whole) != _count_quotes(orjson.dumps(values)):
            return None
    except (orjson.JSONDecodeError, TypeError):
        return None
    return values


def _count_quotes(raw: bytes) -> int:
    """Quotation marks in JSON. A value that is written again has as many, unless a key stood twice
    or a mark was written as a code."""
    return int(np.count_nonzero(np.frombuffer(raw, np.uint8) == 0x22))


def _parse_again(raw: bytes, constants: bool) -> Any:
    """The value where only constants were wrong and are allowed; else the reason."""
    value = parse_exact(raw, constants)
    try:
        return orjson.loads(orjson.dumps(value))
    except TypeError as error:
        if "recursion" in str(error).lower():
            raise UnreadableRecord(TOO_DEEP) from error
        raise UnreadableRecord(
            "holds half of a surrogate pair; save it as proper Unicode"
        ) from error


def parse_exact(raw: bytes, constants: bool = False) -> Any:
    """As `parse`, with integers of any size as they are (orjson makes floats of long ones). What is
    nested deeply and half of a surrogate pair are left to the caller. Raises Unusable."""
    text = decode_utf8(raw)
    try:
        return json.loads(
            text,
            object_pairs_hook=_build_object,
            parse_constant=_ignore_constant if constants else _reject_constant,
            parse_float=_parse_float_or_null if constants else _parse_finite,
        )
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")  # "Invalid control character at"
        reason = f"{what[:1].lower()}{what[1:]} at column {error.colno}"
        todo = "write one value a line" if error.msg == "Extra data" else "mend it"
        raise UnreadableRecord(f"malformed JSON ({reason}); {todo}", error.lineno) from error
    except RecursionError as error:
        raise UnreadableRecord(TOO_DEEP) from error
    except UnreadableRecord:
        raise
    except ValueError as error:  # more digits than Python reads
        raise UnreadableRecord("malformed JSON (a number is too large); mend it") from error


def decode_utf8(raw: bytes) -> str:
    """The text of `raw`. Raises Unusable where it is none."""
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
        raise UnreadableRecord(f"malformed JSON (the number {text[:20]} is too large); mend it")
    return number


def _ignore_constant(_: str) -> None:
    return None


def _parse_float_or_null(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None
