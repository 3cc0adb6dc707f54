"""Whether the word diff grows with the length of the texts and not with its square.

    python benchmarks/diff.py

Prints seconds for texts of 2,000 and 20,000 words, a tenth of them changed, and their ratio.
"""

import random
import time

from remask.runs.word_diff import diff


def seconds(words: int, vocabulary: int) -> float:
    rng = random.Random(vocabulary)
    old = [f"w{rng.randrange(vocabulary)}" for _ in range(words)]
    new = [word if rng.random() < 0.9 else f"n{rng.randrange(vocabulary)}" for word in old]
    start = time.perf_counter()
    diff(" ".join(old), " ".join(new))
    return time.perf_counter() - start


def main() -> None:
    for vocabulary in (20, 500, 5000, 20_000):
        short, long = seconds(2000, vocabulary), seconds(20_000, vocabulary)
        print(f"vocabulary {vocabulary:6}: {short:.2f} s, {long:.2f} s, ratio {long / short:.1f}")


if __name__ == "__main__":
    main()
