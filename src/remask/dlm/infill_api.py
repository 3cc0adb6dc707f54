"""Filling the holes of a prompt through an API: what all such denoisers share, and Mercury.

An API writes text and nothing else, so there is no tokenizer (lengths are estimated) and no
probability (a Fill's `logp` is 0.0 and means nothing). `ask`, `checked` and `settled` ask a target
and say what becomes of a useless answer. Mercury, or an endpoint like it, fills in the middle: one
hole is one call, before the gap stand the traces and the prompt so far, behind it the rest of the
prompt. Several holes are filled from left to right, and the holes further on show their old texts.
Knows the layout, canvases and a Target that reads (before, after, tokens), as that of
models/completions.py does. Knows nothing of HTTP, caches and budgets: the target brings them along.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from remask.dlm.canvas import settle
from remask.dlm.render import render
from remask.errors import TargetUnreliable
from remask.ids import seed_for
from remask.ports import Canvas, Context, Fill, Hole, Reply, TargetModel
from remask.sanitize import clean
from remask.types import Chat, Message

BYTES_PER_TOKEN = 4  # of UTF-8: about right for English, and not far off for Chinese
SLACK = 8  # tokens that a fill may have over twice the length of its hole
SEEDS = 2**31  # some servers take no larger seed
LONGEST = 256  # tokens of one answer at most
OPENING = "\nSystem prompt:\n"
# Behind the prompt, so that a gap at its end also has something after it.
CLOSING = "\n\nEnd of the system prompt.\n"
# The layout's own marks: an answer that goes on to another conversation is cut there. Mercury's
# own stop sequences are meant for code and end an answer at the first empty line.
STOP = ("\nUser:", "\nFeedback:", CLOSING.rstrip())


# -- what denoisers behind an API share ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Written:
    """What one canvas got: a text for each hole of at least one token, or why there is none."""

    texts: tuple[str, ...] = ()
    problem: str = ""  # not empty: `texts` means nothing


@dataclass(frozen=True, slots=True)
class ApiDenoiser:
    """What asks a `target` for the texts. It has no scores."""

    target: TargetModel
    max_output: int | None = None  # tokens of one answer of the target at most; None: unknown

    def count(self, text: str) -> int:
        """Tokens of `text`, estimated."""
        return estimate(text)

    def with_target(self, target: TargetModel) -> Self:
        """The same denoiser on another target, such as a metered one."""
        return replace(self, target=target)


def estimate(text: str) -> int:
    """Tokens of `text`, roughly: a quarter of its bytes, rounded up."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def most_tokens(hole: Hole) -> int:
    """The longest text that a hole takes: lengths are elastic, for a model that cannot count its
    own tokens even more."""
    return 2 * hole.tokens + SLACK


def open_holes(canvas: Canvas) -> list[Hole]:
    """The holes to write; those of no tokens only delete."""
    return [part for part in canvas if isinstance(part, Hole) and part.tokens]


def ask(target: TargetModel, chats: Sequence[Chat], seed: int) -> list[Reply]:
    """A reply to each chat, in order; equal chats get other seeds, so that their answers differ."""
    counts: dict[Chat, int] = {}
    turns: list[int] = []
    for chat in chats:
        turns.append(counts.get(chat, 0))
        counts[chat] = turns[-1] + 1
    replies: dict[int, Reply] = {}
    for turn in range(max(turns, default=-1) + 1):
        at = [i for i, own in enumerate(turns) if own == turn]
        repeat = seed_for(seed, "ask", turn) % SEEDS
        answers = target.respond([chats[i] for i in at], repeat=repeat)
        replies |= dict(zip(at, answers, strict=True))
    return [replies[i] for i in range(len(chats))]


def checked(text: str, hole: Hole) -> tuple[str, str]:
    """The cleaned text for a hole, and what is wrong with it ("" for nothing).

    Answers are untrusted: on one line, without control characters and marks of roles. An empty
    answer is no deletion: only a hole of no tokens deletes.
    """
    found = clean(text)
    if not any(char.isalnum() for char in found):
        return "", "is empty"
    tokens, most = estimate(found), most_tokens(hole)
    if tokens > most:
        return "", f"has about {tokens} tokens, and at most {most} are allowed"
    return found, ""


def settled(canvases: Sequence[Canvas], written: Mapping[int, Written]) -> list[Fill]:
    """The fill of each canvas, from what was written for those with open holes, by index.

    A canvas without a usable answer gets its old texts back, in all holes: the candidate is then
    the parent, which the search has seen. Raises TargetUnreliable where no answer was usable.
    """
    problems = [result.problem for result in written.values() if result.problem]
    if problems and len(problems) == len(written):
        raise TargetUnreliable(
            f"none of the denoiser's {len(problems)} answers can be used; the first: {problems[0]}"
        )
    return [_fill(canvas, written.get(k, Written())) for k, canvas in enumerate(canvases)]


def _fill(canvas: Canvas, result: Written) -> Fill:
    holes = [part for part in canvas if isinstance(part, Hole)]
    if result.problem:
        return Fill(tuple(hole.old for hole in holes), 0.0)
    texts = iter(result.texts)
    return Fill(tuple(next(texts) if hole.tokens else "" for hole in holes), 0.0)


# -- Mercury --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MercuryDenoiser(ApiDenoiser):
    """A Denoiser that asks `target` for one gap at a time."""

    max_output: int | None = LONGEST

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
