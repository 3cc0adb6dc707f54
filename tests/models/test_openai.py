import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.chats import chat
from fakes.server import Behaviour, Server, answer, completion, quote_key, raw, reset, shaped, silent, status
from remask.errors import BackendError, ConfigError, TargetRefused
from remask.models.limiter import Limiter, compute_wait
from remask.models.openai import OpenAITarget
from remask.models.rate_headers import parse_retry_after
from remask.ports import Reply

KEY = "sk-very-secret-0123456789"


@contextmanager
def ask(
    server: Server, retries: int = 4, timeout: float = 10.0, concurrency: int = 1
) -> Iterator[tuple[OpenAITarget, list[float]]]:
    """A target at `server`, and the list of the waits that it does not wait; NaN: the limiter's own."""
    waits: list[float] = []

    def note(*arguments: object) -> float:
        waits.append(compute_wait(*arguments))
        return 0.0

    refuse = Limiter.refuse

    def note_refusal(limiter: Limiter, ticket: Any, now: float, retry_after: float | None = None) -> bool:
        waits.append(np.nan if retry_after is None else retry_after)
        return refuse(limiter, ticket, now, 0.0)

    with (
        pytest.MonkeyPatch.context() as patch,
        OpenAITarget(
            "m", server.url, KEY, retries=retries, timeout=timeout, concurrency=concurrency
        ) as target,
    ):
        patch.setattr("remask.models.remote.compute_wait", note)
        patch.setattr(Limiter, "refuse", note_refusal)
        yield target, waits


def one(*script: Behaviour, retries: int = 4, timeout: float = 10.0) -> tuple[Reply, Server, list[float]]:
    """The reply to one chat under `script`, whose last behaviour is repeated."""
    with Server(script, script[-1]) as server, ask(server, retries, timeout) as (target, waits):
        (reply,) = target.respond([chat()])
    assert reply.attempts <= server.requests  # some failures are known to cost nothing
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert KEY not in repr(reply) and KEY not in repr(target) and KEY not in target.identity
    return reply, server, waits


def test_request_and_reply() -> None:
    reply, server, waits = one(answer())
    assert reply == Reply("HELLO", input_tokens=7, output_tokens=3)
    assert waits == []
    assert server.paths == ["/v1/chat/completions"]
    assert server.bodies == [
        {
            "model": "m",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}],
            "temperature": 0.0,
            "max_tokens": 256,
        }
    ]


def test_none_leaves_a_field_out_and_repeat_changes_the_seed() -> None:
    with (
        Server() as server,
        OpenAITarget("m", server.url, temperature=None, max_tokens=None, seed=5) as target,
    ):
        target.respond([chat()], repeat=2)
    assert set(server.bodies[0]) == {"model", "messages", "seed"}
    assert server.bodies[0]["seed"] == 7
    assert server.keys == ["Bearer none"]  # a server on this machine needs no key


@pytest.mark.parametrize(
    ("code", "reason", "todo"),
    [
        (401, None, "check the API key"),
        (403, None, "check what this key may use"),
        (404, "model_not_found", "check the model name"),
        (429, "insufficient_quota", "change the settings"),
        (400, "unsupported_parameter", "change the settings"),
    ],
)
def test_refusal_ends_the_run_at_once(code: int, reason: str | None, todo: str) -> None:
    with (
        Server(default=status(code, "because", reason)) as server,
        ask(server) as (target, waits),
        pytest.raises(TargetRefused) as caught,
    ):
        target.respond([chat()])
    assert server.requests == 1 and waits == []
    message = str(caught.value)
    assert todo in message and str(code) in message and "because" in message
    assert "'m'" in message and "\n" not in message


def test_refusal_cancels_calls_that_have_not_started() -> None:
    with (
        Server(default=status(401)) as server,
        ask(server, concurrency=2) as (target, _),
        pytest.raises(TargetRefused),
    ):
        target.respond([chat(str(i)) for i in range(200)])
    assert server.requests < 200


def test_refusal_ends_the_waits_of_other_calls() -> None:
    """The first call waits a minute for its retry; the refusal of the second wakes it."""

    def behave(handler, body):
        busy = body["messages"][-1]["content"] == "slow"
        status(503 if busy else 401, headers={"Retry-After": "60"})(handler, body)

    start = time.monotonic()
    with (
        Server(default=behave) as server,
        OpenAITarget("m", server.url, KEY, concurrency=2) as target,
        pytest.raises(TargetRefused),
    ):
        target.respond([chat("slow"), chat("refused")])
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("code", [401, 429, 400])
def test_key_is_hidden_if_the_server_quotes_it(code: int) -> None:
    with Server(default=quote_key(code)) as server, ask(server, retries=1) as (target, _):
        try:
            shown = repr(target.respond([chat()]))
        except TargetRefused as error:
            shown = "".join(traceback.format_exception(error)) + repr(error.__context__)
    assert KEY not in shown and "[key]" in shown


@pytest.mark.parametrize("code", [408, 409, 429, 500, 503])
def test_busy_server_is_asked_again(code: int) -> None:
    reply, server, waits = one(status(code), status(code), answer())
    assert reply.text == "HELLO" and reply.error == ""
    assert reply.attempts == (1 if code in (429, 503) else 3)  # refused before any work: no call
    assert server.requests == 3
    assert len(waits) == 2
    if code in (429, 503):  # the limiter's own wait, for all calls
        assert np.isnan(waits).all()
    else:
        assert 0.25 <= waits[0] <= 0.5 <= waits[1] <= 1.0


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    date = formatdate(time.time() + 30, usegmt=True)
    _, _, waits = one(
        status(429, headers={"Retry-After": "2"}),
        status(429, headers={"Retry-After": date}),
        status(429, headers={"Retry-After": "86400"}),
        status(503, headers={"Retry-After": "soon"}),
        answer(),
    )
    assert waits[0] == 2.0
    assert 25 < waits[1] <= 30
    assert waits[2] == 86_400.0  # the limiter waits a minute, see test_limiter.py
    assert np.isnan(waits[3])  # invalid, so our own wait applies


def test_broken_server_gives_an_error() -> None:
    reply, server, waits = one(status(500, "disk full"), retries=2)
    assert reply.text == "" and reply.attempts == 3 == server.requests and len(waits) == 2
    assert "500" in reply.error and "disk full" in reply.error and "3 attempts" in reply.error


def test_no_retries_means_one_attempt() -> None:
    reply, server, _ = one(status(429), retries=0)
    assert server.requests == 1 and "gave up after 1 attempt" in reply.error


def test_timeout_is_retried_and_named() -> None:
    reply, server, _ = one(silent(), silent(), answer(), timeout=0.3)
    assert reply.text == "HELLO" and server.requests == 3
    reply, server, _ = one(silent(), timeout=0.3, retries=1)
    assert "no answer within 0.3 s" in reply.error and server.requests == 2


def test_connection_that_breaks_in_the_body_is_retried() -> None:
    reply, _, _ = one(reset, answer())
    assert reply.text == "HELLO" and reply.attempts == 2
    reply, _, _ = one(reset, retries=1)
    assert "no connection" in reply.error and reply.attempts == 2 and reply.text == ""


def test_unreachable_server_is_an_error() -> None:
    with Server() as server:
        url = server.url
    with OpenAITarget("m", url, retries=1, first_wait=0.0) as target:
        (reply,) = target.respond([chat()])
    assert "no connection to 127.0.0.1" in reply.error and reply.attempts == 0


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (raw(b'{"choices": [{"mess'), "no JSON"),
        (raw(b"<html><body>Sign in</body></html>", "text/html"), "no JSON but '<html>"),
        (raw(b"\xff\xfe\x00"), "no JSON"),
        (raw(b""), "no JSON"),
        (shaped([1, 2]), "not a chat completion"),
        (shaped({"object": "list", "data": []}), "not a chat completion"),
        (shaped({"choices": "none"}), "not a chat completion"),
        (shaped({"choices": []}), "no choices"),
        (shaped({"choices": [{"text": "old style"}]}), "without a message"),
        (shaped({"choices": [None]}), "without a message"),
        (shaped(completion(None)), "no content"),
        (shaped(completion(["a"])), "of type list"),
        (answer("", finish="length"), "cut off at max_tokens = 256"),
        (answer("", finish="content_filter"), "content_filter"),
        (shaped({"error": {"message": "no such route", "code": 400}}), "no such route"),
        (status(400, "maximum context length is 8 tokens"), "maximum context length"),
        (status(422, "unprocessable"), "422"),
    ],
)
def test_invalid_reply_is_an_error_without_a_retry(behaviour: Behaviour, words: str) -> None:
    reply, server, waits = one(behaviour)
    assert words in reply.error and "\n" not in reply.error
    assert reply.text == "" and server.requests == 1 and waits == []


def test_error_in_the_body_with_a_busy_code_is_retried() -> None:
    busy = shaped({"error": {"message": "upstream is busy", "code": 502}})
    reply, _, _ = one(busy, answer())
    assert reply.text == "HELLO" and reply.attempts == 2


def test_empty_answer_that_ended_normally_is_an_answer() -> None:
    reply, _, _ = one(answer(""))
    assert reply.text == "" and reply.error == ""


def test_missing_usage_counts_as_zero_tokens() -> None:
    reply, _, _ = one(shaped({"choices": [{"message": {"content": "hi"}}], "usage": None}))
    assert reply == Reply("hi")


def test_order_is_kept_when_answers_overtake_each_other() -> None:
    gate = threading.Event()

    def behave(handler, body):
        if body["messages"][-1]["content"] == "q0":
            gate.wait(10)  # the first answer comes after all the others
        else:
            with lock:
                left.pop()
                if not left:
                    gate.set()
        answer()(handler, body)

    lock, left = threading.Lock(), list(range(11))
    with Server(default=behave) as server, ask(server, concurrency=4) as (target, _):
        replies = target.respond([chat(f"q{i}") for i in range(12)])
    assert [reply.text for reply in replies] == [f"Q{i}" for i in range(12)]
    assert server.requests == 12


def test_failed_row_does_not_affect_its_neighbours() -> None:
    def behave(handler, body):
        bad = body["messages"][-1]["content"] == "bad"
        (status(500) if bad else answer())(handler, body)

    with Server(default=behave) as server, ask(server, 2, concurrency=3) as (target, _):
        replies = target.respond([chat("a"), chat("bad"), chat("b")])
    assert [reply.text for reply in replies] == ["A", "", "B"]
    assert [bool(reply.error) for reply in replies] == [False, True, False]
    assert sum(reply.attempts for reply in replies) == server.requests == 5


@settings(deadline=None)
@given(attempt=st.integers(1, 10_000), seed=st.integers(0, 2**32))
def test_waits_are_bounded_and_repeatable(attempt: int, seed: int) -> None:
    first, again = (compute_wait(attempt, np.random.default_rng(seed)) for _ in "12")
    assert first == again
    assert min(0.25 * 2 ** min(attempt - 1, 10), 30) <= first <= 60


@settings(deadline=None)
@given(value=st.text(max_size=40), now=st.floats(0, 4e9))
def test_retry_after_is_a_wait_or_none_for_any_value(value: str, now: float) -> None:
    seconds = parse_retry_after({"retry-after": value}, now)
    assert seconds is None or (seconds >= 0 and np.isfinite(seconds))


@pytest.mark.parametrize("value", ["nan", "inf", "-3", "", "Wed, 99 Foo 2020"])
def test_retry_after_without_a_valid_value_is_none(value: str) -> None:
    assert parse_retry_after({"retry-after": value}, 0.0) is None


@pytest.mark.parametrize(("value", "seconds"), [("1500", 1.5), ("0", 0.0), ("-1", 7.0), ("soon", 7.0)])
def test_milliseconds_of_the_wait_come_before_seconds(value: str, seconds: float) -> None:
    assert parse_retry_after({"retry-after-ms": value, "retry-after": "7"}, 0.0) == seconds


def test_identity_has_only_what_changes_an_answer() -> None:
    def identity(**other: object) -> str:
        plain = {"model": "m", "base_url": "http://127.0.0.1:1/v1", "api_key": KEY}
        with OpenAITarget(**{**plain, **other}) as target:
            assert KEY not in target.identity
            return target.identity

    base = identity()
    changes = [
        {"model": "n"},
        {"base_url": "http://127.0.0.1:2/v1"},
        {"temperature": 0.5},
        {"temperature": None},
        {"max_tokens": 9},
        {"seed": 1},
    ]
    assert len({base, *(identity(**change) for change in changes)}) == 1 + len(changes)
    for same in ({"api_key": "other"}, {"retries": 0}, {"concurrency": 1}, {"timeout": 1.0}):
        assert identity(**same) == base
    assert identity(base_url="http://me:pw@127.0.0.1:1/v1/") == base


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"model": " "}, "model name is empty"),
        ({"base_url": "localhost:8000"}, "must look like http"),
        ({"base_url": "http://h:port/v1"}, "is no address"),
        ({"base_url": "https://api.example.com/v1"}, "OPENAI_API_KEY"),
        ({"api_key": "clé"}, "characters that no key has"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"timeout": 0}, "timeout is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"retries": -1}, "retries is -1"),
    ],
)
def test_bad_settings_are_refused_before_a_call(other: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        OpenAITarget(**{"model": "m", "base_url": "http://127.0.0.1:1/v1", **other})


def test_key_and_address_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as server:
        monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        with OpenAITarget("m") as target:
            assert target.respond([chat()])[0].text == "HELLO"
    assert server.keys == [f"Bearer {KEY}"]


def test_missing_sdk_error_has_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "openai":
                raise ModuleNotFoundError("No module named 'openai'", name="openai")

    for name in [name for name in sys.modules if name.split(".")[0] == "openai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(BackendError, match=r"pip install 'remask\[openai\]'"):
        OpenAITarget("m", "http://127.0.0.1:1/v1")


def test_module_does_not_load_the_sdk() -> None:
    code = (
        "import sys, remask.models.openai, remask.models.function\n"
        "heavy = {'openai', 'torch', 'transformers', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_attributes_that_the_meter_uses() -> None:
    with OpenAITarget("m", "http://127.0.0.1:1/v1", retries=3) as target:
        assert target.billed and target.max_attempts == 4 and target.max_tokens == 256
        assert not target.chooses


def test_a_proxy_that_is_dead_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as server:
        dead = server.url.removesuffix("/v1")
    monkeypatch.setenv("HTTP_PROXY", dead)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with OpenAITarget("m", "http://models.example/v1", KEY, retries=0) as target:
        (reply,) = target.respond([chat()])
    assert "through the proxy 127.0.0.1" in reply.error and "HTTP_PROXY" in reply.error
    assert "models.example to NO_PROXY" in reply.error and reply.attempts == 0
