"""The messages API of Anthropic, as a behaviour of fakes.server: its replies and its errors.

Known answer: the text of `say`, which gets the messages in the form of OpenAI, so that the models of
other tests answer here too.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from fakes.server import Behaviour, Body, Handler

Say = Callable[[Body], str]  # (a body in the form of OpenAI) -> the text of the answer


def to_openai(body: Body) -> Body:
    """The same request in the form of OpenAI."""
    system = "".join(part["text"] for part in body.get("system", ()))
    turns = [{"role": turn["role"], "content": join(turn["content"])} for turn in body["messages"]]
    first = [{"role": "system", "content": system}] if system else []
    return {"model": body["model"], "messages": [*first, *turns]}


def join(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def shout(body: Body) -> str:
    """The last message in capitals."""
    return str(body["messages"][-1]["content"]).upper()


def message(say: Say = shout, stop: str = "end_turn", parts: list[Body] | None = None) -> Behaviour:
    """A normal reply. `parts`: the parts of its content, in place of a text."""

    def behave(handler: Handler, body: Body) -> None:
        content = parts or [{"type": "text", "text": say(to_openai(body))}]
        reply = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": content,
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": {
                "input_tokens": 4,
                "cache_read_input_tokens": 3,
                "output_tokens": 3,
                # Without it Inspect asks the API to count the thoughts.
                "output_tokens_details": {"thinking_tokens": 1},
            },
        }
        handler.send(200, json.dumps(reply).encode())

    return behave


def error(code: int, kind: str, text: str, headers: Mapping[str, str] | None = None) -> Behaviour:
    """An error in the words of the API."""
    content = json.dumps({"type": "error", "error": {"type": kind, "message": text}}).encode()
    return lambda handler, _: handler.send(code, content, headers=headers)
