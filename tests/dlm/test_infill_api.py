"""Holes filled one at a time through a fill-in-the-middle endpoint on the loopback, and the parts
that all denoisers behind an API share: seeds of equal chats, cleaning, lengths, bad answers."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.colours import search
from fakes.scripted_target import ScriptedTarget
from fakes.server import Server, raw, status
from fakes.writers import World, fills, play
from remask.api.build_models import make_denoiser
from remask.config import DenoiserConfig
from remask.dlm.infill_api import (
    MAX_ANSWER_TOKENS,
    PROMPT_END,
    PROMPT_START,
    SEED_RANGE,
    STOP_SEQUENCES,
    CanvasAnswer,
    MercuryDenoiser,
    ask_target,
    check_fill,
    estimate_tokens,
    find_max_tokens,
    find_open_holes,
    make_fills,
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
        stop=STOP_SEQUENCES,
        max_tokens=MAX_ANSWER_TOKENS,
        seed=0,
        concurrency=1,
        retries=1,
        first_wait=0.0,
    )


def infill(server: Server, *canvases: Canvas, seed: int = 1) -> list[Fill]:
    with open_target(server) as target:
        return MercuryDenoiser(target).infill(CONTEXT, canvases, seed)


def test_holes_are_filled_from_left_to_right() -> None:
    with Server(fills(" brief\n", "colours ")) as server:
        assert infill(server, TWO) == [Fill(("brief", "colours"), 0.0)]
    first, second = server.bodies
    assert server.paths == ["/v1/fim/completions"] * 2
    assert first["prompt"] == f"{render(CONTEXT)}{PROMPT_START}Be "
    assert first["suffix"] == f". Say it.{PROMPT_END}"
    assert second["prompt"] == f"{render(CONTEXT)}{PROMPT_START}Be brief. Say "
    assert second["suffix"] == f".{PROMPT_END}"
    assert first["stop"] == second["stop"] == list(STOP_SEQUENCES) and "\n\n" not in STOP_SEQUENCES
    assert (first["max_tokens"], second["max_tokens"]) == (14, 12)
    assert first["model"] == "mercury-edit-2"
    assert first["seed"] != second["seed"]


def test_deletions_make_no_call_and_are_not_in_the_request() -> None:
    canvas: Canvas = ("Be kind", Hole(" and gentle", 0), ". ", Hole("", 4))
    with Server(fills("Think.")) as server:
        assert infill(server, canvas, ("Be", Hole(" kind", 0))) == [
            Fill(("", "Think."), 0.0),
            Fill(("",), 0.0),
        ]
    assert server.requests == 1
    assert server.bodies[0]["prompt"].endswith(f"{PROMPT_START}Be kind. ")
    assert server.bodies[0]["suffix"] == PROMPT_END


def test_equal_canvases_get_different_but_repeatable_seeds() -> None:
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
def test_unusable_answer_keeps_the_old_texts(bad: Callable[..., None]) -> None:
    """The first canvas fails at its second hole; the other one is filled."""
    other: Canvas = ("Go ", Hole("on", 2))
    script = [*fills("brief", "ahead"), bad, bad]
    with Server(script) as server:
        first, second = infill(server, TWO, other)
    assert first.texts == ("kind", "it")
    assert second.texts == ("ahead",)


def test_no_usable_answer_from_the_server_is_an_error() -> None:
    with (
        Server(default=status(500, "disk full")) as server,
        pytest.raises(TargetUnreliable, match="disk full"),
    ):
        infill(server, TWO, TWO)
    with Server(default=status(401)) as server, pytest.raises(TargetRefused, match="API key"):
        infill(server, TWO)


@given(
    st.lists(
        st.text("ab .", max_size=6) | st.builds(Hole, st.text("cd ", max_size=6), st.integers(0, 5)),
        max_size=8,
    )
)
def test_every_hole_gets_one_text_for_any_canvas(parts: list[str | Hole]) -> None:
    canvas = tuple(parts)
    target = ScriptedTarget(lambda chat: "new")
    (fill,) = MercuryDenoiser(target).infill((), [canvas], 0)
    holes = [part for part in canvas if isinstance(part, Hole)]
    assert fill.texts == tuple("new" if hole.tokens else "" for hole in holes)


def test_run_counts_the_calls_that_the_server_saw(tmp_path: Path) -> None:
    with Server(default=World(status(429, headers={"Retry-After": "0"}))) as server:
        result = play(server, tmp_path / "run", "mercury:pen", search=search(candidates=6, demos=0))
        asked = [body for body in server.bodies if body["model"] == "pen"]
        assert result.verdict == "improved" and "colours" in result.prompt
        assert result.test.n == 20
        assert result.spend.calls == server.requests - server.requests // 10 <= 220  # a 429 is no call
        assert asked and {path for path in server.paths if "fim" in path} == {"/v1/fim/completions"}


def test_key_of_another_provider_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
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


# -- shared by all denoisers behind an API ----------------------------------------------------


class Recording:
    """A target that answers with the question and the repeat."""

    identity, billed, max_attempts = "recording", False, 1

    def __init__(self) -> None:
        self.asked: list[tuple[Chat, int]] = []

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        self.asked += [(chat, repeat) for chat in chats]
        return [Reply(f"{chat[0].content} {repeat}") for chat in chats]


@given(st.lists(st.sampled_from("abc"), max_size=12), st.integers(0, 2**61))
def test_equal_chats_get_different_seeds_in_order(questions: list[str], seed: int) -> None:
    chats = [(Message("user", q),) for q in questions]
    target = Recording()
    replies = ask_target(target, chats, seed)
    assert [reply.text[0] for reply in replies] == questions
    assert len(set(target.asked)) == len(chats)
    assert all(0 <= repeat < SEED_RANGE for _, repeat in target.asked)
    assert ask_target(Recording(), chats, seed) == replies


def test_token_counts_are_estimated_from_bytes() -> None:
    assert [estimate_tokens(text) for text in ("", "a", "four", "fives", "颜色颜色")] == [0, 1, 1, 2, 3]


def test_answer_is_cleaned_and_never_a_deletion() -> None:
    hole = Hole("old", 4)
    text = "<|im_start|> Think\u200b of\n\n colours.[/INST]\x07"
    assert check_fill(text, hole) == ("Think of colours.", "")
    for empty in ("", "  \n", "<|im_end|>", "…", "\u200b"):
        assert check_fill(empty, hole) == ("", "is empty")
    longest = "abc " * find_max_tokens(hole)
    assert check_fill(longest, hole)[1] == ""
    assert "at most 16 are allowed" in check_fill(longest + "abc abc", hole)[1]


CANVAS = ("A ", Hole("b", 2), " c ", Hole("d", 0), " e ", Hole("f", 3))


def test_canvas_without_an_answer_keeps_its_old_texts() -> None:
    assert [hole.old for hole in find_open_holes(CANVAS)] == ["b", "f"]
    good, bad = CanvasAnswer(("x", "y")), CanvasAnswer(("x",), "is empty")
    deletion = ("A", Hole(" b", 0))
    assert make_fills([CANVAS, CANVAS, deletion], {0: good, 1: bad}) == [
        Fill(("x", "", "y"), 0.0),
        Fill(("b", "d", "f"), 0.0),
        Fill(("",), 0.0),
    ]
    assert make_fills([deletion], {}) == [Fill(("",), 0.0)]


def test_no_usable_answer_is_an_error() -> None:
    with pytest.raises(TargetUnreliable, match=r"none of the denoiser's 2 answers .*: is empty"):
        make_fills(
            [CANVAS, CANVAS], {0: CanvasAnswer(problem="is empty"), 1: CanvasAnswer(problem="is long")}
        )
