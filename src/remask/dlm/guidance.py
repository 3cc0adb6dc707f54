"""Classifier-free guidance by traces: combine two logits functions into one."""

from torch import Tensor

from remask.dlm.sampler import Logits
from remask.dlm.schedule import MINUS_INF
from remask.errors import ConfigError


def apply_guidance(with_traces: Logits, without_traces: Logits, scale: float) -> Logits:
    """Return a function that computes, with w = `scale`:

        logits_guided = (1 + w) · logits(traces) - w · logits(none)

    Sources: Ho and Salimans (arXiv 2207.12598, section 3.2); for masked diffusion without a
    classifier Nie et al. (arXiv 2410.18514) and the public sampler of LLaDA. Each call costs one
    call of both functions; a scale of 0 returns `with_traces` and never calls the other. A token
    that is impossible with traces stays impossible. One that is impossible only without them gets
    +inf, which `denoise` refuses unless the token is banned. Raises ConfigError if `scale` is
    negative.
    """
    if not scale >= 0:
        raise ConfigError(f"guidance is {scale}; it must not be negative (0 is no guidance)")
    if scale == 0:
        return with_traces

    def logits(ids: Tensor) -> Tensor:
        conditional = with_traces(ids).float()
        guided = conditional + scale * (conditional - without_traces(ids).float())
        return guided.where(conditional != MINUS_INF, conditional)

    return logits
