"""Attention modes with tiny checkpoints of every family: exact reuse, and reuse that is not."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fakes import checkpoints
from fakes.checkpoints import ALL
from remask.dlm.bidirectional import Bidirectional
from remask.dlm.build import load_denoiser, load_family, read_with
from remask.dlm.families import Family
from remask.dlm.reading import (
    ApproximationError,
    AttentionMode,
    BlockCausal,
    Ids,
    PrefixCache,
    distinct,
)
from remask.dlm.sampler import CanvasBatch, CommitRule, denoise
from remask.errors import ConfigError
from remask.models.backbone.attention import KVCache
from remask.models.backbone.transformer import Backbone

FULL = ["llada", "dream", "tiny-a2d-mdlm"]
BLOCKS = ["sdar", "tiny-a2d-bd3lm"]
CONTEXT: Ids = tuple(range(10, 81))  # 71 tokens, no whole number of blocks
CLOSE = {"atol": 2e-4, "rtol": 1e-4}

Model = tuple[Backbone, Family]


@pytest.fixture(scope="module")
def load(checkpoint: Callable[[str], Path]) -> Callable[[str], Model]:
    return cache(lambda name: load_family(str(checkpoint(name)), device="cpu", dtype=torch.float32))


def regions(family: Family, front: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
    """Three rows behind `front`: two alike, and a shorter one; masks in all of them."""
    long = [90, 91, *[family.mask] * 4, 92, 93, 94, 95, family.mask, 96]
    short = [97, family.mask, family.mask, 98]
    rows = [[*front, *row] for row in (long, long, short)]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return ids, torch.tensor([[i < len(row) for i in range(width)] for row in rows])


def whole(model: Model, context: Ids, ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Logits at masks of one row after the other, from everything at once and without padding."""
    backbone, family = model
    found = []
    for row, is_real in zip(ids.tolist(), attention_mask, strict=True):
        joint = torch.tensor([[*context, *row[: int(is_real.sum())]]])
        position = torch.arange(joint.shape[1])[None]
        blocks = position // family.block if family.block else torch.zeros_like(position)
        hidden, _ = backbone.read_blocks(joint, torch.ones_like(joint, dtype=torch.bool), blocks)
        masked = joint[0] == family.mask
        at = masked.nonzero()[:, 0] - int(family.shifted)
        found.append(backbone.logits(hidden[0, at]))
    return torch.cat(found)


def canvases_of(family: Family, backbone: Backbone, ids: Tensor) -> CanvasBatch:
    banned = torch.zeros(1, backbone.size, dtype=torch.bool)
    banned[0, list(family.special)] = True
    return CanvasBatch(ids, torch.zeros_like(ids), banned, family.mask)


def written(
    model: Model, logits: Callable[[Tensor], Tensor], ids: Tensor, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The finished ids and their log-probabilities when committed."""
    backbone, family = model
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(ids))]
    rule = CommitRule(temperature=1.0, left_bias=0.0, block=family.block or None)
    steps = list(denoise(canvases_of(family, backbone, ids), logits, [9, 9, 9], rule, generators))
    return steps[-1].ids, steps[-1].logp


def plain_loop(model: Model, context: Ids, ids: Tensor, attention_mask: Tensor) -> Tensor:
    """What is written with everything read anew at every step, row by row."""

    def logits(now: Tensor) -> Tensor:
        rows = (now == model[1].mask).any(1)
        return whole(model, context, now[rows], attention_mask[rows])

    return written(model, logits, ids)[0]


def started(reading: AttentionMode, family: Family) -> tuple[Tensor, Tensor, Ids]:
    """Regions with the front that the reading wants, and the context before it."""
    known = len(CONTEXT) - reading.reread(len(CONTEXT))
    ids, attention_mask = regions(family, CONTEXT[known:])
    return ids, attention_mask, CONTEXT[:known]


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, bool]]:
    """Grows by rows, tokens and whether there is no past, for each time that a backbone reads."""
    reads = []
    read = Backbone.read_blocks

    def counted(
        self: Backbone,
        ids: Tensor,
        attention_mask: Tensor,
        blocks: Tensor,
        past: KVCache | None = None,
        keep: bool = False,
    ) -> tuple[Tensor, KVCache | None]:
        reads.append((*ids.shape, past is None))
        return read(self, ids, attention_mask, blocks, past, keep)

    monkeypatch.setattr(Backbone, "read_blocks", counted)
    return reads


# -- exact ways -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shared", [0, 5, 30])
def test_a_session_begins_with_exact_logits(
    load: Callable[[str], Model], name: str, shared: int
) -> None:
    model = load(name)
    reading = read_with(*model, "approximate", 16)
    ids, attention_mask, context = started(reading, model[1])
    session = reading.begin(context, shared, attention_mask)
    torch.testing.assert_close(
        session.logits(ids), whole(model, context, ids, attention_mask), **CLOSE
    )


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_write_the_tokens_of_the_plain_loop(load: Callable[[str], Model], name: str) -> None:
    model = load(name)
    reading = read_with(*model, "approximate", 16)
    ids, attention_mask, context = started(reading, model[1])
    session = reading.begin(context, 9, attention_mask)
    done, logp = written(model, session.logits, ids)
    assert torch.equal(done, plain_loop(model, context, ids, attention_mask))
    canvases = canvases_of(model[1], model[0], ids)
    assert torch.equal(session.nats(done, canvases, logp), logp.sum(1))
    assert reading.approximation_error == ApproximationError()


@pytest.mark.parametrize("name", FULL)
def test_a_full_reading_without_cache_writes_the_tokens_of_the_plain_loop(
    load: Callable[[str], Model], name: str
) -> None:
    model = load(name)
    reading = read_with(*model, "exact", 16)
    ids, attention_mask, context = started(reading, model[1])
    done, _ = written(model, reading.begin(context, 0, attention_mask).logits, ids)
    assert torch.equal(done, plain_loop(model, context, ids, attention_mask))


@pytest.mark.parametrize("length", range(1, 12))
def test_the_region_begins_with_a_block(load: Callable[[str], Model], length: int) -> None:
    backbone, family = load("sdar")
    front = BlockCausal(backbone, family, PrefixCache(backbone, 4)).reread(length)
    assert 1 <= front <= 4
    assert (length - front) % 4 == 0


def test_a_prefix_is_read_once(
    load: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, _ = load("sdar")
    prefixes = PrefixCache(backbone, 4)
    reads = counted_reads(monkeypatch)
    assert prefixes.memory((), 0) is None
    first = prefixes.memory(CONTEXT[:64], 30)
    assert [length for _, length, _ in reads] == [28, 36], (
        "whole blocks of what is shared, then the rest"
    )
    assert first is prefixes.memory(CONTEXT[:64], 0)
    assert prefixes.memory(CONTEXT[:28]) is not None
    assert len(reads) == 2
    for i in range(8):
        prefixes.memory((i,) * 4)
    assert len(reads) == 10
    prefixes.memory((0,) * 4)
    assert len(reads) == 10, "the last eight are kept"
    prefixes.memory(CONTEXT[:64])
    assert len(reads) == 11, "older ones are not"


# -- the approximate way ----------------------------------------------------------------------


@pytest.mark.parametrize("name", FULL)
def test_steps_between_refreshes_drift_and_say_so(load: Callable[[str], Model], name: str) -> None:
    """The first and each `refresh`th step are exact; the others are not, and the drift is what
    the two ways of computing a refreshed step differ by."""
    model = load(name)
    reading = Bidirectional(*model, refresh=3)
    ids, attention_mask, context = started(reading, model[1])
    session = reading.begin(context, 0, attention_mask)
    errors = []

    def logits(now: Tensor) -> Tensor:
        found = session.logits(now)
        rows = (now == model[1].mask).any(1)
        exact = whole(model, context, now[rows], attention_mask[rows])
        errors.append(float((found - exact).abs().max()))
        return found

    done, _ = written(model, logits, ids)
    assert (done != model[1].mask).all()
    assert len(errors) >= 4
    assert max(errors[::3]) < 1e-3
    assert min(errors[1::3] + errors[2::3]) > 1e-2
    assert reading.approximation_error.positions > 0
    assert reading.approximation_error.largest > 1e-2
    assert 0 <= reading.approximation_error.agreement <= 1


@pytest.mark.parametrize("name", FULL)
def test_reading_everything_at_every_step_drifts_nowhere(
    load: Callable[[str], Model], name: str
) -> None:
    model = load(name)
    reading = Bidirectional(*model, refresh=1)
    ids, attention_mask, context = started(reading, model[1])
    session = reading.begin(context, 0, attention_mask)
    done, logp = written(model, session.logits, ids)
    session.nats(done, canvases_of(model[1], model[0], ids), logp)
    assert reading.approximation_error == ApproximationError()
    assert reading.approximation_error.agreement == 1


@pytest.mark.parametrize("refresh", [1, 2, 16])
def test_finished_regions_are_scored_by_an_exact_forward(
    load: Callable[[str], Model], refresh: int
) -> None:
    """Against a forward per row, with every second written token masked again."""
    model = load("llada")
    backbone, family = model
    reading = Bidirectional(*model, refresh=refresh)
    ids, attention_mask, context = started(reading, family)
    session = reading.begin(context, 0, attention_mask)
    done, logp = written(model, session.logits, ids)
    canvases = canvases_of(family, backbone, ids)
    before = reading.approximation_error.positions
    nats = session.nats(done, canvases, logp)
    expected = []
    for row, was, is_real in zip(done, ids, attention_mask, strict=True):
        holes = (was == family.mask).nonzero()[:, 0]
        hidden_again = row.clone()
        hidden_again[holes[::2]] = family.mask
        found = whole(model, context, hidden_again[None], is_real[None])
        found = found.masked_fill(canvases.banned[0], float("-inf")).log_softmax(-1)
        picked = found.gather(1, row[holes[::2]][:, None])
        expected.append(float(picked.mean()) * len(holes))
    assert nats.tolist() == pytest.approx(expected, abs=1e-3)
    assert (reading.approximation_error.positions > before) == (refresh > 1)


def test_equal_canvases_share_the_first_step(
    load: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load("llada")
    reads = counted_reads(monkeypatch)
    reading = Bidirectional(*model)
    ids, attention_mask, context = started(reading, model[1])
    session = reading.begin(context, 0, attention_mask)
    session.logits(ids)
    session.logits(ids)
    session.logits(ids[:, :])
    # Two of three rows are alike: one of them is read with the context, then each alone.
    assert [(rows, new) for rows, _, new in reads] == [(2, True), (3, False), (3, False)]
    alike = ids[[0, 0, 0]], attention_mask[[0, 0, 0]]
    session = reading.begin(context, 0, alike[1])
    shared = session.logits(alike[0])
    assert reads[-1][::2] == (1, True)
    torch.testing.assert_close(shared, whole(model, context, *alike), **CLOSE)
    session.logits(alike[0])
    assert reads[-1][::2] == (3, False)


@pytest.mark.parametrize("refresh", [1, 2, 16])
def test_a_row_does_not_depend_on_its_batch(load: Callable[[str], Model], refresh: int) -> None:
    model = load("dream")
    ids, attention_mask, context = started(Bidirectional(*model, refresh=refresh), model[1])
    together = Bidirectional(*model, refresh=refresh).begin(context, 0, attention_mask)
    done, logp = written(model, together.logits, ids)
    canvases = canvases_of(model[1], model[0], ids)
    nats = together.nats(done, canvases, logp)
    for i in range(3):
        session = Bidirectional(*model, refresh=refresh).begin(
            context, 0, attention_mask[i : i + 1]
        )
        generators = [torch.Generator().manual_seed(i)]
        rule = CommitRule(temperature=1.0, left_bias=0.0)
        one = canvases_of(model[1], model[0], ids[i : i + 1])
        *_, last = denoise(one, session.logits, [9], rule, generators)
        assert torch.equal(last.ids[0], done[i])
        assert float(session.nats(last.ids, one, last.logp)) == pytest.approx(
            float(nats[i]), abs=1e-3
        )


# -- parts ------------------------------------------------------------------------------------


def test_distinct_keeps_the_order_and_minds_padding() -> None:
    ids = torch.tensor([[1, 2], [1, 2], [3, 4], [1, 2]])
    attention_mask = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    assert distinct(ids, attention_mask) == ([0, 1, 2], [0, 1, 2, 0])


def test_drift_adds_up() -> None:
    exact = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    drift = ApproximationError().measured(torch.tensor([[1.5, 2.0], [0.0, 1.0]]), exact)
    assert drift == ApproximationError(positions=2, same=1, largest=3.0)
    assert drift.agreement == 0.5
    assert drift.measured(exact, exact) == ApproximationError(4, 3, 3.0)
    assert drift.measured(exact[:0], exact[:0]) == drift


def test_bad_settings_are_refused(load: Callable[[str], Model], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="refresh is 0"):
        Bidirectional(*load("llada"), refresh=0)
    folder = checkpoints.write(ALL["llada"], tmp_path)
    with pytest.raises(ConfigError, match="cache is 'none'"):
        load_denoiser(str(folder), cache="none")  # type: ignore[arg-type]
