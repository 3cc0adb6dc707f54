"""Bootstrap the differences of optimisers over seeds and rows. This file knows only arrays.

A score table is (seeds, rows): the same rows under every seed, so one draw of rows serves both
optimisers and all seeds of a task, and one draw of seeds serves both optimisers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]  # (seeds, rows); NaN where a row failed
DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean over tasks with its 95 % percentile interval, in points of 100."""

    mean: float
    low: float
    high: float
    tasks: int
    p: float  # two-sided, of no difference: twice the smaller share of draws on one side of zero


def compare_tables(
    ours: Mapping[str, Table], theirs: Mapping[str, Table], draws: int = DRAWS, seed: int = 0
) -> Difference:
    """Mean over tasks of ours minus theirs, on the tasks that both have.

    Percentile bootstrap (Efron 1979) with seeds and rows drawn independently in each task. Three
    seeds say little about the spread between seeds, so the interval is itself uncertain.
    Raises ValueError where they share no task, or a task's tables differ in shape.
    """
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        raise ValueError("the two optimisers share no task")
    rng, total, mean = np.random.default_rng(seed), np.zeros(draws), 0.0
    for task in shared:
        if ours[task].shape != theirs[task].shape:
            raise ValueError(f"{task}: {ours[task].shape} against {theirs[task].shape} scores")
        gap = ours[task] - theirs[task]
        mean += float(np.nanmean(gap)) / len(shared)
        total += _draw_means(gap, draws, rng) / len(shared)
    low, high = np.quantile(total, [0.025, 0.975])
    side = min(int((total <= 0).sum()), int((total >= 0).sum()))
    p = min(1.0, 2 * (side + 1) / (draws + 1))
    return Difference(100 * mean, 100 * float(low), 100 * float(high), len(shared), p)


def measure_spread(ours: Mapping[str, Table], theirs: Mapping[str, Table]) -> float:
    """Root mean square of the difference of two runs of one task and seed, in points of 100."""
    gaps = [np.nanmean(ours[task] - theirs[task], axis=1) for task in ours.keys() & theirs.keys()]
    return 100 * float(np.sqrt(np.mean(np.concatenate(gaps) ** 2)))


def _draw_means(gap: Table, draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Means of `gap` under weights of redrawn seeds and rows: (draws,)."""
    seeds, rows = gap.shape
    known = ~np.isnan(gap)
    seed_weight = rng.multinomial(seeds, [1 / seeds] * seeds, draws).astype(float)
    row_weight = rng.multinomial(rows, [1 / rows] * rows, draws).astype(float)
    summed = np.einsum("ds,sr,dr->d", seed_weight, np.where(known, gap, 0.0), row_weight)
    weight = np.einsum("ds,sr,dr->d", seed_weight, known.astype(float), row_weight)
    out: NDArray[np.float64] = summed / weight
    return out


def find_calls_to_share(curve: Mapping[int, float], start: float, share: float = 0.9) -> int | None:
    """The first checkpoint with `share` of the final gain; None where there is no gain."""
    final = curve[max(curve)] - start
    if final <= 0:
        return None
    return next(calls for calls in sorted(curve) if curve[calls] - start >= share * final)
