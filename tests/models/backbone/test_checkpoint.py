"""Every family from disk: logits equal a forward pass written here, for any batch and padding.

That forward pass does not use the transformers library. It has RMSNorm, rotary embedding, grouped
queries, biases, norms of queries and keys, SwiGLU, and the attention mask of each family.
"""

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from transformers import Qwen2Config

from fakes import checkpoints
from fakes.checkpoints import ALL, BASES, Tiny
from remask.dlm import build as checkpoint
from remask.dlm.families import FAMILIES, Family
from remask.errors import BackendError
from remask.models.backbone.checkpoint import estimate_memory, load_checkpoint, read_config
from remask.models.backbone.checkpoint_formats import FORMATS, CheckpointFormat, read_settings
from remask.models.backbone.device import choose_device
from remask.models.backbone.transformer import Backbone

CLOSE = {"atol": 2e-4, "rtol": 1e-4}
EVERY = {**ALL, **BASES}
SHIFTED = {"dream", "dreamon", "fast-dllm-v2", *BASES}
BLOCK = {
    "sdar": 4,
    "stable-diffcoder": 4,
    "llada2": 32,
    "llada2.1": 32,
    "fast-dllm-v2": 32,
    "tiny-a2d-bd3lm": 32,
}

# This family reads a context left to right, and what follows it in both directions.
CANVAS, CONTEXT = "nemotron-labs-diffusion", 10
NORMS = ("q_norm", "k_norm", "query_layernorm", "key_layernorm")  # of queries and keys

LONG = "Answer in one word: positive or negative. You are 1 careful assistant, not 20 of them."
TEXTS = [LONG, "You are", "An"]

Loaded = tuple[Backbone, Family, Path]


@pytest.fixture(scope="module")
def load(checkpoint: Callable[[str], Path]) -> Callable[[str], Loaded]:
    return cache(lambda name: (*load_family(checkpoint(name)), checkpoint(name)))


def load_family(folder: Path) -> tuple[Backbone, Family]:
    return checkpoint.load_family(str(folder), device="cpu", dtype=torch.float32)


# -- an independent forward pass ----------------------------------------------------------------


def rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def speeds(theta: float, half: int, scaling: dict[str, Any] | None) -> Tensor:
    """The rotary frequencies theta^-(i / half), with the scaling of Llama 3.1.

    It divides frequencies of fewer than low_freq_factor turns in the trained length by `factor`,
    keeps those of more than high_freq_factor turns, and interpolates in between.
    """
    speed = theta ** -(torch.arange(half) / half)
    if scaling is None or scaling["rope_type"] == "default":
        return speed
    if scaling["rope_type"] == "yarn":
        return interpolate(speed, theta, scaling)
    turns = scaling["original_max_position_embeddings"] * speed / (2 * math.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * speed + (1 - kept) * speed / scaling["factor"]


def interpolate(speed: Tensor, theta: float, scaling: dict[str, Any]) -> Tensor:
    """YaRN (arXiv 2309.00071): frequencies are divided by `factor`, except the fast ones.

    The share that is divided rises from 0 at the pair that makes beta_fast turns in the trained length
    to 1 at the pair that makes beta_slow. Its scale of the attention is 1, since mscale = mscale_all_dim.
    """
    length = scaling["original_max_position_embeddings"]

    def pair(turns: float) -> float:
        return len(speed) * math.log(length / (turns * 2 * math.pi)) / math.log(theta)

    low, high = max(math.floor(pair(scaling["beta_fast"])), 0), math.ceil(pair(scaling["beta_slow"]))
    share = ((torch.arange(len(speed)) - low) / (high - low)).clamp(0, 1)
    return share * speed / scaling["factor"] + (1 - share) * speed


def rotate(x: Tensor, speed: Tensor) -> Tensor:
    """Rotate each pair (i, i + half) of (T, H, h) by position times its speed.

    With fewer speeds than pairs, only the first 2 * speeds numbers are rotated.
    """
    half = len(speed)
    angle = torch.arange(len(x))[:, None, None] * speed
    a, b, rest = x.split([half, half, x.shape[-1] - 2 * half], -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin(), rest], -1)


Project = Callable[[str, Tensor], Tensor]


def swiglu(project: Project, gate: str, up: str, down: str, x: Tensor) -> Tensor:
    opened = project(gate, x)
    return project(down, opened * opened.sigmoid() * project(up, x))


def choose_experts(tiny: Tiny, logits: Tensor, bias: Tensor | None) -> dict[int, float]:
    """The experts of one token, with their weights.

    LLaDA-MoE: the largest of the softmax, as they are. LLaDA2: of the groups with the largest sums of
    two biased scores, the largest biased scores; the weights are the scores without the bias, which
    sum to routed_scaling_factor.
    """
    count = tiny.settings["num_experts_per_tok"]
    if bias is None:
        share = logits.softmax(0)
        return {int(i): float(share[i]) for i in share.topk(count).indices}
    score = logits.sigmoid()
    biased = score + bias
    size = len(score) // tiny.settings["n_group"]
    groups = [list(range(at, at + size)) for at in range(0, len(score), size)]
    groups.sort(key=lambda group: float(biased[group].topk(2).values.sum()), reverse=True)
    allowed = sorted(
        itertools.chain(*groups[: tiny.settings["topk_group"]]), key=lambda i: float(biased[i]), reverse=True
    )
    total = sum(float(score[i]) for i in allowed[:count])
    return {i: tiny.settings["routed_scaling_factor"] * float(score[i]) / total for i in allowed[:count]}


def feed_forward(tiny: Tiny, project: Project, names: list[str], x: Tensor, bias: Tensor | None) -> Tensor:
    if "mlp.gate" not in names:
        return swiglu(project, *names[-3:], x)
    out = torch.zeros_like(x)
    for token, logits in enumerate(project("mlp.gate", x)):
        for i, share in choose_experts(tiny, logits, bias).items():
            parts = (f"mlp.experts.{i}.{part}_proj" for part in ("gate", "up", "down"))
            out[token] += share * swiglu(project, *parts, x[token])
    if "mlp.shared_experts.up_proj" in names:
        out += swiglu(project, *(f"mlp.shared_experts.{part}_proj" for part in ("gate", "up", "down")), x)
    return out


def split_heads(tiny: Tiny, project: Project, names: list[str], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (T, HEADS, h), keys and values (T, shared, h)."""
    if "attention.query_key_value" in names:
        joint = project(names[1], x).view(len(x), -1, checkpoints.HEAD)
        query, key, value = joint.split([checkpoints.HEADS, checkpoints.SHARED, checkpoints.SHARED], 1)
        return query, key, value
    query, key, value = (project(part, x).view(len(x), -1, checkpoints.HEAD) for part in names[1:4])
    return query, key, value


def reference(tiny: Tiny, folder: Path, ids: list[int]) -> Tensor:
    """The logits (T, V) that predict the token at each position, with the family's shift."""
    state: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        state |= {name: tensor.float() for name, tensor in load_file(file).items()}
    config = json.loads((folder / "config.json").read_text())
    eps, scaling = config["rms_norm_eps"], config.get("rope_scaling") or config.get("rope_parameters")
    turned = int(checkpoints.HEAD * config.get("partial_rotary_factor", 1))
    speed = speeds(config.get("rope_theta", (scaling or {}).get("rope_theta")), turned // 2, scaling)
    embedding, norm, head = (state.get(f"{name}.weight") for name in tiny.outer)
    assert embedding is not None and norm is not None
    length = len(ids)
    block = 1 if tiny.family in BASES else BLOCK.get(tiny.family, length)
    sees = torch.zeros(length, length, dtype=torch.bool)
    number = [min(i, CONTEXT) if tiny.family == CANVAS else i // block for i in range(length)]
    for query, key in itertools.product(range(length), repeat=2):
        sees[query, key] = number[key] <= number[query]

    hidden = embedding[ids]
    for i in range(checkpoints.LAYERS):

        def weight(part: str, i: int = i) -> Tensor:
            return state[f"{tiny.prefix}.{i}.{part}.weight"]

        def project(part: str, x: Tensor, i: int = i) -> Tensor:
            bias = state.get(f"{tiny.prefix}.{i}.{part}.bias")
            out = x @ state[f"{tiny.prefix}.{i}.{part}.weight"].T
            return out if bias is None else out + bias

        # The first is the norm before attention, then queries, keys and values, the output, and the
        # norm after attention; the last three are the parts of a dense layer.
        names = [n for n in checkpoints.layer_shapes(tiny, i) if not n.endswith(NORMS)]
        output = next(n for n in names if n.endswith(("o_proj", "attn_out", "dense")))
        x = rms(hidden, weight(names[0]), eps)
        queries, keys, values = split_heads(tiny, project, names, x)
        for normed in (n for n in tiny.layer if n.endswith(NORMS)):
            if normed.endswith(("q_norm", "query_layernorm")):
                queries = rms(queries, weight(normed), eps)
            else:
                keys = rms(keys, weight(normed), eps)
        queries, keys = rotate(queries, speed), rotate(keys, speed)
        heads = []
        for h in range(checkpoints.HEADS):
            shared = h * keys.shape[1] // checkpoints.HEADS
            scores = queries[:, h] @ keys[:, shared].T / checkpoints.HEAD**0.5
            share = scores.masked_fill(~sees, float("-inf")).softmax(-1)
            heads.append(share @ values[:, shared])
        hidden = hidden + project(output, torch.cat(heads, -1))
        x = rms(hidden, weight(names[names.index(output) + 1]), eps)
        expert_bias = state.get(f"{tiny.prefix}.{i}.mlp.gate.expert_bias")
        hidden = hidden + feed_forward(tiny, project, names, x, expert_bias)
    logits = rms(hidden, norm, eps) @ (embedding if head is None else head).T
    if tiny.family in SHIFTED:
        return torch.cat([logits[:1], logits[:-1]])
    return logits


# -- the backbone -------------------------------------------------------------------------------


def blocks_of(family: Family, attention_mask: Tensor) -> Tensor:
    position = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
    if family.attention == "canvas":
        return position.clamp(max=CONTEXT)
    size = {"region": 1, "blocks": family.block, "full": len(position[0])}[family.attention]
    return position // size


def predictions(backbone: Backbone, family: Family, ids: Tensor, attention_mask: Tensor) -> Tensor:
    hidden, kv_cache = backbone.read_blocks(ids, attention_mask, blocks_of(family, attention_mask))
    assert kv_cache is None
    logits = backbone.logits(hidden)
    return torch.cat([logits[:, :1], logits[:, :-1]], 1) if family.shifted else logits


def alone(backbone: Backbone, family: Family, ids: list[int]) -> Tensor:
    row = torch.tensor([ids])
    return predictions(backbone, family, row, torch.ones_like(row, dtype=torch.bool))[0]


def masked_row(backbone: Backbone, family: Family, text: str) -> list[int]:
    ids = backbone.encode(text)
    return [family.mask if i % 3 == 1 else token for i, token in enumerate(ids)]


@pytest.mark.parametrize("name", EVERY)
def test_logits_equal_an_independent_forward(load: Callable[[str], Loaded], name: str) -> None:
    backbone, family, folder = load(name)
    ids = masked_row(backbone, family, TEXTS[0])
    assert len(ids) > 33  # more than one block of each family
    expected = reference(EVERY[name], folder, ids)
    assert expected.std() > 1
    torch.testing.assert_close(alone(backbone, family, ids), expected, **CLOSE)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("left", [False, True])
def test_batch_and_padding_change_nothing(load: Callable[[str], Loaded], name: str, left: bool) -> None:
    backbone, family, _ = load(name)
    rows = [masked_row(backbone, family, text) for text in TEXTS]
    width = max(map(len, rows)) + 3
    ids = torch.full((len(rows), width), 7)
    attention_mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, where], attention_mask[i, where] = torch.tensor(row), True
    together = predictions(backbone, family, ids, attention_mask)
    assert together.isfinite().all()
    for i, row in enumerate(rows):
        # With left padding, the shifted prediction of a row's first token is undefined.
        first = 1 if family.shifted else 0
        single = alone(backbone, family, row)
        torch.testing.assert_close(together[i][attention_mask[i]][first:], single[first:], **CLOSE)


@pytest.mark.parametrize("name", ALL)
def test_last_token_is_seen_by_the_tokens_of_its_block_only(load: Callable[[str], Loaded], name: str) -> None:
    backbone, family, _ = load(name)
    ids = masked_row(backbone, family, TEXTS[0])[:38]
    changed = [*ids[:-1], (ids[-1] + 1) % 256]
    row = torch.tensor([ids, changed])
    attention_mask = torch.ones_like(row, dtype=torch.bool)
    hidden, _ = backbone.read_blocks(row, attention_mask, blocks_of(family, attention_mask))
    moved = (hidden[0] - hidden[1]).abs().amax(-1) > 1e-3
    first = 37 // BLOCK[name] * BLOCK[name] if name in BLOCK else CONTEXT if name == CANVAS else 0
    assert not moved[:first].any()
    assert moved[first:].sum() > (len(ids) - first) / 2  # saturated attention hides some of the changes


@pytest.mark.parametrize("name", BLOCK)
def test_cache_of_finished_blocks_is_exact(load: Callable[[str], Loaded], name: str) -> None:
    backbone, family, _ = load(name)
    row = torch.tensor([masked_row(backbone, family, TEXTS[0])])
    attention_mask = torch.ones_like(row, dtype=torch.bool)
    blocks = blocks_of(family, attention_mask)
    whole, _ = backbone.read_blocks(row, attention_mask, blocks)
    cut = 32
    before = (row[:, :cut], attention_mask[:, :cut], blocks[:, :cut])
    first, kv_cache = backbone.read_blocks(*before, keep=True)
    rest, _ = backbone.read_blocks(row[:, cut:], attention_mask[:, cut:], blocks[:, cut:], kv_cache)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole, **CLOSE)


ROWS = st.lists(st.lists(st.integers(0, 289), min_size=1, max_size=12), min_size=1, max_size=4)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(ROWS, st.integers(1, 7), st.integers(0, 3), st.booleans(), st.integers(0, 12))
def test_batch_of_any_blocks_equals_each_row_alone(
    load: Callable[[str], Loaded], rows: list[list[int]], size: int, pad: int, left: bool, context: int
) -> None:
    backbone, _, _ = load("sdar")
    past = None
    if context:
        before = torch.arange(context)[None]
        _, past = backbone.read(before, torch.ones_like(before, dtype=torch.bool))
    width = max(map(len, rows)) + pad
    ids = torch.full((len(rows), width), 7)
    attention_mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, where], attention_mask[i, where] = torch.tensor(row), True
    blocks = (attention_mask.long().cumsum(1) - 1).clamp(min=0) // size
    together, extended = backbone.read_blocks(ids, attention_mask, blocks, past, keep=True)
    assert extended is not None
    assert extended.attention_mask.sum(1).tolist() == [context + len(row) for row in rows]
    for i, row in enumerate(rows):
        one = torch.tensor([row])
        here = torch.ones_like(one, dtype=torch.bool)
        single, _ = backbone.read_blocks(one, here, torch.arange(len(row))[None] // size, past)
        torch.testing.assert_close(together[i][attention_mask[i]], single[0], **CLOSE)


def test_blocks_equal_to_positions_read_left_to_right(load: Callable[[str], Loaded]) -> None:
    backbone, family, _ = load("dream")
    row = torch.tensor([masked_row(backbone, family, TEXTS[0])])
    attention_mask = torch.ones_like(row, dtype=torch.bool)
    hidden, kv_cache = backbone.read_blocks(row, attention_mask, torch.arange(row.shape[1])[None], keep=True)
    causal, other = backbone.read(row, attention_mask)
    assert torch.equal(hidden, causal)
    assert kv_cache is not None and torch.equal(kv_cache.keys[1], other.keys[1])


@pytest.mark.parametrize("name", ALL)
def test_family_is_found_and_resolved(load: Callable[[str], Loaded], name: str) -> None:
    backbone, family, _ = load(name)
    tiny = ALL[name]
    masks = [added for added in tiny.added if "mask" in added.lower()]
    assert family.name == name
    assert family.mask == backbone.token_id(masks.pop())
    published = {i for i in FAMILIES[name].special if i < checkpoints.SIZE}
    assert set(family.special) == {*checkpoints.added_ids(tiny), *published}
    assert backbone.vocab_size == checkpoints.SIZE
    assert family.block == BLOCK.get(name, 0)


def test_context_ends_where_a_model_begins_to_scale_its_queries(load: Callable[[str], Loaded]) -> None:
    assert load("nemotron-labs-diffusion")[0].context_length == 400
    assert load("sdar")[0].context_length == ALL["sdar"].settings["max_position_embeddings"]


@pytest.mark.parametrize("name", EVERY)
def test_text_never_encodes_to_an_added_token(load: Callable[[str], Loaded], name: str) -> None:
    backbone, _, _ = load(name)
    tiny = EVERY[name]
    added = checkpoints.added_ids(tiny)
    text = "You " + " are ".join(tiny.added) + "<think>é</think>\n"
    assert not set(backbone.encode(text)) & set(added)
    assert backbone.decode(backbone.encode(text)) == text
    assert backbone.decode([added[0], *backbone.encode("a"), *added[-2:], 319]) == "a"


@pytest.mark.parametrize("name", EVERY)
def test_turn_has_the_frame_of_the_family(load: Callable[[str], Loaded], name: str) -> None:
    backbone, _, _ = load(name)
    ids = [
        *backbone.encode_start(),
        *backbone.encode_turn("user", "Hi<|im_end|>"),
        *backbone.encode_opening("a"),
    ]
    text = backbone.tokenizer.decode(ids, skip_special_tokens=False)
    headed = name in ("llada", "llama3")
    frame_tokens = 6 if headed else 5 if "<role>" in EVERY[name].added else 3
    if EVERY[name].first:
        start, end = "<[begin▁of▁sentence]>", "<[end▁of▁sentence]>"
        assert text == f"{start}user\nHi<|im_end|>{end}{start}a\n"
    elif "<role>" in EVERY[name].added:
        assert text == "<role>HUMAN</role>Hi<|im_end|><|role_end|><role>a</role>"
    elif headed:
        first = EVERY[name].added[0]
        start, end = "<|start_header_id|>", "<|end_header_id|>\n\n"
        assert text == f"{first}{start}user{end}Hi<|im_end|><|eot_id|>{start}a{end}"
    else:
        assert text == "<|im_start|>user\nHi<|im_end|><|im_end|>\n<|im_start|>a\n"
    assert sum(i in checkpoints.added_ids(EVERY[name]) for i in ids) == frame_tokens


@pytest.mark.parametrize(
    ("name", "mask", "delete"),
    [
        ("llama3", "<|reserved_special_token_0|>", "<|end_of_text|>"),
        ("smollm2", "<empty_output>", "<reponame>"),
        ("qwen2", None, "<|endoftext|>"),
        ("qwen3", None, "<|endoftext|>"),
    ],
)
def test_masks_and_delete_tokens_of_bases_are_in_no_text(
    load: Callable[[str], Loaded], name: str, mask: str | None, delete: str
) -> None:
    backbone, family, _ = load(name)
    unused = checkpoints.ORDINARY + len(BASES[name].added)
    assert family.name == name and family.attention == "region" and family.shifted
    assert family.mask == (unused if mask is None else backbone.token_id(mask))
    assert family.delete == backbone.token_id(delete)
    assert {family.mask, family.delete, *range(290, unused)} == set(family.special)
    ids = [
        *backbone.encode_start(),
        *backbone.encode_turn("user", f"{mask}{delete}"),
        *backbone.encode_opening("a"),
    ]
    assert not {family.mask, family.delete} & set(ids)
    assert backbone.decode([family.mask, family.delete]) == ""


def test_tokenizer_formats_agree(tmp_path: Path) -> None:
    merges = checkpoints.write(ALL["dream"], tmp_path / "a")
    whole = checkpoints.write(replace(ALL["dream"], merges_only=False), tmp_path / "b")
    a, b = (load_checkpoint(str(folder), device="cpu").backbone for folder in (merges, whole))
    for text in [*TEXTS, "It's  12\n\n positive!\t", "ünïcode 🙂 e\u0301", ""]:
        assert a.encode(text) == b.encode(text)


def test_identity_names_content_format_and_dtype(tmp_path: Path) -> None:
    one = checkpoints.write(ALL["sdar"], tmp_path / "one")
    same = checkpoints.write(ALL["sdar"], tmp_path / "same")
    other = checkpoints.write(ALL["sdar"], tmp_path / "other", seed=1)
    folders = (one, same, other)
    half = [load_checkpoint(str(f), device="cpu", dtype=torch.bfloat16) for f in folders]
    names = [found.backbone.identity for found in half]
    assert names[0] == names[1] != names[2]
    exact = load_checkpoint(str(one), device="cpu", dtype=torch.float32).backbone
    assert exact.identity != names[0]
    assert names[0].startswith("sdar/") and names[0].endswith("/bfloat16/cpu")


@pytest.mark.parametrize("name", EVERY)
def test_memory_is_estimated_before_loading(load: Callable[[str], Loaded], name: str) -> None:
    backbone, _, folder = load(name)
    config = read_config(str(folder))
    stored = {tensor.data_ptr(): tensor for tensor in backbone.model.state_dict().values()}
    weights = sum(tensor.numel() for tensor in stored.values())
    assert estimate_memory(config, torch.float32) == 4 * weights
    row = torch.tensor([[1, 2, 3]])
    _, kv_cache = backbone.read(row, torch.ones_like(row, dtype=torch.bool))
    cached = sum(tensor.nbytes for tensor in (*kv_cache.keys, *kv_cache.values))
    assert estimate_memory(config, torch.float32, tokens=3) == 4 * weights + cached
    linear = [w for n, w in backbone.model.state_dict().items() if n.endswith("_proj.weight")]
    merged = backbone.with_weights({}, "x").model.state_dict()  # all weights are shared except replaced ones
    assert all(w.data_ptr() in stored for w in merged.values())
    twice = sum(tensor.numel() for tensor in linear)
    assert estimate_memory(config, torch.float32, adapted=True) == 4 * (weights + twice)


def test_memory_of_llada_8b_is_the_published_size() -> None:
    # total_size in LLaDA-8B-Instruct's index is 16,031,162,368 bytes of bf16.
    published = {
        **ALL["llada"].settings,
        "d_model": 4096,
        "n_heads": 32,
        "n_kv_heads": 32,
        "n_layers": 32,
        "mlp_hidden_size": 12288,
        "embedding_size": 126464,
        "max_sequence_length": 4096,
    }
    config = read_settings(FORMATS["llada"], published, "LLaDA")
    assert estimate_memory(config) == 16_031_162_368


def test_memory_of_mixtures_of_experts_is_that_of_the_published_numbers_of_parameters() -> None:
    # 7.36 and 16.26 billion parameters, counted from the published settings.
    moe = {
        **ALL["llada-moe"].settings,
        "vocab_size": 157184,
        "hidden_size": 2048,
        "expert_intermediate_size": 1024,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "num_experts": 64,
    }
    assert round(estimate_memory(read_settings(FORMATS["llada-moe"], moe, "LLaDA-MoE")) / 2e9, 2) == 7.36
    mini = {
        **ALL["llada2"].settings,
        "vocab_size": 157184,
        "hidden_size": 2048,
        "intermediate_size": 5120,
        "moe_intermediate_size": 512,
        "num_hidden_layers": 20,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "num_experts": 256,
        "head_dim": 128,
        "rotary_dim": 64,
    }
    assert round(estimate_memory(read_settings(FORMATS["llada2"], mini, "LLaDA2")) / 2e9, 2) == 16.26


def test_role_frames_have_names_of_their_own(load: Callable[[str], Loaded]) -> None:
    backbone, _, _ = load("llada2")
    opening = backbone.tokenizer.decode(backbone.encode_opening("assistant"), skip_special_tokens=False)
    assert opening == "<role>ASSISTANT</role>"


def test_family_is_added_as_one_row_of_each_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The example of docs/reference/families.md: Tiny-A2D made of Qwen2.
    row = CheckpointFormat("a2d-qwen2", "A2DQwen2LMHeadModel", "a2d-qwen2", Qwen2Config)
    monkeypatch.setitem(FORMATS, row.name, row)
    family = replace(FAMILIES["tiny-a2d-mdlm"], name="tiny-a2d-qwen2", format="a2d-qwen2")
    monkeypatch.setitem(FAMILIES, family.name, family)
    tiny = replace(
        ALL["dream"],
        folder="Qwen2.5-Coder-0.5B-Instruct-diffusion-mdlm-v0.1",
        settings={
            **ALL["dream"].settings,
            "architectures": [row.architecture],
            "model_type": row.model_type,
            "mask_token_id": None,
            "tie_word_embeddings": True,
        },
        family=family.name,
        tied=True,
    )
    folder = checkpoints.write(tiny, tmp_path)
    backbone, found = load_family(folder)
    assert (found.name, found.mask) == ("tiny-a2d-qwen2", backbone.token_id("<|mask|>"))
    ids = masked_row(backbone, found, LONG)
    torch.testing.assert_close(alone(backbone, found, ids), reference(tiny, folder, ids), **CLOSE)


def test_device_is_chosen_and_an_unusable_one_refused() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device().type in {"cpu", "cuda", "mps"}
    for name in ("cuda:99", "toaster"):
        with pytest.raises(BackendError, match=f"'{name}' cannot be used here"):
            choose_device(name)
