"""DSPy: the instructions of one predictor in a saved program, changed in place.

A program saved as JSON maps each predictor to its state, of which `signature.instructions` is the
prompt; a bare `Predict` is that state itself (dspy/predict/predict.py, `dump_state`; 2026). Only
the bytes of that one string change: demos, fields and the layout of the file stay. DSPy puts
instructions into the system message as they are, so nothing is escaped.
"""

import json
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from remask.errors import DataError

_DECODER = json.JSONDecoder()
_BLANKS = " \t\r\n"


def patch(program: str, path: Path, prompt: str, predictor: str = "") -> str:
    """The program with `prompt` as instructions of `predictor` ("": the only one).

    Raises DataError where the file, which `path` names, holds no such program or predictor.
    """
    start, stop = _place(program, path, predictor)
    return program[:start] + json.dumps(prompt, ensure_ascii=program.isascii()) + program[stop:]


def _place(program: str, path: Path, predictor: str) -> tuple[int, int]:
    """Where the string literal of the instructions stands."""
    try:
        value = json.loads(program)
    except (JSONDecodeError, RecursionError) as error:
        line = error.lineno if isinstance(error, JSONDecodeError) else None
        raise DataError("malformed JSON; save the program with save(….json)", path, line) from None
    keys = ["signature", "instructions"]
    if not _is_state(value):
        states = [k for k, v in value.items() if _is_state(v)] if isinstance(value, dict) else []
        if not states:
            raise DataError("holds no predictor with instructions; is it a DSPy program?", path)
        known = ", ".join(states)
        if not predictor and len(states) > 1:
            raise DataError(f"has several predictors; name one with --predictor: {known}", path)
        if predictor and predictor not in states:
            raise DataError(f"has no predictor {predictor!r}; it has {known}", path)
        keys.insert(0, predictor or states[0])
    at = 0
    for key in keys:
        at = _value(program, at, key)
    return at, _DECODER.raw_decode(program, at)[1]


def _is_state(value: Any) -> bool:
    signature = value.get("signature") if isinstance(value, dict) else None
    return isinstance(signature, dict) and isinstance(signature.get("instructions"), str)


def _value(text: str, at: int, wanted: str) -> int:
    """Where the value of a key begins in the object at `at`; the last of equal keys counts, as in
    `json.loads`, which has accepted `text`."""
    found = -1
    at = _skip(text, _skip(text, at) + 1)
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        at = _skip(text, _skip(text, at) + 1)  # the colon
        if key == wanted:
            found = at
        at = _skip(text, _DECODER.raw_decode(text, at)[1])
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANKS:
        at += 1
    return at
