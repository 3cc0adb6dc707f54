"""The attention mode of models that were trained on random tokens instead of masks.

DiffusionGemma has no mask: a position that is not yet written holds a random token, and another one
at each step. The model does not know which tokens are random, and predicts all of them. So the rest
of a prompt is a draft that it reads, and only the tokens in holes are replaced. The context cannot
see the canvas, so its keys and values are computed once and reused exactly.
"""

import torch
from torch import Tensor

from remask.dlm.families import Family
from remask.dlm.reading import AttentionMode, DenoisingPass, Ids, PrefixCache, find_distinct_rows, repeat_rows
from remask.dlm.sampler import CanvasBatch
from remask.ids import seed_for
from remask.models.backbone.attention import KVCache
from remask.models.backbone.diffusion_gemma import DiffusionGemmaBackbone


class UniformNoise(AttentionMode):
    """The attention mode of a model whose holes hold random tokens."""

    def __init__(self, backbone: DiffusionGemmaBackbone, family: Family) -> None:
        self.backbone = backbone
        self.family = family
        self._prefix_cache = PrefixCache(backbone, 1)

    @property
    def identity(self) -> str:
        return f"{self.backbone.identity}/noise"

    def reread(self, length: int) -> int:
        return 0  # a canvas needs no token of the context

    def begin(self, context: Ids, shared: int, attention_mask: Tensor) -> DenoisingPass:
        past = self._prefix_cache.get_cache(context, shared)
        return _NoisePass(self.backbone, self.family, past, attention_mask)


class _NoisePass:
    """A batch of canvases after a context, and what the last step expected of each."""

    def __init__(
        self, backbone: DiffusionGemmaBackbone, family: Family, past: KVCache | None, attention_mask: Tensor
    ) -> None:
        self._backbone = backbone
        self._family = family
        self._past = past
        self._attention_mask = attention_mask
        self._step = 0
        self._soft: Tensor | None = None  # (K, L, d), of the last step

    def logits(self, ids: Tensor) -> Tensor:
        rows = (ids == self._family.mask).any(1).nonzero()[:, 0].tolist()
        ids, attention_mask = ids[rows], self._attention_mask[rows]
        soft = None if self._soft is None else self._soft[rows]
        first, inverse = list(range(len(rows))), list(range(len(rows)))
        if soft is None:  # later, equal canvases may differ in what the last step expected
            first, inverse = find_distinct_rows(ids, attention_mask)
        masked = ids[first] == self._family.mask
        noisy = self._add_noise(ids[first], attention_mask[first])
        hidden = self._backbone.read_canvas(noisy, attention_mask[first], self._past, soft)
        found = self._backbone.logits(hidden)
        expected = self._backbone.expect_embeddings(found)[inverse]
        if self._soft is None:
            self._soft = expected.new_zeros(len(self._attention_mask), *expected.shape[1:])
        self._soft[rows] = expected
        self._step += 1
        return repeat_rows(found[masked.to(found.device)], masked, inverse)

    def sum_log_probs(self, ids: Tensor, canvases: CanvasBatch, logp: Tensor) -> Tensor:
        return logp.sum(1)

    def _add_noise(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Replace masks by tokens that are drawn uniformly from the vocabulary.

        They depend on the step and the content of a row only, so not on its batch.
        """
        noisy = ids.clone()
        for row, own in zip(noisy, attention_mask, strict=True):
            masked = row == self._family.mask
            seed = seed_for(self._step, "noise", *row[own].tolist())
            generator = torch.Generator().manual_seed(seed)
            size = (int(masked.sum()),)
            row[masked] = torch.randint(self._backbone.vocab_size, size, generator=generator)
        return noisy
