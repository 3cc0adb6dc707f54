"""What tools wrote with their own SDKs is read whole: counts, feedback as given, and reasons."""

import json
from pathlib import Path
from typing import Any

import pytest

from fakes import write_lines
from remask.data.overview import build_overview
from remask.data.trace_reader import read_records
from remask.data.trace_record import Item, Rating, Record, RejectedRecord

FILES = Path(__file__).parent / "files"
SYSTEM = "You are a careful assistant. Answer in one word."


def read(path: Path) -> tuple[list[Record], list[RejectedRecord]]:
    items: list[Item] = list(read_records([path]))
    records = [item for item in items if isinstance(item, Record)]
    return records, [item for item in items if isinstance(item, RejectedRecord)]


@pytest.mark.parametrize(
    ("file", "format", "records", "rejects"),
    [
        ("langfuse_scores_v3.jsonl", "langfuse", 2, []),
        ("langfuse_sdk_spans.jsonl", "span", 7, ["the call failed: Error code: 400"]),
        ("otel_console_exporter.txt", "span", 6,
         ["the call failed: BadRequestError: Error code: 400", "holds 1 spans without a model call"]),
        ("mlflow_search_traces_to_json.jsonl", "mlflow", 8,
         ["the call failed: BadRequestError: Error code: 400 - no"]),
        ("mlflow_trace_to_json.jsonl", "mlflow", 8,
         ["the call failed: BadRequestError: Error code: 400 - no"]),
        ("langfuse_batch.csv", "langfuse", 6, []),
        ("langfuse_ui.json", "langfuse", 1, []),
    ],
)  # fmt: skip
def test_the_whole_file_is_read(file: str, format: str, records: int, rejects: list[str]) -> None:
    found, rejected = read(FILES / file)
    assert [record.source.format for record in found] == [format] * records
    assert len(rejected) == len(rejects)
    for item, words in zip(rejected, rejects, strict=True):
        assert words in item.reason


def test_scores_of_version_3_are_joined_with_traces_and_observations() -> None:
    (first, second), _ = read(FILES / "langfuse_scores_v3.jsonl")
    assert first.ratings == (Rating("quality", 0.9, "human", "good"),)
    assert second.ratings == (Rating("right", False, "human", "it is blue"),)


def test_a_score_of_a_session_is_rejected(tmp_path: Path) -> None:
    score = {"id": "s", "name": "n", "source": "API", "dataType": "NUMERIC", "value": 1,
             "subject": {"kind": "session", "id": "x"}}  # fmt: skip
    _, (reject,) = read(write_lines(tmp_path / "a.jsonl", score))
    assert reject.reason == "is a score of a session or of a dataset run, not of a response"


def test_spans_of_the_sdk_of_langfuse_are_model_calls() -> None:
    records, _ = read(FILES / "langfuse_sdk_spans.jsonl")
    assert {record.system for record in records} == {SYSTEM}
    assert {record.model for record in records} == {"gpt-x"}
    texts = [(record.turns[0].text, record.turns[-1].text) for record in records]
    assert texts[0] == ("What is the capital of France?", "Paris")
    assert ("Use the tool: capital of France?", 'lookup(q="France")') in texts


def test_a_table_of_mlflow_gives_the_records_of_its_traces() -> None:
    tables, _ = read(FILES / "mlflow_search_traces_to_json.jsonl")
    traces, _ = read(FILES / "mlflow_trace_to_json.jsonl")
    for table, trace in zip(tables, traces, strict=True):
        assert (table.turns, table.ratings, table.desired) == (trace.turns, trace.ratings, trace.desired)
    assert sum(bool(record.ratings) for record in tables) == 4


def test_a_table_of_mlflow_with_cells_as_python_prints_them_is_read(tmp_path: Path) -> None:
    tables, _ = read(FILES / "mlflow_search_traces_to_json.jsonl")
    lines = map(json.loads, (FILES / "mlflow_search_traces_to_json.jsonl").read_text().splitlines())
    printed = [{key: str(value) if isinstance(value, list | dict) else value for key, value in line.items()}
               for line in lines]  # fmt: skip
    found, _ = read(write_lines(tmp_path / "a.jsonl", *printed))
    assert len(found) == len(tables) == 8
    for one, other in zip(found, tables, strict=True):
        assert (one.turns, one.ratings, one.desired) == (other.turns, other.ratings, other.desired)


def test_a_table_of_mlflow_with_objects_that_python_only_names_is_rejected(tmp_path: Path) -> None:
    row = {
        "trace_id": "t",
        "spans": "[Span(name='a', trace_id='t')]",
        "trace_metadata": "{}",
        "request": "q",
        "response": "a",
    }
    _, (reject,) = read(write_lines(tmp_path / "a.jsonl", row))
    assert reject.reason.startswith("holds Python text in place of JSON")


# --- "Export from UI" of Langfuse: a column for each score

EXPORT: dict[str, Any] = {
    "id": "t", "timestamp": "2026-01-01", "name": "chat", "userId": "u", "sessionId": "s",
    "bookmarked": False, "tags": ["a"], "latency": 1.5, "totalCost": 0.01, "metadata": {"a": 1},
    "input": {"messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "q"}]},
    "output": {"role": "assistant", "content": "a"}, "comments": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "ratings"),
    [
        ({"user-thumb": [0]}, [Rating("user-thumb", 0)]),
        ({"user-thumb": []}, []),
        ({"user-thumb": None}, []),
        ({"quality": [0.5, 1]}, [Rating("quality", 0.5), Rating("quality", 1)]),
        ({"verdict": ["wrong"]}, [Rating("verdict", "wrong")]),
        ({"comments": ["Too late."]}, [Rating("comment", None, comment="Too late.")]),
        ({"comments": [{"content": "Too late."}]}, [Rating("comment", None, comment="Too late.")]),
    ],
)
@pytest.mark.parametrize("kind", ["json", "csv"])
def test_scores_in_columns_are_read_and_none_is_invented(
    kind: str, columns: dict[str, Any], ratings: list[Rating], tmp_path: Path
) -> None:
    row = EXPORT | columns
    if kind == "json":
        path = write_lines(tmp_path / "a.jsonl", row)
    else:
        cells = {k: json.dumps(v) if isinstance(v, list | dict) else str(v or "") for k, v in row.items()}
        quoted = ['"' + cell.replace('"', '""') + '"' for cell in cells.values()]
        path = tmp_path / "a.csv"
        path.write_text(",".join(cells) + "\n" + ",".join(quoted) + "\n")
    (record,), _ = read(path)
    assert record.system == SYSTEM
    assert [turn.text for turn in record.turns] == ["q", "a"]
    assert list(record.ratings) == ratings
    assert record.session == "s"
    assert "latency" in record.unused and "totalCost" in record.unused
    assert not {"user-thumb", "quality", "verdict", "input", "output", "comments"} & set(record.unused)


def test_a_row_of_the_observations_of_langfuse_has_its_scores(tmp_path: Path) -> None:
    row = EXPORT | {"type": "GENERATION", "traceId": "t", "id": "o", "startTime": "2026", "user-thumb": [1]}
    (record,), _ = read(write_lines(tmp_path / "a.jsonl", row))
    assert record.ratings == (Rating("user-thumb", 1),)


def test_a_column_of_numbers_that_may_be_no_score_is_named_as_unused() -> None:
    overview = build_overview(read_records([FILES / "langfuse_batch.csv"]))
    assert overview.unused["helpful"] == 6 and not overview.ratings


# --- Text that lies elsewhere


def test_the_text_of_a_trace_counts_where_its_observations_are_empty() -> None:
    (record,), _ = read(FILES / "langfuse_ui.json")
    assert [turn.text for turn in record.turns] == [
        "Where is parcel number 0?",
        "Parcel 0 arrives on Monday.",
    ]
    assert record.ratings == (Rating("helpful", False, "human"),)


def span_and_logs() -> tuple[dict[str, Any], dict[str, Any]]:
    ids = {"traceId": "a" * 32, "spanId": "b" * 16}
    kind = {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}}
    span = {"resourceSpans": [{"scopeSpans": [{"spans": [{**ids, "name": "chat", "attributes": [kind]}]}]}]}
    logs = [
        {**ids, "eventName": "gen_ai.user.message", "body": {"kvlistValue": {"values": [
            {"key": "content", "value": {"stringValue": "q"}}]}}},
        {**ids, "eventName": "gen_ai.choice", "body": {"kvlistValue": {"values": [
            {"key": "message", "value": {"kvlistValue": {"values": [
                {"key": "content", "value": {"stringValue": "a"}}]}}}]}}},
    ]  # fmt: skip
    return span, {"resourceLogs": [{"scopeLogs": [{"logRecords": logs}]}]}


@pytest.mark.parametrize("order", [1, -1])
def test_a_span_whose_text_lies_in_log_records_is_no_reject(order: int, tmp_path: Path) -> None:
    (record,), rejected = read(write_lines(tmp_path / "a.jsonl", *span_and_logs()[::order]))
    assert [turn.text for turn in record.turns] == ["q", "a"]
    assert not rejected


def test_a_span_without_text_names_the_variable_that_switches_capture_on(tmp_path: Path) -> None:
    _, (reject,) = read(write_lines(tmp_path / "a.jsonl", span_and_logs()[0]))
    assert "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_ONLY" in reject.reason


def test_a_row_of_the_table_of_phoenix_is_a_span(tmp_path: Path) -> None:
    row = {
        "name": "ChatCompletion", "span_kind": "LLM", "parent_id": None, "status_code": "OK",
        "context.span_id": "s", "context.trace_id": "t", "attributes.openinference.span.kind": "LLM",
        "attributes.llm.model_name": "m", "attributes.session.id": None,
        "attributes.llm.input_messages": [{"message.role": "user", "message.content": "q"}],
        "attributes.llm.output_messages": [{"message.role": "assistant", "message.content": "a"}],
    }  # fmt: skip
    (record,), _ = read(write_lines(tmp_path / "a.jsonl", row))
    assert (record.model, [turn.text for turn in record.turns]) == ("m", ["q", "a"])
