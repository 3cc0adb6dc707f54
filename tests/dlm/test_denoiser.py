"""Checkpoints of every family as denoisers, end to end: from a folder to fills."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import checkpoints as checkpoints
from fakes.checkpoints import ALL
from fakes.denoising import overheard
from remask.dlm.build import load_denoiser
from remask.dlm.canvas import CanvasRow, Window, first_hole
from remask.dlm.denoiser import LocalDenoiser
from remask.dlm.layout import Layout
from remask.dlm.sampler import CommitRule
from remask.errors import ConfigError
from remask.ports import Canvas, DenoiserModel, Hole, Scorer
from remask.types import Trace

CONTEXT = (
    Trace("1", "an utterly charming film", "negative", "positive", score=0.0),
    Trace("2", "the plot is a mess", "negative", "negative", score=1.0),
)
# Neighbours of holes of which no blank is made or taken away.
CANVAS: Canvas = ("Answer in ", Hole("two", 3), " word: positive or ", Hole("bad", 4), " now. End")
SHORT: Canvas = ("You are ", Hole("x", 2), " careful")
Load = Callable[[str], LocalDenoiser]


@pytest.fixture(scope="module")
def load(checkpoint: Callable[[str], Path]) -> Load:
    return cache(
        lambda name: load_denoiser(str(checkpoint(name)), device="cpu", dtype=torch.float32)
    )


@pytest.mark.parametrize("name", ALL)
def test_every_family_denoises_from_its_folder(load: Load, name: str) -> None:
    denoiser = load(name)
    typed: DenoiserModel = denoiser
    assert isinstance(denoiser, Scorer)
    fills = typed.infill(CONTEXT, [CANVAS, CANVAS, SHORT], seed=1)
    assert [len(fill.texts) for fill in fills] == [2, 2, 1]
    assert fills[0].texts != fills[1].texts
    for fill in fills:
        assert all(text.strip() for text in fill.texts)
        assert "<|" not in "".join(fill.texts)
        assert fill.logp < 0
    assert fills == denoiser.infill(CONTEXT, [CANVAS, CANVAS, SHORT], seed=1)
    assert fills != denoiser.infill(CONTEXT, [CANVAS, CANVAS, SHORT], seed=2)
    assert fills[2].texts != denoiser.infill((), [SHORT], seed=1)[0].texts


@pytest.mark.parametrize("name", ALL)
def test_a_canvas_does_not_depend_on_its_batch(load: Load, name: str) -> None:
    denoiser = load(name)
    together = denoiser.infill(CONTEXT, [SHORT, CANVAS], seed=3)
    alone = denoiser.infill(CONTEXT, [SHORT], seed=3)
    assert together[0].texts == alone[0].texts
    assert together[0].logp == pytest.approx(alone[0].logp, abs=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_scores_add_up_and_follow_the_traces(load: Load, name: str) -> None:
    denoiser = load(name)
    text = "Answer in one word: positive or negative."
    cut = text.index(" word")
    whole, first, second, none = denoiser.score(
        CONTEXT, text, [(0, len(text)), (0, cut), (cut, len(text)), (0, 0)]
    )
    assert whole == pytest.approx(first + second, abs=1e-6)
    assert none == 0
    assert whole < 0
    assert whole != pytest.approx(denoiser.score((), text, [(0, len(text))])[0], abs=1e-3)


@pytest.mark.parametrize("name", ["llada", "sdar"])
def test_a_score_hides_the_token_it_scores(load: Load, name: str) -> None:
    """One wanted token: exactly the model's prediction for a mask in its place."""
    denoiser = load(name)
    family, backbone, reading = denoiser.family, denoiser.backbone, denoiser.reading
    ids, ranges = backbone.encode_spans("Answer in one word")
    at = len(ids) // 2
    context, shared = Layout(backbone, family).context(CONTEXT, "")
    known = len(context) - reading.reread(len(context))
    row = torch.tensor([[*context[known:], *ids]])
    row[0, len(context) - known + at] = family.mask
    session = reading.begin(context[:known], shared, torch.ones_like(row, dtype=torch.bool))
    expected = float(session.logits(row).log_softmax(-1)[0, ids[at]])
    found = denoiser.score(CONTEXT, "Answer in one word", [ranges[at]])
    assert found == [pytest.approx(expected, abs=1e-3)]


@pytest.mark.parametrize("name", ALL)
def test_guidance_leans_on_the_traces(load: Load, name: str) -> None:
    """Without traces there is nothing to lean on; with traces other words are written."""
    plain = load(name)
    parts = ("guided", plain.backbone, plain.family, plain.reading, plain.rule, None)
    guided = LocalDenoiser(*parts, guidance=2.0)
    assert guided.identity != LocalDenoiser(*parts).identity
    canvases = [CANVAS, SHORT]
    texts = [[f.texts for f in d.infill(CONTEXT, canvases, 4)] for d in (plain, guided)]
    assert texts[0] != texts[1]
    bare = [[f.texts for f in d.infill((), canvases, 4)] for d in (plain, guided)]
    assert bare[0] == bare[1]


def test_identities_name_what_changes_a_fill(load: Load) -> None:
    llada = load("llada")
    parts = ("llada", llada.backbone, llada.family, llada.reading)
    others = [
        LocalDenoiser(*parts, CommitRule(), 3),
        LocalDenoiser(*parts, CommitRule(order="leftmost")),
        load("dream"),
    ]
    assert len({llada.identity, *(other.identity for other in others)}) == 4
    with pytest.raises(ConfigError, match="steps is 0"):
        LocalDenoiser(*parts, CommitRule(), 0)


def test_blocks_are_written_one_after_the_other(load: Load) -> None:
    assert load("sdar").rule.block == 4
    assert load("tiny-a2d-bd3lm").rule.block == 32
    assert load("llada").rule.block is None


def test_what_stands_behind_a_hole_is_told_before_it(load: Load) -> None:
    """To a model that reads by blocks; the later hole is open and leaves no mark."""
    told = read_before(load("sdar"), CANVAS)
    assert len(told) == 2, "each hole has a window of its own"
    assert "The prompt ends: word: positive or now. End" in told[0]
    assert "The prompt ends: now. End" in told[1]
    (once,) = read_before(load("llada"), CANVAS)
    assert "The prompt ends" not in once


def read_before(denoiser: LocalDenoiser, canvas: Canvas) -> list[str]:
    """The contexts of the canvas's windows, each on one line."""
    heard, reading = overheard(denoiser)
    heard.infill(CONTEXT, [canvas], 0)
    return [" ".join(denoiser.backbone.decode(ids).split()) for ids in reading.contexts]


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_the_window_of_one_hole(data: st.DataObject) -> None:
    """It holds the first hole and no mask of another, wherever they stand."""
    sizes = data.draw(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), min_size=1))
    holes, at = [], 0
    for gap, size in sizes:
        holes.append((at + gap, at + gap + size))
        at += gap + size
    length = at + data.draw(st.integers(0, 9))
    row = CanvasRow((0,) * length, (0,) * length, tuple(holes), (0, length))
    block = data.draw(st.integers(1, 9))
    stop = data.draw(st.integers(holes[0][1], length))
    view = first_hole(row, Window(0, stop, len(holes)), block)
    assert view.holes == 1
    assert holes[0][1] <= view.stop <= min(length, holes[0][1] + block)
    if len(holes) > 1:
        assert view.stop <= holes[1][0]
    assert all(a[1] <= b[0] for a, b in pairwise(holes))


def test_long_prompts_go_window_by_window(load: Load) -> None:
    llada = load("llada")
    family = replace(llada.family, window=40, context=200, rest=60)
    short, reading = overheard(llada, family=family)
    filler = "You are a careful assistant. " * 9
    canvas = ("Go. ", Hole("x", 2), " ", filler, Hole("y", 2), " end")
    fill = short.infill(CONTEXT, [canvas], 0)[0]
    assert all(fill.texts)
    assert len(reading.widths) == 2
    assert max(reading.widths) <= 42, "with the end of the context before it, of the turn behind it"
    assert "The prompt ends:" in llada.backbone.decode(reading.contexts[0])
