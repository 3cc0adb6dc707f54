"""promptfoo. Shape: promptfoo/promptfoo src/types/index.ts (0011eb02, 2026: EvaluateSummaryV3,
EvaluateResult, GradingResult); `promptfoo eval -o results.json` wraps it as `results`."""

import json
from functools import partial
from typing import Any

import pytest

from fakes.records import items_of, record_of
from remask.data.formats.promptfoo import PROMPTFOO
from remask.data.trace_record import Rating, Record, RejectedRecord, Source

HERE = Source("promptfoo", "results.json", 1)
CHAT = json.dumps([{"role": "system", "content": "Label it."}, {"role": "user", "content": "great film"}])


def graded(passed: bool, kind: str, value: object = None, reason: str = "") -> dict[str, Any]:
    assertion = {"type": kind, "value": value}
    part = {"pass": passed, "score": float(passed), "reason": reason, "assertion": assertion}
    return {k: part[k] for k in ("pass", "score", "reason")} | {"componentResults": [part]}


def result(**more: Any) -> dict[str, Any]:
    return {
        "id": "r1",
        "promptIdx": 0,
        "testIdx": 0,
        "promptId": "p",
        "provider": {"id": "openai:gpt-4o", "label": ""},
        "prompt": {"raw": CHAT, "label": "chat"},
        "vars": {"text": "great film", "label": "positive"},
        "response": {"output": "negative", "tokenUsage": {}},
        "success": False,
        "failureReason": 1,
        "score": 0,
        "gradingResult": graded(False, "equals", "{{label}}", "Expected positive"),
        "namedScores": {},
    } | more


def summary(*results: dict[str, Any]) -> dict[str, Any]:
    inner = {"version": 3, "timestamp": "", "results": list(results), "prompts": [], "stats": {}}
    return {"evalId": "eval-1", "results": inner, "config": {}, "shareableUrl": None}


read = partial(items_of, PROMPTFOO, HERE)
one = partial(record_of, PROMPTFOO, HERE)


def test_result_in_a_file_and_on_its_own_line() -> None:
    for value in (summary(result()), {"results": [result()]}, result()):
        record = one(value)
        assert (record.system, record.model) == ("Label it.", "openai:gpt-4o")
        assert [turn.text for turn in record.turns] == ["great film", "negative"]
        assert record.desired == "positive", "a variable of the test in an assertion `equals`"
        assert record.ratings == (Rating("pass", False, "code", "Expected positive"),)


@pytest.mark.parametrize(
    ("value", "desired"),
    [
        ("It is {{ label }}.", "It is positive."),
        ('{"a": 1}', '{"a": 1}'),
        ("{{ label | upper }}", None),
        ("{{ other }}", None),
        ("{% raw %}{{label}}{% endraw %}", "{{label}}"),
    ],
)
def test_expected_text_is_rendered_or_none(value: str, desired: str | None) -> None:
    assert one(result(gradingResult=graded(False, "equals", value))).desired == desired


def test_prompt_in_plain_text_and_output_in_json() -> None:
    record = one(result(prompt={"raw": "Label: great film"}, response={"output": {"l": 1}}))
    assert [turn.text for turn in record.turns] == ["Label: great film", '{"l": 1}']


@pytest.mark.parametrize(
    ("grading", "ratings"),
    [
        (graded(True, "llm-rubric", "is polite", "it is"), (Rating("pass", True, "llm"),)),
        (graded(False, "not-icontains", "x", "has x"), (Rating("pass", False, "code", "has x"),)),
        (
            graded(True, "human") | {"comment": "but slow"},
            (Rating("pass", True, "human"), Rating("comment", None, "human", "but slow")),
        ),
        (graded(False, "llm-rubric") | {"metadata": {"graderError": True}}, ()),
        (None, (Rating("pass", False),)),
    ],
)
def test_ratings_have_the_kind_of_the_grader(
    grading: dict[str, Any] | None, ratings: tuple[Rating, ...]
) -> None:
    assert one(result(gradingResult=grading)).ratings == ratings


def test_errors_are_rejected_and_other_results_are_read() -> None:
    failed = result(failureReason=2, error="API call error: 429", response=None)
    items = read(summary(failed, result()))
    assert [type(item) for item in items] == [RejectedRecord, Record]
    assert isinstance(items[0], RejectedRecord)
    assert items[0].reason == "results[0]: the call failed: API call error: 429"
