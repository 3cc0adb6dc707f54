"""Classifier-free guidance by traces: two functions from canvases to logits become one.

Knows functions and logits; knows nothing of ids, traces and models.
"""

from torch import Tensor

from remask.dlm.sampler import Logits
from remask.dlm.schedule import MINUS_INF
from remask.errors import ConfigError


def guided(with_traces: Logits, without: Logits, scale: float) -> Logits:
    """Logits that lean towards what only the traces say: with + scale · (with - without).

    Ho and Salimans (arXiv 2207.12598, section 3.2); for masked diffusion without a classifier Nie
    et al. (arXiv 2410.18514) and the public sampler of LLaDA. Scale 0 is no guidance and never
    calls `without`; else each step costs both. A token impossible with traces stays impossible; one
    impossible only without them gives +inf, which `denoise` refuses unless the token is banned.
    Raises ConfigError for a negative scale.
    """
    if not scale >= 0:
        raise ConfigError(f"guidance is {scale}; it must not be negative (0 is no guidance)")
    if scale == 0:
        return with_traces

    def logits(ids: Tensor) -> Tensor:
        known = with_traces(ids).float()
        lean = known + scale * (known - without(ids).float())
        return lean.where(known != MINUS_INF, known)

    return logits
