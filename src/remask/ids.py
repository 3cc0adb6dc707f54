"""Identity is content, randomness is an argument.

Every key of the project is made here, so that the same content has the same id on every machine
and in every process; every random generator is derived here from (seed, path), so that adding one
consumer of randomness never shifts another and a resumed step draws what it would have drawn.
"""

import hashlib
from typing import Any

import numpy as np
import orjson


def content_id(kind: str, *parts: Any) -> str:
    """A 24-digit hexadecimal id of JSON-like `parts` (str, number, None, list, dict, tuple)."""
    blob = orjson.dumps([kind, 1, *parts], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(blob, digest_size=12).hexdigest()


def seed_for(seed: int, *path: str | int) -> int:
    """A 62-bit seed for the purpose named by `path`."""
    return int(content_id("seed", seed, *path), 16) >> 34


def rng_for(seed: int, *path: str | int) -> np.random.Generator:
    """A generator for the purpose named by `path`, independent of all other paths."""
    return np.random.default_rng(seed_for(seed, *path))
