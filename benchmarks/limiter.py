"""One limiter for all calls to an endpoint, against servers with limits that are known exactly.

Simulated: ten minutes of calls in the time of a clock that is only counted. Loopback: a server in a
process of its own that counts in real time, called as a run calls it, each attempt booked on disk. The
share is that of what the server allows, after a time to learn; the calls refused are of the same time.
Latency: a server that answers each call after 50 ms, without a limit.
"""

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.record import (
    DOCS,
    RESULTS,
    ROOT,
    describe_run,
    format_table,
    make_parser,
    read_json,
    write_json,
    write_whole,
)
from remask.models.limiter import Limiter
from remask.models.openai import OpenAITarget
from remask.runs.budget import Limits
from remask.runs.meter import Ledger, Meter
from remask.runs.store import Store

sys.path.insert(0, str(ROOT / "tests"))
from fakes.chats import chat
from fakes.limited_endpoint import Caller, FixedWindow, TokenBucket, World
from fakes.limited_server import TOKENS, read_counts, serve

PAGE = DOCS / "results" / "limiter.md"
SIMULATED_S, SIMULATED_FROM_S = 720, 120
REAL_S, REAL_FROM_S = 50, 20
FLIGHTS = (64, 512)
PARTS = ("simulated", "latency", "loopback")
LATENCY_S = 0.05
LATENCY_CALLS = {1: 60, 8: 400, 64: 1500, 512: 3000}


# Name, world, requests and tokens a minute that the user sets, what it allows a second, unit.
Case = tuple[str, Callable[[], World], float | None, float | None, float, str]


def list_cases(rate: float, window: float, cap: int, latency: float) -> Iterator[Case]:
    """The limits; each unknown to the limiter, and where a setting can name it, also known."""
    burst, most = rate, rate * window
    yield "token bucket", lambda: World(TokenBucket(rate, burst)), None, None, rate, "requests"
    yield "token bucket", lambda: World(TokenBucket(rate, burst)), 60 * rate, None, rate, "requests"
    yield f"window of {window:g} s", lambda: World(FixedWindow(most, window)), None, None, rate, "requests"
    yield (
        f"window of {window:g} s",
        lambda: World(FixedWindow(most, window)),
        60 * rate,
        None,
        rate,
        "requests",
    )
    tokens = rate * TOKENS
    yield "tokens", lambda: World(tokens=TokenBucket(tokens, 10 * tokens)), None, None, rate, "requests"
    yield (
        "tokens",
        lambda: World(tokens=TokenBucket(tokens, 10 * tokens)),
        None,
        60 * tokens,
        rate,
        "requests",
    )
    yield f"{cap} at a time", lambda: World(cap=cap), None, None, cap / latency, "in flight"


def judge(
    name: str,
    known: bool,
    flight: int,
    retry: bool,
    world: World | dict[str, Any],
    span: tuple[float, float],
    allowed: float,
) -> dict[str, Any]:
    """Compare what came with what the server allows between two times."""
    found = world if isinstance(world, dict) else vars(world)
    begin, end = span
    answered, refused = (sum(begin <= at < end for at in found[key]) for key in ("answered", "refused"))
    early = sum(at < begin for at in found["refused"])
    return {
        "limit": name,
        "known": known,
        "flight": flight,
        "retry_after": retry,
        "share": answered / (allowed * (end - begin)),
        "refused": refused / max(1, answered + refused),
        "refused_before": early,
        "most_flying": found["most_flying"],
    }


def simulate() -> Iterator[dict[str, Any]]:
    for flight in FLIGHTS:
        for retry in (False, True):
            for name, make, rpm, tpm, allowed, _ in list_cases(50, 60, 32, LATENCY_S):
                world = make()
                world.retry_after = retry
                size = lambda rng: (360, 10)  # noqa: E731
                caller = Caller(Limiter(rpm, tpm), world, flight, Random(flight), size=size)
                caller.play(SIMULATED_S)
                span = (float(SIMULATED_FROM_S), float(SIMULATED_S))
                yield judge(name, bool(rpm or tpm), flight, retry, world, span, allowed)


class _Over(Exception):
    """The time of a measurement is over."""


def call_for(url: str, seconds: float, **settings: Any) -> None:
    """Make calls as a run makes them, for some seconds."""
    began = time.monotonic()

    def stop() -> None:
        if time.monotonic() - began > seconds:
            raise _Over

    with (
        tempfile.TemporaryDirectory() as made,
        Store.create(Path(made) / "run", {}) as store,
        OpenAITarget("m", url, **settings) as target,
    ):
        meter = Meter(target, Ledger(store, Limits(), checkpoint=stop), 256)
        number = 0
        try:
            while True:
                meter.respond([chat(f"{number}-{i} " + "x" * 330) for i in range(2000)])
                number += 1
        except _Over:
            pass


def measure_real() -> Iterator[dict[str, Any]]:
    for flight in FLIGHTS:
        for retry in (False, True):
            for name, make, rpm, tpm, allowed, _ in list_cases(20, 10, 8, 0.4):
                if retry and (rpm or tpm):
                    continue  # nothing is refused after the first second
                world = make()
                world.retry_after = retry
                with serve(world, 0.4 if world.cap < math.inf else LATENCY_S) as url:
                    began = time.monotonic()
                    call_for(url, REAL_S, concurrency=flight, requests_per_minute=rpm, tokens_per_minute=tpm)
                    counts = read_counts(url)
                # Whole windows, which begin at multiples of ten seconds.
                begin = math.ceil((began + REAL_FROM_S) / 10) * 10
                end = math.floor((began + REAL_S) / 10) * 10
                found = judge(name, bool(rpm or tpm), flight, retry, counts, (begin, end), allowed)
                print(json.dumps(found), flush=True)
                yield found


def measure_latency(rounds: int) -> Iterator[dict[str, Any]]:
    for flight, calls in LATENCY_CALLS.items():
        each = [measure_throughput(flight, calls) for _ in range(rounds)]
        middle = {key: statistics.median(one[key] for one in each) for key in each[0]}
        print(json.dumps(middle), flush=True)
        yield {"flight": flight, **middle}


def measure_throughput(flight: int, calls: int) -> dict[str, float]:
    with (
        serve(World(), LATENCY_S) as url,
        tempfile.TemporaryDirectory() as made,
        Store.create(Path(made) / "run", {}) as store,
        OpenAITarget("m", url, concurrency=flight) as target,
    ):
        meter = Meter(target, Ledger(store, Limits(calls=10**6)), 256)
        meter.respond([chat(f"first {i}") for i in range(min(calls, flight))])  # opens the connections
        began, used, own = time.perf_counter(), time.process_time(), time.thread_time()
        replies = meter.respond([chat(str(i)) for i in range(calls)])
        took, used, own = time.perf_counter() - began, time.process_time() - used, time.thread_time() - own
    assert not any(reply.error for reply in replies)
    rate = calls / took
    return {
        "rate": rate,
        "share": rate / (flight / LATENCY_S),
        "cpu_ms": 1000 * used / calls,
        "driver_ms": 1000 * own / calls,
        "cores": used / took,
    }


def list_rows(found: Sequence[dict[str, Any]]) -> list[list[object]]:
    return [
        [
            one["limit"],
            "known" if one["known"] else "learned",
            one["flight"],
            "yes" if one["retry_after"] else "no",
            f"{100 * one['share']:.1f} %",
            f"{100 * one['refused']:.2f} %",
            one["refused_before"],
            one["most_flying"],
        ]
        for one in found
    ]


HEAD = (
    "limit of the server", "the limiter", "in flight", "Retry-After", "share of what is allowed",
    "refused", "refused before", "most in flight",
)  # fmt: skip


def write_page(results: dict[str, Any]) -> None:
    """Write the page from the results."""
    latency = [
        [
            one["flight"], f"{one['rate']:,.0f}", f"{100 * one['share']:.1f} %", f"{one['cpu_ms']:.2f} ms",
            f"{one['driver_ms']:.2f} ms", f"{one['cores']:.2f}",
        ]
        for one in results["latency"]
    ]  # fmt: skip
    head = (
        "in flight", "calls a second", "share of n / 50 ms", "processor time of a call",
        "of it the driver", "cores that the machine gave",
    )  # fmt: skip
    write_whole(
        PAGE,
        f"""# The limiter of an endpoint

How near calls come to what a server allows ([how it works](../how-to/endpoint.md#limits-of-the-endpoint)).
"Known": the rate is set; "learned": nothing is. "Refused": answers with status 429, of all answers in the
time that is measured; "refused before": in the time to learn.

## Simulated

50 requests a second, or 32 at a time; answers take 40 to 60 ms; {SIMULATED_S // 60} minutes, measured from
minute {SIMULATED_FROM_S // 60} on. The token bucket holds a second of requests, that of tokens ten seconds.

{format_table(HEAD, list_rows(results["simulated"]))}

## A server on the loopback

20 requests a second, or 8 at a time; {REAL_S} seconds, measured in the whole windows after second
{REAL_FROM_S}.

{format_table(HEAD, list_rows(results["loopback"]))}

## A server without limits

Each answer takes 50 ms. Each attempt is booked on disk before it is sent. From some calls in flight on, the
processor is the limit: most of its time for a call is that of the client library.

{format_table(head, latency)}

Other work on the machine had a lower priority. Made by `{results["command"]}` at commit
{results["commit"]} on {results["machine"]}.
""".rstrip("\n"),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__file__, __doc__)
    parser.add_argument("--rounds", type=int, default=3, help="How many rounds of the latency. Default: 3.")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), help="Measure these. Default: all.")
    parser.add_argument("--out", type=Path, default=RESULTS / "limiter.json", help="The results file.")
    parser.add_argument("--page", action="store_true", help="Rewrite the page alone; nothing is measured.")
    args = parser.parse_args(arguments)
    if not args.page:
        results = read_json(args.out) if args.out.is_file() else {}
        results |= describe_run(__file__, arguments, args.out)
        measure = dict(
            zip(PARTS, (simulate, partial(measure_latency, args.rounds), measure_real), strict=True)
        )
        for part in args.parts:
            results[part] = list(measure[part]())
        write_json(args.out, results)
    write_page(read_json(args.out))


if __name__ == "__main__":
    main()
