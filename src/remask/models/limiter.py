"""When the next attempt may be sent to an endpoint, for all calls to it.

A Limiter keeps the rates that the user has set, learns the others from how attempts end, and holds
all calls back where the server asks for it. It sees only times that it is given, so it can be tested
without waiting.

Retry-After holds back all calls. Without it, each refusal in a row doubles the wait. At its end only
one call is tried, until it is answered or would have been refused by then.
"""

import math
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from remask.models.learned_limits import (
    BURST_SECONDS,
    DOUBLING_SECONDS,
    MINUTE,
    QUIET_SECONDS,
    UNDER,
    Pace,
    Rate,
    Room,
    Ticket,
)
from remask.models.rate_headers import Allowance

MAX_WAIT_SECONDS = 60.0  # also limits Retry-After
FIRST_WAIT_SECONDS = 0.5  # before the first retry; doubles with each retry


@dataclass(slots=True)
class Endpoint:
    """What all models behind one address and key share."""

    flying: int = 0
    closed_until: float = -math.inf
    lock: threading.RLock = field(default_factory=threading.RLock)


class Minute:
    """At most `limit` in any minute."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._sum = 0.0
        self._taken: deque[list[float]] = deque()

    def find_wait(self, now: float, amount: float) -> float:
        while self._taken and self._taken[0][0] <= now - MINUTE:
            self._sum -= self._taken.popleft()[1]
        excess = self._sum + amount - self.limit
        if excess <= 1e-9 or not self._taken:
            return 0.0
        for at, old in self._taken:
            excess -= old
            if excess <= 1e-9:
                return max(0.0, at + MINUTE - now)
        return max(0.0, self._taken[-1][0] + MINUTE - now)

    def take(self, now: float, amount: float) -> list[float]:
        """Returns the entry, for `correct`."""
        self._taken.append([now, amount])
        self._sum += amount
        return self._taken[-1]

    def correct(self, entry: list[float], amount: float) -> None:
        """Replace an amount that was taken, unless that is over a minute ago."""
        if self._taken and entry[0] >= self._taken[0][0]:
            self._sum += amount - entry[1]
            entry[1] = amount


class Tokens:
    """Tokens a minute that the user has set: never passed, and spread over the minute."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._window = Minute(limit)
        self._pace = Pace(UNDER * limit / MINUTE, limit / MINUTE * BURST_SECONDS)

    def find_wait(self, now: float, amount: float) -> float:
        return max(self._pace.find_wait(now, amount), self._window.find_wait(now, amount))

    def take(self, now: float, amount: float) -> list[float]:
        """Returns the entry, for `correct`."""
        self._pace.take(now, amount)
        return self._window.take(now, amount)

    def correct(self, entry: list[float], amount: float) -> None:
        """Replace an amount that was taken by what it was in the end."""
        self._pace.give(entry[1] - amount)
        self._window.correct(entry, amount)


class Limiter:
    """All calls of one model at an endpoint. Any thread may use it."""

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        endpoint: Endpoint | None = None,
        first_wait: float = FIRST_WAIT_SECONDS,
        seed: int = 0,
    ) -> None:
        self._endpoint = endpoint or Endpoint()
        self._lock = self._endpoint.lock
        self._first_wait = first_wait
        self._requests: Minute | None = None
        self._tokens: Tokens | None = None
        self._rate, self._room = Rate(), Room()
        self.tighten(requests_per_minute, tokens_per_minute)
        self._hints: dict[str, tuple[Pace, float]] = {}  # unit -> (pace in calls, until when)
        self._rng = np.random.default_rng(seed)
        self._flying: set[Ticket] = set()
        self._reacted = -math.inf  # attempts sent before are of a refusal that was seen
        self._open, self._in_a_row = True, 0  # refusals
        self._probe: Ticket | None = None
        self._patience = 1.0  # seconds in which a refusal would have come
        self._per_character, self._written = 0.3, 256.0  # tokens: read, for each character; of an answer

    def tighten(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        """Take further limits of the user; of two for the same, the lower one holds."""
        if requests_per_minute and (self._requests is None or requests_per_minute < self._requests.limit):
            self._requests, self._rate = Minute(requests_per_minute), Rate(requests_per_minute / MINUTE)
        if tokens_per_minute and (self._tokens is None or tokens_per_minute < self._tokens.limit):
            self._tokens = Tokens(tokens_per_minute)

    @property
    def closed(self) -> bool:
        """Whether the last attempt was refused, so that the next one is only tried."""
        return not self._open

    def find_wait(self, now: float, characters: int = 0) -> float:
        """Return the seconds until an attempt may be sent; infinite: when one has ended.

        characters: of the chat, from which its tokens are estimated.
        """
        with self._lock:
            if self._endpoint.flying >= self._room.cap:
                return math.inf
            waits = [self._endpoint.closed_until - now, self._rate.find_wait(now)]
            if not self._open and self._probe is not None:
                left = self._probe.at + self._patience - now
                if left > 0:
                    waits.append(left)
                else:
                    self._reopen()
            if self._requests is not None:
                waits.append(self._requests.find_wait(now, 1))
            if self._tokens is not None:
                waits.append(self._tokens.find_wait(now, self._estimate(characters)))
            for unit, (pace, until) in list(self._hints.items()):
                if until <= now:
                    del self._hints[unit]
                else:
                    waits.append(min(pace.find_wait(now, 1), until - now))
            return max(0.0, *waits)

    def start(self, now: float, characters: int = 0) -> Ticket:
        """Count an attempt that is sent now. Each ticket is given back to one of the methods below."""
        with self._lock:
            self._endpoint.flying += 1
            rate, entry = self._rate.allowed, None
            if self._requests is not None:
                self._requests.take(now, 1)
            if self._tokens is not None:
                entry = self._tokens.take(now, self._estimate(characters))
            for pace, _ in self._hints.values():
                pace.take(now, 1)
            self._rate.take(now)
            ticket = Ticket(now, self._endpoint.flying, characters, rate, entry)
            self._flying.add(ticket)
            if not self._open:
                self._probe = ticket
            return ticket

    def finish(self, ticket: Ticket, now: float, read: int = 0, written: int = 0, share: float = 0.0) -> None:
        """Take the end of an attempt that the server has worked on.

        read, written: tokens; 0: unknown. share: of the timeout, that it took.
        """
        with self._lock:
            self._room.answer(ticket, now, self._endpoint.flying, share)
            self.drop(ticket)
            if not self._open and ticket.at >= self._reacted:
                self._reopen()
            if read or written:
                if self._tokens is not None and ticket.entry is not None:
                    self._tokens.correct(ticket.entry, read + written)
                self._written += (written - self._written) / 16
                if ticket.characters:
                    self._per_character += (read / ticket.characters - self._per_character) / 16

    def refuse(self, ticket: Ticket, now: float, retry_after: float | None = None) -> bool:
        """Take an attempt that the server refused since too many are made.

        Returns whether all calls wait for it. They do not where a server has refused some calls whatever
        their rate was.
        """
        with self._lock:
            self.drop(ticket)
            if retry_after is not None:
                self._close(now + min(retry_after, MAX_WAIT_SECONDS))
            if now < self._rate.vain_until and self._open and not self._rate.refused_in_vain(now):
                return retry_after is not None
            if ticket.at <= self._reacted:
                self._rate.refused_late()
                self._room.add(ticket)
                return True
            took = now - ticket.at
            self._patience = min(2.0, max(0.05, 4 * took, 0.9 * self._patience))
            # Else the rate would be far too high before the first refusal of it comes.
            self._rate.doubling = max(DOUBLING_SECONDS, self._patience / 2)
            self._rate.refused()
            if self._open:
                self._in_a_row = 1
                self._react(ticket, now)
            else:
                self._in_a_row += 1
            self._reacted, self._open, self._probe = now, False, None
            if retry_after is None:
                apart = 0.0 if self._rate.seeking else 1 / self._rate.allowed
                wait = compute_wait(self._in_a_row, self._rng, max(self._first_wait, apart))
                self._close(now + wait)
            return True

    def drop(self, ticket: Ticket) -> None:
        """Take an attempt that was cut off, or that did not reach the server."""
        with self._lock:
            if ticket in self._flying:
                self._flying.remove(ticket)
                self._endpoint.flying -= 1
                self._probe = None if ticket is self._probe else self._probe

    def note(self, allowances: Iterable[Allowance], now: float) -> None:
        """Take what the server has said of its limits. It is believed for some seconds."""
        with self._lock:
            for one in allowances:
                per_call = self._written + self._per_character * 1000 if one.unit == "tokens" else 1.0
                if one.remaining > max(2 * self._endpoint.flying * per_call, 0.1 * (one.limit or 0)):
                    self._hints.pop(one.unit, None)
                    continue
                if one.remaining == 0 and not one.refills:
                    self._close(now + min(one.reset, MAX_WAIT_SECONDS))
                    continue
                rate = one.rate if one.refills else one.remaining / max(one.reset, 0.001)
                if rate is not None and rate > 0:
                    self._hint(one.unit, UNDER * rate / per_call, now + min(one.reset, QUIET_SECONDS), now)

    def _hint(self, unit: str, rate: float, until: float, now: float) -> None:
        pace = self._hints[unit][0] if unit in self._hints else Pace(rate, 1.0, now)
        pace.rate = rate
        self._hints[unit] = pace, until

    def _estimate(self, characters: int) -> float:
        return self._written + self._per_character * characters

    def _close(self, until: float) -> None:
        self._endpoint.closed_until = max(self._endpoint.closed_until, until)

    def _reopen(self) -> None:
        self._open, self._probe, self._in_a_row = True, None, 0

    def _react(self, ticket: Ticket, now: float) -> None:
        """Learn from the first refusal after answers."""
        old = [one for one in self._flying if self._reacted < one.at < now - self._patience]
        known = self._room.cap < math.inf
        if self._rate.is_burst and not known:
            self._rate.shrink_burst(now)
        elif self._room.begin(ticket, old, self._rate.sent, now):
            self._rate.excuse(ticket, now, known)
        else:
            self._rate.learn(ticket, now)


class Limiters:
    """The limiters of a job, one for each model at an address and key.

    Providers limit each model on its own; what they say of waiting, and how many calls they take at a
    time, is of the key. So all limiters of an address and key share their Endpoint.
    """

    def __init__(self) -> None:
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        self._limiters: dict[tuple[str, str, str], Limiter] = {}

    def open(
        self,
        address: str,
        key: str,
        model: str,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        first_wait: float = FIRST_WAIT_SECONDS,
    ) -> Limiter:
        """Return the limiter of a model, which is made at the first call."""
        endpoint = self._endpoints.setdefault((address, key), Endpoint())
        if (found := self._limiters.get((address, key, model))) is None:
            found = Limiter(endpoint=endpoint, first_wait=first_wait)
            self._limiters[address, key, model] = found
        found.tighten(requests_per_minute, tokens_per_minute)
        return found


def compute_wait(attempt: int, rng: np.random.Generator, first: float = FIRST_WAIT_SECONDS) -> float:
    """Return the seconds to wait after failed attempt number `attempt` (from 1).

    It is `first` doubled with each attempt; at most 60 s. Half of it is random, so that calls are not
    repeated all at once.
    """
    ceiling = min(first * 2.0 ** min(attempt - 1, 16), MAX_WAIT_SECONDS)
    return float(ceiling * (0.5 + 0.5 * rng.random()))
