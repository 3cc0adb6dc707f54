"""Split the traces of one prompt: some to read, some to measure on, some for the sealed test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from remask.errors import ConfigError
from remask.ids import content_id
from remask.types import Example, Split, Trace

# Queries get these splits in turn. True: a target can answer the message again. Half of these are
# sealed, as in `optimize`.
SPLIT_CYCLES: Mapping[bool, tuple[Split, ...]] = {
    False: ("train", "validation"),
    True: ("train", "test", "validation", "test"),
}


@dataclass(frozen=True, slots=True)
class Conversations:
    """Traces by their purpose. Ids are unique."""

    read: tuple[Trace, ...]  # the denoiser reads these to write candidates
    held_out: tuple[Trace, ...]  # candidates are measured on these
    sealed: tuple[Trace, ...]  # used for the test only
    rows: tuple[Example, ...] = ()  # messages that a target can answer again, each in its split

    @property
    def id(self) -> str:
        """A content hash of all traces, rows and splits."""
        parts = [[trace.id for trace in part] for part in (self.read, self.held_out, self.sealed)]
        texts = [
            content_id("trace", t.query, t.response, t.desired, [n.text for n in t.feedback])
            for t in (*self.read, *self.held_out, *self.sealed)
        ]
        return content_id("data", parts, texts, [[row.id, row.split] for row in self.rows])


def split_conversations(
    traces: Sequence[Trace], messages: Mapping[str, str] | None, judged: bool = False
) -> Conversations:
    """Split by query, in the order of a content hash. Each split gets its share of the failures.

    messages: by trace id, the message of a conversation that a target can answer again; None if
    there is no target. Only these traces can be sealed, and unless `judged` only those with a right
    answer.

    Raises ConfigError if a split to read or to measure on would be empty, or if there is a target
    and no message for it.
    """
    rows = [
        (trace, messages[trace.id])
        for trace in traces
        if messages is not None and trace.id in messages and (judged or (trace.desired or "").strip())
    ]
    splits = _assign_splits(traces, {trace.query for trace, _ in rows})
    if messages is not None and not rows:
        raise ConfigError(
            "the result cannot be verified: no conversation is a single message with a correction, "
            "an expected answer or a well-rated response; name a judge, or leave the target out"
        )
    read, held_out, sealed = (
        tuple(trace for trace in traces if splits[trace.query] == split)
        for split in ("train", "validation", "test")
    )
    if not read or not held_out:
        raise ConfigError(
            f"{len(traces)} usable conversations with {len(splits)} different queries are too few: "
            "candidates are written from one part and measured on another; give more conversations"
        )
    examples = {
        (text, trace.desired): Example(
            content_id("example", text, trace.desired),
            splits[trace.query],
            text,
            trace.desired,
            place=trace.id,
        )
        for trace, text in rows
    }
    return Conversations(read, held_out, sealed, tuple(examples.values()))


def _assign_splits(traces: Sequence[Trace], repeatable: set[str]) -> dict[str, Split]:
    """Return the split of every query. `repeatable`: queries that a target can answer again."""
    bad = {trace.query for trace in traces if trace.failing}
    order = sorted(
        {trace.query for trace in traces},
        key=lambda query: (query in repeatable, query not in bad, content_id("split", query)),
    )
    splits: dict[str, Split] = {}
    for kind, cycle in SPLIT_CYCLES.items():
        queries = [query for query in order if (query in repeatable) == kind]
        splits |= {query: cycle[i % len(cycle)] for i, query in enumerate(queries)}
    return splits
