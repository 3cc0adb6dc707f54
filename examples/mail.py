"""Support mail of a shop, and a stand-in for your model: what the other examples share.

The stand-in needs no network and no weights, so each example runs in a few minutes on one core.
It sorts a message by its words, but only into topics that its instructions mention, by name or by
one of these words, and into one more. So better instructions give better answers. Put your own
client in the place of `respond`.
"""

import json
import re
from pathlib import Path

FILE = Path(__file__).parent / "support" / "messages.jsonl"
ANSWER = "This message is about {label}."
WORDS = {
    "account": {"account", "profile", "login", "password", "username", "email", "settings", "me"},
    "billing": {"billing", "invoice", "pay", "paid", "bank", "fee", "charged", "refund", "price"},
    "bug": {"bug", "page", "version", "app", "text", "crash", "error", "button", "screen", "wrong"},
    "delivery": {"delivery", "parcel", "sent", "package", "courier", "arrived", "box", "order"},
}
TOPICS = sorted(WORDS)
DEFAULT = "delivery"  # the topic that needs no mention


def load_rows(split: str, n: int) -> list[dict[str, str]]:
    """The first `n` messages of a split, each with its topic."""
    rows = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["split"] == split][:n]


def respond(messages: list[dict[str, str]]) -> str:
    """The answer to a chat: instructions in the system message, the mail in the last one."""
    instructions, mail = (split_words(messages[place]["content"]) for place in (0, -1))
    topics = [topic for topic in TOPICS if topic == DEFAULT or instructions & WORDS[topic]]
    best = max(topics, key=lambda topic: len(mail & WORDS[topic]))
    return ANSWER.format(label=best)


def split_words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
