"""What the ends of attempts show of an endpoint's limits: a rate, and how many calls may be in flight.

- **The rate.** Nothing is held back before the first refusal. From one refusal to the next, a server
  with a limit of requests has answered as many as it allows, whatever its bursts are. So the calls
  between refusals over the time between them are the rate; it is held a little under, and rises again
  slowly after a quiet time, ever faster while nothing is refused.
- **The calls in flight.** A server that refuses by them refuses twice at about the same number of
  calls in flight, and answers none above it. One that refuses by rate does not.
- **Latency.** A server that answers many calls together answers each more slowly and all of them
  sooner. So a rising latency lowers the calls in flight only where answers come near the timeout.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

MINUTE = 60.0
UNDER = 0.98  # of a rate, that is used
LOWER = 0.95  # of a rate that was kept for a while before a refusal
BURST_SECONDS = 10.0  # of a known rate, that may be sent at once after a pause
SHORT_QUIET_SECONDS = 4.0  # without a refusal, before a limit is probed that is not certain yet
QUIET_SECONDS = 15.0  # before another one is probed
MAX_QUIET_SECONDS = 240.0
DOUBLING_SECONDS = 0.25  # of a rate that is looked for, where refusals come fast
TRIED = 5  # units of time at a rate until it is known to be about right
MAX_VAIN = 6  # rates one below the other that do not stop the refusals: they have another reason
FEW_CALLS = 50  # between two refusals, that do not show that a lower rate helped
MANY = 0.3  # refusals for each call that is answered, where the server does mean it
VAIN_SECONDS = 60.0  # until such refusals are tried to be avoided again
MIN_CALLS = 4  # between two changes of a rate, and the weight of the last rate in a new one
STRAIN = 0.5  # share of the timeout that answers may take


@dataclass(slots=True, eq=False)
class Ticket:
    """One attempt in flight."""

    at: float  # when it was sent
    flight: int  # attempts in flight, this one included
    characters: int
    rate: float  # calls a second that were allowed then; infinite: no limit was known
    entry: list[float] | None  # of its tokens, among those of the last minute


class Pace:
    """A rate a second, and how much may be sent at once after a pause."""

    def __init__(self, rate: float, burst: float, now: float = -math.inf) -> None:
        self.rate, self.burst = rate, max(1.0, burst)
        self._level, self._at = (self.burst if now == -math.inf else 0.0), now

    def measure(self, now: float) -> float:
        """Return what may be sent at once."""
        passed = max(0.0, now - self._at) if self._at > -math.inf else 0.0
        return min(self.burst, self._level + passed * self.rate)

    def find_wait(self, now: float, amount: float) -> float:
        lacking = min(amount, self.burst) - self.measure(now)
        return lacking / self.rate if lacking > 1e-9 else 0.0

    def take(self, now: float, amount: float) -> None:
        self._level, self._at = self.measure(now) - amount, now

    def give(self, amount: float) -> None:
        """Give back a part of what was taken."""
        self._level = min(self.burst, self._level + amount)


class Rate:
    """Calls a second: what the user has set, and what refusals show; else without a limit.

    most: calls a second that the user allows.
    """

    def __init__(self, most: float = math.inf) -> None:
        self._most = most
        self.rate = most  # calls a second that the server allows, as far as is known
        self.seeking = most == math.inf  # whether it rises fast, since little is known
        self._factor = 1.0 if self.seeking else UNDER
        # Calls at once after a pause, and those that showed how many these may be.
        self._burst, self._shown = (1.0, math.inf) if self.seeking else (most * BURST_SECONDS, math.inf)
        self._pace = Pace(1.0, 1.0) if self.seeking else Pace(self.allowed, self._burst)
        self._since: float | None = None  # the last refusal that counted, or the first call
        self.sent = self._loose = 0  # calls since then, without those refused; calls at once after a pause
        self._paced = 0.0  # seconds of sending at this rate since then
        self._old: deque[tuple[float, float]] = deque(maxlen=256)  # (time, rate) of the last calls
        self._basis: tuple[int, float, float] | None = None  # of the rate: calls, seconds, their rate
        self._least = 0.0  # of the last estimate
        self._kept = 0.0  # the rate before the last probe
        self._sought = 0  # refusals while the rate is looked for
        self._quiet = QUIET_SECONDS
        self.doubling = DOUBLING_SECONDS
        self._vain, self._before = 0, most  # lower rates that did not help, and the rate before them
        self._vain_sent = self._vain_refused = 0  # calls at these rates
        self._given_up = most  # the lowest of them
        self.vain_until, self._vain_seconds = -math.inf, VAIN_SECONDS

    @property
    def allowed(self) -> float:
        """Calls a second that may be sent now."""
        return min(self.rate * self._factor, UNDER * self._most)

    @property
    def is_burst(self) -> bool:
        """Whether most calls since the last refusal were sent at once after a pause."""
        return self._loose > self.sent / 2

    @property
    def _unit(self) -> float:
        """Seconds in which a change of the rate can be seen."""
        return max(1.0, MIN_CALLS / self.rate)

    def find_wait(self, now: float) -> float:
        return 0.0 if self.rate == math.inf else self._pace.find_wait(now, 1)

    def take(self, now: float) -> None:
        if self._since is None:
            self._since = now
        self.sent += 1
        if self.rate == math.inf:
            return
        loose = self._pace.measure(now) >= 2
        self._pace.take(now, 1)
        if loose:
            self._loose += 1
        else:
            self._rise(now)

    def _rise(self, now: float) -> None:
        """Raise the rate by what one more call at this rate is worth."""
        step = 1 / self.allowed
        self._old.append((now, self.allowed))
        self._paced += step
        if self.seeking:
            self.rate *= 2 ** (step / max(self.doubling, MIN_CALLS * step))
        else:
            over = max(0.0, self._paced / self._unit - self._quiet)
            self._factor = UNDER * math.exp(min(0.005 * over + 0.001 * over * over, 3.0))
            if self._factor > 2 * UNDER:  # the limit is another one now
                self.rate, self._factor, self.seeking = self.allowed, 1.0, True
        self.rate = min(self.rate, self._most)
        self._pace.rate = self.allowed

    def refused(self) -> None:
        """Count a call as refused that was sent since the last refusal that counted."""
        self.sent -= 1
        self._vain_refused += 1

    def refused_late(self) -> None:
        """Take a call out of the last estimate, which was made before all its refusals had come."""
        self._shown -= 1
        self._burst = max(1.0, min(self._burst, 0.9 * self._shown))
        if self._basis is not None and self.sent == 0:
            calls, seconds, sent_at = self._basis
            self._basis = max(0, calls - 1), seconds, sent_at
            self.rate = self._estimate(*self._basis)
        if self.rate < math.inf:
            self._pace.rate, self._pace.burst = self.allowed, self._get_burst()

    def _estimate(self, calls: int, seconds: float, sent_at: float) -> float:
        if sent_at == math.inf:  # nothing is known but a burst: as if it were of a minute
            return max(1.0, calls / MINUTE)
        return max(self._least, min(sent_at, self._average(calls, seconds, sent_at)))

    @staticmethod
    def _average(calls: int, seconds: float, sent_at: float) -> float:
        """Return calls a second; the rate at which they were sent counts as some calls."""
        return (calls + MIN_CALLS) / (seconds + MIN_CALLS / sent_at)

    def learn(self, ticket: Ticket, now: float) -> None:
        """A call was refused that kept to the rate: what was sent since the last refusal shows the rate."""
        was, calls, sent_at, probed = self.rate, self.sent, ticket.rate, False
        basis = calls, max(0.0, ticket.at - (self._since or 0.0)), sent_at
        if self._is_vain(calls, was, now):
            return
        self._shown = math.inf
        if sent_at == math.inf:
            self._burst, self._shown, self._sought = float(calls), calls, -1
        elif self.seeking:
            # What was allowed a little before is the rate where a server saves nothing up, and else
            # far too much; the average is too low by what could not be saved.
            before = self._find_old(ticket.at - self.doubling)
            saves = self._burst >= MIN_CALLS
            self._least = math.sqrt(before * self._average(*basis)) if saves else before
        elif probed := sent_at > was:
            before = self._find_old(ticket.at - 2 * self._unit)
            if self._burst > max(1.5, 0.2 * was):  # or it was sent from what the server had saved up
                before = (before + self._average(*basis)) / 2
            self._least = min(max(was, before), sent_at)
        elif self._paced > TRIED * self._unit:
            self._least = LOWER * sent_at
        else:
            self._least = max(0.5 * sent_at, min(self._kept, LOWER * sent_at))
        self.rate, self._kept = self._estimate(*basis), was if probed else 0.0
        if self.seeking or abs(self.rate / was - 1) > 0.1:
            self._quiet = SHORT_QUIET_SECONDS
        elif probed:
            self._quiet = min(max(2 * self._quiet, QUIET_SECONDS), MAX_QUIET_SECONDS)
        self._sought += 1
        self.seeking = sent_at == math.inf or (self.seeking and calls < 5 * MIN_CALLS and self._sought < 2)
        self._restart(now)
        self._basis = basis

    def _is_vain(self, calls: int, was: float, now: float) -> bool:
        """Whether lower rates have changed nothing; then the rate is again what it was before them."""
        if calls >= FEW_CALLS:
            self._vain = 0
        if self._vain == 0:
            self._before, self._vain_sent, self._vain_refused = was, 0, 1
        self._vain += 1
        self._vain_sent += calls
        if self._vain <= MAX_VAIN:
            return False
        if self._vain_sent < MIN_CALLS * self._vain_refused:  # most are refused: the server means it
            self._vain = 0
            return False
        self._given_up, self._vain_refused = self.rate, 0
        self.rate, self.seeking, self._vain = self._before, self._before == math.inf, 0
        self.vain_until, self._vain_seconds = now + self._vain_seconds, 2 * self._vain_seconds
        self._restart(now)
        return True

    def refused_in_vain(self, now: float) -> bool:
        """Count a refusal at a rate that was given up. Returns whether so many show that it is a limit."""
        self.refused()
        if self._vain_refused < 2 * MIN_CALLS or self._vain_refused < MANY * self.sent:
            return False
        self.vain_until, self.rate, self.seeking = now, self._given_up, False
        self._restart(now)
        return True

    def _find_old(self, at: float) -> float:
        """Return the rate at an earlier time; 0 where it is not known."""
        return next((rate for time, rate in reversed(self._old) if time <= at), 0.0)

    def shrink_burst(self, now: float) -> None:
        """Calls were refused that were sent at once after a pause."""
        self._burst, self._shown = max(1.0, min(self._burst, self.sent) / 2), self.sent
        self._restart(now)

    def excuse(self, ticket: Ticket, now: float, known: bool) -> None:
        """A call was refused for another reason: its rate is no limit. known: whether it was one before."""
        self._shown = math.inf
        if self.rate < math.inf and not known:
            self.rate, self.seeking = min(1.25 * ticket.rate, self._most), False
        self._restart(now)

    def _get_burst(self) -> float:
        return 1.0 if self.seeking else self._burst

    def _restart(self, now: float) -> None:
        """Count from this refusal on."""
        self._paced, self._since, self.sent, self._loose, self._basis = 0.0, now, 0, 0, None
        self._old.clear()
        if self.rate < math.inf:
            self._factor = 1.0 if self.seeking else UNDER
            self._pace = Pace(self.allowed, self._get_burst(), now)


class Room:
    """How many calls may be in flight; without a limit before a server refuses by them."""

    def __init__(self) -> None:
        self.cap = self._tested = math.inf  # as it is now; as it was before the last step up
        self._lowest = math.inf  # calls in flight where the last calls were refused
        self._above = 0  # calls answered since with as many in flight
        self._changed, self._quiet, self._step = -math.inf, QUIET_SECONDS, 0
        self._strain = 0.0  # share of the timeout that answers take
        self._doubt, self._doubted_until = QUIET_SECONDS, -math.inf  # whether calls in flight are the reason

    def begin(self, ticket: Ticket, old: Iterable[Ticket], sent: int, now: float) -> bool:
        """Take the first of some refusals. Returns whether the calls in flight are why it was refused.

        old: attempts in flight that would have been refused by now. sent: since the last refusal.
        """
        above = self._above + sum(1 for one in old if one.flight >= self._lowest)
        near = 1 < self._lowest <= ticket.flight <= 1.1 * self._lowest + 1
        found = near and above <= max(1, 0.02 * sent) and now >= self._doubted_until
        if self.cap < math.inf and ticket.flight > self._tested:
            found = True
            self._set(self._tested, now)
        elif self.cap < math.inf:  # it was not the calls in flight after all
            found = False
            self.cap, self._doubted_until, self._doubt = math.inf, now + self._doubt, 2 * self._doubt
        elif found:
            self._set(self._lowest - 1, now)
        self._lowest, self._above = ticket.flight, 0
        return found

    def add(self, ticket: Ticket) -> None:
        """Take a further refusal of those."""
        self._lowest = min(self._lowest, ticket.flight)
        if self._lowest <= self.cap < math.inf and self._step == 0:
            self.cap = self._tested = max(1.0, self._lowest - 1)

    def _set(self, cap: float, now: float) -> None:
        self._quiet = min(2 * self._quiet, MAX_QUIET_SECONDS) if cap >= 0.9 * self._tested else QUIET_SECONDS
        self.cap = self._tested = max(1.0, cap)
        self._changed, self._step = now, 0

    def answer(self, ticket: Ticket, now: float, flying: int, share: float) -> None:
        """Take an answered call. flying: with it. share: of the timeout, that it took."""
        self._above += ticket.flight >= self._lowest
        self._strain += (share - self._strain) / 16
        took = now - ticket.at
        if self._strain > STRAIN and now - self._changed > took:
            self._set(0.8 * min(self.cap, flying), now)
        elif self.cap < math.inf and flying >= self.cap and self._strain < 0.8 * STRAIN:
            wait = max(2 * took, 2.0) if self._step else self._quiet
            if now - self._changed > wait:
                self._step, self._tested = self._step + 1, self.cap
                self.cap += max(1.0, 0.02 * self.cap * 2**self._step)
                self._changed = now
