"""Which traces a denoiser reads, and how much of each.

Knows traces and a token limit, counts by an injected function. Knows nothing of denoisers and
their layouts, prompts or targets. Failures come first because they say what the prompt lacks.
Traces are untrusted: what is selected is cleaned and clipped.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, zip_longest

import numpy as np

from remask.data.prompt_traces import shorten
from remask.ports import Context
from remask.types import Trace

MAX_CLASSES = 12  # up to so many distinct desired responses count as labels to balance
TRIES = 4  # traces looked at for each one wanted, where many are too long for the limit
FAILING = 2 / 3  # share of failing traces, where there are enough of both kinds


def select(
    traces: Sequence[Trace],
    limit: int,
    count: Callable[[str], int],
    rng: np.random.Generator,
    max_traces: int = 12,
) -> Context:
    """At most `max_traces` traces of at most `limit` tokens in all, failing ones first.

    About two thirds are failing ones where there are enough of both; desired responses take turns
    where they are few enough to be labels. The tokens of a trace are those of its query, its
    responses and its feedback; a layout adds a few of its own.
    """
    drawn = one_each([traces[i] for i in rng.permutation(len(traces))])
    bad = in_turns([trace for trace in drawn if trace.failing])
    good = in_turns([trace for trace in drawn if not trace.failing])
    wanted = shares(len(bad), len(good), max_traces)
    return fitting(bad, good, wanted, limit, count, max_traces)


def shares(bad: int, good: int, max_traces: int) -> int:
    """How many failing traces are wanted of `bad` ones beside `good` ones."""
    return min(bad, max(round(max_traces * FAILING), max_traces - good))


def fitting(
    bad: Sequence[Trace],
    good: Sequence[Trace],
    wanted: int,
    limit: int,
    count: Callable[[str], int],
    max_traces: int,
) -> Context:
    """Of both in their order what fits into `limit` tokens, `wanted` failing ones if it does."""
    picked: list[Trace] = []
    left = limit
    for trace in islice(_mixed(bad, good, wanted, max_traces), TRIES * max_traces):
        if len(picked) == max_traces:
            break
        short = shorten(trace)
        size = count(_text(short))
        if size <= left and (short.query or short.response):
            picked.append(short)
            left -= size
    return tuple(sorted(picked, key=lambda trace: not trace.failing))


def _mixed(
    bad: Sequence[Trace], good: Sequence[Trace], wanted: int, max_traces: int
) -> Iterator[Trace]:
    """Two failing ones, one success, …: a tight limit then still keeps the shares.

    Behind the `max_traces` that are wanted come the others, for the case that some do not fit.
    """
    failures, successes = iter(bad[:wanted]), iter(good[: max_traces - wanted])
    for turn in range(3 * max_traces):
        source = successes if turn % 3 == 2 else failures
        trace = next(source, None)
        if trace is not None:
            yield trace
    yield from failures
    yield from successes
    yield from bad[wanted:]
    yield from good[max_traces - wanted :]


def one_each(traces: Sequence[Trace]) -> list[Trace]:
    """One trace of every source, then second ones: many of one source weigh no more than one of
    another, so that nobody can flood the context."""
    groups: dict[str, list[Trace]] = defaultdict(list)
    for trace in traces:
        groups[trace.source or trace.id].append(trace)
    return [trace for turn in zip_longest(*groups.values()) for trace in turn if trace is not None]


def in_turns(traces: Sequence[Trace]) -> list[Trace]:
    """The traces with their desired responses taking turns, where these are labels."""
    groups: dict[str | None, list[Trace]] = defaultdict(list)
    for trace in traces:
        groups[trace.desired].append(trace)
    if len(groups) > MAX_CLASSES:
        return list(traces)
    return [trace for turn in zip_longest(*groups.values()) for trace in turn if trace is not None]


def _text(trace: Trace) -> str:
    """Everything of a trace that a layout may render."""
    parts = [trace.query, trace.response, trace.desired or ""]
    return "\n".join([*parts, *(note.text for note in trace.feedback)])
