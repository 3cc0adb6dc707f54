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
from fakes.denoising import record_passes
from remask.dlm.build import load_denoiser
from remask.dlm.canvas import CanvasRow, Window, limit_to_first_hole
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
# The spaces next to the holes are kept as they are.
CANVAS: Canvas = ("Answer in ", Hole("two", 3), " word: positive or ", Hole("bad", 4), " now. End")
SHORT: Canvas = ("You are ", Hole("x", 2), " careful")
Load = Callable[[str], LocalDenoiser]
EVERY = [*ALL, "diffusion-gemma"]


@pytest.fixture(scope="module")
def load(checkpoint: Callable[[str], Path]) -> Load:
    return cache(lambda name: load_denoiser(str(checkpoint(name)), device="cpu", dtype=torch.float32))


@pytest.mark.parametrize("name", EVERY)
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


@pytest.mark.parametrize("name", EVERY)
def test_canvas_is_independent_of_its_batch(load: Load, name: str) -> None:
    denoiser = load(name)
    together = denoiser.infill(CONTEXT, [SHORT, CANVAS], seed=3)
    alone = denoiser.infill(CONTEXT, [SHORT], seed=3)
    assert together[0].texts == alone[0].texts
    assert together[0].logp == pytest.approx(alone[0].logp, abs=1e-3)


@pytest.mark.parametrize("name", EVERY)
def test_scores_add_up_and_depend_on_the_traces(load: Load, name: str) -> None:
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
def test_score_masks_the_scored_token(load: Load, name: str) -> None:
    """The score of one token is the model's prediction for a mask in its place."""
    denoiser = load(name)
    family, backbone, mode = denoiser.family, denoiser.backbone, denoiser.mode
    ids, ranges = backbone.encode_spans("Answer in one word")
    at = len(ids) // 2
    context, shared = Layout(backbone, family).encode_context(CONTEXT, "")
    known = len(context) - mode.reread(len(context))
    row = torch.tensor([[*context[known:], *ids]])
    row[0, len(context) - known + at] = family.mask
    started = mode.begin(context[:known], shared, torch.ones_like(row, dtype=torch.bool))
    expected = float(started.logits(row).log_softmax(-1)[0, ids[at]])
    found = denoiser.score(CONTEXT, "Answer in one word", [ranges[at]])
    assert found == [pytest.approx(expected, abs=1e-3)]


@pytest.mark.parametrize("name", EVERY)
def test_guidance_has_no_effect_without_traces(load: Load, name: str) -> None:
    """Guidance changes the fills with traces only."""
    plain = load(name)
    parts = ("guided", plain.backbone, plain.family, plain.mode, plain.rule, None)
    guided = LocalDenoiser(*parts, guidance=2.0)
    assert guided.identity != LocalDenoiser(*parts).identity
    canvases = [CANVAS, SHORT]
    texts = [[f.texts for f in d.infill(CONTEXT, canvases, 4)] for d in (plain, guided)]
    assert texts[0] != texts[1]
    bare = [[f.texts for f in d.infill((), canvases, 4)] for d in (plain, guided)]
    assert bare[0] == bare[1]


def test_identity_depends_on_what_changes_a_fill(load: Load) -> None:
    llada = load("llada")
    parts = ("llada", llada.backbone, llada.family, llada.mode)
    others = [
        LocalDenoiser(*parts, CommitRule(), 3),
        LocalDenoiser(*parts, CommitRule(order="leftmost")),
        load("dream"),
    ]
    assert len({llada.identity, *(other.identity for other in others)}) == 4
    with pytest.raises(ConfigError, match="steps is 0"):
        LocalDenoiser(*parts, CommitRule(), 0)


def test_commit_rule_has_the_block_size_of_the_family(load: Load) -> None:
    assert load("sdar").rule.block == 4
    assert load("tiny-a2d-bd3lm").rule.block == 32
    assert load("llada").rule.block is None


def test_text_after_a_hole_goes_before_it_with_blocks(load: Load) -> None:
    """A model that reads by blocks gets it as text, in which an open hole leaves nothing."""
    contexts = read_before(load("sdar"), CANVAS)
    assert len(contexts) == 2, "each hole has its own window"
    assert "The prompt ends: word: positive or now. End" in contexts[0]
    assert "The prompt ends: now. End" in contexts[1]
    (once,) = read_before(load("llada"), CANVAS)
    assert "The prompt ends" not in once


def read_before(denoiser: LocalDenoiser, canvas: Canvas) -> list[str]:
    """The contexts of the canvas's windows, each on one line."""
    recorded, mode = record_passes(denoiser)
    recorded.infill(CONTEXT, [canvas], 0)
    return [" ".join(denoiser.backbone.decode(ids).split()) for ids in mode.contexts]


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_limit_to_first_hole_has_one_hole(data: st.DataObject) -> None:
    """The window has the first hole and no mask of another, for any positions."""
    sizes = data.draw(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), min_size=1))
    holes, at = [], 0
    for gap, size in sizes:
        holes.append((at + gap, at + gap + size))
        at += gap + size
    length = at + data.draw(st.integers(0, 9))
    row = CanvasRow((0,) * length, (0,) * length, tuple(holes), (0, length))
    block = data.draw(st.integers(1, 9))
    stop = data.draw(st.integers(holes[0][1], length))
    view = limit_to_first_hole(row, Window(0, stop, len(holes)), block)
    assert view.holes == 1
    assert holes[0][1] <= view.stop <= min(length, holes[0][1] + block)
    if len(holes) > 1:
        assert view.stop <= holes[1][0]
    assert all(a[1] <= b[0] for a, b in pairwise(holes))


def test_long_prompt_is_read_window_by_window(load: Load) -> None:
    llada = load("llada")
    family = replace(llada.family, window=40, context=200, rest=60)
    short, mode = record_passes(llada, family=family)
    filler = "You are a careful assistant. " * 9
    canvas = ("Go. ", Hole("x", 2), " ", filler, Hole("y", 2), " end")
    fill = short.infill(CONTEXT, [canvas], 0)[0]
    assert all(fill.texts)
    assert len(mode.widths) == 2
    assert max(mode.widths) <= 42, "with the end of the context before it, of the turn after it"
    assert "The prompt ends:" in llada.backbone.decode(mode.contexts[0])
