"""Limits on calls, tokens and dollars, counted where they are billed: at the server."""

import itertools
import json
import random
import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from fakes.command import remask as command
from fakes.http_run import World, number_of, read_ledger, read_result, respond, write_job
from fakes.server import Behaviour, Body, Handler, Server, completion, raw, reset, silent, status

pytestmark = pytest.mark.slow  # CI runs the samples (.ci/slow)

SEED = 20261130
TOKENS = (20, 5)  # of each answer: what the server bills, whatever it says
PRICE = (2.0, 8.0)  # dollars per million tokens
LIMITS = {"calls": 110, "tokens": 9_000, "usd": 0.03}
CONCURRENCIES = (1, 8, 64)
MAX_RESUMES = 4
RATE = 4  # one of so many requests fails


def with_usage(usage: Any) -> Behaviour:
    """The right answer, and nonsense about its tokens."""

    def behave(handler: Handler, body: Body) -> None:
        handler.send(200, json.dumps({**completion(respond(body)), "usage": usage}).encode())

    return behave


UNBILLED: dict[str, Behaviour] = {
    "429": status(429, headers={"Retry-After": "0"}),
    "503": status(503, headers={"Retry-After": "0"}),
}
BILLED: dict[str, Behaviour] = {
    "403": status(403),
    "500": status(500, headers={"Retry-After": "0"}),
    "400": status(400),
    "late": silent(1.5),
    "reset": reset,
    "truncated": raw(b'{"choices": ['),
    "no usage": with_usage(None),
    "usage of zero": with_usage({"prompt_tokens": 0, "completion_tokens": 0}),
    "negative usage": with_usage({"prompt_tokens": -500, "completion_tokens": -500}),
    "usage above 64 bits": with_usage({"prompt_tokens": 10**30, "completion_tokens": 10**30}),
    "usage that is text": with_usage({"prompt_tokens": "20", "completion_tokens": [5]}),
}
KINDS = UNBILLED | BILLED
Case = tuple[str, str, int, int]  # kind of failure, limit, concurrency, seed


def play(folder: Path, world: World, limit: str, concurrency: int) -> int:
    """Play a run to its end, with up to MAX_RESUMES resumes. Returns the last exit code."""
    price = f"input_price = {PRICE[0]}\noutput_price = {PRICE[1]}\n" if limit == "usd" else ""
    model = f"retries = 2\ntimeout = 1.0\nmax_tokens = 16\n{price}"
    with Server(default=world) as server, chdir(folder.parent):
        write_job(
            folder, server, calls=None, rows=(6, 6, 8), candidates=2, concurrency=concurrency,
            target=model, denoiser=model, budget=f"{limit} = {LIMITS[limit]}",
        )  # fmt: skip
        for number in range(1 + MAX_RESUMES):
            with chdir(folder):
                said = command(*(("resume", "run") if number else ("optimize",)), "--plain")
            assert said.exception is None or isinstance(said.exception, SystemExit), repr(said.exception)
            assert said.exit_code in (0, 3), said.stderr
            if said.exit_code == 0:
                break
    return said.exit_code


def count_billed(world: World, kind: str) -> dict[str, float]:
    calls = world.requests - (world.failed if kind in UNBILLED else 0)
    usd = (TOKENS[0] * PRICE[0] + TOKENS[1] * PRICE[1]) / 1e6
    return {"calls": calls, "tokens": calls * sum(TOKENS), "usd": calls * usd}


def try_limit(folder: Path, case: Case) -> None:
    kind, limit, concurrency, seed = case
    world = World(
        usage=TOKENS, fault=KINDS[kind], fails=lambda number, _: number_of(seed, number) % RATE == 0
    )
    code = play(folder, world, limit, concurrency)
    billed = count_billed(world, kind)
    assert billed[limit] <= LIMITS[limit] + 1e-12, (billed, LIMITS[limit])
    booked = sum(calls for state, calls in read_ledger(folder).items() if state != "released")
    assert billed["calls"] <= booked
    assert world.requests >= 30  # the limit is not held by doing nothing
    if code == 0:
        spend = read_result(folder)["spend"]
        tokens = spend["input_tokens"] + spend["output_tokens"]
        assert {"calls": spend["calls"], "tokens": tokens, "usd": spend["usd"]}[limit] <= LIMITS[
            limit
        ] + 1e-12


def choose(slow: bool) -> list[Case]:
    if slow:
        return list(itertools.product(KINDS, LIMITS, CONCURRENCIES, range(3)))
    rng = random.Random(SEED)
    kinds = rng.sample(sorted(KINDS.keys() - {"late"}), 6)
    return [
        (kind, limit, concurrency, 0)
        for kind, limit, concurrency in zip(
            kinds, [*LIMITS, *LIMITS], [*CONCURRENCIES[::-1], *CONCURRENCIES], strict=True
        )
    ]


@pytest.mark.parametrize("slow", [False, pytest.param(True, id="all", marks=pytest.mark.slow)])
def test_server_never_counts_more_than_a_limit(tmp_path: Path, slow: bool, record_property: Any) -> None:
    cases = choose(slow)
    record_property("row", "R8")
    record_property("runs", len(cases))
    problems = {}
    for case in cases:
        try:
            try_limit(tmp_path / "run", case)
        except AssertionError as error:
            problems[case] = str(error)[:300]
        shutil.rmtree(tmp_path / "run")
    assert not problems, f"{len(problems)} of {len(cases)}: {list(problems.items())[:8]}"
