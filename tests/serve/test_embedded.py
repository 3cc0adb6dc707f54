"""The real embedded model behind the server, asked with the real OpenAI client."""

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from remask.backbone.weights import load_base
from remask.models.embedded import EmbeddedTarget
from remask.models.openai import OpenAITarget
from remask.trace import Chat, Message
from serve.served import serving

SYSTEM, USER = "Answer in one word.", "What is the capital of France?"
CHAT: Chat = (Message("system", SYSTEM), Message("user", USER))
TURNS: Any = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
TOKENS = 4


@pytest.fixture(scope="module")
def target() -> EmbeddedTarget:
    return EmbeddedTarget(load_base(), max_tokens=TOKENS)


@pytest.fixture(scope="module")
def url(target: EmbeddedTarget) -> Iterator[str]:
    with serving(target) as port:
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(
        model="embedded", messages=TURNS, max_tokens=TOKENS, **more
    )


def test_greedy_answers_are_those_of_the_target(
    client: openai.OpenAI, target: EmbeddedTarget
) -> None:
    (expected,) = target.respond([CHAT])
    reply = ask(client)
    assert reply.choices[0].message.content == expected.text
    assert reply.usage.prompt_tokens == expected.input_tokens
    assert reply.usage.completion_tokens == expected.output_tokens > 0


def test_remask_itself_can_ask_it(url: str, target: EmbeddedTarget) -> None:
    asking = OpenAITarget("embedded", base_url=url, max_tokens=TOKENS, key_env="UNSET_KEY")
    try:
        assert asking.respond([CHAT])[0].text == target.respond([CHAT])[0].text
    finally:
        asking.close()


def test_log_probabilities_are_those_of_the_model(
    client: openai.OpenAI, target: EmbeddedTarget
) -> None:
    tokens = ask(client, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    text = "".join(token.token for token in tokens)
    (chosen,) = target.choose([CHAT], [text])
    # Another order of sums in the cache: bf16 on some machines.
    assert math.isclose(sum(t.logprob for t in tokens), chosen.logps[0], rel_tol=0.05, abs_tol=0.1)
    for token in tokens:
        assert token.top_logprobs[0].logprob == token.logprob  # greedy
        assert sum(math.exp(other.logprob) for other in token.top_logprobs) <= 1 + 1e-6


def test_a_seed_decides_what_is_drawn_streamed_or_not(client: openai.OpenAI) -> None:
    texts = [
        ask(client, temperature=1.5, seed=seed).choices[0].message.content for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]
    stream = ask(client, temperature=1.5, seed=1, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == texts[0]


@pytest.mark.slow
def test_the_command_serves_until_ctrl_c() -> None:
    # In the background of a script Ctrl-C is ignored, and children inherit that.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = heard + "from remask.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/v1", line)
        assert found, process.stderr.read()
        with openai.OpenAI(base_url=found[0], api_key="none", max_retries=5) as client:
            assert [model.id for model in client.models.list()] == ["embedded"]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert (process.stdout.read(), process.stderr.read()) == ("stopped\n", "")
