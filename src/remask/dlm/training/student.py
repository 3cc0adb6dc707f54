"""The trained parameters: low-rank factors of all linear layers, attention gates, mask embedding.

At each step the student reads with merged weights, W + alpha / r · B A (LoRA, arXiv 2106.09685).
Up to rounding these are the weights of the saved adapter. On CPUs merging is also faster than extra
products in every layer, because r is far smaller than the number of tokens. The base reads the
traces and is not changed.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from remask.dlm.adapter import FORMAT, AdaptedModel, merge_adapter
from remask.dlm.families import Family
from remask.dlm.reading import select_at_masks
from remask.files import draft
from remask.models.backbone.attention import (
    GatedScores,
    Gates,
    KeyValueStore,
    KVCache,
    Scores,
    to_additive_mask,
)
from remask.models.backbone.transformer import Backbone

INITIAL_GATE = -4.0  # so low that the untrained model reads almost like its base
EMBEDDING_NOISE = 0.3  # of the mask's embedding, in standard deviations of the vocabulary's
RIGHT, MASKED, EMBEDDING = "gates.right", "gates.masked", "mask_embedding"


class DifferentiableScores(GatedScores):
    """The attention scores of regions, with gradients to the gates.

    The queries that share keys are folded into one product, because PyTorch's fused attention takes
    six times as long on CPUs if its mask needs a gradient.
    """

    def __init__(self, past: Tensor, attention_mask: Tensor, masked: Tensor, gates: Gates) -> None:
        """`past` is (B, C) bool, the attention mask of the context; `attention_mask` and `masked`
        are (B, L) bool."""
        self.before = to_additive_mask(past)[:, None, None, :]
        # A padded query sees itself, since a query without any key would be NaN and spread.
        inside = attention_mask[:, None, :] | torch.eye(attention_mask.shape[1], dtype=torch.bool)
        super().__init__(Scores(to_additive_mask(inside)[:, None], None), masked, gates)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, layer: int) -> Tensor:
        rows, heads, length, size = query.shape
        shared, keys = key.shape[1:3]
        folded = (query * scale).reshape(rows, shared, -1, size)
        scores = (folded @ key.transpose(2, 3)).view(rows, heads, length, keys)
        before = scores[..., : keys - length] + self.before.to(scores.dtype)
        own = scores[..., keys - length :] + self.compute_gated_scores(layer).to(scores.dtype)
        weights = torch.cat([before, own], -1).softmax(-1).view(rows, shared, -1, keys)
        return (weights @ value).view(rows, heads, length, size)


class Student:
    """A base model and the parameters that turn it into a denoiser, trained on the CPU."""

    def __init__(
        self, base: Backbone, family: Family, rank: int, alpha: float, tensors: Mapping[str, Tensor]
    ) -> None:
        """`tensors` are the parameters by name, from `init_parameters` or an adapter."""
        self.base = base
        self.family = family
        self.rank = rank
        self.alpha = alpha
        self.parameters = {
            name: torch.nn.Parameter(tensor.detach().float().clone()) for name, tensor in tensors.items()
        }
        names = (name for name in self.parameters if name.endswith(".a"))
        self._linear = sorted(name.removesuffix(".a") for name in names)

    @property
    def gates(self) -> Gates:
        p = self.parameters
        return Gates(p[RIGHT], p[MASKED], p[EMBEDDING])

    def merge_weights(self) -> dict[str, Tensor]:
        """Return the merged weights by state name, with gradients to the factors."""
        state, scale = self.base.model.state_dict(), self.alpha / self.rank
        merged = {}
        for name in self._linear:
            weight = state[f"{name}.weight"]
            down, up = self.parameters[f"{name}.a"], self.parameters[f"{name}.b"]
            product = up.to(weight.dtype) @ down.to(weight.dtype)
            merged[f"{name}.weight"] = weight + scale * product
        return merged

    def logits(self, ids: Tensor, attention_mask: Tensor, masked: Tensor, past: KVCache) -> Tensor:
        """Return (masks, V) float32 logits at the masks of regions (N, L), in reading order.

        `past` has N rows of context, read by the base. Gradients flow to all parameters.
        """
        base, gates = self.base, self.gates
        embedded, position = base.embed_region(ids, masked, past, gates)
        scores = DifferentiableScores(past.attention_mask, attention_mask, masked, gates)
        store = KeyValueStore(past, keep=False)
        hidden = base.run_layers(embedded, position, scores, store, self.merge_weights())
        logits: Tensor = base.model.lm_head(select_at_masks(self.family, hidden, masked))
        return logits.float()

    @torch.no_grad()
    def to_adapted_model(self) -> AdaptedModel:
        """Merge the parameters as they are after `save` and `load_adapter`."""
        tensors, scale = self._export_tensors(), self.alpha / self.rank
        return merge_adapter(self.base, self.family, tensors, scale, "student", "the student")

    def save(self, path: Path, notes: Mapping[str, str]) -> None:
        """Write the adapter in one atomic step; `notes` become part of its header."""
        header = {
            "format": FORMAT,
            "family": self.family.name,
            "base_content": self.base.content,
            "layout": str(self.family.layout),
            "rank": str(self.rank),
            "alpha": str(self.alpha),
            **notes,
        }
        with draft(path) as temporary:
            save_file(self._export_tensors(), temporary, header)

    def _export_tensors(self) -> dict[str, Tensor]:
        """Return the tensors of an adapter's file: bf16, or float32 for the few gates."""
        return {
            name: p.detach().to(torch.float32 if name.startswith("gates.") else torch.bfloat16)
            for name, p in self.parameters.items()
        }


def init_parameters(base: Backbone, rank: int, seed: int) -> dict[str, Tensor]:
    """Return initial parameters, with which the student differs from its base only in the gates.

    a is (r, in), normal with variance 1 / in as in peft; b is (out, r), zero. The mask's embedding
    is the mean of the vocabulary with noise, since one near zero destabilises training (arXiv
    2512.15745).
    """
    generator = torch.Generator().manual_seed(seed)
    parameters: dict[str, Tensor] = {}
    for name, weight in sorted(base.model.state_dict().items()):
        if name.endswith("_proj.weight"):
            out, width = weight.shape
            key = name.removesuffix(".weight")
            parameters[f"{key}.a"] = torch.randn((rank, width), generator=generator) / width**0.5
            parameters[f"{key}.b"] = torch.zeros(out, rank)
    config = base.model.config
    shape = (config.num_hidden_layers, config.num_attention_heads)
    for name in (RIGHT, MASKED):
        parameters[name] = torch.full(shape, INITIAL_GATE)
    table = base.model.state_dict()["model.embed_tokens.weight"].float()
    noise = torch.randn(table.shape[1], generator=generator)
    parameters[EMBEDDING] = table.mean(0) + EMBEDDING_NOISE * table.std(0) * noise
    return parameters
