"""Holes filled one at a time through a fill-in-the-middle endpoint on the loopback; and what all
denoisers behind an API share: seeds of equal chats, cleaning, lengths, useless answers."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.scripted_target import ScriptedTarget
from fakes.server import Server, raw, status
from fakes.writers import World, fills, play
from remask.api.build_models import make_denoiser
from remask.config import DenoiserConfig
from remask.dlm.infill_api import (
    CLOSING,
    LONGEST,
    OPENING,
    SEEDS,
    STOP,
    MercuryDenoiser,
    Written,
    ask,
    checked,
    estimate,
    most_tokens,
    open_holes,
    settled,
)
from remask.dlm.render import render
from remask.errors import ConfigError, TargetRefused, TargetUnreliable
from remask.models.completions import FimTarget
from remask.ports import Canvas, Fill, Hole, Reply
from remask.types import Chat, Message, Trace

CONTEXT = (Trace("t1", "Is it warm?", "no", desired="red", score=0.0),)
TWO: Canvas = ("Be ", Hole("kind", 3), ". Say ", Hole("it", 2), ".")


def open_target(server: Server) -> FimTarget:
    return FimTarget(
        "mercury-edit-2",
        server.url,
        stop=STOP,
        max_tokens=LONGEST,
        seed=0,
        concurrency=1,
        retries=1,
        sleep=lambda _: None,
    )


def infill(server: Server, *canvases: Canvas, seed: int = 1) -> list[Fill]:
    with open_target(server) as target:
        return MercuryDenoiser(target).infill(CONTEXT, canvases, seed)


def test_holes_are_filled_from_left_to_right_and_the_tail_is_the_suffix() -> None:
    with Server(fills(" brief\n", "colours ")) as server:
        assert infill(server, TWO) == [Fill(("brief", "colours"), 0.0)]
    first, second = server.bodies
    assert server.paths == ["/v1/fim/completions"] * 2
    assert first["prompt"] == f"{render(CONTEXT)}{OPENING}Be "
    assert first["suffix"] == f". Say it.{CLOSING}"
    assert second["prompt"] == f"{render(CONTEXT)}{OPENING}Be brief. Say "
    assert second["suffix"] == f".{CLOSING}"
    assert first["stop"] == second["stop"] == list(STOP) and "\n\n" not in STOP
    assert (first["max_tokens"], second["max_tokens"]) == (14, 12)
    assert first["model"] == "mercury-edit-2"
    assert first["seed"] != second["seed"]


def test_deletions_cost_no_call_and_are_gone_from_the_request() -> None:
    canvas: Canvas = ("Be kind", Hole(" and gentle", 0), ". ", Hole("", 4))
    with Server(fills("Think.")) as server:
        assert infill(server, canvas, ("Be", Hole(" kind", 0))) == [
            Fill(("", "Think."), 0.0),
            Fill(("",), 0.0),
        ]
    assert server.requests == 1
    assert server.bodies[0]["prompt"].endswith(f"{OPENING}Be kind. ")
    assert server.bodies[0]["suffix"] == CLOSING


def test_equal_canvases_are_asked_with_other_seeds_and_a_seed_gives_them_again() -> None:
    canvas: Canvas = ("Be ", Hole("kind", 3), ".")
    seeds = []
    for seed in (1, 1, 2):
        with Server(fills(*"abc"), fills("d")[0]) as server:
            assert [fill.texts for fill in infill(server, canvas, canvas, canvas, seed=seed)] == [
                ("a",),
                ("b",),
                ("c",),
            ]
            seeds.append([body["seed"] for body in server.bodies])
    assert len(set(seeds[0])) == 3
    assert seeds[0] == seeds[1] != seeds[2]


@pytest.mark.parametrize("bad", [fills("")[0], fills("word " * 40)[0], raw(b"<html>"), status(500)])
def test_a_useless_answer_gives_the_old_texts_back(bad: Callable[..., None]) -> None:
    """The first canvas fails at its second hole; the other one is filled all the same."""
    other: Canvas = ("Go ", Hole("on", 2))
    script = [*fills("brief", "ahead"), bad, bad]
    with Server(script) as server:
        first, second = infill(server, TWO, other)
    assert first.texts == ("kind", "it")
    assert second.texts == ("ahead",)


def test_where_no_answer_is_usable_that_is_an_error_with_the_reason() -> None:
    with (
        Server(default=status(500, "disk full")) as server,
        pytest.raises(TargetUnreliable, match="disk full"),
    ):
        infill(server, TWO, TWO)
    with Server(default=status(401)) as server, pytest.raises(TargetRefused, match="API key"):
        infill(server, TWO)


@given(
    st.lists(
        st.text("ab .", max_size=6)
        | st.builds(Hole, st.text("cd ", max_size=6), st.integers(0, 5)),
        max_size=8,
    )
)
def test_every_hole_gets_one_text_whatever_the_canvas(parts: list[str | Hole]) -> None:
    canvas = tuple(parts)
    target = ScriptedTarget(lambda chat: "new")
    (fill,) = MercuryDenoiser(target).infill((), [canvas], 0)
    holes = [part for part in canvas if isinstance(part, Hole)]
    assert fill.texts == tuple("new" if hole.tokens else "" for hole in holes)


def test_a_whole_run_books_what_the_server_saw(tmp_path: Path) -> None:
    with Server(default=World(status(429, headers={"Retry-After": "0"}))) as server:
        result = play(server, tmp_path / "run", "mercury:pen")
        asked = [body for body in server.bodies if body["model"] == "pen"]
        assert result.verdict == "improved" and "colours" in result.prompt
        assert result.test.n == 20
        assert result.spend.calls == server.requests <= 220
        assert asked and {path for path in server.paths if "fim" in path} == {"/v1/fim/completions"}


def test_the_key_is_that_of_the_provider_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-provider")
    monkeypatch.delenv("INCEPTION_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="set the variable INCEPTION_API_KEY"):
        make_denoiser(DenoiserConfig(model="mercury"))
    monkeypatch.setenv("INCEPTION_API_KEY", "sk-inception")
    denoiser = make_denoiser(DenoiserConfig(model="mercury"))
    assert isinstance(denoiser, MercuryDenoiser)
    identity = denoiser.target.identity
    assert identity.startswith("fim:mercury-edit-2@api.inceptionlabs.ai/v1/fim ")
    assert "temperature" not in json.loads(identity.split(" ", 1)[1])


# -- what denoisers behind an API share -------------------------------------------------------


class Recording:
    """Answers with its question and the repeat."""

    identity, billed, max_attempts = "recording", False, 1

    def __init__(self) -> None:
        self.asked: list[tuple[Chat, int]] = []

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        self.asked += [(chat, repeat) for chat in chats]
        return [Reply(f"{chat[0].content} {repeat}") for chat in chats]


@given(st.lists(st.sampled_from("abc"), max_size=12), st.integers(0, 2**61))
def test_equal_chats_get_other_seeds_and_all_come_back_in_order(
    questions: list[str], seed: int
) -> None:
    chats = [(Message("user", q),) for q in questions]
    target = Recording()
    replies = ask(target, chats, seed)
    assert [reply.text[0] for reply in replies] == questions
    assert len(set(target.asked)) == len(chats)
    assert all(0 <= repeat < SEEDS for _, repeat in target.asked)
    assert ask(Recording(), chats, seed) == replies


def test_lengths_are_estimated_from_bytes() -> None:
    assert [estimate(text) for text in ("", "a", "four", "fives", "颜色颜色")] == [0, 1, 1, 2, 3]


def test_an_answer_is_cleaned_and_never_a_deletion() -> None:
    hole = Hole("old", 4)
    text = "<|im_start|> Think\u200b of\n\n colours.[/INST]\x07"
    assert checked(text, hole) == ("Think of colours.", "")
    for empty in ("", "  \n", "<|im_end|>", "…", "\u200b"):
        assert checked(empty, hole) == ("", "is empty")
    longest = "abc " * most_tokens(hole)
    assert checked(longest, hole)[1] == ""
    assert "at most 16 are allowed" in checked(longest + "abc abc", hole)[1]


CANVAS = ("A ", Hole("b", 2), " c ", Hole("d", 0), " e ", Hole("f", 3))


def test_a_canvas_without_an_answer_keeps_its_old_texts() -> None:
    assert [hole.old for hole in open_holes(CANVAS)] == ["b", "f"]
    good, bad = Written(("x", "y")), Written(("x",), "is empty")
    deletion = ("A", Hole(" b", 0))
    assert settled([CANVAS, CANVAS, deletion], {0: good, 1: bad}) == [
        Fill(("x", "", "y"), 0.0),
        Fill(("b", "d", "f"), 0.0),
        Fill(("",), 0.0),
    ]
    assert settled([deletion], {}) == [Fill(("",), 0.0)]


def test_where_no_answer_is_usable_that_is_an_error() -> None:
    with pytest.raises(TargetUnreliable, match=r"none of the denoiser's 2 answers .*: is empty"):
        settled([CANVAS, CANVAS], {0: Written(problem="is empty"), 1: Written(problem="is long")})
