"""The limiter in simulated time, against limits that are known exactly, and in a request to a real server."""

import math
import time
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.chats import chat
from fakes.limited_endpoint import Caller, FixedWindow, Limit, TokenBucket, World
from fakes.limited_server import read_counts, serve
from fakes.server import Body, Handler, Server, answer, status
from remask.models.learned_limits import MINUTE
from remask.models.limiter import MAX_WAIT_SECONDS, Endpoint, Limiter, Limiters
from remask.models.openai import OpenAITarget
from remask.models.rate_headers import Allowance
from remask.ports import CallBook, watch_steps

flights = st.sampled_from([1, 8, 64, 512])
latencies = st.sampled_from([0.05, 1.0, 7.0])
limits = st.one_of(
    st.none(),
    st.builds(TokenBucket, st.floats(0.2, 100), st.floats(1, 200)),
    st.builds(FixedWindow, st.integers(1, 300), st.floats(1, 60), st.floats(0, 60)),
)


def make_caller(
    limiter: Limiter, world: World, flight: int, latency: float = 0.05, characters: int = 400
) -> Caller:
    def vary(rng: Random) -> float:
        return latency * (0.8 + 0.4 * rng.random())

    return Caller(limiter, world, flight, Random(1), vary, lambda rng: (characters, 20))


def find_most_in_a_minute(times: list[float], amounts: Callable[[int], float] = lambda at: 1.0) -> float:
    """The largest sum in any minute, both ends of which do not belong to it."""
    most = total = 0.0
    first = 0
    for last, at in enumerate(times):
        total += amounts(last)
        while times[first] <= at - MINUTE + 1e-9:  # of floats
            total -= amounts(first)
            first += 1
        most = max(most, total)
    return most


# --- what the user sets


@settings(deadline=None, max_examples=40)
@given(flight=flights, latency=latencies, limit=limits, rpm=st.floats(1, 3000), retry=st.booleans())
def test_known_rate_is_never_passed_in_any_minute(
    flight: int, latency: float, limit: Limit | None, rpm: float, retry: bool
) -> None:
    world = World(limit, retry_after=retry)
    caller = make_caller(Limiter(rpm), world, flight, latency)
    caller.play(200)
    assert world.sent and caller.most_own <= flight
    assert find_most_in_a_minute(world.sent) <= max(1, math.floor(rpm + 1e-6))


@settings(deadline=None, max_examples=25)
@given(flight=flights, latency=latencies, tpm=st.floats(500, 200_000))
def test_known_tokens_are_never_passed_beyond_the_estimate(flight: int, latency: float, tpm: float) -> None:
    """A call is 120 tokens, and estimated at 376 at first; so no estimate is too low."""
    world = World()
    make_caller(Limiter(tokens_per_minute=tpm), world, flight, latency).play(200)
    assert find_most_in_a_minute(world.sent, lambda _: 120.0) <= max(120.0, tpm)


@pytest.mark.parametrize("flight", [64, 512])
@pytest.mark.parametrize("make", [lambda: TokenBucket(50, 50), lambda: FixedWindow(3000, 60, 17)])
def test_known_rate_is_used(make: Callable[[], Limit], flight: int) -> None:
    world = World(make())
    make_caller(Limiter(3000), world, flight).play(240)
    assert sum(at > 60 for at in world.answered) >= 0.95 * 50 * 180
    assert sum(at > 10 for at in world.refused) == 0


# --- what it learns


@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize(
    ("make", "allowed"),
    [
        (lambda: World(TokenBucket(50, 50)), 50.0),
        (lambda: World(TokenBucket(5, 5)), 5.0),
        (lambda: World(FixedWindow(500, 10, 3)), 50.0),
        (lambda: World(cap=8), 8 / 0.05),
    ],
    ids=["bucket", "slow bucket", "window", "in flight"],
)
def test_unknown_limit_is_found_and_used(make: Callable[[], World], allowed: float, retry: bool) -> None:
    world = make()
    world.retry_after = retry
    make_caller(Limiter(), world, 64).play(420)
    answered, refused = (sum(at > 120 for at in times) for times in (world.answered, world.refused))
    assert answered >= 0.95 * allowed * 300
    assert refused <= 0.01 * answered


def test_limit_that_falls_and_rises_is_followed() -> None:
    world = World(TokenBucket(50, 50))
    caller = make_caller(Limiter(), world, 64)
    caller.play(120)
    for rate in (10.0, 80.0):
        world.requests = TokenBucket(rate, rate)
        caller.play(180)
        before = len(world.answered), len(world.refused)
        caller.play(60)
        answered, refused = len(world.answered) - before[0], len(world.refused) - before[1]
        assert answered >= 0.9 * rate * 60 and refused <= 0.02 * answered


@settings(deadline=None, max_examples=40)
@given(
    flight=flights,
    latency=latencies,
    limit=limits,
    cap=st.sampled_from([1, 5, math.inf]),
    retry=st.booleans(),
)
def test_every_call_is_answered_in_the_end(
    flight: int, latency: float, limit: Limit | None, cap: float, retry: bool
) -> None:
    world = World(limit, cap=cap, retry_after=retry)
    caller = make_caller(Limiter(), world, flight, latency)
    assert caller.play(20_000, calls=150) == 150
    assert caller.most_own <= flight and world.flying == 0


def test_a_wait_that_is_rounded_down_to_nothing_is_no_leave_to_ask_at_once() -> None:
    """The server says Retry-After: 0 and refuses all the same."""

    def refuse(handler: Handler, body: Body) -> None:
        late = time.monotonic() - began > 2
        (answer() if late else status(429, headers={"Retry-After": "0"}))(handler, body)

    began = time.monotonic()
    with Server(default=refuse) as server, OpenAITarget("m", server.url, concurrency=4) as target:
        replies = target.respond([chat(str(i)) for i in range(8)])
    assert not any(reply.error for reply in replies)
    assert server.requests <= 8 + 12


def test_limit_that_looks_like_chance_is_not_given_up_for_long() -> None:
    """Nine of ten calls are answered at any rate; then the server has a limit after all."""
    world = World(flaky=0.1)
    caller = make_caller(Limiter(), world, 8)
    caller.play(60)
    world.flaky, world.requests = 0.0, TokenBucket(20, 20)
    caller.play(90)
    before = len(world.answered), len(world.refused)
    caller.play(120)
    answered, refused = len(world.answered) - before[0], len(world.refused) - before[1]
    assert answered >= 0.9 * 20 * 120 and refused <= 0.03 * answered


def test_refusals_that_no_rate_avoids_do_not_slow_the_calls_down() -> None:
    world = World(flaky=0.1)
    caller = make_caller(Limiter(), world, 8)
    caller.play(60)
    before = len(world.answered)
    caller.play(300)
    assert len(world.answered) - before > 300 * 60  # of 160 a second


@pytest.mark.parametrize("seconds", [5.0, 100.0])
def test_calls_go_on_after_an_outage(seconds: float) -> None:
    """In the outage few calls are tried, and after it the rate is found again."""
    world = World()
    caller = make_caller(Limiter(), world, 8)
    caller.play(10)
    world.requests, before = FixedWindow(0, 1), len(world.refused)
    caller.play(seconds)
    assert len(world.refused) - before <= 8 + 9
    world.requests = None
    caller.play(2 * seconds)  # the wait grows with the outage
    before = len(world.answered)
    caller.play(20)
    assert len(world.answered) - before > 20 * 80


def test_answers_near_the_timeout_lower_the_calls_in_flight() -> None:
    """A server with four workers: each call waits for those before it."""
    limiter, now, flying, most = Limiter(), 0.0, [], 0.0
    for _ in range(4000):
        while len(flying) < 64 and limiter.find_wait(now) == 0:
            flying.append(limiter.start(now))
        now += 0.25
        ticket = flying.pop(0)
        limiter.finish(ticket, now, share=(now - ticket.at) / 10)
        if now > 300:
            most = max(most, now - ticket.at)
    assert 2.5 < most < 10


# --- waits that all calls share


@settings(deadline=None, max_examples=40)
@given(wait=st.floats(0, 1e6), after=st.floats(0.01, 70))
def test_retry_after_holds_back_all_models_of_the_endpoint(wait: float, after: float) -> None:
    endpoint = Endpoint()
    one, other = Limiter(endpoint=endpoint), Limiter(endpoint=endpoint)
    one.refuse(one.start(5.0), 5.1, wait)
    for limiter in (one, other):
        left = limiter.find_wait(5.1 + after)
        assert left >= min(wait, MAX_WAIT_SECONDS) - after - 1e-6
        assert left <= MAX_WAIT_SECONDS


def test_after_a_wait_one_call_is_tried_before_the_others() -> None:
    limiter = Limiter()
    limiter.refuse(limiter.start(0.0), 0.01, 2.0)
    assert limiter.find_wait(3.0) == 0
    tried = limiter.start(3.0)
    assert limiter.find_wait(3.0) > 0 and limiter.closed
    limiter.finish(tried, 3.02)
    assert not limiter.closed


def test_limiters_of_a_job_are_one_for_each_model_of_an_endpoint() -> None:
    limiters = Limiters()
    target = limiters.open("a/v1", "key", "m", requests_per_minute=60)
    assert limiters.open("a/v1", "key", "m", requests_per_minute=6) is target  # the lower one holds
    judge, other = limiters.open("a/v1", "key", "judge"), limiters.open("a/v1", "other key", "m")
    target.refuse(target.start(0.0), 0.1, 30.0)
    assert judge.find_wait(1.0) == pytest.approx(29.1)
    assert other.find_wait(1.0) == 0
    judge.start(60.0)
    assert judge.find_wait(60.0) < 1 and target.find_wait(60.0) == 0


def test_headers_slow_calls_down_only_where_little_is_left() -> None:
    limiter = Limiter()
    limiter.start(0.0)
    limiter.note([Allowance("requests", 4000, 12.0, 5000, True)], 0.0)
    assert limiter.find_wait(0.0) == 0
    limiter.note([Allowance("requests", 0, 60.0, 600, True)], 0.0)  # ten come back in a second
    assert limiter.find_wait(0.0) == pytest.approx(0.1, rel=0.1)
    assert limiter.find_wait(100.0) == 0  # it is not believed for long
    limiter.note([Allowance("requests", 0, 20.0, None, False)], 100.0)
    assert limiter.find_wait(101.0) == pytest.approx(19)


# --- in a request


def test_a_request_keeps_to_the_limits_of_a_real_server() -> None:
    with (
        serve(World(TokenBucket(40, 10), retry_after=False), 0.02) as url,
        OpenAITarget("m", url, concurrency=16, retries=8) as target,
    ):
        replies = target.respond([chat(str(i)) for i in range(120)])
        counts = read_counts(url)
    assert [reply.text for reply in replies] == ["yes"] * 120
    assert len(counts["answered"]) == 120 and counts["most_flying"] <= 16


def test_calls_in_flight_are_never_more_than_the_user_allows() -> None:
    with serve(World(), 0.05) as url, OpenAITarget("m", url, concurrency=40) as target:
        assert not any(reply.error for reply in target.respond([chat(str(i)) for i in range(200)]))
        assert 30 <= read_counts(url)["most_flying"] <= 40


def test_new_calls_are_tried_while_the_endpoint_refuses() -> None:
    """Seven refusals in a row fail none of the calls, of which each may be refused twice."""
    with (
        Server([status(429)] * 7, answer()) as server,
        OpenAITarget("m", server.url, concurrency=1, retries=2, first_wait=0.001) as target,
    ):
        replies = target.respond([chat(str(i)) for i in range(8)])
    assert not any(reply.error for reply in replies)


def test_wait_for_the_endpoint_is_shown_and_can_be_stopped() -> None:
    class Stopping(CallBook):
        def check(self) -> None:
            if time.monotonic() - began > 1.0:
                raise KeyboardInterrupt

    steps: list[tuple[str, int]] = []
    with (
        Server(default=status(429, headers={"Retry-After": "30"})) as server,
        OpenAITarget("m", server.url) as target,
        watch_steps(lambda what, done, total: steps.append((what, done))),
    ):
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            target.respond([chat()], book=Stopping())
        assert time.monotonic() - began < 5
    assert server.requests == 1
    assert any(what == "held" and 25 <= seconds <= 30 for what, seconds in steps)
