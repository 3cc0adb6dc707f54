"""Attention of a frozen model: what a token may see, and keys and values that were read before.

The layers of the transformers library call `attend` with the `Scores` of a forward and its
`KeyValueStore`. A memory is a value: it is never written to, so that many rows and calls can share
it. Knows tensors; knows nothing of ids, models and text.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ATTENTION = "remask_explicit"
MINUS_INF = float("-inf")


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values that were read once; B is 1 where many rows will share them."""

    keys: tuple[Tensor, ...]  # per layer (B, H_kv, C, head size), already rotated
    values: tuple[Tensor, ...]  # the same shape
    attention_mask: Tensor  # (B, C) bool, False at padding

    def select(self, rows: Tensor) -> "KVCache":
        """The memory of the given rows ((N,) indices, repeats allowed)."""
        return KVCache(
            tuple(k[rows] for k in self.keys),
            tuple(v[rows] for v in self.values),
            self.attention_mask[rows],
        )


@dataclass(frozen=True, slots=True)
class Gates:
    """What bidirectional reading adds to a left-to-right model."""

    right: Tensor  # (layers, heads): added to attention scores of keys to the right
    masked: Tensor  # (layers, heads): added to attention scores of masked keys
    embedding: Tensor  # (d,): stands for a masked token


class Scores:
    """Additive attention scores, the same tensor for every layer: (B, 1 or heads, T, C + T), or
    (B, 1 or heads, T, T) of the new tokens alone where all of them see all of a `common` past."""

    def __init__(self, mask: Tensor, common: KVCache | None) -> None:
        self.mask = mask
        self.common = common

    def of_layer(self, layer: int) -> Tensor:
        return self.mask

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, layer: int) -> Tensor:
        """query: (B, H, T, h). key, value: (B, H_kv, C + T, h), or T where the past is common.
        Returns (B, H, T, h)."""
        mask = self.of_layer(layer)
        if self.common is None:
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, scale=scale, enable_gqa=True
            )
        past = self.common.keys[layer][0], self.common.values[layer][0]
        return _attend_common(query * scale, key, value, mask, *past)


class GatedScores(Scores):
    """The scores of a region: the gates of a layer fill the part that belongs to the region.

    One buffer serves all layers of one forward, since building the context part 30 times over
    costs more than the attention itself.
    """

    def __init__(self, plain: Scores, masked: Tensor, gates: Gates) -> None:
        """masked: (B, L) bool."""
        length = masked.shape[1]
        heads = gates.right.shape[1]
        mask = plain.mask
        right = torch.ones(length, length, device=mask.device).triu(1)
        others = 1 - torch.eye(length, device=mask.device)
        super().__init__(mask.expand(-1, heads, -1, -1).contiguous(), plain.common)
        self.inside = mask[..., -length:].float()  # (B, 1, L, L)
        self.right = right
        self.masked = masked[:, None, None, :] * others
        self.gates = gates

    def gated(self, layer: int) -> Tensor:
        """(B, heads, L, L): the part that belongs to the region."""
        right = self.gates.right[layer].float()[:, None, None] * self.right
        masked = self.gates.masked[layer].float()[:, None, None] * self.masked
        return self.inside + right + masked

    def of_layer(self, layer: int) -> Tensor:
        self.mask[..., -self.right.shape[-1] :] = self.gated(layer)
        return self.mask


class KeyValueStore:
    """Hands the past to each layer's attention and keeps what it grows to, if asked.

    A common past goes there by itself (`common_past`), so it is joined only where it is kept.
    """

    def __init__(self, past: KVCache | None, keep: bool) -> None:
        self.past = past
        self.keep = keep
        self.common = shared_prefix(past)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def update(
        self, key: Tensor, value: Tensor, layer: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Called by the attention layer; the name is the transformers library's.

        Releases differ in what else they pass (rotary angles, flags of the call): it is not used.
        """
        whole = key, value
        if self.past is not None and (self.keep or self.common is None):
            rows = (len(key), -1, -1, -1)
            key = torch.cat([self.past.keys[layer].expand(rows), key], 2)
            value = torch.cat([self.past.values[layer].expand(rows), value], 2)
        if self.keep:
            self.keys.append(key)
            self.values.append(value)
        return (key, value) if self.common is None else whole


def additive(seen: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Attention scores to add: 0 where a key is `seen`, else minus infinity."""
    scores = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return scores.masked_fill_(~seen, MINUS_INF)


def shared_prefix(past: KVCache | None) -> KVCache | None:
    """`past`, where attention reads it once for all rows instead of once for each.

    On CPUs, where PyTorch's fused attention multiplies far below the processor's rate. Whether
    there is one row or many must not matter: a row's result should not depend on its batch.
    """
    if past is None or len(past.attention_mask) > 1 or past.attention_mask.device.type != "cpu":
        return None
    return past if bool(past.attention_mask.all()) else None


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scores: Scores,
    scaling: float,
    **_: object,  # the library also passes dropout and position ids
) -> tuple[Tensor, None]:
    layer: int = module.layer_idx  # type: ignore[assignment]
    out = scores.attend(query, key, value, scaling, layer)
    return out.transpose(1, 2).contiguous(), None


def _attend_common(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, past_key: Tensor, past_value: Tensor
) -> Tensor:
    """Attention to a past that all rows share and to their own tokens, in plain products.

    query: (B, H, T, h), scaled. key, value: (B, H_kv, T, h). mask: (B, 1 or H, T, T), added to the
    scores of own keys. past_key, past_value: (H_kv, C, h). Returns (B, H, T, h).
    """
    rows, heads, length, size = query.shape
    share = heads // key.shape[1]
    before = past_key.shape[1]
    mask = mask.expand(rows, heads, -1, -1)
    out = torch.empty_like(query)
    # One row and one head of keys at a time: these scores stay in the processor's cache.
    for head in range(key.shape[1]):
        group = slice(head * share, (head + 1) * share)
        for row in range(rows):
            keys = torch.cat([past_key[head], key[row, head]])
            values = torch.cat([past_value[head], value[row, head]])
            found = query[row, group].reshape(-1, size) @ keys.T
            found.view(share, length, -1)[:, :, before:] += mask[row, group]
            out[row, group] = (found.softmax(1) @ values).view(share, length, size)
    return out


def grown(store: KeyValueStore, attention_mask: Tensor) -> KVCache:
    """What a store kept of its past and of (B, T) tokens of which `real` are no padding."""
    if store.past is not None:
        attention_mask = torch.cat(
            [store.past.attention_mask.expand(len(attention_mask), -1), attention_mask], 1
        )
    return KVCache(tuple(store.keys), tuple(store.values), attention_mask)
