"""A request and a response as APIs write them, to one list of messages.

OpenAI's chat completions, completions and Responses, and Anthropic's messages: the bodies that
batch files, logs of calls and evaluations wrap in objects of their own.
"""

from typing import Any

from remask.ingest.messages import conversation, kind_of
from remask.ingest.record import Turn, Unusable


def asked(request: dict[str, Any]) -> tuple[object, list[Any]]:
    """The system prompt that stands outside, and the messages of a request's body."""
    if isinstance(request.get("messages"), list):
        return request.get("system"), request["messages"]
    given = request.get("input", request.get("prompt"))
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise Unusable("holds no messages, no input and no prompt")
    return request.get("instructions", request.get("system")), given


def answered(response: object) -> list[Any]:
    """The messages of a response's body; of several choices the first."""
    if isinstance(response, str):
        return [{"role": "assistant", "content": response}] if response else []
    if isinstance(response, list):
        return response
    if not isinstance(response, dict):
        raise Unusable(f"expected a response, found {kind_of(response)}")
    choices = response.get("choices")
    if isinstance(choices, list):
        first = choices[0] if choices and isinstance(choices[0], dict) else {}
        return answered(first.get("message", first.get("text", "")))
    for key in ("output", "message", "messages"):
        if isinstance(response.get(key), list | dict):
            return answered(response[key])
    if "content" in response or "tool_calls" in response:
        return [{**response, "role": response.get("role", "assistant")}]
    said = next((response[k] for k in ("output_text", "output", "text") if k in response), None)
    if isinstance(said, str):
        return answered(said)
    raise Unusable("holds a response without choices, output or content")


def exchange(request: dict[str, Any], response: object) -> tuple[str | None, tuple[Turn, ...]]:
    """The system prompt and the turns of one call. Raises Unusable."""
    system, messages = asked(request)
    return conversation([*messages, *(answered(response) if response is not None else [])], system)


def model_of(*bodies: object) -> str:
    """The model that the first of `bodies` names."""
    named = (body.get("model") for body in bodies if isinstance(body, dict))
    return next((name for name in named if isinstance(name, str)), "")


def name_of(value: dict[str, Any]) -> str:
    """What the value calls itself."""
    keys = ("id", "custom_id", "request_id", "uuid", "conversation_id")
    return next((str(value[k]) for k in keys if isinstance(value.get(k), str | int)), "")


def session_of(*bodies: object) -> str:
    """The session or the user that the first of `bodies`, or its metadata, names."""
    keys = ("session_id", "thread_id", "user_id", "user")
    places = [
        place
        for body in bodies
        if isinstance(body, dict)
        for place in (body, body.get("metadata"))
        if isinstance(place, dict)
    ]
    named = (place[key] for key in keys for place in places if key in place)
    return next((str(name) for name in named if isinstance(name, str | int) and name != ""), "")
