"""Build denoisers: from a diffusion checkpoint, or from a base model and its adapter.

A checkpoint of a diffusion model is loaded with the row of its family and the
attention mode of that family. An adapter makes a denoiser of the built-in model or of a base from
disk. There the base weights read the traces left to right, so the keys and values of the traces are
computed once per context and reused exactly by every step, candidate and later call. Only a window
of the prompt is read at each step, in both directions, with the adapter.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch

from remask.dlm.adapter import SHIPPED_ADAPTER, AdaptedModel, load_adapter
from remask.dlm.bidirectional import REFRESH_STEPS, Bidirectional
from remask.dlm.denoiser import LocalDenoiser
from remask.dlm.families import BUILTIN, Family, find_family, resolve_family
from remask.dlm.reading import AttentionMode, BlockCausal, CausalContext, PrefixCache, PrefixLM
from remask.dlm.sampler import CommitRule
from remask.errors import BackendError, ConfigError
from remask.models.backbone.builtin_weights import load_base
from remask.models.backbone.checkpoint import load_checkpoint
from remask.models.backbone.transformer import Backbone

if TYPE_CHECKING:
    from remask.models.backbone.diffusion_gemma import DiffusionGemmaBackbone

Cache = Literal["approximate", "exact"]
# The name of the built-in model in identities. Changing it would invalidate cached answers.
BUILTIN_NAME = "embedded-dlm"
# Diffusion checkpoints were trained on masks in every order, so they need no left bias.
# Without a threshold, that of the family is used.
CHECKPOINT_RULE = CommitRule(left_bias=0.0)
# docs/log.md (token temperature of the denoiser) explains the low temperature.
ADAPTED_RULE = CommitRule(temperature=0.3, position_temperature=0.3, left_bias=4.0, threshold=0.9)

# -- from a checkpoint ----------------------------------------------------------------------------


def load_denoiser(
    place: str,
    revision: str | None = None,
    family: str | None = None,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    *,
    rule: CommitRule = CHECKPOINT_RULE,
    steps: int | None = None,
    guidance: float = 0.0,
    cache: Cache = "approximate",
    refresh: int = REFRESH_STEPS,
) -> LocalDenoiser:
    """Load the denoiser at `place`, a folder or a hub id with a pinned `revision`.

    A `rule` without a threshold takes that of the family. `family` is a name of FAMILIES, needed if
    the checkpoint's own name does not identify it. `cache` and `refresh` matter only for families in
    which all tokens see each other: the context is read again every `refresh` steps, or at every step
    with `cache="exact"`. Raises BackendError and ConfigError.
    """
    backbone, row = load_family(place, revision, family, device, dtype)
    if row.attention == "region":
        raise BackendError(
            f"{place}: reads left to right and cannot fill holes by itself; make an adapter with "
            f"remask adapt --base local:{place} and name it (--adapter, or denoiser.adapter)"
        )
    mode = make_attention_mode(backbone, row, cache, refresh)
    if rule.threshold is None:
        rule = replace(rule, threshold=row.threshold)
    return LocalDenoiser(row.name, backbone, row, mode, rule, steps, guidance)


def load_family(
    place: str,
    revision: str | None = None,
    family: str | None = None,
    device: str | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Backbone, Family]:
    """Load the model at `place` and find its family. Raises BackendError."""
    found = load_checkpoint(place, revision, device, dtype)
    backbone = found.backbone
    added = backbone.list_added_tokens()
    row = find_family(found.format, found.name, family, added)
    size, unused_id = backbone.vocab_size, backbone.find_unused_id()
    return backbone, resolve_family(row, found.name, found.settings, added, size, unused_id)


def make_attention_mode(backbone: Backbone, family: Family, cache: Cache, refresh: int) -> AttentionMode:
    """Make the attention mode of a family without an adapter. Raises ConfigError."""
    if cache not in ("approximate", "exact"):
        raise ConfigError(f"cache is {cache!r}; use approximate or exact")
    if family.attention == "blocks":
        return BlockCausal(backbone, family, PrefixCache(backbone, family.block))
    if family.attention == "canvas":
        return CausalContext(backbone, family, PrefixCache(backbone, 1))
    if family.attention == "noise":
        from remask.dlm.uniform_noise import UniformNoise  # needs a recent release of transformers

        return UniformNoise(cast("DiffusionGemmaBackbone", backbone), family)
    return Bidirectional(backbone, family, 1 if cache == "exact" else refresh)


# -- from a left-to-right base and its adapter ----------------------------------------------------


class BuiltinDenoiser(LocalDenoiser):
    """A denoiser and scorer made of `backbone` and an adapter trained for it."""

    def __init__(
        self,
        backbone: Backbone,
        adapter: Path | AdaptedModel = SHIPPED_ADAPTER,
        steps: int | None = None,
        rule: CommitRule = ADAPTED_RULE,
        guidance: float = 0.0,
    ) -> None:
        """`steps` is the number of denoising steps per window; by default one for every mask, at
        most 24. Raises ConfigError and BackendError.

        Two tokens committed in one step seldom fit each other: in seven examples with one seed, the
        base's mean log-probability of the written prompts was -3.55 with one token per step and
        -4.09 with two.
        """
        mode = make_builtin_mode(backbone, adapter)
        name = BUILTIN_NAME if mode.family == BUILTIN else mode.family.name
        super().__init__(name, backbone, mode.family, mode, rule, steps, guidance)


def make_builtin_mode(backbone: Backbone, adapter: Path | AdaptedModel = SHIPPED_ADAPTER) -> PrefixLM:
    """Make the attention mode of a base with an adapter. Raises BackendError."""
    loaded = adapter if isinstance(adapter, AdaptedModel) else load_adapter(backbone, adapter)
    cache = PrefixCache(backbone, 1)
    return PrefixLM(backbone, loaded.backbone, loaded.gates, loaded.family, cache)


@dataclass(frozen=True, slots=True)
class Base:
    """A left-to-right model that can be adapted."""

    backbone: Backbone
    family: Family
    name: str  # "SmolLM2-135M-Instruct", or the last part of its place


def find_base(
    name: str,
    revision: str | None = None,
    family: str | None = None,
    device: str | None = None,
    dtype: torch.dtype | None = None,
) -> Base:
    """Load the base called `name`: "builtin", "local:FOLDER" or "local:HUB_ID".

    A hub id needs a pinned `revision`. The built-in model runs on the CPU. Raises ConfigError and
    BackendError.
    """
    kind, _, place = name.partition(":")
    if kind == "builtin" and not place:
        if revision is not None:
            raise ConfigError("the built-in base has no revision; leave it out")
        return Base(load_base(), BUILTIN, "SmolLM2-135M-Instruct")
    if kind != "local" or not place:
        raise ConfigError(
            f"the base {name!r} is unknown; use builtin, local:FOLDER, or local:HUB_ID with a revision"
        )
    backbone, row = load_family(place, revision, family, device, dtype)
    if row.attention != "region":
        raise BackendError(
            f"{place}: {row.name} is a diffusion model already; use it with --denoiser "
            f"local:{place} and without an adapter"
        )
    if backbone.context_length < row.context + row.window:
        raise BackendError(
            f"{place}: reads {backbone.context_length} tokens at once, but traces and prompts take "
            f"up to {row.context + row.window}"
        )
    return Base(backbone, row, place.rstrip("/").rpartition("/")[2])
