"""No JSON value makes a reader raise: it always yields items."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.data.formats.inspect_log import INSPECT
from remask.data.formats.langfuse import LANGFUSE
from remask.data.formats.langsmith import LANGSMITH
from remask.data.formats.mlflow import MLFLOW
from remask.data.formats.opik import OPIK
from remask.data.formats.otlp import OTLP, SPAN
from remask.data.formats.promptfoo import PROMPTFOO
from remask.data.trace_record import Annotation, Record, RejectedRecord, Source, TraceFormat, UnreadableRecord

FORMATS = {f.name: f for f in (INSPECT, LANGFUSE, LANGSMITH, MLFLOW, OPIK, OTLP, SPAN, PROMPTFOO)}
# Keys and values that the readers look for, so that the values pass their first checks.
KEYS = (
    "annotations.0.annotation.name", "arguments", "assert", "assessments", "attachments",
    "attributes", "avg", "body", "child_runs", "choices", "comment", "componentResults",
    "content", "context", "correction", "data", "dataType", "data_type", "desired",
    "dotted_order", "epoch", "error", "error_info", "eval", "eventName", "events", "expectation",
    "extra", "feedback", "feedback_scores", "feedback_source", "feedback_stats", "function",
    "gen_ai.completion", "gen_ai.input.messages", "gen_ai.output.messages",
    "gen_ai.prompt.0.content", "gen_ai.prompt.0.role", "gradingResult", "id", "info", "input",
    "inputs", "intValue", "key", "kvlistValue", "kwargs", "lc", "links",
    "llm.input_messages.0.message.role", "logRecords", "message", "messages", "meta", "name",
    "observations", "openinference.span.kind", "output", "outputs", "parent_id", "parts",
    "prompt", "promptIdx", "raw", "resourceLogs", "resourceSpans", "response", "results", "role",
    "run_id", "run_type", "samples", "scopeLogs", "scopeSpans", "score", "scores", "source",
    "span_id", "spans", "status", "stringValue", "target", "tool_calls", "trace", "traceId",
    "trace_id", "type", "value", "values", "vars",
)  # fmt: skip
WORDS = ("llm", "chain", "user", "assistant", "system", "tool", "GENERATION", "NUMERIC", "LLM",
         "CORRECTION", "ERROR", "gen_ai.choice", "gen_ai.user.message", "attachment://x", "true",
         "gen_ai.evaluation.result", "HumanMessage", "tool-call", "tool_use", "equals", "text",
         '[{"role": "user", "content": "hi"}]', '{"messages": []}', '[[', '{"a', "0x1")  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=6)
    ),
    max_leaves=25,
)
# An object that each reader matches, so that its content is read.
DOORS: dict[str, Any] = {
    "inspect": lambda v: {"eval": {}, "samples": [{"epoch": 1, "target": v, "messages": v,
                                                   "input": v, "output": v, "scores": v}]},
    "langfuse": lambda v: {"id": "t", "observations": [{"type": "GENERATION", "input": v,
                                                        "output": v}, v], "scores": [v]},
    "langsmith": lambda v: {"run_type": "llm", "inputs": v, "outputs": v, "feedback": [v],
                            "child_runs": [v], "extra": v, "feedback_stats": v},
    "mlflow": lambda v: {"info": {"trace_id": "t", "assessments": [v]},
                         "data": {"spans": [{"attributes": {"mlflow.spanInputs": v,
                                                            "mlflow.spanOutputs": v}}, v]}},
    "opik": lambda v: {"trace": {"input": v, "output": v, "feedback_scores": v}, "spans": [v]},
    "otlp": lambda v: {"resourceSpans": [{"scopeSpans": [{"spans": [v, {"attributes": v}]}]}],
                       "resourceLogs": [{"scopeLogs": [{"logRecords": [v, {"body": v}]}]}]},
    "span": lambda v: {"context": {"trace_id": v, "span_id": v}, "events": [v],
                       "attributes": {"input.value": v, "llm.input_messages": v,
                                      "gen_ai.output.messages": v, "annotations": v}},
    "promptfoo": lambda v: {"results": {"results": [{"success": v, "response": {"output": v},
                                                     "prompt": {"raw": v}, "gradingResult": v}]}},
}  # fmt: skip


def check(format: TraceFormat, value: Any) -> None:
    format.matches(value)
    try:
        items = list(format.read(value, Source(format.name, "f", 1)))
    except UnreadableRecord:
        return
    assert all(isinstance(item, Record | Annotation | RejectedRecord) for item in items)
    for item in items:
        if isinstance(item, Record):
            assert item.turns and item.turns[-1].role == "assistant" and item.turns[-1].text
            assert all(isinstance(turn.text, str) for turn in item.turns)
            assert all(isinstance(key, str) and key for key in item.keys)
            assert item.desired is None or (isinstance(item.desired, str) and item.desired)


@pytest.mark.parametrize("name", FORMATS)
def test_formats_accept_any_value_in_any_place(name: str) -> None:
    @settings(max_examples=120, deadline=None)
    @given(VALUES)
    def search(value: Any) -> None:
        check(FORMATS[name], value)
        inside = DOORS[name](value)
        assert FORMATS[name].matches(inside)
        check(FORMATS[name], inside)

    search()


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_formats_accept_many_values_in_any_place(name: str) -> None:
    @settings(max_examples=2_000, deadline=None)
    @given(VALUES)
    def search(value: Any) -> None:
        check(FORMATS[name], value)
        check(FORMATS[name], DOORS[name](value))

    search()


@pytest.mark.parametrize("name", FORMATS)
def test_formats_accept_deep_values_and_texts(name: str) -> None:
    """Files allow a depth of 254; JSON inside a string may be deeper."""
    value: Any = "x"
    for _ in range(240):
        value = {"messages": [value]} if isinstance(value, dict) else {"input": value}
    for deep in (value, '[{"role":' * 900, "[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900):
        check(FORMATS[name], DOORS[name](deep))
