"""The cost of the word diff."""

import random
import time

import pytest

from remask.runs.word_diff import diff


@pytest.mark.parametrize("vocabulary", [20, 500, 5000, 20_000])
def test_a_diff_grows_with_the_length_of_the_texts_and_not_with_its_square(vocabulary: int) -> None:
    """Ten times the words, a tenth of them changed: 3 to 27 times the time; the square were 100."""
    assert seconds(20_000, vocabulary) < 50 * seconds(2000, vocabulary)


def seconds(words: int, vocabulary: int) -> float:
    """Of this thread alone; the best of two."""
    rng = random.Random(vocabulary)
    old = [f"w{rng.randrange(vocabulary)}" for _ in range(words)]
    new = [word if rng.random() < 0.9 else f"n{rng.randrange(vocabulary)}" for word in old]
    spent = []
    for _ in range(2):
        start = time.thread_time()
        diff(" ".join(old), " ".join(new))
        spent.append(time.thread_time() - start)
    return min(spent)
