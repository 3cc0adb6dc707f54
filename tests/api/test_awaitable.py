"""Async functions as target and metric, and the public functions as coroutine functions."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import remask
from fakes import Cut
from fakes.colours import Oracle, Phrases, dataset, optimize, rows, search
from fakes.conversations import START, Listener, Painter, write_log
from fakes.server import Server, replying
from remask.errors import ConfigError, TargetRefused
from remask.runs.meter import MAX_CHUNK_CALLS
from remask.runs.store import Store
from remask.types import Example

FUNCTIONS = ("optimize", "refine", "evaluate", "resume")


class AsyncOracle(Oracle):
    """Oracle as an async function. Notes the loops and how many calls wait at a time; calls
    `then` after each call is counted."""

    def __init__(self, then: Callable[[int], None] = lambda calls: None) -> None:
        super().__init__()
        self.then = then
        self.loops: set[asyncio.AbstractEventLoop] = set()
        self.waiting = self.most = 0

    async def __call__(self, messages: list[dict[str, str]]) -> str:  # type: ignore[override]
        self.loops.add(asyncio.get_running_loop())
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await asyncio.sleep(0.03)  # longer than it takes to book a call
        self.waiting -= 1
        answer = super().__call__(messages)
        self.then(self.calls)
        return answer


async def right(example: Example, response: str) -> remask.Score:
    await asyncio.sleep(0)
    return remask.Score(float(response == example.expected))


def arguments(run_dir: Path, **more: Any) -> dict[str, Any]:
    """A whole run in the world of colours, as arguments of `remask.optimize`."""
    given: dict[str, Any] = {"prompt": "Name it. Be brief.", "data": dataset(120)}
    given |= {"target": AsyncOracle(), "metric": right, "denoiser": Phrases()}
    return given | {"search": search(), "max_calls": 500, "run_dir": run_dir} | more


def same(found: remask.Result, expected: remask.Result) -> bool:
    return (found.prompt, found.test, found.spend.calls) == (
        expected.prompt, expected.test, expected.spend.calls
    )  # fmt: skip


# --- in a program without a loop


def test_async_functions_of_a_plain_run(tmp_path: Path) -> None:
    oracle = AsyncOracle()
    found = optimize(tmp_path / "a", target=oracle, metric=right, max_calls=900)
    assert found.verdict == "improved" and found.spend.calls == oracle.calls
    assert oracle.most == 8 and len(oracle.loops) == 1
    plain = optimize(tmp_path / "b", target=Oracle(), metric="exact", max_calls=900)
    assert same(found, plain)


def test_a_function_that_is_not_async_is_called_by_one_thread() -> None:
    threads = set()

    def target(messages: list[dict[str, str]]) -> str:
        threads.add(threading.current_thread())
        return "red"

    remask.evaluate("Name it.", dataset(), target=target)
    assert len(threads) == 1


# --- in a program with a loop


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_coroutine_function_has_the_same_signature(name: str) -> None:
    plain, called = getattr(remask, name), getattr(remask, f"{name}_async")
    assert inspect.signature(called) == inspect.signature(plain)
    assert inspect.iscoroutinefunction(called) and not inspect.iscoroutinefunction(plain)
    assert called.__name__ == f"{name}_async" and f"`{name}`" in called.__doc__


def test_functions_are_awaited_on_the_loop_of_the_caller(tmp_path: Path) -> None:
    """An HTTP client that was made on that loop, and has a connection open there, works."""
    httpx = pytest.importorskip("httpx")
    oracle = Oracle()
    seen: set[asyncio.AbstractEventLoop] = set()

    async def run(url: str) -> remask.Result:
        async with httpx.AsyncClient(base_url=url) as client:

            async def target(messages: list[dict[str, str]]) -> str:
                seen.add(asyncio.get_running_loop())
                body = {"model": "m", "messages": messages}
                reply = await client.post("chat/completions", json=body)
                return str(reply.json()["choices"][0]["message"]["content"])

            await target([{"role": "system", "content": ""}, {"role": "user", "content": "item 1"}])
            seen.add(asyncio.get_running_loop())
            return await remask.optimize_async(**arguments(tmp_path / "run", target=target))

    with Server(default=replying(oracle)) as server:
        found = asyncio.run(run(server.url))
        assert server.requests == found.spend.calls + 1
    assert found.verdict == "improved" and len(seen) == 1


def test_calls_wait_together(tmp_path: Path) -> None:
    oracle = AsyncOracle()
    given = arguments(tmp_path / "run", target=oracle)
    found = asyncio.run(remask.optimize_async(**given))
    assert found.verdict == "improved" and oracle.most == 8


def test_the_loop_stays_free_meanwhile(tmp_path: Path) -> None:
    """Each answer of a target that is not async needs a turn of the loop."""

    async def run() -> remask.Result:
        loop, oracle = asyncio.get_running_loop(), Oracle()

        def target(messages: list[dict[str, str]]) -> str:
            turn = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop)
            turn.result(timeout=60)
            return oracle(messages)

        return await remask.optimize_async(**arguments(tmp_path / "run", target=target))

    assert asyncio.run(run()).verdict == "improved"


@pytest.mark.parametrize(
    "stop", [1, pytest.param(50, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.slow)]
)
def test_a_cancelled_run_stops_and_is_resumed_to_the_same_result(tmp_path: Path, stop: int) -> None:
    whole = asyncio.run(remask.optimize_async(**arguments(tmp_path / "whole")))

    async def run() -> tuple[int, remask.Result]:
        def cancel(calls: int) -> None:
            if calls == stop:
                task.cancel()

        cut, rest = AsyncOracle(cancel), AsyncOracle()
        given = arguments(tmp_path / "run", target=cut)
        task = asyncio.ensure_future(remask.optimize_async(**given))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stop <= cut.calls < stop + MAX_CHUNK_CALLS, "only what was in flight"
        assert not (tmp_path / "run" / "result.json").exists()
        again = {"target": rest, "metric": right, "denoiser": Phrases(), "data": rows(120)}
        return cut.calls, await remask.resume_async(tmp_path / "run", **again)

    calls, found = asyncio.run(run())
    assert 0 < calls < whole.spend.calls and same(found, whole)
    with Store.read(tmp_path / "whole") as a, Store.read(tmp_path / "run") as b:
        assert list(a.events()) == list(b.events())


def test_a_run_that_is_cancelled_before_a_call_is_resumed_too(tmp_path: Path) -> None:
    """Cancelled while the first event is told: nothing was asked, and nothing is."""

    async def run() -> remask.Result:
        loop, oracle = asyncio.get_running_loop(), AsyncOracle()

        def cancel(event: object, state: object, spend: object) -> None:
            asyncio.run_coroutine_threadsafe(cancelled(), loop).result(timeout=60)

        async def cancelled() -> None:
            task.cancel()
            await asyncio.sleep(0)

        given = arguments(tmp_path / "run", target=oracle, on_event=cancel)
        task = asyncio.ensure_future(remask.optimize_async(**given))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert oracle.calls == 0
        again = {"target": oracle, "metric": right, "denoiser": Phrases(), "data": rows(120)}
        return await remask.resume_async(tmp_path / "run", **again)

    assert asyncio.run(run()).verdict == "improved"


def test_exceptions_pass_through(tmp_path: Path) -> None:
    async def refused(messages: list[dict[str, str]]) -> str:
        raise TargetRefused("the key is wrong")

    def cut(event: object, state: object, spend: object) -> None:
        raise Cut

    wrong: list[tuple[type[Exception], dict[str, Any]]] = [
        (ConfigError, {"metric": "bleu"}),
        (ConfigError, {"max_calls": 5, "budget": remask.Budget(calls=5)}),
        (TargetRefused, {"target": refused}),
        (Cut, {"on_event": cut}),
        (TypeError, {"unknown": 1}),
    ]
    for number, (error, more) in enumerate(wrong):
        with pytest.raises(error):
            asyncio.run(remask.optimize_async(**arguments(tmp_path / str(number), **more)))


def test_the_other_functions(tmp_path: Path) -> None:
    async def run() -> tuple[remask.Evaluation, remask.Result]:
        score = remask.evaluate_async("Name it.", dataset(), target=AsyncOracle(), metric=right)
        painter = Painter()

        async def target(messages: list[dict[str, str]]) -> str:
            await asyncio.sleep(0)
            return painter(messages)

        refined = remask.refine_async(
            START, write_log(tmp_path), target=target, denoiser=Listener(),
            search=search(traces=4), run_dir=tmp_path / "run",
        )  # fmt: skip
        return await asyncio.gather(score, refined)

    score, refined = asyncio.run(run())
    assert (score.score.mean, score.score.n) == (0.5, 30)
    assert refined.verdict == "improved" and refined.test is not None and refined.test.best == 1
