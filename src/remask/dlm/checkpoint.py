"""A denoiser from a checkpoint of any family: LLaDA, Dream, SDAR, Tiny-A2D.

Puts together what the folder is, the row of its family, and the way in which that family reads.
Knows no numbers itself.
"""

from typing import Literal

import torch

from remask.backbone.checkpoint import load_checkpoint
from remask.backbone.model import Backbone
from remask.dlm.families import Family, find_family, fit
from remask.dlm.full import REFRESH, FullReading
from remask.dlm.local import LocalDenoiser
from remask.dlm.reading import BlockReading, Prefixes, Reading
from remask.dlm.sampler import Rule
from remask.errors import BackendError, ConfigError

Cache = Literal["approximate", "exact"]
RULE = Rule(left_bias=0.0, threshold=0.9)  # these models were trained in every order


def load_denoiser(
    place: str,
    revision: str | None = None,
    family: str | None = None,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    rule: Rule = RULE,
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
            f"remask adapt --base local:{place} and name it (--adapter, or dlm.adapter)"
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


def read_with(backbone: Backbone, family: Family, cache: Cache, refresh: int) -> Reading:
    """The way in which a family without an adapter reads. Raises ConfigError."""
    if cache not in ("approximate", "exact"):
        raise ConfigError(f"cache is {cache!r}; use approximate or exact")
    if family.attention == "blocks":
        return BlockReading(backbone, family, Prefixes(backbone, family.block))
    return FullReading(backbone, family, 1 if cache == "exact" else refresh)
