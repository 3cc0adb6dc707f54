"""DiffusionGemma: logits equal transformers' own class on the same folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import DiffusionGemmaForBlockDiffusion

from remask.dlm.build import load_family, make_attention_mode
from remask.dlm.families import Family
from remask.errors import BackendError
from remask.models.backbone.attention import KVCache
from remask.models.backbone.checkpoint import estimate_memory, load_checkpoint, read_config
from remask.models.backbone.diffusion_gemma import DiffusionGemmaBackbone

CLOSE = {"atol": 2e-4, "rtol": 1e-4}
CONTEXT = [2, *range(40, 61)]  # longer than the sliding window of five tokens
CANVAS = [*range(100, 117)]

Loaded = tuple[DiffusionGemmaBackbone, Family, Any]


@pytest.fixture(scope="module")
def loaded(checkpoint: Callable[[str], Path]) -> Loaded:
    folder = checkpoint("diffusion-gemma")
    backbone, family = load_family(str(folder), device="cpu", dtype=torch.float32)
    assert isinstance(backbone, DiffusionGemmaBackbone)
    library = DiffusionGemmaForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)
    return backbone, family, library.eval()


def encode(backbone: DiffusionGemmaBackbone, ids: list[int], past: KVCache | None = None) -> KVCache:
    row = torch.tensor([ids])
    _, cache = backbone.read_blocks(row, torch.ones_like(row, dtype=torch.bool), None, past, keep=True)
    assert cache is not None
    return cache


def read(
    backbone: DiffusionGemmaBackbone, canvas: list[int], past: KVCache, soft: Tensor | None = None
) -> Tensor:
    row = torch.tensor([canvas])
    return backbone.logits(backbone.read_canvas(row, torch.ones_like(row, dtype=torch.bool), past, soft))


@torch.no_grad()
def library_logits(
    library: Any, context: list[int], canvas: list[int], before: Tensor | None = None
) -> Tensor:
    logits: Tensor = library(
        input_ids=torch.tensor([context]),
        decoder_input_ids=torch.tensor([canvas]),
        self_conditioning_logits=before,
    ).logits
    return logits


@pytest.mark.parametrize("length", [1, 3, 4, 5, 6, 22])
def test_logits_equal_those_of_the_library(loaded: Loaded, length: int) -> None:
    backbone, _, library = loaded
    expected = library_logits(library, CONTEXT[:length], CANVAS)
    assert expected.std() > 0.5
    torch.testing.assert_close(read(backbone, CANVAS, encode(backbone, CONTEXT[:length])), expected, **CLOSE)


def test_second_step_gets_what_the_first_expected(loaded: Loaded) -> None:
    backbone, _, library = loaded
    past = encode(backbone, CONTEXT)
    first = read(backbone, CANVAS, past)
    second = read(backbone, CANVAS, past, backbone.expect_embeddings(first))
    assert (second - first).abs().max() > 0.1
    expected = library_logits(library, CONTEXT, CANVAS, library_logits(library, CONTEXT, CANVAS))
    torch.testing.assert_close(second, expected, **CLOSE)


def test_context_in_two_parts_is_exact(loaded: Loaded) -> None:
    backbone, _, _ = loaded
    whole, parts = encode(backbone, CONTEXT), encode(backbone, CONTEXT[7:], encode(backbone, CONTEXT[:7]))
    torch.testing.assert_close(read(backbone, CANVAS, parts), read(backbone, CANVAS, whole), **CLOSE)


def test_batch_and_padding_change_nothing(loaded: Loaded) -> None:
    backbone, _, _ = loaded
    past = encode(backbone, CONTEXT)
    rows = [CANVAS, CANVAS[:5], CANVAS[3:11]]
    ids = torch.full((3, len(CANVAS) + 2), 7)
    attention_mask = torch.zeros_like(ids, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], attention_mask[i, : len(row)] = torch.tensor(row), True
    together = backbone.logits(backbone.read_canvas(ids, attention_mask, past))
    assert together.isfinite().all()
    for i, row in enumerate(rows):
        torch.testing.assert_close(together[i, : len(row)], read(backbone, row, past)[0], **CLOSE)


def test_holes_hold_other_tokens_at_each_step_and_frozen_text_stays(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, family, _ = loaded
    mode = make_attention_mode(backbone, family, "exact", 1)
    ids = torch.tensor([CANVAS] * 2)
    ids[:, 4:8] = family.mask
    ids[1, 8:] = 7
    attention_mask = torch.ones_like(ids, dtype=torch.bool)
    attention_mask[1, 8:] = False
    read_rows: list[Tensor] = []
    original = DiffusionGemmaBackbone.read_canvas

    def recorded(self: Any, ids: Tensor, *rest: Any) -> Tensor:
        read_rows.append(ids)
        return original(self, ids, *rest)

    monkeypatch.setattr(DiffusionGemmaBackbone, "read_canvas", recorded)
    started = mode.begin(tuple(CONTEXT), 0, attention_mask)
    first, second = started.logits(ids), started.logits(ids)
    assert first.shape == second.shape == (8, backbone.vocab_size)
    frozen = [0, 1, 2, 3, *range(8, len(CANVAS))]
    assert all(torch.equal(rows[:, frozen], ids[:, frozen]) for rows in read_rows)
    holes = [rows[0, 4:8].tolist() for rows in read_rows]
    assert holes[0] != holes[1] and all(family.mask not in hole for hole in holes)
    alone = mode.begin(tuple(CONTEXT), 0, attention_mask[1:, :8]).logits(ids[1:, :8])
    torch.testing.assert_close(first[4:], alone, **CLOSE)  # a row does not depend on its batch


def test_memory_is_estimated_before_loading(checkpoint: Callable[[str], Path], loaded: Loaded) -> None:
    stored = {t.data_ptr(): t for t in loaded[0].model.state_dict().values()}
    weights = 4 * sum(tensor.numel() for tensor in stored.values())
    cache = encode(loaded[0], [1, 2, 3])
    cached = sum(tensor.nbytes for tensor in (*cache.keys, *cache.values))
    config = read_config(str(checkpoint("diffusion-gemma")))
    assert estimate_memory(config, torch.float32) == weights
    assert estimate_memory(config, torch.float32, tokens=3) == weights + cached


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"text_config": None}, "config.json has no text_config"),
        ({"tie_word_embeddings": False}, "encoder and decoder with weights of their own"),
        ({"text_config": {"layer_types": 7}}, "text_config of config.json cannot be read"),
        (
            {"text_config": {"hidden_size": "many"}},
            "hidden_size = 'many'; it must be a positive whole number",
        ),
        ({"text_config": {"num_experts": None}}, "num_experts = None; it must be"),
        ({"text_config": {"num_hidden_layers": 1 << 30}}, "num_hidden_layers = 1073741824; it must be"),
        ({"text_config": {"num_experts": 9}}, "is .8,., but config.json asks for .9,."),
        ({"quantization_config": {"bits": 4}}, "sets quantization_config"),
    ],
)
def test_unreadable_settings_are_refused(
    checkpoint: Callable[[str], Path], tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    source = checkpoint("diffusion-gemma")
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    found = json.loads((tmp_path / "config.json").read_text())
    if settings.get("text_config"):
        settings = {"text_config": {**found["text_config"], **settings["text_config"]}}
    (tmp_path / "config.json").write_text(json.dumps({**found, **settings}))
    with pytest.raises(BackendError, match=words) as caught:
        load_checkpoint(str(tmp_path), device="cpu")
    assert "\n" not in str(caught.value)


def test_missing_weights_are_refused(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    for path in checkpoint("diffusion-gemma").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    assert any(name.startswith("model.encoder.vision_tower.") for name in weights)
    weights.pop("model.encoder.language_model.layers.2.layer_scalar")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(BackendError, match="1 weights are missing, first model"):
        load_checkpoint(str(tmp_path), device="cpu")
