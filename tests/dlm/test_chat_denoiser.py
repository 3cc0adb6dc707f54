"""All blanks of a prompt filled by one chat on the loopback: requests, answers and refusals."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import remask
from fakes import Cut
from fakes.colours import search
from fakes.server import Behaviour, Server, answer, raw, status
from fakes.writers import World, asked_by, few_rows, filled, play
from remask.api.build_models import make_denoiser
from remask.api.build_task import Given
from remask.api.job import open_job
from remask.api.optimize import reserve_test
from remask.cli.check import examine
from remask.cli.settings import Request
from remask.config import make_config
from remask.dlm.chat_denoiser import INSTRUCTION, ChatDenoiser, parse_answer, render_task
from remask.dlm.infill_api import check_fill
from remask.dlm.render import render
from remask.errors import ConfigError, TargetRefused, TargetUnreliable
from remask.events import State
from remask.models.openai import OpenAITarget
from remask.ports import Canvas, Fill, Hole, Remote, Scorer
from remask.runs.budget import Spend
from remask.runs.store import Store
from remask.types import Trace

CONTEXT = (Trace("t1", "Is it warm?", "no", desired="red", score=0.0),)
TWO: Canvas = ("Be ", Hole("kind", 3), ". Say ", Hole("it", 4), ".", Hole(" Go.", 0))


def infill(server: Server, *canvases: Canvas, seed: int = 1) -> list[Fill]:
    with OpenAITarget(
        "writer", server.url, temperature=0.8, seed=0, concurrency=1, retries=1, first_wait=0.0
    ) as target:
        return ChatDenoiser(target).infill(CONTEXT, canvases, seed)


def task(server: Server, n: int = -1) -> str:
    text: str = server.bodies[n]["messages"][-1]["content"]
    return text


# -- requests


def test_request_has_traces_blanks_and_lengths() -> None:
    with Server(default=answer('{"1": "brief", "2": "colours"}')) as server:
        assert infill(server, TWO) == [Fill(("brief", "colours", ""), 0.0)]
    (body,) = server.bodies
    assert server.paths == ["/v1/chat/completions"]
    assert body["model"] == "writer" and body["temperature"] == 0.8
    assert 0 <= body["seed"] < 2**31
    system, user = body["messages"]
    assert system == {"role": "system", "content": INSTRUCTION}
    assert user["role"] == "user"
    assert user["content"].startswith(render(CONTEXT))
    assert "\nBe [[1]]. Say [[2]].\n" in user["content"]
    assert (
        '[[1]] about 2 words, in place of "kind"\n[[2]] about 3 words, in place of "it"\n'
        in (user["content"])
    )
    assert user["content"].endswith('{"1": "…", "2": "…"}')


def test_blank_marks_differ_from_the_prompt_s_own_text() -> None:
    canvas: Canvas = ("See [[1]] and [[[2]]]. ", Hole("", 4))
    assert "See [[1]] and [[[2]]]. [[[[1]]]]\n" in render_task((), canvas)
    assert "[[[[1]]]] about 3 words, where nothing stands yet" in render_task((), canvas)


def test_equal_canvases_get_different_but_repeatable_seeds() -> None:
    logs = []
    for seed in (1, 1, 2):
        with Server(default=lambda h, b: answer(filled(b))(h, b)) as server:
            fills = infill(server, TWO, TWO, TWO, seed=seed)
        logs.append((fills, [body["seed"] for body in server.bodies]))
        assert len(set(logs[-1][1])) == server.requests == 3
    assert logs[0] == logs[1]
    assert logs[0][1] != logs[2][1]


# -- answers

ONE: Canvas = ("Be ", Hole("kind", 6), ".")


@pytest.mark.parametrize(
    "text",
    [
        '{"1": "brief", "2": "colours"}',
        '{"2": "colours", "[[1]]": "brief"}',
        'Sure:\n```json\n{"blank 1": "brief",\n "Blank_2": "colours"}\n```\nDone.',
        '{"blanks": {"1": "brief", "2": "colours"}}',
        '<think>{"1": "no", "2": "no"}</think>["brief", "colours"]',
        "[[1]] brief\n[[2]] colours",
        '1. brief\n2) "colours"',
        "**[[1]]**: brief\n\n**[[2]]**: “colours”",
        'Use {name} or {"x": 1}.\nBlank 1: brief\nBlank 2: colours',
        '{"1": "<|im_start|>brief", "2": "colours\\n\\u200b"}',
    ],
)
def test_answer_is_read_in_many_formats(text: str) -> None:
    assert parse_answer(text, TWO).texts == ("brief", "colours")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no JSON object"),
        ("Be brief. Say colours.", "no JSON object"),
        ('{"1": "brief"}', "blank 2 is missing"),
        ('{"1": "brief", "2": "x", "3": "y"}', "there is no blank '3'"),
        ('{"0": "brief", "2": "x"}', "there is no blank '0'"),
        ('{"1": "brief", "2": "x", "prompt": "Be."}', "there is no blank 'prompt'"),
        ('{"1": "brief", "1": "short", "2": "x"}', "blank 1 is filled twice"),
        ('{"1": ["brief"], "2": "x"}', "blank 1 is no text"),
        ('{"1": null, "2": "x"}', "blank 1 is no text"),
        ('{"1": "", "2": "x"}', "blank 1 is empty"),
        ('{"1": "brief", "2": "say [[2]]"}', "blank 2 still holds a blank"),
        ('{"1": "' + "long " * 30 + '", "2": "x"}', "blank 1 has about 38 tokens"),
        ('["brief"]', "blank 2 is missing"),
        ("1. brief\n3. colours", "there is no blank '3'"),
        ('{"1": "brief", "2": "cut o', "no JSON object"),
        ("[" * 5000 + "{" * 5000, "no JSON object"),
        ('{"1": ' * 3000, "no JSON object"),
    ],
)
def test_answer_with_a_problem_is_refused(text: str, problem: str) -> None:
    parsed = parse_answer(text, TWO)
    assert problem in parsed.problem and parsed.texts == ()


PIECES = st.sampled_from(['{"1": "', '"2": "x"', '"}', "[[1]] a", "\n", "2. ", '["', "</think>", "{"])


@given(st.lists(PIECES | st.text(max_size=8), max_size=20).map("".join))
def test_accepted_texts_fit_their_holes_for_any_answer(text: str) -> None:
    parsed = parse_answer(text, TWO)
    if not parsed.problem:
        assert len(parsed.texts) == 2
        for found, hole in zip(parsed.texts, (TWO[1], TWO[3]), strict=True):
            assert isinstance(hole, Hole) and check_fill(found, hole) == (found, "")


@given(st.lists(st.text("abc .,é", max_size=20).filter(str.strip), min_size=2, max_size=2))
def test_plain_texts_are_unchanged(texts: list[str]) -> None:
    wanted = tuple(" ".join(text.split()) for text in texts)
    parsed = parse_answer(json.dumps({"1": texts[0], "2": texts[1]}), TWO)
    if all(any(c.isalnum() for c in text) for text in wanted):
        assert parsed.texts == wanted
    else:
        assert "is empty" in parsed.problem


# -- unusable answers


def test_unusable_answer_is_asked_again_with_the_reason() -> None:
    script = [answer('{"1": "brief"}'), answer("no idea"), answer('["brief", "colours"]')]
    with Server(script) as server:
        assert infill(server, TWO)[0].texts == ("brief", "colours", "")
    assert "could not be used" not in task(server, 0)
    assert task(server, 1).endswith("used: blank 2 is missing. Answer again.")
    assert task(server, 2).endswith("texts of the blanks. Answer again.")
    assert len({body["seed"] for body in server.bodies}) == 3


def test_old_texts_are_kept_after_three_attempts() -> None:
    def behave(handler, body):
        good = "Go [[1]]" in body["messages"][-1]["content"]
        answer('["ahead"]' if good else "no idea")(handler, body)

    with Server(default=behave) as server:
        bad, good = infill(server, TWO, ("Go ", Hole("on", 2)))
        assert bad.texts == ("kind", "it", " Go.") and good.texts == ("ahead",)
        assert server.requests == 4
        with pytest.raises(TargetUnreliable, match="none of the denoiser's 2 answers can be used"):
            infill(server, TWO, ONE)


@pytest.mark.parametrize(
    ("fault", "requests"), [(status(500, "disk full"), 2), (raw(b"<html>"), 1), (status(400), 1)]
)
def test_failed_call_is_not_repeated(fault: Behaviour, requests: int) -> None:
    """The target has already retried it, so the canvas keeps its old texts."""
    with Server([fault] * requests, answer('["brief"]')) as server:
        failed, good = infill(server, ("A ", Hole("b", 2)), ONE)
        assert failed.texts == ("b",) and good.texts == ("brief",)
        assert server.requests == requests + 1


# -- whole runs


def test_run_counts_the_calls_that_the_server_saw(tmp_path: Path) -> None:
    with Server(default=World(status(500, headers={"Retry-After": "0"}))) as server:
        result = play(server, tmp_path / "run")
        assert result.verdict == "improved" and "colours" in result.prompt
        assert result.test.n == 20
        assert result.spend.calls == server.requests <= 220
        assert result.spend.uncertain == 0
        assert asked_by(server, "writer") > 6


@pytest.mark.parametrize("calls", [100, 130])
def test_sealed_test_is_reserved_from_the_denoiser_s_calls(tmp_path: Path, calls: int) -> None:
    """40 calls are for the test, so the denoiser may use only the rest."""
    with Server(default=World()) as server:
        result = play(server, tmp_path / "run", max_calls=calls, target_keys={"retries": 0})
        assert result.test.n == 20
        assert result.spend.calls == server.requests <= calls


def test_target_and_denoiser_have_their_own_prices(tmp_path: Path) -> None:
    world = World(usage={"prompt_tokens": 100, "completion_tokens": 10})
    read = {"input_price": 1.0, "output_price": 2.0}
    written = {"input_price": 30.0, "output_price": 40.0}
    limits = remask.Budget(calls=220, usd=1.0)
    with Server(default=world) as server:
        result = play(server, tmp_path / "run", budget=limits, target_keys=read, denoiser_keys=written)
        wrote, scored = asked_by(server, "writer"), asked_by(server, "tiny")
    assert wrote and wrote + scored == result.spend.calls
    assert result.spend.usd == pytest.approx((wrote * 3400 + scored * 13) / 1e6)
    assert result.spend.input_tokens == wrote * 100 + scored * 7
    with (
        Server(default=world) as server,
        pytest.raises(ConfigError, match=r"budget.usd needs the prices denoiser\.input_price"),
    ):
        play(server, tmp_path / "other", budget=limits, target_keys=read)


def test_token_limit_leaves_enough_for_the_sealed_test(tmp_path: Path) -> None:
    """The denoiser's calls are cheap and many: the mean over all calls would keep too little."""
    settings = make_config(config("http://127.0.0.1:1/v1"), "test")
    before = State()
    after = replace(before, scores={("p", "validation"): dict.fromkeys("abcdefgh", 1.0)})
    with (
        open_job(settings, Given(rows=few_rows())) as job,
        Store.create(tmp_path / "run", job.record) as store,
    ):
        for calls, tokens in ((8, 800), (92, 0)):
            spend = Spend(calls=calls, input_tokens=tokens)
            store.settle(store.reserve(spend, billed=True), spend, {})
        for state, tokens in ((after, 100), (before, 8)):
            kept = reserve_test(job, store, state)
            assert kept.input_tokens == round(1.3 * job.test_calls * tokens)


def test_resumed_run_asks_the_denoiser_nothing_twice(tmp_path: Path) -> None:
    with Server(default=World()) as server:
        whole = play(server, tmp_path / "whole")
    with Store.read(tmp_path / "whole") as store:
        half = len(list(store.events())) // 2
    seen = 0

    def watch(event: object, state: State, spend: object) -> None:
        nonlocal seen
        seen += 1
        if seen == half:
            raise Cut

    with Server(default=World()) as server:
        with pytest.raises(Cut):
            play(server, tmp_path / "cut", on_event=watch)
        begun = asked_by(server, "writer")
        again = remask.resume(tmp_path / "cut", data=few_rows())
        assert begun > 0
        assert again.spend.calls == server.requests == whole.spend.calls
    assert again.prompt == whole.prompt and again.test == whole.test


def test_run_ends_with_a_refused_key_or_a_dead_denoiser(tmp_path: Path) -> None:
    def behave(fault: Behaviour) -> Behaviour:
        world = World()
        return lambda handler, body: (fault if body["model"] == "writer" else world)(handler, body)

    with Server(default=behave(status(401))) as server:
        with pytest.raises(TargetRefused, match="'writer'"):
            play(server, tmp_path / "a")
        assert asked_by(server, "writer") <= 6
    with Server(default=behave(status(500, headers={"Retry-After": "0"}))) as server:
        with pytest.raises(TargetUnreliable, match="gave up after 3 attempts"):
            play(server, tmp_path / "b")
        # Three attempts for each of the first six candidates but those that no denoiser writes.
        assert asked_by(server, "writer") == 12


def test_masker_that_needs_scores_is_refused_before_a_run(tmp_path: Path) -> None:
    with Server() as server:
        with pytest.raises(ConfigError, match="masker attribution needs a denoiser that gives probabilities"):
            play(server, tmp_path / "run", search=search(maskers=["insert", "attribution"]))
        assert server.requests == 0
    assert not (tmp_path / "run").exists()


def config(url: str, **more: object) -> object:
    return {
        "prompt": "Name it. Be brief.",
        "data": {"path": "rows.jsonl", "split": "split"},
        "target": {"model": "openai:tiny", "base_url": url},
        "denoiser": {"model": "chat:writer", "base_url": url},
        **more,
    }


def test_check_reports_the_cost_of_the_denoiser_without_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in few_rows()))
    with Server() as server:
        report = examine(Request(make_config(config(server.url), "test"), None))
        assert server.requests == 0
    said = [f.text for f in report.findings]
    assert report.ok
    assert any("chat:writer at 127.0.0.1" in text and "count against" in text for text in said)
    assert any("estimated from its length" in text for text in said)
    assert any(text.startswith("denoiser: about") for text in said)
    attribution = make_config(config("http://127.0.0.1:1/v1", search={"maskers": ["attribution"]}), "test")
    found = examine(Request(attribution, None)).findings
    assert any(f.about == "denoiser" and f.kind == "problem" and "attribution" in f.text for f in found)


def test_plan_leaves_calls_for_the_denoiser() -> None:
    plans = {}  # of each, what it asks the denoiser in a round, and the validation rows
    for model in ("builtin", "chat:writer"):
        values = config("http://127.0.0.1:1/v1", denoiser={"model": model}, budget={"calls": 200})
        settings = make_config(values, "test")
        with open_job(settings, Given(rows=few_rows())) as job:
            plans[model] = (job.plan, job.denoiser_calls_per_round(job.plan), job.rows("validation"))
    (plan, asked, _), (written, writing, rows) = plans["builtin"], plans["chat:writer"]
    assert asked == 0 and writing == 2 * written.candidates
    assert written.rounds * (written.count_round_calls(rows) + writing) / 4 <= 200
    assert plan.rounds * (plan.count_round_calls(rows) + writing) / 4 > 200


def test_chat_denoiser_is_remote_and_no_scorer() -> None:
    values = config("http://127.0.0.1:1/v1")
    denoiser = make_denoiser(make_config(values, "test").denoiser)
    assert isinstance(denoiser, Remote) and not isinstance(denoiser, Scorer)
    assert denoiser.max_output == 1024
    assert '"seed": 0' in denoiser.target.identity and "temperature" not in denoiser.target.identity
    with pytest.raises(ConfigError, match=r"use builtin, .*chat:MODEL"):
        make_denoiser(make_config({"prompt": "x", "denoiser": {"model": "chat:"}}, "test").denoiser)
