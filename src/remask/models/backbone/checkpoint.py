"""Load a model of a known format from a local folder or the hub.

No code of a checkpoint is run: `checkpoint_formats` interprets config.json, and weights are read
from safetensors only. Their names and shapes must be exactly those that the model needs.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from remask.errors import BackendError
from remask.models.backbone.checkpoint_files import (
    CONFIG_FILE,
    INDEX_FILE,
    Shard,
    find_folder,
    find_shards,
    hash_files,
    read_json,
)
from remask.models.backbone.checkpoint_formats import (
    FORMATS,
    CheckpointFormat,
    Settings,
    find_format,
    load_backbone_class,
    map_weight_name,
    read_settings,
)
from remask.models.backbone.device import choose_device, choose_dtype
from remask.models.backbone.pack_weights import pack_weights
from remask.models.backbone.tokenizer import TOKENIZER_FILES, Frame, load_tokenizer
from remask.models.backbone.transformer import EMBEDDING, HEAD, Backbone, Config, build_model, make_skeleton

LINEAR = "_proj.weight"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model from disk with its name and settings."""

    backbone: Backbone
    folder: Path  # of a GGUF file, the one that it was converted to
    format: str  # a name of checkpoint_formats.FORMATS
    settings: Settings  # the unchanged config.json
    name: str  # last part of the place, such as "LLaDA-8B-Instruct"


# Models that are in use, by their identity and device, so that two parts of a run share one.
_LOADED: WeakValueDictionary[tuple[str, str], Backbone] = WeakValueDictionary()


def load_checkpoint(
    place: str,
    revision: str | None = None,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    framed: bool = True,
    formats: Collection[str] = FORMATS.keys(),
) -> Checkpoint:
    """Load the checkpoint at `place`: a folder, a GGUF file, or a hub id with a pinned `revision`.

    `framed`: whether the tokenizer must have the tokens of a known chat frame. `formats`: the names of
    those that may be read. `device` is a name
    such as "cpu", "cuda", "cuda:1" or "mps"; by default CUDA, else MPS, else the CPU. Weights are
    cast to `dtype`, by default the fastest one of the device. Raises BackendError if anything is
    missing, unknown, damaged or inconsistent.
    """
    chosen = choose_device(device)
    dtype = dtype or choose_dtype(chosen)
    folder = find_folder(place, revision)
    settings = read_json(folder / CONFIG_FILE)
    row = find_format(settings, place, formats)
    config = read_settings(row, settings, place)
    shards = find_shards(folder)
    others = [folder / name for name in (CONFIG_FILE, INDEX_FILE, *TOKENIZER_FILES)]
    files = [*others, *(shard.path for shard in shards)]
    content = f"{row.name}/{hash_files(folder, files)}"
    name = str(dtype).removeprefix("torch.")
    identity = f"{content}/{name}/{chosen.type}"
    tokenizer = load_tokenizer(folder)
    frame = _choose_frame(tokenizer.get_vocab(), row, config, place, framed)
    last = place.partition("@")[0].rstrip("/").rpartition("/")[2]
    if (backbone := _LOADED.get((identity, str(chosen)))) is not None:
        return Checkpoint(backbone, folder, row.name, settings, last)
    try:
        state = _read_weights(row, shards, chosen, dtype)
        pack_weights(state, config, place)
        state = _check_weights(state, config, place)
    except torch.OutOfMemoryError as error:
        need = estimate_memory(config, dtype) / 1e9
        raise BackendError(f"{place}: its weights take {need:.1f} GB, more than {chosen} has free") from error
    kind = load_backbone_class(row)
    backbone = kind(build_model(config, state), tokenizer, identity, content=content, frame=frame)
    _LOADED[identity, str(chosen)] = backbone
    return Checkpoint(backbone, folder, row.name, settings, last)


def read_config(place: str, revision: str | None = None) -> Config:
    """Read the configuration at `place` without the weights (from the hub, one small file)."""
    settings = read_json(find_folder(place, revision, [CONFIG_FILE]) / CONFIG_FILE)
    return read_settings(find_format(settings, place), settings, place)


def estimate_memory(
    config: Config, dtype: torch.dtype = torch.bfloat16, tokens: int = 0, adapted: bool = False
) -> int:
    """Return the bytes of the weights and of the keys and values of `tokens` tokens.

    `adapted` adds a second set of linear weights, into which an adapter is merged. A forward pass
    needs more: about tokens x vocab_size x 4 bytes for logits.
    """
    weights = make_skeleton(config).state_dict()
    numbers = sum(w.numel() for w in weights.values())
    if config.tie_word_embeddings:
        numbers -= weights[HEAD].numel()
    if adapted:
        numbers += sum(w.numel() for name, w in weights.items() if name.endswith(LINEAR))
    keys = sum(w.shape[0] for name, w in weights.items() if name.endswith(".k_proj.weight"))
    return int((numbers + tokens * 2 * keys) * dtype.itemsize)


def _choose_frame(
    known: dict[str, int], row: CheckpointFormat, config: Config, place: str, required: bool
) -> Frame:
    """Choose the chat frame that the tokenizer supports.

    Raises BackendError if tokens of all frames are missing and one is `required`, or if the
    tokenizer has too many ids.
    """
    if max(known.values(), default=0) >= config.vocab_size:
        raise BackendError(
            f"{place}: the tokenizer has the id {max(known.values())}, but config.json says "
            f"vocab_size {config.vocab_size}; they do not belong together"
        )
    missing = [[name for name in frame.tokens if name not in known] for frame in row.frames]
    for frame, lacks in zip(row.frames, missing, strict=True):
        if not lacks:
            return frame
    if not required:
        return row.frames[0]
    first = " nor ".join(lacks[0] for lacks in missing)
    raise BackendError(f"{place}: the tokenizer has no token {first}, which chats of {row.name} need")


def _read_weights(
    row: CheckpointFormat, shards: Iterable[Shard], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Read all weights of `shards` by our names. Raises BackendError."""
    state: dict[str, Tensor] = {}
    for shard in shards:
        for name, tensor in _iterate_weights(shard, device):
            if name.startswith(row.skipped):
                continue
            ours = map_weight_name(row, name)
            if ours is None:
                raise BackendError(f"{shard.path}: unexpected weight {name} for {row.name}")
            if not tensor.is_floating_point():
                raise BackendError(
                    f"{shard.path}: {name} is {str(tensor.dtype).removeprefix('torch.')}; "
                    "quantised weights are not read"
                )
            state[ours] = tensor.to(dtype)
    return state


def _iterate_weights(shard: Shard, device: torch.device) -> Iterable[tuple[str, Tensor]]:
    try:
        with safe_open(shard.path, framework="pt", device=str(device)) as file:
            there = set(file.keys())
            if missing := sorted((shard.names or set()) - there):
                raise BackendError(
                    f"{shard.path}: {INDEX_FILE} promises {missing[0]}, which is not in this file"
                )
            for name in sorted(there if shard.names is None else shard.names):
                yield name, file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise BackendError(f"{shard.path}: the weights cannot be read ({error})") from error


def _check_weights(state: dict[str, Tensor], config: Config, place: str) -> dict[str, Tensor]:
    """Return the weights without a tied head.

    Raises BackendError if they are not exactly the weights that the model needs.
    """
    needed = {name: tensor.shape for name, tensor in make_skeleton(config).state_dict().items()}
    embedding = next((tensor for name, tensor in state.items() if name.endswith(EMBEDDING)), None)
    if config.tie_word_embeddings and embedding is not None:
        head = state.pop(HEAD, None)
        if head is not None and not torch.equal(head, embedding):
            raise BackendError(
                f"{place}: config.json ties the head to the embedding, but their weights differ"
            )
        needed.pop(HEAD)
    if missing := sorted(set(needed) - set(state)):
        raise BackendError(f"{place}: {len(missing)} weights are missing, first {missing[0]}")
    if unknown := sorted(set(state) - set(needed)):
        raise BackendError(f"{place}: {len(unknown)} weights are unexpected, first {unknown[0]}")
    for name, shape in needed.items():
        if state[name].shape != shape:
            raise BackendError(
                f"{place}: {name} is {tuple(state[name].shape)}, but config.json asks for {tuple(shape)}"
            )
    return state
