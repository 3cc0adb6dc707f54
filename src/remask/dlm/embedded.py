"""The embedded denoiser: a small Llama model with an adapter that fills holes of a prompt. Another
base that was adapted (`bases.py`) works in the same way.

Traces are read left to right by the base weights, so their keys and values are computed once per
context and reused exactly for every step, candidate and later call; only a window of the prompt is
read again, in both directions, with the adapter. Knows which parts make it; the work is done in
`local.py` and `reading.py`.
"""

from pathlib import Path

from remask.backbone.model import Backbone
from remask.dlm.adapter import SHIPPED, Adapted, load_adapter
from remask.dlm.families import EMBEDDED
from remask.dlm.local import LocalDenoiser
from remask.dlm.reading import Prefixes, RegionReading
from remask.dlm.sampler import Rule

NAME = "embedded-dlm"  # in identities
# Why so cool: docs/log.md, token temperature of the denoiser.
RULE = Rule(temperature=0.3, position_temperature=0.3, left_bias=4.0, threshold=0.9)


class EmbeddedDenoiser(LocalDenoiser):
    """A Denoiser and Scorer around `backbone`, embedded or not, and an adapter trained for it."""

    def __init__(
        self,
        backbone: Backbone,
        adapter: Path | Adapted = SHIPPED,
        steps: int | None = None,
        rule: Rule = RULE,
        guidance: float = 0.0,
    ) -> None:
        """`steps` per window: without it one for every mask, at most 24.

        Two tokens written at once seldom fit each other: the base's mean log-probability of the
        prompts written in seven cases, one seed, was -3.55 with one per step and -4.09 with two.
        Raises ConfigError and BackendError.
        """
        reading = embedded_reading(backbone, adapter)
        name = NAME if reading.family == EMBEDDED else reading.family.name
        super().__init__(name, backbone, reading.family, reading, rule, steps, guidance)


def embedded_reading(backbone: Backbone, adapter: Path | Adapted = SHIPPED) -> RegionReading:
    """How the embedded model reads. Raises BackendError."""
    made = adapter if isinstance(adapter, Adapted) else load_adapter(backbone, adapter)
    return RegionReading(backbone, made.backbone, made.gates, made.family, Prefixes(backbone, 1))
