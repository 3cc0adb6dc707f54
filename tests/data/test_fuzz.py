"""Any content of a file gives items and no exception, and `parse` is as strict as JSON.

A few examples always run; the slow tier runs many.
"""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remask.data.ratings import RatingStats, find_scales
from remask.data.record_to_trace import trace_from_record
from remask.data.strict_json import parse
from remask.data.tables import build_mapped_format
from remask.data.trace_reader import FORMATS, read_records
from remask.data.trace_record import Annotation, Record, RejectedRecord, Source, UnreadableRecord

READERS = {f.name: f for f in (*FORMATS, build_mapped_format({"input": "input.0.a"}))}
# Keys and words that the readers look for, so that the values pass their first checks.
KEYS = (
    "a", "input", "output", "messages", "role", "content", "type", "text", "tool_calls",
    "function", "name", "arguments", "id", "call_id", "custom_id", "body", "params", "response",
    "result", "error", "status_code", "message", "choices", "conversations", "from", "value",
    "system", "instructions", "prompt", "completion", "chosen", "rejected", "request", "item",
    "sample", "results", "passed", "score", "feedback", "label", "scale", "kind", "comment",
    "correction", "expected", "reward", "traj", "info", "reward_info", "actions", "simulations",
    "tasks", "nl_assertions", "met", "task_id", "weight", "object", "ideal", "model", "policy",
    "preferred_output", "non_preferred_output", "parts", "refusal", "input_text",
    "resourceSpans", "scopeSpans", "spans", "attributes", "key", "stringValue", "traceId", "spanId",
    "context", "parent_id", "events", "trace", "data", "observations", "scores", "inputs",
    "outputs", "run_type", "feedback_stats", "gradingResult", "success", "promptIdx", "vars",
    "testCase", "assert", "componentResults", "eval", "samples", "metadata", "name",
)  # fmt: skip
WORDS = ("user", "assistant", "system", "tool", "text", "tool_use", "tool_result", "function_call",
         "reasoning", "response", "human", "gpt", '[{"role":"user"}]', '{"a', "1", "")  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS)
VALUES = st.recursive(
    LEAVES | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=25,
)
OBJECTS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8)
SEEDS = [
    b'{"messages":[{"role":"user","content":"q\\u00e9"},{"role":"assistant","content":"a"}]}\n' * 2,
    b'[{"prompt":"q","completion":"a","score":1.5},\n {"question":"q","answer":null}]',
    b'{\n "simulations": [{"messages": [], "reward_info": {"reward": 0}}],\n "tasks": []\n}',
    b'question,answer,"score"\r\nq,"a, ""b""\n",1\r\n',
    gzip.compress(b'{"messages":[{"role":"assistant","content":"a"}]}\n'),
    '{"custom_id":"1","body":{"messages":[]}}\n'.encode("utf-16"),
]
EDITS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3) | st.sampled_from(
        [b'"', b"{", b"[", b"}", b"]", b",", b"\n", b"\\", b"\0", b"\\ud800", b"NaN", b"1e999"]
    )),
    max_size=8,
)  # fmt: skip


def often(quick: int, many: int) -> Callable[[Callable[..., None]], Any]:
    """Test a property with few examples, and with many in the slow tier."""

    def both(check: Callable[..., None]) -> Any:
        calm = [HealthCheck.too_slow, HealthCheck.data_too_large]

        @pytest.mark.parametrize(
            "examples", [quick, pytest.param(many, marks=pytest.mark.slow)], ids=["quick", "many"]
        )
        def test(examples: int, tmp_path_factory: pytest.TempPathFactory) -> None:
            folder = tmp_path_factory.mktemp("fuzz")
            run = settings(max_examples=examples, deadline=None, suppress_health_check=calm)
            run(given(st.data())(lambda data: check(data, folder)))()

        test.__doc__ = check.__doc__
        return test

    return both


@often(150, 5_000)
def test_formats_accept_any_value(data: Any, folder: Path) -> None:
    """A matching reader yields items or raises UnreadableRecord; each record becomes a trace."""
    value = data.draw(OBJECTS | VALUES)
    for format in READERS.values():
        if not format.matches(value):
            continue
        try:
            items = list(format.read(value, Source(format.name, "a.jsonl", 1)))
        except UnreadableRecord as error:
            assert str(error)
            continue
        for item in items:
            assert isinstance(item, Record | Annotation | RejectedRecord)
            if isinstance(item, Record):
                seen = {rating.name: RatingStats() for rating in item.ratings}
                for rating in item.ratings:
                    seen[rating.name].add(rating)
                trace = trace_from_record(item, find_scales(seen, {}))
                assert trace.score is None or 0 <= trace.score <= 1
                assert all(isinstance(turn.text, str) for turn in item.turns)


@often(150, 5_000)
def test_read_records_accepts_any_damage(data: Any, folder: Path) -> None:
    """Good files with bytes inserted, removed and replaced."""
    content = bytearray(data.draw(st.sampled_from(SEEDS)))
    for place, removed, new in data.draw(EDITS):
        content[place : place + removed] = new
    path = folder / data.draw(st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv", "a"]))
    path.write_bytes(content)
    for item in read_records([path]):
        assert isinstance(item, Record | RejectedRecord)
        assert not isinstance(item, RejectedRecord) or (item.reason and "\n" not in item.reason)


@often(200, 5_000)
def test_parse_accepts_what_json_accepts(data: Any, folder: Path) -> None:
    """`parse` reads the same values as Python's json, but NaN and infinity as null, as trace tools do."""
    text = json.dumps(data.draw(VALUES), ensure_ascii=data.draw(st.booleans()))
    raw = bytearray(text.encode(errors="surrogatepass"))
    for place, removed, new in data.draw(EDITS)[:2]:
        raw[place : place + removed] = new
    try:
        found = parse(bytes(raw))
    except UnreadableRecord as error:
        assert "\n" not in str(error)
        return
    expected = json.loads(raw, parse_constant=lambda _: None)
    assert found == expected or any(len(part) > 15 for part in text.split())
