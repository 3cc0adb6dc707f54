"""From a record to a trace: query, response, desired response, feedback."""

from collections.abc import Iterator, Mapping, Sequence

from remask.data.ratings import Scale, normalize_score
from remask.data.trace_record import Rating, Record, Turn
from remask.sanitize import clip_words
from remask.types import Feedback, Trace

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
