"""Convert a GGUF file of a Llama or Qwen model to a checkpoint folder in the user's cache.

The tensors are dequantised one after the other to bf16 safetensors, once; the folder is named by a
hash of the file. Everything else then reads that folder like any other checkpoint. The names are
those of llama.cpp's gguf-py, which also stores the rows of q and k of Llama in another order
(`permute` of its converter). Nothing here uses the network.
"""

import importlib.util
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken
from torch import Tensor
from transformers import AutoTokenizer

from remask.errors import BackendError
from remask.models.backbone.builtin_weights import silence_transformers
from remask.models.backbone.cache_folder import find_cache_root, hash_file, make_folder
from remask.ports import report_step

FORMAT = 1  # version of the cache folder; increase it if the folder's content changes
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
EMBEDDING, HEAD = "token_embd.weight", "output.weight"
ROTARY = "rope_freqs.weight"  # divisors of the rotary frequencies: Llama 3.1 and later
OUTER = {
    EMBEDDING: "model.embed_tokens.weight",
    HEAD: "lm_head.weight",
    "output_norm.weight": "model.norm.weight",
}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
SHARD_BYTES = 1 << 30  # so that a model of 16 GB does not need 16 GB of memory while it is written
SAMPLED_ROWS = 512  # of embedding and head, to see whether they are one matrix
# Two quantisations of one matrix have a cosine above 0.95 down to two bits; of an embedding and a
# head that were trained apart it is near 0.
TIED_COSINE = 0.9
CONTROL, USER_DEFINED, UNUSED = 3, 4, 5  # types of tokens: special, added, and names for padding
# Of Llama 3.1 to 3.3. The file holds the divisors alone, from which the factor is found.
LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def unpack_gguf(path: Path) -> Path:
    """Return the checkpoint folder of a GGUF file, which is written on the first use.

    Raises BackendError if the file is damaged or not of a known architecture.
    """
    if importlib.util.find_spec("gguf") is None:
        raise BackendError("reading GGUF weights needs gguf; run: pip install 'remask[local]'")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        digest = hash_file(path)[:16] if magic == b"GGUF" else ""
    except OSError as error:
        raise BackendError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not digest:
        raise BackendError(f"{path}: is not a GGUF file, since it does not begin with GGUF")
    folder = find_cache_root() / f"gguf-{digest}-v{FORMAT}"
    if not folder.is_dir():
        report_step("unpacking the GGUF file", 0, 0)
        source = _open_source(path)
        settings = source.read_settings()
        with make_folder(folder) as made:
            _write_tokenizer(source, made)
            _write_weights(source, settings, made)
            (made / "config.json").write_text(json.dumps(settings, indent=1), "utf-8")
    return folder


@dataclass(frozen=True, slots=True)
class _Source:
    """An open GGUF file."""

    path: Path
    reader: Any  # gguf.GGUFReader
    tensors: dict[str, Any]  # by name; the data of each is mapped, not read

    @property
    def architecture(self) -> str:
        return str(self.get("general.architecture", ""))

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a metadata key."""
        field = self.reader.get_field(key)
        return default if field is None else field.contents()

    def get_own(self, key: str, default: Any = None) -> Any:
        """Return the value of a key of the architecture, such as `block_count`."""
        return self.get(f"{self.architecture}.{key}", default)

    def refuse(self, why: str) -> BackendError:
        return BackendError(f"{self.path}: {why}")

    def read_settings(self) -> dict[str, Any]:
        """Return the settings as a config.json has them. Raises BackendError."""
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise self.refuse(f"the architecture {self.architecture or 'unnamed'} is not one of {known}")
        if self.get_own("expert_count", 0):
            raise self.refuse("a mixture of experts is not read")
        scaling = self.get_own("rope.scaling.type", "none")
        if scaling != "none":
            raise self.refuse(f"rotary positions are scaled by {scaling}, which remask does not read")
        if missing := [name for name in (EMBEDDING, "output_norm.weight") if name not in self.tensors]:
            raise self.refuse(f"the tensor {missing[0]} is missing")
        heads, width = self.get_own("attention.head_count"), self.get_own("embedding_length")
        settings: dict[str, Any] = {
            "vocab_size": int(self.tensors[EMBEDDING].shape[1]),
            "hidden_size": width,
            "intermediate_size": self.get_own("feed_forward_length"),
            "num_hidden_layers": self.get_own("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self.get_own("attention.head_count_kv", heads),
            "max_position_embeddings": self.get_own("context_length"),
            "rms_norm_eps": self.get_own("attention.layer_norm_rms_epsilon"),
            "tie_word_embeddings": self.is_tied(),
            "attention_bias": self.architecture == "llama" and "blk.0.attn_q.bias" in self.tensors,
        }
        if wrong := [key for key, value in settings.items() if value is None or isinstance(value, list)]:
            raise self.refuse(f"its metadata do not give one number for {wrong[0]}")
        settings["architectures"] = [ARCHITECTURES[self.architecture]]
        settings["model_type"], settings["hidden_act"] = self.architecture, "silu"
        settings["head_dim"] = self.get_own("attention.key_length", width // heads)
        if self.get_own("rope.dimension_count", settings["head_dim"]) != settings["head_dim"]:
            raise self.refuse("rotary positions turn a part of each head, which remask does not read")
        settings["rope_parameters"] = self._read_rope(settings["head_dim"])
        return settings

    def _read_rope(self, size: int) -> dict[str, Any]:
        theta = float(self.get_own("rope.freq_base", 10000.0))
        if ROTARY not in self.tensors:
            return {"rope_type": "default", "rope_theta": theta}
        divisors = self.read(ROTARY).double()
        factor = round(float(divisors.max()), 3)
        # The formula of transformers, modeling_rope_utils.py: long waves are divided by the factor,
        # short ones are kept, and those in between are interpolated.
        speed = theta ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
        turns = LLAMA3_ROPE["original_max_position_embeddings"] * speed / (2 * math.pi)
        low, high = LLAMA3_ROPE["low_freq_factor"], LLAMA3_ROPE["high_freq_factor"]
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        expected = 1 / (kept + (1 - kept) / factor)
        if divisors.shape != expected.shape or not torch.allclose(divisors, expected, rtol=1e-3):
            raise self.refuse(f"its {ROTARY} is not that of Llama 3.1 or later")
        return {"rope_type": "llama3", "rope_theta": theta, "factor": factor, **LLAMA3_ROPE}

    def is_tied(self) -> bool:
        """Return whether embedding and head are one matrix. The file may store it twice, once finer."""
        if HEAD not in self.tensors:
            return True
        step = max(1, int(self.tensors[HEAD].shape[1]) // SAMPLED_ROWS)
        rows = [self.read(name, step).flatten() for name in (EMBEDDING, HEAD)]
        return bool(torch.cosine_similarity(rows[0], rows[1], 0) > TIED_COSINE)

    def read(self, name: str, step: int = 1) -> Tensor:
        """Dequantise a tensor, or every `step`-th row of it, to float32. Raises BackendError."""
        from gguf.quants import dequantize

        tensor = self.tensors[name]
        try:
            values = dequantize(np.ascontiguousarray(tensor.data[::step]), tensor.tensor_type)
        except NotImplementedError as error:
            kind = tensor.tensor_type.name
            raise self.refuse(
                f"{name} is quantised as {kind}, which the gguf package does not read"
            ) from error
        return torch.from_numpy(np.array(values, dtype=np.float32))


def _open_source(path: Path) -> _Source:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
    except Exception as error:  # the reader indexes what it maps, so a cut file raises many kinds
        first = str(error).strip().partition("\n")[0]
        raise BackendError(
            f"{path}: cannot be read as GGUF ({first}); the file is cut short or damaged, so fetch it again"
        ) from error
    return _Source(path, reader, {tensor.name: tensor for tensor in reader.tensors})


def _write_weights(source: _Source, settings: dict[str, Any], folder: Path) -> None:
    """Write shards and their index."""
    placed: dict[str, str] = {}
    shard: dict[str, Tensor] = {}

    def flush() -> None:
        name = f"model-{len(set(placed.values())) + 1:05}.safetensors"
        save_file(shard, folder / name, {"format": "pt"})
        placed.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, tensor in _iterate_weights(source, settings):
        shard[name] = tensor
        if sum(tensor.nbytes for tensor in shard.values()) >= SHARD_BYTES:
            flush()
    if shard:
        flush()
    index = {"metadata": {}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), "utf-8")


def _iterate_weights(source: _Source, settings: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield the bf16 weights by the names of the transformers library. Raises BackendError."""
    tied = settings["tie_word_embeddings"]
    names = [name for name in source.tensors if name != ROTARY]
    if tied and HEAD in names:
        names.remove(EMBEDDING)  # the head is the same matrix, stored more finely
    for number, name in enumerate(names):
        report_step("unpacking the GGUF file", number, len(names))
        ours = OUTER[EMBEDDING] if tied and name == HEAD else _map_name(source, name)
        tensor = source.read(name)
        if source.architecture == "llama" and (match := re.search(r"attn_([qk])\.", name)):
            key = "num_attention_heads" if match[1] == "q" else "num_key_value_heads"
            tensor = _restore_order(tensor, settings[key])
        yield ours, tensor.to(torch.bfloat16).contiguous()


def _map_name(source: _Source, name: str) -> str:
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if match and match[2] in LAYER:
        return f"model.layers.{match[1]}.{LAYER[match[2]]}.{match[3]}"
    if name not in OUTER:
        raise source.refuse(f"unexpected tensor {name} for {source.architecture}")
    return OUTER[name]


def _restore_order(tensor: Tensor, heads: int) -> Tensor:
    """Put the rows of q or k, which llama.cpp stores in pairs, back into halves."""
    pairs = tensor.reshape(heads, -1, 2, *tensor.shape[1:])
    return pairs.transpose(1, 2).reshape(tensor.shape)


def _write_tokenizer(source: _Source, folder: Path) -> None:
    """Write the tokenizer, its chat template and the tokens that end an answer. Raises BackendError."""
    try:
        with silence_transformers():
            tokenizer = AutoTokenizer.from_pretrained(
                str(source.path.parent), gguf_file=source.path.name, local_files_only=True
            )
        backend = tokenizer.backend_tokenizer
    except Exception as error:  # of any kind, from the conversion of another library
        first = str(error).strip().partition("\n")[0]
        raise source.refuse(f"its tokenizer is missing or cannot be read ({first})") from error
    names = source.get("tokenizer.ggml.tokens", [])
    kinds = source.get("tokenizer.ggml.token_type", [])
    added = [name for name, kind in zip(names, kinds, strict=False) if kind in (CONTROL, USER_DEFINED)]
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in added])
    unused = {name for name, kind in zip(names, kinds, strict=False) if kind == UNUSED}
    written = _remove_tokens(json.loads(backend.to_str()), unused, len(names))
    (folder / "tokenizer.json").write_text(json.dumps(written, ensure_ascii=False), "utf-8")
    keys = {kind: source.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("bos", "eos", "eot", "padding")}
    ids = {kind: id for kind, id in keys.items() if isinstance(id, int) and 0 <= id < len(names)}
    config = {f"{kind}_token": names[ids[kind]] for kind in ("bos", "eos") if kind in ids}
    if template := source.get("tokenizer.chat_template"):
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    ends = [ids[kind] for kind in ("eos", "eot") if kind in ids]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}), "utf-8")


def _remove_tokens(tokenizer: dict[str, Any], unused: set[str], size: int) -> dict[str, Any]:
    """Remove what the hub's tokenizer.json does not have either.

    That are names of the ids that pad the vocabulary, and tokens that the transformers library adds
    after the model's `size` ids.
    """
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["id"] < size]
    tokenizer["post_processor"] = None  # may name a removed token; the chat template says what begins a chat
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, dict):
        tokenizer["model"]["vocab"] = {
            name: id for name, id in vocabulary.items() if name not in unused and id < size
        }
    return tokenizer
