"""Join the chunks of a streamed response, as OpenAI, Anthropic, Gemini and Bedrock send them.

A log holds them as a list of objects, or as the text of server-sent events.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

Message = dict[str, Any]


def is_chunk(value: object) -> bool:
    """Whether `value` is one chunk of a streamed response."""
    if not isinstance(value, Mapping):
        return False
    if value.get("object") == "chat.completion.chunk" or value.keys() & {"contentBlockDelta", "messageStart"}:
        return True
    kind = value.get("type")
    if isinstance(kind, str) and kind.startswith(("response.", "content_block_", "message_")):
        return True
    choice = _first(value.get("choices"))
    return isinstance(choice, Mapping) and isinstance(choice.get("delta"), Mapping)


def join_chunks(chunks: Sequence[object]) -> list[Message] | None:
    """Return the message that the chunks make, or None if they are not chunks of one response."""
    if not chunks or not any(map(is_chunk, chunks)):
        return None
    texts: list[str] = []
    calls: dict[object, Message] = {}  # by their index
    for chunk in chunks:
        if isinstance(chunk, Mapping):
            for delta in _list_deltas(chunk):
                _add_delta(delta, texts, calls)
    found: Message = {"role": "assistant", "content": "".join(texts)}
    if calls:
        found["tool_calls"] = list(calls.values())
    return [found]


def parse_events(text: str) -> list[Any] | None:
    """Return the objects in server-sent events; None if `text` is something else."""
    if not text.lstrip().startswith(("data:", "event:")):
        return None
    found = []
    for line in text.splitlines():
        if line.startswith("data:") and line[5:].strip() != "[DONE]":
            try:
                found.append(orjson.loads(line[5:]))
            except orjson.JSONDecodeError:
                return None
    return found or None


def _list_deltas(chunk: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the changes in a chunk, each with a text or a part of a call, and the index of the call."""
    if isinstance(choice := _first(chunk.get("choices")), Mapping):
        delta = choice.get("delta")
        if not isinstance(delta, Mapping):
            return []
        calls = delta.get("tool_calls")
        return [{"text": delta.get("content")}, *(calls if isinstance(calls, list) else [])]
    kind, index = chunk.get("type"), chunk.get("index", chunk.get("output_index"))
    if kind == "response.output_text.delta":
        return [{"text": chunk.get("delta")}]
    if kind == "content_block_start":
        block = chunk.get("content_block")
        called = isinstance(block, Mapping) and block.get("type") == "tool_use"
        return [{"index": index, "function": {"name": block.get("name")}}] if called and block else []
    inner = chunk.get("contentBlockDelta", chunk)
    delta = inner.get("delta") if isinstance(inner, Mapping) else None
    if not isinstance(delta, Mapping):
        return []
    if "partial_json" in delta:
        return [{"index": index, "function": {"arguments": delta["partial_json"]}}]
    return [{"text": delta.get("text")}]


def _add_delta(delta: object, texts: list[str], calls: dict[object, Message]) -> None:
    if not isinstance(delta, Mapping):
        return
    if isinstance(text := delta.get("text"), str):
        texts.append(text)
    function = delta.get("function")
    if not isinstance(function, Mapping):
        return
    call = calls.setdefault(str(delta.get("index")), {"function": {"name": "", "arguments": ""}})
    if isinstance(id := delta.get("id"), str):
        call["id"] = id
    for key in ("name", "arguments"):
        if isinstance(part := function.get(key), str):
            call["function"][key] += part


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and value else None
