"""Attention modes with tiny checkpoints of every family: exact and approximate reuse."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fakes import checkpoints
from fakes.checkpoints import ALL
from remask.dlm.bidirectional import Bidirectional
from remask.dlm.build import load_denoiser, load_family, make_attention_mode
from remask.dlm.families import Family
from remask.dlm.reading import (
    ApproximationError,
    AttentionMode,
    BlockCausal,
    Ids,
    PrefixCache,
    find_distinct_rows,
)
from remask.dlm.sampler import CanvasBatch, CommitRule, denoise
from remask.errors import ConfigError
from remask.models.backbone.attention import KVCache
from remask.models.backbone.transformer import Backbone

FULL = ["llada", "dream", "tiny-a2d-mdlm"]
BLOCKS = ["sdar", "llada2", "fast-dllm-v2", "tiny-a2d-bd3lm"]
CONTEXT: Ids = tuple(range(10, 81))  # 71 tokens, not a whole number of blocks
CLOSE = {"atol": 2e-4, "rtol": 1e-4}

Model = tuple[Backbone, Family]


@pytest.fixture(scope="module")
def load(checkpoint: Callable[[str], Path]) -> Callable[[str], Model]:
    return cache(lambda name: load_family(str(checkpoint(name)), device="cpu", dtype=torch.float32))


def regions(family: Family, reread: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
    """Three rows after `reread`: two equal ones and a shorter one, with masks in all of them."""
    long = [90, 91, *[family.mask] * 4, 92, 93, 94, 95, family.mask, 96]
    short = [97, family.mask, family.mask, 98]
    rows = [[*reread, *row] for row in (long, long, short)]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return ids, torch.tensor([[i < len(row) for i in range(width)] for row in rows])


def whole(model: Model, context: Ids, ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Logits at masks, row by row, from one forward pass over everything without padding."""
    backbone, family = model
    found = []
    for row, is_real in zip(ids.tolist(), attention_mask, strict=True):
        joint = torch.tensor([[*context, *row[: int(is_real.sum())]]])
        position = torch.arange(joint.shape[1])[None]
        blocks = position // family.block if family.block else torch.zeros_like(position)
        if family.attention == "canvas":
            blocks = position.clamp(max=len(context))
        hidden, _ = backbone.read_blocks(joint, torch.ones_like(joint, dtype=torch.bool), blocks)
        masked = joint[0] == family.mask
        at = masked.nonzero()[:, 0] - int(family.shifted)
        found.append(backbone.logits(hidden[0, at]))
    return torch.cat(found)


def canvases_of(family: Family, backbone: Backbone, ids: Tensor) -> CanvasBatch:
    banned = torch.zeros(1, backbone.vocab_size, dtype=torch.bool)
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
    """The finished ids if everything is read again at every step, row by row."""

    def logits(now: Tensor) -> Tensor:
        rows = (now == model[1].mask).any(1)
        return whole(model, context, now[rows], attention_mask[rows])

    return written(model, logits, ids)[0]


def started(mode: AttentionMode, family: Family) -> tuple[Tensor, Tensor, Ids]:
    """Regions with the context tokens that the mode rereads, and the context before them."""
    known = len(CONTEXT) - mode.reread(len(CONTEXT))
    ids, attention_mask = regions(family, CONTEXT[known:])
    return ids, attention_mask, CONTEXT[:known]


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, bool]]:
    """A list that gets (rows, tokens, whether there is no past) for each read of a backbone."""
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


# -- exact modes ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shared", [0, 5, 30])
def test_first_logits_of_a_pass_are_exact(load: Callable[[str], Model], name: str, shared: int) -> None:
    model = load(name)
    mode = make_attention_mode(*model, "approximate", 16)
    ids, attention_mask, context = started(mode, model[1])
    started_pass = mode.begin(context, shared, attention_mask)
    torch.testing.assert_close(started_pass.logits(ids), whole(model, context, ids, attention_mask), **CLOSE)


@pytest.mark.parametrize("name", BLOCKS)
def test_block_causal_writes_the_tokens_of_the_plain_loop(load: Callable[[str], Model], name: str) -> None:
    model = load(name)
    mode = make_attention_mode(*model, "approximate", 16)
    ids, attention_mask, context = started(mode, model[1])
    started_pass = mode.begin(context, 9, attention_mask)
    done, logp = written(model, started_pass.logits, ids)
    assert torch.equal(done, plain_loop(model, context, ids, attention_mask))
    canvases = canvases_of(model[1], model[0], ids)
    assert torch.equal(started_pass.sum_log_probs(done, canvases, logp), logp.sum(1))
    assert mode.approximation_error == ApproximationError()


@pytest.mark.parametrize("name", FULL)
def test_exact_bidirectional_writes_the_tokens_of_the_plain_loop(
    load: Callable[[str], Model], name: str
) -> None:
    model = load(name)
    mode = make_attention_mode(*model, "exact", 16)
    ids, attention_mask, context = started(mode, model[1])
    done, _ = written(model, mode.begin(context, 0, attention_mask).logits, ids)
    assert torch.equal(done, plain_loop(model, context, ids, attention_mask))


@pytest.mark.parametrize("length", range(1, 12))
def test_region_begins_with_a_block(load: Callable[[str], Model], length: int) -> None:
    backbone, family = load("sdar")
    reread = BlockCausal(backbone, family, PrefixCache(backbone, 4)).reread(length)
    assert 1 <= reread <= 4
    assert (length - reread) % 4 == 0


def test_prefix_cache_reads_a_prefix_once(
    load: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, _ = load("sdar")
    prefixes = PrefixCache(backbone, 4)
    reads = counted_reads(monkeypatch)
    assert prefixes.get_cache((), 0) is None
    first = prefixes.get_cache(CONTEXT[:64], 30)
    assert [length for _, length, _ in reads] == [28, 36], "whole blocks of the shared tokens, then the rest"
    assert first is prefixes.get_cache(CONTEXT[:64], 0)
    assert prefixes.get_cache(CONTEXT[:28]) is not None
    assert len(reads) == 2
    for i in range(8):
        prefixes.get_cache((i,) * 4)
    assert len(reads) == 10
    prefixes.get_cache((0,) * 4)
    assert len(reads) == 10, "the last eight are kept"
    prefixes.get_cache(CONTEXT[:64])
    assert len(reads) == 11, "older ones are not"


# -- the approximate mode ---------------------------------------------------------------------


@pytest.mark.parametrize("name", FULL)
def test_steps_between_refreshes_have_a_recorded_error(load: Callable[[str], Model], name: str) -> None:
    """The first and every `refresh`-th step are exact and the others are not. The recorded error
    is the difference between the two ways to compute a refreshed step."""
    model = load(name)
    mode = Bidirectional(*model, refresh=3)
    ids, attention_mask, context = started(mode, model[1])
    started_pass = mode.begin(context, 0, attention_mask)
    errors = []

    def logits(now: Tensor) -> Tensor:
        found = started_pass.logits(now)
        rows = (now == model[1].mask).any(1)
        exact = whole(model, context, now[rows], attention_mask[rows])
        errors.append(float((found - exact).abs().max()))
        return found

    done, _ = written(model, logits, ids)
    assert (done != model[1].mask).all()
    assert len(errors) >= 4
    assert max(errors[::3]) < 1e-3
    assert min(errors[1::3] + errors[2::3]) > 1e-2
    assert mode.approximation_error.positions > 0
    assert mode.approximation_error.largest > 1e-2
    assert 0 <= mode.approximation_error.agreement <= 1


@pytest.mark.parametrize("name", FULL)
def test_refresh_of_1_has_no_error(load: Callable[[str], Model], name: str) -> None:
    model = load(name)
    mode = Bidirectional(*model, refresh=1)
    ids, attention_mask, context = started(mode, model[1])
    started_pass = mode.begin(context, 0, attention_mask)
    done, logp = written(model, started_pass.logits, ids)
    started_pass.sum_log_probs(done, canvases_of(model[1], model[0], ids), logp)
    assert mode.approximation_error == ApproximationError()
    assert mode.approximation_error.agreement == 1


@pytest.mark.parametrize("refresh", [1, 2, 16])
def test_finished_regions_are_scored_by_an_exact_forward(load: Callable[[str], Model], refresh: int) -> None:
    """Compared with a forward pass per row, with every second written token masked again."""
    model = load("llada")
    backbone, family = model
    mode = Bidirectional(*model, refresh=refresh)
    ids, attention_mask, context = started(mode, family)
    started_pass = mode.begin(context, 0, attention_mask)
    done, logp = written(model, started_pass.logits, ids)
    canvases = canvases_of(family, backbone, ids)
    before = mode.approximation_error.positions
    nats = started_pass.sum_log_probs(done, canvases, logp)
    expected = []
    for row, was, is_real in zip(done, ids, attention_mask, strict=True):
        holes = (was == family.mask).nonzero()[:, 0]
        hidden_again = row.clone()
        hidden_again[holes[::2]] = family.mask
        found = whole(model, context, hidden_again[None], is_real[None])
        found = found.masked_fill(canvases.banned[0], float("-inf")).log_softmax(-1)
        logp = found.gather(1, row[holes[::2]][:, None])
        expected.append(float(logp.mean()) * len(holes))
    assert nats.tolist() == pytest.approx(expected, abs=1e-3)
    assert (mode.approximation_error.positions > before) == (refresh > 1)


def test_equal_canvases_share_the_first_step(
    load: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load("llada")
    reads = counted_reads(monkeypatch)
    mode = Bidirectional(*model)
    ids, attention_mask, context = started(mode, model[1])
    started_pass = mode.begin(context, 0, attention_mask)
    started_pass.logits(ids)
    started_pass.logits(ids)
    started_pass.logits(ids[:, :])
    # Two of three rows are equal: one of them is read with the context, then each separately.
    assert [(rows, new) for rows, _, new in reads] == [(2, True), (3, False), (3, False)]
    alike = ids[[0, 0, 0]], attention_mask[[0, 0, 0]]
    started_pass = mode.begin(context, 0, alike[1])
    shared = started_pass.logits(alike[0])
    assert reads[-1][::2] == (1, True)
    torch.testing.assert_close(shared, whole(model, context, *alike), **CLOSE)
    started_pass.logits(alike[0])
    assert reads[-1][::2] == (3, False)


@pytest.mark.parametrize("refresh", [1, 2, 16])
def test_row_is_independent_of_its_batch(load: Callable[[str], Model], refresh: int) -> None:
    model = load("dream")
    ids, attention_mask, context = started(Bidirectional(*model, refresh=refresh), model[1])
    together = Bidirectional(*model, refresh=refresh).begin(context, 0, attention_mask)
    done, logp = written(model, together.logits, ids)
    canvases = canvases_of(model[1], model[0], ids)
    nats = together.sum_log_probs(done, canvases, logp)
    for i in range(3):
        started_pass = Bidirectional(*model, refresh=refresh).begin(context, 0, attention_mask[i : i + 1])
        generators = [torch.Generator().manual_seed(i)]
        rule = CommitRule(temperature=1.0, left_bias=0.0)
        one = canvases_of(model[1], model[0], ids[i : i + 1])
        *_, last = denoise(one, started_pass.logits, [9], rule, generators)
        assert torch.equal(last.ids[0], done[i])
        assert float(started_pass.sum_log_probs(last.ids, one, last.logp)) == pytest.approx(
            float(nats[i]), abs=1e-3
        )


# -- parts ------------------------------------------------------------------------------------


def test_find_distinct_rows_keeps_order_and_compares_padding() -> None:
    ids = torch.tensor([[1, 2], [1, 2], [3, 4], [1, 2]])
    attention_mask = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    assert find_distinct_rows(ids, attention_mask) == ([0, 1, 2], [0, 1, 2, 0])


def test_approximation_error_adds_up() -> None:
    exact = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    error = ApproximationError().add_comparison(torch.tensor([[1.5, 2.0], [0.0, 1.0]]), exact)
    assert error == ApproximationError(positions=2, same=1, largest=3.0)
    assert error.agreement == 0.5
    assert error.add_comparison(exact, exact) == ApproximationError(4, 3, 3.0)
    assert error.add_comparison(exact[:0], exact[:0]) == error


def test_bad_settings_are_refused(load: Callable[[str], Model], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="refresh is 0"):
        Bidirectional(*load("llada"), refresh=0)
    folder = checkpoints.write(ALL["llada"], tmp_path)
    with pytest.raises(ConfigError, match="cache is 'none'"):
        load_denoiser(str(folder), cache="none")  # type: ignore[arg-type]
