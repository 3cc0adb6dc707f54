"""The meter with a target that counts its own calls, spent budgets, and kill -9 at every step."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes import ENV, ROOT
from fakes.chats import chat, chats
from fakes.killed_store import LIMIT
from remask.errors import BudgetSpent, ConfigError, TargetRefused
from remask.ids import rng_for
from remask.ports import Reply, TargetModel
from remask.runs.budget import Limits, Price, Spend
from remask.runs.ledger import Ledger
from remask.runs.meter import CHAT_OVERHEAD_TOKENS, MAX_CHUNK_CALLS, MESSAGE_OVERHEAD_TOKENS, Meter, call_key
from remask.runs.store import Store
from remask.types import Chat, Message

MAX_OUTPUT = 8  # tokens of an answer
WORKER = ROOT / "tests" / "fakes" / "killed_store.py"


def bound_input(chat: Chat) -> int:
    """The largest number of input tokens that a call of this chat may cost."""
    return CHAT_OVERHEAD_TOKENS + sum(len(m.content.encode()) + MESSAGE_OVERHEAD_TOKENS for m in chat)


class Counting(TargetModel):
    """A target that counts attempts, tokens and batches; its failures depend only on the seed."""

    def __init__(self, billed=False, max_attempts=1, failing=0.0, seed=0, tokens=True) -> None:
        self.identity = "counting:1"
        self.billed = billed
        self.max_attempts = max_attempts
        self.attempts = self.input_tokens = self.output_tokens = 0
        self.unreported_input = self.unreported_output = 0  # bounds of attempts that reported nothing
        self.batches: list[int] = []
        self.asked: list[str] = []
        self._failing, self._tokens = failing, tokens
        self._rng = rng_for(seed, "counting")

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        self.batches.append(len(chats))
        return [self._reply(chat, f"{chat[-1].content} {repeat}") for chat in chats]

    def limit_attempts(self, attempts: int) -> TargetModel:
        return Limited(self, attempts)

    def _reply(self, chat: Chat, text: str) -> Reply:
        self.asked.append(chat[-1].content)
        attempts = int(self._rng.integers(1, self.max_attempts + 1))
        self.attempts += attempts
        failed = self._rng.random() < self._failing
        unreported = attempts - (self._tokens and not failed)
        self.unreported_input += unreported * bound_input(chat)
        self.unreported_output += unreported * MAX_OUTPUT
        if failed:
            return Reply("", error="busy", attempts=attempts)
        size = (len(chat[-1].content) + 5, len(text)) if self._tokens else (0, 0)
        self.input_tokens += size[0]
        self.output_tokens += size[1]
        return Reply(text, "", *size, attempts=attempts)


class Limited(TargetModel):
    """A Counting with fewer attempts, which the original counts."""

    def __init__(self, whole: Counting, attempts: int) -> None:
        self.identity, self.billed = whole.identity, whole.billed
        self.max_attempts, self._whole = attempts, whole

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        before, self._whole.max_attempts = self._whole.max_attempts, self.max_attempts
        try:
            return self._whole.respond(chats, repeat)
        finally:
            self._whole.max_attempts = before


class CountingChooser(Counting):
    chooses = True

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Reply]:
        self.batches.append(len(chats))
        self.attempts += len(chats)
        return [Reply(options[0], logps=tuple(-float(i) for i in range(len(options))))] * len(chats)


class Refusing(Counting):
    def __init__(self, error: BaseException, billed: bool) -> None:
        super().__init__(billed=billed, max_attempts=3)
        self._error = error

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        raise self._error


@pytest.fixture
def store(tmp_path):
    with Store.create(tmp_path / "run", {}) as store:
        yield store


# --- cache ---------------------------------------------------------------------------------


def test_meter_asks_equal_chats_once(store):
    target = Counting()
    metered = Meter(target, Ledger(store, Limits(calls=3)))
    first = metered.respond(chats("a", "b", "a"))
    assert [r.text for r in first] == ["a 0", "b 0", "a 0"]
    assert target.asked == ["a", "b"]
    assert metered.respond(chats("b", "a", "c"))[:2] == [first[1], first[0]]
    assert target.asked == ["a", "b", "c"]
    assert metered.respond(chats("a", "b", "c", "a"))[3] == first[0]  # the budget is used up
    assert store.get_spend().calls == target.attempts == 3


def test_call_key_has_all_that_can_change_an_answer():
    base = ("model:1", chat("a"), None, 0)
    others = [
        ("model:2", chat("a"), None, 0),
        ("model:1", chat("b"), None, 0),
        ("model:1", chat("a")[1:], None, 0),
        ("model:1", (Message("user", "Be brief."), chat("a")[1]), None, 0),
        ("model:1", chat("a"), [], 0),
        ("model:1", chat("a"), ["x", "y"], 0),
        ("model:1", chat("a"), ["y", "x"], 0),
        ("model:1", chat("a"), None, 1),
    ]
    assert len({call_key(*parts) for parts in [base, *others]}) == len(others) + 1
    assert call_key(*base) == call_key("model:1", chat("a"), None, 0)


def test_meter_makes_a_call_for_each_repeat(store):
    metered = Meter(Counting(), Ledger(store, Limits()))
    assert [metered.respond(chats("a"), repeat=n)[0].text for n in (0, 1, 0)] == ["a 0", "a 1", "a 0"]
    assert store.get_spend().calls == 2


def test_meter_books_and_repeats_failed_replies(store):
    target = Counting(failing=1.0)
    metered = Meter(target, Ledger(store, Limits()))
    assert [r.error for r in metered.respond(chats("a", "a"))] == ["busy", "busy"]
    assert store.get_spend().calls == target.attempts == 1
    assert metered.respond(chats("a"))[0].error == "busy"
    assert store.get_spend().calls == target.attempts == 2


def test_meter_returns_stored_replies_unchanged(store):
    reply = Reply("ä€🙂\x00\n", "", 7, 9, (-0.1, -1e-300, -float("inf")), attempts=2)

    class One(Counting):
        def respond(self, chats, repeat=0):
            return [reply]

    assert Meter(One(), Ledger(store, Limits())).respond(chats("a")) == [reply]
    assert Meter(Counting(), Ledger(store, Limits())).respond(chats("a")) == [reply]


def test_meter_accepts_half_an_emoji(store):
    class Half(Counting):
        def respond(self, chats, repeat=0):
            return [Reply("fine \ud83d")]

    first = Meter(Half(), Ledger(store, Limits())).respond(chats("a"))
    assert first == Meter(Counting(), Ledger(store, Limits())).respond(chats("a")) == [Reply("fine ?")]


def test_meter_keeps_whether_a_target_chooses(store):
    plain = Meter(Counting(), Ledger(store, Limits()))
    assert not plain.chooses
    target = CountingChooser()
    chooser = Meter(target, Ledger(store, Limits(calls=3)))
    assert chooser.chooses
    assert chooser.choose(chats("a", "b"), ["x", "y"])[0] == Reply("x", logps=(0.0, -1.0))
    chooser.choose(chats("a", "b"), ["x", "y"])
    assert target.attempts == store.get_spend().calls == 2  # one call, however many options
    chooser.choose(chats("a"), ["y", "x"])
    with pytest.raises(BudgetSpent):
        chooser.respond(chats("a"))
    assert (chooser.identity, chooser.billed, chooser.max_attempts) == ("counting:1", False, 1)


# --- chunks and budgets --------------------------------------------------------------------


def test_meter_asks_misses_in_order_in_chunks(store):
    target = Counting()
    metered = Meter(target, Ledger(store, Limits()))
    metered.respond(chats(*range(0, 20, 2)))
    target.batches.clear()
    target.asked.clear()
    metered.respond(chats(*range(80)))
    assert target.batches == [10] * 7  # an eighth of all 80
    assert target.asked == [str(n) for n in range(80) if n % 2 or n >= 20]


def test_meter_refuses_too_large_requests_before_a_call(store):
    target = Counting()
    metered = Meter(target, Ledger(store, Limits(calls=40)))
    metered.respond(chats(*range(10)))
    with pytest.raises(
        BudgetSpent, match=r"^the next step needs 35 calls and 30 are left \(10 of 40 calls used\)$"
    ):
        metered.respond(chats(*range(100, 135)))
    assert store.get_spend().calls == target.attempts == 10
    metered.respond(chats(*range(100, 130)))  # the last call may be used
    assert store.get_spend().calls == 40


def test_meter_keeps_what_is_reserved(store):
    ledger = Ledger(store, Limits(calls=10), reserved=Spend(calls=6))
    metered = Meter(Counting(), ledger)
    metered.respond(chats(*range(4)))
    with pytest.raises(BudgetSpent, match="4 of 10 calls used, 6 reserved for the test"):
        metered.respond(chats("x"))
    ledger.reserved = Spend()
    metered.respond(chats(*range(10, 16)))
    assert store.get_spend().calls == 10


def test_meter_reserves_retries_and_reduces_them(store):
    target = Counting(billed=True, max_attempts=5, seed=1)
    metered = Meter(target, Ledger(store, Limits(calls=40)))
    metered.respond(chats(*range(8)))
    assert target.batches == [8] and target.attempts <= 40  # 8 calls of 5 attempts at most
    with pytest.raises(BudgetSpent):
        for n in range(100, 140):
            metered.respond(chats(n))
    assert store.get_spend().calls == target.attempts == 40  # the last call has one attempt


def test_meter_needs_max_output_for_a_limit_on_tokens(store):
    for budget, price in ((Limits(tokens=10), None), (Limits(usd=1), Price(1, 1))):
        with pytest.raises(ConfigError, match="largest number of output tokens"):
            Meter(Counting(), Ledger(store, budget, price))
    with pytest.raises(ConfigError, match="needs a price"):
        Meter(Counting(), Ledger(store, Limits(usd=1)), max_output=5)


def test_meter_books_the_bound_without_token_counts(store):
    metered = Meter(Counting(tokens=False), Ledger(store, Limits(tokens=1000)), max_output=50)
    metered.respond(chats("a"))
    spent = store.get_spend()
    assert spent.output_tokens == 50 and spent.input_tokens >= len("Be brief.a")
    free = Meter(Counting(tokens=False), Ledger(store, Limits(calls=10)))
    before = store.get_spend().tokens
    free.respond(chats("b"))
    assert store.get_spend().tokens == before


def test_meter_books_dollars_by_the_price(store):
    target = Counting()
    Meter(target, Ledger(store, Limits(), Price(2, 10))).respond(chats("abc", "d"))
    expected = (2 * target.input_tokens + 10 * target.output_tokens) / 1e6
    assert store.get_spend().usd == pytest.approx(expected)


def test_meter_refuses_calls_beyond_the_minutes(store):
    ticks = iter(range(0, 10_000, 20))  # every batch takes 20 seconds
    metered = Meter(Counting(), Ledger(store, Limits(minutes=1), clock=lambda: next(ticks)))
    for n in range(3):
        metered.respond(chats(n))
    assert store.get_spend().seconds == 60
    with pytest.raises(BudgetSpent, match=r"the time is used up \(1 of 1 minute used\)"):
        metered.respond(chats("x"))


requests = st.lists(
    st.tuples(st.lists(st.integers(0, 60), max_size=45), st.integers(0, 1)), min_size=1, max_size=6
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    requests,
    st.integers(0, 10**6),
    st.sampled_from([(1, 0.0), (1, 0.3), (4, 0.3)]),
    st.none() | st.integers(1, 150),
    st.none() | st.integers(200, 20_000),
    st.none() | st.floats(0.0001, 0.05),
    st.integers(0, 20),
)
def test_meter_books_what_the_target_counted(requests, seed, flaky, calls, tokens, usd, reserved):
    target = Counting(billed=True, max_attempts=flaky[0], failing=flaky[1], seed=seed)
    budget, price = Limits(calls=calls, tokens=tokens, usd=usd), Price(1, 3)
    scratch = tempfile.TemporaryDirectory()
    folder = Path(scratch.name) / "run"
    answers: dict[tuple[int, int], str] = {}
    with Store.create(folder, {}) as store:
        ledger = Ledger(store, budget, price, reserved=Spend(calls=reserved))
        metered = Meter(target, ledger, max_output=MAX_OUTPUT)
        for rows, repeat in requests:
            before = target.attempts
            known = {row for row in rows if (row, repeat) in answers}
            try:
                replies = metered.respond(chats(*rows), repeat)
            except BudgetSpent:
                continue
            if known == set(rows):
                assert target.attempts == before  # cache hits are free
            for row, reply in zip(rows, replies, strict=True):
                assert reply.error or reply.text == f"{row} {repeat}"
                if not reply.error:
                    answers[row, repeat] = reply.text
        spent = store.get_spend()
    assert spent.calls == target.attempts
    assert spent.input_tokens == target.input_tokens + target.unreported_input
    assert spent.output_tokens == target.output_tokens + target.unreported_output
    assert calls is None or spent.calls == 0 or spent.calls + reserved <= calls
    assert tokens is None or spent.tokens <= tokens
    assert usd is None or spent.usd <= usd
    assert max(target.batches, default=0) <= MAX_CHUNK_CALLS
    with Store.open(folder) as store:
        assert store.get_spend().calls == spent.calls and store.get_spend().uncertain == 0
    scratch.cleanup()


# --- calls that are cut off ----------------------------------------------------------------


@pytest.mark.parametrize("billed", [True, False])
def test_meter_books_nothing_for_a_refused_chunk(store, billed):
    refused = TargetRefused("the key is wrong")
    metered = Meter(Refusing(refused, billed), Ledger(store, Limits(calls=100)))
    with pytest.raises(TargetRefused):
        metered.respond(chats("a", "b"))
    assert store.get_spend() == Spend()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TypeError("a bug")])
@pytest.mark.parametrize("billed", [True, False])
def test_meter_books_an_interrupted_chunk_as_uncertain(store, billed, error):
    metered = Meter(Refusing(error, billed), Ledger(store, Limits(calls=100)))
    with pytest.raises(type(error)):
        metered.respond(chats("a", "b"))
    assert store.get_spend() == (Spend(calls=6, uncertain=6) if billed else Spend())


def test_meter_books_a_target_with_too_few_replies(store):
    class Short(Counting):
        def respond(self, chats, repeat=0):
            return super().respond(chats[1:])

    with pytest.raises(ValueError, match="shorter"):
        Meter(Short(billed=True), Ledger(store, Limits())).respond(chats("a", "b"))
    assert store.get_spend() == Spend(calls=2, uncertain=2)


def kill_at(base: Path, billed: str, points: list[int] | None) -> dict:
    done = subprocess.run(
        [sys.executable, str(WORKER), "kill", str(base), billed],
        input=json.dumps(points),
        env=ENV,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def seeded_points(count: int) -> list[int]:
    """Random steps of the workload, which has about 310."""
    return sorted(int(n) for n in rng_for(0, "kills").choice(300, count, replace=False) + 1)


def check_unbilled(out: dict) -> None:
    for run in out["killed"]:
        assert run["kills"] >= 1, run["at"]
        for part in ("events", "cache", "check"):
            assert run[part] == out["whole"][part], (part, run["at"])
        assert run["spent"] == out["whole"]["spent"], run["at"]
        # settled calls are not repeated: each kill costs at most the current chunk
        assert run["calls"] <= out["whole"]["calls"] + run["kills"] * MAX_CHUNK_CALLS


def check_billed(out: dict) -> None:
    seen_uncertain = False
    for run in out["killed"]:
        spent = run["spent"]
        assert run["check"] == "ok"
        assert run["calls"] <= spent["calls"] <= LIMIT, run["at"]  # never under-counted, never over
        assert spent["uncertain"] <= run["kills"] * MAX_CHUNK_CALLS
        known = {key: body for key, body in out["whole"]["cache"]}
        assert len(run["cache"]) == spent["calls"] - spent["uncertain"]
        assert {key for key, _ in run["cache"]} <= set(known)
        seen_uncertain |= spent["uncertain"] > 0
        if not spent["uncertain"]:
            assert run["events"] == out["whole"]["events"]
            assert run["calls"] == spent["calls"] == out["whole"]["calls"]
    assert seen_uncertain


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("billed", ["unbilled", "billed"])
def test_meter_after_kills_ends_like_a_whole_run(ram, billed):
    out = kill_at(ram, billed, seeded_points(24))
    assert out["whole"]["spent"]["calls"] == out["whole"]["calls"] == 110
    assert out["total"] > 300
    reason = "the next step needs 20 calls and 10 are left (110 of 120 calls used)"
    assert out["whole"]["events"][-1]["reason"] == reason
    (check_billed if billed == "billed" else check_unbilled)(out)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("billed", ["unbilled", "billed"])
def test_meter_after_a_kill_at_every_step(ram, billed):
    out = kill_at(ram, billed, None)
    assert len(out["killed"]) == out["total"]
    (check_billed if billed == "billed" else check_unbilled)(out)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_meter_after_a_kill_at_a_random_moment(ram):
    """A kill -9 from outside, at any statement."""
    whole = kill_at(ram, "unbilled", [1])["whole"]
    folder = ram / "run"
    draw = rng_for(1, "moments")
    for n in range(8):
        child = subprocess.Popen(
            [sys.executable, str(WORKER), "work", str(folder)], env=ENV, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "go\n"
        if n < 7:
            try:
                child.wait(timeout=float(draw.uniform(0.001, 0.08)))
            except subprocess.TimeoutExpired:
                child.kill()
        child.communicate()
    assert child.returncode == 0
    with Store.read(folder) as run:
        assert list(run.events()) == whole["events"]
        assert run.get_spend().calls == whole["spent"]["calls"]


def test_meter_repeats_a_request_with_the_same_bits(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from remask.models.backbone.builtin_weights import load_base
    from remask.models.builtin import BuiltinTarget

    class CutOnce(BuiltinTarget):
        cut_at = 0  # the batch that Ctrl-C interrupts

        def choose(self, chats, options):
            self.cut_at -= 1
            if self.cut_at == 0:
                raise KeyboardInterrupt
            return super().choose(chats, options)

    monkeypatch.setattr("remask.runs.meter.choose_chunk_size", lambda calls: 6)
    system = Message("system", "Is the review positive or negative?")
    adjectives = ("fine", "dull", "a joy", "tedious and long", "moving", "weak")
    asked = [(system, Message("user", f"Film {n} is {adjectives[n % len(adjectives)]}.")) for n in range(10)]
    options = ["positive", "negative"]
    target = CutOnce(load_base())
    with Store.create(tmp_path / "whole", {}) as store:
        whole = Meter(target, Ledger(store, Limits(calls=10))).choose(asked, options)
        spent = store.get_spend()
    target.cut_at = 2
    with Store.create(tmp_path / "cut", {}) as store, pytest.raises(KeyboardInterrupt):
        Meter(target, Ledger(store, Limits(calls=10))).choose(asked, options)
    with Store.open(tmp_path / "cut") as store:
        assert store.get_spend().calls == 6
        again = Meter(target, Ledger(store, Limits(calls=10))).choose(asked, options)
        assert again == whole  # log-probabilities too, to the last bit
        assert (store.get_spend().calls, store.get_spend().tokens) == (spent.calls, spent.tokens)
    assert spent.calls == len(asked) and spent.input_tokens == sum(r.input_tokens for r in whole)
    assert {reply.text for reply in whole} <= set(options)


class Stubborn(Counting):
    """A target that needs all its attempts, like an endpoint that always answers 500."""

    def _reply(self, chat: Chat, text: str) -> Reply:
        self.asked.append(chat[-1].content)
        self.attempts += self.max_attempts
        return Reply(text, attempts=self.max_attempts)


@pytest.mark.parametrize("limit", [4, 6, 7, 11, 20, 100])
def test_meter_reduces_retries_near_the_limit(tmp_path: Path, limit: int) -> None:
    target = Stubborn(max_attempts=5)
    with Store.create(tmp_path / "run", {}) as store:
        metered = Meter(target, Ledger(store, Limits(calls=limit)))
        assert len(metered.respond(chats("a", "b", "c", "d"))) == 4
        assert store.get_spend().calls == target.attempts <= limit
