"""Denoisers put together: from a checkpoint of any family, or from a base and its adapter.

A checkpoint of LLaDA, Dream, SDAR or Tiny-A2D is what its folder is, the row of its family, and the
way in which that family reads. An adapter makes a denoiser of the built-in model, or of a base from
disk: traces are read left to right by the base weights, so their keys and values are computed once
per context and reused exactly for every step, candidate and later call; only a window of the prompt
is read again, in both directions, with the adapter. Knows which parts make a denoiser; the work is
done in `denoiser.py` and `reading.py`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from remask.dlm.adapter import SHIPPED, Adapted, load_adapter
from remask.dlm.bidirectional import REFRESH, Bidirectional
from remask.dlm.denoiser import LocalDenoiser
from remask.dlm.families import EMBEDDED, Family, find_family, fit
from remask.dlm.reading import AttentionMode, BlockCausal, PrefixCache, PrefixLM
from remask.dlm.sampler import CommitRule
from remask.errors import BackendError, ConfigError
from remask.models.backbone.builtin_weights import load_base
from remask.models.backbone.checkpoint import load_checkpoint
from remask.models.backbone.transformer import Backbone

Cache = Literal["approximate", "exact"]
NAME = "embedded-dlm"  # of the built-in model in identities
CHECKPOINT_RULE = CommitRule(
    left_bias=0.0, threshold=0.9
)  # these models were trained in every order
# Why so cool: docs/log.md, token temperature of the denoiser.
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
    refresh: int = REFRESH,
) -> LocalDenoiser:
    """The denoiser at `place`, a folder or a hub id with a pinned `revision`.

    family: a name of FAMILIES where the checkpoint's own name does not tell. cache and refresh
    matter only to families whose tokens all see each other: the context is read anew every
    `refresh` steps, with "exact" at every step. Raises BackendError and ConfigError.
    """
    backbone, row = load_family(place, revision, family, device, dtype)
    if row.attention == "region":
        raise BackendError(
            f"{place}: reads left to right and cannot fill holes by itself; make an adapter with "
            f"remask adapt --base local:{place} and name it (--adapter, or denoiser.adapter)"
        )
    reading = read_with(backbone, row, cache, refresh)
    return LocalDenoiser(row.name, backbone, row, reading, rule, steps, guidance)


def load_family(
    place: str,
    revision: str | None = None,
    family: str | None = None,
    device: str | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Backbone, Family]:
    """The model at `place` and the row that fits it. Raises BackendError."""
    found = load_checkpoint(place, revision, device, dtype)
    backbone = found.backbone
    added = backbone.added_tokens()
    row = find_family(found.format, found.name, family, added)
    spare = backbone.spare_id()
    return backbone, fit(row, found.name, found.settings, added, backbone.size, spare)


def read_with(backbone: Backbone, family: Family, cache: Cache, refresh: int) -> AttentionMode:
    """The way in which a family without an adapter reads. Raises ConfigError."""
    if cache not in ("approximate", "exact"):
        raise ConfigError(f"cache is {cache!r}; use approximate or exact")
    if family.attention == "blocks":
        return BlockCausal(backbone, family, PrefixCache(backbone, family.block))
    return Bidirectional(backbone, family, 1 if cache == "exact" else refresh)


# -- from a base, which reads left to right, and its adapter --------------------------------------


class BuiltinDenoiser(LocalDenoiser):
    """A Denoiser and Scorer around `backbone`, and an adapter trained for it."""

    def __init__(
        self,
        backbone: Backbone,
        adapter: Path | Adapted = SHIPPED,
        steps: int | None = None,
        rule: CommitRule = ADAPTED_RULE,
        guidance: float = 0.0,
    ) -> None:
        """`steps` per window: without it one for every mask, at most 24.

        Two tokens written at once seldom fit each other: the base's mean log-probability of the
        prompts written in seven cases, one seed, was -3.55 with one per step and -4.09 with two.
        Raises ConfigError and BackendError.
        """
        reading = builtin_mode(backbone, adapter)
        name = NAME if reading.family == EMBEDDED else reading.family.name
        super().__init__(name, backbone, reading.family, reading, rule, steps, guidance)


def builtin_mode(backbone: Backbone, adapter: Path | Adapted = SHIPPED) -> PrefixLM:
    """How the built-in model reads. Raises BackendError."""
    made = adapter if isinstance(adapter, Adapted) else load_adapter(backbone, adapter)
    return PrefixLM(backbone, made.backbone, made.gates, made.family, PrefixCache(backbone, 1))


@dataclass(frozen=True, slots=True)
class Base:
    """A model before it is adapted."""

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
    """The model called `name`: builtin, or local:PLACE, a folder or a hub id with a pinned
    `revision`. The built-in model runs on the CPU. Raises ConfigError and BackendError."""
    kind, _, place = name.partition(":")
    if kind == "builtin" and not place:
        if revision is not None:
            raise ConfigError("the built-in base has no revision; leave it out")
        return Base(load_base(), EMBEDDED, "SmolLM2-135M-Instruct")
    if kind != "local" or not place:
        raise ConfigError(
            f"the base {name!r} is unknown; use builtin, local:FOLDER, or local:HUB_ID with a "
            "revision"
        )
    backbone, row = load_family(place, revision, family, device, dtype)
    if row.attention != "region":
        raise BackendError(
            f"{place}: {row.name} is a diffusion model already; use it with --denoiser "
            f"local:{place} and without an adapter"
        )
    if backbone.window < row.context + row.window:
        raise BackendError(
            f"{place}: reads {backbone.window} tokens at once, but traces and prompts take up to "
            f"{row.context + row.window}"
        )
    return Base(backbone, row, place.rstrip("/").rpartition("/")[2])
