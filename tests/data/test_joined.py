"""Records whose parts are on several lines or in several files are joined, repeats are dropped."""

import json
from pathlib import Path
from typing import Any

from fakes import write_lines
from remask.data.trace_reader import read_records
from remask.data.trace_record import Record, RejectedRecord


def run(id: str, *history: str) -> dict[str, Any]:
    """A LangSmith run of a model; `history` alternates between user and assistant."""
    roles = ["user", "assistant"] * len(history)
    messages = [{"role": r, "content": t} for r, t in zip(roles, history, strict=False)]
    return {
        "id": id,
        "run_type": "llm",
        "inputs": {"messages": messages[:-1]},
        "outputs": {"choices": [{"message": messages[-1]}]},
        "trace_id": "t",
        "parent_run_id": "t",
        "dotted_order": f"20260801T100000000000Zt.20260801T100001000000Z{id}",
    }


def feedback(id: str, score: float) -> dict[str, Any]:
    return {"run_id": id, "key": "thumb", "score": score, "value": None, "comment": None}


def records(*paths: Path) -> dict[str, Record]:
    items = list(read_records(paths))
    assert not [item for item in items if isinstance(item, RejectedRecord)]
    return {item.id: item for item in items if isinstance(item, Record)}


def test_langsmith_feedback_in_another_file_is_joined(tmp_path: Path) -> None:
    runs = write_lines(
        tmp_path / "runs.jsonl",
        run("a", "hi", "hello"),
        run("b", "hi", "hello", "how?", "so"),
        run("c", "hi", "hello", "how?", "so", "why?", "thus"),
    )
    found = records(runs, write_lines(tmp_path / "feedback.jsonl", feedback("a", 0)))
    assert list(found) == ["a", "c"], "b is a part of c and not rated; a is rated"
    assert [rating.value for rating in found["a"].ratings] == [0] and not found["c"].ratings


def test_otlp_evaluation_on_a_later_line_is_joined(tmp_path: Path) -> None:
    def pair(key: str, value: Any) -> dict[str, Any]:
        return {"key": key, "value": {"stringValue": json.dumps(value)}}

    said = [{"role": "assistant", "parts": [{"type": "text", "content": "hello"}]}]
    asked = [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]
    attributes = [pair("gen_ai.input.messages", asked), pair("gen_ai.output.messages", said)]
    span = {"traceId": "ab" * 16, "spanId": "a1" * 8, "attributes": attributes}
    score = {"key": "gen_ai.evaluation.score.value", "value": {"doubleValue": 0.5}}
    log = {"spanId": "a1" * 8, "eventName": "gen_ai.evaluation.result", "attributes": [score]}
    path = write_lines(
        tmp_path / "otlp.jsonl",
        {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]},
        {"resourceLogs": [{"scopeLogs": [{"logRecords": [log]}]}]},
    )
    (record,) = records(path).values()
    assert [rating.value for rating in record.ratings] == [0.5]


def test_langsmith_feedback_on_a_trace_goes_to_its_last_call(tmp_path: Path) -> None:
    root = run("t", "hi", "hello") | {"run_type": "chain", "parent_run_id": None}
    root |= {"dotted_order": "20260801T100000000000Zt"}
    calls = [run("a", "which tool?", "none"), run("b", "hi", "hello")]
    for order in ([root, *calls], [*calls, root]):
        found = records(write_lines(tmp_path / "runs.jsonl", *order, feedback("t", 0)))
        assert list(found) == ["a", "b"]
        assert [rating.value for rating in found["b"].ratings] == [0] and not found["a"].ratings
    assert list(records(write_lines(tmp_path / "roots.jsonl", root, feedback("t", 0)))) == ["t"]
