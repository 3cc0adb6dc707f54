"""Providers of Inspect as targets, with their real SDKs on the loopback: what is sent, what comes
back, and that every failure is one sentence and never an answer."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from fakes import ENV
from fakes.anthropic_server import error, message
from fakes.chats import chat, chats
from fakes.server import Behaviour, Server, answer, completion, reset, shaped, silent, status
from remask.errors import BackendError, ConfigError, TargetRefused
from remask.ids import content_id
from remask.models.providers import InspectTarget
from remask.ports import Reply

# Of inspect_evals, which Inspect loads where it is installed.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

KEY = "sk-very-secret-0123456789"
FIND = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Find a person.",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}
SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}, "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}


@dataclass
class Provider:
    """A provider with a server in its own form."""

    name: str
    fine: Behaviour

    def fail(
        self, code: int, kind: str, text: str = "because", headers: dict[str, str] | None = None
    ) -> Behaviour:
        if self.name.startswith("anthropic"):
            return error(code, kind, text, headers)
        return status(code, text, kind, headers)

    def open(self, server: Server, **settings: Any) -> InspectTarget:
        url = server.url.removesuffix("/v1") if self.name.startswith("anthropic") else server.url
        return InspectTarget(self.name, url, **{"timeout": 10.0, "first_wait": 0.001, **settings})

    def ask(self, *script: Behaviour, retries: int = 2, **settings: Any) -> tuple[Reply, Server]:
        """The reply to one chat under `script`, whose last behaviour is repeated."""
        with Server(script, script[-1]) as server, self.open(server, retries=retries, **settings) as target:
            (reply,) = target.respond([chat()])
        assert KEY not in repr(reply) and KEY not in target.identity
        return reply, server


@pytest.fixture(params=["openai-api/desk/m", "anthropic/m"])
def provider(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    pytest.importorskip(request.param.partition("/")[0].partition("-")[0])
    monkeypatch.setenv("DESK_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    yield Provider(request.param, message() if request.param.startswith("anthropic") else answer())


def test_reply_has_text_and_all_tokens(provider: Provider) -> None:
    reply, server = provider.ask(provider.fine)
    assert reply == Reply("HELLO", input_tokens=7, output_tokens=3)
    (body,) = server.bodies
    assert body["model"] == "m" and body["max_tokens"] == 256
    assert "cache_control" not in str(body)  # writing to a cache costs more than the price says
    said = str(body["messages"]) + str(body.get("system"))
    assert "Be brief." in said and "hello" in said


def test_answers_keep_their_order_and_at_most_so_many_are_asked_at_once(provider: Provider) -> None:
    with Server(default=provider.fine) as server, provider.open(server, concurrency=4) as target:
        replies = target.respond(chats(*range(40)))
    assert [reply.text for reply in replies] == [str(n) for n in range(40)]
    assert server.requests == 40


@pytest.mark.parametrize("code", [429, 500, 503, 529])
def test_busy_provider_is_asked_again_by_remask_alone(provider: Provider, code: int) -> None:
    busy = provider.fail(code, "rate_limit_error", headers={"retry-after": "0"})
    reply, server = provider.ask(busy, provider.fine)
    assert reply.text == "HELLO" and server.requests == 2
    reply, server = provider.ask(busy)
    assert server.requests == 3  # neither Inspect nor the SDK tried again by itself
    assert reply.error == f"127.0.0.1 answered {code} (because); gave up after 3 attempts"
    assert reply.attempts == (0 if code in (429, 503) else 3)  # as for other targets


@pytest.mark.parametrize(
    ("code", "todo"),
    [(401, "check the API key"), (403, "may use"), (404, "check the model name"), (402, "billing")],
)
def test_refusal_is_the_sentence_of_other_targets(provider: Provider, code: int, todo: str) -> None:
    fault = provider.fail(code, "some_error", f"no; the key was {KEY}")
    with (
        Server(default=fault) as server,
        provider.open(server) as target,
        pytest.raises(TargetRefused) as caught,
    ):
        target.respond([chat()])
    assert server.requests == 1
    start = f"127.0.0.1 refuses calls to '{provider.name}' with status {code} (no; the key was [key]); "
    assert str(caught.value).startswith(start) and todo in str(caught.value)
    assert caught.value.__context__ is None  # the exception of the SDK may hold the key


@pytest.mark.parametrize("kind", ["context_length_exceeded", "invalid_request_error"])
def test_a_chat_that_is_too_long_is_an_error_and_not_an_answer(provider: Provider, kind: str) -> None:
    """Inspect makes an answer of this error, whose text would be scored."""
    reply, server = provider.ask(provider.fail(400, kind, "prompt is too long: 9 tokens > 8 maximum"))
    assert "prompt is too long: 9 tokens > 8 maximum" in reply.error and server.requests == 1
    assert reply.text == "" and "\n" not in reply.error


def test_a_filtered_chat_is_an_error_and_not_an_answer(provider: Provider) -> None:
    reply, _ = provider.ask(provider.fail(400, "content_filter", "blocked by content filtering policy"))
    assert reply.error and reply.text == ""


def test_refused_temperature_is_left_out_and_said(provider: Provider) -> None:
    refusal = provider.fail(400, "invalid_request_error", "`temperature` is deprecated for this model")
    with Server([refusal], provider.fine) as server, provider.open(server) as target:
        (reply,) = target.respond([chat()])
        assert any("refuses temperature" in note for note in target.notes)
    assert reply.text == "HELLO" and "temperature" not in server.bodies[1]


def test_late_answers_and_broken_connections_are_retried(provider: Provider) -> None:
    reply, _ = provider.ask(silent(5.0), provider.fine, timeout=0.6)
    assert reply.text == "HELLO" and reply.attempts == 2
    reply, server = provider.ask(reset)
    assert reply.error.startswith("no connection to 127.0.0.1 (") and server.requests == 3


def test_a_server_that_is_not_there_costs_nothing(provider: Provider) -> None:
    with Server() as server:
        pass
    with provider.open(server, retries=0) as target:
        (reply,) = target.respond([chat()])
    assert "no connection to 127.0.0.1" in reply.error and reply.attempts == 0


def test_settings_and_fields_arrive(provider: Provider) -> None:
    extra = {"stop": "END", "service_tier": "auto", "odd": 1, "response_format": FORMAT}
    _, server = provider.ask(provider.fine, extra=extra, seed=5, headers={"x-team": "desk"})
    (body,) = server.bodies
    assert body.get("stop") == ["END"] or body.get("stop_sequences") == ["END"]
    assert body["service_tier"] == "auto" and body["odd"] == 1
    assert "'x': {'type': 'string'" in str(body.get("response_format") or body.get("output_format"))
    assert body.get("seed", 5) == 5


def test_headers_are_sent_and_take_variables(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setenv("TEAM", "desk")

    def look(handler: Any, body: Any) -> None:
        seen.append(handler.headers["x-team"])
        provider.fine(handler, body)

    provider.ask(look, headers={"x-team": "$TEAM"})
    assert seen == ["desk"]


def test_a_tool_is_offered_and_its_call_is_the_answer(provider: Provider) -> None:
    if provider.name.startswith("anthropic"):
        part = {"type": "tool_use", "id": "t", "name": "find", "input": {"name": "Ann"}}
        called = message(stop="tool_use", parts=[{"type": "text", "text": "I look."}, part])
    else:
        payload = completion("I look.", "tool_calls")
        call = {"id": "t", "type": "function", "function": {"name": "find", "arguments": '{"name": "Ann"}'}}
        payload["choices"][0]["message"]["tool_calls"] = [call]
        called = shaped(payload)
    reply, server = provider.ask(called, extra={"tools": [FIND], "tool_choice": "required"})
    assert reply.text == 'I look.\nfind(name="Ann")'
    assert "Find a person." in str(server.bodies[0]["tools"])
    assert server.bodies[0]["tool_choice"] in ("required", {"type": "any"})


def test_thoughts_are_no_answer_and_a_cut_is_noted(provider: Provider) -> None:
    if provider.name.startswith("anthropic"):
        thought = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
        both, cut = message(parts=[thought, {"type": "text", "text": "yes"}]), message(stop="max_tokens")
        alone = message(stop="max_tokens", parts=[thought])
    else:
        both, cut = answer("<think>Hm.</think>yes"), answer(finish="length")
        alone = answer("<think>Hm.", finish="length")
    assert provider.ask(both)[0].text == "yes"
    assert provider.ask(cut)[0] == Reply("HELLO", input_tokens=7, output_tokens=3, cut=True)
    assert "cut off at max_tokens = 256" in provider.ask(alone)[0].error


def test_identity_has_all_that_changes_an_answer_and_no_more(provider: Provider) -> None:
    def identity(url: str = "http://127.0.0.1:1", **settings: Any) -> str:
        with InspectTarget(provider.name, url, **settings) as target:
            return content_id(target.identity)

    base = identity()
    changes = [
        {"url": "http://127.0.0.1:2"},
        {"temperature": 0.5},
        {"temperature": None},
        {"max_tokens": 9},
        {"seed": 1},
        {"extra": {"top_p": 0.5}},
        {"extra": {"tools": [FIND]}},
        {"model_args": {"default_query": {"version": "2"}}},
    ]
    assert len({base, *(identity(**change) for change in changes)}) == 1 + len(changes)
    for same in ({"retries": 0}, {"concurrency": 1}, {"timeout": 1.0}, {"headers": {"x-team": "a"}}):
        assert identity(**same) == base


@pytest.mark.parametrize(
    ("name", "settings", "kind", "words"),
    [
        (
            "nobody/m",
            {},
            ConfigError,
            "no provider .nobody.; write inspect:PROVIDER/MODEL.* anthropic, .*vllm",
        ),
        ("claude", {}, ConfigError, "'inspect:claude' names no model; write inspect:PROVIDER/MODEL"),
        ("openai/ ", {}, ConfigError, "names no model"),
        ("", {}, ConfigError, "names no model"),
        ("openai-api/m", {}, ConfigError, "service prefix"),
        ("openai/m", {}, BackendError, "OPENAI_API_KEY.* defined in the environment"),
        ("mistral/m", {}, BackendError, "pip install mistralai"),
        ("vllm/m", {}, ConfigError, "starts no server for inspect:vllm/m; .*--base-url.*VLLM_BASE_URL"),
        ("sglang/m", {}, ConfigError, "starts no server for inspect:sglang/m"),
        ("google/m", {}, BackendError, "pip install google-genai"),
        ("groq/m", {}, BackendError, "pip install groq"),
        ("mockllm/m", {"key_env": "NO_SUCH_KEY"}, ConfigError, "set the variable NO_SUCH_KEY"),
        ("mockllm/m", {"extra": {"odd": 1}}, ConfigError, "takes no field 'odd' of extra; known: .*top_p"),
        ("mockllm/m", {"extra": {"top_p": "much"}}, ConfigError, "extra.top_p = 'much'"),
        ("mockllm/m", {"extra": {"max_retries": 3}}, ConfigError, "set retries in its place"),
        ("mockllm/m", {"extra": {"timeout": 3}}, ConfigError, "set timeout in its place"),
        ("mockllm/m", {"extra": {"cache": True}}, ConfigError, "extra.cache is not used"),
        ("mockllm/m", {"extra": {"tools": [{"function": "find"}]}}, ConfigError, "extra.tools"),
        ("mockllm/m", {"extra": {"tools": ["find"]}}, ConfigError, "extra.tools"),
        ("mockllm/m", {"extra": {"tool_choice": {"type": "function"}}}, ConfigError, "extra.tool_choice"),
        ("mockllm/m", {"extra": {"tool_choice": 7}}, ConfigError, "extra.tool_choice"),
        ("mockllm/m", {"extra": {"extra_body": 5}}, ConfigError, "extra.extra_body cannot be set: write"),
        ("mockllm/m", {"extra": {"model": "other"}}, ConfigError, "extra.model cannot be set"),
        (
            "mockllm/m",
            {"extra": {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}},
            ConfigError,
            "extra.response_format",
        ),
        (
            "mockllm/m",
            {"extra": {"response_format": {**FORMAT, "json_schema": {"name": "a", "schema": {"$defs": {}}}}}},
            ConfigError,
            r"extra.response_format has '\$defs', which Inspect cannot pass on",
        ),
        ("bedrock/m", {"headers": {"x-team": "a"}}, ConfigError, "bedrock of Inspect takes no headers"),
        ("mockllm/m", {"headers": {"x": "$NO_SUCH"}}, ConfigError, "needs the variable NO_SUCH"),
        ("openai-api/desk/m", {"model_args": {"odd": 1}}, ConfigError, "odd"),
        ("mockllm/m", {"timeout": 0}, ConfigError, "timeout is 0"),
    ],
)
def test_what_is_wrong_is_one_sentence_before_a_call(
    name: str, settings: dict[str, Any], kind: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OPENAI_API_KEY", "AZUREAI_OPENAI_API_KEY", "VLLM_BASE_URL", "SGLANG_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DESK_API_KEY", KEY)
    monkeypatch.setenv("DESK_BASE_URL", "http://127.0.0.1:1/v1")
    with pytest.raises(kind, match=words) as caught:
        InspectTarget(name, **settings)
    assert "\n" not in str(caught.value) and "[bold]" not in str(caught.value)


def test_key_of_a_named_variable_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with Server() as server, InspectTarget("openai-api/desk/m", server.url, key_env="MY_KEY") as target:
        target.respond([chat()])
    assert server.keys == [f"Bearer {KEY}"]


def set_key(provider: Provider, key: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set the provider's own variable."""
    own = "ANTHROPIC_API_KEY" if provider.name.startswith("anthropic") else "DESK_API_KEY"
    monkeypatch.setenv(own, key)
    return {}


def set_named_key(provider: Provider, key: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set a variable that the user names."""
    monkeypatch.setenv("MY_KEY", key)
    return {"key_env": "MY_KEY"}


@pytest.mark.parametrize("place", [set_key, set_named_key])
def test_a_line_break_after_a_key_is_not_sent(
    provider: Provider, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = place(provider, f"{KEY}\n", monkeypatch)
    reply, server = provider.ask(provider.fine, **settings)
    assert reply.text == "HELLO"
    assert "anthropic" in provider.name or server.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize("place", [set_key, set_named_key])
@pytest.mark.parametrize("key", [f"{KEY}\nand more", "sk-schlüssel-0123"])
def test_a_key_that_cannot_be_one_is_refused_before_a_call_and_not_repeated(
    provider: Provider, place: Any, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = place(provider, key, monkeypatch)
    with Server() as server, pytest.raises(ConfigError, match="the API key holds characters") as caught:
        provider.open(server, **settings)
    assert key[:8] not in str(caught.value)


@pytest.mark.parametrize("key", ["", "  "])
def test_an_empty_key_is_no_key(provider: Provider, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_key(provider, key, monkeypatch)
    with Server() as server, pytest.raises((ConfigError, BackendError), match=r"no API key|defined in"):
        provider.open(server)


@pytest.mark.parametrize("code", [302, 307])
def test_prompts_follow_no_redirect(provider: Provider, code: int) -> None:
    with Server(default=provider.fine) as other:
        away = status(code, headers={"location": f"{other.url}/messages"})
        with Server(default=away) as server, provider.open(server) as target:
            with pytest.raises(TargetRefused, match=f"127.0.0.1 redirects to {other.url}"):
                target.respond([chat()])
            assert server.requests == 1
        assert other.requests == 0


@pytest.mark.parametrize("body", [{"choices": []}, {"choices": {}}, {"id": 5}, []])
def test_an_answer_of_another_form_is_one_sentence(provider: Provider, body: Any) -> None:
    reply, _ = provider.ask(shaped(body), retries=0)
    assert reply.error.startswith("127.0.0.1") and reply.text == ""
    assert "no connection" not in reply.error


@pytest.mark.parametrize("name", ["vllm/m", "ollama/m", "together/m", "openrouter/a/m", "deepseek/m"])
def test_providers_that_speak_as_openai_does_make_no_retries(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{name.partition('/')[0].upper()}_API_KEY", KEY)
    with (
        Server(default=status(500, headers={"retry-after": "0"})) as server,
        InspectTarget(name, server.url, retries=1, first_wait=0.001) as target,
    ):
        (reply,) = target.respond([chat()])
    assert "answered 500 (no); gave up after 2 attempts" in reply.error
    assert server.requests == 2


def test_warnings_of_inspect_are_notes_for_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    with InspectTarget("mockllm/m") as target:
        logging.getLogger("inspect_ai.model._model").warning("m takes no\ntemperature")
        assert target.notes == ("m takes no temperature",)
    assert capsys.readouterr().err == ""
    assert not logging.getLogger("inspect_ai").handlers


def test_inspect_is_loaded_only_where_a_model_is_made() -> None:
    code = (
        "import sys, remask.models.providers, remask.api.build_models\n"
        "heavy = {'inspect_ai', 'openai', 'anthropic', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=ENV)
