"""The one place where calls are paid for: cache, reserve, call, settle.

A Ledger holds the limits and the books, and whoever makes a call makes it inside `reserve`; a
Tariff says what the calls of one model cost. Knows neither what is asked nor why.

A Meter wrapped round any target is a target itself, so nobody else needs to count. Misses are
asked in chunks of at most CHUNK, in the order of the request. A chunk is settled as a whole or not
at all, and its size follows from what is durable alone; so a request that was cut off and is asked
again meets the target in the same batches, and batch-dependent rounding cannot differ.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

from remask.errors import BudgetSpent, ConfigError, TargetRefused
from remask.ids import content_id
from remask.ports import Reply, TargetModel
from remask.runs.budget import Limits, Price, Spend, check_price, find_shortfall
from remask.runs.store import MemoryStore
from remask.types import Chat

MAX_CHUNK_CALLS = 32
CHAT_OVERHEAD_TOKENS = (
    64  # tokens that a chat template may add to a chat, such as a default system prompt
)
MESSAGE_OVERHEAD_TOKENS = 16  # … and to each message: its role and separators

Ask = Callable[[TargetModel, list[Chat]], list[Reply]]
Tokens = tuple[int, int]  # input and output
Item = TypeVar("Item")
Answer = TypeVar("Answer")


def never_stop() -> None:
    """The checkpoint of runs that nobody interrupts."""


@dataclass(slots=True)
class Ledger:
    """What all calls of a run share: the limits, the books, and who may stop them.

    The books are put in when the run is opened, after everything that could be wrong was checked.
    """

    open_store: MemoryStore | None
    budget: Limits
    price: Price | None = None
    reserved: Spend = field(default_factory=Spend)  # set aside for later: counts as spent
    checkpoint: Callable[[], None] = (
        never_stop  # called before every call; may raise to stop the run
    )
    clock: Callable[[], float] = time.monotonic  # seconds
    booked_until: float = -math.inf  # until when seconds are booked: once, however many calls wait

    @property
    def store(self) -> MemoryStore:
        assert self.open_store is not None, "a call was made before the run was opened"
        return self.open_store

    def find_shortfall(self, need: Spend) -> str:
        """ "" where `need` fits beside what was spent and what is reserved, else why not."""
        return find_shortfall(self.budget, self.store.get_spend(), need, self.reserved)

    def require(self, need: Spend) -> None:
        """Raise BudgetSpent where `need` would pass a limit, and whatever stops the run."""
        self.checkpoint()
        if sentence := self.find_shortfall(need):
            raise BudgetSpent(sentence)

    def reserve(
        self, tariff: "Tariff", bounds: Sequence[Tokens], attempts: int = 1, billed: bool = True
    ) -> "Calls":
        """Calls, one for each bound, to be made inside a `with` of what is returned.

        `billed`: calls that are cut off may have cost something. Raises as `require`.
        """
        need = tariff.estimate_need(bounds, attempts)
        self.require(need)
        return Calls(self, tariff, bounds, self.store.reserve(need, billed), self.clock())

    def ask(
        self,
        items: Mapping[str, Item],
        make: Callable[[list[Item]], Sequence[Answer]],
        keep: Callable[[Answer], bool] = lambda answer: True,
    ) -> dict[str, Answer]:
        """The answer to each item by its key; a new one is one call, a kept one is free.

        `make` is given all new items at once. `keep`: whether an answer is to be kept.
        """
        known: dict[str, Answer] = self.store.find_replies(list(items))
        new = {key: item for key, item in items.items() if key not in known}
        if not new:
            return known
        with self.reserve(Tariff(self.budget, self.price), [(0, 0)] * len(new)) as calls:
            found = dict(zip(new, make(list(new.values())), strict=True))
            kept = {key: answer for key, answer in found.items() if keep(answer)}
            calls.settle([Reply("")] * len(new), kept)
        return known | found


@dataclass(slots=True)
class Calls:
    """Calls that are reserved and being made.

    When the block is left before `settle`, TargetRefused releases the reservation. Anything else,
    Ctrl-C included, leaves it as a kill would: uncertain where it is billed, else released.
    """

    ledger: Ledger
    tariff: "Tariff"
    bounds: Sequence[Tokens]
    reservation: int
    began: float
    open: bool = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.open and kind is not None and issubclass(kind, TargetRefused):
            self.release()
        elif self.open:
            self.ledger.store.abandon(self.reservation)

    def settle(self, replies: Sequence[Reply], kept: Mapping[str, Any]) -> None:
        """Book what the calls did cost, and the time they took. `kept`: replies to keep, by key."""
        self.open = False  # first: from here on a Ctrl-C leaves the reservation as a kill would
        now, ledger = self.ledger.clock(), self.ledger
        took = max(0.0, now - self.began) / len(self.bounds)
        self.tariff.slowest = max(self.tariff.slowest, took)
        waited = Spend(seconds=max(0.0, now - max(self.began, ledger.booked_until)))
        ledger.booked_until = now
        cost = sum(map(self.tariff.compute_cost, replies, self.bounds), waited)
        ledger.store.settle(self.reservation, cost, kept)

    def release(self) -> None:
        """Book nothing: the calls were refused."""
        self.open = False
        self.ledger.store.release(self.reservation)


class Tariff:
    """What the calls of one model cost: at most beforehand, and in the end.

    `max_output`: output tokens of one call at most; needed for a limit on tokens or dollars, since
    what cannot be bounded cannot be reserved. Raises ConfigError where a limit cannot be held.
    """

    def __init__(
        self, budget: Limits, price: Price | None = None, max_output: int | None = None
    ) -> None:
        check_price(budget, price)
        if budget.counts_tokens and not max_output:
            raise ConfigError(
                "a limit on tokens or USD cannot be held while one answer may be endless; "
                "set max_tokens, the largest number of output tokens of one answer"
            )
        self._counts_tokens = budget.counts_tokens
        self._price = price or Price(0, 0)
        self.slowest = 0.0  # seconds per call so far

    def estimate_need(self, bounds: Sequence[Tokens], attempts: int = 1) -> Spend:
        """The most that calls cost, one for each bound of an attempt's tokens."""
        seconds = len(bounds) * self.slowest
        if not self._counts_tokens:
            return Spend(len(bounds) * attempts, seconds=seconds)
        tokens_in, tokens_out = (attempts * sum(part) for part in zip(*bounds, strict=True))
        usd = self._price.usd(tokens_in, tokens_out)
        return Spend(len(bounds) * attempts, tokens_in, tokens_out, usd, seconds)

    def compute_cost(self, reply: Reply, bound: Tokens) -> Spend:
        """What one call did cost. Under a limit that counts tokens, a reply that reports none is
        booked at its bound."""
        tokens_in, tokens_out = reply.input_tokens, reply.output_tokens
        if self._counts_tokens and not (tokens_in or tokens_out or reply.error):
            tokens_in, tokens_out = bound
        return Spend(reply.attempts, tokens_in, tokens_out, self._price.usd(tokens_in, tokens_out))


class Meter(TargetModel):
    """`respond` and `choose` of a target, with every call cached, reserved beforehand and booked.

    `max_output`: as of a Tariff. Input tokens are bounded by UTF-8 bytes, for no tokenizer makes
    more tokens than bytes, plus an allowance for the chat template. `price`: the target's own,
    where it is not the ledger's.
    """

    def __init__(
        self,
        target: TargetModel,
        ledger: Ledger,
        max_output: int | None = None,
        price: Price | None = None,
    ) -> None:
        self.identity, self.chooses = target.identity, target.chooses
        self.billed, self.max_attempts = target.billed, target.max_attempts
        self._target = target
        self._ledger = ledger
        self._tariff = Tariff(ledger.budget, price or ledger.price, max_output)
        self._max_output = max_output or 0

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
        stored = self._ledger.store.find_replies(list(dict.fromkeys(keys)))
        known = {key: _decode(reply) for key, reply in stored.items()}
        misses = {key: chat for key, chat in zip(keys, chats, strict=True) if key not in known}
        left = list(misses.items())
        while left:
            self._ledger.require(Spend(calls=len(left)))
            part = left[:MAX_CHUNK_CALLS]
            bounds = [self._bound_tokens(chat, options) for _, chat in part]
            size, attempts = self._fit_calls(bounds)
            known |= self._call(part[:size], bounds[:size], attempts, ask)
            left = left[size:]
        return [known[key] for key in keys]

    def _bound_tokens(self, chat: Chat, options: Sequence[str] | None) -> Tokens:
        """The tokens of one attempt at most."""
        content = sum(_count_bytes(message.content) + MESSAGE_OVERHEAD_TOKENS for message in chat)
        chosen = max((_count_bytes(option) for option in options or ()), default=0)
        return content + CHAT_OVERHEAD_TOKENS, max(self._max_output, chosen)

    def _fit_calls(self, bounds: Sequence[Tokens]) -> tuple[int, int]:
        """How many calls, from the first on, the budget can bear, and the attempts of each.

        Where the limit is near, calls get fewer retries rather than a row none at all.
        """
        for size in range(len(bounds), 0, -1):
            for attempts in range(self.max_attempts, 0, -1):
                if not self._ledger.find_shortfall(
                    self._tariff.estimate_need(bounds[:size], attempts)
                ):
                    return size, attempts
        return 1, 1  # to reserve it says which limit it would pass

    def _call(
        self, part: list[tuple[str, Chat]], bounds: Sequence[Tokens], attempts: int, ask: Ask
    ) -> dict[str, Reply]:
        target = self._target
        if attempts < self.max_attempts:
            target = target.limit_attempts(attempts)
        with self._ledger.reserve(self._tariff, bounds, attempts, self.billed) as calls:
            replies = [
                _replace_surrogates(reply) for reply in ask(target, [chat for _, chat in part])
            ]
            answers = dict(zip([key for key, _ in part], replies, strict=True))
            good = {key: _encode(reply) for key, reply in answers.items() if not reply.error}
            calls.settle(replies, good)
        return answers


def call_key(identity: str, chat: Chat, options: Sequence[str] | None, repeat: int) -> str:
    """The cache key: everything that can change the answer."""
    turns = [[message.role, message.content] for message in chat]
    return content_id("call", identity, turns, None if options is None else list(options), repeat)


def _count_bytes(text: str) -> int:
    return len(text.encode())


def _replace_surrogates(reply: Reply) -> Reply:
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
