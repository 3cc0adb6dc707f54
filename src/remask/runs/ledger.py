"""What calls cost: limits, reserved and booked costs.

A Ledger has the limits and the store of a run, and every call is made inside `Ledger.reserve`. A
Tariff has the costs of one model.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from remask.errors import BudgetSpent, ConfigError, TargetRefused
from remask.ports import Reply
from remask.runs.budget import Limits, Price, Spend, check_price, find_shortfall
from remask.runs.store import MemoryStore

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
        """Stop the clock of the calls, unless it was. Returns the time that one of them took."""
        if self.ended is None:
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
