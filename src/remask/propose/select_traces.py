"""Select the traces that a denoiser reads, up to a limit of tokens.

Failing traces come first, because they show what the prompt lacks. Traces are untrusted, so the
selected ones are cleaned and clipped.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, zip_longest

import numpy as np

from remask.data.prompt_traces import shorten
from remask.ports import Context
from remask.types import Trace

MAX_CLASSES = 12  # distinct desired responses, up to which they count as labels to balance
MAX_TRIES_PER_TRACE = 4  # traces that are tried per selected trace, where many are too long
FAILING_SHARE = 2 / 3  # of the selected traces, where there are enough of both kinds


def select(
    traces: Sequence[Trace],
    limit: int,
    count: Callable[[str], int],
    rng: np.random.Generator,
    max_traces: int = 12,
) -> Context:
    """Select at most `max_traces` traces of at most `limit` tokens in all, failing ones first.

    About two thirds are failing ones where there are enough of both kinds. Desired responses
    alternate where they are few enough to be labels. `count` counts the tokens of a text. The
    tokens of a trace are those of its query, its responses and its feedback; the layout of a
    denoiser adds a few.
    """
    shuffled = alternate_sources([traces[i] for i in rng.permutation(len(traces))])
    failing = alternate_labels([trace for trace in shuffled if trace.failing])
    passing = alternate_labels([trace for trace in shuffled if not trace.failing])
    wanted = count_failing(len(failing), len(passing), max_traces)
    return fit_into_limit(failing, passing, wanted, limit, count, max_traces)


def count_failing(failing: int, passing: int, max_traces: int) -> int:
    """Return how many traces should be failing ones, given the number of both kinds."""
    return min(failing, max(round(max_traces * FAILING_SHARE), max_traces - passing))


def fit_into_limit(
    failing: Sequence[Trace],
    passing: Sequence[Trace],
    wanted: int,
    limit: int,
    count: Callable[[str], int],
    max_traces: int,
) -> Context:
    """Take traces of both kinds in their order while they fit into `limit` tokens.

    `wanted` of them are failing ones where so many fit.
    """
    picked: list[Trace] = []
    left = limit
    tried = islice(_interleave(failing, passing, wanted, max_traces), MAX_TRIES_PER_TRACE * max_traces)
    for trace in tried:
        if len(picked) == max_traces:
            break
        short = shorten(trace)
        size = count(_join_texts(short))
        if size <= left and (short.query or short.response):
            picked.append(short)
            left -= size
    return tuple(sorted(picked, key=lambda trace: not trace.failing))


def _interleave(
    failing: Sequence[Trace], passing: Sequence[Trace], wanted: int, max_traces: int
) -> Iterator[Trace]:
    """Yield two failing traces and one passing trace in turn, so that a low limit keeps the shares.

    After the `max_traces` wanted traces it yields the others, in case some do not fit.
    """
    failures, successes = iter(failing[:wanted]), iter(passing[: max_traces - wanted])
    for turn in range(3 * max_traces):
        source = successes if turn % 3 == 2 else failures
        trace = next(source, None)
        if trace is not None:
            yield trace
    yield from failures
    yield from successes
    yield from failing[wanted:]
    yield from passing[max_traces - wanted :]


def alternate_sources(traces: Sequence[Trace]) -> list[Trace]:
    """Order traces so that every source comes once before any source comes twice.

    Many traces of one user or session then weigh no more than one trace of another, so no source
    can flood the context.
    """
    groups: dict[str, list[Trace]] = defaultdict(list)
    for trace in traces:
        groups[trace.source or trace.id].append(trace)
    return [trace for turn in zip_longest(*groups.values()) for trace in turn if trace is not None]


def alternate_labels(traces: Sequence[Trace]) -> list[Trace]:
    """Order traces so that their desired responses alternate, where these are labels."""
    groups: dict[str | None, list[Trace]] = defaultdict(list)
    for trace in traces:
        groups[trace.desired].append(trace)
    if len(groups) > MAX_CLASSES:
        return list(traces)
    return [trace for turn in zip_longest(*groups.values()) for trace in turn if trace is not None]


def _join_texts(trace: Trace) -> str:
    """Return all text of a trace that a layout may show."""
    parts = [trace.query, trace.response, trace.desired or ""]
    return "\n".join([*parts, *(note.text for note in trace.feedback)])
