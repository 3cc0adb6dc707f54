"""The operations of a trace to records, whichever tool wrote them down.

A tracing tool keeps a tree: calls of a language model, and steps around them (agents, chains,
tools). One record is made per call of a model; where one instrumentation wraps another, of the
inner one. Where a trace shows no such call, the topmost steps that were asked something and
answered stand in for the conversation. An agent's calls repeat a growing history: they share
`Record.thread`, and so do the calls of one session that begin alike, so that only the longest one
stays, and those that somebody rated.

What is said of a step goes to the last call below it, what is said of a whole trace to its last
call; where that call stands on another line or in another file, it becomes an Addition. So the
first of a record's keys is its own id; the others name what is around it, and mean the last record
that bears them. Knows nothing of any tool's names.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from remask.data.dialects import Message
from remask.data.messages import parse_conversation
from remask.data.trace_record import (
    Annotation,
    Item,
    Rating,
    Record,
    RejectedRecord,
    Source,
    UnreadableRecord,
)
from remask.ids import content_id


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was said of an operation or of a trace."""

    ratings: tuple[Rating, ...] = ()
    desired: str | None = None

    def __bool__(self) -> bool:
        return bool(self.ratings) or self.desired is not None


NOTHING = Verdict()


@dataclass(frozen=True, slots=True)
class Call:
    """One operation: a call of a language model, or a step around such calls."""

    trace: str
    id: str
    parent: str  # id of the operation around it; "": none
    model_call: bool
    asked: tuple[Message, ...]
    answered: tuple[Message, ...]  # may repeat what was asked
    error: str = ""  # not empty: it failed, and why
    verdict: Verdict = NOTHING
    model: str = ""
    template: str = ""  # of the system prompt
    session: str = ""
    names: tuple[str, ...] = ()  # further ids under which somebody may speak of it


def records(
    calls: Sequence[Call], source: Source, whole: Verdict = NOTHING, silent: str = "holds no text"
) -> Iterator[Item]:
    """The records of the operations of one trace, in order; `rewrite` is said of the trace.

    `silent` is the reason for calls of a model that keep neither question nor answer. Operations
    that are not records are passed over in silence, unless nothing else is there.
    """
    made: dict[int, Record] = {}
    failed: list[RejectedRecord] = []
    parents = {call.id: call.parent for call in calls}
    spoken = _spoken(calls, parents)
    for number in spoken:
        call = calls[number]
        place = replace(source, entry=source.entry or call.id)
        try:
            made[number] = _record(call, _above(parents, call.parent), place, silent)
        except UnreadableRecord as reason:
            failed.append(place.reject(str(reason)))
    verdicts = [  # on steps, which keep no record of their own
        (call.id, call.verdict, [n for n in made if call.id in _above(parents, calls[n].parent)])
        for number, call in enumerate(calls)
        if call.verdict and number not in spoken
    ]
    trace = calls[0].trace if calls else ""
    if whole:
        verdicts.append((trace, whole, list(made)))
    stray: list[Item] = []
    for key, verdict, below in verdicts:
        if below:
            made[below[-1]] = _rated(made[below[-1]], verdict)
        elif key and not made:
            stray.append(Annotation(key, source, (), verdict.ratings, verdict.desired))
        else:
            stray.append(source.reject(f"feedback on {key!r}, which no call of a model belongs to"))
    if trace and made and trace not in (last := made[max(made)]).keys:
        made[max(made)] = replace(last, keys=(*last.keys, trace))
    yield from made.values()
    yield from stray
    yield from failed
    if not made and not stray and not failed:
        yield source.reject("holds no call of a language model")


def by_trace(calls: Sequence[Call]) -> list[list[Call]]:
    """The calls of each trace, in order of appearance."""
    traces: dict[str, list[Call]] = {}
    for call in calls:
        traces.setdefault(call.trace, []).append(call)
    return list(traces.values())


def _spoken(calls: Sequence[Call], parents: Mapping[str, str]) -> list[int]:
    """The operations that become records, in order."""
    full = {call.id for call in calls if call.asked and call.answered}
    if any(call.model_call for call in calls):
        inner = [call.parent for call in calls if call.model_call and call.id in full]
        wrapped = {id for parent in inner for id in _above(parents, parent)}
        return [n for n, call in enumerate(calls) if call.model_call and call.id not in wrapped]
    return [
        number
        for number, call in enumerate(calls)
        if call.id in full and full.isdisjoint(_above(parents, call.parent))
    ]


def _above(parents: Mapping[str, str], at: str) -> tuple[str, ...]:
    """Ids of the operations from `at` upwards, as far as they are at hand, and one more."""
    found: dict[str, None] = {}
    while at and at not in found:
        found[at] = None
        at = parents.get(at, "")
    return tuple(found)


def _rated(record: Record, verdict: Verdict) -> Record:
    desired = record.desired if verdict.desired is None else verdict.desired
    return replace(record, ratings=record.ratings + verdict.ratings, desired=desired)


def _record(call: Call, above: Sequence[str], source: Source, silent: str) -> Record:
    if call.error:
        raise UnreadableRecord(f"the call failed: {call.error[:200]}")
    if not call.asked and not call.answered:
        raise UnreadableRecord(silent)
    if not call.answered:
        raise UnreadableRecord("has no answer")
    asked, answered = call.asked, call.answered
    repeats = answered[: len(asked)] == asked
    system, turns = parse_conversation(list(answered if repeats else asked + answered))
    if not turns or turns[-1].role != "assistant" or not turns[-1].text.strip():
        raise UnreadableRecord("does not end with an answer of the assistant")
    first = next((turn.text for turn in turns if turn.role == "user"), None)
    if first is None:
        raise UnreadableRecord("holds no question: nobody but the assistant speaks")
    group = call.session or call.trace
    beginning = f"{call.model_call}\0{system}\0{first}".encode("utf-8", "replace").decode()
    return Record(
        id=call.id,
        system=system,
        turns=turns,
        ratings=call.verdict.ratings,
        desired=call.verdict.desired,
        source=source,
        model=call.model,
        template=call.template,
        keys=tuple(dict.fromkeys(key for key in (call.id, *call.names, *above) if key)),
        session=call.session,
        thread=content_id("thread", group, beginning) if group else "",
    )
