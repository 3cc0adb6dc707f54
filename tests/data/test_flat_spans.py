"""Spans as databases of spans have them, one a row with its ids beside the attributes; joined batches."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from fakes import write_lines
from remask.data.trace_reader import read_records
from remask.data.trace_record import Record, RejectedRecord

SYSTEM = "You are terse."
CHAT = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Where is my parcel?"}]
VERCEL = {
    "ai.operationId": "ai.generateText.doGenerate",
    "ai.prompt.messages": json.dumps(CHAT),
    "ai.response.text": "On its way.",
}
INDEXED = {
    **{f"gen_ai.prompt.{i}.{k}": v for i, m in enumerate(CHAT) for k, v in m.items()},
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": "On its way.",
}
ROWS: dict[str, dict[str, Any]] = {
    "camel case": {"traceId": "t1", "spanId": "s1", "name": "ai.generateText", "attributes": VERCEL},
    "Logfire": {
        "trace_id": "t1", "span_id": "s1", "parent_span_id": None, "span_name": "chat",
        "attributes": INDEXED, "otel_status_code": None,
    },
    "ClickHouse": {"TraceId": "t1", "SpanId": "s1", "ParentSpanId": "", "SpanAttributes": INDEXED},
    "attributes as text": {"trace_id": "t1", "span_id": "s1", "attributes": json.dumps(INDEXED)},
}  # fmt: skip


def read(file: Path) -> tuple[list[Record], list[RejectedRecord]]:
    items = list(read_records([file]))
    rejected = [item for item in items if isinstance(item, RejectedRecord)]
    return [item for item in items if isinstance(item, Record)], rejected


@pytest.mark.parametrize("name", ROWS)
def test_row_of_a_span_is_a_record(tmp_path: Path, name: str) -> None:
    (record,), rejected = read(write_lines(tmp_path / "spans.jsonl", ROWS[name]))
    assert not rejected
    assert record.system == SYSTEM
    assert [turn.text for turn in record.turns] == ["Where is my parcel?", "On its way."]


def test_rows_of_spans_in_a_table_are_records(tmp_path: Path) -> None:
    file = tmp_path / "spans.csv"
    with file.open("w", newline="") as opened:
        table = csv.writer(opened)
        table.writerow(["trace_id", "span_id", "attributes"])
        for i in range(3):  # another question each, since a repeat is dropped
            asked = INDEXED | {"gen_ai.prompt.1.content": f"Where is parcel {i}?"}
            table.writerow([f"t{i}", f"s{i}", json.dumps(asked)])
    assert len(read(file)[0]) == 3


def test_row_of_a_span_that_failed_says_why(tmp_path: Path) -> None:
    row = ROWS["ClickHouse"] | {"StatusCode": "Error", "StatusMessage": "rate limit"}
    row["SpanAttributes"] = {k: v for k, v in INDEXED.items() if "completion" not in k}
    (rejected,) = read(write_lines(tmp_path / "spans.jsonl", row))[1]
    assert "rate limit" in rejected.reason


def test_request_and_result_of_a_batch_on_one_line_are_a_record(tmp_path: Path) -> None:
    message = {"role": "assistant", "content": [{"type": "text", "text": "On its way."}]}
    anthropic = {
        "custom_id": "a", "params": {"system": SYSTEM, "messages": CHAT[1:]},
        "result": {"type": "succeeded", "message": message},
    }  # fmt: skip
    openai = {
        "custom_id": "b", "body": {"messages": CHAT},
        "response": {"status_code": 200, "body": {"choices": [{"message": {"content": "On its way."}}]}},
        "error": None,
    }  # fmt: skip
    records, _ = read(write_lines(tmp_path / "batch.jsonl", anthropic, openai))
    assert [r.system for r in records] == [SYSTEM, SYSTEM]
    assert [r.turns[-1].text for r in records] == ["On its way."] * 2
