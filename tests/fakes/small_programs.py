"""A small real task for the integrations: a model reads the mood of a sentence.

Known answer: `kind` is always right where the prompt asks for kindness, which one of DENOISER's
phrases brings, and never otherwise; `chosen` asks the real built-in model.
"""

from functools import cache

from fakes.scripted_denoiser import ScriptedDenoiser
from remask.types import Message

LABELS = ("positive", "negative")
SEED = "Classify the sentiment."
DENOISER = ScriptedDenoiser(("be kind", "answer in short", "think twice", "stay calm", "weigh it"))
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


def kind(messages):
    """Right where the prompt asks for kindness."""
    if "kind" not in messages[0]["content"].lower():
        return "neither"
    return next(label for text, label in ROWS if text in messages[-1]["content"])


@cache
def builtin():
    """The built-in target, loaded once."""
    from remask.models.backbone.builtin_weights import load_base
    from remask.models.builtin import BuiltinTarget

    return BuiltinTarget(load_base(), max_tokens=8)


def chosen(messages) -> str:
    """The label that the built-in target finds more probable."""
    chat = tuple(Message(m["role"], m["content"]) for m in messages)
    options = [f"The sentiment is {label}." for label in LABELS]
    reply = builtin().choose([chat], options)[0]
    assert not reply.error
    return reply.text
