"""A Llama or Qwen model that reads tokens under explicit attention masks.

Knows token ids, padding, keys and values, and the ways of reading: by blocks (`read_blocks`, of
which left to right and both directions are the ends), left to right (`read`), and a gated region
that attends in both directions behind a left-to-right context (`read_region`). The layers are
those of the transformers library; only the attention call is ours. Memories are values: they are
never written to, so that one can be shared by many rows and calls. Token ids, `real` and `blocks`
may lie on any device; results lie on the model's. Knows nothing of prompts, traces, sampling or
scores, and holds no state between calls.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from remask.backbone.chat import CHATML, Frame

Config = LlamaConfig | Qwen2Config | Qwen3Config
Model = LlamaForCausalLM | Qwen2ForCausalLM | Qwen3ForCausalLM

# Their layers take the same arguments and differ in biases and norms of queries and keys.
MODELS: dict[type[Config], Callable[[Any], Model]] = {
    LlamaConfig: LlamaForCausalLM,
    Qwen2Config: Qwen2ForCausalLM,
    Qwen3Config: Qwen3ForCausalLM,
}
ATTENTION = "remask_explicit"
MINUS_INF = float("-inf")


@dataclass(frozen=True, slots=True)
class Memory:
    """Keys and values that were read once; B is 1 where many rows will share them."""

    keys: tuple[Tensor, ...]  # per layer (B, H_kv, C, head size), already rotated
    values: tuple[Tensor, ...]  # the same shape
    real: Tensor  # (B, C) bool, False at padding

    def select(self, rows: Tensor) -> "Memory":
        """The memory of the given rows ((N,) indices, repeats allowed)."""
        return Memory(
            tuple(k[rows] for k in self.keys), tuple(v[rows] for v in self.values), self.real[rows]
        )


@dataclass(frozen=True, slots=True)
class Gates:
    """What bidirectional reading adds to a left-to-right model."""

    right: Tensor  # (layers, heads): added to attention scores of keys to the right
    masked: Tensor  # (layers, heads): added to attention scores of masked keys
    embedding: Tensor  # (d,): stands for a masked token


class _Scores:
    """Additive attention scores, the same tensor for every layer: (B, 1 or heads, T, C + T), or
    (B, 1 or heads, T, T) of the new tokens alone where all of them see all of a `common` past."""

    def __init__(self, mask: Tensor, common: Memory | None) -> None:
        self.mask = mask
        self.common = common

    def of_layer(self, layer: int) -> Tensor:
        return self.mask


class _GatedScores(_Scores):
    """The scores of a region: the gates of a layer fill the part that belongs to the region.

    One buffer serves all layers of one forward, since building the context part 30 times over
    costs more than the attention itself.
    """

    def __init__(self, plain: _Scores, masked: Tensor, gates: Gates, at: Tensor | None) -> None:
        """`at`: (B, n) long, the queries; None: all."""
        length = masked.shape[1]
        heads = gates.right.shape[1]
        mask = plain.mask
        right = torch.ones(length, length, device=mask.device).triu(1)
        others = 1 - torch.eye(length, device=mask.device)
        if at is not None:
            right, others = right[at][:, None], others[at][:, None]
            mask = mask.gather(2, at[:, None, :, None].expand(-1, 1, -1, mask.shape[-1]))
        super().__init__(mask.expand(-1, heads, -1, -1).contiguous(), plain.common)
        self.inside = mask[..., -length:].float()  # (B, 1, n, L)
        self.right = right
        self.masked = masked[:, None, None, :] * others
        self.gates = gates

    def of_layer(self, layer: int) -> Tensor:
        right = self.gates.right[layer].float()[None, :, None, None] * self.right
        masked = self.gates.masked[layer].float()[None, :, None, None] * self.masked
        self.mask[..., -self.right.shape[-1] :] = self.inside + right + masked
        return self.mask


class _Store:
    """Hands the past to each layer's attention and keeps what it grows to, if asked.

    A common past goes there by itself (`_common`), so it is joined only where it is kept.
    """

    def __init__(self, past: Memory | None, keep: bool) -> None:
        self.past = past
        self.keep = keep
        self.common = _common(past)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Called by the attention layer; the name is the transformers library's."""
        whole = key, value
        if self.past is not None and (self.keep or self.common is None):
            rows = (len(key), -1, -1, -1)
            key = torch.cat([self.past.keys[layer].expand(rows), key], 2)
            value = torch.cat([self.past.values[layer].expand(rows), value], 2)
        if self.keep:
            self.keys.append(key)
            self.values.append(value)
        return (key, value) if self.common is None else whole


class _Kept(_Store):
    """… and keeps the new keys and values without those of the past."""

    def __init__(self, past: Memory) -> None:
        super().__init__(past, keep=False)

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        self.keys.append(key)
        self.values.append(value)
        return super().update(key, value, layer)


class _Patches(_Store):
    """… for some tokens of regions whose keys and values were kept: new ones replace theirs."""

    def __init__(self, past: Memory, kept: Memory, at: Tensor) -> None:
        super().__init__(past, keep=False)
        self.kept = kept
        self.at = at[:, None, :, None]

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        at = self.at.expand_as(key)
        key = self.kept.keys[layer].scatter(2, at, key)
        value = self.kept.values[layer].scatter(2, at, value)
        return super().update(key, value, layer)


def _common(past: Memory | None) -> Memory | None:
    """`past`, where attention reads it once for all rows instead of once for each.

    On CPUs, where PyTorch's fused attention multiplies far below the processor's rate. Whether
    there is one row or many must not matter: a row's result should not depend on its batch.
    """
    if past is None or len(past.real) > 1 or past.real.device.type != "cpu":
        return None
    return past if bool(past.real.all()) else None


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scores: _Scores,
    scaling: float,
    **_: object,  # the library also passes dropout and position ids
) -> tuple[Tensor, None]:
    layer: int = module.layer_idx  # type: ignore[assignment]
    mask, common = scores.of_layer(layer), scores.common
    if common is None:
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scaling, enable_gqa=True
        )
    else:
        past = common.keys[layer][0], common.values[layer][0]
        out = _attend_common(query * scaling, key, value, mask, *past)
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


@dataclass(frozen=True, slots=True)
class Backbone:
    """Weights, tokenizer and chat frame of one frozen model; `identity` names them by content."""

    model: Model = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    identity: str
    frame: Frame = field(default=CHATML, kw_only=True)

    # -- text ---------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Token ids of untrusted text: "<|im_end|>" in it stays five ordinary tokens."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids and the half-open character range of each in `text`."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; special tokens leave no trace."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def token_id(self, name: str) -> int:
        """The id of a special token such as "<|im_end|>"."""
        found = self.tokenizer.token_to_id(name)
        if found is None:
            raise KeyError(name)
        return int(found)

    def turn(self, role: str, text: str) -> list[int]:
        """One complete chat turn. Only its frame holds special tokens."""
        frame = self.frame
        return [*self._head(role, text), self.token_id(frame.end), *self.encode(frame.after)]

    def opening(self, role: str) -> list[int]:
        """The beginning of a turn that the model is to write."""
        return self._head(role, "")

    def beginning(self) -> list[int]:
        """What stands before the first turn of a chat; nothing in ChatML."""
        return [self.token_id(self.frame.first)] if self.frame.first else []

    def _head(self, role: str, text: str) -> list[int]:
        frame = self.frame
        start = self.token_id(frame.start)
        if not frame.middle:
            return [start, *self.encode(f"{role}{frame.gap}{text}")]
        middle = self.token_id(frame.middle)
        return [start, *self.encode(role), middle, *self.encode(f"{frame.gap}{text}")]

    def added_tokens(self) -> dict[str, int]:
        """Names and ids of all tokens beside the ordinary vocabulary."""
        added = self.tokenizer.get_added_tokens_decoder()
        return {token.content: int(i) for i, token in added.items()}

    # -- numbers ------------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.lm_head.weight.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.lm_head.weight.device
        return device

    @property
    def size(self) -> int:
        """Tokens that get a logit; often more than the tokenizer knows."""
        return int(self.model.config.vocab_size)

    @property
    def window(self) -> int:
        """Most tokens that the model can read at once."""
        return int(self.model.config.max_position_embeddings)

    def with_weights(self, updates: Mapping[str, Tensor], identity: str) -> "Backbone":
        """A model that shares all weights with this one except `updates` (by state name)."""
        state = dict(self.model.state_dict())
        if unknown := sorted(set(updates) - set(state)):
            raise KeyError(f"not weights of this model: {unknown[:3]}")
        config = type(self.model.config).from_dict(self.model.config.to_dict())
        return replace(self, model=build(config, {**state, **updates}), identity=identity)

    @torch.inference_mode()
    def read(self, ids: Tensor, real: Tensor, past: Memory | None = None) -> tuple[Tensor, Memory]:
        """Read left to right behind `past`.

        ids: (B, T) long. real: (B, T) bool, False at padding on either side. A past of one row
        is shared by all B rows. Positions of a row continue after its past's real length.
        Returns the hidden states (B, T, d), meaningless at padding, and the grown memory.
        """
        store = _Store(past, keep=True)
        hidden = self._read(ids, real, None, past, store)
        return hidden, _grown(store, real.to(self.device))

    @torch.inference_mode()
    def read_hidden(self, ids: Tensor, real: Tensor, past: Memory | None = None) -> Tensor:
        """The hidden states of `read`, without the memory to keep its keys and values."""
        return self._read(ids, real, None, past, _Store(past, keep=False))

    @torch.inference_mode()
    def read_blocks(
        self,
        ids: Tensor,
        real: Tensor,
        blocks: Tensor,
        past: Memory | None = None,
        keep: bool = False,
    ) -> tuple[Tensor, Memory | None]:
        """Read tokens that see their own block and those before it, and all of `past`.

        ids, blocks: (B, T) long; a query sees a key where blocks[key] <= blocks[query]. So
        position = left to right, all 0 = both directions, position // size = block-causal.
        real: (B, T) bool, False at padding on either side; positions of a row count its real
        tokens and continue after its past's. A past of one row is shared by all B rows.
        Returns the hidden states (B, T, d), meaningless at padding, and with `keep` the grown
        memory. Keys and values of tokens that later ones would change are the caller's care.
        """
        store = _Store(past, keep)
        hidden = self._read(ids, real, blocks.to(self.device), past, store)
        return hidden, _grown(store, real.to(self.device)) if keep else None

    @torch.inference_mode()
    def read_region(
        self, ids: Tensor, real: Tensor, masked: Tensor, past: Memory, gates: Gates
    ) -> Tensor:
        """Read regions that attend in both directions inside and to all of their context.

        ids: (B, L) long. real, masked: (B, L) bool; padding on the right. `past` has one row or
        B rows. Returns the hidden states (B, L, d).
        """
        return self._region(ids, real, masked, past, gates, _Store(past, keep=False), None)

    @torch.inference_mode()
    def keep_region(
        self, ids: Tensor, real: Tensor, masked: Tensor, past: Memory, gates: Gates
    ) -> tuple[Tensor, Memory]:
        """As `read_region`, with the keys and values of the regions alone."""
        store = _Kept(past)
        hidden = self._region(ids, real, masked, past, gates, store, None)
        return hidden, Memory(tuple(store.keys), tuple(store.values), real.to(self.device))

    @torch.inference_mode()
    def patch_region(
        self,
        ids: Tensor,
        real: Tensor,
        masked: Tensor,
        past: Memory,
        gates: Gates,
        kept: Memory,
        at: Tensor,
    ) -> Tensor:
        """As `read_region` for the tokens `at` ((B, n) long) of each region alone, which see the
        others as they were `kept`. Returns their hidden states (B, n, d)."""
        at = at.to(self.device)
        return self._region(ids, real, masked, past, gates, _Patches(past, kept, at), at)

    def _region(
        self,
        ids: Tensor,
        real: Tensor,
        masked: Tensor,
        past: Memory,
        gates: Gates,
        store: _Store,
        at: Tensor | None,
    ) -> Tensor:
        ids, real, masked = (tensor.to(self.device) for tensor in (ids, real, masked))
        plain = self._scores(real, torch.zeros_like(ids), past)
        scores = _GatedScores(plain, masked, gates, at)
        start = past.real.sum(1, keepdim=True)
        position = (start + torch.arange(ids.shape[1], device=self.device)).expand(len(ids), -1)
        if at is not None:
            ids, masked, position = (x.gather(1, at) for x in (ids, masked, position))
        embedded = self.model.model.embed_tokens(ids)
        embedded = torch.where(masked[..., None], gates.embedding.to(embedded.dtype), embedded)
        return self._layers(embedded, position, scores, store)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits (…, V) in float32 for hidden states (…, d)."""
        logits: Tensor = self.model.lm_head(hidden)
        return logits.float()

    def _read(
        self,
        ids: Tensor,
        real: Tensor,
        blocks: Tensor | None,  # None: left to right
        past: Memory | None,
        store: _Store,
    ) -> Tensor:
        ids, real = ids.to(self.device), real.to(self.device)
        position = (real.long().cumsum(1) - 1).clamp(min=0)
        scores = self._scores(real, position if blocks is None else blocks, past)
        if past is not None:
            position = position + past.real.sum(1, keepdim=True)
        return self._layers(self.model.model.embed_tokens(ids), position, scores, store)

    def _scores(self, real: Tensor, blocks: Tensor, past: Memory | None) -> _Scores:
        """0 where a key may be seen, else minus infinity."""
        rows, length = real.shape
        seen = real[:, None, :] & (blocks[:, None, :] <= blocks[:, :, None])
        # A padded query sees itself: a row without any key would be NaN and spread.
        seen = seen | torch.eye(length, dtype=torch.bool, device=real.device)
        common = _common(past)
        if past is not None and common is None:
            before = past.real[:, None, :].expand(rows, length, -1)
            seen = torch.cat([before, seen], 2)
        scores = torch.zeros(seen.shape, dtype=self.dtype, device=real.device)
        return _Scores(scores.masked_fill_(~seen, MINUS_INF)[:, None], common)

    def _layers(self, embedded: Tensor, position: Tensor, scores: _Scores, store: _Store) -> Tensor:
        inner = self.model.model
        rotary = inner.rotary_emb(embedded, position_ids=position)
        hidden = embedded
        for layer in inner.layers:
            hidden = layer(
                hidden,
                attention_mask=None,
                position_embeddings=rotary,
                past_key_values=store,
                scores=scores,
            )
        out: Tensor = inner.norm(hidden)
        return out


def _grown(store: _Store, real: Tensor) -> Memory:
    """What a store kept of its past and of (B, T) tokens of which `real` are no padding."""
    if store.past is not None:
        real = torch.cat([store.past.real.expand(len(real), -1), real], 1)
    return Memory(tuple(store.keys), tuple(store.values), real)


def skeleton(config: Config) -> Model:
    """A model without numbers: names and shapes of its weights."""
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attend)
    config._attn_implementation = ATTENTION
    with torch.device("meta"):
        return MODELS[type(config)](config)


def build(config: Config, state: Mapping[str, Tensor]) -> Model:
    """A frozen model around the tensors of `state`, which it does not copy.

    `state` may leave out "lm_head.weight" where it is tied to the embedding.
    """
    model = skeleton(config)
    embedding = state["model.embed_tokens.weight"]
    full: dict[str, Any] = {"lm_head.weight": embedding, **state}
    model.load_state_dict(full, assign=True)
    # Its buffer is not part of a state.
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(embedding.device)
    model.requires_grad_(False)
    model.train(False)
    return model
