"""Left-to-right models that an adapter turns into denoisers: the embedded one, and those on disk.

Says which model a name means and which row of `families` fits it. Knows no adapter and no text.
"""

from dataclasses import dataclass

import torch

from remask.backbone.model import Backbone
from remask.backbone.weights import load_base
from remask.dlm.checkpoint import load_family
from remask.dlm.families import EMBEDDED, Family
from remask.errors import BackendError, ConfigError


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
    """The model called `name`: embedded, or local:PLACE, a folder or a hub id with a pinned
    `revision`. The embedded model runs on the CPU. Raises ConfigError and BackendError."""
    kind, _, place = name.partition(":")
    if kind == "embedded" and not place:
        if revision is not None:
            raise ConfigError("the embedded base has no revision; leave it out")
        return Base(load_base(), EMBEDDED, "SmolLM2-135M-Instruct")
    if kind != "local" or not place:
        raise ConfigError(
            f"the base {name!r} is unknown; use embedded, local:FOLDER, or local:HUB_ID with a "
            "revision"
        )
    backbone, row = load_family(place, revision, family, device, dtype)
    if row.attention != "region":
        raise BackendError(
            f"{place}: {row.name} is a diffusion model already; use it with --dlm local:{place} "
            "and without an adapter"
        )
    if backbone.window < row.context + row.window:
        raise BackendError(
            f"{place}: reads {backbone.window} tokens at once, but traces and prompts take up to "
            f"{row.context + row.window}"
        )
    return Base(backbone, row, place.rstrip("/").rpartition("/")[2])
