"""One answer of a local target in parts: sampling, stop texts, log-probabilities, streaming.

Turns the tokens of `Writer.write` into text that can be shown as it comes: a character of
several tokens appears whole, and text that may be the beginning of a stop text waits until that is
known. Knows one chat and how to draw; knows nothing of HTTP and of how chats are laid out.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from remask.identity import seed_for
from remask.trace import Chat

_BROKEN = "\ufffd"  # what a part of a character decodes to
_LONGEST = 4  # tokens of one character at most: UTF-8 has four bytes, a token at least one

Finish = Literal["", "stop", "length"]


class Writer(Protocol):
    """A target that writes token by token; EmbeddedTarget does."""

    @property
    def identity(self) -> str:
        """Everything that can change an answer."""
        ...

    def room(self, chat: Chat) -> tuple[int, int]:
        """Tokens of `chat` with the opening of the answer, and how many an answer may have."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens that `write` gave."""
        ...

    def write(self, chat: Chat, pick: Callable[[Tensor], int]) -> Iterator[tuple[int, Tensor]]:
        """One answer token by token: (id, logits (V,) it was picked from), until the model ends
        its turn or its window is full. `pick` chooses an id by the logits."""
        ...


@dataclass(frozen=True, slots=True)
class Decoding:
    """How an answer is drawn."""

    max_tokens: int
    temperature: float = 0.0  # 0: the most probable token
    top_p: float = 1.0  # only the fewest tokens that hold so much probability
    seed: int = 0
    stop: tuple[str, ...] = ()  # none empty; the answer ends before the first of them
    top: int = 0  # alternatives to report for each token


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the answer. Log-probabilities are of the model itself, at temperature 1; nats."""

    text: str
    logp: float
    top: tuple[tuple[str, float], ...] = ()  # the most probable tokens in its place


@dataclass(frozen=True, slots=True)
class Part:
    """Text that is ready to be shown, the tokens it came from, and how the answer ended."""

    text: str
    tokens: tuple[Token, ...]
    finish: Finish = ""


def answer(target: Writer, chat: Chat, decoding: Decoding) -> Generator[Part, None, None]:
    """The answer in parts; the last has a `finish`, and no other. One part may be empty."""
    left = decoding.max_tokens
    buffer = _Buffer(target.decode, decoding.stop)
    for id, logits in target.write(chat, drawing(decoding)):
        left -= 1
        cut = buffer.add(id, _token(target, id, logits, decoding.top))
        if cut or not left:
            yield buffer.rest("stop" if cut else "length")
            return
        yield buffer.ready()
    yield buffer.rest("stop")


def drawing(decoding: Decoding) -> Callable[[Tensor], int]:
    """Picks the next id by logits (V,): the most probable, or drawn by softmax(logits /
    temperature) within the nucleus `top_p` (arXiv 1904.09751, section 3.1)."""
    if decoding.temperature == 0:
        return lambda logits: int(logits.argmax())
    generator = torch.Generator().manual_seed(seed_for(decoding.seed, "answer"))

    def draw(logits: Tensor) -> int:
        p, ids = (logits.float().cpu() / decoding.temperature).softmax(-1).sort(descending=True)
        before = p.cumsum(-1) - p  # probability of the tokens ahead of each
        p = p.masked_fill(before >= decoding.top_p, 0.0)
        return int(ids[torch.multinomial(p, 1, generator=generator)])

    return draw


def _token(target: Writer, id: int, logits: Tensor, top: int) -> Token:
    logps = logits.log_softmax(-1)
    best = logps.topk(top)
    alternatives = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return Token(
        target.decode([id]),
        float(logps[id]),
        tuple((target.decode([other]), logp) for other, logp in alternatives),
    )


@dataclass(slots=True)
class _Buffer:
    """Tokens whose text is not yet out."""

    decode: Callable[[Sequence[int]], str]
    stop: tuple[str, ...]
    text: str = ""  # whole characters that wait
    ids: list[int] = field(default_factory=list)  # of a character that is not yet whole
    tokens: list[tuple[Token, int]] = field(default_factory=list)  # with where each began in `text`

    def add(self, id: int, token: Token) -> bool:
        """Take in a token; True where a stop text ends the answer, which is then cut there."""
        self.ids.append(id)
        self.tokens.append((token, len(self.text)))
        piece = self.decode(self.ids)
        if piece.endswith(_BROKEN) and len(self.ids) < _LONGEST:
            return False
        self.text += piece
        self.ids.clear()
        found = [at for stop in self.stop if (at := self.text.find(stop)) >= 0]
        if found:
            self.text = self.text[: min(found)]
            self.tokens = [entry for entry in self.tokens if entry[1] < min(found)]
        return bool(found)

    def ready(self) -> Part:
        """What no stop text can begin in any more."""
        held = max((_overlap(self.text, stop) for stop in self.stop), default=0)
        if held or self.ids:
            # Tokens go out with their text, so that the two belong together in a stream.
            return Part("", ())
        return self._out("")

    def rest(self, finish: Finish) -> Part:
        """All that waits; a broken character is shown as such."""
        if self.ids:
            self.text += self.decode(self.ids)
        return self._out(finish)

    def _out(self, finish: Finish) -> Part:
        part = Part(self.text, tuple(token for token, _ in self.tokens), finish)
        self.text, self.tokens = "", []
        return part


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
