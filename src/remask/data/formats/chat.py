"""Read chats: OpenAI's and Anthropic's messages, ShareGPT, prompt and completion.

Also reads fine-tuning weights, preferences (DPO), logged calls, and feedback under common names.
Sources: OpenAI's fine-tuning and preference guides, the types of its SDK, Anthropic's Messages API,
and ShareGPT as FastChat and LLaMA-Factory read it.
"""

from collections.abc import Callable, Iterator
from typing import Any

from remask.data.messages import (
    find_id,
    find_model,
    find_session,
    join_text,
    name_kind,
    parse_conversation,
    parse_exchange,
    parse_response,
)
from remask.data.ratings import list_unused, parse_ratings
from remask.data.streams import join_chunks, parse_events
from remask.data.trace_record import Item, Rating, Record, Source, TraceFormat, Turn, UnreadableRecord

RESPONSE_KEYS = ("response", "completion", "choices", "output")
PREFERENCE_KEYS = (("preferred_output", "non_preferred_output"), ("chosen", "rejected"))


def matches_chat(value: Any) -> bool:
    if type(value) is dict:
        return type(value.get("messages")) is list
    return _is_messages(value)


def read_chat(value: Any, source: Source) -> Iterator[Item]:
    """Yield one record. A separate answer is added after the messages.

    In fine-tuning data with `weight`, the last answer that is trained on is the right one.
    """
    if type(value) is list:
        value = {"messages": value}
    messages = value["messages"]
    if len(value) == 1 and not any("weight" in m for m in messages if type(m) is dict):
        system, turns = parse_conversation(messages)
        yield Record("", system, turns, (), None, source)
        return
    ratings, desired = parse_ratings(value)
    response = next((value[key] for key in RESPONSE_KEYS if value.get(key)), None)
    if response is not None and response is value.get("choices"):
        response = value
    kept = _select_trained(messages)
    system, turns = parse_conversation(
        [*(kept or messages), *parse_response(response)] if response else kept or messages,
        value.get("system"),
    )
    if kept and desired is None:
        desired = _find_last_answer(turns)
    model = find_model(value, response)
    session = find_session(value)
    used = ("messages", "system", *RESPONSE_KEYS)
    yield Record(
        find_id(value), system, turns, ratings, desired, source, model, session=session,
        unused=list_unused(value, used),
    )  # fmt: skip


def matches_anthropic(value: Any) -> bool:
    if type(value) is not dict or not matches_chat(value):
        return False
    return "system" in value or _has_anthropic_blocks(value)


def matches_sharegpt(value: Any) -> bool:
    if type(value) is not dict:
        return False
    turns = value.get("conversations", value.get("conversation"))
    return type(turns) is list and _is_messages(turns)


def read_sharegpt(value: Any, source: Source) -> Iterator[Item]:
    ratings, desired = parse_ratings(value)
    turns = value.get("conversations", value.get("conversation"))
    system, spoken = parse_conversation(turns, value.get("system"))
    yield Record(
        find_id(value), system, spoken, ratings, desired, source, find_model(value),
        session=find_session(value), unused=list_unused(value, ("conversations", "conversation", "system")),
    )  # fmt: skip


def matches_call_log(value: Any) -> bool:
    return (
        type(value) is dict
        and type(value.get("request")) is dict
        and ("response" in value)
        and not {"custom_id", "method"} <= value.keys()
    )


def read_call_log(value: Any, source: Source) -> Iterator[Item]:
    """Yield the record of a logged request and response, either of which may be under `body`."""
    request, response = _get_body(value["request"]), _get_body(value["response"])
    if value.get("error"):
        raise UnreadableRecord(f"the call failed: {join_text(value['error'])[:80]}")
    ratings, desired = parse_ratings(value)
    if events := parse_events(response) if isinstance(response, str) else None:
        response = join_chunks(events)
    elif isinstance(response, list):
        response = join_chunks(response) or response
    system, turns = parse_exchange(request, response)
    model = find_model(response, request)
    session = find_session(value, request)
    yield Record(
        find_id(value), system, turns, ratings, desired, source, model, session=session,
        unused=list_unused(value, ("request", "response", "error")),
    )  # fmt: skip


def matches_preference(value: Any) -> bool:
    return type(value) is dict and any(good in value and bad in value for good, bad in PREFERENCE_KEYS)


def read_preference(value: Any, source: Source) -> Iterator[Item]:
    """Yield one record. Its response is the rejected answer; the preferred answer is desired."""
    good, bad = next((value[g], value[b]) for g, b in PREFERENCE_KEYS if g in value and b in value)
    request = value.get("input", value.get("prompt"))
    if request is None:  # TRL's implicit prompt: both answers contain it
        request = {"messages": []}
    elif not isinstance(request, dict):
        request = {"prompt": request}
    system, turns = parse_exchange(request, parse_response(bad))
    desired = _find_last_answer(parse_exchange(request, parse_response(good))[1])
    if desired is None:
        raise UnreadableRecord("holds no preferred answer")
    rating = Rating("preferred", False, "human")
    used = ("input", "prompt", *(key for pair in PREFERENCE_KEYS for key in pair))
    yield Record(
        find_id(value), system, turns, (rating,), desired, source, find_model(value),
        session=find_session(value), unused=list_unused(value, used),
    )  # fmt: skip


def matches_pair(value: Any) -> bool:
    return type(value) is dict and type(value.get("prompt")) in (str, list) and "completion" in value


def read_pair(value: Any, source: Source) -> Iterator[Item]:
    ratings, desired = parse_ratings(value)
    system, turns = parse_exchange(value, value["completion"])
    used = ("prompt", "completion", "system", "instructions")
    yield Record(
        find_id(value), system, turns, ratings, desired, source, find_model(value),
        session=find_session(value), unused=list_unused(value, used),
    )  # fmt: skip


def _is_messages(value: Any) -> bool:
    if type(value) is not list or not value or type(value[0]) is not dict:
        return False
    return bool({"role", "from"} & value[0].keys())


def _has_anthropic_blocks(value: dict[str, Any]) -> bool:
    """Whether the messages contain blocks that only Anthropic's API has."""
    for message in value["messages"][:4]:
        content = message.get("content") if type(message) is dict else None
        for part in content if type(content) is list else ():
            if type(part) is dict and part.get("type") in ("tool_use", "tool_result", "thinking"):
                return True
    return value.get("type") == "message" or "anthropic_version" in value


def _get_body(value: object) -> Any:
    inner = value.get("body") if isinstance(value, dict) else None
    body = inner if isinstance(inner, dict) else value
    if not isinstance(body, dict | str | list):
        raise UnreadableRecord(f"expected a request and a response, found {name_kind(body)}")
    return body


def _select_trained(messages: list[Any]) -> list[Any] | None:
    """Return the messages up to the last answer that is trained on; None without weights."""
    if not any("weight" in m for m in messages if type(m) is dict):
        return None
    trained = [i for i, m in enumerate(messages) if type(m) is dict and _is_trained(m)]
    if not trained:
        raise UnreadableRecord("every answer has weight 0")
    return messages[: trained[-1] + 1]


def _is_trained(message: dict[str, Any]) -> bool:
    return message.get("role") == "assistant" and message.get("weight") != 0


def _find_last_answer(turns: tuple[Turn, ...]) -> str | None:
    return next((turn.text for turn in reversed(turns) if turn.role == "assistant"), None)


def record_to_chat(record: Record, redact: Callable[[str], str]) -> dict[str, Any]:
    """Convert a record to a chat that `read_chat` reads; its text passes through `redact`."""
    head = [] if record.system is None else [{"role": "system", "content": redact(record.system)}]
    turns = [
        {"role": t.role, "content": redact(t.text), **({"name": redact(t.name)} if t.name else {})}
        for t in record.turns
    ]
    value: dict[str, Any] = {"id": redact(record.id or record.source.location), "messages": [*head, *turns]}
    if record.model:
        value["model"] = redact(record.model)
    if record.desired is not None:
        value["expected"] = redact(record.desired)
    if record.ratings:
        value["feedback"] = [
            {
                "name": redact(r.name),
                "value": redact(r.value) if isinstance(r.value, str) else r.value,
                "kind": r.kind,
                "comment": redact(r.comment),
                "correction": redact(r.correction),
                "scale": r.scale,
            }
            for r in record.ratings
        ]
    return value


FORMATS = (
    TraceFormat("dpo", matches_preference, read_preference),
    TraceFormat("anthropic", matches_anthropic, read_chat),
    TraceFormat("sharegpt", matches_sharegpt, read_sharegpt),
    TraceFormat("call-log", matches_call_log, read_call_log),
    TraceFormat("openai-chat", matches_chat, read_chat),
    TraceFormat("prompt-completion", matches_pair, read_pair),
)
