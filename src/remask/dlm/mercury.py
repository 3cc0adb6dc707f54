"""Filling the holes of a prompt through a fill-in-the-middle endpoint: Mercury, or one like it.

One hole is one call: before the gap stand the traces and the prompt so far, behind it the rest of
the prompt. Several holes are filled from left to right, and the holes further on show their old
texts. Knows the layout and a Target that reads (before, after, tokens); see target/fim.py. Knows
nothing of HTTP and of budgets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from remask.dlm.asking import Written, ask, checked, estimate, most_tokens, open_holes, settled
from remask.dlm.canvas import settle
from remask.dlm.families import render
from remask.identity import seed_for
from remask.ports import Canvas, Context, Fill, Hole, Target
from remask.trace import Chat, Message

LONGEST = 256  # tokens of one answer at most
OPENING = "\nSystem prompt:\n"
# Behind the prompt, so that a gap at its end also has something after it.
CLOSING = "\n\nEnd of the system prompt.\n"
# The layout's own marks: an answer that goes on to another conversation is cut there. Mercury's
# own stop sequences are meant for code and end an answer at the first empty line.
STOP = ("\nUser:", "\nFeedback:", CLOSING.rstrip())


@dataclass(frozen=True, slots=True)
class MercuryDenoiser:
    """A Denoiser that asks `target` for one gap at a time. It has no scores."""

    target: Target
    max_output: int | None = LONGEST  # tokens of one answer at most

    def count(self, text: str) -> int:
        """Tokens of `text`, estimated."""
        return estimate(text)

    def through(self, target: Target) -> "MercuryDenoiser":
        """The same denoiser on another target, such as a metered one."""
        return replace(self, target=target)

    def infill(self, context: Context, canvases: Sequence[Canvas], seed: int) -> list[Fill]:
        """Fill every canvas; as deterministic in the arguments as the API is with its seed.

        A canvas with one useless answer keeps its old texts. Raises TargetUnreliable where all
        have one, and what the target raises (BudgetSpent, TargetRefused).
        """
        written = {k: Written() for k, canvas in enumerate(canvases) if open_holes(canvas)}
        turn = 0
        while waiting := [k for k, w in written.items() if not _done(w, canvases[k])]:
            chats = [_chat(context, canvases[k], written[k].texts) for k in waiting]
            replies = ask(self.target, chats, seed_for(seed, "hole", turn))
            for k, reply in zip(waiting, replies, strict=True):
                hole = open_holes(canvases[k])[len(written[k].texts)]
                text, problem = checked(reply.text, hole)
                why = reply.error or (f"the answer {problem}" if problem else "")
                written[k] = Written((*written[k].texts, text), why)
            turn += 1
        return settled(canvases, written)


def _done(written: Written, canvas: Canvas) -> bool:
    return bool(written.problem) or len(written.texts) == len(open_holes(canvas))


def _chat(context: Context, canvas: Canvas, texts: Sequence[str]) -> Chat:
    """Before, after and tokens of the first hole that has no text yet."""
    found = iter(texts)
    holes = (part for part in canvas if isinstance(part, Hole))
    parts = settle(canvas, [next(found, None) if hole.tokens else "" for hole in holes])
    at, hole = next((i, part) for i, part in enumerate(parts) if isinstance(part, Hole))
    before, after = _text(parts[:at]), _text(parts[at + 1 :])
    return (
        Message("user", f"{render(context)}{OPENING}{before}"),
        Message("user", f"{after}{CLOSING}"),
        Message("user", str(min(most_tokens(hole), LONGEST))),
    )


def _text(parts: Sequence[str | Hole]) -> str:
    return "".join(part.old if isinstance(part, Hole) else part for part in parts)
