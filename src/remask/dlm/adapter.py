"""Load an adapter and merge it into the weights of a base model.

An adapter is one safetensors file. It holds two low-rank factors, NAME.a (r, in) and NAME.b
(out, r), for each linear layer NAME, the attention gates, and the embedding of the mask. Its header
states family, rank, alpha, layout, whether the delete token was trained, and the base by name and
content. A merged weight is LoRA's W + alpha / r · B A (arXiv 2106.09685).
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from remask.dlm.families import BUILTIN, FAMILIES, Family
from remask.errors import BackendError
from remask.models.backbone.attention import Gates
from remask.models.backbone.transformer import Backbone

FORMAT = "remask-adapter/1"
SHIPPED_ADAPTER = Path(__file__).parent / "data" / "smollm2-135m-prompt.safetensors"


@dataclass(frozen=True, slots=True)
class AdaptedModel:
    """A base model with the parameters that turn it into a denoiser."""

    backbone: Backbone  # has the merged weights and shares all others with the base
    gates: Gates
    family: Family


def load_adapter(base: Backbone, path: Path = SHIPPED_ADAPTER, family: Family = BUILTIN) -> AdaptedModel:
    """Load the adapter at `path` and merge it into a copy of the linear weights of `base`.

    `family` is the family of the base. Raises BackendError if the file is missing, damaged, or
    made for another model or layout.
    """
    header, tensors, digest = read_adapter(path, base, family)
    scale = _read_scale(header, path)
    _require_shapes(base, tensors, path)
    return merge_adapter(base, family, tensors, scale, digest, str(path))


def merge_adapter(
    base: Backbone, family: Family, tensors: Mapping[str, Tensor], scale: float, digest: str, source: str
) -> AdaptedModel:
    """Add the products of the factors in `tensors`, times `scale`, to the linear weights of `base`.

    `digest` becomes part of the identity; `source` names the factors in errors. Raises BackendError
    if their shapes do not fit the base.
    """
    state = base.model.state_dict()
    tensors = {name: tensor.to(base.device) for name, tensor in tensors.items()}
    names = sorted(name.removesuffix(".a") for name in tensors if name.endswith(".a"))
    merged = {f"{name}.weight": _merge_weight(state, tensors, name, scale, source) for name in names}
    gates = Gates(tensors["gates.right"], tensors["gates.masked"], tensors["mask_embedding"])
    return AdaptedModel(base.with_weights(merged, f"{base.identity}+{digest}"), gates, family)


def read_adapter(path: Path, base: Backbone, family: Family) -> tuple[dict[str, str], dict[str, Tensor], str]:
    """Read the header, the tensors by name, and a digest of the file.

    Raises BackendError if the file is missing, damaged, or made for another base or layout.
    """
    try:
        if not path.is_file():  # reading a pipe or a device might never end
            raise OSError("there is no such file")
        raw = path.read_bytes()
        tensors = load(raw)
        # The file begins with the length of the JSON header, 8 bytes, little-endian. `load` has
        # checked both.
        description = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        header, digest = description.get("__metadata__", {}), hashlib.sha256(raw).hexdigest()[:16]
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise BackendError(
            f"{path}: the denoiser's adapter cannot be read ({error}); reinstall remask "
            "or name another adapter"
        ) from error
    made_for = header.get("family", "")
    if header.get("format") != FORMAT or made_for not in FAMILIES:
        raise BackendError(f"{path}: not an adapter of format {FORMAT} for one of {', '.join(FAMILIES)}")
    # An adapter without base_content was made when the built-in model was the only base.
    content = header.get("base_content", base.content)
    if made_for != family.name or content != base.content:
        raise BackendError(
            f"{path}: made for {header.get('base', made_for)} ({header.get('base_content', made_for)}), but "
            f"the base is {base.content}; use its own adapter"
        )
    if header.get("layout") != str(family.layout):
        raise BackendError(
            f"{path}: trained on layout {header.get('layout')} of traces, but this version "
            f"writes layout {family.layout}; use an adapter of this version"
        )
    return header, tensors, digest


def _read_scale(header: Mapping[str, str], path: Path) -> float:
    """Return alpha / r. Raises BackendError."""
    try:
        alpha, rank = float(header["alpha"]), float(header["rank"])
    except (KeyError, ValueError):
        alpha, rank = math.nan, math.nan
    if not (math.isfinite(alpha) and 0 < rank < math.inf):
        raise BackendError(
            f"{path}: has alpha {header.get('alpha')!r} and rank {header.get('rank')!r}; it is damaged"
        )
    return alpha / rank


def _require_shapes(base: Backbone, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise BackendError unless gates and mask fit the base, and every factor has its other half."""
    config = base.model.config
    gates = (config.num_hidden_layers, config.num_attention_heads)
    needed = {"gates.right": gates, "gates.masked": gates, "mask_embedding": (config.hidden_size,)}
    for name, shape in needed.items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            raise BackendError(f"{path}: {name} does not fit the base model; use its own adapter")
    factors = tensors.keys() - needed.keys()
    for name in sorted(factors):
        half = name[:-1] + {"a": "b", "b": "a"}.get(name[-1], "")
        if half not in factors or tensors[name].ndim != 2:
            raise BackendError(f"{path}: {name} is not one of two factors of a layer; it is damaged")


def _merge_weight(
    state: Mapping[str, Tensor], tensors: Mapping[str, Tensor], name: str, scale: float, source: str
) -> Tensor:
    """Return the merged weight of the linear layer `name`. Raises BackendError."""
    weight = state.get(f"{name}.weight")
    down, up = tensors[f"{name}.a"].float(), tensors[f"{name}.b"].float()
    if weight is None or weight.shape != (up.shape[0], down.shape[1]) or up.shape[1] != down.shape[0]:
        raise BackendError(f"{source}: {name} does not fit the base model; use its own adapter")
    return torch.addmm(weight.float(), up, down, alpha=scale).to(weight.dtype)
