"""Harmless and harmful edits: a mixture fitted to real candidates by maximum likelihood."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, ndtr, ndtri
from scipy.stats import multinomial

from benchmarks.acceptance.world import Kind

_X = np.linspace(-6, 6, 481)  # residues of the parent, for integrals
_WEIGHT = np.exp(-(_X**2) / 2) / np.exp(-(_X**2) / 2).sum()
_NODES, _SHARES = np.polynomial.hermite_e.hermegauss(15)  # shifts within a kind
_SHARES = _SHARES / _SHARES.sum()


@dataclass(frozen=True, slots=True)
class Seen:
    """One real candidate against its parent on the same rows."""

    masker: str
    wins: int
    losses: int


def fit_mixture(seen: Sequence[Seen], rows: int, accuracy: float) -> tuple[Kind, Kind]:
    """Two kinds of edits, fitted to counts of wins and losses by maximum likelihood.

    rows: how many each candidate answered. accuracy: of their parent on them.
    """
    counts = np.array([(s.wins, s.losses, rows - s.wins - s.losses) for s in seen])

    def loss(values: NDArray[np.float64]) -> float:
        total = sum(k.share * _find_likelihood(counts, k, accuracy) for k in _make_kinds(values))
        return -float(np.log(total + 1e-300).sum())

    start = np.array([0.0, -0.1, np.log(0.15), 2.0, -0.6, np.log(0.3), 0.5])
    found = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-4})
    return _make_kinds(found.x)


def _make_kinds(values: NDArray[np.float64]) -> tuple[Kind, Kind]:
    share, mean, log_sd, kept, other, other_sd, other_kept = map(float, values)
    first = float(expit(share))
    return (
        Kind(first, mean, float(np.exp(log_sd)), float(expit(kept))),
        Kind(1 - first, other, float(np.exp(other_sd)), float(expit(other_kept))),
    )


def _find_likelihood(counts: NDArray[np.int64], kind: Kind, accuracy: float) -> NDArray[np.float64]:
    """The likelihood of each candidate's (wins, losses, ties) under one kind: (candidates,)."""
    mean, total = float(ndtri(accuracy)), np.zeros(len(counts))
    for node, share in zip(_NODES, _SHARES, strict=True):
        own = mean + kind.mean + kind.sd * node
        right = ndtr((own + kind.kept * _X) / np.sqrt(1 - kind.kept**2))
        both = float((_WEIGHT * right)[mean + _X > 0].sum())
        child = float((_WEIGHT * right).sum())
        win, lose = max(child - both, 1e-9), max(accuracy - both, 1e-9)
        chances = [win, lose, max(1 - win - lose, 1e-9)]
        total += share * multinomial.pmf(counts, counts[0].sum(), np.array(chances) / sum(chances))
    return total
