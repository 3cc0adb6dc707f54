"""Servers that write prompts: a chat model that fills blanks, a fill-in-the-middle endpoint, and a
target that knows colours, all at one address, so that every request of a run is counted.

Known answer: that of colours.py, whose WORDS they write.
"""

import json
import re
from pathlib import Path
from threading import Lock
from typing import Any

import remask
from fakes.colours import WORDS, Oracle, optimize, rows, search
from fakes.server import Behaviour, Body, Handler, Server, completion

BLANKS = re.compile(r"^\[\[(\d+)\]\] about", re.MULTILINE)


def filled(body: Body) -> str:
    """A JSON object with one of WORDS for each blank, chosen by seed and number."""
    numbers = BLANKS.findall(body["messages"][-1]["content"])
    return json.dumps({n: WORDS[(body.get("seed", 0) + int(n)) % len(WORDS)] for n in numbers})


def gap(text: str, finish: str = "stop") -> Body:
    """The reply of a fill-in-the-middle endpoint."""
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "text": text}],
        "usage": {"prompt_tokens": 24, "completion_tokens": 14, "total_tokens": 38},
    }


def fills(*texts: str) -> list[Behaviour]:
    """One reply of a fill-in-the-middle endpoint for each text."""

    def one(text: str) -> Behaviour:
        return lambda handler, _: handler.send(200, json.dumps(gap(text)).encode())

    return [one(text) for text in texts]


class World:
    """Behaves like the model that a request names: `tiny` is the target, others write."""

    def __init__(self, fault: Behaviour | None = None, usage: dict[str, int] | None = None) -> None:
        self.fault, self.usage = fault, usage  # of every tenth request; of the writer's replies
        self.oracle, self.lock, self.n = Oracle(), Lock(), 0

    def __call__(self, handler: Handler, body: Body) -> None:
        with self.lock:
            self.n += 1
            if self.fault and self.n % 10 == 0:
                self.fault(handler, body)
                return
            reply = self.reply(body)
        handler.send(200, json.dumps(reply).encode())

    def reply(self, body: Body) -> Body:
        if body["model"] == "tiny":
            return completion(self.oracle(body["messages"]))
        reply = gap(WORDS[body["seed"] % len(WORDS)]) if "prompt" in body else completion(filled(body))
        return {**reply, "usage": self.usage or reply["usage"]}


def few_rows() -> list[dict[str, str]]:
    """12 rows to train, 8 to validate, 20 to test."""
    found = rows(80)
    return [*found[:12], *found[30:38], *found[60:]]


def play(
    server: Server,
    folder: Path,
    denoiser: str = "chat:writer",
    target_keys: dict[str, Any] | None = None,
    denoiser_keys: dict[str, Any] | None = None,
    **more: Any,
) -> remask.Result:
    """A whole run whose target and denoiser are both at `server`."""
    reach = {"base_url": server.url, "retries": 2}
    target_keys = reach | {"timeout": 5.0} | (target_keys or {})
    arguments = {
        "data": remask.Dataset(few_rows(), split="split"),
        "target": remask.Target("openai:tiny", **target_keys),
        "denoiser": remask.Denoiser(denoiser, **reach | (denoiser_keys or {})),
        "search": search(candidates=6),
        **({} if "budget" in more else {"max_calls": 220}),
    }
    return optimize(folder, **(arguments | more))


def asked_by(server: Server, model: str) -> int:
    """Requests for `model` that the server saw."""
    return sum(body["model"] == model for body in server.bodies)
