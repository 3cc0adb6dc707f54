"""Read API files: batches, objects of the Responses API, data and results of OpenAI's Evals.

A batch has a file of requests and a file of results, joined by `custom_id`; Anthropic's batches are
similar. Sources: the types of the OpenAI SDK (`types.responses.Response`,
`types.evals.runs.OutputItemListResponse`) and the batch guides of both vendors.
"""

from collections.abc import Iterator
from typing import Any

from remask.data.messages import (
    find_id,
    find_model,
    join_text,
    keep_objects,
    parse_conversation,
    parse_exchange,
    parse_response,
)
from remask.data.ratings import find_expected, parse_rating_value, parse_ratings
from remask.data.trace_record import (
    Annotation,
    Item,
    Kind,
    Rating,
    Record,
    Source,
    TraceFormat,
    UnreadableRecord,
)

QUESTION_KEYS = ("input", "question", "query", "prompt", "problem", "text")


def matches_batch(value: Any) -> bool:
    if type(value) is not dict or type(value.get("custom_id")) is not str:
        return False
    return any(key in value for key in ("body", "params", "response", "result", "error"))


def read_batch(value: Any, source: Source) -> Iterator[Item]:
    """Yield a request as a record without an answer, or a result as the annotation with it.

    A line with both, as a user joins the two files, is a whole record.
    """
    id = value["custom_id"]
    request = value.get("body", value.get("params"))
    answered = any(value.get(key) for key in ("response", "result", "error"))
    if isinstance(request, dict) and not answered:
        system, turns = parse_exchange(request, None)
        yield Record(id, system, turns, (), None, source, find_model(request), keys=(id,))
        return
    response = value.get("response", value.get("result"))
    failed = value.get("error")
    if isinstance(response, dict):
        failed = failed or response.get("error")
        if response.get("type") not in (None, "succeeded"):
            failed = failed or response["type"]
        if response.get("status_code", 200) != 200:
            failed = failed or f"status {response['status_code']}"
        response = response.get("body", response.get("message"))
    if failed or response is None:
        raise UnreadableRecord(f"the request {id[:40]} failed: {join_text(failed or 'no response')[:80]}")
    if isinstance(request, dict):
        system, turns = parse_exchange(request, response)
        yield Record(id, system, turns, (), None, source, find_model(response, request))
        return
    yield Annotation(id, source, turns=parse_conversation(parse_response(response))[1])


def matches_responses(value: Any) -> bool:
    if type(value) is not dict or type(value.get("output")) not in (list, str):
        return False
    return value.get("object") == "response" or "instructions" in value


def read_responses(value: Any, source: Source) -> Iterator[Item]:
    """Yield one Response with its input, if the log has it; the API's object does not."""
    if value.get("error"):
        raise UnreadableRecord(f"the call failed: {join_text(value['error'])[:80]}")
    ratings, desired = parse_ratings(value)
    system, turns = parse_exchange({"input": [], **value}, value["output"])
    yield Record(find_id(value), system, turns, ratings, desired, source, find_model(value))


def matches_evals(value: Any) -> bool:
    if type(value) is not dict:
        return False
    if type(value.get("item", value.get("datasource_item"))) is dict:
        return True
    return "ideal" in value and type(value.get("input")) in (list, str)


def read_evals(value: Any, source: Source) -> Iterator[Item]:
    """Yield an item with its sample and the graders' results, or a row of the old openai/evals."""
    item = value.get("item", value.get("datasource_item"))
    item = item if isinstance(item, dict) else value
    sample = value.get("sample")
    sample = sample if isinstance(sample, dict) else {}
    if isinstance(sample.get("error"), dict) and sample["error"].get("code"):
        raise UnreadableRecord(f"the sample failed: {join_text(sample['error'])[:80]}")
    system, turns = parse_exchange(_find_request(sample, item), sample or None)
    ratings, desired = parse_ratings(item)
    ratings += tuple(_build_rating(result) for result in keep_objects(value.get("results")))
    yield Record(
        find_id(value), system, turns, ratings, desired, source, find_model(sample, value),
    )  # fmt: skip


def _find_request(sample: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    """Return the request: the sample's input, else the messages or the question of the item."""
    if isinstance(sample.get("input"), list) and sample["input"]:
        return {"messages": sample["input"]}
    if isinstance(item.get("messages"), list):
        return item
    for key in QUESTION_KEYS:
        if isinstance(item.get(key), str | list):
            return {**item, "input": item[key]}
    # The column that the template uses is unknown, so take the first that is not the answer.
    answer = find_expected(item)
    texts = (text for text in item.values() if isinstance(text, str) and text != answer)
    return {"input": next(texts, "")}


def _build_rating(result: dict[str, Any]) -> Rating:
    name = result.get("name")
    kind: Kind = "llm" if "model" in join_text(result.get("type")) else "code"
    score = result.get("passed", result.get("score"))
    return Rating(name if isinstance(name, str) else "grader", parse_rating_value(score), kind)


FORMATS = (
    TraceFormat("batch", matches_batch, read_batch, multi_part=True),
    TraceFormat("openai-responses", matches_responses, read_responses),
    TraceFormat("openai-evals", matches_evals, read_evals),
)
