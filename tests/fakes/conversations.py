"""Conversations in which people ask for colours, what writes under them, and what answers.

Known answer: of the sentences of colours.WORDS, "Think of colours." is the one that conversations
with the comment "Colours!" speak for, and the one under which Painter answers right.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakes import write_lines
from fakes.colours import Phrases
from remask.errors import TargetRefused
from remask.ports import Context
from remask.sanitize import split_words
from remask.search.likelihood import CONTROL

START = "Name it. Be brief."


@dataclass
class Listener(Phrases):
    """Writes one of WORDS into every hole. A word of a text costs 2 nats; under conversations one
    less where somebody said it, a tenth less for everybody else who did, and a quarter more where
    nobody did. Conversations of no concern change nothing."""

    contexts: list[Context] = field(default_factory=list)
    asked: list[tuple[Context, str]] = field(default_factory=list)

    def infill(self, context: Context, canvases: Any, seed: int) -> Any:
        self.contexts.append(context)
        return super().infill(context, canvases, seed)

    def score(self, context: Context, text: str, spans: Sequence[tuple[int, int]]) -> list[float]:
        self.asked.append((context, text))
        said = [
            set(split_words(" ".join((trace.query, *(note.text for note in trace.feedback)))))
            for trace in context
            if trace not in CONTROL
        ]

        def lift(word: str) -> float:
            heard = sum(word in some for some in said)
            return 0.9 + 0.1 * heard if heard else -0.25 if said else 0.0

        return [sum(-2 + lift(word) for word in split_words(text[a:b])) for a, b in spans]


@dataclass
class Painter:
    """Answers right, "red" for odd items and "blue" for even ones, where its prompt speaks of
    colours, else "grey"; from `fails` calls on it refuses all."""

    fails: int = 10**9
    asked: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, messages: list[dict[str, str]]) -> str:
        if len(self.asked) >= self.fails:
            raise TargetRefused("the key is wrong")
        system, user = messages[0]["content"], messages[-1]["content"]
        self.asked.append((system, user))
        number = int(user.split()[-1])
        return ("red" if number % 2 else "blue") if "colours" in system else "grey"


def line(i: int, system: str | None = None, **more: Any) -> dict[str, Any]:
    """A conversation of one message, as a row of a log."""
    head = [] if system is None else [{"role": "system", "content": system}]
    user = {"role": "user", "content": more.pop("user", f"item {i}")}
    answer = {"role": "assistant", "content": more.pop("answer", "grey")}
    return {"id": f"call {i}", "messages": [*head, user, answer], **more}


def write_log(folder: Path, n: int = 40, **more: Any) -> Path:
    """`n` conversations in which somebody asks for colours, and says what would have been right."""
    said = {"name": "u", "value": False, "comment": "Colours!", "kind": "human"}
    right = ("blue", "red")
    rows = [line(i, expected=right[i % 2], feedback=[said], **more) for i in range(n)]
    return write_lines(folder / "log.jsonl", *rows)
