"""Tiny checkpoints, written the way each family's real ones are.

Settings, weight names, shards, tokenizer files: as in the published folders, as far as those were
seen; only the numbers are small and random. Two layers, grouped queries, vocabulary of 320.
Known answer: `family` of each is the family that must be found; what they write means nothing.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import Tensor

TEXT = ["You are a careful assistant. Answer in one word: positive or negative."] * 2
SIZE, WIDTH, WIDE, LAYERS, HEADS, SHARED, HEAD = 320, 32, 48, 2, 4, 2, 8
ORDINARY = 290  # tokens of the vocabulary; added ones follow
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

LLADA_LAYER = {
    "attn_norm": (WIDTH,),
    "q_proj": (HEADS * HEAD, WIDTH),
    "k_proj": (SHARED * HEAD, WIDTH),
    "v_proj": (SHARED * HEAD, WIDTH),
    "attn_out": (WIDTH, HEADS * HEAD),
    "ff_norm": (WIDTH,),
    "ff_proj": (WIDE, WIDTH),
    "up_proj": (WIDE, WIDTH),
    "ff_out": (WIDTH, WIDE),
}
QWEN_LAYER = {
    "input_layernorm": (WIDTH,),
    "self_attn.q_proj": (HEADS * HEAD, WIDTH),
    "self_attn.k_proj": (SHARED * HEAD, WIDTH),
    "self_attn.v_proj": (SHARED * HEAD, WIDTH),
    "self_attn.o_proj": (WIDTH, HEADS * HEAD),
    "post_attention_layernorm": (WIDTH,),
    "mlp.gate_proj": (WIDE, WIDTH),
    "mlp.up_proj": (WIDE, WIDTH),
    "mlp.down_proj": (WIDTH, WIDE),
}
QWEN_SETTINGS = {
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "intermediate_size": WIDE,
    "max_position_embeddings": 512,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": SHARED,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": SIZE,
}


def code(name: str, classes: str) -> dict[str, str]:
    """An auto_map as published folders have it."""
    return {
        "AutoConfig": f"configuration_{name}.{classes}Config",
        "AutoModel": f"modeling_{name}.{classes}Model",
    }


@dataclass(frozen=True)
class Tiny:
    """A family's way of writing a checkpoint."""

    folder: str  # what its folder is called
    family: str  # the row that should be found
    settings: Mapping[str, Any]
    added: tuple[str, ...]  # names of added tokens, from id 290 on, or from 0 on if `first`
    layer: Mapping[str, tuple[int, ...]]
    prefix: str = "model.layers"
    outer: tuple[str, str, str] = ("model.embed_tokens", "model.norm", "lm_head")
    biased: tuple[str, ...] = ()
    tied: bool = False
    merges_only: bool = False  # vocab.json and merges.txt instead of tokenizer.json
    ordinary: tuple[str, ...] = field(default=())  # added tokens that are not special
    first: bool = False  # the added tokens have the first ids
    first_layer: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # instead of its experts
    vectors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # beside experts, not ".weight"


LLADA = Tiny(
    folder="LLaDA-8B-Instruct",
    family="llada",
    settings={
        "activation_type": "silu",
        "alibi": False,
        "architectures": ["LLaDAModelLM"],
        "attention_layer_norm": False,
        "auto_map": code("llada", "LLaDA"),
        "bias_for_layer_norm": False,
        "block_group_size": 1,
        "block_type": "llama",
        "d_model": WIDTH,
        "embedding_size": SIZE,
        "eos_token_id": 291,
        "include_bias": False,
        "include_qkv_bias": False,
        "input_emb_norm": False,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "mask_token_id": 292,
        "max_sequence_length": 512,
        "mlp_hidden_size": WIDE,
        "model_type": "llada",
        "multi_query_attention": None,
        "n_heads": HEADS,
        "n_kv_heads": SHARED,
        "n_layers": LAYERS,
        "rms_norm_eps": 1e-05,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": 500000.0,
        "scale_logits": False,
        "vocab_size": SIZE,
        "weight_tying": False,
    },
    added=(
        "<|startoftext|>",
        "<|endoftext|>",
        "<|mdm_mask|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ),
    layer=LLADA_LAYER,
    prefix="model.transformer.blocks",
    outer=("model.transformer.wte", "model.transformer.ln_f", "model.transformer.ff_out"),
)
DREAM = Tiny(
    folder="Dream-v0-Instruct-7B",
    family="dream",
    settings={
        **QWEN_SETTINGS,
        "architectures": ["DreamModel"],
        "auto_map": code("dream", "Dream"),
        "mask_token_id": 294,
        "model_type": "Dream",
        "use_mrope": False,
    },
    added=(*QWEN, "<|beginoftext|>", "<|mask|>"),
    layer=QWEN_LAYER,
    biased=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    merges_only=True,
)
DREAMON = replace(
    DREAM, folder="DreamOn-v0-7B", family="dreamon", added=(*DREAM.added, "<|expand|>"), merges_only=False
)
FAST_DLLM_V2 = Tiny(
    folder="Fast_dLLM_v2_1.5B",
    family="fast-dllm-v2",
    settings={
        **QWEN_SETTINGS,
        "architectures": ["Fast_dLLM_QwenForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration.Fast_dLLM_QwenConfig",
            "AutoModelForCausalLM": "modeling.Fast_dLLM_QwenForCausalLM",
        },
        "bd_size": 32,
        "layer_types": ["full_attention"] * LAYERS,
        "max_window_layers": 1,
        "model_type": "Fast_dLLM_Qwen",
        "tie_word_embeddings": True,
    },
    added=(*QWEN, "<|fim_pad|>", "|<MASK>|"),
    layer=QWEN_LAYER,
    biased=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    tied=True,
)
NORMED = {**QWEN_LAYER, "self_attn.q_norm": (HEAD,), "self_attn.k_norm": (HEAD,)}
SDAR = Tiny(
    folder="SDAR-1.7B-Chat",
    family="sdar",
    settings={
        **QWEN_SETTINGS,
        "architectures": ["SDARForCausalLM"],
        "attention_bias": False,
        "auto_map": code("sdar", "SDAR"),
        "block_size": 4,
        "head_dim": HEAD,
        "mask_token_id": 293,
        "model_type": "sdar",
    },
    added=(*QWEN, "<|MASK|>"),
    layer=NORMED,
)
A2D_MDLM = Tiny(
    folder="Qwen3-0.6B-diffusion-mdlm-v0.1",
    family="tiny-a2d-mdlm",
    settings={
        **QWEN_SETTINGS,
        "architectures": ["A2DQwen3LMHeadModel"],
        "attention_bias": False,
        "auto_map": code("qwen3", "A2DQwen3"),
        "head_dim": HEAD,
        "model_type": "a2d-qwen3",
        "tie_word_embeddings": True,
    },
    added=(*QWEN, "<think>", "</think>", "<|mask|>"),
    layer=NORMED,
    tied=True,
    ordinary=("<think>", "</think>"),
)
A2D_BD3LM = Tiny(
    folder="Qwen3-0.6B-diffusion-bd3lm-v0.1",
    family="tiny-a2d-bd3lm",
    settings=A2D_MDLM.settings,
    added=A2D_MDLM.added,
    layer=NORMED,
    tied=True,
    ordinary=A2D_MDLM.ordinary,
)
LLAMA_SETTINGS = {
    **QWEN_SETTINGS,
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "max_position_embeddings": 2048,
    "mlp_bias": False,
    "model_type": "llama",
    "pretraining_tp": 1,
    "tie_word_embeddings": True,
}
SEED = ("<[begin▁of▁sentence]>", "<[PAD▁TOKEN]>", "<[end▁of▁sentence]>", "<[UNK]>", "<[SEP▁TOKEN]>")
STABLE_DIFFCODER = Tiny(
    folder="Stable-DiffCoder-8B-Instruct",
    family="stable-diffcoder",
    settings={
        **LLAMA_SETTINGS,
        "architectures": ["StableDiffcoderForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_stable_diffcoder.StableDiffcoderForCausalLM"},
        "head_dim": HEAD,
        "max_position_embeddings": 512,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
    },
    added=(*SEED, "<[MASK_TOKEN]>"),
    layer=QWEN_LAYER,
    first=True,
)
ILLADA = Tiny(
    folder="iLLaDA-8B-Instruct",
    family="illada",
    settings={
        **LLAMA_SETTINGS,
        "architectures": ["ILLaDAForCausalLM"],
        "auto_map": code("illada", "ILLaDA"),
        "layer_norm_eps": None,
        "max_position_embeddings": 512,
        "model_type": "illada",
        "resid_pdrop": 0.0,
        "rope_scaling": {"factor": 1.0, "rope_type": "default"},
        "rope_theta": 500000.0,
    },
    added=(*SEED, "<[MASK]>"),
    layer=QWEN_LAYER,
    tied=True,
    first=True,
)
# Mixtures of experts. The names of the experts' weights contain the number of the expert.
EXPERTS, CHOSEN, INNER = 8, 3, 16
ROLES = ("<|startoftext|>", "<|endoftext|>", "<|mask|>", "<role>", "</role>", "<|role_end|>")


def swiglu(prefix: str, inner: int) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the matrices of one expert, or of a dense layer."""
    return {
        f"{prefix}.gate_proj": (inner, WIDTH),
        f"{prefix}.up_proj": (inner, WIDTH),
        f"{prefix}.down_proj": (WIDTH, inner),
    }


EXPERT_LAYER = {
    "mlp.gate": (EXPERTS, WIDTH),
    **{name: shape for i in range(EXPERTS) for name, shape in swiglu(f"mlp.experts.{i}", INNER).items()},
}
LLADA_MOE = Tiny(
    folder="LLaDA-MoE-7B-A1B-Instruct",
    family="llada-moe",
    settings={
        **{key: value for key, value in QWEN_SETTINGS.items() if key != "intermediate_size"},
        "architectures": ["LLaDAMoEModelLM"],
        "attention_bias": False,
        "auto_map": code("lladamoe", "LLaDAMoE"),
        "clip_qkv": None,
        "dense_intermediate_size": WIDE,
        "expert_intermediate_size": INNER,
        "model_type": "llada",
        "moe_layer_freq": [1] * LAYERS,
        "norm_topk_prob": None,
        "num_experts": EXPERTS,
        "num_experts_per_tok": CHOSEN,
        "num_key_value_heads": HEADS,
        "partial_rotary_factor": 1,
        "qk_layernorm": True,
        "rms_norm_eps": 1e-05,
        "rope_theta": 50000,
        "router_aux_loss_coef": 0.01,
        "routed_scaling_factor": 1,
        "shared_expert_intermediate_size": None,
    },
    added=ROLES,
    layer={
        **{name: shape for name, shape in NORMED.items() if not name.startswith("mlp.")},
        "self_attn.k_proj": (HEADS * HEAD, WIDTH),
        "self_attn.v_proj": (HEADS * HEAD, WIDTH),
        **EXPERT_LAYER,
    },
)
LLADA2 = Tiny(
    folder="LLaDA2.0-mini",
    family="llada2",
    settings={
        **QWEN_SETTINGS,
        "architectures": ["LLaDA2MoeModelLM"],
        "auto_map": code("llada2_moe", "LLaDA2Moe"),
        "first_k_dense_replace": 1,
        "head_dim": HEAD,
        "model_type": "llada2_moe",
        "moe_intermediate_size": INNER,
        "moe_router_enable_expert_bias": True,
        "n_group": 4,
        "norm_head": False,
        "norm_topk_prob": True,
        "num_experts": EXPERTS,
        "num_experts_per_tok": CHOSEN,
        "num_shared_experts": 1,
        "partial_rotary_factor": 0.5,
        "rope_theta": 600000,
        "rotary_dim": HEAD // 2,
        "routed_scaling_factor": 2.5,
        "router_dtype": "fp32",
        "score_function": "sigmoid",
        "topk_group": 2,
        "use_bias": False,
        "use_qk_norm": True,
        "use_qkv_bias": False,
    },
    added=ROLES,
    layer={
        "input_layernorm": (WIDTH,),
        "attention.query_key_value": ((HEADS + 2 * SHARED) * HEAD, WIDTH),
        "attention.query_layernorm": (HEAD,),
        "attention.key_layernorm": (HEAD,),
        "attention.dense": (WIDTH, HEADS * HEAD),
        "post_attention_layernorm": (WIDTH,),
        **EXPERT_LAYER,
        **swiglu("mlp.shared_experts", INNER),
    },
    first_layer=swiglu("mlp", WIDE),
    outer=("model.word_embeddings", "model.norm", "lm_head"),
    vectors={"mlp.gate.expert_bias": (EXPERTS,)},
)
NEMOTRON = Tiny(
    folder="Nemotron-Labs-Diffusion-8B",
    family="nemotron-labs-diffusion",
    settings={
        **{key: value for key, value in LLAMA_SETTINGS.items() if not key.startswith("rope_")},
        "ar_loss_weight": 1.0,
        "architectures": ["NemotronLabsDiffusionModel"],
        "auto_map": code("nemotron_labs_diffusion", "NemotronLabsDiffusion"),
        "block_size": 32,
        "dlm_loss_weight": None,
        "dlm_paradigm": "bidirectional",
        "head_dim": HEAD,
        "mask_token_id": 293,
        "model_type": "nemotron_labs_diffusion",
        "rope_parameters": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 16.0,
            "llama_4_scaling_beta": 0.1,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 400,
            "rope_theta": 1000000.0,
            "rope_type": "yarn",
        },
        "tie_word_embeddings": False,
        "use_cache": False,
    },
    added=(*QWEN, "<MASK_100>"),
    layer=QWEN_LAYER,
    prefix="encoder.layers",
    outer=("encoder.embed_tokens", "encoder.norm", "diffusion_head"),
)
GEMMA = Tiny(  # only its tokenizer; the rest is written by the transformers library
    folder="",
    family="diffusion-gemma",
    settings={},
    added=("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>"),
    layer={},
    first=True,
)
LLADA2_1 = replace(LLADA2, folder="LLaDA2.1-mini", family="llada2.1")
LLAMA3 = Tiny(
    folder="Llama-3.2-1B-Instruct",
    family="llama3",
    settings={
        **LLAMA_SETTINGS,
        "head_dim": HEAD,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 400,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
    },
    added=(
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|reserved_special_token_0|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ),
    layer=QWEN_LAYER,
    tied=True,
)
SMOLLM2 = Tiny(
    folder="SmolLM2-360M-Instruct",
    family="smollm2",
    settings={**LLAMA_SETTINGS, "is_llama_config": True, "rope_interleaved": False, "rope_theta": 100000},
    added=(*QWEN, "<repo_name>", "<reponame>", "<file_sep>", "<empty_output>"),
    layer=QWEN_LAYER,
    tied=True,
)
QWEN2 = Tiny(
    folder="Qwen2.5-0.5B-Instruct",
    family="qwen2",
    settings={
        **QWEN_SETTINGS,
        "architectures": ["Qwen2ForCausalLM"],
        "max_position_embeddings": 2048,
        "max_window_layers": 1,
        "model_type": "qwen2",
        "sliding_window": 2048,
    },
    added=(*QWEN, "<|object_ref_start|>", "<|fim_pad|>"),
    layer=QWEN_LAYER,
    biased=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
)
QWEN3 = Tiny(
    folder="Qwen3-0.6B",
    family="qwen3",
    settings={
        **QWEN_SETTINGS,
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "head_dim": HEAD,
        "layer_types": ["full_attention"] * LAYERS,
        "max_position_embeddings": 2048,
        "model_type": "qwen3",
        "tie_word_embeddings": True,
    },
    added=(*QWEN, "<think>", "</think>"),
    layer=NORMED,
    tied=True,
    ordinary=("<think>", "</think>"),
)
# Left-to-right models, which `remask adapt` turns into denoisers.
BASES = {tiny.family: tiny for tiny in (LLAMA3, SMOLLM2, QWEN2, QWEN3)}
ALL = {
    tiny.family: tiny
    for tiny in (
        *(LLADA, DREAM, DREAMON, ILLADA, LLADA_MOE, LLADA2, LLADA2_1, FAST_DLLM_V2),
        *(STABLE_DIFFCODER, NEMOTRON, SDAR, A2D_MDLM, A2D_BD3LM),
    )
}


def layer_shapes(tiny: Tiny, layer: int) -> dict[str, tuple[int, ...]]:
    """The names of the weights of a layer and their shapes."""
    if layer or not tiny.first_layer:
        return dict(tiny.layer)
    kept = {name: shape for name, shape in tiny.layer.items() if not name.startswith("mlp.")}
    return {**kept, **tiny.first_layer}


def weights(tiny: Tiny, seed: int = 0) -> dict[str, Tensor]:
    """Random bf16 weights by the family's own names."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=generator)
        drawn = 1 + 0.2 * drawn if len(shape) == 1 else drawn / shape[-1] ** 0.5
        return drawn.to(torch.bfloat16)

    embedding, norm, head = tiny.outer
    # Wide enough that attention is far from uniform and differences are far above rounding.
    state = {f"{embedding}.weight": 2 * draw(SIZE, WIDTH), f"{norm}.weight": draw(WIDTH)}
    if not tiny.tied:
        state[f"{head}.weight"] = 2 * draw(SIZE, WIDTH)
    for i in range(LAYERS):
        for name, shape in layer_shapes(tiny, i).items():
            state[f"{tiny.prefix}.{i}.{name}.weight"] = 2 * draw(*shape)
            if name in tiny.biased:
                state[f"{tiny.prefix}.{i}.{name}.bias"] = draw(shape[0])
        if i or not tiny.first_layer:
            # Of both signs, and large enough to change which experts are chosen.
            state |= {f"{tiny.prefix}.{i}.{name}": draw(*shape) - 1 for name, shape in tiny.vectors.items()}
    return state


def write(tiny: Tiny, parent: Path, seed: int = 0) -> Path:
    """Write the checkpoint in two shards into a new folder under `parent`."""
    folder = parent / tiny.folder
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(tiny.settings, indent=2))
    for name in ("configuration", "modeling"):  # published folders bring code; it must not run
        (folder / f"{name}_{tiny.family}.py").write_text("raise SystemExit('code of a checkpoint')")
    write_tokenizer(tiny, folder)
    write_weights(weights(tiny, seed), folder)
    return folder


def write_diffusion_gemma(parent: Path, seed: int = 0) -> Path:
    """A tiny DiffusionGemma, saved by the transformers library, with its vision tower.

    Three layers that see four tokens of the context, and one that sees all of it.
    """
    # Imported here because no other family needs it.
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion, Gemma4VisionConfig

    kinds = ["sliding_attention"] * 3 + ["full_attention"]
    text = {
        "vocab_size": SIZE,
        "hidden_size": WIDTH,
        "intermediate_size": WIDE,
        "num_hidden_layers": 4,
        "num_attention_heads": HEADS,
        "num_key_value_heads": SHARED,
        "num_global_key_value_heads": 1,
        "head_dim": HEAD,
        "global_head_dim": 2 * HEAD,
        "sliding_window": 5,
        "layer_types": kinds,
        "num_experts": EXPERTS,
        "top_k_experts": CHOSEN,
        "moe_intermediate_size": INNER,
        "max_position_embeddings": 2048,
        "use_bidirectional_attention": "vision",
    }
    vision = Gemma4VisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, head_dim=8,
        num_key_value_heads=2, patch_size=2, position_embedding_size=4,
    )  # fmt: skip
    config = DiffusionGemmaConfig(text_config=text, vision_config=vision)
    torch.manual_seed(seed)
    model = DiffusionGemmaForBlockDiffusion(config).float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.startswith(("model.decoder.", "model.encoder.language_model.")):
                drawn = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(1 + 0.2 * drawn if tensor.dim() == 1 else drawn / tensor.shape[-1] ** 0.5)
    folder = parent / "diffusiongemma-26B-A4B-it"
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    write_tokenizer(GEMMA, folder)
    return folder


def write_weights(state: Mapping[str, Tensor], folder: Path) -> None:
    """Two shards and their index."""
    names = list(state)
    shards = [names[: len(names) // 2], names[len(names) // 2 :]]
    listed = {}
    for i, part in enumerate(shards, 1):
        file = f"model-{i:05}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / file, {"format": "pt"})
        listed |= dict.fromkeys(part, file)
    size = sum(tensor.nbytes for tensor in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": listed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def in_hub_cache(folder: Path, cache: Path, hub_id: str, commit: str) -> Path:
    """The checkpoint in `folder` as the hub's library keeps it; returns the snapshot's folder."""
    root = cache / f"models--{hub_id.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    for path in folder.iterdir():
        content = path.read_bytes()
        if path.suffix == ".safetensors":
            name = hashlib.sha256(content).hexdigest()
        else:
            name = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        (root / "blobs" / name).write_bytes(content)
        (snapshot / path.name).symlink_to(Path("../../blobs") / name)
    return snapshot


def added_ids(tiny: Tiny) -> range:
    """The ids of a checkpoint's added tokens."""
    start = 0 if tiny.first else ORDINARY
    return range(start, start + len(tiny.added))


def write_tokenizer(tiny: Tiny, folder: Path) -> None:
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.NFC()
    # Qwen's pattern: with other cuts the merges of vocab.json and tokenizer.json would differ.
    pieces = Regex(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    first = len(tiny.added) if tiny.first else 0
    trainer = BpeTrainer(
        vocab_size=ORDINARY + first,
        initial_alphabet=letters,
        special_tokens=list(tiny.added[:first]),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    assert tokenizer.get_vocab_size() == ORDINARY + first
    tokens = {
        name: AddedToken(name, special=name not in tiny.ordinary, normalized=False) for name in tiny.added
    }
    listed = {
        str(i): {"content": name, "special": token.special}
        for i, (name, token) in zip(added_ids(tiny), tokens.items(), strict=True)
    }
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": listed}))
    if tiny.merges_only:
        tokenizer.model.save(str(folder))
        named = {name: ORDINARY + i for i, name in enumerate(tiny.added)}
        (folder / "added_tokens.json").write_text(json.dumps(named))
    else:
        tokenizer.add_tokens(list(tokens.values()))
        tokenizer.save(str(folder / "tokenizer.json"))
