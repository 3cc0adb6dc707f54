"""Records to traces: what was asked, what was answered, what would have been right.

A correction, or a response that was rated well, is the desired response; words of people stand
under feedback. A long trajectory of an agent is condensed to the task, the last thing the user said
and the calls around the failure. Scores come from `scales`; nothing here knows formats or files.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from remask.ingest.record import Rating, Record, Turn
from remask.ingest.scales import Scale, score_of
from remask.text import clip_words
from remask.trace import Feedback, Trace

GOOD = 0.75  # a response rated at least so is its own desired one: four of five stars
TRUSTED = ("human", "reward", "code", "llm", "unknown")  # whose scores count where several stand
QUERY_WORDS = 150
RESPONSE_WORDS = 150
TASK_WORDS = 40  # of an agent's first and last request
STEP_WORDS = 50  # of a call, of a tool's answer, of the last words to the user
FAILURE_MARKS = ("error", "failed", "failure", "exception", "traceback", "invalid", "not found")


def traces(records: Iterable[Record], scales: Mapping[str, Scale]) -> Iterator[Trace]:
    """One trace per record, in order. `scales`: see `scales.known_scales`."""
    return (trace_of(record, scales) for record in records)


def trace_of(record: Record, scales: Mapping[str, Scale]) -> Trace:
    """The trace of one record. Ratings without a known scale keep their words, not their score."""
    scores = [(rating, score_of(rating, scales)) for rating in record.ratings]
    score = _overall(scores)
    query, response = condensed(record.turns)
    correction = next((r.correction for r in record.ratings if r.correction), None)
    desired = correction if correction is not None else record.desired
    if desired is None and response and score is not None and score >= GOOD:
        desired = response
    notes = tuple(note for rating, value in scores for note in _notes(rating, value))
    name = record.id or record.source.place
    return Trace(name, query, response, desired, notes, score, record.session)


def condensed(turns: Sequence[Turn]) -> tuple[str, str]:
    """The query and the response that a conversation comes down to, bounded in words."""
    last = _last(turns, "assistant")
    if last is None:
        asked = _last(turns, "user")
        return (clip_words(turns[asked].text, QUERY_WORDS) if asked is not None else ""), ""
    if any(turn.role == "tool" for turn in turns[:last]):
        return _agent(turns, last)
    users = [turn.text for turn in turns[:last] if turn.role == "user"]
    return clip_words(_query(users, QUERY_WORDS), QUERY_WORDS), clip_words(
        turns[last].text, RESPONSE_WORDS
    )


def _agent(turns: Sequence[Turn], last: int) -> tuple[str, str]:
    """The decisive step of an agent: the last call that failed, else the last call of all."""
    answers = [i for i in range(1, last) if turns[i].role == "tool"]
    failed = [i for i in answers if _failed(turns[i].text)]
    pivot = (failed or answers)[-1]
    call = _last(turns[:pivot], "assistant")
    steps = [] if call is None else [turns[call].text]
    answer = turns[pivot].text
    steps.append(f"{turns[pivot].name or 'tool'} answered: {answer}" if answer else "")
    steps.append(turns[last].text)
    users = [turn.text for turn in turns[:pivot] if turn.role == "user"]
    response = "\n".join(clip_words(step, STEP_WORDS) for step in steps if step)
    return _query(users, TASK_WORDS), response


def _query(users: Sequence[str], limit: int) -> str:
    """What the user wanted first, and said last."""
    if len(users) < 2:
        return clip_words(users[0], limit) if users else ""
    return f"{clip_words(users[0], limit)}\n…\n{clip_words(users[-1], limit)}"


def _failed(answer: str) -> bool:
    start = answer[:80].lower()
    return any(mark in start for mark in FAILURE_MARKS)


def _last(turns: Sequence[Turn], role: str) -> int | None:
    return next((i for i in range(len(turns) - 1, -1, -1) if turns[i].role == role), None)


def _overall(scores: Sequence[tuple[Rating, float | None]]) -> float | None:
    """The mean score of the most trusted kind that has any."""
    for kind in TRUSTED:
        found = [score for rating, score in scores if rating.kind == kind and score is not None]
        if found:
            return sum(found) / len(found)
    return None


def _notes(rating: Rating, score: float | None) -> Iterator[Feedback]:
    if rating.correction:
        yield Feedback("correction", rating.correction, score)
    if rating.comment:
        yield Feedback("comment", rating.comment, score)
    elif not rating.correction and rating.value is not None:
        if isinstance(rating.value, str):
            yield Feedback("label", f"{rating.name}: {rating.value}", score)
        elif score is not None:
            yield Feedback("score", "", score)
