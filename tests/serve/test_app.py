"""The endpoints with a scripted model: one answer at a time, streams, refusals, and going away."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from remask.serve.app import MAX_BODY
from serve.served import Bytes, asking, exchange, request, serving

CHAT = "/v1/chat/completions"
TARGET = Bytes()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(TARGET) as port:
        yield port


@pytest.fixture(scope="module")
def client(port: int) -> Iterator[openai.OpenAI]:
    url = f"http://127.0.0.1:{port}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def post(port: int, body: bytes, **more: Any) -> tuple[int, dict[str, Any]]:
    status, _, answer = exchange(port, request(port, "POST", CHAT, body, **more))
    value: dict[str, Any] = json.loads(answer)
    return status, value


def ask(client: openai.OpenAI, text: str, **more: Any) -> Any:
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="embedded", messages=messages, **more)  # type: ignore[call-overload]


def test_an_answer_and_its_usage(client: openai.OpenAI) -> None:
    reply = ask(client, "hällo")
    assert reply.choices[0].message.content == "hällo"
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (6, 6)
    assert reply.choices[0].logprobs is None


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_ends_the_answer(client: openai.OpenAI, name: str) -> None:
    reply = ask(client, "abcdef", **{name: 3})
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("abc", "length")
    assert reply.usage.completion_tokens == 3


@pytest.mark.parametrize("stop", ["d", ["x", "de"], ["def", "d"]])
def test_stop_texts(client: openai.OpenAI, stop: str | list[str]) -> None:
    reply = ask(client, "abcdef", stop=stop)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("abc", "stop")
    stream = list(ask(client, "abcdef", stop=stop, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "abc"
    assert [c.choices[0].finish_reason for c in stream][-2:] == [None, "stop"]


def test_a_stream_shows_whole_characters_and_the_usage(client: openai.OpenAI) -> None:
    stream = list(ask(client, "é👋z", stream=True, stream_options={"include_usage": True}))
    contents = [chunk.choices[0].delta.content for chunk in stream[:-1]]
    assert contents == ["", "é", "👋", "z", None]
    assert stream[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in stream}) == 1
    assert stream[-1].choices == []
    assert stream[-1].usage.total_tokens == 14


def test_log_probabilities(client: openai.OpenAI) -> None:
    whole = ask(client, "ab", logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert [token.token for token in whole] == ["a", "b"]
    for token in whole:
        assert token.bytes == list(token.token.encode())
        assert token.top_logprobs[0].token == token.token
        assert token.top_logprobs[0].logprob == token.logprob > token.top_logprobs[1].logprob
    stream = ask(client, "ab", logprobs=True, top_logprobs=2, stream=True)
    parts = [c.choices[0].logprobs.content for c in stream if c.choices[0].logprobs]
    assert [token for part in parts for token in part] == whole


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages.0.role"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": 1}, None),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_name(
    port: int, more: dict[str, Any], param: str | None
) -> None:
    status, value = post(port, asking("hi", **more))
    assert status == 400
    error = value["error"]
    assert error["type"] == "invalid_request_error"
    assert (error["param"] or "").startswith(param or "")
    assert error["message"]


def test_fields_that_change_nothing_are_ignored(port: int) -> None:
    more = {"user": "me", "n": 1, "presence_penalty": 0, "tools": [], "store": False}
    assert post(port, asking("hi", **more, response_format={"type": "text"}))[0] == 200


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 5000, b"null", b"[]", b'{"a": NaN}'])
def test_malformed_bodies_are_refused(port: int, body: bytes) -> None:
    status, value = post(port, body)
    assert status == 400
    assert value["error"]["type"] == "invalid_request_error"


def test_unknown_models_and_paths_are_not_found(client: openai.OpenAI, port: int) -> None:
    with pytest.raises(openai.NotFoundError, match="there is 'embedded'"):
        client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "a"}])
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt")
    assert client.models.retrieve("embedded").id == "embedded"
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="embedded", input="a", encoding_format="float")
    assert exchange(port, request(port, "GET", CHAT))[0] == 405


def test_a_body_that_is_too_large_is_refused(port: int) -> None:
    assert post(port, b" " * (MAX_BODY + 1))[0] == 413
    half = b" " * (MAX_BODY // 2 + 1)
    chunk = f"{len(half):x}\r\n".encode() + half + b"\r\n"
    more = ["Transfer-Encoding: chunked", "Content-Type: application/json"]
    raw = request(port, "POST", CHAT, more=more) + 2 * chunk
    assert exchange(port, raw)[0] == 413


def test_a_chat_that_is_too_long_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "a" * 4000)
    assert caught.value.code == "context_length_exceeded"
    assert ask(client, "a" * 3999).usage.completion_tokens == 1  # what the window has left


def test_a_model_that_breaks_is_an_error_not_an_answer(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="the model broke"):
        ask(client, "ab!")
    with pytest.raises(openai.APIError, match="the model broke"):
        list(ask(client, "ab!", stream=True))
    assert ask(client, "still here").choices[0].message.content == "still here"


def test_one_answer_is_written_at_a_time(client: openai.OpenAI) -> None:
    texts = [f"~~{n}" for n in range(12)]
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda text: ask(client, text), texts))
    assert [reply.choices[0].message.content for reply in replies] == texts
    assert TARGET.most == 1


@pytest.mark.parametrize("stream", [True, False])
def test_who_goes_away_gives_up_the_turn(client: openai.OpenAI, port: int, stream: bool) -> None:
    before = TARGET.written
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        body = asking("~" * 3000, stream=stream, max_tokens=3000)  # half a minute
        connection.sendall(request(port, "POST", CHAT, body))
        while TARGET.written == before:
            time.sleep(0.005)
    assert ask(client, "next").choices[0].message.content == "next"
    assert TARGET.written - before < 1500
    assert TARGET.most == 1
