"""Divide the candidates of a round among their sources, by what each source has won so far.

A source is a masker, or the block of demonstrations. The first round follows the order of the
settings. Later rounds give more candidates to a source whose candidates went further in the
race of earlier rounds. This is remask's own design: it is deterministic, because
there are only a few rounds, in which randomness would cost more than it finds.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from remask.ports import NO_REWARDS, NOT_DENOISED, Rewards

DENOISER_FLOOR = 1 / 3  # of the candidates: at least so many are written by the denoiser
MAX_FACTOR = 4.0  # by which a reward raises or lowers a share, at most


def divide(order: Sequence[str], n: int, rewards: Rewards = NO_REWARDS) -> list[str]:
    """Return the source of each of `n` candidates.

    `order`: the sources in turn; one that is named more often gets more. Any first part of the
    answer has the right shares as nearly as possible, since a round may try only a first part.

    >>> divide(("insert", "span", "insert"), 4)
    ['insert', 'span', 'insert', 'insert']
    >>> divide(("insert", "span"), 4, {"insert": 3.0, "span": 1.0})
    ['insert', 'insert', 'span', 'insert']
    """
    if not rewards:
        return [order[i % len(order)] for i in range(n)]
    return deal(_weigh(Counter(order), rewards), n)


def deal(weights: Mapping[str, float], n: int) -> list[str]:
    """Return `n` names in the shares of their weights, as evenly mixed as can be.

    >>> deal({"a": 3.0, "b": 1.0}, 4)
    ['a', 'a', 'b', 'a']
    """
    total = sum(weights.values())
    credit = dict.fromkeys(weights, 0.0)
    chosen = []
    for _ in range(n):
        for name, weight in weights.items():
            credit[name] += weight
        best = max(credit, key=lambda name: credit[name])
        credit[best] -= total
        chosen.append(best)
    return chosen


def favour_library(order: Sequence[str]) -> tuple[str, ...]:
    """Return the sources with insertions of free text replaced by instructions of the library.

    For prompts whose traces fill the slots of the library: there its instructions are better than
    their parent far more often than free text is (docs/log.md). An order without the library is
    unchanged.

    >>> favour_library(("insert", "span", "insert", "library"))
    ('library', 'span', 'library', 'library')
    """
    if "library" not in order:
        return tuple(order)
    return tuple("library" if name == "insert" else name for name in order)


def _weigh(counts: Mapping[str, int], rewards: Rewards) -> dict[str, float]:
    """Return the weight of each source, with the floor of the denoiser."""
    weights = {name: n * clip_reward(rewards.get(name, 1.0)) for name, n in counts.items()}
    denoised = sum(weight for name, weight in weights.items() if name not in NOT_DENOISED)
    others = sum(weights.values()) - denoised
    if denoised and denoised < DENOISER_FLOOR * (denoised + others):
        factor = DENOISER_FLOOR / (1 - DENOISER_FLOOR) * others / denoised
        weights = {name: w if name in NOT_DENOISED else w * factor for name, w in weights.items()}
    return weights


def clip_reward(reward: float) -> float:
    """Return the reward within the limits of a factor."""
    return min(MAX_FACTOR, max(1 / MAX_FACTOR, reward))
