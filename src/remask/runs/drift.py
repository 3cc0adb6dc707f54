"""Whether new conversations differ from those of a reference: in failures, or in what people ask.

Both are permutation tests of two groups. Where nothing has changed, a conversation could as well lie
in the other group, so the p-value is the share of random divisions that differ as much as the real
one. That is exact for any number of conversations and any distribution, and needs no model of texts.
What one user or session said moves together, so that one user with many messages is one piece of
evidence and not many.

failures: the share of failing conversations of those that were rated, one-sided, since fewer
failures ask for nothing. Where nearly only failures are rated, the share of all. Both groups together
decide that, since a choice by one of them would favour it.

A p-value is found by divisions until 20 of them differ as much (Besag and Clifford 1991, Biometrika
78:301), which is exact, too, and takes a moment where nothing has changed.

mix of inputs: the squared distance of the mean vectors of both groups, which is the maximum mean
discrepancy with a linear kernel (Gretton et al. 2012, JMLR 13:723). A conversation is the set of the
pieces of four letters of its request, hashed into BUCKETS and scaled to length 1, so that long requests
weigh no more. Pieces find more than whole words do, and need no spaces between words. Those that many
conversations have say little and are left out. A classifier would find more subtle changes, but needs
more conversations and a choice of model.

A month has up to LOOKS looks, one a day, and two tests each. By Bonferroni each test alarms with a
probability of at most rate / (2 LOOKS), so any of them does in a month with at most `rate`, however
much the looks share conversations. benchmarks/watch.py simulates that, and the power.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from remask.sanitize import split_words
from remask.types import Trace

LOOKS = 31  # of the longest month, one a day
TESTS = 2
BUCKETS = 1024
PIECE = 4  # letters
MAX_SHARE = 0.2  # of all conversations that may have a piece
MIN_RATED = 30  # conversations in each group, below which failures are not compared
MIN_GOOD = 0.05  # of the rated ones; with fewer, only failures are rated as a rule
EXTREMES = 10  # divisions that may differ as much where a test alarms, so p-values are fine enough
ENOUGH = 20  # divisions that differ as much, after which no more are made; more than EXTREMES
AT_ONCE = 500  # divisions, to limit the memory

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DriftTest:
    """One comparison of new conversations with those of the reference."""

    name: str  # "failures" or "mix of inputs"
    p: float  # probability of so large a difference where nothing has changed
    alpha: float  # the p-value from which it counts as drift
    before: float  # share of failures in the reference; of the mix: the distance that chance gives
    after: float  # share of failures in the new ones; of the mix: the distance
    n_before: int  # conversations that were compared
    n_after: int

    @property
    def drifted(self) -> bool:
        """Whether the difference is too large for chance."""
        return self.p <= self.alpha


def find_alpha(rate: float) -> float:
    """Return the p-value from which one test alarms, for a rate of false alarms a month."""
    return rate / (TESTS * LOOKS)


def is_rated(trace: Trace) -> bool:
    """Whether anything says how good the response is."""
    return trace.score is not None or bool(trace.feedback)


def compare_failures(
    reference: Sequence[Trace], new: Sequence[Trace], rate: float, seed: int = 0
) -> DriftTest | str:
    """Test whether more conversations fail; or return why that cannot be said."""
    rated = [list(filter(is_rated, some)) for some in (reference, new)]
    everyone = [*rated[0], *rated[1]]
    good = sum(not trace.failing for trace in everyone)
    if not everyone or good >= MIN_GOOD * len(everyone):
        for name, some in zip(("the reference has", "the new ones have"), rated, strict=True):
            if len(some) < MIN_RATED:
                return f"{name} {len(some)} rated conversations of at least {MIN_RATED}"
        reference, new = rated
    both = [*reference, *new]
    failing = csr_array(np.array([[float(trace.failing)] for trace in both]))
    p, _ = _permute(failing, reference, new, rate, seed, one_sided=True)
    before, after = (sum(t.failing for t in some) / len(some) for some in (reference, new))
    return DriftTest("failures", p, find_alpha(rate), before, after, len(reference), len(new))


def compare_inputs(reference: Sequence[Trace], new: Sequence[Trace], rate: float, seed: int = 0) -> DriftTest:
    """Test whether people ask other things than before."""
    vectors = _count_pieces([trace.query for trace in (*reference, *new)])
    p, chance = _permute(vectors, reference, new, rate, seed, one_sided=False)
    means = (vectors[: len(reference)].mean(0), vectors[len(reference) :].mean(0))
    distance = float(((means[0] - means[1]) ** 2).sum())
    return DriftTest("mix of inputs", p, find_alpha(rate), chance, distance, len(reference), len(new))


def _count_pieces(texts: Sequence[str]) -> csr_array:
    """Return the hashed pieces of each text as a vector of length 1; of length 0 without any."""
    found = [_hash_pieces(text) for text in texts]
    pieces, owner = np.concatenate(found), np.repeat(np.arange(len(found)), [len(some) for some in found])
    rare = (np.bincount(pieces, minlength=BUCKETS) <= MAX_SHARE * len(texts))[pieces]
    pieces, owner = pieces[rare], owner[rare]
    sizes = np.bincount(owner, minlength=len(texts))
    return csr_array((sizes[owner] ** -0.5, pieces, np.cumsum([0, *sizes])), (len(texts), BUCKETS))


@lru_cache(maxsize=4096)
def _hash_pieces(text: str) -> npt.NDArray[np.int64]:
    line = f" {' '.join(split_words(text))} "
    pieces = {line[at : at + PIECE] for at in range(max(1, len(line) - PIECE + 1))}
    # Not hash(), which differs by process.
    return np.array(sorted({zlib.crc32(piece.encode("utf-8", "replace")) % BUCKETS for piece in pieces}))


def _permute(
    values: csr_array,
    reference: Sequence[Trace],
    new: Sequence[Trace],
    rate: float,
    seed: int,
    one_sided: bool,
) -> tuple[float, float]:
    """Return the p-value of the difference of the means, and the mean statistic of the divisions.

    The statistic is new minus reference where it is one-sided, else the squared distance.
    """
    units: dict[tuple[bool, str], int] = {}
    owner = [
        units.setdefault((is_new, trace.source or f"\0{trace.id}"), len(units))
        for is_new, some in ((False, reference), (True, new))
        for trace in some
    ]
    member = csr_array((np.ones(len(owner)), (owner, range(len(owner)))), (len(units), len(owner)))
    sums, sizes = (member @ values).T.tocsr(), np.bincount(owner)
    total = sums.sum(1)

    def measure(chosen: Floats) -> Floats:
        inside, size = (sums @ chosen.T).T, (chosen @ sizes)[:, None]
        gap = inside / size - (total - inside) / (len(owner) - size)
        return gap.sum(1) if one_sided else (gap**2).sum(1)  # type: ignore[no-any-return]

    real = np.array([float(is_new) for is_new, _ in units])
    found = float(measure(real[None])[0])
    rng, made = np.random.default_rng(seed), np.empty(0)
    least = found - 1e-9 * max(1.0, abs(found))  # so that rounding makes no difference
    count = math.ceil(EXTREMES / find_alpha(rate))
    while len(made) < count:
        # Few at first: where nothing has changed, some dozens are enough.
        copies = np.broadcast_to(real, (min(AT_ONCE, count - len(made), 50 + len(made)), len(real)))
        made = np.concatenate([made, measure(rng.permuted(copies, axis=1))])
        as_large = np.flatnonzero(made >= least)
        if len(as_large) >= ENOUGH:
            return ENOUGH / (1 + int(as_large[ENOUGH - 1])), float(made.mean())
    return (1 + len(as_large)) / (1 + count), float(made.mean())
