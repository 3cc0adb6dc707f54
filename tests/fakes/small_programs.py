"""A small real task for the integrations: the embedded model reads the mood of a sentence."""

from functools import cache

from remask.types import Message

LABELS = ("positive", "negative")
SEED = "Classify the sentiment."
ROWS = (
    ("I loved every minute of it.", "positive"),
    ("A dull, lifeless mess.", "negative"),
    ("The best film of the year.", "positive"),
    ("I want my money back.", "negative"),
    ("Warm, funny and well acted.", "positive"),
    ("Nothing in it works.", "negative"),
    ("A joy from start to finish.", "positive"),
    ("It bored me to tears.", "negative"),
)


@cache
def embedded():
    """The embedded target, loaded once."""
    from remask.models.backbone.builtin_weights import load_base
    from remask.models.builtin import EmbeddedTarget

    return EmbeddedTarget(load_base(), max_tokens=8)


def chosen(messages) -> str:
    """The label that the embedded target finds more probable."""
    chat = tuple(Message(m["role"], m["content"]) for m in messages)
    options = [f"The sentiment is {label}." for label in LABELS]
    reply = embedded().choose([chat], options)[0]
    assert not reply.error
    return reply.text
