"""What denoisers behind an API share: asking a target, and what becomes of a useless answer.

An API writes text and nothing else, so there is no tokenizer (lengths are estimated) and no
probability (a Fill's `logp` is 0.0 and means nothing). Knows a Target and canvases. Knows nothing
of HTTP, caches and budgets: the target brings them along.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from remask.errors import TargetUnreliable
from remask.identity import seed_for
from remask.ports import Canvas, Fill, Hole, Reply, Target
from remask.text import clean
from remask.trace import Chat

BYTES_PER_TOKEN = 4  # of UTF-8: about right for English, and not far off for Chinese
SLACK = 8  # tokens that a fill may have over twice the length of its hole
SEEDS = 2**31  # some servers take no larger seed


@dataclass(frozen=True, slots=True)
class Written:
    """What one canvas got: a text for each hole of at least one token, or why there is none."""

    texts: tuple[str, ...] = ()
    problem: str = ""  # not empty: `texts` means nothing


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


def ask(target: Target, chats: Sequence[Chat], seed: int) -> list[Reply]:
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
