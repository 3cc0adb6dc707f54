"""The formats in which the checkpoints of each family are written, as a table.

A format says how a folder is recognised, which model of the transformers library its weights fit,
the names of its settings and weights, and its chat frames. A setting that a format does not read
must have the value that the model assumes, else the folder is refused. This module reads no file
and runs no code of a checkpoint. The names of LLaDA, SDAR and Tiny-A2D were compared with copies of
their config.json, index and model code; those of Llama, Qwen2 and Qwen3 are from the transformers
library. No weights of models with billions of parameters were loaded.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from transformers import Glm4MoeConfig, LlamaConfig, Qwen2Config, Qwen3Config, Qwen3MoeConfig

from remask.errors import BackendError
from remask.models.backbone.tokenizer import CHATML, HEADERS, LLAMA3, ROLES, SEED, TURNS, Frame
from remask.models.backbone.transformer import Backbone, Config

Settings = Mapping[str, Any]  # a parsed config.json

SIZE_SETTINGS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
)
# Larger numbers would take hours or overflow before the weights are compared with them.
MAX_SIZE = 1 << 22
MAX_SIZES = {"num_hidden_layers": 1000, "max_position_embeddings": 1 << 30}
ASSUMED_SETTINGS = {  # the values that every format assumes
    "hidden_act": ("silu",),
    "use_sliding_window": (False,),
    "use_mrope": (False,),
    "quantization_config": (),
}


@dataclass(frozen=True, slots=True)
class CheckpointFormat:
    """One format of checkpoints. An empty mapping of names means that they equal ours."""

    name: str
    architecture: str  # in config.json
    model_type: str  # in config.json, used if it names no architecture; "": shared with another row
    config: type[Config] | None  # None: that of diffusion_gemma.py
    frames: tuple[Frame, ...] = (CHATML,)  # the first whose tokens the tokenizer has is used
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # ours → theirs, first found
    weights: Mapping[str, str] = field(default_factory=dict)  # theirs → ours; {} is the layer
    parts: Mapping[str, str] = field(default_factory=dict)  # of weights' names, theirs → ours
    assumed: Mapping[str, tuple[object, ...]] = field(default_factory=dict)  # + ASSUMED_SETTINGS
    # Types of scaled rotary positions that the model supports, and the parameters of each.
    ropes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counts: tuple[str, ...] = ()  # settings that are whole numbers, beside SIZE_SETTINGS
    numbers: tuple[str, ...] = ()  # settings that are other numbers
    fixed: Mapping[str, Any] = field(default_factory=dict)  # settings of `config` that are no choice
    aliases: tuple[str, ...] = ()  # other names of the architecture
    skipped: tuple[str, ...] = ()  # beginnings of weights' names that are not about text
    partial_rotary: bool = False  # only a part of each head is turned by its position


LLADA = CheckpointFormat(
    name="llada",
    architecture="LLaDAModelLM",
    model_type="llada",
    config=LlamaConfig,
    frames=(HEADERS,),
    keys={
        "vocab_size": ("embedding_size", "vocab_size"),
        "hidden_size": ("d_model",),
        "intermediate_size": ("mlp_hidden_size",),
        "num_hidden_layers": ("n_layers",),
        "num_attention_heads": ("n_heads",),
        "num_key_value_heads": ("n_kv_heads", "n_heads"),
        "max_position_embeddings": ("max_sequence_length",),
        "tie_word_embeddings": ("weight_tying",),
    },
    weights={
        "model.transformer.wte.weight": "model.embed_tokens.weight",
        "model.transformer.ln_f.weight": "model.norm.weight",
        "model.transformer.ff_out.weight": "lm_head.weight",
        **{
            f"model.transformer.blocks.{{}}.{theirs}.weight": f"model.layers.{{}}.{ours}.weight"
            for theirs, ours in {
                "attn_norm": "input_layernorm",
                "q_proj": "self_attn.q_proj",
                "k_proj": "self_attn.k_proj",
                "v_proj": "self_attn.v_proj",
                "attn_out": "self_attn.o_proj",
                "ff_norm": "post_attention_layernorm",
                "ff_proj": "mlp.gate_proj",
                "up_proj": "mlp.up_proj",
                "ff_out": "mlp.down_proj",
            }.items()
        },
    },
    assumed={
        "block_type": ("llama",),
        "block_group_size": (1,),
        "activation_type": ("silu",),
        "layer_norm_type": ("rms",),
        "layer_norm_with_affine": (True,),
        "multi_query_attention": (False,),
        "rope": (True,),
        "alibi": (False,),
        "include_bias": (False,),
        "include_qkv_bias": (False,),
        "bias_for_layer_norm": (False,),
        "attention_layer_norm": (False,),
        "input_emb_norm": (False,),
        "scale_logits": (False,),
    },
)
LLAMA = CheckpointFormat(  # Llama 3 to 3.2, SmolLM2
    name="llama",
    architecture="LlamaForCausalLM",
    model_type="llama",
    config=LlamaConfig,
    frames=(CHATML, LLAMA3),
    assumed={
        "mlp_bias": (False,),
        "pretraining_tp": (1,),  # other values change the order of summation
        "rope_interleaved": (False,),  # is set in SmolLM2's files
    },
    ropes={  # Llama 3.1 and 3.2
        "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    },
)
STABLE_DIFFCODER = CheckpointFormat(  # its class derives from LlamaForCausalLM
    name="stable-diffcoder",
    architecture="StableDiffcoderForCausalLM",
    model_type="",  # llama
    config=LlamaConfig,
    frames=(SEED,),
    assumed=LLAMA.assumed,
)
ILLADA = CheckpointFormat(  # Llama's layers
    name="illada",
    architecture="ILLaDAForCausalLM",
    model_type="illada",
    config=LlamaConfig,
    frames=(SEED, HEADERS, CHATML),
    # With layer_norm_eps the norms would be LayerNorm.
    assumed={"mlp_bias": (False,), "layer_norm_eps": ()},
)
LLADA_MOE = CheckpointFormat(  # Qwen3's layers without grouped queries
    name="llada-moe",
    architecture="LLaDAMoEModelLM",
    aliases=("LLaDAMoEModel",),
    model_type="",  # llada
    config=Qwen3MoeConfig,
    frames=(ROLES,),
    keys={
        "intermediate_size": ("dense_intermediate_size", "intermediate_size"),
        "moe_intermediate_size": ("expert_intermediate_size",),
    },
    counts=("num_experts", "num_experts_per_tok", "moe_intermediate_size"),
    # The model's code has no norm of the chosen experts' weights, whatever config.json says.
    fixed={"norm_topk_prob": False, "mlp_only_layers": []},
    assumed={
        "moe_layer_freq": (1,),
        "qk_layernorm": (True,),
        "clip_qkv": (),
        "shared_expert_intermediate_size": (),
        "partial_rotary_factor": (1,),
        "routed_scaling_factor": (1,),
    },
)
LLADA2 = CheckpointFormat(  # 2.0 and 2.1; the layers of GLM-4.5 with other names
    name="llada2",
    architecture="LLaDA2MoeModelLM",
    model_type="llada2_moe",
    config=Glm4MoeConfig,
    frames=(ROLES,),
    keys={"n_routed_experts": ("num_experts",), "n_shared_experts": ("num_shared_experts",)},
    parts={
        "model.word_embeddings.": "model.embed_tokens.",
        ".attention.dense.": ".self_attn.o_proj.",
        ".attention.query_layernorm.": ".self_attn.q_norm.",
        ".attention.key_layernorm.": ".self_attn.k_norm.",
        ".attention.": ".self_attn.",
        ".gate.expert_bias": ".gate.e_score_correction_bias",
    },
    counts=(
        "n_routed_experts",
        "num_experts_per_tok",
        "n_shared_experts",
        "moe_intermediate_size",
        "n_group",
        "topk_group",
        "first_k_dense_replace",
    ),
    numbers=("routed_scaling_factor",),
    fixed={"use_qk_norm": True, "norm_topk_prob": True, "num_mtp_layers": 0},
    assumed={
        "use_qk_norm": (True,),
        "use_bias": (False,),
        "use_qkv_bias": (False,),
        "norm_head": (False,),
        "norm_topk_prob": (True,),
        "score_function": ("sigmoid",),
        "moe_router_enable_expert_bias": (True,),
    },
    partial_rotary=True,
)
NEMOTRON = CheckpointFormat(  # 3B, 8B and 14B; the layers of Ministral 3, Llama's with another scale
    name="nemotron-labs-diffusion",
    architecture="NemotronLabsDiffusionModel",
    model_type="nemotron_labs_diffusion",
    config=LlamaConfig,
    parts={"encoder.": "model.", "diffusion_head.": "lm_head."},
    assumed={
        "mlp_bias": (False,),
        "attention_bias": (False,),
        "sliding_window": (),
        "dlm_paradigm": ("bidirectional", "block_diff"),
    },
    ropes={
        "yarn": (
            *("factor", "original_max_position_embeddings", "beta_fast", "beta_slow"),
            *("mscale", "mscale_all_dim", "llama_4_scaling_beta"),
        )
    },
)
DIFFUSION_GEMMA = CheckpointFormat(
    name="diffusion-gemma",
    architecture="DiffusionGemmaForBlockDiffusion",
    model_type="diffusion_gemma",
    config=None,
    frames=(TURNS,),
    skipped=("model.encoder.vision_tower.", "model.encoder.embed_vision."),
)

FORMATS = {
    row.name: row
    for row in (
        LLADA,
        CheckpointFormat("dream", "DreamModel", "Dream", Qwen2Config),
        CheckpointFormat("sdar", "SDARForCausalLM", "sdar", Qwen3Config),
        CheckpointFormat("a2d-qwen3", "A2DQwen3LMHeadModel", "a2d-qwen3", Qwen3Config),
        ILLADA,
        LLADA_MOE,
        LLADA2,
        # 1.5B and 7B, made of Qwen2.5
        CheckpointFormat("fast-dllm-v2", "Fast_dLLM_QwenForCausalLM", "Fast_dLLM_Qwen", Qwen2Config),
        STABLE_DIFFCODER,
        DIFFUSION_GEMMA,
        NEMOTRON,
        LLAMA,
        CheckpointFormat("qwen2", "Qwen2ForCausalLM", "qwen2", Qwen2Config),  # and Qwen2.5
        CheckpointFormat("qwen3", "Qwen3ForCausalLM", "qwen3", Qwen3Config),  # not the mixture of experts
    )
}

# Diffusion models that are not read: architecture → name, and why.
REFUSED = {
    "SDARMoeForCausalLM": ("SDAR-30B-A3B", "its layers were compared with no other forward pass"),
    "RND1": ("RND1", "its layers were compared with no other forward pass"),
    "WeDLMForCausalLM": (
        "WeDLM",
        "it reads left to right and moves masks behind the text, so a hole cannot see what follows it",
    ),
}


def find_format(
    settings: Settings, place: str, formats: Collection[str] = FORMATS.keys()
) -> CheckpointFormat:
    """Find the format of a folder with this config.json.

    Raises BackendError if it is unknown or not one of `formats`, which are those of a target.
    """
    named = settings.get("architectures") or []
    architecture = named[0] if isinstance(named, list) and named else None
    known = ", ".join(FORMATS[name].architecture for name in formats)
    for row in FORMATS.values():
        by_type = architecture is None and row.model_type and settings.get("model_type") == row.model_type
        if not by_type and architecture not in (row.architecture, *row.aliases):
            continue
        if row.name not in formats:
            raise BackendError(
                f"{place}: {row.name} is a diffusion model, which writes edits; use it with --denoiser, and "
                f"one of {known} as target"
            )
        return row
    if architecture in REFUSED:
        name, reason = REFUSED[architecture]
        raise BackendError(f"{place}: {name} ({architecture}) is not supported: {reason}")
    what = architecture or settings.get("model_type") or "unnamed"
    code = ", and the code in the folder (auto_map) is never run" if "auto_map" in settings else ""
    raise BackendError(f"{place}: the architecture {what} is not one of {known}{code}")


def read_settings(row: CheckpointFormat, settings: Settings, place: str) -> Config:
    """Convert config.json to a configuration of the transformers library.

    Raises BackendError if a setting has a value that is not supported.
    """
    for key, allowed in {**ASSUMED_SETTINGS, **row.assumed}.items():
        value = settings.get(key)
        each = value if isinstance(value, list) else [value]  # of the layers
        if value is not None and not all(one in allowed for one in each):
            raise BackendError(
                f"{place}: config.json sets {key} to {value!r}, which remask does not read for "
                f"{row.architecture}"
            )
    if row.config is None:
        return cast("Config", _load_diffusion_gemma(row).read_text_config(dict(settings), place))
    types = settings.get("layer_types") or []
    other = [kind for kind in (types if isinstance(types, list) else [types]) if kind != "full_attention"]
    if other:
        raise BackendError(
            f"{place}: config.json has layers of type {other[0]!r}, which remask does not read"
        )
    values: dict[str, Any] = {key: _read_count(row, settings, key, place) for key in SIZE_SETTINGS}
    heads = values["num_attention_heads"]
    if heads % values["num_key_value_heads"]:
        raise BackendError(
            f"{place}: config.json has {heads} attention heads, which "
            f"{values['num_key_value_heads']} key-value heads cannot share"
        )
    values["head_dim"] = values["hidden_size"] // heads
    if settings.get("head_dim") is not None:
        values["head_dim"] = _read_count(row, settings, "head_dim", place)
    if values["head_dim"] % 2 or not values["head_dim"]:  # rotary positions turn pairs of numbers
        raise BackendError(
            f"{place}: config.json makes heads of {values['head_dim']} numbers; it must be even"
        )
    values |= {key: _read_count(row, settings, key, place) for key in row.counts}
    values |= {key: _read_positive(settings.get(key), key, place) for key in row.numbers}
    values["rms_norm_eps"] = _read_positive(settings.get("rms_norm_eps"), "rms_norm_eps", place)
    values["rope_parameters"] = _read_rope(row, settings, place)
    if row.partial_rotary:
        values["rope_parameters"]["partial_rotary_factor"] = _read_rotary_share(
            settings, values["head_dim"], place
        )
    values["tie_word_embeddings"] = bool(_find_setting(row, settings, "tie_word_embeddings")[1])
    values["attention_bias"] = bool(settings.get("attention_bias"))
    return row.config(**values, **row.fixed)


def load_backbone_class(row: CheckpointFormat) -> type[Backbone]:
    """Return the class of the models of a format. Raises BackendError."""
    found = Backbone if row.config is not None else _load_diffusion_gemma(row).DiffusionGemmaBackbone
    return cast("type[Backbone]", found)


def _load_diffusion_gemma(row: CheckpointFormat) -> Any:
    """Import the module of DiffusionGemma, which older releases of transformers do not have."""
    try:
        from remask.models.backbone import diffusion_gemma
    except ImportError as error:
        raise BackendError(
            f"{row.architecture} needs a newer release of transformers (5.24 has it)"
        ) from error
    return diffusion_gemma


def map_weight_name(row: CheckpointFormat, name: str) -> str | None:
    """Return our name of the checkpoint's weight `name`, or None if the weight is unknown."""
    if not row.weights:
        for theirs, part in row.parts.items():
            name = name.replace(theirs, part)
        return name
    number = re.search(r"\.(\d+)\.", name)
    layer = number[1] if number else ""
    ours = row.weights.get(name.replace(f".{layer}.", ".{}.", 1) if number else name)
    return ours and ours.format(layer)


def _find_setting(row: CheckpointFormat, settings: Settings, key: str) -> tuple[str, Any]:
    """Return the checkpoint's name of a setting, and its value (None if it is missing)."""
    names = row.keys.get(key, (key,))
    return next(
        ((name, settings[name]) for name in names if settings.get(name) is not None), (names[0], None)
    )


def _read_count(row: CheckpointFormat, settings: Settings, key: str, place: str) -> int:
    name, value = _find_setting(row, settings, key)
    if type(value) is not int or value < 1:
        raise BackendError(f"{place}: config.json has {name} = {value!r}; it must be a positive whole number")
    if value > MAX_SIZES.get(key, MAX_SIZE):
        raise BackendError(f"{place}: config.json has {name} = {value}, more than any model has")
    return value


def _read_positive(value: Any, name: str, place: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 < value < math.inf):
        raise BackendError(f"{place}: config.json has {name} = {value!r}; it must be a positive number")
    return float(value)


def _read_rotary_share(settings: Settings, head: int, place: str) -> float:
    """Read which share of a head is turned. Raises BackendError if the settings contradict each other."""
    share = _read_positive(settings.get("partial_rotary_factor"), "partial_rotary_factor", place)
    turned = settings.get("rotary_dim")
    if share > 1 or turned not in (None, int(head * share)):
        raise BackendError(
            f"{place}: config.json has partial_rotary_factor = {share} and rotary_dim = {turned}, for "
            f"heads of {head} numbers"
        )
    return share


def _read_rope(row: CheckpointFormat, settings: Settings, place: str) -> dict[str, Any]:
    """Read the rotary parameters: from rope_theta and rope_scaling in older files, from
    rope_parameters in newer ones. Raises BackendError."""
    key = "rope_parameters" if settings.get("rope_scaling") is None else "rope_scaling"
    given = settings.get(key) or {}
    kind = given.get("rope_type", given.get("type", "default")) if isinstance(given, dict) else ""
    names = {"default": (), **row.ropes}.get(str(kind))
    if names is None:
        raise BackendError(
            f"{place}: config.json sets {key} to {given!r}, which remask does not read for {row.architecture}"
        )
    theta = given.get("rope_theta", settings.get("rope_theta"))
    for name in names:
        _read_positive(given.get(name), name, place)
    scaling = {name: given[name] for name in names}
    return {"rope_type": kind, "rope_theta": _read_positive(theta, "rope_theta", place), **scaling}
