"""Conversations of one prompt, split: some are read, some measure, some are sealed for a test.

Knows traces and how they are split. Knows nothing of files, prompts and of who reads them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from remask.errors import ConfigError
from remask.ids import content_id
from remask.types import Example, Split, Trace

# Half of what can be asked again is sealed, as in `optimize`; the rest is read, or measures.
SPLIT_CYCLES: Mapping[bool, tuple[Split, ...]] = {
    False: ("train", "validation"),
    True: ("train", "test", "validation", "test"),
}


@dataclass(frozen=True, slots=True)
class Conversations:
    """Traces by what they are for; ids are unique."""

    read: tuple[Trace, ...]  # candidates are written under these
    held: tuple[Trace, ...]  # … and measured on these
    sealed: tuple[Trace, ...]  # seen by neither
    rows: tuple[Example, ...] = ()  # what a target can be asked again, in its split

    @property
    def id(self) -> str:
        """Changes when any trace, any row or its split changes."""
        parts = [[trace.id for trace in part] for part in (self.read, self.held, self.sealed)]
        texts = [
            content_id("trace", t.query, t.response, t.desired, [n.text for n in t.feedback])
            for t in (*self.read, *self.held, *self.sealed)
        ]
        return content_id("data", parts, texts, [[row.id, row.split] for row in self.rows])


def split_conversations(
    traces: Sequence[Trace], asked: Mapping[str, str] | None, judged: bool = False
) -> Conversations:
    """Split by query, drawn by content; failing and other conversations take their equal shares.

    asked: id -> the whole message of a conversation that can be asked again; only those come into
    the sealed split, and of them only those whose right answer is known, unless `judged`. None: no
    target is asked, nothing is sealed. Raises ConfigError where one part to read or to measure on
    would be empty, or nothing could be asked again.
    """
    rows = [
        (trace, asked[trace.id])
        for trace in traces
        if asked is not None and trace.id in asked and (judged or (trace.desired or "").strip())
    ]
    splits = _assign_splits(traces, {trace.query for trace, _ in rows})
    if asked is not None and not rows:
        raise ConfigError(
            "nothing to verify with: no conversation is a single message with a correction, an "
            "expected answer or a well-rated response; name a judge, or leave the target out"
        )
    read, held, sealed = (
        tuple(trace for trace in traces if splits[trace.query] == split)
        for split in ("train", "validation", "test")
    )
    if not read or not held:
        raise ConfigError(
            f"{len(traces)} usable conversations with {len(splits)} different queries are too few: "
            "one part is read and another measures what was written; give more"
        )
    examples = {
        (text, trace.desired): Example(
            content_id("example", text, trace.desired), splits[trace.query], text, trace.desired
        )
        for trace, text in rows
    }
    return Conversations(read, held, sealed, tuple(examples.values()))


def _assign_splits(traces: Sequence[Trace], again: set[str]) -> dict[str, Split]:
    """A split for every query. `again`: the queries that can be asked again."""
    bad = {trace.query for trace in traces if trace.failing}
    order = sorted(
        {trace.query for trace in traces},
        key=lambda query: (query in again, query not in bad, content_id("split", query)),
    )
    splits: dict[str, Split] = {}
    for kind in (False, True):
        turns = SPLIT_CYCLES[kind]
        queries = [query for query in order if (query in again) == kind]
        splits |= {query: turns[i % len(turns)] for i, query in enumerate(queries)}
    return splits
