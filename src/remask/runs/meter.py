"""Metered calls: look up the cache, reserve the cost, call, book the cost.

A Ledger has the limits and the store of a run, and every call is made inside `Ledger.reserve`. A
Tariff has the costs of one model. A Meter wraps a target and is a target itself.

Calls that are not cached are made in chunks of at most MAX_CHUNK_CALLS, in the order of the
request. A chunk is stored completely or not at all, and its size depends only on stored values. So
a request that is interrupted and repeated has the same batches, and rounding that depends on the
batch does not change.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

from remask.errors import BudgetSpent, ConfigError, TargetRefused
from remask.ids import content_id
from remask.ports import CallBook, Reply, TargetModel, report_step
from remask.runs.budget import Limits, Price, Spend, check_price, find_shortfall
from remask.runs.store import MemoryStore
from remask.types import Chat

MAX_CHUNK_CALLS = 32
# Tokens that a chat template may add to a chat (a default system prompt) and to each message (its
# role and separators).
CHAT_OVERHEAD_TOKENS = 64
MESSAGE_OVERHEAD_TOKENS = 16

Ask = Callable[[TargetModel, list[Chat]], list[Reply]]
Tokens = tuple[int, int]  # input and output
Item = TypeVar("Item")
Answer = TypeVar("Answer")


def never_stop() -> None:
    """The default checkpoint."""


@dataclass(slots=True)
class Ledger:
    """What all calls of a run share: the limits, the store and the checkpoint.

    `open_store` is set when the run directory is opened, after all settings are checked.
    """

    open_store: MemoryStore | None
    budget: Limits
    price: Price | None = None
    reserved: Spend = field(default_factory=Spend)  # kept for the test; counts as spent
    # In the sealed test: the calls to be made after the present request, at most. None: no test runs.
    later_calls: int | None = None
    checkpoint: Callable[[], None] = never_stop  # called before a call; raises to stop the run
    clock: Callable[[], float] = field(default_factory=lambda: time.monotonic)  # seconds
    redact: Callable[[str], str] = str  # removes secrets from what is stored
    booked_until: float = -math.inf  # so that seconds of concurrent calls are booked only once

    @property
    def store(self) -> MemoryStore:
        assert self.open_store is not None, "a call was made before the run was opened"
        return self.open_store

    def find_shortfall(self, need: Spend) -> str:
        """Return which limit `need` would exceed, in a sentence, or ""."""
        return find_shortfall(self.budget, self.store.get_spend(), need, self.reserved)

    def require(self, need: Spend) -> None:
        """Raise BudgetSpent if `need` would exceed a limit, or what the checkpoint raises."""
        self.checkpoint()
        if sentence := self.find_shortfall(need):
            raise BudgetSpent(sentence)

    def reserve(
        self, tariff: "Tariff", bounds: Sequence[Tokens], attempts: int = 1, billed: bool = True
    ) -> "Calls":
        """Reserve one call per bound, to be made in a `with` block. Raises as `require`.

        billed: whether an interrupted call may have cost something.
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
        """Return the answer to each item by its key. A new answer is one call, a stored one free.

        make: called with all new items at once. keep: whether to store an answer.
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
    """Reserved calls.

    If the block ends before `settle`, TargetRefused releases the reservation. Any other exception,
    Ctrl-C too, is booked like a kill: as uncertain if the calls are billed, else as released.
    """

    ledger: Ledger
    tariff: "Tariff"
    bounds: Sequence[Tokens]
    reservation: int
    began: float
    open: bool = True
    ended: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.open and kind is not None and issubclass(kind, TargetRefused):
            self.release()
        elif self.open:
            self.ledger.store.abandon(self.reservation)

    def measure_seconds(self) -> float:
        """Stop the clock of the calls. Returns the time since they were reserved, for one of them."""
        self.ended = self.ledger.clock()
        return round(max(0.0, self.ended - self.began) / len(self.bounds), 6)

    def settle(self, replies: Sequence[Reply], kept: Mapping[str, Any]) -> None:
        """Book the cost and the time of the calls. kept: replies to store, by key."""
        self.open = False  # first, so that a Ctrl-C from here on has the effect of a kill
        ledger = self.ledger
        now = ledger.clock() if self.ended is None else self.ended
        took = max(0.0, now - self.began) / len(self.bounds)
        self.tariff.slowest = max(self.tariff.slowest, took)
        waited = Spend(seconds=max(0.0, now - max(self.began, ledger.booked_until)))
        ledger.booked_until = now
        cost = sum(map(self.tariff.compute_cost, replies, self.bounds), waited)
        ledger.store.settle(self.reservation, cost, kept)

    def release(self) -> None:
        """Release the reservation of refused calls."""
        self.open = False
        self.ledger.store.release(self.reservation)


class Tariff:
    """The costs of calls of one model: upper bounds before a call, and the cost after it.

    max_output: the largest number of output tokens of a call, which a limit on tokens or dollars
    needs. Raises ConfigError if it is missing then.
    """

    def __init__(self, budget: Limits, price: Price | None = None, max_output: int | None = None) -> None:
        check_price(budget, price)
        if budget.counts_tokens and not max_output:
            raise ConfigError(
                "a limit on tokens or USD needs a limit on each answer; set max_tokens, the "
                "largest number of output tokens of an answer"
            )
        self._counts_tokens = budget.counts_tokens
        self._price = price or Price(0, 0)
        self._tokens_count = budget.counts_tokens or price is not None
        self.slowest = 0.0  # seconds of the slowest call so far

    def estimate_need(self, bounds: Sequence[Tokens], attempts: int = 1) -> Spend:
        """Return an upper bound of the cost of calls, given bounds of the tokens of an attempt."""
        seconds = len(bounds) * self.slowest
        if not self._counts_tokens:
            return Spend(len(bounds) * attempts, seconds=seconds)
        tokens_in, tokens_out = (attempts * sum(part) for part in zip(*bounds, strict=True))
        usd = self._price.usd(tokens_in, tokens_out)
        return Spend(len(bounds) * attempts, tokens_in, tokens_out, usd, seconds)

    def compute_cost(self, reply: Reply, bound: Tokens) -> Spend:
        """Return the cost of one call.

        Where tokens cost money or are limited, an attempt that reports none costs its bound: a
        failed one may be billed, too.
        """
        tokens_in, tokens_out = reply.input_tokens, reply.output_tokens
        if self._tokens_count:
            unreported = reply.attempts - bool(tokens_in or tokens_out)
            tokens_in, tokens_out = tokens_in + unreported * bound[0], tokens_out + unreported * bound[1]
        return Spend(reply.attempts, tokens_in, tokens_out, self._price.usd(tokens_in, tokens_out))


class Meter(TargetModel):
    """A target whose calls are cached, reserved and booked.

    Input tokens are bounded by the number of UTF-8 bytes, because no tokenizer makes more tokens
    than bytes, plus an allowance for the chat template. max_output: see Tariff. price: of this
    target, if it is not that of the ledger.

    Answers are redacted, unless `raw`: then the caller gets them as they are, to grade them, and an
    answer with a secret is stored with its grade (`keep_grades`), without the secret.
    """

    def __init__(
        self,
        target: TargetModel,
        ledger: Ledger,
        max_output: int | None = None,
        price: Price | None = None,
        raw: bool = False,
    ) -> None:
        self.identity, self.chooses = target.identity, target.chooses
        self.billed, self.max_attempts = target.billed, target.max_attempts
        self._target = target
        self._ledger = ledger
        self._tariff = Tariff(ledger.budget, price or ledger.price, max_output)
        self._max_output = max_output or 0
        self._raw = raw
        self._with_secrets: dict[str, Reply] = {}  # answers that are not stored yet, by key

    @property
    def notes(self) -> tuple[str, ...]:
        return self._target.notes

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        """Answer each chat, in order. Equal chats, also of earlier requests, are asked once.

        A failed reply is returned and its cost is booked, but it is not stored, so it is tried
        again next time. A stored reply has the token counts of its call and costs nothing.

        Raises BudgetSpent before a call that would exceed a limit, and before the first call if the
        limit on calls is too low for the whole request. See `Calls` for other exceptions.
        """
        return self._answer(chats, None, repeat, lambda target, part: target.respond(part, repeat))

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Reply]:
        """Like `respond`. One choice is one call for any number of options."""
        return self._answer(chats, options, 0, lambda target, part: target.choose(part, options))

    def _answer(
        self, chats: Sequence[Chat], options: Sequence[str] | None, repeat: int, ask: Ask
    ) -> list[Reply]:
        keys = [call_key(self.identity, chat, options, repeat) for chat in chats]
        stored = self._ledger.store.find_replies(list(dict.fromkeys(keys)))
        known = {key: _decode(key, reply) for key, reply in stored.items()}
        misses = {key: chat for key, chat in zip(keys, chats, strict=True) if key not in known}
        left = list(misses.items())
        total = len(known) + len(left)
        report_step("call", len(known), total)
        if left and self._target.books_attempts:
            self._ledger.require(Spend(calls=len(left)))
            known |= self._book_attempts(left, repeat)
            left = []
            report_step("call", len(known), total)
        while left:
            self._ledger.require(Spend(calls=len(left)))
            part = left[:MAX_CHUNK_CALLS]
            bounds = [self._bound_tokens(chat, options) for _, chat in part]
            size, attempts = self._fit_calls(bounds)
            known |= self._call(part[:size], bounds[:size], attempts, ask)
            left = left[size:]
            report_step("call", len(known), total)
        return [known[key] for key in keys]

    def _book_attempts(self, calls: list[tuple[str, Chat]], repeat: int) -> dict[str, Reply]:
        """Make calls that are booked attempt by attempt, each answer stored when it comes."""
        keys, chats = zip(*calls, strict=True)
        bounds = [self._bound_tokens(chat, None) for chat in chats]

        def keep(call: int, reply: Reply) -> dict[str, Any]:
            return self._list_kept(keys[call], self._prepare(keys[call], reply))

        with _AttemptBook(self._ledger, self._tariff, keep, bounds) as book:
            replies = self._target.respond(chats, repeat, book)  # type: ignore[call-arg]
        replies = [replace(reply, seconds=book.seconds.get(i, 0.0)) for i, reply in enumerate(replies)]
        return {key: self._prepare(key, reply) for key, reply in zip(keys, replies, strict=True)}

    def keep_grades(self, grades: Sequence[tuple[Reply, Mapping[str, Any]]]) -> None:
        """Store answers with secrets, redacted, with the grades of the answers as they were."""
        kept = {}
        for reply, grade in grades:
            if self._with_secrets.pop(reply.key, None) is not None:
                safe = replace(reply, text=self._ledger.redact(reply.text), grade=grade)
                kept[reply.key] = _encode(safe)
        if kept:
            store = self._ledger.store
            store.settle(store.reserve(Spend(), False), Spend(), kept)

    def _prepare(self, key: str, reply: Reply) -> Reply:
        """Return an answer as it is given to the caller."""
        text = reply.text.encode("utf-8", "replace").decode()  # an answer may be cut inside an emoji
        if not self._raw:
            text = self._ledger.redact(text)
        return replace(reply, text=text, key=key)

    def _list_kept(self, key: str, reply: Reply) -> dict[str, Any]:
        """Return what to store of a prepared answer: nothing where it failed or holds a secret."""
        if reply.error:
            return {}
        if self._raw and not reply.logps and self._ledger.redact(reply.text) != reply.text:
            self._with_secrets[key] = reply
            return {}
        return {key: _encode(reply)}

    def _bound_tokens(self, chat: Chat, options: Sequence[str] | None) -> Tokens:
        """Return an upper bound of the tokens of one attempt."""
        content = sum(_count_bytes(message.content) + MESSAGE_OVERHEAD_TOKENS for message in chat)
        chosen = max((_count_bytes(option) for option in options or ()), default=0)
        return content + CHAT_OVERHEAD_TOKENS, max(self._max_output, chosen)

    def _fit_calls(self, bounds: Sequence[Tokens]) -> tuple[int, int]:
        """Return how many of the calls the budget allows, and the attempts of each.

        Near the limit, calls get fewer retries, so that each row gets its call.
        """
        for size in range(len(bounds), 0, -1):
            for attempts in range(self.max_attempts, 0, -1):
                need = self._tariff.estimate_need(bounds[:size], attempts)
                if not self._ledger.find_shortfall(need):
                    return size, attempts
        return 1, 1  # reserving this raises BudgetSpent with the limit

    def _call(
        self, part: list[tuple[str, Chat]], bounds: Sequence[Tokens], attempts: int, ask: Ask
    ) -> dict[str, Reply]:
        target = self._target
        if attempts < self.max_attempts:
            target = target.limit_attempts(attempts)
        with self._ledger.reserve(self._tariff, bounds, attempts, self.billed) as calls:
            replies = ask(target, [chat for _, chat in part])
            each = calls.measure_seconds()
            replies = [replace(reply, seconds=each) for reply in replies]
            answers = {key: self._prepare(key, reply) for (key, _), reply in zip(part, replies, strict=True)}
            good = {key: value for each in answers.items() for key, value in self._list_kept(*each).items()}
            calls.settle(replies, good)
        return answers


class _AttemptBook(CallBook):
    """Books each attempt in the ledger before it is sent, and stores each answer when it comes.

    An attempt that is cut off, by Ctrl-C as by a kill, stays booked as uncertain: one call.
    """

    def __init__(
        self,
        ledger: Ledger,
        tariff: Tariff,
        keep: Callable[[int, Reply], dict[str, Any]],
        bounds: Sequence[Tokens],
    ) -> None:
        self._ledger, self._tariff, self._keep, self._bounds = ledger, tariff, keep, bounds
        self._open: dict[int, Calls] = {}
        self._tried: set[int] = set()
        self.seconds: dict[int, float] = {}  # of the last attempt of each call

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for attempt in self._open.values():
            attempt.__exit__(None)

    def group(self) -> AbstractContextManager[None]:
        return self._ledger.store.group()

    def limit_flight(self, concurrency: int, left: int) -> int:
        """In the sealed test, half of the spare calls at most: a cut may lose those in flight."""
        limit, later = self._ledger.budget.calls, self._ledger.later_calls
        if limit is None or later is None:
            return concurrency
        spare = limit - self._ledger.store.get_spend().calls - left - later
        return max(1, min(concurrency, spare // 2))

    def check(self) -> None:
        self._ledger.require(Spend())

    def start(self, call: int, left: int) -> None:
        if call in self._tried:  # in the sealed test, a row must not lose its call to a retry
            left += self._ledger.later_calls or 0
        self._ledger.require(self._tariff.estimate_need([self._bounds[call]]) + Spend(left))
        self._tried.add(call)
        self._open[call] = self._ledger.reserve(self._tariff, [self._bounds[call]])

    def finish(self, call: int, reply: Reply) -> None:
        attempt = self._open.pop(call)
        self.seconds[call] = attempt.measure_seconds()
        attempt.settle([reply], self._keep(call, replace(reply, seconds=self.seconds[call])))

    def drop(self, call: int) -> None:
        self._open.pop(call).release()


def call_key(identity: str, chat: Chat, options: Sequence[str] | None, repeat: int) -> str:
    """Return the cache key, a hash of everything that can change the answer."""
    turns = [[m.role, m.content, *([m.name] if m.name else ())] for m in chat]
    return content_id("call", identity, turns, None if options is None else list(options), repeat)


def _count_bytes(text: str) -> int:
    return len(text.encode())


def _encode(reply: Reply) -> dict[str, Any]:
    return {
        "text": reply.text,
        "input_tokens": reply.input_tokens,
        "output_tokens": reply.output_tokens,
        # JSON has no infinity; it would be stored as null.
        "logps": [logp if math.isfinite(logp) else repr(logp) for logp in reply.logps],
        "attempts": reply.attempts,
        **({"seconds": reply.seconds} if reply.seconds else {}),
        **({"cut": True} if reply.cut else {}),
        **({"grade": dict(reply.grade)} if reply.grade is not None else {}),
    }


def _decode(key: str, stored: dict[str, Any]) -> Reply:
    return Reply(
        text=stored["text"],
        input_tokens=stored["input_tokens"],
        output_tokens=stored["output_tokens"],
        logps=tuple(float(logp) for logp in stored["logps"]),
        attempts=stored["attempts"],
        cut=stored.get("cut", False),
        seconds=stored.get("seconds", 0.0),
        key=key,
        grade=stored.get("grade"),
    )
