"""Attention of a frozen model: what each token may see, and keys and values that were read before.

The layers of the transformers library call `attend` with the `Scores` of a forward pass and its
`KeyValueStore`. A KVCache is never modified, so many rows and calls can share it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ATTENTION = "remask_explicit"
MINUS_INF = float("-inf")


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values of a context. B is 1 if many rows share them."""

    keys: tuple[Tensor, ...]  # per layer (B, H_kv, C, head size), with rotary positions applied
    values: tuple[Tensor, ...]  # per layer, the same shape
    attention_mask: Tensor  # (B, C) bool, False at padding

    def select(self, rows: Tensor) -> "KVCache":
        """Return the cache of the given rows ((N,) indices, repeats allowed)."""
        return KVCache(
            tuple(k[rows] for k in self.keys), tuple(v[rows] for v in self.values), self.attention_mask[rows]
        )


def stack_caches(caches: Sequence[KVCache]) -> KVCache:
    """Return caches of one row each as one cache with a row for each, padded in front."""
    width = max(cache.attention_mask.shape[1] for cache in caches)

    def pad(tensor: Tensor, dim: int) -> Tensor:
        missing = width - tensor.shape[dim]
        shape = [missing if d == dim else n for d, n in enumerate(tensor.shape)]
        return torch.cat([tensor.new_zeros(shape), tensor], dim)

    def stack(layers: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        return tuple(torch.cat([pad(tensor, 2) for tensor in layer]) for layer in zip(*layers, strict=True))

    masks = torch.cat([pad(cache.attention_mask, 1) for cache in caches])
    return KVCache(stack([c.keys for c in caches]), stack([c.values for c in caches]), masks)


@dataclass(frozen=True, slots=True)
class Gates:
    """The parameters that bidirectional reading adds to a left-to-right model."""

    right: Tensor  # (layers, heads), added to attention scores of keys to the right
    masked: Tensor  # (layers, heads), added to attention scores of masked keys
    embedding: Tensor  # (d,), of a masked token


class Scores:
    """Additive attention scores, the same tensor for every layer.

    The shape is (B, 1 or heads, T, C + T). If all T new tokens see the whole `shared` prefix, it is
    (B, 1 or heads, T, T), for the new tokens only.
    """

    def __init__(self, mask: Tensor, shared: KVCache | None) -> None:
        self.mask = mask
        self.shared = shared

    def get_layer_mask(self, layer: int) -> Tensor:
        return self.mask

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, layer: int) -> Tensor:
        """Return (B, H, T, h) for query (B, H, T, h), and key and value (B, H_kv, C + T, h).

        With a shared prefix, key and value are (B, H_kv, T, h).
        """
        mask = self.get_layer_mask(layer)
        if self.shared is None:
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, scale=scale, enable_gqa=True
            )
        past = self.shared.keys[layer][0], self.shared.values[layer][0]
        return _attend_shared_prefix(query * scale, key, value, mask, *past)


class GatedScores(Scores):
    """The attention scores of a region, with the gates of each layer added inside the region.

    One buffer serves all layers of a forward pass, since building the context part in each of 30
    layers costs more than the attention itself.
    """

    def __init__(self, plain: Scores, masked: Tensor, gates: Gates) -> None:
        """`masked` is (B, L) bool."""
        length, device = masked.shape[1], plain.mask.device
        heads = gates.right.shape[1]
        super().__init__(plain.mask.expand(-1, heads, -1, -1).contiguous(), plain.shared)
        self.inside = plain.mask[..., -length:].float()  # (B, 1, L, L)
        self.right = torch.ones(length, length, device=device).triu(1)
        others = 1 - torch.eye(length, device=device)
        self.masked = masked[:, None, None, :] * others
        self.gates = gates

    def compute_gated_scores(self, layer: int) -> Tensor:
        """Return (B, heads, L, L), the scores inside the region."""
        right = self.gates.right[layer].float()[:, None, None] * self.right
        masked = self.gates.masked[layer].float()[:, None, None] * self.masked
        return self.inside + right + masked

    def get_layer_mask(self, layer: int) -> Tensor:
        self.mask[..., -self.right.shape[-1] :] = self.compute_gated_scores(layer)
        return self.mask


class KeyValueStore:
    """Passes the past to each layer's attention, and with `keep` collects keys and values.

    Attention reads a shared prefix separately (`find_shared_prefix`), so it is concatenated only
    for `keep`.
    """

    def __init__(self, past: KVCache | None, keep: bool) -> None:
        self.past = past
        self.keep = keep
        self.shared = find_shared_prefix(past)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def update(
        self, key: Tensor, value: Tensor, layer: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Return the keys and values for a layer. The transformers library calls this method.

        Its releases differ in the further arguments (rotary angles, flags), which are not used.
        """
        new = key, value
        if self.past is not None and (self.keep or self.shared is None):
            rows = (len(key), -1, -1, -1)
            key = torch.cat([self.past.keys[layer].expand(rows), key], 2)
            value = torch.cat([self.past.values[layer].expand(rows), value], 2)
        if self.keep:
            self.keys.append(key)
            self.values.append(value)
        return (key, value) if self.shared is None else new


def to_additive_mask(seen: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Convert a bool mask to additive attention scores: 0 if a key is `seen`, else -inf."""
    scores = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return scores.masked_fill_(~seen, MINUS_INF)


def find_shared_prefix(past: KVCache | None) -> KVCache | None:
    """Return `past` if attention can read it once for all rows instead of once for each row.

    This is done on CPUs only, where PyTorch's fused attention is far below the speed of matrix
    products. The decision must not depend on the number of rows, so that the result of a row does
    not depend on its batch.
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
    """The attention function that is registered with the transformers library."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    out = scores.attend(query, key, value, scaling, layer)
    return out.transpose(1, 2).contiguous(), None


def _attend_shared_prefix(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, past_key: Tensor, past_value: Tensor
) -> Tensor:
    """Attend to a past that all rows share and to each row's own tokens, by matrix products.

    `query` is (B, H, T, h), scaled; `key` and `value` (B, H_kv, T, h); `mask` (B, 1 or H, T, T) is
    added to the scores of own keys; `past_key` and `past_value` are (H_kv, C, h). Returns
    (B, H, T, h).
    """
    rows, heads, length, size = query.shape
    share = heads // key.shape[1]
    past_length = past_key.shape[1]
    mask = mask.expand(rows, heads, -1, -1)
    out = torch.empty_like(query)
    # The scores of one row and one key head fit into the processor's cache.
    for head in range(key.shape[1]):
        group = slice(head * share, (head + 1) * share)
        for row in range(rows):
            keys = torch.cat([past_key[head], key[row, head]])
            values = torch.cat([past_value[head], value[row, head]])
            scores = query[row, group].reshape(-1, size) @ keys.T
            scores.view(share, length, -1)[:, :, past_length:] += mask[row, group]
            out[row, group] = (scores.softmax(1) @ values).view(share, length, size)
    return out


def extend_cache(store: KeyValueStore, attention_mask: Tensor) -> KVCache:
    """Return the cache of the store's past and of the new tokens, whose mask is (B, T)."""
    if store.past is not None:
        attention_mask = torch.cat(
            [store.past.attention_mask.expand(len(attention_mask), -1), attention_mask], 1
        )
    return KVCache(tuple(store.keys), tuple(store.values), attention_mask)
