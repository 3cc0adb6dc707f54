"""Files of conversations to the traces of one prompt, without secrets.

Everything is redacted before it leaves this room, in the order of the files. Conversations that
were held under another system prompt stay outside where the files hold several. Knows what
`ingest` reads; knows nothing of models and of what the traces are for.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from heapq import nsmallest
from pathlib import Path

from remask.errors import ConfigError
from remask.identity import content_id
from remask.ingest.read import read
from remask.ingest.record import Rating, Record, Turn
from remask.ingest.redact import Pseudonyms, redact
from remask.ingest.scales import Scale, Seen, known_scales, scale_map
from remask.ingest.survey import Survey, survey
from remask.ingest.table import column_map
from remask.ingest.templates import templates
from remask.ingest.traces import trace_of
from remask.trace import Trace

MANY = 100  # sources, from which on none may have more than …
SHARE = 0.01  # … this part of the traces (at least one)
MOST = 5000  # traces that are held; of more, these are drawn by content
Drawn = tuple[int, tuple[Trace, str]]  # place in the files, trace, message
Hide = Callable[[str], str]  # redaction, or `str` where it is off
COMPARED = 4096  # system prompts whose likeness is remembered


@dataclass(frozen=True, slots=True)
class Gathered:
    """The traces of a prompt and what was left out."""

    traces: tuple[Trace, ...]  # ids are unique
    asked: Mapping[str, str]  # id -> the whole message, where one message was all that was said
    records: int  # read
    rejected: int  # things that are no usable record
    elsewhere: int  # records that belong to another system prompt, or to none
    secrets: Mapping[str, int]  # different ones that were replaced, by label
    notes: tuple[str, ...]  # sentences for the user


def gather(
    prompt: str,
    files: Sequence[str | Path],
    columns: Sequence[str] = (),
    scales: Sequence[str] = (),
    hide: bool = True,
) -> Gathered:
    """The traces in `files` that belong to the system prompt `prompt` (a clean text).

    columns, scales: as for `remask traces inspect`. hide: redact. Raises ConfigError where nothing
    is usable, and DataError where a file cannot be read.
    """
    mapping, declared = column_map(columns), scale_map(scales)
    found = survey(read(files, mapping))
    if not found.records:
        first = f"; the first: {found.first[0].reason}" if found.first else ""
        raise ConfigError(
            f"the trace files hold no usable record ({found.rejected} rejected{first}); see what "
            "is in them with remask traces inspect"
        )
    known = known_scales(found.ratings, declared)
    belongs, notes = _belonging(prompt, found)
    names = Pseudonyms()
    hidden = partial(redact, names=names) if hide else str
    elsewhere = used = 0

    def heard() -> Iterator[tuple[Trace, str]]:
        nonlocal elsewhere, used
        for item in read(files, mapping):
            if isinstance(item, Record) and belongs(item):
                used += 1
                yield _heard(item, known, hidden)
            elif isinstance(item, Record):
                elsewhere += 1

    drawn = nsmallest(MOST, enumerate(heard()), key=_order)
    drawn, dropped = _spread(drawn)
    if not drawn:
        raise ConfigError(
            f"none of the {len(found.systems())} system prompts in the trace files is like this "
            "prompt; give its own conversations, or the prompt they were held under (see remask "
            "traces inspect)"
        )
    if used > MOST:
        notes.append(f"{MOST} of {used} conversations were drawn by content")
    if dropped:
        notes.append(f"{dropped} conversations of sources with more than 1 % of all were left out")
    notes += _without_scale(found.ratings, known)
    in_order = [pair for _, pair in sorted(drawn, key=lambda item: item[0])]
    traces = _named([trace for trace, _ in in_order])
    return Gathered(
        traces=tuple(traces),
        asked={t.id: text for t, (_, text) in zip(traces, in_order, strict=True) if text},
        records=found.records,
        rejected=found.rejected,
        elsewhere=elsewhere,
        secrets=names.counts,
        notes=tuple(map(hidden, notes)),  # they name ratings
    )


def _heard(item: Record, scales: Mapping[str, Scale], hide: Hide) -> tuple[Trace, str]:
    """The trace of a record, redacted; and what its user said, if that was all."""
    record = _redacted(item, hide)
    trace = trace_of(record, scales)
    # A label is told with the name of its rating, by which its scale was known until here.
    notes = tuple(replace(note, text=hide(note.text)) for note in trace.feedback)
    return replace(trace, source=hide(trace.source), feedback=notes), _only_message(record)


def _order(item: Drawn) -> str:
    trace = item[1][0]
    return content_id("trace", trace.query, trace.response)


def _spread(drawn: Sequence[Drawn]) -> tuple[list[Drawn], int]:
    """Where there are many sources, no more of each than its share; and how many are left out."""
    counts = Counter(trace.source for _, (trace, _) in drawn if trace.source)
    if len(counts) < MANY:
        return list(drawn), 0
    most = max(1, int(SHARE * len(drawn)))
    seen: Counter[str] = Counter()
    kept = []
    for item in drawn:
        source = item[1][0].source
        seen[source] += 1
        if not source or seen[source] <= most:
            kept.append(item)
    return kept, len(drawn) - len(kept)


def _belonging(prompt: str, found: Survey) -> tuple[Callable[[Record], bool], list[str]]:
    """Which records are conversations of `prompt`, and what to say of that choice."""
    systems = found.systems()

    @lru_cache(maxsize=COMPARED)
    def alike(text: str) -> bool:
        return len(templates({prompt: 1, text: 1})) == 1

    if not systems:
        return (lambda _: True), ["no conversation names its system prompt; all were used"]
    if len(systems) == 1:
        if alike(systems[0].text):
            return (lambda _: True), []
        return (lambda _: True), ["the conversations were held under another system prompt"]

    def belongs(record: Record) -> bool:
        text = record.template or record.system
        return bool(text) and alike(text or "")

    note = f"the files hold {len(systems)} system prompts; conversations under those like this one"
    return belongs, [f"{note} were used"]


def _redacted(record: Record, hide: Hide) -> Record:
    """The record without secrets; its system prompt is not needed any more."""
    return replace(
        record,
        id=hide(record.id or record.source.place),
        system=None,
        turns=tuple(Turn(t.role, hide(t.text), hide(t.name)) for t in record.turns),
        ratings=tuple(_redacted_rating(rating, hide) for rating in record.ratings),
        desired=None if record.desired is None else hide(record.desired),
    )


def _redacted_rating(rating: Rating, hide: Hide) -> Rating:
    """Its name stays: scales are known by it."""
    value = hide(rating.value) if isinstance(rating.value, str) else rating.value
    return replace(
        rating, value=value, comment=hide(rating.comment), correction=hide(rating.correction)
    )


def _only_message(record: Record) -> str:
    """What the user said, where that was one message and nothing came before; else ""."""
    roles = [turn.role for turn in record.turns]
    return record.turns[0].text if roles in (["user"], ["user", "assistant"]) else ""


def _named(traces: Sequence[Trace]) -> list[Trace]:
    """The traces with unique ids: files may use a name twice."""
    seen: Counter[str] = Counter()
    taken: set[str] = set()
    found = []
    for trace in traces:
        name = trace.id
        while name in taken:
            seen[trace.id] += 1
            name = f"{trace.id} ({seen[trace.id] + 1})"
        taken.add(name)
        found.append(replace(trace, id=name))
    return found


def _without_scale(ratings: Mapping[str, Seen], known: Mapping[str, Scale]) -> Iterator[str]:
    for name, seen in ratings.items():
        if seen.values and name not in known:
            yield (
                f"the ratings {name!r} ({seen.low:g} to {seen.high:g}) have no known scale and do "
                f"not count as scores; declare it with --scale '{name}=WORST..BEST'"
            )
