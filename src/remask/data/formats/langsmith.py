"""Read LangSmith: runs (one per line, nested in `child_runs`, or in a list) and feedback on them.

Runs store what LangChain or a wrapped client passed, which `dialects.py` reads. Feedback is in the
run (`feedback`, or averages in `feedback_stats`), or in separate rows that name a run. People rate
the root of a trace, so the aliases of a run are the ids of its ancestors, from `dotted_order`. A
correction is the right response if it is a string or outputs; `{"score": …}` corrects a judge.
Source: langsmith-sdk python/langsmith/schemas.py (Run, Feedback; 2026).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from remask.data.dialects import as_list, as_object, decode_json, extract_messages, extract_text
from remask.data.formats.call_tree import Assessment, Operation, build_records
from remask.data.messages import as_text
from remask.data.trace_record import Annotation, Item, Kind, Rating, Source, TraceFormat

_TYPES: Final = frozenset({"llm", "chain", "tool", "retriever", "prompt", "parser", "embedding"})
_KINDS_BY_SOURCE: Final[dict[str, Kind]] = {"app": "human", "model": "llm", "auto_eval": "llm"}


def matches(value: Any) -> bool:
    """Whether `value` is a run or feedback on one."""
    return isinstance(value, dict) and (_is_run(value) or _is_feedback(value))


def read(value: Any, source: Source) -> Iterator[Item]:
    """Yield the records of a run and its child runs, or the annotation of a feedback row."""
    if not isinstance(value, dict):
        yield source.reject("is not an object")
    elif _is_run(value):
        runs = list(_walk_runs(value))
        if len(runs) == 1 and value["run_type"] != "llm" and value.get("parent_run_id"):
            yield source.reject(f"is a {value['run_type']} within a trace, not a model call")
        else:
            yield from build_records([_build_operation(run) for run in runs], source)
    elif _is_feedback(value):
        assessment = _assess(value)
        key = as_text(value.get("run_id") or value.get("trace_id"))
        if key and assessment:
            yield Annotation(key, source, (), assessment.ratings, assessment.desired)
        else:
            yield source.reject("is feedback without a run, or without a score and a comment")
    else:
        yield source.reject("is neither a run nor feedback on a run")


def _walk_runs(run: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield run
    for child in as_list(run.get("child_runs")):
        yield from _walk_runs({"parent_run_id": _get_id(run), **child})


def _build_operation(run: Mapping[str, Any]) -> Operation:
    extra = as_object(run.get("extra"))
    metadata = as_object(extra.get("metadata"))
    parameters = as_object(extra.get("invocation_params"))
    model = metadata.get("ls_model_name") or parameters.get("model") or parameters.get("model_name")
    # "20260101T000000000000Z<id>.20260101T000001000000Z<id>": the ancestors and the run itself
    around = [step.partition("Z")[2] for step in as_text(run.get("dotted_order")).split(".")]
    failed = as_text(run.get("error")) or (run.get("status") == "error" and "no reason given")
    reference = run.get("reference_outputs")
    return Operation(
        as_text(run.get("trace_id")),
        _get_id(run),
        as_text(run.get("parent_run_id")),
        run.get("run_type") == "llm",
        tuple(extract_messages(decode_json(run.get("inputs")), "user")),
        tuple(extract_messages(decode_json(run.get("outputs")), "assistant")),
        error=failed or "",
        assessment=Assessment(
            _build_ratings(run), extract_text(reference, "assistant") if reference else None
        ),
        model=as_text(model),
        session=as_text(metadata.get("thread_id") or metadata.get("session_id")),
        aliases=tuple(id for id in around if id),
    )


def _build_ratings(run: Mapping[str, Any]) -> tuple[Rating, ...]:
    """Return single ratings if the run has them, else the averages."""
    if single := as_list(run.get("feedback")):
        return tuple(rating for item in single for rating in _assess(item).ratings)
    found: list[Rating] = []
    for name, stats in as_object(run.get("feedback_stats")).items():
        average = as_object(stats).get("avg")
        comments = as_object(stats).get("comments")
        words = [as_text(comment) for comment in comments] if isinstance(comments, list) else []
        value = average if isinstance(average, int | float) else None
        if value is not None or words:
            found.append(Rating(name, value, "unknown", "; ".join(words)))
    return tuple(found)


def _assess(feedback: Mapping[str, Any]) -> Assessment:
    score, label = feedback.get("score"), feedback.get("value")
    correction = decode_json(feedback.get("correction"))
    desired = None
    if isinstance(correction, dict) and "score" in correction:
        score = correction["score"]
    elif correction:
        desired = extract_text(correction, "assistant") or None
    number = score if isinstance(score, bool | int | float) else None
    value = number if number is not None else (label if isinstance(label, str) else None)
    maker = as_text(as_object(feedback.get("feedback_source")).get("type"))
    comment = as_text(feedback.get("comment"))
    if value is None and not comment:
        return Assessment(desired=desired)
    kind = _KINDS_BY_SOURCE.get(maker, "unknown")
    return Assessment((Rating(as_text(feedback.get("key")), value, kind, comment),), desired)


def _get_id(run: Mapping[str, Any]) -> str:
    return as_text(run.get("id") or run.get("run_id"))


def _is_run(value: Mapping[str, Any]) -> bool:
    kind = value.get("run_type")
    return isinstance(kind, str) and kind in _TYPES and ("inputs" in value or "outputs" in value)


def _is_feedback(value: Mapping[str, Any]) -> bool:
    return "key" in value and ("run_id" in value or "trace_id" in value) and "score" in value


LANGSMITH = TraceFormat("langsmith", matches, read, multi_part=True)
