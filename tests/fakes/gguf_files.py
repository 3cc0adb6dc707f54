"""A tiny checkpoint as a GGUF file, in the names and orders of llama.cpp."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import quantize
from safetensors.torch import load_file

from fakes.checkpoints import HEAD, HEADS, LAYERS, SHARED, SIZE, WIDE, WIDTH
from remask.models.backbone.gguf_checkpoint import LAYER, OUTER

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def read_state(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint folder, in float32."""
    state: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        state |= {name: tensor.float() for name, tensor in load_file(file).items()}
    return state


def write_gguf(
    folder: Path,
    path: Path,
    finer_head: bool = False,
    template: str = CHATML,
    extra: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write the checkpoint in `folder` as a GGUF file of float32 tensors.

    `finer_head`: as many published files, the tied matrix twice, as embedding in 8 bits.
    """
    settings = json.loads((folder / "config.json").read_text())
    kind = settings["model_type"]
    writer = GGUFWriter(path, kind)
    writer.add_block_count(LAYERS)
    writer.add_context_length(settings["max_position_embeddings"])
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(SHARED)
    writer.add_key_length(HEAD)
    writer.add_layer_norm_rms_eps(settings["rms_norm_eps"])
    writer.add_rope_freq_base(settings["rope_theta"])
    _add_tokenizer(writer, folder, template)
    for name, tensor in read_state(folder).items():
        theirs = _find_name(name)
        if kind == "llama" and ("attn_q." in theirs or "attn_k." in theirs):
            tensor = _pair_rows(tensor, HEADS if "attn_q." in theirs else SHARED)
        if theirs == "token_embd.weight" and finer_head:
            writer.add_tensor("output.weight", tensor.numpy())
            kind8 = GGMLQuantizationType.Q8_0
            writer.add_tensor(theirs, quantize(tensor.numpy(), kind8), raw_dtype=kind8)
        else:
            writer.add_tensor(theirs, tensor.numpy())
    for name, values in (extra or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: GGUFWriter, folder: Path, template: str) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    names = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].__getitem__)
    added = [token["content"] for token in tokenizer["added_tokens"]]
    padding = [f"[PAD{i}]" for i in range(len(names) + len(added), SIZE)]
    kinds = (
        (TokenType.NORMAL,) * len(names),
        (TokenType.CONTROL,) * len(added),
        (TokenType.UNUSED,) * len(padding),
    )
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*names, *added, *padding])
    writer.add_token_types([int(kind) for group in kinds for kind in group])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(len(names) + added.index("<|im_end|>") if "<|im_end|>" in added else len(names))
    if template:
        writer.add_chat_template(template)


def _find_name(name: str) -> str:
    """The name of llama.cpp for one of the transformers library."""
    for theirs, ours in OUTER.items():
        if name == ours:
            return theirs
    for theirs, ours in LAYER.items():
        if f".{ours}." in name:
            _, _, number, *_, last = name.split(".")
            return f"blk.{number}.{theirs}.{last}"
    raise KeyError(name)


def _pair_rows(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """The order of q and k in files of Llama (convert_hf_to_gguf.py, `permute`)."""
    split = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return split.transpose(1, 2).reshape(tensor.shape).contiguous()
