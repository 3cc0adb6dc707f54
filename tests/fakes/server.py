"""A real OpenAI-compatible HTTP server on the loopback that behaves as scripted, well or badly.

Each request takes the next behaviour of the script, and the default when the script is empty.
Known answer: what the script says; everything received is kept, so that tests count what was sent.
"""

import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Body = dict[str, Any]
Behaviour = Callable[["Handler", Body], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Http"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        owner = self.server.owner
        with owner.lock:
            owner.bodies.append(body)
            owner.paths.append(self.path)
            owner.keys.append(self.headers.get("authorization", ""))
            behave = owner.script.pop(0) if owner.script else owner.default
        behave(self, body)

    def send(
        self,
        status: int,
        content: bytes,
        kind: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Http(ThreadingHTTPServer):
    daemon_threads = False  # joined at close, so that no socket outlives the test
    owner: "Server"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that gave up is part of the script


class Server:
    """Use in a with statement; `url` is the base_url."""

    def __init__(self, script: Sequence[Behaviour] = (), default: Behaviour | None = None) -> None:
        self.script = list(script)
        self.default = default or answer()
        self.bodies: list[Body] = []
        self.paths: list[str] = []
        self.keys: list[str] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._http = _Http(("127.0.0.1", 0), Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def requests(self) -> int:
        return len(self.bodies)

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def completion(text: object, finish: str = "stop") -> Body:
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def replying(model: Callable[[list[dict[str, str]]], str]) -> Behaviour:
    """Replies with what a function makes of the messages: a model for real clients.

    Some of them (litellm) never close a connection, and the server would wait for that.
    """

    def behave(handler: Handler, body: Body) -> None:
        content = json.dumps(completion(model(body["messages"]))).encode()
        handler.send(200, content, headers={"Connection": "close"})

    return behave


def answer(text: str | None = None, finish: str = "stop") -> Behaviour:
    """A normal reply: `text`, or the last message repeated in capitals."""

    def behave(handler: Handler, body: Body) -> None:
        said = body["messages"][-1]["content"].upper() if text is None else text
        handler.send(200, json.dumps(completion(said, finish)).encode())

    return behave


def status(
    code: int, message: str = "no", reason: str | None = None, headers: Mapping[str, str] | None = None
) -> Behaviour:
    """An error in the words of the OpenAI API; `reason` is its code."""
    content = json.dumps({"error": {"message": message, "code": reason}}).encode()
    return lambda handler, _: handler.send(code, content, headers=headers)


def quote_key(code: int) -> Behaviour:
    """An error that repeats the key it was given, as some servers do."""

    def behave(handler: Handler, _: Body) -> None:
        message = f"bad header {handler.headers['authorization']}"
        handler.send(code, json.dumps({"error": {"message": message}}).encode())

    return behave


def raw(content: bytes, kind: str = "application/json", code: int = 200) -> Behaviour:
    return lambda handler, _: handler.send(code, content, kind)


def shaped(payload: object) -> Behaviour:
    return raw(json.dumps(payload).encode())


def silent(seconds: float = 30.0) -> Behaviour:
    """No answer for so long, or until the server closes."""

    def behave(handler: Handler, body: Body) -> None:
        handler.server.owner.closing.wait(seconds)
        answer()(handler, body)

    return behave


def reset(handler: Handler, _: Body) -> None:
    """Half a body, then a reset connection."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()
