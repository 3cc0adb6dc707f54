"""One JSON value from bytes, strictly, and in words what is wrong with it.

orjson reads. It lets pass a key that stands twice: that is found by counting quotes, and only where
the counts differ is the value read again by the slow, exact way. An escaped NUL is text, which
is cleaned where it is used. Knows nothing of files.
"""

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import orjson

from remask.data.trace_record import Unusable

DEEP = "malformed JSON (nested too deeply); flatten it"


def parse(raw: bytes, constants: bool = False) -> Any:
    """The value of `raw`. With `constants`, NaN and Infinity are read as null, as tools write them
    that save whole logs. Raises Unusable."""
    try:
        value = orjson.loads(raw)
        written = orjson.dumps(value)  # fails where nested deeper than readers may follow
    except orjson.JSONDecodeError:
        return _explained(raw, constants)
    except TypeError as error:
        raise Unusable(DEEP) from error
    if _quotes(raw) != _quotes(written):
        _decode(raw, constants)
    return value


def parse_all(whole: bytes, lines: Sequence[bytes], checked: bool) -> list[Any] | None:
    """The values of `lines`, which `whole` is made of, where all of them are plainly fine; None:
    ask `parse` for each. `checked`: also for keys that stand twice and for depth, which takes as
    long as reading; one look at many lines still costs far less than a look at each."""
    try:
        values = [orjson.loads(line) for line in lines]
        if checked and _quotes(whole) != _quotes(orjson.dumps(values)):
            return None
    except (orjson.JSONDecodeError, TypeError):
        return None
    return values


def _quotes(raw: bytes) -> int:
    """Quotation marks in JSON. A value that is written again has as many, unless a key stood twice
    or a mark was written as a code."""
    return int(np.count_nonzero(np.frombuffer(raw, np.uint8) == 0x22))


def _explained(raw: bytes, constants: bool) -> Any:
    """The value where only constants were wrong and are allowed; else the reason."""
    value = _decode(raw, constants)
    try:
        return orjson.loads(orjson.dumps(value))
    except TypeError as error:
        if "recursion" in str(error).lower():
            raise Unusable(DEEP) from error
        raise Unusable("holds half of a surrogate pair; save it as proper Unicode") from error


def _decode(raw: bytes, constants: bool) -> Any:
    if b"\0" in raw:
        raise Unusable("holds a NUL character; save the file as plain UTF-8 text")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        byte = f"0x{raw[error.start]:02x}"
        raise Unusable(f"byte {byte} is not UTF-8; save the file as UTF-8") from error
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_null if constants else _constant,
            parse_float=_null_or_float if constants else _finite,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column" if "\n" in text.strip() else "column"
        reason = f"{error.msg[:1].lower()}{error.msg[1:]}"
        raise Unusable(f"malformed JSON ({reason}, {where} {error.colno}); mend it") from error
    except RecursionError as error:
        raise Unusable(DEEP) from error
    except Unusable:
        raise
    except ValueError as error:  # more digits than Python reads
        raise Unusable("malformed JSON (a number is too large); mend it") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Unusable(f"malformed JSON (the key {twice[:40]!r} appears twice); remove one")
    return found


def _constant(name: str) -> NoReturn:
    raise Unusable(f"malformed JSON ({name} is not a JSON number); write null")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Unusable("malformed JSON (a number is too large); mend it")
    return number


def _null(_: str) -> None:
    return None


def _null_or_float(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None
