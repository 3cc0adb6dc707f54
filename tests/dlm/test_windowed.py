"""The embedded model with kept windows: what is read when, and how far it is from exact."""

import pytest
import torch

from remask.backbone.model import Backbone
from remask.backbone.weights import load_base
from remask.dlm.adapter import Adapted, load_adapter
from remask.dlm.embedded import EmbeddedDenoiser, embedded_reading
from remask.dlm.windowed import WindowReading, places
from remask.errors import ConfigError
from remask.ports import Canvas, Hole
from remask.trace import Trace

CONTEXT = (Trace("1", "an utterly charming film", "negative", "positive", score=0.0),)
CANVAS: Canvas = ("Read the review. ", Hole("Say it.", 6), " Answer with ", Hole("", 2), " now.")


@pytest.fixture(scope="module")
def base() -> Backbone:
    return load_base(dtype=torch.float32)


@pytest.fixture(scope="module")
def adapted(base: Backbone) -> Adapted:
    return load_adapter(base)


def test_places_by_hand() -> None:
    masked = torch.tensor([[False, True, True, False, True], [False, False, True, False, False]])
    assert places(masked, shifted=False).tolist() == [[1, 2, 4], [2, 2, 2]]
    assert places(masked, shifted=True).tolist() == [[0, 1, 2, 3, 4], [1, 2, 1, 1, 1]]


def test_logits_are_exact_until_something_changes(base: Backbone, adapted: Adapted) -> None:
    mask = adapted.family.mask
    rows = [[510, 511, mask, mask, 512, 513, mask], [510, 511, mask, 514, 512, 513, 515]]
    ids = torch.tensor([rows[0], rows[0], rows[1]])
    real = torch.ones_like(ids, dtype=torch.bool)
    exact = embedded_reading(base, adapted).begin(tuple(range(620, 650)), 0, real)
    reading = embedded_reading(base, adapted, refresh=3)
    assert isinstance(reading, WindowReading)
    session = reading.begin(tuple(range(620, 650)), 0, real)
    for _ in range(2):  # a whole reading, then the holes among what was kept
        torch.testing.assert_close(session.logits(ids), exact.logits(ids), atol=2e-4, rtol=1e-4)
    ids[0, 2], ids[2, 2] = 516, 517  # … of which a row is finished
    drifted = (session.logits(ids) - exact.logits(ids)).abs().max()
    assert 1e-3 < float(drifted) < 10
    assert reading.drift.positions == 0
    ids[1, 2] = 518
    torch.testing.assert_close(session.logits(ids), exact.logits(ids), atol=2e-4, rtol=1e-4)
    assert reading.drift.positions == 4
    assert 0 < reading.drift.largest < 10


def test_fills_with_kept_windows(base: Backbone, adapted: Adapted) -> None:
    denoiser = EmbeddedDenoiser(base, adapted, refresh=3)
    fills = denoiser.infill(CONTEXT, [CANVAS] * 4, seed=1)
    assert fills == EmbeddedDenoiser(base, adapted, refresh=3).infill(CONTEXT, [CANVAS] * 4, seed=1)
    assert all(text for fill in fills for text in fill.texts)
    assert denoiser.drift.agreement > 0.7
    assert "reused its context" in denoiser.approximation()
    assert denoiser.identity != EmbeddedDenoiser(base, adapted).identity


def test_no_refresh_is_refused(base: Backbone, adapted: Adapted) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        embedded_reading(base, adapted, refresh=0)
