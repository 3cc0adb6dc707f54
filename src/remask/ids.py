"""Content ids, seeds and random generators.

An id depends only on content, so it is the same on every machine and in every process. A generator
depends only on a seed and the path that names its purpose. So a new use of randomness does not
change the others, and a resumed run draws the same values as an uninterrupted one.
"""

import hashlib
from typing import Any

import numpy as np
import orjson


def content_id(kind: str, *parts: Any) -> str:
    """Return an id of 24 hexadecimal digits of JSON-like `parts`.

    Parts may be str, number, None, list, dict and tuple.
    """
    blob = orjson.dumps([kind, 1, *parts], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(blob, digest_size=12).hexdigest()


def seed_for(seed: int, *path: str | int) -> int:
    """Return a 62-bit seed for the purpose that `path` names."""
    return int(content_id("seed", seed, *path), 16) >> 34


def rng_for(seed: int, *path: str | int) -> np.random.Generator:
    """Return a generator for the purpose that `path` names, independent of all other paths."""
    return np.random.default_rng(seed_for(seed, *path))
