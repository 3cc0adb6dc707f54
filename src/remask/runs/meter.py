"""A target that is paid for: cache, reserve, call, settle.

Knows a target, the store of the run and the budget. Does not know what the chats mean or why they
are asked. Wrapped round any target it is a target itself, so nobody else needs to count.

Misses are asked in chunks of at most CHUNK, in the order of the request. A chunk is settled as a
whole or not at all, and its size follows from what is durable alone; so a request that was cut off
and is asked again meets the target in the same batches, and batch-dependent rounding cannot differ.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from remask.errors import BudgetSpent, ConfigError, TargetRefused
from remask.ids import content_id
from remask.ports import Reply, Target
from remask.runs.budget import Budget, Price, Spend, check_price, shortfall
from remask.runs.store import Store
from remask.types import Chat

CHUNK = 32
CHAT_OVERHEAD = 64  # tokens that a chat template may add to a chat, such as a default system prompt
MESSAGE_OVERHEAD = 16  # … and to each message: its role and separators

Ask = Callable[[Target, list[Chat]], list[Reply]]


def _go_on() -> None:
    """The gate of runs that nobody interrupts."""


@dataclass(slots=True)
class Account:
    """What all meters of a run share: the limits, the books, and who may stop it.

    The books are put in when the run is opened, after everything that could be wrong was checked.
    """

    books: Store | None
    budget: Budget
    price: Price | None = None
    held: Spend = field(default_factory=Spend)  # set aside for later: counts as spent
    gate: Callable[[], None] = _go_on  # called before every chunk; may raise to stop the run
    clock: Callable[[], float] = time.monotonic  # seconds

    @property
    def store(self) -> Store:
        assert self.books is not None, "a call was made before the run was opened"
        return self.books

    def shortfall(self, need: Spend) -> str:
        """ "" where `need` fits beside what was spent and what is held, else why not."""
        return shortfall(self.budget, self.store.spent(), need, self.held)

    def require(self, need: Spend) -> None:
        """Raise BudgetSpent where `need` would pass a limit."""
        if sentence := self.shortfall(need):
            raise BudgetSpent(sentence)


class Meter(Target):
    """`respond` and `choose` of a target, with every call cached, reserved beforehand and booked.

    `max_output`: output tokens of one call at most; needed for a limit on tokens or dollars, since
    what cannot be bounded cannot be reserved. Under such a limit a reply that reports no tokens is
    booked at its bound. Input tokens are bounded by UTF-8 bytes, for no tokenizer makes more tokens
    than bytes, plus an allowance for the chat template. `price`: the target's own, where it is not
    the account's.
    """

    def __init__(
        self,
        target: Target,
        account: Account,
        max_output: int | None = None,
        price: Price | None = None,
    ) -> None:
        check_price(account.budget, price or account.price)
        if account.budget.counts_tokens and max_output is None:
            raise ConfigError(
                "a limit on tokens or USD cannot be held while one answer may be endless; "
                "set the target's largest number of output tokens"
            )
        self.identity, self.chooses = target.identity, target.chooses
        self.billed, self.max_attempts = target.billed, target.max_attempts
        self._target = target
        self._account = account
        self._budget = account.budget
        self._price = price or account.price or Price(0, 0)
        self._max_output = max_output or 0
        self._slowest = 0.0  # seconds per call

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        """Answer each chat, in order; equal chats and those of earlier requests are asked once.

        A failed reply is returned and its cost booked, but it is not stored: to ask again is to
        try again. A stored reply comes back with the figures of the call that made it, and costs
        nothing. Raises BudgetSpent before a call that would pass a limit, and at once where the
        limit on calls cannot hold the whole request.

        When the target raises TargetRefused the chunk's reservation is released. Any other
        exception, Ctrl-C included, leaves it as a kill would: uncertain where the target is
        billed, released where it is not.
        """
        return self._answer(chats, None, repeat, lambda target, part: target.respond(part, repeat))

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Reply]:
        """As `respond`; one choice is one call, whatever the number of options."""
        return self._answer(chats, options, 0, lambda target, part: target.choose(part, options))

    def _answer(
        self, chats: Sequence[Chat], options: Sequence[str] | None, repeat: int, ask: Ask
    ) -> list[Reply]:
        keys = [call_key(self.identity, chat, options, repeat) for chat in chats]
        stored = self._account.store.cached(list(dict.fromkeys(keys)))
        known = {key: _decode(reply) for key, reply in stored.items()}
        misses = {key: chat for key, chat in zip(keys, chats, strict=True) if key not in known}
        left = list(misses.items())
        while left:
            self._account.gate()
            self._account.require(Spend(calls=len(left)))
            part, attempts = self._fitting(left[:CHUNK], options)
            known |= self._call(part, attempts, options, ask)
            left = left[len(part) :]
        return [known[key] for key in keys]

    def _fitting(
        self, chunk: list[tuple[str, Chat]], options: Sequence[str] | None
    ) -> tuple[list[tuple[str, Chat]], int]:
        """The longest head of `chunk` that the budget can bear, and the attempts of each call.

        Where the limit is near, calls get fewer retries rather than a row none at all.
        """
        for size in range(len(chunk), 0, -1):
            for attempts in range(self.max_attempts, 0, -1):
                need = self._need([chat for _, chat in chunk[:size]], options, attempts)
                if not self._account.shortfall(need):
                    return chunk[:size], attempts
        self._account.require(self._need([chunk[0][1]], options, 1))
        raise AssertionError("one call fits after all")

    def _need(self, chats: Sequence[Chat], options: Sequence[str] | None, attempts: int) -> Spend:
        calls, seconds = len(chats) * attempts, len(chats) * self._slowest
        if not self._budget.counts_tokens:
            return Spend(calls=calls, seconds=seconds)
        bounds = [self._bound(chat, options) for chat in chats]
        tokens_in = sum(bound[0] for bound in bounds) * attempts
        tokens_out = sum(bound[1] for bound in bounds) * attempts
        usd = self._price.usd(tokens_in, tokens_out)
        return Spend(calls, tokens_in, tokens_out, usd, seconds)

    def _bound(self, chat: Chat, options: Sequence[str] | None) -> tuple[int, int]:
        """Input and output tokens of one attempt at most."""
        content = sum(_bytes(message.content) + MESSAGE_OVERHEAD for message in chat)
        chosen = max((_bytes(option) for option in options or ()), default=0)
        return content + CHAT_OVERHEAD, max(self._max_output, chosen)

    def _call(
        self,
        part: list[tuple[str, Chat]],
        attempts: int,
        options: Sequence[str] | None,
        ask: Ask,
    ) -> dict[str, Reply]:
        chats = [chat for _, chat in part]
        target = self._target
        if attempts < self.max_attempts:
            target = target.limited(attempts)
        reservation = self._account.store.reserve(self._need(chats, options, attempts), self.billed)
        started = self._account.clock()
        try:
            replies = [_storable(reply) for reply in ask(target, chats)]
            answers = dict(zip([key for key, _ in part], replies, strict=True))
        except TargetRefused:
            self._account.store.release(reservation)
            raise
        except BaseException:  # passed on; only the books are put in order here
            self._account.store.abandon(reservation)
            raise
        seconds = max(0.0, self._account.clock() - started)
        self._slowest = max(self._slowest, seconds / len(part))
        actual = Spend(seconds=seconds)
        for chat, reply in zip(chats, replies, strict=True):
            actual += self._cost(chat, options, reply)
        good = {key: _encode(reply) for key, reply in answers.items() if not reply.error}
        self._account.store.settle(reservation, actual, good)
        return answers

    def _cost(self, chat: Chat, options: Sequence[str] | None, reply: Reply) -> Spend:
        tokens_in, tokens_out = reply.input_tokens, reply.output_tokens
        unreported = not (tokens_in or tokens_out or reply.error)
        if unreported and self._budget.counts_tokens:
            tokens_in, tokens_out = self._bound(chat, options)
        return Spend(reply.attempts, tokens_in, tokens_out, self._price.usd(tokens_in, tokens_out))


def call_key(identity: str, chat: Chat, options: Sequence[str] | None, repeat: int) -> str:
    """The cache key: everything that can change the answer."""
    turns = [[message.role, message.content] for message in chat]
    return content_id("call", identity, turns, None if options is None else list(options), repeat)


def _bytes(text: str) -> int:
    return len(text.encode())


def _storable(reply: Reply) -> Reply:
    """Half of a surrogate pair, as from an answer cut inside an emoji, is no UTF-8."""
    return replace(reply, text=reply.text.encode("utf-8", "replace").decode())


def _encode(reply: Reply) -> dict[str, Any]:
    return {
        "text": reply.text,
        "input_tokens": reply.input_tokens,
        "output_tokens": reply.output_tokens,
        # JSON has no infinity: it would come back as null.
        "logps": [logp if math.isfinite(logp) else repr(logp) for logp in reply.logps],
        "attempts": reply.attempts,
    }


def _decode(stored: dict[str, Any]) -> Reply:
    return Reply(
        text=stored["text"],
        input_tokens=stored["input_tokens"],
        output_tokens=stored["output_tokens"],
        logps=tuple(float(logp) for logp in stored["logps"]),
        attempts=stored["attempts"],
    )
