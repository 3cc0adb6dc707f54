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
    overall: Assessment = NO_ASSESSMENT,
    no_text: str = "holds no text",
) -> Iterator[Item]:
    """Yield the records of the operations of one trace, in order.

    trace_assessment: feedback on the whole trace. no_text_reason: why a model call without input
    and output is rejected. Other operations are rejected only if the trace has no record at all.
    """
    made: dict[int, Record] = {}
    failed: list[RejectedRecord] = []
    parents = {op.id: op.parent for op in operations}
    selected = _select_operations(operations, parents)
    ancestors = {n: _walk_up(parents, operations[n].parent) for n in selected}
    for number in selected:
        op = operations[number]
        place = replace(source, entry=source.entry or op.id)
        try:
            made[number] = _build_record(op, ancestors[number], place, no_text)
        except UnreadableRecord as reason:
            # The text of a call can be in log records, which make a record with the same key.
            failed.append(place.reject(str(reason), "" if op.input or op.output or op.error else op.id))
    assessments = [  # of steps, which have no record
        (op.id, op.assessment, [n for n in made if op.id in ancestors[n]])
        for number, op in enumerate(operations)
        if op.assessment and number not in selected
    ]
    trace = operations[0].trace if operations else ""
    if overall:
        assessments.append((trace, overall, list(made)))
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
    for op in operations:
        traces.setdefault(op.trace, []).append(op)
    return list(traces.values())


def _select_operations(operations: Sequence[Operation], parents: Mapping[str, str]) -> list[int]:
    """Return the positions of the operations that become records, in order."""
    full = {op.id for op in operations if op.input and op.output}
    calls = [op for op in operations if op.model_call]
    # Some exports have the text only in the trace, beside calls without any.
    only_around = bool(full) and not any(op.input or op.output or op.error for op in calls)
    if calls and not only_around:
        inner = [op.parent for op in operations if op.model_call and op.id in full]
        wrapped = {id for parent in inner for id in _walk_up(parents, parent)}
        return [n for n, op in enumerate(operations) if op.model_call and op.id not in wrapped]
    return [
        number
        for number, op in enumerate(operations)
        if op.id in full and full.isdisjoint(_walk_up(parents, op.parent))
    ]


def _walk_up(parents: Mapping[str, str], at: str) -> tuple[str, ...]:
    """Return the ids from `at` upwards; the last one may be of an operation that is missing."""
    found: dict[str, None] = {}
    while at and at not in found:
        found[at] = None
        at = parents.get(at, "")
    return tuple(found)


def _add_assessment(record: Record, assessment: Assessment) -> Record:
    desired = record.desired if assessment.desired is None else assessment.desired
    return replace(record, ratings=record.ratings + assessment.ratings, desired=desired)


def _shorten_reason(text: str) -> str:
    """Keep the start and the end of a reason: some tools put the request before what went wrong."""
    text = " ".join(text.split())
    return text if len(text) <= 200 else f"{text[:60]} … {text[-137:]}"


def _build_record(op: Operation, ancestors: Sequence[str], source: Source, no_text: str) -> Record:
    if op.error:
        raise UnreadableRecord(f"the call failed: {_shorten_reason(op.error)}")
    if not op.input and not op.output:
        raise UnreadableRecord(no_text)
    if not op.output:
        raise UnreadableRecord("has no answer")
    inputs, outputs = op.input, op.output
    repeats = outputs[: len(inputs)] == inputs
    system, turns = parse_conversation(list(outputs if repeats else inputs + outputs))
    if not turns or turns[-1].role != "assistant" or not turns[-1].text.strip():
        raise UnreadableRecord("does not end with an answer of the model")
    first = next((turn.text for turn in turns if turn.role == "user"), None)
    if first is None:
        raise UnreadableRecord("holds no message of a user")
    group = op.session or op.trace
    beginning = f"{op.model_call}\0{system}\0{first}".encode("utf-8", "replace").decode()
    return Record(
        id=op.id,
        system=system,
        turns=turns,
        ratings=op.assessment.ratings,
        desired=op.assessment.desired,
        source=source,
        model=op.model,
        template=op.template,
        keys=tuple(dict.fromkeys(key for key in (op.id, *op.aliases, *ancestors) if key)),
        session=op.session,
        thread=content_id("thread", group, beginning) if group else "",
    )
