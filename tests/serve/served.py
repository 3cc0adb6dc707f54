"""A server on a free loopback port in a thread, a scripted model for it, and raw requests."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from remask.errors import NumericsError
from remask.models.generate import Writer
from remask.serve.app import make_app
from remask.serve.door import own_names
from remask.serve.server import listen, make_server
from remask.trace import Chat


class Bytes:
    """Answers with the last message; a token is a byte. "!" breaks it, "~" takes its time."""

    identity = "bytes"

    def __init__(self, window: int = 4000) -> None:
        self.window = window
        self.writing = self.most = self.written = 0  # answers at a time, tokens

    def room(self, chat: Chat) -> tuple[int, int]:
        length = sum(len(message.content.encode()) for message in chat)
        return length, max(0, self.window - length)

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")

    def write(self, chat: Chat, pick: Callable[[Tensor], int]) -> Iterator[tuple[int, Tensor]]:
        self.writing += 1
        self.most = max(self.most, self.writing)
        try:
            for byte in chat[-1].content.encode():
                if byte == ord("!"):
                    raise NumericsError("the model broke")
                if byte == ord("~"):
                    time.sleep(0.01)
                logits = torch.zeros(256)
                logits[byte] = 12.0
                self.written += 1
                yield pick(logits), logits
        finally:
            self.writing -= 1


@contextmanager
def serving(target: Writer, address: str = "127.0.0.1") -> Iterator[int]:
    """The port of a server that answers from `target`."""
    with listen(address, 0) as listening:
        port: int = listening.getsockname()[1]
        server = make_server(make_app(target, own_names(address, port)))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield port
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def exchange(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to raw bytes; (0, {}, b"") where there is none."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        data = b""
        while piece := connection.recv(65536):
            data += piece
    if not data:
        return 0, {}, b""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, body


def request(
    port: int,
    method: str = "GET",
    path: str = "/v1/models",
    body: bytes = b"",
    host: str | None = None,
    kind: str = "application/json",
    more: Sequence[str] = (),
) -> bytes:
    """A raw request that asks to close the connection; `host` None: the right one."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host or f'127.0.0.1:{port}'}"]
    if body:
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *more, "Connection: close", "", ""]).encode("latin-1") + body


def asking(text: str, **more: Any) -> bytes:
    """The body of a chat request."""
    value = {"model": "embedded", "messages": [{"role": "user", "content": text}], **more}
    return json.dumps(value).encode()
