"""Bring the weights of a checkpoint into the form of the transformers library's layers.

The library keeps the experts of a layer in two tensors, and queries, keys and values in three
matrices. Some checkpoints have a matrix for each expert, and one for queries, keys and values.
"""

import re
from typing import Any

import torch
from torch import Tensor

from remask.errors import BackendError

EXPERT = re.compile(r"(.+\.experts)\.\d+\.(?:gate|up|down)_proj\.weight")
JOINT = ".query_key_value.weight"


def pack_weights(state: dict[str, Tensor], config: Any, place: str) -> None:
    """Pack the experts in `state` and split joint matrices, in place.

    What does not belong to the model stays as it is. Raises BackendError if a weight of an expert
    is missing or has another shape than `config` asks for.
    """
    for name in [name for name in state if name.endswith(JOINT)]:
        _split_joint(state, name, config, place)
    layers = {match[1]: None for name in state if (match := EXPERT.fullmatch(name))}
    for layer in layers:
        _stack_experts(state, layer, config, place)


def _split_joint(state: dict[str, Tensor], name: str, config: Any, place: str) -> None:
    """Split the rows of a joint matrix into those of queries, keys and values, in this order."""
    keys = config.num_key_value_heads * config.head_dim
    sizes = [config.num_attention_heads * config.head_dim, keys, keys]
    _check_shape(state, name, (sum(sizes), config.hidden_size), place)
    prefix = name.removesuffix(JOINT)
    for letter, part in zip("qkv", torch.split(state.pop(name), sizes), strict=True):
        state[f"{prefix}.{letter}_proj.weight"] = part.clone()


def _stack_experts(state: dict[str, Tensor], layer: str, config: Any, place: str) -> None:
    """Stack the matrices of the experts of `layer`, the name of their common prefix."""
    hidden, inner, count = config.hidden_size, config.moe_intermediate_size, config.num_local_experts
    first = next(state[name] for name in state if name.startswith(f"{layer}."))
    entering = first.new_empty(count, 2 * inner, hidden)
    leaving = first.new_empty(count, hidden, inner)
    for i in range(count):
        parts = {"gate": entering[i, :inner], "up": entering[i, inner:], "down": leaving[i]}
        for part, target in parts.items():
            name = f"{layer}.{i}.{part}_proj.weight"
            if name not in state:
                raise BackendError(f"{place}: weights are missing, first {name}")
            _check_shape(state, name, tuple(target.shape), place)
            target.copy_(state.pop(name))
    state[f"{layer}.gate_up_proj"], state[f"{layer}.down_proj"] = entering, leaving


def _check_shape(state: dict[str, Tensor], name: str, shape: tuple[int, ...], place: str) -> None:
    if state[name].shape != torch.Size(shape):
        raise BackendError(f"{place}: {name} is {tuple(state[name].shape)}, but config.json asks for {shape}")
