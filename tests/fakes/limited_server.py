"""An OpenAI-compatible server with real limits on the loopback, in a process of its own.

It answers each call after a fixed latency, or refuses it by the limits of its World, which count in
real time. GET /counts returns what came: times of answers and refusals since the start, in seconds.
"""

import asyncio
import json
import math
import multiprocessing
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fakes.limited_endpoint import World

ANSWER = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}
        ],
        "usage": {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100},
    }
).encode()
TOKENS = 100
REFUSAL = json.dumps({"error": {"message": "too many", "code": "rate_limit_exceeded"}}).encode()


class _Connection(asyncio.Protocol):
    """Reads requests one at a time, as a client with kept connections sends them."""

    def __init__(self, world: World, latency: float) -> None:
        self._world, self._latency = world, latency
        self._data = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        if len(rest) < length:
            return
        self._data = b""
        if head.startswith(b"GET"):
            world = self._world
            counts = {
                "answered": world.answered,
                "refused": world.refused,
                "most_flying": world.most_flying,
                "now": time.monotonic(),
            }
            self._reply(200, json.dumps(counts).encode())
            return
        refusing = self._world.arrive(time.monotonic(), TOKENS)
        if refusing is None:
            asyncio.get_running_loop().call_later(self._latency, self._answer)
        else:
            more = "" if math.isnan(refusing) else f"Retry-After: {refusing:g}\r\n"
            self._reply(429, REFUSAL, more)

    def _answer(self) -> None:
        self._world.leave()
        self._reply(200, ANSWER)

    def _reply(self, status: int, content: bytes, more: str = "") -> None:
        head = (
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{more}Content-Length: {len(content)}"
        )
        self._transport.write(f"{head}\r\n\r\n".encode() + content)


def _serve(world: World, latency: float, ready: Any) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(world, latency), "127.0.0.1", 0, backlog=2048)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


@contextmanager
def serve(world: World, latency: float) -> Iterator[str]:
    """Start the server; yields its base URL."""
    context = multiprocessing.get_context("spawn")
    mine, other = context.Pipe()
    process = context.Process(target=_serve, args=(world, latency, other), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{mine.recv()}/v1"
    finally:
        process.kill()
        process.join()
        mine.close()
        other.close()


def read_counts(url: str) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/counts", timeout=10) as answer:
        return dict(json.loads(answer.read()))
