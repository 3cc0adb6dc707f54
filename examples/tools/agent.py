"""A scripted agent behind an OpenAI-compatible server. It is no language model.

It calls the tool whose description shares the most words with the message (the first five letters
count), and answers in words where none shares any. So the right tool depends on the descriptions.

    python examples/tools/agent.py    # serves on http://127.0.0.1:8765/v1 until Ctrl-C
"""

import json
import re
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PORT = 8765
COMMON = re.compile(
    "(?:about|after|already|because|could|customer|from|goods|have|number|orders?|please|since|still|such|that|"
    "their|there|these|they|this|those|wants?|were|what|which|with|would|your)"
)
NUMBER = re.compile(r"N-\d{5}")


def list_stems(text: str) -> set[str]:
    """Return the first five letters of the words of a text, without common and short words."""
    return {word[:5] for word in re.findall(r"[a-z]{4,}", text.lower()) if not COMMON.fullmatch(word)}


def choose_call(message: str, tools: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the call of the tool that fits a message best; None where none fits."""
    functions = [tool["function"] for tool in tools]
    words = list_stems(message)
    shared = [len(words & list_stems(function.get("description", ""))) for function in functions]
    number = NUMBER.search(message)
    if not max(shared, default=0) or number is None:
        return None
    function = functions[shared.index(max(shared))]
    arguments = {"number": number[0]}
    reasons = function["parameters"]["properties"].get("reason", {}).get("enum", ())
    if reasons:
        arguments["reason"] = next((r for r in reasons if r[:5] in words), reasons[-1])
    return {"name": function["name"], "arguments": json.dumps(arguments)}


class Handler(BaseHTTPRequestHandler):
    """Answers POST /v1/chat/completions."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        call = choose_call(body["messages"][-1]["content"], body.get("tools", []))
        message: dict[str, Any] = {"role": "assistant", "content": None if call else "How can I help you?"}
        if call:
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": call}]
        choice = {"index": 0, "finish_reason": "tool_calls" if call else "stop", "message": message}
        usage = {"prompt_tokens": 400, "completion_tokens": 20, "total_tokens": 420}
        head = {"id": "c1", "object": "chat.completion", "created": 0, "model": "scripted"}
        self._send({**head, "choices": [choice], "usage": usage})

    def _send(self, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def make_server(port: int = 0) -> ThreadingHTTPServer:
    """Make the server; port 0 takes a free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    print(f"scripted agent on http://127.0.0.1:{PORT}/v1; stop it with Ctrl-C")
    with make_server(PORT) as server, suppress(KeyboardInterrupt):
        server.serve_forever()
