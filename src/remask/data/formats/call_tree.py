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
class Assessment:
    """What was said of an operation or of a trace."""

    ratings: tuple[Rating, ...] = ()
    desired: str | None = None

    def __bool__(self) -> bool:
        return bool(self.ratings) or self.desired is not None


NO_ASSESSMENT = Assessment()


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: a call of a language model, or a step around such calls."""

    trace: str
    id: str
    parent: str  # id of the operation around it; "": none
    model_call: bool
    input: tuple[Message, ...]
    output: tuple[Message, ...]  # may repeat what was asked
    error: str = ""  # not empty: it failed, and why
    assessment: Assessment = NO_ASSESSMENT
    model: str = ""
    template: str = ""  # of the system prompt
    session: str = ""
    aliases: tuple[str, ...] = ()  # further ids under which somebody may speak of it


def build_records(
    operations: Sequence[Operation],
    source: Source,
    trace_assessment: Assessment = NO_ASSESSMENT,
    no_text_reason: str = "holds no text",
) -> Iterator[Item]:
    """The records of the operations of one trace, in order; `rewrite` is said of the trace.

    `silent` is the reason for calls of a model that keep neither question nor answer. Operations
    that are not records are passed over in silence, unless nothing else is there.
    """
    made: dict[int, Record] = {}
    failed: list[RejectedRecord] = []
    parents = {operation.id: operation.parent for operation in operations}
    selected = _select_operations(operations, parents)
    for number in selected:
        operation = operations[number]
        place = replace(source, entry=source.entry or operation.id)
        try:
            made[number] = _build_record(
                operation, _list_ancestors(parents, operation.parent), place, no_text_reason
            )
        except UnreadableRecord as reason:
            failed.append(place.reject(str(reason)))
    assessments = [  # on steps, which keep no record of their own
        (
            operation.id,
            operation.assessment,
            [n for n in made if operation.id in _list_ancestors(parents, operations[n].parent)],
        )
        for number, operation in enumerate(operations)
        if operation.assessment and number not in selected
    ]
    trace = operations[0].trace if operations else ""
    if trace_assessment:
        assessments.append((trace, trace_assessment, list(made)))
    unmatched: list[Item] = []
    for key, assessment, below in assessments:
        if below:
            made[below[-1]] = _add_assessment(made[below[-1]], assessment)
        elif key and not made:
            unmatched.append(Annotation(key, source, (), assessment.ratings, assessment.desired))
        else:
            unmatched.append(
                source.reject(f"feedback on {key!r}, which no call of a model belongs to")
            )
    if trace and made and trace not in (last := made[max(made)]).keys:
        made[max(made)] = replace(last, keys=(*last.keys, trace))
    yield from made.values()
    yield from unmatched
    yield from failed
    if not made and not unmatched and not failed:
        yield source.reject("holds no call of a language model")


def group_by_trace(operations: Sequence[Operation]) -> list[list[Operation]]:
    """The calls of each trace, in order of appearance."""
    traces: dict[str, list[Operation]] = {}
    for operation in operations:
        traces.setdefault(operation.trace, []).append(operation)
    return list(traces.values())


def _select_operations(operations: Sequence[Operation], parents: Mapping[str, str]) -> list[int]:
    """The operations that become records, in order."""
    full = {operation.id for operation in operations if operation.input and operation.output}
    if any(operation.model_call for operation in operations):
        inner = [
            operation.parent
            for operation in operations
            if operation.model_call and operation.id in full
        ]
        wrapped = {id for parent in inner for id in _list_ancestors(parents, parent)}
        return [
            n
            for n, operation in enumerate(operations)
            if operation.model_call and operation.id not in wrapped
        ]
    return [
        number
        for number, operation in enumerate(operations)
        if operation.id in full and full.isdisjoint(_list_ancestors(parents, operation.parent))
    ]


def _list_ancestors(parents: Mapping[str, str], at: str) -> tuple[str, ...]:
    """Ids of the operations from `at` upwards, as far as they are at hand, and one more."""
    found: dict[str, None] = {}
    while at and at not in found:
        found[at] = None
        at = parents.get(at, "")
    return tuple(found)


def _add_assessment(record: Record, assessment: Assessment) -> Record:
    desired = record.desired if assessment.desired is None else assessment.desired
    return replace(record, ratings=record.ratings + assessment.ratings, desired=desired)


def _build_record(
    operation: Operation, ancestors: Sequence[str], source: Source, no_text_reason: str
) -> Record:
    if operation.error:
        raise UnreadableRecord(f"the call failed: {operation.error[:200]}")
    if not operation.input and not operation.output:
        raise UnreadableRecord(no_text_reason)
    if not operation.output:
        raise UnreadableRecord("has no answer")
    inputs, outputs = operation.input, operation.output
    repeats = outputs[: len(inputs)] == inputs
    system, turns = parse_conversation(list(outputs if repeats else inputs + outputs))
    if not turns or turns[-1].role != "assistant" or not turns[-1].text.strip():
        raise UnreadableRecord("does not end with an answer of the assistant")
    first = next((turn.text for turn in turns if turn.role == "user"), None)
    if first is None:
        raise UnreadableRecord("holds no question: nobody but the assistant speaks")
    group = operation.session or operation.trace
    beginning = f"{operation.model_call}\0{system}\0{first}".encode("utf-8", "replace").decode()
    return Record(
        id=operation.id,
        system=system,
        turns=turns,
        ratings=operation.assessment.ratings,
        desired=operation.assessment.desired,
        source=source,
        model=operation.model,
        template=operation.template,
        keys=tuple(
            dict.fromkeys(key for key in (operation.id, *operation.aliases, *ancestors) if key)
        ),
        session=operation.session,
        thread=content_id("thread", group, beginning) if group else "",
    )
