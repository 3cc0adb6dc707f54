import json

import pytest

from fakes.server import Behaviour, Server, raw, shaped, status
from fakes.writers import fills, gap
from remask.errors import ConfigError, TargetRefused
from remask.models.completions import FimTarget
from remask.ports import Reply
from remask.types import Chat, Message

KEY = "sk-inception-0123456789"


def chat(before: str = "Answer ", after: str = " now.", tokens: int = 20) -> Chat:
    return (Message("user", before), Message("user", after), Message("user", str(tokens)))


def open_target(server: Server, **settings: object) -> FimTarget:
    plain = {"stop": ("\nUser:",), "max_tokens": 64, "concurrency": 1, "first_wait": 0.0}
    return FimTarget("mercury-edit-2", server.url, KEY, **{**plain, **settings})


def test_request_and_reply() -> None:
    with Server(fills("kindly")) as server, open_target(server, seed=5, temperature=0.7) as target:
        assert target.respond([chat()], repeat=2) == [Reply("kindly", input_tokens=24, output_tokens=14)]
    assert server.paths == ["/v1/fim/completions"]
    assert server.keys == [f"Bearer {KEY}"]
    assert server.bodies == [
        {
            "model": "mercury-edit-2",
            "prompt": "Answer ",
            "suffix": " now.",
            "max_tokens": 20,
            "stop": ["\nUser:"],
            "temperature": 0.7,
            "seed": 7,
        }
    ]


def test_undocumented_fields_are_left_out_and_length_is_limited() -> None:
    with Server(fills("x")) as server, open_target(server) as target:
        target.respond([chat(tokens=500)])
    assert set(server.bodies[0]) == {"model", "prompt", "suffix", "max_tokens", "stop"}
    assert server.bodies[0]["max_tokens"] == 64


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (raw(b"<html>"), "no JSON"),
        (shaped({"choices": "none"}), "is not a fill-in-the-middle completion"),
        (shaped({"choices": []}), "no choices"),
        (shaped({"choices": [None]}), "a choice without a text"),
        (shaped({"choices": [{"message": {"content": "chat"}}]}), "has no text"),
        (shaped({"choices": [{"text": 3}]}), "has text of type int"),
        (shaped(gap("", "length")), "cut off at max_tokens = 64"),
        (status(400, "context length"), "context length"),
        (status(500, "disk full"), "gave up after 3 attempts"),
    ],
)
def test_invalid_reply_becomes_an_error(behaviour: Behaviour, words: str) -> None:
    with Server(default=behaviour) as server, open_target(server, retries=2) as target:
        (reply,) = target.respond([chat()])
    assert words in reply.error and reply.text == ""
    assert reply.attempts == server.requests


def test_busy_server_is_asked_again() -> None:
    with Server([status(429), *fills("late")]) as server, open_target(server) as target:
        (reply,) = target.respond([chat()])
    assert reply.text == "late" and reply.attempts == 1 and server.requests == 2


@pytest.mark.parametrize(
    ("code", "todo"), [(401, "check the API key"), (402, "check the billing"), (404, "model name")]
)
def test_refusal_is_final(code: int, todo: str) -> None:
    with Server(default=status(code)) as server, open_target(server) as target:
        with pytest.raises(TargetRefused, match=todo):
            target.respond([chat()])
        assert server.requests == 1


def test_key_of_another_provider_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-provider")
    with pytest.raises(ConfigError, match="INCEPTION_API_KEY"):
        FimTarget("m", "https://api.inceptionlabs.ai/v1", stop=("x",), max_tokens=9)
    with Server(fills("x")) as server, FimTarget("m", server.url, stop=("x",), max_tokens=9) as target:
        target.respond([chat()])
    assert server.keys == ["Bearer none"]


def test_identity_has_what_changes_an_answer() -> None:
    with Server() as server:
        identities = []
        for change in ({}, {"seed": 1}, {"temperature": 0.1}, {"stop": ("y",)}, {"max_tokens": 9}):
            with open_target(server, **change) as target:
                identities.append(target.identity)
                assert json.loads(target.identity.split(" ", 1)[1])["stop"]
                assert KEY not in target.identity
        with open_target(server, retries=0, timeout=1.0) as target:
            assert target.identity == identities[0]
    assert len(set(identities)) == 5
    assert identities[0].startswith("fim:mercury-edit-2@127.0.0.1")
