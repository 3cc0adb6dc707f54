"""Read trace files into the traces of one prompt, with secrets replaced.

Conversations under another system prompt are left out when the files hold several prompts. Of very
many conversations some are drawn (see `draw_traces.py`), by their texts as they are. Only the drawn
ones are redacted, in the order of the files, so the numbers of placeholders are reproducible.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from remask.data.draw_traces import DrawRule, limit_sources
from remask.data.overview import Overview
from remask.data.part_reader import count_records, draw_records, fetch_records
from remask.data.prompt_templates import make_similarity
from remask.data.ratings import RatingStats, Scale, find_scales, parse_scales, require_scales
from remask.data.record_to_trace import trace_from_record
from remask.data.redact.redact import Placeholders, redact_text
from remask.data.tables import parse_column_map
from remask.data.trace_reader import Place
from remask.data.trace_record import Rating, Record, Turn
from remask.errors import ConfigError
from remask.ports import Executor
from remask.sanitize import clean, clip_words
from remask.types import Feedback, Trace

# --- From files to the traces of one prompt

Redactor = Callable[[str], str]  # `redact_text` with its placeholders, or `str` without redaction


@dataclass(frozen=True, slots=True)
class TraceCollection:
    """The traces of a prompt, and counts of what was left out."""

    traces: tuple[Trace, ...]  # ids are unique
    messages: Mapping[str, str]  # by id: the user's message, if it is the whole conversation
    records: int  # records that were read
    rejected: int  # values that are no usable record
    elsewhere: int  # records of another system prompt, or of none
    secrets: Mapping[str, int]  # by label: distinct secrets of these traces that were replaced
    notes: tuple[str, ...]  # sentences for the user


def read_traces(
    prompt: str,
    files: Sequence[Place],
    columns: Sequence[str] = (),
    scales: Sequence[str] = (),
    redact: bool = True,
    seed: int = 0,
    executor: Executor | None = None,
) -> TraceCollection:
    """Read the traces in `files` that belong to the system prompt `prompt`, at most MAX_TRACES.

    columns: FIELD=COLUMN pairs. scales: NAME=WORST..BEST pairs. redact: whether secrets and
    personal data are replaced by placeholders. seed: of the draw where there are more traces.
    executor: whose workers parse the files; the result is the same for any number of them.

    Raises ConfigError if no record is usable, DataError if a file cannot be read.
    """
    mapping, declared = parse_column_map(columns), parse_scales(scales)
    parts, found = count_records(files, mapping, executor)
    _require_records(found)
    require_scales(declared, found.ratings)
    known = find_scales(found.ratings, declared)
    chosen, notes = _choose_prompt(prompt, found)
    strata = draw_records(parts, mapping, DrawRule(chosen, known, seed), executor)
    drawn, note = strata.choose(seed)
    drawn, dropped = limit_sources(drawn)
    if not drawn:
        raise ConfigError(
            f"none of the {len(found.find_templates())} system prompts in the trace files is "
            "similar to this prompt; give conversations of this prompt, or the prompt of these "
            "conversations (remask traces inspect shows it)"
        )
    if note:
        notes.append(note)
    if dropped:
        notes.append(f"left out {dropped} conversations of sources with more than 1 % of them")
    notes += _warn_unscaled(found.ratings, known)
    if unused := found.describe_unused():
        notes.append(f"columns that were not used, with their numbers of records: {unused}")
    placeholders = Placeholders()
    redactor = partial(redact_text, placeholders=placeholders) if redact else str
    records = fetch_records(parts, mapping, drawn, executor)
    pairs = list(traces_from_records(records, known, redactor))
    traces = _make_ids_unique([trace for trace, _ in pairs])
    return TraceCollection(
        traces=tuple(traces),
        messages={t.id: text for t, (_, text) in zip(traces, pairs, strict=True) if text},
        records=found.records,
        rejected=found.rejected,
        elsewhere=found.records - strata.count,
        secrets=placeholders.counts,
        notes=tuple(map(redactor, notes)),  # notes contain names of ratings
    )


def _require_records(found: Overview) -> None:
    if not found.records:
        first = f"; the first: {found.first_rejects[0].reason}" if found.first_rejects else ""
        raise ConfigError(
            f"the trace files hold no usable record ({found.rejected} rejected{first}); run remask "
            "traces inspect to see what they hold"
        )


def traces_from_records(
    records: Iterable[Record], scales: Mapping[str, Scale], redactor: Redactor
) -> Iterator[tuple[Trace, str]]:
    """Convert parsed records into redacted traces of one prompt, in order.

    Yields (trace, message). The message is the user's whole text if the conversation is one user
    message and at most one answer, else "".
    """
    for item in records:
        record = _redact_record(item, redactor)
        trace = trace_from_record(record, scales)
        # A label contains the name of its rating. The scale was found by the plain name, so the
        # name is redacted only here.
        notes = tuple(replace(note, text=redactor(note.text)) for note in trace.feedback)
        trace = replace(trace, source=redactor(trace.source), feedback=notes)
        yield trace, _find_only_message(record)


def _choose_prompt(prompt: str, found: Overview) -> tuple[str | None, list[str]]:
    """Return the prompt that a record must have, None where all are used, and notes about that choice."""
    systems = found.find_templates()
    if not systems:
        return None, ["no conversation has a system prompt; all of them are used"]
    if len(systems) == 1:
        if make_similarity(prompt)(systems[0].text):
            return None, []
        return None, ["the conversations have another system prompt than this one"]
    note = f"the files hold {len(systems)} system prompts; only conversations of similar ones"
    return prompt, [f"{note} are used"]


def _redact_record(record: Record, redactor: Redactor) -> Record:
    """Redact all texts of a record. Its system prompt is dropped, since no trace contains it."""
    return replace(
        record,
        id=redactor(record.id or record.source.location),
        system=None,
        turns=tuple(Turn(t.role, redactor(t.text), redactor(t.name)) for t in record.turns),
        ratings=tuple(_redact_rating(rating, redactor) for rating in record.ratings),
        desired=None if record.desired is None else redactor(record.desired),
    )


def _redact_rating(rating: Rating, redactor: Redactor) -> Rating:
    """Redact a rating, except for its name, by which its scale is found."""
    value = redactor(rating.value) if isinstance(rating.value, str) else rating.value
    comment, correction = redactor(rating.comment), redactor(rating.correction)
    return replace(rating, value=value, comment=comment, correction=correction)


def _find_only_message(record: Record) -> str:
    roles = [turn.role for turn in record.turns]
    return record.turns[0].text if roles in (["user"], ["user", "assistant"]) else ""


def _make_ids_unique(traces: Sequence[Trace]) -> list[Trace]:
    """Append " (2)", " (3)", … to ids that occur more than once."""
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


def _warn_unscaled(ratings: Mapping[str, RatingStats], known: Mapping[str, Scale]) -> Iterator[str]:
    for name, stats in ratings.items():
        if stats.values and name not in known:
            yield (
                f"the ratings {name!r} ({stats.low:g} to {stats.high:g}) have no known scale, so "
                f"they are not used as scores; declare it with --scale '{name}=WORST..BEST'"
            )


# --- Short traces for the context of a denoiser

MAX_BRIEF_QUERY_WORDS = 60
MAX_BRIEF_RESPONSE_WORDS = 40
MAX_BRIEF_FEEDBACK_WORDS = 30
# Text without spaces (CJK, base64) is limited to this many characters per allowed word.
MAX_BRIEF_WORD_CHARS = 12


def shorten(trace: Trace) -> Trace:
    """Clean all texts of a trace and limit their length."""
    desired = trace.desired
    return replace(
        trace,
        query=_shorten_text(trace.query, MAX_BRIEF_QUERY_WORDS),
        response=_shorten_text(trace.response, MAX_BRIEF_RESPONSE_WORDS),
        desired=None if desired is None else _shorten_text(desired, MAX_BRIEF_RESPONSE_WORDS),
        feedback=tuple(
            Feedback(note.kind, _shorten_text(note.text, MAX_BRIEF_FEEDBACK_WORDS), note.score)
            for note in trace.feedback
        ),
    )


def _shorten_text(text: str, limit: int) -> str:
    return clip_words(clean(text), limit, word_chars=MAX_BRIEF_WORD_CHARS)
