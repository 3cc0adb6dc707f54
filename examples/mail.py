"""Support mail of a shop, and the model that sorts it: what the other examples share.

The model is the built-in target, a chat model of 135M parameters that needs no network. It names
the topic by choosing the most probable of four answers. Put your own client in the place of
`respond`.
"""

import json
from functools import cache
from pathlib import Path

import remask
from remask.ports import TargetModel
from remask.types import Message

FILE = Path(__file__).parent / "support" / "messages.jsonl"
ANSWER = "This message is about {label}."
TOPICS = ["account", "billing", "bug", "delivery"]


def load_rows(split: str, n: int) -> list[dict[str, str]]:
    """The first `n` messages of a split, each with its topic."""
    rows = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["split"] == split][:n]


def respond(messages: list[dict[str, str]]) -> str:
    """The answer to a chat: instructions in the system message, the mail in the last one."""
    chat = tuple(Message(turn["role"], turn["content"]) for turn in messages)
    return load_model().choose([chat], [ANSWER.format(label=topic) for topic in TOPICS])[0].text


@cache
def load_model() -> TargetModel:
    return remask.load_target("builtin")
