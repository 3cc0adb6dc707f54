"""A model on this machine behind an OpenAI-compatible server on the loopback, with tools.

A task of Inspect asks its models through a provider, and a target `local:` is none. This server
stands between: it asks remask's own local target, one request at a time. Tools are described and
called in the text, in the form that Qwen2.5 and other models were trained on:

    <tools>…</tools> in the system message, <tool_call>{"name": …, "arguments": …}</tool_call> in an
    answer, and <tool_response>…</tool_response> in the user message after it.

After eight answers in a row that call tools, the next one is taken as text.

For experiments: it listens on the loopback alone, checks no key, and streams nothing.
"""

import json
import re
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import remask
from remask.ports import Reply, TargetModel
from remask.types import Chat, Message

SERVICE = "local"  # of the provider openai-api; its key is in LOCAL_API_KEY
TOOLS = """

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""
CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*(?:</tool_call>|\Z)", re.DOTALL)
FENCE = re.compile(r"\A```(?:json)?\s*|\s*```\Z")
MAX_CALLS_IN_A_ROW = 8  # the task has no limit of its own, and a small model may call for ever
Body = dict[str, Any]


def render_chat(messages: Sequence[Body], tools: Sequence[Body]) -> Chat:
    """Return the messages of a request as a chat of system, user and assistant turns."""
    turns: list[Message] = []
    for message in messages:
        role, text = message["role"], _read_text(message)
        if role == "tool":
            role, text = "user", f"<tool_response>\n{text}\n</tool_response>"
        for call in message.get("tool_calls") or ():
            said = {"name": call["function"]["name"], "arguments": _read_arguments(call)}
            text += f"\n<tool_call>\n{json.dumps(said, ensure_ascii=False)}\n</tool_call>"
        if turns and turns[-1].role == role != "system":  # templates want turns that alternate
            turns[-1] = Message(role, f"{turns[-1].content}\n{text.strip()}")
        else:
            turns.append(Message(role, text.strip()))
    if tools:
        listed = TOOLS.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
        system = turns.pop(0).content if turns and turns[0].role == "system" else ""
        turns.insert(0, Message("system", system + listed))
    return tuple(turns)


def count_calls(messages: Sequence[Body]) -> int:
    """Return how many answers with calls of tools stand at the end, behind the last user message."""
    count = 0
    for message in reversed(messages):
        if message["role"] not in ("assistant", "tool"):
            break
        count += bool(message.get("tool_calls"))
    return count


def _read_text(message: Body) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content)


def _read_arguments(call: Body) -> Any:
    try:
        return json.loads(call["function"]["arguments"])
    except ValueError:
        return call["function"]["arguments"]


def parse_answer(text: str, tools: Sequence[Body]) -> Body:
    """Return the message of an answer, with the calls of tools that it holds.

    A JSON object without the tags counts as a call if it is the whole answer and names a tool: small
    models leave the tags out, and some write "function" for "name".
    """
    names = {tool["function"]["name"] for tool in tools}
    found = [(match[1], False) for match in CALL.finditer(text)] if tools else []
    if not found and tools:
        found = [(FENCE.sub("", text.strip()), True)]
    calls = []
    for said, must_be_known in found:
        call = _read_call(said)
        if call is not None and (call[0] in names or not must_be_known):
            calls.append(call)
    if not calls:
        return {"role": "assistant", "content": text}
    written = [
        {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": json.dumps(values)}}
        for i, (name, values) in enumerate(calls)
    ]
    before = text[: text.find("<tool_call>")].strip() if "<tool_call>" in text else ""
    return {"role": "assistant", "content": before or None, "tool_calls": written}


def _read_call(text: str) -> tuple[str, Mapping[str, Any]] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    name = value.get("name", value.get("function"))
    values = value.get("arguments", value.get("parameters", {}))
    return (name, values) if isinstance(name, str) and isinstance(values, dict) else None


class LocalServer:
    """Use in a with statement; `url` is the base_url, `requests` counts the completions."""

    def __init__(self, target: TargetModel | str, max_tokens: int = 256, port: int = 0) -> None:
        """target: a target, or its name, such as local:PLACE. port 0: any that is free."""
        if isinstance(target, str):
            target = remask.load_target(remask.Target(target, max_tokens=max_tokens))
        self.target = target
        self.requests = self.calls = 0
        self._lock = threading.Lock()  # a local target is used from one thread at a time
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, answer = owner.answer(body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def answer(self, body: Body) -> tuple[int, Body]:
        """Return the status and the body of the answer to a request for a completion."""
        tools = body.get("tools") or []
        chat = render_chat(body["messages"], tools)
        with self._lock:
            self.requests += 1
            reply = self.target.respond([chat])[0]
        if reply.error:  # such as a conversation that is longer than the model's context
            return 400, {"error": {"message": reply.error, "type": "invalid_request_error"}}
        message = parse_answer(
            reply.text, tools if count_calls(body["messages"]) < MAX_CALLS_IN_A_ROW else ()
        )
        self.calls += len(message.get("tool_calls", ()))
        return 200, _make_completion(message, reply, body["model"])

    def __enter__(self) -> "LocalServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self.close()

    def close(self) -> None:
        """Release the port of a server that was not started."""
        self._http.server_close()


def _make_completion(message: Body, reply: Reply, model: str) -> Body:
    finish = "tool_calls" if message.get("tool_calls") else "length" if reply.cut else "stop"
    used = {"prompt_tokens": reply.input_tokens, "completion_tokens": reply.output_tokens}
    return {
        "id": "completion",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": {**used, "total_tokens": reply.input_tokens + reply.output_tokens},
    }
