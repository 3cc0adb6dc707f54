"""Parse lists of messages into turns: OpenAI chat and Responses, Anthropic, ShareGPT.

A tool call becomes part of the assistant's text and a tool result becomes a turn. Reasoning is left
out, whether a part, a channel or a mark within the text says that it is reasoning. Pictures and
files are replaced by their type, such as [image_url].
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from remask.data.trace_record import Turn, UnreadableRecord
from remask.sanitize import format_call, remove_thoughts
from remask.types import Role

ROLES: Final[dict[str, Role]] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "ai": "assistant", "model": "assistant",
    "bot": "assistant", "chatgpt": "assistant", "function_call": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool",
}  # fmt: skip

HIDDEN_TYPES = {"thinking", "redacted_thinking", "reasoning", "reasoning_content", "thought", "analysis",
                "item_reference", "step-start", "source-url", "source-document"}  # fmt: skip
HIDDEN_CHANNELS = {"analysis", "thought", "thinking"}  # of Harmony, as the key `channel` of a message
TEXT_TYPES = {"text", "input_text", "output_text"}
CALL_TYPES = {"tool_use", "tool_call", "function_call", "custom_tool_call", "server_tool_use"}
RESULT_TYPES = {"tool_result", "tool_call_response", "function_call_output",
                "custom_tool_call_output"}  # fmt: skip
Conversation = tuple[str | None, tuple[Turn, ...]]  # system prompt, turns


def parse_conversation(messages: object, system: object = None) -> Conversation:
    """Return the system prompt and the turns of a list of messages.

    The prompt is `system` (a string or a list of parts) if the format stores it outside of the
    list, and then the system messages at the start of the list. Raises UnreadableRecord.
    """
    if not isinstance(messages, list):
        raise UnreadableRecord(f"expected a list of messages, found {name_kind(messages)}")
    turns = _parse_plain(messages)
    if turns is None:
        turns = []
        names: dict[str, str] = {}  # tool name by id of the call
        for number, message in enumerate(messages, 1):
            if type(message) is not dict:
                raise UnreadableRecord(f"message {number} is {name_kind(message)}, not an object")
            turns.extend(_parse_turns(message, number, names))
    outside = join_text(system) if system else ""
    if not outside and (not turns or turns[0].role != "system"):
        return None, tuple(turns)
    lead = 0
    while lead < len(turns) and turns[lead].role == "system":
        lead += 1
    parts = [outside] if outside else []
    return "\n\n".join(parts + [turn.text for turn in turns[:lead]]), tuple(turns[lead:])


def _parse_plain(messages: list[Any]) -> list[Turn] | None:
    """Return the turns if every message is only a role and a string, else None."""
    # Reading spends most of its time here. tuple.__new__ takes half the time of Turn(...).
    make = tuple.__new__
    try:
        turns = [
            make(Turn, (ROLES[message["role"]], text, ""))
            for message in messages
            if len(message) == 2 and type(text := message["content"]) is str
        ]
    except (KeyError, TypeError):
        return None
    if len(turns) < len(messages):
        return None
    for number, (role, text, _) in enumerate(turns):
        if role == "assistant" and (answer := remove_thoughts(text)) is not text:
            turns[number] = Turn(role, answer)
    return turns


def join_text(content: object) -> str:
    """Return the text of a message's content, which is a string or a list of typed parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return as_text(content)
    return "\n".join(text for part in content if (text := _read_part(part)))


def as_text(value: object) -> str:
    """Convert a value to text: a string as it is, None as "", anything else as JSON."""
    if isinstance(value, str):
        return value
    # A table with missing values turns integers into floats, so 3.0 becomes "3".
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def format_tool_call(name: object, arguments: object) -> str:
    """Format a tool call like `find(name="Ann", limit=3)`."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return f"{as_text(name)}({arguments})"
    if not isinstance(arguments, dict):
        return f"{as_text(name)}({as_text(arguments)})"
    return format_call(as_text(name), arguments)


def keep_objects(value: object) -> list[dict[str, Any]]:
    """Return the objects of a list; [] if `value` is not a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def name_kind(value: object) -> str:
    """Name the type of a JSON value for an error message, such as "a list"."""
    kinds = {"dict": "an object", "list": "a list", "str": "a string", "NoneType": "null"}
    name = type(value).__name__
    return kinds.get(name) or ("true or false" if name == "bool" else "a number")


def _parse_turns(message: dict[str, Any], number: int, names: dict[str, str]) -> Iterator[Turn]:
    """Yield the turns of one message. A user message of Anthropic can also hold tool results."""
    kind = message.get("type")
    if as_text(message.get("channel")) in HIDDEN_CHANNELS or as_text(message.get("role")) in HIDDEN_TYPES:
        return
    if isinstance(kind, str) and "role" not in message:
        if kind in HIDDEN_TYPES:
            return
        if kind in RESULT_TYPES:
            yield _parse_result(message, names)
            return
        if kind in CALL_TYPES:
            yield Turn("assistant", _format_call(message, names))
            return
    role = _parse_role(message, number)
    content = next((message[k] for k in ("content", "value", "parts", "text") if k in message), None)
    rest: list[object] = []
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, dict) and isinstance(kind, str) and kind in RESULT_TYPES:
            yield _parse_result(part, names)
        elif isinstance(part, dict) and isinstance(kind, str) and kind in CALL_TYPES:
            rest.append(_format_call(part, names))
        else:
            rest.append(part)
    calls = [_format_call(call, names) for call in _list_calls(message)]
    refusal = message.get("refusal")
    said = remove_thoughts(_join_parts(rest)) if role == "assistant" else join_text(rest)
    text = "\n".join(text for text in (said, as_text(refusal), *calls) if text)
    if text or not isinstance(content, list) or not content:
        yield Turn(role, text, _find_name(message, role, names))


def _join_parts(parts: list[object]) -> str:
    """Join the parts of a response. Its texts follow each other without a break, as vendors join them."""
    lines: list[str] = []
    within = False  # whether the part before was text
    for part in parts:
        text = _read_part(part)
        is_text = isinstance(part, dict) and as_text(part.get("type", "text")) in TEXT_TYPES
        if text and within and is_text:
            lines[-1] += text
        elif text:
            lines.append(text)
        within = is_text and bool(lines)
    return "\n".join(lines)


def _parse_role(message: dict[str, Any], number: int) -> Role:
    said = message.get("role", message.get("from", message.get("type")))
    role = ROLES.get(said.lower()) if isinstance(said, str) else None
    if role is None:
        what = "no role" if said is None else f"the unknown role {as_text(said)[:40]!r}"
        raise UnreadableRecord(f"message {number} has {what}")
    return role


def _find_name(message: dict[str, Any], role: Role, names: dict[str, str]) -> str:
    called = message.get("tool_call_id")
    known = names.get(called, "") if isinstance(called, str) else ""
    said = message.get("name")
    return said if isinstance(said, str) and role != "assistant" else known


def _list_calls(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the calls beside the content: `tool_calls`, or the older `function_call`."""
    return keep_objects(message.get("tool_calls")) + keep_objects([message.get("function_call")])


def _format_call(call: dict[str, Any], names: dict[str, str]) -> str:
    inner = call.get("function")
    said: dict[str, Any] = inner if isinstance(inner, dict) else call
    name = as_text(said.get("name"))
    for key in ("id", "call_id"):
        if isinstance(id := call.get(key), str):
            names[id] = name
    arguments = (said[key] for key in ("arguments", "input", "args") if key in said)
    return format_tool_call(name, next(arguments, None) or {})


def _parse_result(part: dict[str, Any], names: dict[str, str]) -> Turn:
    ids = (part.get(key) for key in ("tool_use_id", "call_id", "tool_call_id", "id"))
    name = next((names[id] for id in ids if isinstance(id, str) and id in names), "")
    keys = ("content", "output", "response", "result")
    return Turn("tool", join_text(next((part[key] for key in keys if key in part), None)), name)


def _read_part(part: object) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        return as_text(part)
    kind = part.get("type")
    # Gemini marks a part with `thought`, and Bedrock's Converse has `reasoningContent`.
    if (isinstance(kind, str) and kind in HIDDEN_TYPES) or part.get("thought") is True:
        return ""
    if "reasoningContent" in part or "reasoning_content" in part:
        return ""
    for key in ("text", "content", "refusal"):
        if isinstance(part.get(key), str):
            return str(part[key])
    return f"[{kind}]" if isinstance(kind, str) else as_text(part)


# --- Requests and responses of APIs
#
# The bodies of OpenAI's chat completions, completions and Responses, and of Anthropic's messages.
# Batch files, call logs and evaluations contain these bodies.


def parse_request(request: dict[str, Any]) -> tuple[object, list[Any]]:
    """Return the separate system prompt and the messages of a request's body."""
    if isinstance(request.get("messages"), list):
        return request.get("system"), request["messages"]
    given = request.get("input", request.get("prompt"))
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise UnreadableRecord("holds no messages, no input and no prompt")
    return request.get("instructions", request.get("system")), given


def parse_response(response: object) -> list[Any]:
    """Return the messages of a response's body; of several choices only the first."""
    if isinstance(response, str):
        return [{"role": "assistant", "content": response}] if response else []
    if isinstance(response, list):
        return response
    if not isinstance(response, dict):
        raise UnreadableRecord(f"expected a response, found {name_kind(response)}")
    choices = response.get("choices")
    if isinstance(choices, list):
        first = choices[0] if choices and isinstance(choices[0], dict) else {}
        return parse_response(first.get("message", first.get("text", "")))
    for key in ("output", "message", "messages"):
        if isinstance(response.get(key), list | dict):
            return parse_response(response[key])
    if "content" in response or "tool_calls" in response:
        return [{**response, "role": response.get("role", "assistant")}]
    said = next((response[k] for k in ("output_text", "output", "text") if k in response), None)
    if isinstance(said, str):
        return parse_response(said)
    raise UnreadableRecord("holds a response without choices, output or content")


def parse_exchange(request: dict[str, Any], response: object) -> Conversation:
    """Return the system prompt and the turns of one call. Raises UnreadableRecord."""
    system, messages = parse_request(request)
    answer = parse_response(response) if response is not None else []
    return parse_conversation([*messages, *answer], system)


def find_model(*bodies: object) -> str:
    """Return the first model named in `bodies`, or ""."""
    named = (body.get("model") for body in bodies if isinstance(body, dict))
    return next((name for name in named if isinstance(name, str)), "")


CONVERSATION_KEYS: Final = ("conversation_id", "conversationId", "chat_id")
ID_KEYS: Final = ("id", "custom_id", "request_id", "uuid", *CONVERSATION_KEYS)


def find_id(value: dict[str, Any]) -> str:
    """Return the id of a record, or ""."""
    return next((str(value[k]) for k in ID_KEYS if isinstance(value.get(k), str | int)), "")


SESSION_KEYS: Final = (
    *("session_id", "sessionId", "thread_id"),
    *CONVERSATION_KEYS,
    *("user_id", "userId", "user"),
)


def find_session(*bodies: object) -> str:
    """Return the session or the user named in `bodies` or in their metadata, or ""."""
    places = [
        place
        for body in bodies
        if isinstance(body, dict)
        for place in (body, body.get("metadata"))
        if isinstance(place, dict)
    ]
    named = (place[key] for key in SESSION_KEYS for place in places if key in place)
    return next((str(name) for name in named if isinstance(name, str | int) and name != ""), "")
