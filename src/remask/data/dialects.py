"""Extract plain messages from the inputs and outputs that tracing tools store.

Such a value can be a request or a response of a provider, messages serialised by LangChain, nested
objects of OpenInference, JSON inside a string, or a bare string. The result is a list of
`{"role", "content", "tool_calls", …}`, which `messages.py` reads. No function here raises.
"""

import ast
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from remask.data.messages import CALL_TYPES, HIDDEN_TYPES, RESULT_TYPES, ROLES, as_text, join_text
from remask.data.streams import join_chunks, parse_events

Message = dict[str, Any]

# Keys of lists of messages; the first match counts. Of alternatives (choices, generations,
# candidates) only the first is read, since the others were never part of the conversation.
_LIST_KEYS: Final = ("messages", "input_messages", "output_messages", "choices", "generations",
                 "candidates", "prompts", "contents")  # fmt: skip

_ALTERNATIVES: Final = {"choices", "generations", "candidates", "prompts"}
_WRAPPER_KEYS: Final = ("message", "message_content", "tool_call")
_SYSTEM_KEYS: Final = ("system", "instructions", "system_prompt", "system_instruction", "systemInstruction")
_INPUT_KEYS: Final = ("input", "inputs", "question", "query", "prompt", "user_input",
                      "user_message", "message", "text", "content", "contents",
                      "request", "parts")  # fmt: skip

_OUTPUT_KEYS: Final = ("output", "outputs", "answer", "response", "output_text", "text", "content",
                       "completion", "result", "final_output", "generated_text", "message",
                       "return_values", "completions", "outputText", "parts")  # fmt: skip

# Items without a role that may occur in a list of messages.
_ROLELESS_TYPES: Final = CALL_TYPES | RESULT_TYPES | HIDDEN_TYPES
# Keys of parts without a type, of Gemini and of Bedrock's Converse.
_PART_KEYS: Final = {"text", "functionCall", "functionResponse", "toolUse", "toolResult", "reasoningContent"}
_MAX_DEPTH: Final = 12  # nested wrappers; no known tool nests messages deeper
_MAX_JSON_DEPTH: Final = 64  # of JSON inside a string; deeper JSON is costly and stays a string
_MAX_LITERAL_CHARS: Final = 200_000  # of an object in a string as Python prints it; parsing it is slow


def extract_messages(value: object, role: str) -> list[Message]:
    """Return the messages in `value`, in order. A bare string is a message of `role`.

    A string with JSON is parsed only if the JSON holds messages, because an answer can be JSON.
    """
    found = find_messages(value, role)
    if found is not None:
        return found
    text = as_text(value or None).strip()
    return [{"role": role, "content": text}] if text else []


def find_messages(value: object, role: str) -> list[Message] | None:
    """Return the messages in `value`; None for a bare string and for JSON that holds no messages."""
    return _find_messages(value, role, _MAX_DEPTH)


def decode_json(value: object) -> object:
    """Parse a string that holds a JSON object, list or string; return anything else unchanged.

    An object as Python prints it counts too, because a table of pandas has such cells. JSON that is
    nested deeper than _MAX_JSON_DEPTH stays a string.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "[", '"'):
        return value
    try:
        inner = orjson.loads(value)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return _decode_literal(value)
    # Counting brackets is fast and an upper bound of the depth.
    if value.count("[") + value.count("{") <= _MAX_JSON_DEPTH or _is_shallow(inner):
        return inner
    return value


def _decode_literal(text: str) -> object:
    """Parse an object or a list of objects as Python prints it; return anything else unchanged."""
    if not text.lstrip().startswith(("{'", "[{'", '{"', '[{"')) or len(text) > _MAX_LITERAL_CHARS:
        return text
    if sum(map(text.count, "[{(")) > _MAX_JSON_DEPTH or text.rstrip()[-1] not in "]}":
        return text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as one of an unknown escape
            return orjson.loads(orjson.dumps(ast.literal_eval(text.strip())))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text  # orjson's errors are ValueError and TypeError


def _is_shallow(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(_MAX_JSON_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return not level


def is_truncated(value: object) -> bool:
    """Whether `value` is JSON that was cut off by a limit on length."""
    if not isinstance(value, str):
        return False
    if "<truncated due to size exceeding limit>" in value:  # written by the Langfuse SDK
        return True
    start = value.lstrip()
    return start.startswith(('{"', '[{"', '[[{"')) and isinstance(decode_json(value), str)


def extract_text(value: object, role: str) -> str:
    """Return the messages in `value` as one string."""
    return "\n".join(t for m in extract_messages(value, role) if (t := join_text(m.get("content"))))


def _find_messages(value: object, role: str, depth: int) -> list[Message] | None:
    """Return the messages in `value`, or None if it does not look like a conversation."""
    if depth == 0:
        return None
    if isinstance(value, str):
        if events := parse_events(value):
            return _find_messages(events, role, depth - 1)
        inner = decode_json(value)
        return None if isinstance(inner, str) else _find_messages_in_json(inner, role, depth)
    if isinstance(value, list):
        return join_chunks(value) or _read_list(value, role, depth)
    if isinstance(value, dict):
        return _read_object(value, role, depth)
    return None


def _find_messages_in_json(value: object, role: str, depth: int) -> list[Message] | None:
    """Like `_find_messages`, for JSON inside a string, which must clearly be messages."""
    if isinstance(value, dict) and not any(key in value for key in _LIST_KEYS) and not _parse_message(value):
        return None
    if isinstance(value, list) and not all(isinstance(item, dict | list) for item in value):
        return None
    return _find_messages(value, role, depth - 1)


def _read_list(value: Sequence[object], role: str, depth: int) -> list[Message] | None:
    # A list of lists is a batch of conversations; only the first is read.
    if value and all(isinstance(item, list) for item in value):
        return _find_messages(value[0], role, depth - 1)
    items = [_unwrap(decode_json(item)) for item in value if item is not None]
    said = [_parse_message(item) if isinstance(item, dict) else None for item in items]
    if any(said):
        pairs = zip(items, said, strict=True)
        return [m or item for item, m in pairs if m or _get_type(item) in _ROLELESS_TYPES]
    if items and all(isinstance(item, str) or _get_type(item) or _is_part(item) for item in items):
        return [{"role": role, "content": _normalize_content(items, called=False)}]
    return None


def _get_type(item: object) -> str:
    kind = item.get("type") if isinstance(item, dict) else None
    return kind if isinstance(kind, str) else ""


def _is_part(item: object) -> bool:
    """Whether `item` is a part of Gemini or Bedrock, which have no type."""
    return isinstance(item, dict) and bool(item.keys() & _PART_KEYS)


def _read_object(value: Mapping[str, Any], role: str, depth: int) -> list[Message] | None:
    value = _unwrap(value)
    if message := _parse_message(value):
        return [message]
    for key in _LIST_KEYS:
        inner = decode_json(value.get(key))
        if isinstance(inner, list) and inner:
            first: object = inner
            while key in _ALTERNATIVES and isinstance(first, list) and first:
                first = first[0]
            found = _find_messages(first, role, depth - 1)
            if found is None and key in _ALTERNATIVES:
                found = extract_messages(first, role)
            if found:
                return _prepend_system(value, found)
    keys = _INPUT_KEYS if role == "user" else _OUTPUT_KEYS
    place = next((key for key in keys if value.get(key)), "")
    if not place and len(value) == 1 and role == "user":
        # The only argument of a function is the message. An answer such as {"label": …} is not.
        place = next(iter(value))
    inner = value.get(place)
    found = _find_messages(inner, role, depth - 1)
    if found is None and isinstance(inner, str):
        found = [{"role": role, "content": text}] if (text := inner.strip()) else None
    if found:
        return _prepend_system(value, found)
    return [] if any(isinstance(value.get(key), list) for key in _LIST_KEYS) else None


def _prepend_system(value: Mapping[str, Any], found: list[Message]) -> list[Message]:
    """Put the system prompt of `value`, if there is one, before the messages."""
    parts = (held["parts"] if isinstance(held, dict) and "parts" in held else held
             for key in _SYSTEM_KEYS if (held := value.get(key)))  # fmt: skip
    system = next((text for part in parts if (text := join_text(part))), "")
    return [{"role": "system", "content": system}, *found] if system else found


def _unwrap(value: Any) -> Any:
    """Remove the wrappers of OpenInference and of a choice from a message."""
    for _ in range(3):
        if not isinstance(value, dict):
            return value
        inner = next((value[k] for k in _WRAPPER_KEYS if isinstance(value.get(k), dict)), None)
        if inner is None or "role" in value:
            return value
        value = inner
    return value


def _parse_message(value: Mapping[str, Any]) -> Message | None:
    """Return `value` as a plain message, or None if it is not a message."""
    message, role = _parse_langchain(value)
    if role is None:
        said = message.get("role", message.get("from"))
        role = said.lower() if isinstance(said, str) and said.lower() in ROLES else None
    keys = ("content", "contents", "parts", "value", "tool_calls", "function_call")
    if role is None or not any(key in message for key in keys):
        return None
    content = next((message[k] for k in keys[:4] if message.get(k) is not None), None)
    calls = _list_calls(message)
    found: Message = {"role": role, "content": _normalize_content(content, bool(calls))}
    if calls:
        found["tool_calls"] = calls
    for key in ("name", "tool_call_id", "refusal"):
        if isinstance(message.get(key), str):
            found[key] = message[key]
    return found


def _parse_langchain(value: Mapping[str, Any]) -> tuple[Mapping[str, Any], str | None]:
    """Return the fields and the role of a message of LangChain; (value, None) for anything else.

    LangChain writes `{"lc", "id": […, "HumanMessage"], "kwargs"}`, `{"type": "human", "data"}` or
    `{"type": "human", "content"}` (langchain-core, load/serializable.py and messages/base.py).
    """
    path = value.get("id")
    inner: object = value.get("kwargs")
    if isinstance(inner, dict) and isinstance(path, list) and path:
        kind = as_text(path[-1])
    else:
        kind = as_text(value.get("type"))
        inner = value.get("data") if "data" in value else value
        if "role" in value or not isinstance(inner, Mapping) or "content" not in inner:
            return value, None
    kind = kind.removesuffix("Chunk").removesuffix("Message").lower()
    role = as_text(inner.get("role")).lower() if kind == "chat" else kind
    return inner, role if role in ROLES else None


def _list_calls(message: Mapping[str, Any]) -> list[Message]:
    extra = message.get("additional_kwargs")
    places = (message, extra if isinstance(extra, dict) else {})
    for place in places:
        calls = decode_json(place.get("tool_calls"))
        if isinstance(calls, list) and calls:
            return [_normalize_call(call) for item in calls if isinstance(call := _unwrap(item), dict)]
    for place in places:
        if isinstance(call := place.get("function_call"), dict):
            return [_normalize_call(call)]
    return []


def _normalize_call(call: Mapping[str, Any]) -> Message:
    """Return a call in OpenAI's form. Inspect has only the tool's name under `function`."""
    name = call.get("function")
    return {**call, "name": name} if isinstance(name, str) else dict(call)


def _normalize_content(content: object, called: bool) -> object:
    """Return the content in parts that `messages.py` reads.

    called: whether the message also has a list of its calls; calls in the content are then dropped.
    """
    if not isinstance(content, list):
        return content
    parts = [_normalize_part(part) for item in content if (part := _unwrap(item)) is not None]
    return [p for p in parts if not (called and isinstance(p, dict) and p.get("type") in CALL_TYPES)]


def _normalize_part(part: object) -> object:
    """Convert a call or a result of the Vercel AI SDK, Gemini or Bedrock; return other parts unchanged."""
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, dict) and kind is None:
        return _normalize_untyped_part(part)
    if not isinstance(part, dict) or kind not in ("tool-call", "tool-result"):
        return part
    if kind == "tool-call":
        arguments = part.get("input", part.get("args"))
        id = part.get("toolCallId")
        return {"type": "tool_call", "name": part.get("toolName"), "arguments": arguments, "id": id}
    output = part.get("output", part.get("result"))
    inner = output.get("value", output) if isinstance(output, dict) else output
    return {"type": "tool_result", "content": inner, "tool_use_id": part.get("toolCallId")}


def _normalize_untyped_part(part: Mapping[str, Any]) -> object:
    for key in ("functionCall", "function_call", "toolUse"):
        if isinstance(call := part.get(key), dict):
            arguments, id = call.get("args", call.get("input")), call.get("toolUseId", call.get("id"))
            return {"type": "tool_call", "name": call.get("name"), "arguments": arguments, "id": id}
    for key in ("functionResponse", "function_response", "toolResult"):
        if isinstance(result := part.get(key), dict):
            id = result.get("toolUseId", result.get("id"))
            inner = result.get("response", result.get("content"))
            return {"type": "tool_result", "content": inner, "tool_use_id": id}
    return part


def as_list(value: object) -> list[dict[str, Any]]:
    """Return the objects in a list, which may be JSON inside a string."""
    value = decode_json(value)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def as_object(value: object) -> dict[str, Any]:
    """Return an object, which may be JSON inside a string; {} for anything else."""
    value = decode_json(value)
    return value if isinstance(value, dict) else {}
