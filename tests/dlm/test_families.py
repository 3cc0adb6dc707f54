"""The table of families."""

import re
from typing import Any

import pytest

from remask.dlm.families import BUILTIN, FAMILIES, find_family, resolve_family
from remask.errors import BackendError


def test_families_are_consistent() -> None:
    for name, family in FAMILIES.items():
        assert family.name == name
        assert family.mask in family.special or family.delete_token
        assert family.rest < family.context
        assert (family.block > 0) == (family.attention == "blocks")
        assert (family.format == "") == (family is BUILTIN)
        assert (family.delete >= 0) == (family.attention == "region")


@pytest.mark.parametrize(
    ("format", "checkpoint", "family"),
    [
        ("llada", "LLaDA-8B-Instruct", "llada"),
        ("llada", "LLaDA-1.5", "llada"),
        ("dream", "Dream-Coder-v0-Instruct-7B", "dream"),
        ("dream", "DreamOn-v0-7B", "dreamon"),
        ("illada", "iLLaDA-8B-Base", "illada"),
        ("llada-moe", "LLaDA-MoE-7B-A1B-Base", "llada-moe"),
        ("llada2", "LLaDA2.0-mini", "llada2"),
        ("llada2", "LLaDA2.1-mini", "llada2.1"),
        ("fast-dllm-v2", "Fast_dLLM_v2_7B", "fast-dllm-v2"),
        ("stable-diffcoder", "Stable-DiffCoder-8B-Base", "stable-diffcoder"),
        ("nemotron-labs-diffusion", "Nemotron-Labs-Diffusion-3B-Base", "nemotron-labs-diffusion"),
        ("sdar", "SDAR-8B-Chat", "sdar"),
        ("sdar", "SDAR-4B-Chat-b16", "sdar-b16"),
        ("sdar", "sdar-4b-chat-B64", "sdar-b64"),
        ("a2d-qwen3", "Qwen3-0.6B-diffusion-mdlm-v0.1", "tiny-a2d-mdlm"),
        ("a2d-qwen3", "Qwen3-0.6B-diffusion-bd3lm-v0.1", "tiny-a2d-bd3lm"),
    ],
)
def test_family_is_found_by_the_checkpoint_s_name(format: str, checkpoint: str, family: str) -> None:
    assert find_family(format, checkpoint).name == family


def test_family_may_be_named_by_the_user() -> None:
    assert find_family("a2d-qwen3", "mine", "tiny-a2d-bd3lm").block == 32
    assert find_family("sdar", "SDAR-4B-Chat-b16", "sdar").block == 4
    with pytest.raises(BackendError, match="name one of tiny-a2d-mdlm, tiny-a2d-bd3lm"):
        find_family("a2d-qwen3", "mine")
    with pytest.raises(BackendError, match="'llada' does not fit its format dream; name one of"):
        find_family("dream", "Dream", "llada")


def test_family_takes_the_settings_of_the_checkpoint() -> None:
    sdar, a2d = FAMILIES["sdar"], FAMILIES["tiny-a2d-mdlm"]
    resolved = resolve_family(sdar, "x", {}, {"<|im_end|>": 151645, "<think>": 151667}, 151936)
    assert (resolved.mask, resolved.block) == (151669, 4)
    assert resolved.special == (151643, 151644, 151645, 151667, 151669)
    resolved = resolve_family(sdar, "x", {"mask_token_id": 7, "block_size": 16}, {"<s>": 3}, 10)
    assert (resolved.mask, resolved.block, resolved.special) == (7, 16, (3, 7))
    assert resolve_family(a2d, "x", {"block_size": 16}, {"<|mask|>": 5}, 10).block == 0
    assert resolve_family(a2d, "x", {"mask_token_id": 5}, {"<|mask|>": 5}, 10).mask == 5


@pytest.mark.parametrize(
    ("name", "settings", "added", "words"),
    [
        ("llada", {}, {}, "its mask is 126336, but the model has only 100 ids"),
        ("llada", {"mask_token_id": -1}, {}, "its mask is -1"),
        ("llada", {"mask_token_id": "5"}, {}, "its mask is 5"),
        ("tiny-a2d-mdlm", {}, {"<|MASK|>": 5}, "no token <|mask|>"),
        ("tiny-a2d-mdlm", {"mask_token_id": 6}, {"<|mask|>": 5}, "mask_token_id 6, but .* is 5"),
        ("llama3", {}, {"<|reserved_special_token_0|>": 5}, "no token <|end_of_text|> (llama3)"),
        ("qwen2", {}, {"<|endoftext|>": 5}, "a token for each of the model's 100 ids"),
        ("sdar", {"mask_token_id": 5, "block_size": -4}, {}, "block_size -4; it must be"),
        ("sdar", {"mask_token_id": 5, "block_size": "4"}, {}, "block_size '4'; it must be"),
        ("fast-dllm-v2", {"bd_size": 0.5}, {"|<MASK>|": 5}, "bd_size 0.5; it must be"),
    ],
)
def test_contradictions_are_refused(
    name: str, settings: dict[str, Any], added: dict[str, int], words: str
) -> None:
    with pytest.raises(BackendError, match=re.sub(r"([|()])", r"\\\1", words)):
        resolve_family(FAMILIES[name], "x", settings, added, 100)
