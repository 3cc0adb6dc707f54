"""The cost of the word diff."""

import random
import time

import pytest

from remask.runs.word_diff import diff


@pytest.mark.parametrize("vocabulary", [20, 500, 5000, 20_000])
def test_diff_does_not_take_quadratic_time(vocabulary: int) -> None:
    """Ten times the words, a tenth of them changed: 3 to 27 times the time, not 100 times."""
    assert seconds(20_000, vocabulary) < 50 * seconds(2000, vocabulary)


def seconds(words: int, vocabulary: int) -> float:
    """Time of this thread, the better one of two runs."""
    rng = random.Random(vocabulary)
    old = [f"w{rng.randrange(vocabulary)}" for _ in range(words)]
    new = [word if rng.random() < 0.9 else f"n{rng.randrange(vocabulary)}" for word in old]
    spent = []
    for _ in range(2):
        start = time.thread_time()
        diff(" ".join(old), " ".join(new))
        spent.append(time.thread_time() - start)
    return min(spent)
