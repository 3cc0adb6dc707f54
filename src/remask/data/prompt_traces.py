"""Files of conversations to the traces of one prompt, without secrets.

Everything is redacted before it leaves this room, in the order of the files. Conversations that
were held under another system prompt stay outside where the files hold several. Knows what
`ingest` reads; knows nothing of models and of what the traces are for.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from heapq import nsmallest
from pathlib import Path

from remask.data.overview import Overview, build_overview
from remask.data.prompt_templates import find_prompt_templates
from remask.data.ratings import RatingStats, Scale, find_scales, normalize_score, parse_scales
from remask.data.redact.redact import Placeholders, redact
from remask.data.tables import parse_column_map
from remask.data.trace_reader import read_records
from remask.data.trace_record import Rating, Record, Turn
from remask.errors import ConfigError
from remask.ids import content_id
from remask.sanitize import clean, clip_words
from remask.types import Feedback, Trace

# --- Records to traces: what was asked, what was answered, what would have been right.
#
# A correction, or a response that was rated well, is the desired response; words of people stand
# under feedback. A long trajectory of an agent is condensed to the task, the last thing the user
# said and the calls around the failure. Scores come from `ratings`; this part knows neither formats
# nor files.


MIN_GOOD_SCORE = 0.75  # a response rated at least so is its own desired one: four of five stars
KINDS_BY_TRUST = (
    "human",
    "reward",
    "code",
    "llm",
    "unknown",
)  # whose scores count where several stand
MAX_QUERY_WORDS = 150
MAX_RESPONSE_WORDS = 150
MAX_REQUEST_WORDS = 40  # of an agent's first and last request
MAX_STEP_WORDS = 50  # of a call, of a tool's answer, of the last words to the user
FAILURE_MARKS = ("error", "failed", "failure", "exception", "traceback", "invalid", "not found")


def traces(records: Iterable[Record], scales: Mapping[str, Scale]) -> Iterator[Trace]:
    """One trace per record, in order. `scales`: see `scales.known_scales`."""
    return (trace_from_record(record, scales) for record in records)


def trace_from_record(record: Record, scales: Mapping[str, Scale]) -> Trace:
    """The trace of one record. Ratings without a known scale keep their words, not their score."""
    scores = [(rating, normalize_score(rating, scales)) for rating in record.ratings]
    score = _average_score(scores)
    query, response = condense(record.turns)
    correction = next((r.correction for r in record.ratings if r.correction), None)
    desired = correction if correction is not None else record.desired
    if desired is None and response and score is not None and score >= MIN_GOOD_SCORE:
        desired = response
    notes = tuple(note for rating, value in scores for note in _list_feedback(rating, value))
    name = record.id or record.source.location
    return Trace(name, query, response, desired, notes, score, record.session)


def condense(turns: Sequence[Turn]) -> tuple[str, str]:
    """The query and the response that a conversation comes down to, bounded in words."""
    last = _find_last(turns, "assistant")
    if last is None:
        asked = _find_last(turns, "user")
        return (clip_words(turns[asked].text, MAX_QUERY_WORDS) if asked is not None else ""), ""
    if any(turn.role == "tool" for turn in turns[:last]):
        return _condense_agent(turns, last)
    users = [turn.text for turn in turns[:last] if turn.role == "user"]
    return clip_words(_join_requests(users, MAX_QUERY_WORDS), MAX_QUERY_WORDS), clip_words(
        turns[last].text, MAX_RESPONSE_WORDS
    )


def _condense_agent(turns: Sequence[Turn], last: int) -> tuple[str, str]:
    """The decisive step of an agent: the last call that failed, else the last call of all."""
    answers = [i for i in range(1, last) if turns[i].role == "tool"]
    failed = [i for i in answers if _is_failure(turns[i].text)]
    pivot = (failed or answers)[-1]
    call = _find_last(turns[:pivot], "assistant")
    steps = [] if call is None else [turns[call].text]
    answer = turns[pivot].text
    steps.append(f"{turns[pivot].name or 'tool'} answered: {answer}" if answer else "")
    steps.append(turns[last].text)
    users = [turn.text for turn in turns[:pivot] if turn.role == "user"]
    response = "\n".join(clip_words(step, MAX_STEP_WORDS) for step in steps if step)
    return _join_requests(users, MAX_REQUEST_WORDS), response


def _join_requests(users: Sequence[str], limit: int) -> str:
    """What the user wanted first, and said last."""
    if len(users) < 2:
        return clip_words(users[0], limit) if users else ""
    return f"{clip_words(users[0], limit)}\n…\n{clip_words(users[-1], limit)}"


def _is_failure(answer: str) -> bool:
    start = answer[:80].lower()
    return any(mark in start for mark in FAILURE_MARKS)


def _find_last(turns: Sequence[Turn], role: str) -> int | None:
    return next((i for i in range(len(turns) - 1, -1, -1) if turns[i].role == role), None)


def _average_score(scores: Sequence[tuple[Rating, float | None]]) -> float | None:
    """The mean score of the most trusted kind that has any."""
    for kind in KINDS_BY_TRUST:
        found = [score for rating, score in scores if rating.kind == kind and score is not None]
        if found:
            return sum(found) / len(found)
    return None


def _list_feedback(rating: Rating, score: float | None) -> Iterator[Feedback]:
    if rating.correction:
        yield Feedback("correction", rating.correction, score)
    if rating.comment:
        yield Feedback("comment", rating.comment, score)
    elif not rating.correction and rating.value is not None:
        if isinstance(rating.value, str):
            yield Feedback("label", f"{rating.name}: {rating.value}", score)
        elif score is not None:
            yield Feedback("score", "", score)


MIN_SOURCES = 100  # sources, from which on none may have more than …
MAX_SOURCE_SHARE = 0.01  # … this part of the traces (at least one)
MAX_TRACES = 5000  # traces that are held; of more, these are drawn by content
IndexedTrace = tuple[int, tuple[Trace, str]]  # place in the files, trace, message
Redactor = Callable[[str], str]  # redaction, or `str` where it is off
MAX_COMPARED_PROMPTS = 4096  # system prompts whose likeness is remembered


@dataclass(frozen=True, slots=True)
class TraceCollection:
    """The traces of a prompt and what was left out."""

    traces: tuple[Trace, ...]  # ids are unique
    asked: Mapping[str, str]  # id -> the whole message, where one message was all that was said
    records: int  # read
    rejected: int  # things that are no usable record
    elsewhere: int  # records that belong to another system prompt, or to none
    secrets: Mapping[str, int]  # different ones that were replaced, by label
    notes: tuple[str, ...]  # sentences for the user


def read_traces(
    prompt: str,
    files: Sequence[str | Path],
    columns: Sequence[str] = (),
    scales: Sequence[str] = (),
    hide: bool = True,
) -> TraceCollection:
    """The traces in `files` that belong to the system prompt `prompt` (a clean text).

    columns, scales: as for `remask traces inspect`. hide: redact. Raises ConfigError where nothing
    is usable, and DataError where a file cannot be read.
    """
    mapping, declared = parse_column_map(columns), parse_scales(scales)
    found = build_overview(read_records(files, mapping))
    if not found.records:
        first = f"; the first: {found.first_rejects[0].reason}" if found.first_rejects else ""
        raise ConfigError(
            f"the trace files hold no usable record ({found.rejected} rejected{first}); see what "
            "is in them with remask traces inspect"
        )
    known = find_scales(found.ratings, declared)
    belongs, notes = _select_records(prompt, found)
    names = Placeholders()
    hidden = partial(redact, names=names) if hide else str
    elsewhere = used = 0

    def heard() -> Iterator[tuple[Trace, str]]:
        nonlocal elsewhere, used
        for item in read_records(files, mapping):
            if isinstance(item, Record) and belongs(item):
                used += 1
                yield _heard(item, known, hidden)
            elif isinstance(item, Record):
                elsewhere += 1

    drawn = nsmallest(MAX_TRACES, enumerate(heard()), key=_content_key)
    drawn, dropped = _limit_sources(drawn)
    if not drawn:
        raise ConfigError(
            f"none of the {len(found.find_templates())} system prompts in the trace files is like this "
            "prompt; give its own conversations, or the prompt they were held under (see remask "
            "traces inspect)"
        )
    if used > MAX_TRACES:
        notes.append(f"{MAX_TRACES} of {used} conversations were drawn by content")
    if dropped:
        notes.append(f"{dropped} conversations of sources with more than 1 % of all were left out")
    notes += _warn_unscaled(found.ratings, known)
    in_order = [pair for _, pair in sorted(drawn, key=lambda item: item[0])]
    traces = _make_ids_unique([trace for trace, _ in in_order])
    return TraceCollection(
        traces=tuple(traces),
        asked={t.id: text for t, (_, text) in zip(traces, in_order, strict=True) if text},
        records=found.records,
        rejected=found.rejected,
        elsewhere=elsewhere,
        secrets=names.counts,
        notes=tuple(map(hidden, notes)),  # they name ratings
    )


def _heard(item: Record, scales: Mapping[str, Scale], hide: Redactor) -> tuple[Trace, str]:
    """The trace of a record, redacted; and what its user said, if that was all."""
    record = _redact_record(item, hide)
    trace = trace_from_record(record, scales)
    # A label is told with the name of its rating, by which its scale was known until here.
    notes = tuple(replace(note, text=hide(note.text)) for note in trace.feedback)
    return replace(trace, source=hide(trace.source), feedback=notes), _find_only_message(record)


def _content_key(item: IndexedTrace) -> str:
    trace = item[1][0]
    return content_id("trace", trace.query, trace.response)


def _limit_sources(drawn: Sequence[IndexedTrace]) -> tuple[list[IndexedTrace], int]:
    """Where there are many sources, no more of each than its share; and how many are left out."""
    counts = Counter(trace.source for _, (trace, _) in drawn if trace.source)
    if len(counts) < MIN_SOURCES:
        return list(drawn), 0
    most = max(1, int(MAX_SOURCE_SHARE * len(drawn)))
    seen: Counter[str] = Counter()
    kept = []
    for item in drawn:
        source = item[1][0].source
        seen[source] += 1
        if not source or seen[source] <= most:
            kept.append(item)
    return kept, len(drawn) - len(kept)


def _select_records(prompt: str, found: Overview) -> tuple[Callable[[Record], bool], list[str]]:
    """Which records are conversations of `prompt`, and what to say of that choice."""
    systems = found.find_templates()

    @lru_cache(maxsize=MAX_COMPARED_PROMPTS)
    def alike(text: str) -> bool:
        return len(find_prompt_templates({prompt: 1, text: 1})) == 1

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


def _redact_record(record: Record, hide: Redactor) -> Record:
    """The record without secrets; its system prompt is not needed any more."""
    return replace(
        record,
        id=hide(record.id or record.source.location),
        system=None,
        turns=tuple(Turn(t.role, hide(t.text), hide(t.name)) for t in record.turns),
        ratings=tuple(_redact_rating(rating, hide) for rating in record.ratings),
        desired=None if record.desired is None else hide(record.desired),
    )


def _redact_rating(rating: Rating, hide: Redactor) -> Rating:
    """Its name stays: scales are known by it."""
    value = hide(rating.value) if isinstance(rating.value, str) else rating.value
    return replace(
        rating, value=value, comment=hide(rating.comment), correction=hide(rating.correction)
    )


def _find_only_message(record: Record) -> str:
    """What the user said, where that was one message and nothing came before; else ""."""
    roles = [turn.role for turn in record.turns]
    return record.turns[0].text if roles in (["user"], ["user", "assistant"]) else ""


def _make_ids_unique(traces: Sequence[Trace]) -> list[Trace]:
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


def _warn_unscaled(ratings: Mapping[str, RatingStats], known: Mapping[str, Scale]) -> Iterator[str]:
    for name, seen in ratings.items():
        if seen.values and name not in known:
            yield (
                f"the ratings {name!r} ({seen.low:g} to {seen.high:g}) have no known scale and do "
                f"not count as scores; declare it with --scale '{name}=WORST..BEST'"
            )


MAX_BRIEF_QUERY_WORDS = 60
MAX_BRIEF_RESPONSE_WORDS = 40
MAX_BRIEF_FEEDBACK_WORDS = 30
# A "word" of a text without spaces (CJK, base64) may not be longer on average.
MAX_BRIEF_WORD_CHARS = 12


def shorten(trace: Trace) -> Trace:
    """The trace cleaned and clipped."""
    return replace(
        trace,
        query=_shorten_text(trace.query, MAX_BRIEF_QUERY_WORDS),
        response=_shorten_text(trace.response, MAX_BRIEF_RESPONSE_WORDS),
        desired=None
        if trace.desired is None
        else _shorten_text(trace.desired, MAX_BRIEF_RESPONSE_WORDS),
        feedback=tuple(
            Feedback(note.kind, _shorten_text(note.text, MAX_BRIEF_FEEDBACK_WORDS), note.score)
            for note in trace.feedback
        ),
    )


def _shorten_text(text: str, limit: int) -> str:
    return clip_words(clean(text), limit, word_chars=MAX_BRIEF_WORD_CHARS)
