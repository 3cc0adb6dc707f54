"""Build records from the operations of a trace, for all tracing tools.

A trace is a tree of model calls and of steps around them (agents, chains, tools). Each model call
becomes a record; if one instrumentation wraps another, only the inner call does. In a trace without
model calls, the topmost steps with an input and an output become records.

The calls of an agent repeat a growing history, so they get the same `Record.thread`, as do the
calls of a session with the same beginning. Only the longest of these and the rated ones are kept.

Feedback on a step is added to the last call below it, and feedback on a trace to its last call. If
that call is on another line or in another file, the feedback becomes an Annotation. For this
purpose the keys of a record are its own id and then the ids of its ancestors, and a key of an
ancestor refers to the last record with that key.
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
    """Ratings and the right response of an operation or of a trace."""

    ratings: tuple[Rating, ...] = ()
    desired: str | None = None

    def __bool__(self) -> bool:
        return bool(self.ratings) or self.desired is not None


NO_ASSESSMENT = Assessment()


@dataclass(frozen=True, slots=True)
class Operation:
    """A call of a language model, or a step around such calls."""

    trace: str
    id: str
    parent: str  # id of the operation around it, or ""
    model_call: bool
    input: tuple[Message, ...]
    output: tuple[Message, ...]  # may begin with the input
    error: str = ""  # why the operation failed, or ""
    assessment: Assessment = NO_ASSESSMENT
    model: str = ""
    template: str = ""  # of the system prompt
    session: str = ""
    aliases: tuple[str, ...] = ()  # other ids that feedback may use


def build_records(
    operations: Sequence[Operation],
    source: Source,
    trace_assessment: Assessment = NO_ASSESSMENT,
    no_text_reason: str = "holds no text",
) -> Iterator[Item]:
    """Yield the records of the operations of one trace, in order.

    trace_assessment: feedback on the whole trace. no_text_reason: why a model call without input
    and output is rejected. Other operations are rejected only if the trace has no record at all.
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
    assessments = [  # of steps, which have no record
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
            unmatched.append(source.reject(f"feedback on {key!r}, which has no model call"))
    if trace and made and trace not in (last := made[max(made)]).keys:
        made[max(made)] = replace(last, keys=(*last.keys, trace))
    yield from made.values()
    yield from unmatched
    yield from failed
    if not made and not unmatched and not failed:
        yield source.reject("holds no call of a language model")


def group_by_trace(operations: Sequence[Operation]) -> list[list[Operation]]:
    """Return the operations of each trace, in order of appearance."""
    traces: dict[str, list[Operation]] = {}
    for operation in operations:
        traces.setdefault(operation.trace, []).append(operation)
    return list(traces.values())


def _select_operations(operations: Sequence[Operation], parents: Mapping[str, str]) -> list[int]:
    """Return the positions of the operations that become records, in order."""
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
    """Return the ids from `at` upwards; the last one may be of an operation that is missing."""
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
        raise UnreadableRecord("does not end with an answer of the model")
    first = next((turn.text for turn in turns if turn.role == "user"), None)
    if first is None:
        raise UnreadableRecord("holds no message of a user")
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
