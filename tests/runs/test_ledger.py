"""The ledger with every kind of caller; the called models count their own calls."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import ROOT
from remask.errors import BudgetSpent, TargetRefused
from remask.ids import rng_for
from remask.integrations.multi_prompt import ProgramBench, ProgramRun
from remask.ports import Reply, TargetModel
from remask.runs.budget import Limits, Price, Spend
from remask.runs.ledger import Ledger, Tariff
from remask.runs.meter import Meter
from remask.runs.store import MemoryStore
from remask.tasks.metrics import make_judge
from remask.types import Chat, Example, Message

ONE = [(0, 0)]  # the bound of one call without tokens


class Flaky:
    """Decides by a seed whether a call fails, and counts the calls."""

    def __init__(self, seed: int) -> None:
        self.calls = 0
        self._rng, self._lock = rng_for(seed, "flaky"), threading.Lock()

    def fails(self) -> bool:
        with self._lock:
            self.calls += 1
            return bool(self._rng.random() < 0.2)


class Verdicts(TargetModel):
    """A target that answers, judges and sometimes fails."""

    identity, billed, chooses = "verdicts", True, True

    def __init__(self, flaky: Flaky) -> None:
        self._flaky = flaky

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        return [self._reply() for _ in chats]

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Reply]:
        return [self._reply() for _ in chats]

    def _reply(self) -> Reply:
        return Reply("", error="busy") if self._flaky.fails() else Reply("Score: 7")


@dataclass(frozen=True)
class Caller:
    """A way to make calls, and the spend of its ledger."""

    ask: Callable[[list[str]], list[bool]]  # whether each row got an answer
    spent: Callable[[], Spend]


def chats(rows: Sequence[str]) -> list[Chat]:
    return [(Message("user", row),) for row in rows]


@contextmanager
def plain(flaky: Flaky, ledger: Ledger) -> Iterator[Caller]:
    target = Meter(Verdicts(flaky), ledger)
    yield Caller(lambda rows: [not r.error for r in target.respond(chats(rows))], ledger.store.get_spend)


@contextmanager
def chooser(flaky: Flaky, ledger: Ledger) -> Iterator[Caller]:
    target = Meter(Verdicts(flaky), ledger)
    yield Caller(
        lambda rows: [not r.error for r in target.choose(chats(rows), ["a", "b"])], ledger.store.get_spend
    )


@contextmanager
def judging(flaky: Flaky, ledger: Ledger) -> Iterator[Caller]:
    grader = make_judge(Meter(Verdicts(flaky), ledger), "Is it kind?")

    def ask(rows: list[str]) -> list[bool]:
        examples = [Example(row, "train", row, None) for row in rows]
        return [not grade.error for grade in grader.grade(examples, rows)]

    yield Caller(ask, ledger.store.get_spend)


@contextmanager
def bench(flaky: Flaky, ledger: Ledger) -> Iterator[Caller]:
    """The program of an integration, which has its own ledger and limit."""

    def run(texts: object, ids: Sequence[str]) -> list[ProgramRun]:
        return [ProgramRun(None if flaky.fails() else 1.0, {}) for _ in ids]

    cap = ledger.budget.calls
    assert cap is not None
    program = ProgramBench(run, {"train": (), "validation": ()}, cap)
    yield Caller(
        lambda rows: [run.score is not None for run in program.run_rows({"p": "Be kind."}, rows)],
        program.ledger.store.get_spend,
    )


@contextmanager
def inspect_models(flaky: Flaky, ledger: Ledger) -> Iterator[Caller]:
    """Inspect's models, all rows at once, over a loopback server that drops connections."""
    pytest.importorskip("inspect_ai")
    sys.path.insert(0, str(ROOT / "examples" / "inspect"))
    from inspect_ai.model import GenerateConfig, get_model
    from loopback import Loopback, say

    from remask.prompt import Prompt
    from remask.tasks.inspect.models import InspectModels

    def answer(model: str, messages: list[dict[str, object]]) -> dict[str, object]:
        if flaky.fails():
            raise ConnectionAbortedError
        return say("Score: 7")

    with Loopback(answer) as server:
        models = InspectModels(
            lambda: (
                get_model(
                    "openai-api/loopback/agent",
                    config=GenerateConfig(max_retries=0, max_connections=4),
                    base_url=server.url,
                    api_key="none",
                    memoize=False,
                    max_retries=0,
                ),
                {},
            ),
            ledger,
            "Be kind.",
            identity="loopback",
            prices={},
            retries=0,
            expected=1,
        )

        async def generate(rows: list[str]) -> list[bool]:
            async with models.open_models() as (model, _):
                made = [model.generate(row) for row in rows]
                found = await asyncio.gather(*made, return_exceptions=True)
            return [not isinstance(one, BaseException) for one in found]

        def ask(rows: list[str]) -> list[bool]:
            models.begin(Prompt("Be kind."), 0)  # so that the limit is reached between rows
            answers = asyncio.run(generate(rows))
            models.end()
            return answers

        yield Caller(ask, ledger.store.get_spend)


CALLERS = (plain, chooser, judging, bench, inspect_models)
requests = st.lists(
    st.lists(st.integers(0, 12).map(str), min_size=1, max_size=8, unique=True), min_size=1, max_size=5
)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("caller", CALLERS, ids=lambda one: one.__name__)
def test_ledger_books_the_calls_of_every_caller(caller) -> None:
    @settings(deadline=None, max_examples=6 if caller is inspect_models else 40)
    @given(requests, st.integers(0, 10**6), st.integers(1, 25))
    def check(requests: list[list[str]], seed: int, limit: int) -> None:
        flaky = Flaky(seed)
        known: set[str] = set()
        with caller(flaky, Ledger(MemoryStore(), Limits(calls=limit))) as made:
            for rows in requests:
                before = flaky.calls
                try:
                    answers = made.ask(rows)
                except BudgetSpent:
                    assert before + len(set(rows) - known) > limit  # not too early
                    assert made.spent().calls == flaky.calls <= limit
                    continue
                assert flaky.calls - before <= len(set(rows) - known)  # stored answers are free
                assert all(ok for row, ok in zip(rows, answers, strict=True) if row in known)
                known |= {row for row, ok in zip(rows, answers, strict=True) if ok}
                assert made.spent().calls == flaky.calls <= limit

    check()


@pytest.mark.parametrize(
    ("error", "billed", "uncertain"),
    [
        (TargetRefused("no key"), True, 0),
        (KeyboardInterrupt(), False, 0),
        (KeyboardInterrupt(), True, 1),
        (ValueError("a bug"), True, 1),
    ],
)
def test_ledger_books_calls_that_are_not_settled(error, billed, uncertain):
    ledger, tariff = Ledger(MemoryStore(), Limits(calls=9)), Tariff(Limits(calls=9))
    with pytest.raises(type(error)), ledger.reserve(tariff, ONE, billed=billed):
        assert ledger.store.get_spend() == Spend(calls=1)
        raise error
    assert ledger.store.get_spend() == Spend(calls=uncertain, uncertain=uncertain)


def test_ledger_books_concurrent_seconds_once():
    times = iter([0.0, 1.0, 4.0, 6.0, 10.0, 12.0])
    ledger = Ledger(MemoryStore(), Limits(minutes=1), clock=lambda: next(times))
    tariff = Tariff(ledger.budget)
    first, second = ledger.reserve(tariff, ONE), ledger.reserve(tariff, ONE)  # at 0 and 1
    with first, second:
        first.settle([Reply("")], {})  # at 4
        second.settle([Reply("")], {})  # at 6
    assert ledger.store.get_spend() == Spend(calls=2, seconds=6)
    with ledger.reserve(tariff, ONE * 2) as later:  # at 10, each as slow as the slowest so far
        assert ledger.store.get_spend().seconds == 6 + 2 * 5
        later.settle([Reply("")] * 2, {})  # at 12
    assert ledger.store.get_spend() == Spend(calls=4, seconds=8)


def test_ledger_allows_a_price_for_each_model():
    budget = Limits(usd=1.0)
    ledger = Ledger(MemoryStore(), budget)
    cheap, dear = Tariff(budget, Price(1, 2), 10), Tariff(budget, Price(100, 200), 10)
    for tariff in (cheap, dear):
        with ledger.reserve(tariff, [(50, 10)]) as calls:
            calls.settle([Reply("", input_tokens=20, output_tokens=5)], {})
    assert ledger.store.get_spend().usd == pytest.approx((20 + 10 + 2000 + 1000) / 1e6)
    with ledger.reserve(cheap, [(50, 10)]) as calls:
        calls.settle([Reply("")], {})  # no tokens are reported: the bound counts
    assert ledger.store.get_spend().tokens == 2 * 25 + 60
