"""Written canvases with some tokens masked again, ready for another `denoise`.

Two ways to choose them: by chance (`renoise`), to revise a prompt that exists, and by doubt
(`token_to_mask`), to correct a draft. Knows ids; knows nothing of models, text and scores.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from remask.dlm.sampler import Canvases, Step
from remask.errors import ConfigError


def _check(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ConfigError(f"{name} is {share}; it must be between 0 and 1")


@dataclass(frozen=True, slots=True)
class Revision:
    """What is masked of texts that exist: of the old one, and of the draft. Raises ConfigError."""

    noise: float = 1.0  # level of `renoise` for the old text of a hole; 1 writes it anew
    doubt: float = 0.0  # threshold of `token_to_mask` for a finished draft, once; 0: none

    def __post_init__(self) -> None:
        _check("noise level", self.noise)
        _check("threshold", self.doubt)


WRITE_ANEW = Revision()


def renoise(
    canvases: Canvases, editable: Tensor, level: float, generators: Sequence[torch.Generator]
) -> Canvases:
    """The batch at noise level t = `level`: of the n editable tokens of each row, round(t · n), at
    least one, become masks; all choices are equally probable.

    The forward process of LLaDA (arXiv 2502.09992, section 2.1), with the exact count of its
    likelihood estimate (section 2.4), which varies less than a coin for each token. Denoising from
    t < 1 keeps the rest of a text as its anchor, as SDEdit does with images (arXiv 2108.01073).
    editable: (K, L) bool; what is a mask already stays one and does not count. Rows without
    editable tokens stay as they are. generators: one for each row. Raises ConfigError for a level
    outside 0 to 1.
    """
    _check("noise level", level)
    ids = canvases.ids.clone()
    written = editable & (ids != canvases.mask)
    for row, (here, generator) in enumerate(zip(written, generators, strict=True)):
        places = here.nonzero()[:, 0]
        count = max(1, round(level * len(places)))
        chosen = torch.randperm(len(places), generator=generator)[:count]
        ids[row, places[chosen]] = canvases.mask
    return replace(canvases, ids=ids)


def token_to_mask(canvases: Canvases, finished: Step, threshold: float) -> Canvases:
    """The finished batch with those tokens masked again whose probability was below `threshold`
    when they were committed; what `canvases` did not mask stays.

    Resets, never overwrites (token-to-mask, arXiv 2604.18738), by the confidence stored at decoding
    (ReMDM-conf, arXiv 2503.00307). One pass: whoever repeats it bounds the repeats, since a token
    may stay improbable. Raises ConfigError for a threshold outside 0 to 1.
    """
    _check("threshold", threshold)
    least = math.log(threshold) if threshold else -math.inf
    doubtful = (canvases.ids == canvases.mask) & (finished.logp < least)
    return replace(canvases, ids=finished.ids.masked_fill(doubtful, canvases.mask))
