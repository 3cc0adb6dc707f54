"""Holes filled one at a time through a fill-in-the-middle endpoint on the loopback."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remask.config import DlmConfig
from remask.denoisers import make_denoiser
from remask.dlm.families import render
from remask.dlm.mercury import CLOSING, LONGEST, OPENING, STOP, MercuryDenoiser
from remask.errors import ConfigError, TargetRefused, TargetUnreliable
from remask.models.fim import FimTarget
from remask.models.scripted import ScriptedTarget
from remask.ports import Canvas, Fill, Hole
from remask.trace import Trace
from target.server import Server, raw, status
from writers import World, fills, play

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
        make_denoiser(DlmConfig(model="mercury"))
    monkeypatch.setenv("INCEPTION_API_KEY", "sk-inception")
    denoiser = make_denoiser(DlmConfig(model="mercury"))
    assert isinstance(denoiser, MercuryDenoiser)
    identity = denoiser.target.identity
    assert identity.startswith("fim:mercury-edit-2@api.inceptionlabs.ai/v1/fim ")
    assert "temperature" not in json.loads(identity.split(" ", 1)[1])
