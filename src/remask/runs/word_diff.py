"""Compare two prompts word by word."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Literal


@dataclass(frozen=True, slots=True)
class Change:
    """A piece of text that is in both prompts or in one of them."""

    kind: Literal["same", "removed", "added"]
    text: str


# Lines are compared first, then sentences in lines that differ, then words in sentences that
# differ. A word includes the blanks after it, because blanks alone would match everywhere.
_UNITS = (
    re.compile(r"[^\n]*\n+|[^\n]+"),
    re.compile(r"[\s\S]*?[.!?。！？](?:\s+|$)|[\s\S]+$"),
    re.compile(r"\w+\s*|[^\w\s]\s*|\s+"),
)

_ATOMS = re.compile(r"\w+|\s+|[^\w\s]")
_MAX_PAIRS = 100_000  # equal pairs of units that difflib compares, about 0.2 s of work


def diff(before: str, after: str) -> tuple[Change, ...]:
    """Compare two texts. Same and removed pieces make up `before`, same and added ones `after`.

    A line of thousands of words with few different words is compared as a whole, to stay fast.
    """
    changes: list[Change] = []
    removed: list[str] = []
    added: list[str] = []
    for old, new in [*_compare(before, after, 0), ("", "")]:
        if old != new:
            removed.append(old)
            added.append(new)
        else:
            changes += _diff_atoms("".join(removed), "".join(added))
            removed, added = [], []
            changes.append(Change("same", old))
    return _merge_changes(changes)


def _compare(before: str, after: str, level: int) -> Iterator[tuple[str, str]]:
    """Yield the smallest pieces (old, new) in order; they are equal where nothing changed."""
    if before == after or not before or not after or level == len(_UNITS):
        yield before, after
        return
    old, new = _UNITS[level].findall(before), _UNITS[level].findall(after)
    # Units are compared without their blanks, which `_diff_atoms` compares afterwards.
    old_keys, new_keys = [unit.rstrip() for unit in old], [unit.rstrip() for unit in new]
    counts = Counter(new_keys)
    if sum(count * counts[key] for key, count in Counter(old_keys).items()) > _MAX_PAIRS:
        yield before, after
        return
    matcher = SequenceMatcher(None, old_keys, new_keys, autojunk=False)
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            yield from zip(old[a:b], new[c:d], strict=True)
        else:
            yield from _compare("".join(old[a:b]), "".join(new[c:d]), level + 1)


def _diff_atoms(removed: str, added: str) -> Iterator[Change]:
    """Yield a replacement; the common words and blanks at both ends are the same pieces."""
    old, new = _ATOMS.findall(removed), _ATOMS.findall(added)
    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    yield Change("same", "".join(old[:head]))
    yield Change("removed", "".join(old[head : len(old) - tail]))
    yield Change("added", "".join(new[head : len(new) - tail]))
    yield Change("same", "".join(old[len(old) - tail :]))


def _merge_changes(changes: Sequence[Change]) -> tuple[Change, ...]:
    """Join neighbours of the same kind and drop empty pieces."""
    pieces = (change for change in changes if change.text)
    groups = groupby(pieces, key=lambda change: change.kind)
    return tuple(Change(kind, "".join(change.text for change in group)) for kind, group in groups)
