"""Which failures a refinement reads: the frequent kinds first, then what differs most.

Knows traces and their words. Of the same kind are failures that share what the user wanted, what
would have been right and what was said of it; a kind is as frequent as it has different sources,
so that one source cannot make its complaint a frequent one. Knows nothing of models and prompts.
The grouping is our own design: arXiv 2602.18449 does not say how traces are chosen.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from remask.ports import Context
from remask.propose.select_traces import MAX_CLASSES, TRIES, fitting, one_each, shares
from remask.sanitize import words
from remask.types import Trace

ALIKE = 0.4  # shared words, of all words of both, from which two failures are of one kind
COMMON = 0.2  # words in more than this share of the failures say nothing of a kind …
FEW = 20  # … unless there are so few failures
LOOKED_AT = 32  # failures among which the most different one is looked for

Words = frozenset[str]


@dataclass(frozen=True, slots=True)
class Kinds:
    """The kinds of failure among some traces."""

    of: Mapping[str, int]  # id of a failing trace -> its kind
    sources: Mapping[int, int]  # kind -> how many different sources have it
    words: Mapping[str, Words]  # id of a trace -> its telling words

    def pack(
        self,
        traces: Sequence[Trace],
        limit: int,
        count: Callable[[str], int],
        rng: np.random.Generator,
        max_traces: int = 12,
    ) -> Context:
        """As `condition.select`, in another order: of the failures one of each kind that several
        sources have, the most frequent kind first, for at most half of their places; then, one by
        one, the failure that is least like those chosen, of the kinds seen least."""
        drawn = one_each([traces[i] for i in rng.permutation(len(traces))])
        bad = [trace for trace in drawn if trace.failing]
        good = [trace for trace in drawn if not trace.failing]
        wanted = shares(len(bad), len(good), max_traces)
        ordered = list(islice(self._ordered(bad, wanted), TRIES * max_traces))
        return fitting(ordered, good, wanted, limit, count, max_traces)

    def _ordered(self, bad: Sequence[Trace], wanted: int) -> Iterator[Trace]:
        left = {trace.id: trace for trace in bad}
        seen: Counter[int] = Counter()
        told: list[Words] = []
        heard: set[str] = set()
        firsts: dict[int, Trace] = {}
        for trace in bad:
            firsts.setdefault(self.of[trace.id], trace)
        frequent = sorted(
            (kind for kind in firsts if self.sources[kind] > 1),
            key=lambda kind: (-self.sources[kind], kind),
        )
        queue = [firsts[kind] for kind in frequent[: -(-wanted // 2)]]
        while left:
            trace = queue.pop(0) if queue else self._farthest(left, seen, told, heard)
            del left[trace.id]
            seen[self.of[trace.id]] += 1
            told.append(self.words[trace.id])
            heard.add(trace.source or trace.id)
            yield trace

    def _farthest(
        self, left: Mapping[str, Trace], seen: Counter[int], told: Sequence[Words], heard: set[str]
    ) -> Trace:
        def close(trace: Trace) -> tuple[bool, int, float]:
            like = max((_likeness(self.words[trace.id], other) for other in told), default=0.0)
            return (trace.source or trace.id) in heard, seen[self.of[trace.id]], like

        return min(islice(left.values(), LOOKED_AT), key=close)


def kinds(traces: Sequence[Trace]) -> Kinds:
    """Group the failing ones among `traces`. Where the right responses are few enough to be
    labels, a kind is what was right and what was answered instead."""
    bad = [trace for trace in traces if trace.failing]
    told = _telling(bad)
    if 1 < len({trace.desired for trace in bad}) <= min(MAX_CLASSES, len(bad) // 2):
        named: dict[tuple[str | None, str], int] = {}
        of = {t.id: named.setdefault((t.desired, t.response), len(named)) for t in bad}
    else:
        of = _grouped(told)
    sources: dict[int, set[str]] = defaultdict(set)
    for trace in bad:
        sources[of[trace.id]].add(trace.source or trace.id)
    return Kinds(of, {kind: len(some) for kind, some in sources.items()}, told)


def _telling(bad: Sequence[Trace]) -> dict[str, Words]:
    """The words of each failure, without those that most failures have."""
    said = {
        trace.id: frozenset(
            words(" ".join([trace.query, trace.desired or "", *(n.text for n in trace.feedback)]))
        )
        for trace in bad
    }
    often = Counter(word for some in said.values() for word in some)
    most = max(FEW, COMMON * len(bad))
    return {id: frozenset(w for w in some if often[w] <= most) for id, some in said.items()}


def _grouped(told: Mapping[str, Words]) -> dict[str, int]:
    """Each text joins the first group whose first text is like it, else begins one."""
    of: dict[str, int] = {}
    leaders: list[Words] = []
    holding: dict[str, list[int]] = defaultdict(list)  # word -> groups whose first text has it
    for id, some in told.items():
        shared = Counter(group for word in some for group in holding[word])
        group = next(
            (g for g in sorted(shared) if _likeness(some, leaders[g]) >= ALIKE), len(leaders)
        )
        if group == len(leaders):
            leaders.append(some)
            for word in some:
                holding[word].append(group)
        of[id] = group
    return of


def _likeness(one: Words, other: Words) -> float:
    """Shared words, of all words of both (Jaccard)."""
    return len(one & other) / max(1, len(one | other))
