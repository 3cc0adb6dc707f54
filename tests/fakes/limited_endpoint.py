"""Limits of an endpoint as servers enforce them, and calls to one in simulated time.

The limits know only the times that they are given: the simulation has a clock of its own, the server
on the loopback the real one. What they allow at most is known, so both can be compared with it.
"""

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Protocol

from remask.models.learned_limits import Ticket
from remask.models.limiter import Limiter

REFUSAL_SECONDS = 0.004  # a refusal comes fast


class Limit(Protocol):
    def accept(self, now: float, amount: float) -> bool:
        """Whether a call may be answered; then it is counted."""

    def find_wait(self, now: float, amount: float) -> float:
        """The seconds until a call would be answered, for Retry-After."""

    def count_allowed(self, seconds: float) -> float:
        """The most that may be taken in so many seconds, in the long run."""


class TokenBucket:
    """It refills at a rate a second, and holds `burst` at most."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self.level, self.at = burst, -math.inf

    def accept(self, now: float, amount: float = 1) -> bool:
        if self.at > -math.inf:
            self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < amount:
            return False
        self.level -= amount
        return True

    def find_wait(self, now: float, amount: float = 1) -> float:
        return max(0.0, amount - self.level) / self.rate

    def count_allowed(self, seconds: float) -> float:
        return self.rate * seconds


class FixedWindow:
    """So many in each window of some seconds."""

    def __init__(self, most: float, seconds: float, phase: float = 0.0) -> None:
        self.most, self.seconds, self.phase = most, seconds, phase
        self.window, self.taken = -1, 0.0

    def accept(self, now: float, amount: float = 1) -> bool:
        window = int((now + self.phase) // self.seconds)
        if window != self.window:
            self.window, self.taken = window, 0.0
        if self.taken + amount > self.most:
            return False
        self.taken += amount
        return True

    def find_wait(self, now: float, amount: float = 1) -> float:
        return self.seconds - (now + self.phase) % self.seconds

    def count_allowed(self, seconds: float) -> float:
        return self.most * seconds / self.seconds


@dataclass
class World:
    """An endpoint: its limits, and what came of the calls to it."""

    requests: Limit | None = None
    tokens: Limit | None = None
    cap: float = math.inf
    retry_after: bool = False
    round: Callable[[float], int] = math.ceil  # of Retry-After
    flaky: float = 0.0  # share of calls that are refused for no reason of the caller
    rng: Random = field(default_factory=lambda: Random(1))
    sent: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)  # when they came
    refused: list[float] = field(default_factory=list)
    taken_tokens: float = 0.0
    flying: int = 0
    most_flying: int = 0

    def arrive(self, now: float, tokens: float = 1.0) -> float | None:
        """A call comes. Returns None where it is answered, else the seconds of Retry-After, or NaN."""
        self.sent.append(now)
        self.most_flying = max(self.most_flying, self.flying + 1)
        refusing = None
        if self.flying >= self.cap:
            refusing = 0.05
        elif self.flaky and self.rng.random() < self.flaky:
            refusing = math.nan
        elif self.requests is not None and not self.requests.accept(now, 1):
            refusing = self.requests.find_wait(now, 1)
        elif self.tokens is not None and not self.tokens.accept(now, tokens):
            refusing = self.tokens.find_wait(now, tokens)
        if refusing is None:
            self.flying += 1
            self.answered.append(now)
            self.taken_tokens += tokens
            return None
        self.refused.append(now)
        return self.round(refusing) if self.retry_after and not math.isnan(refusing) else math.nan

    def leave(self) -> None:
        self.flying -= 1


@dataclass
class Caller:
    """What `run_calls` does with a limiter, in simulated time."""

    limiter: Limiter
    world: World
    concurrency: int
    rng: Random
    latency: Callable[[Random], float] = lambda rng: 0.05 * (0.8 + 0.4 * rng.random())
    size: Callable[[Random], tuple[int, int]] = lambda rng: (400, 20)  # characters, tokens written
    refusal: float = REFUSAL_SECONDS
    now: float = 0.0
    own: int = 0
    most_own: int = 0

    def play(
        self, seconds: float, calls: float = math.inf, pauses: Callable[[float], float] | None = None
    ) -> int:
        """Make calls, as many as may be, for some seconds. Returns how many were answered."""
        ends: list[tuple[float, int, Ticket, float | None, tuple[int, int]]] = []
        numbers, done, until = count(), 0, self.now + seconds
        left = calls
        sizes: Iterator[tuple[int, int]] = iter(lambda: self.size(self.rng), None)
        size = next(sizes)
        while self.now < until and (left > 0 or ends):
            wait = math.inf
            while left > 0 and self.own < self.concurrency:
                wait = self.limiter.find_wait(self.now, size[0])
                if wait > 0:
                    break
                ticket = self.limiter.start(self.now, size[0])
                self.own, left = self.own + 1, left - 1
                self.most_own = max(self.most_own, self.own)
                refusing = self.world.arrive(self.now, size[0] / 4 + size[1])
                takes = self.latency(self.rng) if refusing is None else self.refusal
                heapq.heappush(ends, (self.now + takes, next(numbers), ticket, refusing, size))
                size = next(sizes)
            following = min(ends[0][0] if ends else math.inf, self.now + max(wait, 1e-6))
            assert following < math.inf, "it waits for nothing"
            self.now = following
            while ends and ends[0][0] <= self.now:
                _, _, ticket, refusing, of = heapq.heappop(ends)
                self.own -= 1
                if refusing is None:
                    self.world.leave()
                    self.limiter.finish(ticket, self.now, of[0] // 4, of[1])
                    done += 1
                else:
                    left += 1
                    named = None if math.isnan(refusing) else refusing or None  # as RemoteTarget reads it
                    self.limiter.refuse(ticket, self.now, named)
        for _, _, ticket, refusing, _ in ends:
            self.own -= 1
            self.limiter.drop(ticket)
            if refusing is None:
                self.world.leave()
        return done
