"""How the checkpoints of each family are written: a table.

A format says how a folder is recognised, which of the transformers library's models its numbers
fit, what its settings and weights are called there, and how its chats are framed. Everything that
a row does not read must have the value that the model takes for granted, else the folder is
refused. Knows config.json and names of weights; reads no file, loads no weight, runs no code of a
checkpoint. The names of LLaDA, SDAR and Tiny-A2D were checked against copies of their config.json,
index and model code, those of Llama, Qwen2 and Qwen3 are the transformers library's; no weights of
billions of numbers were loaded.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import LlamaConfig, Qwen2Config, Qwen3Config

from remask.errors import BackendError
from remask.models.backbone.tokenizer import CHATML, HEADERS, LLAMA3, Frame
from remask.models.backbone.transformer import Config

Settings = Mapping[str, Any]  # a parsed config.json

COUNTS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
)
PLAIN = {  # what every format takes for granted
    "hidden_act": ("silu",),
    "use_sliding_window": (False,),
    "use_mrope": (False,),
    "quantization_config": (),
}


@dataclass(frozen=True, slots=True)
class CheckpointFormat:
    """One way of writing a checkpoint. Maps that are empty mean: the same names as ours."""

    name: str
    architecture: str  # config.json's
    model_type: str  # config.json's, where it names no architecture
    config: type[Config]
    frames: tuple[Frame, ...] = (CHATML,)  # the first whose tokens the tokenizer knows
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # ours → theirs, first found
    weights: Mapping[str, str] = field(default_factory=dict)  # theirs → ours; {} is the layer
    granted: Mapping[str, tuple[object, ...]] = field(default_factory=dict)  # beside PLAIN
    # Ways to stretch rotary positions that the model's layers know, and the numbers of each.
    ropes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


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
    granted={
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
    granted={
        "mlp_bias": (False,),
        "pretraining_tp": (1,),  # other values sum in another order
        "rope_interleaved": (False,),  # SmolLM2's files say so
    },
    ropes={  # Llama 3.1 and 3.2
        "llama3": (
            "factor",
            "low_freq_factor",
            "high_freq_factor",
            "original_max_position_embeddings",
        )
    },
)

FORMATS = {
    row.name: row
    for row in (
        LLADA,
        CheckpointFormat("dream", "DreamModel", "Dream", Qwen2Config),
        CheckpointFormat("sdar", "SDARForCausalLM", "sdar", Qwen3Config),
        CheckpointFormat("a2d-qwen3", "A2DQwen3LMHeadModel", "a2d-qwen3", Qwen3Config),
        LLAMA,
        CheckpointFormat("qwen2", "Qwen2ForCausalLM", "qwen2", Qwen2Config),  # and Qwen2.5
        CheckpointFormat(
            "qwen3", "Qwen3ForCausalLM", "qwen3", Qwen3Config
        ),  # not the mixture of experts
    )
}


def recognise(settings: Settings, place: str) -> CheckpointFormat:
    """The format of a folder with this config.json. Raises BackendError where there is none."""
    named = settings.get("architectures") or []
    architecture = named[0] if isinstance(named, list) and named else None
    for row in FORMATS.values():
        if architecture == row.architecture:
            return row
        if architecture is None and settings.get("model_type") == row.model_type:
            return row
    known = ", ".join(row.architecture for row in FORMATS.values())
    what = architecture or settings.get("model_type") or "unnamed"
    code = ", and the code it brings (auto_map) is never run" if "auto_map" in settings else ""
    raise BackendError(f"{place}: the architecture {what} is not one of {known}{code}")


def read_settings(row: CheckpointFormat, settings: Settings, place: str) -> Config:
    """The transformers library's configuration. Raises BackendError on anything we do not read."""
    for key, allowed in {**PLAIN, **row.granted}.items():
        value = settings.get(key)
        if value is not None and value not in allowed:
            raise BackendError(
                f"{place}: config.json sets {key} to {value!r}, which remask does not read for "
                f"{row.architecture}"
            )
    if sliding := set(settings.get("layer_types") or ()) - {"full_attention"}:
        raise BackendError(
            f"{place}: config.json has layers of type {min(sliding)!r}, which remask does not read"
        )
    values: dict[str, Any] = {key: _count(row, settings, key, place) for key in COUNTS}
    heads = values["num_attention_heads"]
    if heads % values["num_key_value_heads"]:
        raise BackendError(
            f"{place}: config.json has {heads} attention heads, which "
            f"{values['num_key_value_heads']} key-value heads cannot share"
        )
    values["head_dim"] = values["hidden_size"] // heads
    if settings.get("head_dim") is not None:
        values["head_dim"] = _count(row, settings, "head_dim", place)
    values["rms_norm_eps"] = _positive(settings.get("rms_norm_eps"), "rms_norm_eps", place)
    values["rope_parameters"] = _rope(row, settings, place)
    values["tie_word_embeddings"] = bool(_found(row, settings, "tie_word_embeddings")[1])
    values["attention_bias"] = bool(settings.get("attention_bias"))
    return row.config(**values)


def our_name(row: CheckpointFormat, name: str) -> str | None:
    """What we call the weight that the checkpoint calls `name`; None: a weight we do not know."""
    if not row.weights:
        return name
    number = re.search(r"\.(\d+)\.", name)
    layer = number[1] if number else ""
    ours = row.weights.get(name.replace(f".{layer}.", ".{}.", 1) if number else name)
    return ours and ours.format(layer)


def _found(row: CheckpointFormat, settings: Settings, key: str) -> tuple[str, Any]:
    """The checkpoint's name of a setting, and its value (None: not there)."""
    names = row.keys.get(key, (key,))
    return next(
        ((name, settings[name]) for name in names if settings.get(name) is not None),
        (names[0], None),
    )


def _count(row: CheckpointFormat, settings: Settings, key: str, place: str) -> int:
    name, value = _found(row, settings, key)
    if type(value) is not int or value < 1:
        raise BackendError(
            f"{place}: config.json has {name} = {value!r}; it must be a positive whole number"
        )
    return value


def _positive(value: Any, name: str, place: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 < value < math.inf):
        raise BackendError(
            f"{place}: config.json has {name} = {value!r}; it must be a positive number"
        )
    return float(value)


def _rope(row: CheckpointFormat, settings: Settings, place: str) -> dict[str, Any]:
    """Older files name theta alone and stretch it in rope_scaling; newer ones say all of it in
    rope_parameters."""
    key = "rope_parameters" if settings.get("rope_scaling") is None else "rope_scaling"
    given = settings.get(key) or {}
    kind = given.get("rope_type", given.get("type", "default")) if isinstance(given, dict) else ""
    names = {"default": (), **row.ropes}.get(str(kind))
    if names is None:
        raise BackendError(
            f"{place}: config.json sets {key} to {given!r}, which remask does not read for "
            f"{row.architecture}"
        )
    theta = given.get("rope_theta", settings.get("rope_theta"))
    for name in names:
        _positive(given.get(name), name, place)
    stretch = {name: given[name] for name in names}
    return {"rope_type": kind, "rope_theta": _positive(theta, "rope_theta", place), **stretch}
