"""Read trace files into the traces of one prompt, with secrets replaced.

Conversations under another system prompt are left out when the files hold several prompts. All text
is redacted in the order of the files, so the numbers of placeholders are reproducible.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from heapq import nsmallest

from remask.data.overview import Overview, build_overview
from remask.data.prompt_templates import find_prompt_templates
from remask.data.ratings import RatingStats, Scale, find_scales, normalize_score, parse_scales, require_scales
from remask.data.redact.redact import Placeholders, redact_text
from remask.data.tables import parse_column_map
from remask.data.trace_reader import Place, read_records
from remask.data.trace_record import Rating, Record, Turn
from remask.errors import ConfigError
from remask.ids import content_id
from remask.sanitize import clean, clip_words
from remask.types import Feedback, Trace

# --- From a record to a trace: query, response, desired response, feedback

MIN_GOOD_SCORE = 0.75  # a response with this score is its own desired response (4 of 5 stars)
KINDS_BY_TRUST = ("human", "reward", "code", "llm", "unknown")  # the first kind with a score counts
MAX_QUERY_WORDS = 150
MAX_RESPONSE_WORDS = 150
MAX_REQUEST_WORDS = 40  # of an agent's first and of its last request
MAX_STEP_WORDS = 50  # of a tool call, of its result, of the last answer
FAILURE_MARKS = ("error", "failed", "failure", "exception", "traceback", "invalid", "not found")


def trace_from_record(record: Record, scales: Mapping[str, Scale]) -> Trace:
    """Convert one record into a trace.

    The desired response is a correction, else the record's right response, else the response itself
    if it was rated well. `scales` holds (worst, best) by rating name, as `find_scales` returns it;
    a rating without a scale keeps its words but has no score.
    """
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
    """Return (query, response) of a conversation, both limited in words.

    A conversation with tool calls is reduced to the request and the decisive step.
    """
    last = _find_last(turns, "assistant")
    if last is None:
        user = _find_last(turns, "user")
        return (clip_words(turns[user].text, MAX_QUERY_WORDS) if user is not None else ""), ""
    if any(turn.role == "tool" for turn in turns[:last]):
        return _condense_agent(turns, last)
    users = [turn.text for turn in turns[:last] if turn.role == "user"]
    query = clip_words(_join_requests(users, MAX_QUERY_WORDS), MAX_QUERY_WORDS)
    return query, clip_words(turns[last].text, MAX_RESPONSE_WORDS)


def _condense_agent(turns: Sequence[Turn], last: int) -> tuple[str, str]:
    """Return the requests, and the last tool call that failed (or the last one) with its result."""
    results = [i for i in range(1, last) if turns[i].role == "tool"]
    failed = [i for i in results if _is_failure(turns[i].text)]
    pivot = (failed or results)[-1]
    call = _find_last(turns[:pivot], "assistant")
    steps = [] if call is None else [turns[call].text]
    result = turns[pivot].text
    steps.append(f"{turns[pivot].name or 'tool'} answered: {result}" if result else "")
    steps.append(turns[last].text)
    users = [turn.text for turn in turns[:pivot] if turn.role == "user"]
    response = "\n".join(clip_words(step, MAX_STEP_WORDS) for step in steps if step)
    return _join_requests(users, MAX_REQUEST_WORDS), response


def _join_requests(users: Sequence[str], limit: int) -> str:
    """Join the first and the last user message, each of at most `limit` words."""
    if len(users) < 2:
        return clip_words(users[0], limit) if users else ""
    return f"{clip_words(users[0], limit)}\n…\n{clip_words(users[-1], limit)}"


def _is_failure(result: str) -> bool:
    start = result[:80].lower()
    return any(mark in start for mark in FAILURE_MARKS)


def _find_last(turns: Sequence[Turn], role: str) -> int | None:
    return next((i for i in range(len(turns) - 1, -1, -1) if turns[i].role == role), None)


def _average_score(scores: Sequence[tuple[Rating, float | None]]) -> float | None:
    """Return the mean score of the most trusted kind of rating that has a score."""
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


# --- From files to the traces of one prompt

MIN_SOURCES = 100  # with at least this many sources, each one's share of the traces is limited
MAX_SOURCE_SHARE = 0.01  # that limit; one trace is always allowed
MAX_TRACES = 5000  # if there are more, these are drawn by a hash of their content
MAX_COMPARED_PROMPTS = 4096  # system prompts whose comparison with the prompt is cached
IndexedTrace = tuple[int, tuple[Trace, str]]  # position in the files, (trace, message)
Redactor = Callable[[str], str]  # `redact_text` with its placeholders, or `str` without redaction


@dataclass(frozen=True, slots=True)
class TraceCollection:
    """The traces of a prompt, and counts of what was left out."""

    traces: tuple[Trace, ...]  # ids are unique
    messages: Mapping[str, str]  # by id: the user's message, if it is the whole conversation
    records: int  # records that were read
    rejected: int  # values that are no usable record
    elsewhere: int  # records of another system prompt, or of none
    secrets: Mapping[str, int]  # by label: distinct secrets that were replaced
    notes: tuple[str, ...]  # sentences for the user


def read_traces(
    prompt: str,
    files: Sequence[Place],
    columns: Sequence[str] = (),
    scales: Sequence[str] = (),
    redact: bool = True,
) -> TraceCollection:
    """Read the traces in `files` that belong to the system prompt `prompt`.

    columns: FIELD=COLUMN pairs. scales: NAME=WORST..BEST pairs. redact: whether secrets and
    personal data are replaced by placeholders.

    Raises ConfigError if no record is usable, DataError if a file cannot be read.
    """
    mapping, declared = parse_column_map(columns), parse_scales(scales)
    found = build_overview(read_records(files, mapping))
    _require_records(found)
    require_scales(declared, found.ratings)
    known = find_scales(found.ratings, declared)
    belongs, notes = _select_records(prompt, found)
    placeholders = Placeholders()
    redactor = partial(redact_text, placeholders=placeholders) if redact else str
    used = 0

    def select() -> Iterator[Record]:
        nonlocal used
        for item in read_records(files, mapping):
            if isinstance(item, Record) and belongs(item):
                used += 1
                yield item

    pairs = traces_from_records(select(), known, redactor)
    drawn = nsmallest(MAX_TRACES, enumerate(pairs), key=_content_key)
    drawn, dropped = _limit_sources(drawn)
    if not drawn:
        raise ConfigError(
            f"none of the {len(found.find_templates())} system prompts in the trace files is "
            "similar to this prompt; give conversations of this prompt, or the prompt of these "
            "conversations (remask traces inspect shows it)"
        )
    if used > MAX_TRACES:
        notes.append(f"{MAX_TRACES} of {used} conversations were selected by a hash")
    if dropped:
        notes.append(f"left out {dropped} conversations of sources with more than 1 % of them")
    notes += _warn_unscaled(found.ratings, known)
    if unused := found.describe_unused():
        notes.append(f"columns that were not used, with their numbers of records: {unused}")
    in_order = [pair for _, pair in sorted(drawn, key=lambda item: item[0])]
    traces = _make_ids_unique([trace for trace, _ in in_order])
    return TraceCollection(
        traces=tuple(traces),
        messages={t.id: text for t, (_, text) in zip(traces, in_order, strict=True) if text},
        records=found.records,
        rejected=found.rejected,
        elsewhere=found.records - used,
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


def _content_key(item: IndexedTrace) -> str:
    trace = item[1][0]
    return content_id("trace", trace.query, trace.response)


def _limit_sources(drawn: Sequence[IndexedTrace]) -> tuple[list[IndexedTrace], int]:
    """Limit each source to MAX_SOURCE_SHARE; return the traces and how many were dropped."""
    counts = Counter(trace.source for _, (trace, _) in drawn if trace.source)
    if len(counts) < MIN_SOURCES:
        return list(drawn), 0
    limit = max(1, int(MAX_SOURCE_SHARE * len(drawn)))
    seen: Counter[str] = Counter()
    kept = []
    for item in drawn:
        source = item[1][0].source
        seen[source] += 1
        if not source or seen[source] <= limit:
            kept.append(item)
    return kept, len(drawn) - len(kept)


def _select_records(prompt: str, found: Overview) -> tuple[Callable[[Record], bool], list[str]]:
    """Return a test whether a record belongs to `prompt`, and notes about that choice."""
    systems, is_similar = found.find_templates(), make_similarity(prompt)
    if not systems:
        return (lambda _: True), ["no conversation has a system prompt; all of them are used"]
    if len(systems) == 1:
        if is_similar(systems[0].text):
            return (lambda _: True), []
        return (lambda _: True), ["the conversations have another system prompt than this one"]

    def belongs(record: Record) -> bool:
        text = record.template or record.system
        return bool(text) and is_similar(text or "")

    note = f"the files hold {len(systems)} system prompts; only conversations of similar ones"
    return belongs, [f"{note} are used"]


def make_similarity(prompt: str) -> Callable[[str], bool]:
    """Return a test whether a system prompt is `prompt` but for the values of its variables."""

    @lru_cache(maxsize=MAX_COMPARED_PROMPTS)
    def is_similar(text: str) -> bool:
        return len(find_prompt_templates({prompt: 1, text: 1})) == 1

    return is_similar


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
