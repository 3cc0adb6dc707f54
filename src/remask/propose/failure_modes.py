"""Select the failures that `refine` reads: frequent failure modes first, then what differs most.

Two failures have the same mode where they share enough words of the query, the right response and
the feedback. The frequency of a mode is its number of sources (users or sessions), so that one
source cannot make its own complaint a frequent one. The grouping is remask's own design:
arXiv 2602.18449 does not say how traces are chosen.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from remask.ports import Context
from remask.propose.select_traces import (
    MAX_CLASSES,
    MAX_TRIES_PER_TRACE,
    alternate_sources,
    count_failing,
    fit_into_limit,
)
from remask.sanitize import split_words
from remask.types import Trace

MIN_WORD_OVERLAP = 0.4  # Jaccard index of their words from which two failures have one mode
MAX_WORD_SHARE = 0.2  # of the failures; words in more of them do not tell modes apart
MIN_COMMON_COUNT = 20  # failures that have a word, up to which MAX_WORD_SHARE does not apply
MAX_COMPARED_FAILURES = 32  # among which the one that differs most is chosen

Words = frozenset[str]


@dataclass(frozen=True, slots=True)
class FailureModes:
    """The failure modes of some traces."""

    mode_of: Mapping[str, int]  # id of a failing trace -> its mode
    source_counts: Mapping[int, int]  # mode -> number of its distinct sources
    words: Mapping[str, Words]  # id of a failing trace -> its distinctive words

    def select(
        self,
        traces: Sequence[Trace],
        limit: int,
        count: Callable[[str], int],
        rng: np.random.Generator,
        max_traces: int = 12,
    ) -> Context:
        """Select traces as `select_traces.select` does, with failures in another order.

        Up to half of the failures are one of each mode that several sources have, the most frequent
        mode first. Each further failure is the one that is least similar to those before it, of the
        modes that were chosen least often.
        """
        shuffled = alternate_sources([traces[i] for i in rng.permutation(len(traces))])
        failing = [trace for trace in shuffled if trace.failing]
        passing = [trace for trace in shuffled if not trace.failing]
        wanted = count_failing(len(failing), len(passing), max_traces)
        ordered = list(islice(self._order(failing, wanted), MAX_TRIES_PER_TRACE * max_traces))
        return fit_into_limit(ordered, passing, wanted, limit, count, max_traces)

    def _order(self, failing: Sequence[Trace], wanted: int) -> Iterator[Trace]:
        left = {trace.id: trace for trace in failing}
        mode_counts: Counter[int] = Counter()
        chosen: list[Words] = []
        sources: set[str] = set()
        firsts: dict[int, Trace] = {}
        for trace in failing:
            firsts.setdefault(self.mode_of[trace.id], trace)
        frequent = sorted(
            (mode for mode in firsts if self.source_counts[mode] > 1),
            key=lambda mode: (-self.source_counts[mode], mode),
        )
        queue = [firsts[mode] for mode in frequent[: -(-wanted // 2)]]
        while left:
            trace = queue.pop(0) if queue else self._find_least_similar(left, mode_counts, chosen, sources)
            del left[trace.id]
            mode_counts[self.mode_of[trace.id]] += 1
            chosen.append(self.words[trace.id])
            sources.add(trace.source or trace.id)
            yield trace

    def _find_least_similar(
        self, left: Mapping[str, Trace], mode_counts: Counter[int], chosen: Sequence[Words], sources: set[str]
    ) -> Trace:
        """Return the trace of a new source, a rare mode and other words than the chosen ones."""

        def similarity(trace: Trace) -> tuple[bool, int, float]:
            words = self.words[trace.id]
            overlap = max((_compute_overlap(words, other) for other in chosen), default=0.0)
            known_source = (trace.source or trace.id) in sources
            return known_source, mode_counts[self.mode_of[trace.id]], overlap

        return min(islice(left.values(), MAX_COMPARED_FAILURES), key=similarity)


def group_failures(traces: Sequence[Trace]) -> FailureModes:
    """Group the failing traces into failure modes.

    Where the right responses are few enough to be labels, a mode is a right response together with
    the response that was given instead.
    """
    failing = [trace for trace in traces if trace.failing]
    words = _find_distinctive_words(failing)
    if 1 < len({trace.desired for trace in failing}) <= min(MAX_CLASSES, len(failing) // 2):
        modes: dict[tuple[str | None, str], int] = {}
        mode_of = {t.id: modes.setdefault((t.desired, t.response), len(modes)) for t in failing}
    else:
        mode_of = _group_by_words(words)
    sources: dict[int, set[str]] = defaultdict(set)
    for trace in failing:
        sources[mode_of[trace.id]].add(trace.source or trace.id)
    return FailureModes(mode_of, {mode: len(some) for mode, some in sources.items()}, words)


def _find_distinctive_words(failing: Sequence[Trace]) -> dict[str, Words]:
    """Return the words of each failure, without those that many failures have."""
    words_of = {}
    for trace in failing:
        texts = [trace.query, trace.desired or "", *(note.text for note in trace.feedback)]
        words_of[trace.id] = frozenset(split_words(" ".join(texts)))
    counts = Counter(word for words in words_of.values() for word in words)
    limit = max(MIN_COMMON_COUNT, MAX_WORD_SHARE * len(failing))
    return {id: frozenset(word for word in words if counts[word] <= limit) for id, words in words_of.items()}


def _group_by_words(words_of: Mapping[str, Words]) -> dict[str, int]:
    """Put each failure into the first group whose first member is similar, or into a new group."""
    group_of: dict[str, int] = {}
    firsts: list[Words] = []
    groups_with: dict[str, list[int]] = defaultdict(list)  # word -> groups whose first has it
    for id, words in words_of.items():
        candidates = sorted({group for word in words for group in groups_with[word]})
        group = next(
            (g for g in candidates if _compute_overlap(words, firsts[g]) >= MIN_WORD_OVERLAP), len(firsts)
        )
        if group == len(firsts):
            firsts.append(words)
            for word in words:
                groups_with[word].append(group)
        group_of[id] = group
    return group_of


def _compute_overlap(one: Words, other: Words) -> float:
    """Return the Jaccard index: shared words over all words of both."""
    return len(one & other) / max(1, len(one | other))
