"""Read promptfoo: a file of results (schema 2 to 4), or one result per line (results.jsonl).

A result is one test of one prompt: the rendered prompt (a string, or chat messages as JSON), the
output and its grading. The value of an assertion `equals` is the right response.
Source: promptfoo src/types/index.ts (EvaluateResult, GradingResult, EvaluateSummaryV3; 2026).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from remask.data.dialects import as_list, as_object, extract_messages
from remask.data.formats.call_tree import Assessment, Operation, build_records
from remask.data.messages import as_text
from remask.data.placeholders import JINJA, list_variables, substitute
from remask.data.trace_record import Item, Kind, Rating, Source, TraceFormat
from remask.errors import ConfigError

_MODEL_GRADED: Final = ("llm-rubric", "model-graded", "factuality", "g-eval", "answer-relevance",
                  "context-", "conversation-relevance", "search-rubric", "pi")  # fmt: skip


def matches(value: Any) -> bool:
    """Whether `value` is a file of results or one result."""
    return isinstance(value, dict) and (bool(_list_results(value)) or _is_result(value))


def read(value: Any, source: Source) -> Iterator[Item]:
    """Yield one record per result."""
    found = _list_results(value) if isinstance(value, dict) else []
    if not found and isinstance(value, dict) and _is_result(value):
        yield from build_records([_build_operation(value)], source)
        return
    for number, result in enumerate(found):
        yield from build_records([_build_operation(result)], replace(source, entry=f"results[{number}]"))
    if not found:
        yield source.reject("holds no results of promptfoo")


def _list_results(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    inner = value.get("results")
    found = as_list(inner.get("results") if isinstance(inner, dict) else inner)
    return found if found and _is_result(found[0]) else []


def _is_result(value: Mapping[str, Any]) -> bool:
    graded = any(key in value for key in ("gradingResult", "success", "promptIdx"))
    return graded and ("response" in value or "error" in value) and "prompt" in value


def _build_operation(result: Mapping[str, Any]) -> Operation:
    prompt = as_object(result.get("prompt"))
    response = as_object(result.get("response"))
    failed = result.get("failureReason") == 2 or response.get("error")
    provider = as_object(result.get("provider"))
    error = as_text(response.get("error") or result.get("error")) or "no reason given"
    raw = prompt.get("raw") if prompt else result.get("prompt")
    return Operation(
        "",
        as_text(result.get("id")),
        "",
        True,
        tuple(extract_messages(raw, "user")),
        tuple(extract_messages(response.get("output"), "assistant")),
        error=error if failed else "",
        assessment=Assessment(tuple(_build_ratings(result)), _find_expected(result)),
        model=as_text(provider.get("id") or provider.get("label")),
        template=as_text(prompt.get("template")),
    )


def _build_ratings(result: Mapping[str, Any]) -> Iterator[Rating]:
    """Yield the overall verdict, and the comment of a person in the web view."""
    grading = as_object(result.get("gradingResult"))
    parts = as_list(grading.get("componentResults"))
    if any(as_object(part.get("metadata")).get("graderError") for part in (grading, *parts)):
        return  # the judge failed, so there is no verdict on the response
    passed = grading.get("pass", result.get("success"))
    kinds = {_find_kind(part) for part in parts} or {_find_kind(grading)}
    if isinstance(passed, bool):
        kind = kinds.pop() if len(kinds) == 1 else "unknown"
        yield Rating("pass", passed, kind, "" if passed else as_text(grading.get("reason")))
    if comment := as_text(grading.get("comment")):
        yield Rating("comment", None, "human", comment)


def _find_kind(part: Mapping[str, Any]) -> Kind:
    name = as_text(as_object(part.get("assertion")).get("type")).removeprefix("not-")
    if name == "human":
        return "human"
    return ("llm" if name.startswith(_MODEL_GRADED) else "code") if name else "unknown"


def _find_expected(result: Mapping[str, Any]) -> str | None:
    """Return the value of an assertion `equals`, with the variables of the test filled in."""
    graded = as_list(as_object(result.get("gradingResult")).get("componentResults"))
    stated = as_list(as_object(result.get("testCase")).get("assert"))
    for assertion in (*stated, *(as_object(part.get("assertion")) for part in graded)):
        value = assertion.get("value")
        if assertion.get("type") == "equals" and isinstance(value, str):
            return _render(value, as_object(result.get("vars"))) if "{" in value else value
    return None


def _render(template: str, values: Mapping[str, Any]) -> str | None:
    """Fill in a template; None if it contains code or a variable that is not a string."""
    try:
        pieces = JINJA.read(template, None)
    except ConfigError:
        return None
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    return substitute(pieces, texts) if texts.keys() >= set(list_variables(pieces)) else None


PROMPTFOO = TraceFormat("promptfoo", matches, read)
