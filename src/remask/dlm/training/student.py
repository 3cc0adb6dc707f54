"""What is trained: low-rank factors of all linear layers, attention gates, the mask's embedding.

The student reads with weights that are merged anew at each step, W + alpha / r · B A (LoRA, arXiv
2106.09685), which up to rounding is what the adapter becomes in use; on CPUs that is also quicker
than extra products at every layer, because r is far smaller than the number of tokens. The base
stays as it is and reads the traces. Knows a backbone and a family; knows no corpus and no
optimiser.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from remask.dlm.adapter import FORMAT, Adapted, merge
from remask.dlm.families import Family
from remask.dlm.reading import at_masks
from remask.files import draft
from remask.models.backbone.attention import (
    GatedScores,
    Gates,
    KeyValueStore,
    KVCache,
    Scores,
    additive,
)
from remask.models.backbone.transformer import Backbone

GATE = -4.0  # where gates start: the untrained model then reads almost like its base
NOISE = 0.3  # of the mask's embedding, in standard deviations of the vocabulary's
RIGHT, MASKED, EMBEDDING = "gates.right", "gates.masked", "mask_embedding"


class TracedScores(GatedScores):
    """The scores of regions, with gates that gradients flow to.

    Queries that share keys are folded into one product: PyTorch's fused attention takes six
    times as long on CPUs as soon as its mask wants a gradient.
    """

    def __init__(self, past: Tensor, attention_mask: Tensor, masked: Tensor, gates: Gates) -> None:
        """past: (B, C) bool; real, masked: (B, L) bool."""
        self.before = additive(past)[:, None, None, :]
        # A padded query sees itself: a row without any key would be NaN and spread.
        inside = attention_mask[:, None, :] | torch.eye(attention_mask.shape[1], dtype=torch.bool)
        super().__init__(Scores(additive(inside)[:, None], None), masked, gates)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, layer: int) -> Tensor:
        rows, heads, length, size = query.shape
        shared, keys = key.shape[1:3]
        folded = (query * scale).reshape(rows, shared, -1, size)
        scores = (folded @ key.transpose(2, 3)).view(rows, heads, length, keys)
        before = scores[..., : keys - length] + self.before.to(scores.dtype)
        own = scores[..., keys - length :] + self.gated(layer).to(scores.dtype)
        weights = torch.cat([before, own], -1).softmax(-1).view(rows, shared, -1, keys)
        return (weights @ value).view(rows, heads, length, size)


class Student:
    """A base model and the parameters that turn it into a denoiser; trained on the CPU."""

    def __init__(
        self, base: Backbone, family: Family, rank: int, alpha: float, tensors: Mapping[str, Tensor]
    ) -> None:
        """tensors: the parameters by name (`fresh`, or those of an adapter)."""
        self.base = base
        self.family = family
        self.rank = rank
        self.alpha = alpha
        self.parameters = {
            name: torch.nn.Parameter(tensor.detach().float().clone())
            for name, tensor in tensors.items()
        }
        names = (name for name in self.parameters if name.endswith(".a"))
        self._linear = sorted(name.removesuffix(".a") for name in names)

    @property
    def gates(self) -> Gates:
        p = self.parameters
        return Gates(p[RIGHT], p[MASKED], p[EMBEDDING])

    def weights(self) -> dict[str, Tensor]:
        """The merged weights, by state name; gradients flow through them."""
        state, scale = self.base.model.state_dict(), self.alpha / self.rank
        merged = {}
        for name in self._linear:
            weight = state[f"{name}.weight"]
            down, up = self.parameters[f"{name}.a"], self.parameters[f"{name}.b"]
            product = up.to(weight.dtype) @ down.to(weight.dtype)
            merged[f"{name}.weight"] = weight + scale * product
        return merged

    def logits(self, ids: Tensor, attention_mask: Tensor, masked: Tensor, past: KVCache) -> Tensor:
        """(masks, V) float32 logits of the masked places of regions (N, L), in reading order.

        past: N rows of context, read by the base. Gradients flow to all parameters.
        """
        base, gates = self.base, self.gates
        embedded, position = base.embed_region(ids, masked, past, gates)
        scores, store = (
            TracedScores(past.attention_mask, attention_mask, masked, gates),
            KeyValueStore(past, keep=False),
        )
        hidden = base.layers(embedded, position, scores, store, self.weights())
        logits: Tensor = base.model.lm_head(at_masks(self.family, hidden, masked))
        return logits.float()

    @torch.no_grad()
    def adapted(self) -> Adapted:
        """The student as it would be used, in the numbers that `save` writes."""
        scale = self.alpha / self.rank
        return merge(self.base, self.family, self._stored(), scale, "student", "the student")

    def save(self, path: Path, notes: Mapping[str, str]) -> None:
        """Write the adapter, whole or not at all; `notes` go into its header."""
        header = {
            "format": FORMAT,
            "family": self.family.name,
            "base_content": self.base.content,
            "layout": str(self.family.layout),
            "rank": str(self.rank),
            "alpha": str(self.alpha),
            **notes,
        }
        with draft(path) as made:
            save_file(self._stored(), made, header)

    def _stored(self) -> dict[str, Tensor]:
        """What an adapter's file holds: bf16, but for the gates, which are few."""
        return {
            name: p.detach().to(torch.float32 if name.startswith("gates.") else torch.bfloat16)
            for name, p in self.parameters.items()
        }


def fresh(base: Backbone, rank: int, seed: int) -> dict[str, Tensor]:
    """Parameters to start from: the student then differs from its base in the gates alone.

    a: (r, in), normal of variance 1 / in as in peft; b: (out, r), zero. The mask's embedding is the
    mean of the vocabulary with noise: one near zero destabilises training (arXiv 2512.15745).
    """
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, Tensor] = {}
    for name, weight in sorted(base.model.state_dict().items()):
        if name.endswith("_proj.weight"):
            out, width = weight.shape
            key = name.removesuffix(".weight")
            made[f"{key}.a"] = torch.randn((rank, width), generator=generator) / width**0.5
            made[f"{key}.b"] = torch.zeros(out, rank)
    config = base.model.config
    for name in (RIGHT, MASKED):
        made[name] = torch.full((config.num_hidden_layers, config.num_attention_heads), GATE)
    table = base.model.state_dict()["model.embed_tokens.weight"].float()
    noise = torch.randn(table.shape[1], generator=generator)
    made[EMBEDDING] = table.mean(0) + NOISE * table.std(0) * noise
    return made
