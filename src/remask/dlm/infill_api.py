"""Fill the holes of a prompt through an API: the parts that such denoisers share, and Mercury.

An API returns text only. So there is no tokenizer (lengths are estimated) and there are no
probabilities (`logp` of a Fill is 0.0 and has no meaning). Mercury and similar endpoints fill in
the middle: each hole is one call, in which the traces and the prompt up to the hole are the prefix
and the rest of the prompt is the suffix. Holes are filled from left to right, and holes that are
not filled yet appear with their old texts. The target makes the HTTP requests (see
`models/completions.py`), and it may be wrapped to cache and count them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from remask.dlm.canvas import apply_fills
from remask.dlm.render import render
from remask.errors import TargetUnreliable
from remask.ids import seed_for
from remask.ports import Canvas, Context, Fill, Hole, Reply, TargetModel
from remask.sanitize import clean
from remask.types import Chat, Message

BYTES_PER_TOKEN = 4  # of UTF-8: about right for English, and close for Chinese
MAX_EXTRA_TOKENS = 8  # that a fill may have beyond twice the length of its hole
SEED_RANGE = 2**31  # some servers accept no larger seed
MAX_ANSWER_TOKENS = 256
PROMPT_START = "\nSystem prompt:\n"
PROMPT_END = "\n\nEnd of the system prompt.\n"  # gives a hole at the end of the prompt a suffix
# An answer that continues with another conversation is cut at these marks of the layout. They
# replace Mercury's own stop sequences, which are meant for code and end an answer at the first
# empty line.
STOP_SEQUENCES = ("\nUser:", "\nFeedback:", PROMPT_END.rstrip())


# -- shared by all denoisers behind an API --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CanvasAnswer:
    """The texts for one canvas, or the reason why there are none."""

    texts: tuple[str, ...] = ()  # one for each hole of at least one token
    problem: str = ""  # if not empty, `texts` has no meaning


@dataclass(frozen=True, slots=True)
class ApiDenoiser:
    """A denoiser that asks a `target` for the texts. It cannot score texts."""

    target: TargetModel
    max_output: int | None = None  # largest number of tokens of one answer; None: unknown

    def count(self, text: str) -> int:
        """Estimate the number of tokens of `text`."""
        return estimate_tokens(text)

    def with_target(self, target: TargetModel) -> Self:
        """Return the same denoiser with another target, such as a metered one."""
        return replace(self, target=target)


def estimate_tokens(text: str) -> int:
    """Estimate the number of tokens of `text`: a quarter of its bytes, rounded up."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def find_max_tokens(hole: Hole) -> int:
    """Return the largest number of tokens that a fill of `hole` may have.

    The limit is generous because lengths are elastic and an API model cannot count its own tokens.
    """
    return 2 * hole.tokens + MAX_EXTRA_TOKENS


def find_open_holes(canvas: Canvas) -> list[Hole]:
    """Return the holes that need a text; a hole of no tokens only deletes its old text."""
    return [part for part in canvas if isinstance(part, Hole) and part.tokens]


def ask_target(target: TargetModel, chats: Sequence[Chat], seed: int) -> list[Reply]:
    """Ask for one reply to each chat, in order; equal chats get different seeds."""
    places: defaultdict[Chat, list[int]] = defaultdict(list)
    for i, chat in enumerate(chats):
        places[chat].append(i)
    replies: dict[int, Reply] = {}
    for turn in range(max(map(len, places.values()), default=0)):
        indices = sorted(own[turn] for own in places.values() if turn < len(own))
        repeat = seed_for(seed, "ask", turn) % SEED_RANGE
        answers = target.respond([chats[i] for i in indices], repeat=repeat)
        replies |= dict(zip(indices, answers, strict=True))
    return [replies[i] for i in range(len(chats))]


def check_fill(text: str, hole: Hole) -> tuple[str, str]:
    """Return the cleaned text for a hole, and what is wrong with it ("" if nothing).

    Answers are untrusted: they are put on one line, without control characters and role markers.
    An empty answer is a problem and not a deletion, since only a hole of no tokens deletes.
    """
    cleaned = clean(text)
    if not any(char.isalnum() for char in cleaned):
        return "", "is empty"
    tokens, limit = estimate_tokens(cleaned), find_max_tokens(hole)
    if tokens > limit:
        return "", f"has about {tokens} tokens, and at most {limit} are allowed"
    return cleaned, ""


def make_fills(canvases: Sequence[Canvas], answers: Mapping[int, CanvasAnswer]) -> list[Fill]:
    """Make the fill of each canvas from `answers`, which has those with open holes by index.

    A canvas without a usable answer gets its old texts in all holes. The candidate then equals its
    parent, which the search has already evaluated. Raises TargetUnreliable if no answer is usable.
    """
    problems = [answer.problem for answer in answers.values() if answer.problem]
    if problems and len(problems) == len(answers):
        raise TargetUnreliable(
            f"none of the denoiser's {len(problems)} answers can be used; the first: {problems[0]}"
        )
    return [_make_fill(canvas, answers.get(k, CanvasAnswer())) for k, canvas in enumerate(canvases)]


def _make_fill(canvas: Canvas, answer: CanvasAnswer) -> Fill:
    holes = [part for part in canvas if isinstance(part, Hole)]
    if answer.problem:
        return Fill(tuple(hole.old for hole in holes), 0.0)
    texts = iter(answer.texts)
    return Fill(tuple(next(texts) if hole.tokens else "" for hole in holes), 0.0)


# -- Mercury --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MercuryDenoiser(ApiDenoiser):
    """A denoiser that asks `target` for one hole at a time."""

    max_output: int | None = MAX_ANSWER_TOKENS

    def infill(self, context: Context, canvases: Sequence[Canvas], seed: int) -> list[Fill]:
        """Fill every canvas; as deterministic in the arguments as the API is with its seed.

        A canvas with one unusable answer keeps its old texts. Raises TargetUnreliable if every
        canvas has one, and what the target raises (BudgetSpent, TargetRefused).
        """
        answers = {k: CanvasAnswer() for k, canvas in enumerate(canvases) if find_open_holes(canvas)}
        turn = 0
        while waiting := [k for k, answer in answers.items() if not _is_done(answer, canvases[k])]:
            chats = [_make_chat(context, canvases[k], answers[k].texts) for k in waiting]
            replies = ask_target(self.target, chats, seed_for(seed, "hole", turn))
            for k, reply in zip(waiting, replies, strict=True):
                hole = find_open_holes(canvases[k])[len(answers[k].texts)]
                text, problem = check_fill(reply.text, hole)
                reason = reply.error or (f"the answer {problem}" if problem else "")
                answers[k] = CanvasAnswer((*answers[k].texts, text), reason)
            turn += 1
        return make_fills(canvases, answers)


def _is_done(answer: CanvasAnswer, canvas: Canvas) -> bool:
    return bool(answer.problem) or len(answer.texts) == len(find_open_holes(canvas))


def _make_chat(context: Context, canvas: Canvas, texts: Sequence[str]) -> Chat:
    """Make the prefix, the suffix and the number of tokens for the first hole without a text."""
    remaining = iter(texts)
    holes = (part for part in canvas if isinstance(part, Hole))
    parts = apply_fills(canvas, [next(remaining, None) if hole.tokens else "" for hole in holes])
    at, hole = next((i, part) for i, part in enumerate(parts) if isinstance(part, Hole))
    before, after = _join_text(parts[:at]), _join_text(parts[at + 1 :])
    return (
        Message("user", f"{render(context)}{PROMPT_START}{before}"),
        Message("user", f"{after}{PROMPT_END}"),
        Message("user", str(min(find_max_tokens(hole), MAX_ANSWER_TOKENS))),
    )


def _join_text(parts: Sequence[str | Hole]) -> str:
    """Join the parts, with the old text of each hole."""
    return "".join(part.old if isinstance(part, Hole) else part for part in parts)
