"""Metered calls: look up the cache, reserve the cost, call, book the cost.

A Meter wraps a target and is a target itself.

Calls that are not cached are made in chunks, in the order of the request. A chunk is stored
completely or not at all, and its size depends only on the request and on stored values. So a
request that is interrupted and repeated has the same batches, for any number of workers, and
rounding that depends on the batch does not change.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Self

from remask.errors import BudgetSpent
from remask.ids import content_id
from remask.ports import CallBook, Parallel, Reply, TargetModel, report_step, wait_for
from remask.runs.budget import Price, Spend
from remask.runs.ledger import Calls, Ledger, Tariff, Tokens
from remask.types import Chat

# Calls of a chunk: an eighth of the request, so that it can be spread over workers, within these limits.
MIN_CHUNK_CALLS, MAX_CHUNK_CALLS = 8, 32
# Tokens that a chat template may add to a chat (a default system prompt) and to each message (its
# role and separators).
CHAT_OVERHEAD_TOKENS = 64
MESSAGE_OVERHEAD_TOKENS = 16


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
        return self._answer(chats, None, repeat)

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Reply]:
        """Like `respond`. One choice is one call for any number of options."""
        return self._answer(chats, options, 0)

    def _answer(self, chats: Sequence[Chat], options: Sequence[str] | None, repeat: int) -> list[Reply]:
        keys = [call_key(self.identity, chat, options, repeat) for chat in chats]
        stored = self._ledger.store.find_replies(list(dict.fromkeys(keys)))
        known = {key: _decode(key, reply) for key, reply in stored.items()}
        misses = {key: chat for key, chat in zip(keys, chats, strict=True) if key not in known}
        left = list(misses.items())
        report_step("call", len(known), len(misses) + len(known))
        if left and self._target.books_attempts:
            self._ledger.require(Spend(calls=len(left)))
            known |= self._book_attempts(left, repeat)
            report_step("call", len(known), len(known))
        else:
            # The stored calls count too: what is left of a request that was cut has the same chunks.
            size = choose_chunk_size(len(known) + len(left))
            self._make_calls(left, size, options, repeat, known)
        return [known[key] for key in keys]

    def _make_calls(
        self,
        left: list[tuple[str, Chat]],
        size: int,
        options: Sequence[str] | None,
        repeat: int,
        known: dict[str, Reply],
    ) -> None:
        """Make calls in chunks of `size`, several at the same time where the target can, into `known`."""
        total = len(known) + len(left)
        at_once = self._target.workers if isinstance(self._target, Parallel) else 1
        begun: deque[_Chunk] = deque()
        try:
            while left or begun:
                new = None
                if left and len(begun) < at_once:
                    new = self._begin_chunk(left[:size], len(left), options, repeat, bool(begun))
                if new is not None:
                    begun.append(new)
                    left = left[len(new.keys) :]
                    continue
                known |= self._end_chunk(begun[0])
                begun.popleft()
                report_step("call", len(known), total)
        except BaseException as error:
            for chunk in begun:
                chunk.future.cancel()
                chunk.calls.__exit__(type(error))
            raise

    def _begin_chunk(
        self,
        part: Sequence[tuple[str, Chat]],
        left: int,
        options: Sequence[str] | None,
        repeat: int,
        waits: bool,
    ) -> "_Chunk | None":
        """Reserve and begin the next calls, of `left` in all.

        `waits`: chunks are in flight. Returns None where their cost decides how many calls fit. So
        the chunks are the same for any number of workers.
        """
        keys, chats = zip(*part, strict=True)
        bounds = [self._bound_tokens(chat, options) for chat in chats]
        try:
            self._ledger.require(Spend(calls=left))
            size, attempts = self._fit_calls(bounds)
            if waits and (size, attempts) != (len(bounds), self.max_attempts):
                return None
            calls = self._ledger.reserve(self._tariff, bounds[:size], attempts, self.billed)
        except BudgetSpent:
            if waits:
                return None
            raise
        target = self._target
        try:
            if attempts < self.max_attempts:
                target = target.limit_attempts(attempts)
            future = _begin(target, chats[:size], options, repeat)
        except BaseException as error:
            calls.__exit__(type(error))
            raise
        future.add_done_callback(lambda _: calls.measure_seconds())
        return _Chunk(keys[:size], calls, future)

    def _end_chunk(self, chunk: "_Chunk") -> dict[str, Reply]:
        """Wait for the calls of a chunk, book and store them."""
        replies = wait_for(chunk.future)
        each = chunk.calls.measure_seconds()
        replies = [replace(reply, seconds=each) for reply in replies]
        answers = {key: self._prepare(key, reply) for key, reply in zip(chunk.keys, replies, strict=True)}
        good = {key: value for one in answers.items() for key, value in self._list_kept(*one).items()}
        chunk.calls.settle(replies, good)
        return answers

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


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Calls that are reserved and in flight."""

    keys: Sequence[str]
    calls: Calls
    future: "Future[list[Reply]]"


def _begin(
    target: TargetModel, chats: Sequence[Chat], options: Sequence[str] | None, repeat: int
) -> "Future[list[Reply]]":
    """Begin a request. A target that is not parallel answers it at once, on this thread."""
    method, last = ("respond", repeat) if options is None else ("choose", tuple(options))
    if isinstance(target, Parallel):
        return target.start(method, tuple(chats), last)
    future: Future[list[Reply]] = Future()
    future.set_result(getattr(target, method)(list(chats), last))
    return future


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

    def lose(self, call: int) -> None:
        self._open.pop(call).__exit__(None)


def choose_chunk_size(calls: int) -> int:
    """Return the calls of a chunk of a request.

    >>> [choose_chunk_size(calls) for calls in (5, 48, 120, 1000)]
    [8, 8, 15, 32]
    """
    return max(MIN_CHUNK_CALLS, min(MAX_CHUNK_CALLS, -(-calls // 8)))


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
