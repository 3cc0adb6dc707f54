"""Loading an adapter and merging it into a base model.

An adapter is one safetensors file: for each linear layer NAME two low-rank factors NAME.a (r, in)
and NAME.b (out, r), the attention gates, and the embedding of the mask; its header names family,
rank, alpha, layout, whether the delete token was taught, and the base by name and content. Merging
is LoRA's W + alpha / r · B A (arXiv 2106.09685). Knows weights; knows nothing of prompts and
sampling.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from remask.dlm.families import EMBEDDED, FAMILIES, Family
from remask.errors import BackendError
from remask.models.backbone.attention import Gates
from remask.models.backbone.transformer import Backbone

FORMAT = "remask-adapter/1"
SHIPPED = Path(__file__).parent / "data" / "smollm2-135m-prompt.safetensors"


@dataclass(frozen=True, slots=True)
class Adapted:
    """A base model turned into a denoiser."""

    backbone: Backbone  # the merged weights; shares all others with the base
    gates: Gates
    family: Family


def load_adapter(base: Backbone, path: Path = SHIPPED, family: Family = EMBEDDED) -> Adapted:
    """Merge the adapter at `path` into a copy of the linear weights of the base, a model of
    `family`.

    Raises BackendError where the file is missing, damaged, or made for another model or layout.
    """
    header, tensors, digest = read_adapter(path, base, family)
    scale = float(header["alpha"]) / float(header["rank"])
    return merge(base, family, tensors, scale, digest, str(path))


def merge(
    base: Backbone,
    family: Family,
    tensors: Mapping[str, Tensor],
    scale: float,
    digest: str,
    place: str,
) -> Adapted:
    """The base with the factors of `tensors` times `scale` in its linear weights. `digest` names
    them in the identity, `place` in errors. Raises BackendError where they do not fit."""
    state = base.model.state_dict()
    tensors = {name: tensor.to(base.device) for name, tensor in tensors.items()}
    names = sorted(name.removesuffix(".a") for name in tensors if name.endswith(".a"))
    merged = {f"{name}.weight": _merge(state, tensors, name, scale, place) for name in names}
    gates = Gates(tensors["gates.right"], tensors["gates.masked"], tensors["mask_embedding"])
    return Adapted(base.with_weights(merged, f"{base.identity}+{digest}"), gates, family)


def read_adapter(
    path: Path, base: Backbone, family: Family
) -> tuple[dict[str, str], dict[str, Tensor], str]:
    """Header, tensors by name, and a digest of the file. Raises BackendError where it is missing,
    damaged, or made for another base or layout."""
    try:
        raw = path.read_bytes()
        tensors = load(raw)
        # The header is JSON behind its length, 8 bytes, little-endian; `load` has checked it.
        told = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        header, digest = told.get("__metadata__", {}), hashlib.sha256(raw).hexdigest()[:16]
    except (OSError, SafetensorError) as error:
        raise BackendError(
            f"{path}: the denoiser's adapter cannot be read ({error}); reinstall remask "
            "or name another adapter"
        ) from error
    made_for = header.get("family", "")
    if header.get("format") != FORMAT or made_for not in FAMILIES:
        raise BackendError(
            f"{path}: not an adapter of format {FORMAT} for one of {', '.join(FAMILIES)}"
        )
    # Adapters without a content are older than other bases: they are the built-in model's.
    content = header.get("base_content", base.content)
    if made_for != family.name or content != base.content:
        raise BackendError(
            f"{path}: made for {header.get('base', made_for)} "
            f"({header.get('base_content', made_for)}), but the base is {base.content}; use its "
            "own adapter"
        )
    if header.get("layout") != str(family.layout):
        raise BackendError(
            f"{path}: trained on layout {header.get('layout')} of traces, but this version "
            f"writes layout {family.layout}; use an adapter of this version"
        )
    return header, tensors, digest


def _merge(
    state: Mapping[str, Tensor], tensors: Mapping[str, Tensor], name: str, scale: float, place: str
) -> Tensor:
    weight = state.get(f"{name}.weight")
    down, up = tensors[f"{name}.a"].float(), tensors[f"{name}.b"].float()
    if weight is None or weight.shape != (up.shape[0], down.shape[1]):
        raise BackendError(f"{place}: {name} does not fit the base model; use its own adapter")
    return torch.addmm(weight.float(), up, down, alpha=scale).to(weight.dtype)
