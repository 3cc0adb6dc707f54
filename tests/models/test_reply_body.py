"""What an endpoint sends as an answer: thoughts, parts of text, cut answers, hostile bodies."""

import json
import time

import pytest

from fakes.chats import chat
from fakes.server import Body, Handler, Server, answer, completion, raw, shaped, status
from remask.errors import ConfigError, TargetRefused
from remask.models.openai import OpenAITarget
from remask.models.requests import FAILURES_AT_FIRST
from remask.ports import Reply


def ask(payload: Body) -> Reply:
    with Server(default=shaped(payload)) as server, OpenAITarget("m", server.url, retries=0) as target:
        (reply,) = target.respond([chat()])
    return reply


def message(content: object, finish: str = "stop", **more: object) -> Body:
    payload = completion(content, finish)
    payload["choices"][0]["message"] |= more
    return payload


@pytest.mark.parametrize(
    "content",
    [
        "<think>It could be positive.</think>\n\nnegative",
        "It could be positive.</think>\n\nnegative",
        "<thinking>positive?</thinking>negative",
        "[THINK]positive?[/THINK]negative",
        "◁think▷positive?◁/think▷negative",
        "<|channel|>analysis<|message|>positive?<|end|><|start|>assistant<|channel|>final<|message|>negative",
        [{"type": "thinking", "thinking": "positive?"}, {"type": "text", "text": "negative"}],
        [{"type": "text", "text": "nega"}, {"type": "text", "text": "tive"}],
    ],
)
def test_thoughts_are_no_answer_and_parts_are_joined(content: object) -> None:
    reply = ask(message(content))
    assert (reply.text, reply.error) == ("negative", "")


@pytest.mark.parametrize(
    "payload",
    [
        message("", "length"),
        message(None, "length"),
        message("<think>It could be", "MAX_TOKENS"),
        message("<think>It could be", "length"),
        message("<think>It could be"),
        message(None, reasoning_content="It could be"),
        message("", reasoning="It could be"),
        message([{"type": "thinking", "thinking": "It could be"}]),
    ],
)
def test_an_answer_without_text_fails_and_names_max_tokens(payload: Body) -> None:
    reply = ask(payload)
    assert reply.text == "" and "max_tokens" in reply.error


def test_an_answer_that_was_cut_off_is_marked() -> None:
    assert ask(message("The review is pos", "length")).cut
    assert not ask(message("positive")).cut


def test_a_hostile_body_is_an_error_of_its_row() -> None:
    nested = b"[" * 100_000 + b"]" * 100_000
    with Server([raw(nested)]) as server, OpenAITarget("m", server.url, retries=0) as target:
        assert "no JSON" in target.respond([chat()])[0].error
    payload = message("fine")
    payload["usage"] = {"prompt_tokens": 10**40, "completion_tokens": -1}
    assert ask(payload) == Reply("fine")


def test_a_body_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remask.models.openai.MAX_BODY_BYTES", 1000)
    with Server(default=raw(b" " * 5000)) as server, OpenAITarget("m", server.url, retries=0) as target:
        assert "sent more than" in target.respond([chat()])[0].error


def test_the_timeout_is_of_the_whole_attempt() -> None:
    """A server that sends a byte every 50 ms is never silent, and never done."""

    def drip(handler: Handler, body: Body) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        try:
            while not handler.server.owner.closing.wait(0.05):
                handler.wfile.write(b" ")
                handler.wfile.flush()
        except OSError:
            handler.close_connection = True

    with Server(default=drip) as server, OpenAITarget("m", server.url, retries=0, timeout=0.5) as target:
        assert "no answer within 0.5 s" in target.respond([chat()])[0].error


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_no_redirect_is_followed(code: int) -> None:
    with Server() as other:
        moved = status(code, headers={"Location": f"{other.url}/chat/completions"})
        with (
            Server(default=moved) as server,
            OpenAITarget("m", server.url, "sk-secret") as target,
            pytest.raises(TargetRefused, match=r"redirects to .*set base_url"),
        ):
            target.respond([chat()])
        assert server.requests == 1 and other.requests == 0


def test_a_part_of_an_answer_that_a_filter_stopped_fails() -> None:
    reply = ask(message("The review is", "content_filter"))
    assert reply.text == "" and "only a part of an answer" in reply.error


@pytest.mark.parametrize(("key", "shown"), [("x", "no context for x"), ("secret-key", "no [key]s")])
def test_a_key_is_hidden_and_words_with_its_letters_are_not(key: str, shown: str) -> None:
    said = "no context for x" if key == "x" else f"no {key}s"
    with Server(default=status(400, said)) as server, OpenAITarget("m", server.url, key, retries=0) as target:
        assert shown.replace(" x", " [key]") in target.respond([chat()])[0].error


# --- fields that a server refuses

# How servers say that they do not take a temperature of 0.
REFUSALS: list[tuple[int, object]] = [
    (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "temperature"],
                       "msg": "Extra inputs are not permitted", "input": 0}]}),  # Mistral, FastAPI
    (400, [{"error": {"code": 400, "status": "INVALID_ARGUMENT",
                      "message": 'Unknown name "temperature": Cannot find field.'}}]),  # Gemini
    (400, {"type": "error", "error": {"message": "`temperature` is deprecated for this model."}}),
    (422, {"error": "Input validation error: `temperature` must be strictly positive"}),  # TGI
    (400, {"error": {"message": "temperature must be in (0, 2]", "param": "temperature"}}),
    (400, {"object": "error", "message": "temperature is not supported", "code": 400}),  # vLLM
]  # fmt: skip


@pytest.mark.parametrize(("code", "body"), REFUSALS)
def test_a_refused_field_is_left_out_in_whatever_form_it_is_named(code: int, body: object) -> None:
    def behave(handler: Handler, request: Body) -> None:
        if "temperature" in request:
            handler.send(code, json.dumps(body).encode())
        else:
            answer("fine")(handler, request)

    with Server(default=behave) as server, OpenAITarget("m", server.url, retries=0) as target:
        assert target.respond([chat()])[0].text == "fine"
        assert "refuses temperature" in target.notes[0]


def refuse(field: str, named: bool) -> object:
    """A server that refuses a field, as OpenAI does with its code, or others in words alone."""

    def behave(handler: Handler, body: Body) -> None:
        if field not in body:
            answer()(handler, body)
            return
        error = {"message": f"Unsupported parameter: '{field}' is not supported with this model."}
        if named:
            error |= {"code": "unsupported_parameter", "param": field}
        handler.send(400, json.dumps({"error": error}).encode())

    return behave


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("field", "sent"), [("max_tokens", {"max_completion_tokens": 256}), ("temperature", {}), ("seed", {})]
)
def test_a_field_that_the_server_refuses_is_left_out(field: str, sent: Body, named: bool) -> None:
    with (
        Server(default=refuse(field, named)) as server,
        OpenAITarget("m", server.url, seed=1, retries=0, concurrency=1) as target,
    ):
        replies = target.respond([chat("a"), chat("b")])
        assert [reply.text for reply in replies] == ["A", "B"]
        assert server.requests == 3  # asked once more for the first row, and remembered
        assert sum(reply.attempts for reply in replies) == 3
        last = server.bodies[-1]
        assert field not in last and sent.items() <= last.items()
        assert len(target.notes) == 1 and field in target.notes[0]


def test_a_field_that_the_user_gave_is_never_left_out() -> None:
    with (
        Server(default=refuse("temperature", True)) as server,
        OpenAITarget("m", server.url, temperature=None, extra={"temperature": 1}) as target,
        pytest.raises(TargetRefused, match="temperature"),
    ):
        target.respond([chat()])


def test_extra_fields_and_headers_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGANISATION", "acme")
    seen = []

    def behave(handler: Handler, body: Body) -> None:
        seen.append(handler.headers["x-organisation"])
        answer()(handler, body)

    extra = {"reasoning_effort": "low", "provider": {"order": ["a"]}}
    headers = {"X-Organisation": "$ORGANISATION"}
    with (
        Server(default=behave) as server,
        OpenAITarget("m", server.url, extra=extra, headers=headers) as target,
    ):
        target.respond([chat()])
    assert extra.items() <= server.bodies[0].items() and seen == ["acme"]
    assert "acme" not in target.identity and "low" in target.identity
    with pytest.raises(ConfigError, match="variable NOT_SET"):
        OpenAITarget("m", server.url, headers={"X": "$NOT_SET"})


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"X Team": "a"}, "'X Team', which is no name of a header"),
        ({"": "a"}, "'', which is no name of a header"),
        ({"X-Team": "secret\nX-Other: b"}, "the value of the header X-Team holds line breaks"),
        ({"X-Team": "Schlüssel"}, "the value of the header X-Team holds"),
    ],
)
def test_a_header_that_cannot_be_one_is_refused_before_a_call(headers: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        OpenAITarget("m", "http://127.0.0.1:9/v1", headers=headers)
    assert "secret" not in str(caught.value)


def test_a_line_break_after_the_variable_of_a_header_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM", "desk\n")
    with Server() as server, OpenAITarget("m", server.url, headers={"X-Team": "$TEAM"}) as target:
        assert target.respond([chat()])[0].text == "HELLO"


@pytest.mark.parametrize("field", ["model", "messages", "stream", "n", "max_tokens", "extra_headers"])
def test_a_field_that_remask_sets_itself_is_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=rf"extra\.{field} cannot be set: "):
        OpenAITarget("m", "http://127.0.0.1:9/v1", extra={field: 3})


# --- rows and endpoints that fail


def test_a_refusal_of_one_row_fails_that_row() -> None:
    def moderated(handler: Handler, body: Body) -> None:
        bad = "bad" in body["messages"][-1]["content"]
        (status(403, "flagged by moderation") if bad else answer())(handler, body)

    with Server(default=moderated) as server, OpenAITarget("m", server.url, concurrency=1) as target:
        replies = target.respond([chat("bad 1"), chat("a"), chat("bad 2"), chat("bad 3"), chat("bad 4")])
        assert [reply.text for reply in replies] == ["", "A", "", "", ""]
        assert "flagged by moderation" in replies[0].error
        assert target.respond([chat("bad 5")])[0].error  # the endpoint has answered before


@pytest.mark.parametrize("concurrency", [1, 8])
def test_the_first_calls_may_be_refused_where_others_are_answered(concurrency: int) -> None:
    """The first three of ten rows are moderated, and their refusals come before any answer."""

    def moderated(handler: Handler, body: Body) -> None:
        bad = "bad" in body["messages"][-1]["content"]
        if not bad:
            time.sleep(0.1)
        (status(403, "flagged by moderation") if bad else answer())(handler, body)

    rows = [*("bad 1", "bad 2", "bad 3"), *map(str, range(7))]
    with (
        Server(default=moderated) as server,
        OpenAITarget("m", server.url, concurrency=concurrency) as target,
    ):
        replies = target.respond([chat(row) for row in rows])
    assert [bool(reply.error) for reply in replies] == [True] * 3 + [False] * 7


def test_refused_rows_after_an_answer_do_not_cost_the_rows_behind_them() -> None:
    rows = [*["forbidden"] * 12, *["fine"] * 5]

    def moderated(handler: Handler, body: Body) -> None:
        forbidden = body["messages"][-1]["content"] == "forbidden"
        (status(400, "content filter") if forbidden else answer())(handler, body)

    with Server(default=moderated) as server, OpenAITarget("m", server.url, concurrency=1) as target:
        target.respond([chat("fine")])  # the endpoint works
        replies = target.respond([chat(row) for row in rows])
    assert [bool(reply.error) for reply in replies] == [True] * 12 + [False] * 5


def test_rows_that_wait_for_a_retry_in_an_outage_keep_their_reason() -> None:
    with (
        Server(default=status(502, "bad gateway")) as server,
        OpenAITarget("m", server.url, concurrency=8, first_wait=0.01) as target,
    ):
        replies = target.respond([chat(str(i)) for i in range(10)])
    assert all("bad gateway" in reply.error for reply in replies if reply.attempts)


def test_an_endpoint_that_fails_from_the_start_is_given_up_after_a_few_rows() -> None:
    with (
        Server(default=status(400, "no system role")) as server,
        OpenAITarget("m", server.url, concurrency=2) as target,
    ):
        replies = target.respond([chat(str(i)) for i in range(100)])
    assert server.requests <= FAILURES_AT_FIRST + 2
    assert all(reply.error for reply in replies) and "no system role" in replies[0].error
    assert sum(reply.attempts for reply in replies) == server.requests


@pytest.mark.parametrize("content", [None, ""])
def test_a_call_of_a_tool_is_the_answer_as_text(content: str | None) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "find", "arguments": '{"name": "Ann"}'}}
    other = {"id": "d", "type": "function", "function": {"name": "stop", "arguments": "not JSON"}}
    reply = ask(message(content, "tool_calls", tool_calls=[call, other]))
    assert reply == Reply('find(name="Ann")\nstop(not JSON)', input_tokens=7, output_tokens=3)


def test_text_before_a_call_of_a_tool_stays() -> None:
    call = {"function": {"name": "find", "arguments": ""}}
    assert ask(message("I look.", "tool_calls", tool_calls=[call, "odd"])).text == "I look.\nfind()"
