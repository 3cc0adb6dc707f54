"""A Llama model that reads tokens under explicit attention masks.

Knows token ids, padding, keys and values, and the two ways of reading: left to right (`read`) and
a region that attends in both directions behind a left-to-right context (`read_region`). The layers
are those of the transformers library; only the attention call is ours. Memories are values: they
are never written to, so that one can be shared by many rows and calls. Knows nothing of prompts,
traces, sampling or scores, and holds no state between calls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

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
    """Additive attention scores (B, 1 or heads, T, C + T), the same tensor for every layer."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def of_layer(self, layer: int) -> Tensor:
        return self.mask


class _GatedScores(_Scores):
    """The scores of a region: the gates of a layer fill the part that belongs to the region.

    One buffer serves all layers of one forward, since building the context part 30 times over
    costs more than the attention itself.
    """

    def __init__(self, mask: Tensor, masked: Tensor, gates: Gates) -> None:
        length = masked.shape[1]
        heads = gates.right.shape[1]
        super().__init__(mask.expand(-1, heads, -1, -1).contiguous())
        self.inside = mask[..., -length:].float()  # (B, 1, L, L)
        one = torch.ones(length, length)
        self.right = one.triu(1)
        self.masked = masked[:, None, None, :] * (1 - torch.eye(length))
        self.gates = gates

    def of_layer(self, layer: int) -> Tensor:
        right = self.gates.right[layer].float()[None, :, None, None] * self.right
        masked = self.gates.masked[layer].float()[None, :, None, None] * self.masked
        self.mask[..., -self.right.shape[0] :] = self.inside + right + masked
        return self.mask


class _Store:
    """Hands the past to each layer's attention and keeps what it grows to, if asked."""

    def __init__(self, past: Memory | None, keep: bool) -> None:
        self.past = past
        self.keep = keep
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Called by the attention layer; the name is the transformers library's."""
        if self.past is not None:
            rows = (len(key), -1, -1, -1)
            key = torch.cat([self.past.keys[layer].expand(rows), key], 2)
            value = torch.cat([self.past.values[layer].expand(rows), value], 2)
        if self.keep:
            self.keys.append(key)
            self.values.append(value)
        return key, value


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
    out = F.scaled_dot_product_attention(
        query, key, value, attn_mask=scores.of_layer(layer), scale=scaling, enable_gqa=True
    )
    return out.transpose(1, 2).contiguous(), None


@dataclass(frozen=True, slots=True)
class Backbone:
    """Weights and tokenizer of one frozen model. `identity` names both by content."""

    model: LlamaForCausalLM = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    identity: str

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
        """One complete chat turn (ChatML). Only its frame holds special tokens."""
        start, end = self.token_id("<|im_start|>"), self.token_id("<|im_end|>")
        return [start, *self.encode(f"{role}\n{text}"), end, *self.encode("\n")]

    def opening(self, role: str) -> list[int]:
        """The beginning of a turn that the model is to write."""
        return [self.token_id("<|im_start|>"), *self.encode(f"{role}\n")]

    # -- numbers ------------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.lm_head.weight.dtype
        return dtype

    @property
    def window(self) -> int:
        """Most tokens that the model can read at once."""
        return int(self.model.config.max_position_embeddings)

    def with_weights(self, updates: Mapping[str, Tensor], identity: str) -> "Backbone":
        """A model that shares all weights with this one except `updates` (by state name)."""
        state = dict(self.model.state_dict())
        if unknown := sorted(set(updates) - set(state)):
            raise KeyError(f"not weights of this model: {unknown[:3]}")
        config = LlamaConfig.from_dict(self.model.config.to_dict())
        return Backbone(build(config, {**state, **updates}), self.tokenizer, identity)

    @torch.inference_mode()
    def read(self, ids: Tensor, real: Tensor, past: Memory | None = None) -> tuple[Tensor, Memory]:
        """Read left to right behind `past`.

        ids: (B, T) long. real: (B, T) bool, False at padding on either side. A past of one row
        is shared by all B rows. Positions of a row continue after its past's real length.
        Returns the hidden states (B, T, d), meaningless at padding, and the grown memory.
        """
        store = _Store(past, keep=True)
        hidden = self._left_to_right(ids, real, past, store)
        seen = real if past is None else torch.cat([past.real.expand(len(ids), -1), real], 1)
        return hidden, Memory(tuple(store.keys), tuple(store.values), seen)

    @torch.inference_mode()
    def read_hidden(self, ids: Tensor, real: Tensor, past: Memory | None = None) -> Tensor:
        """The hidden states of `read`, without the memory to keep its keys and values."""
        return self._left_to_right(ids, real, past, _Store(past, keep=False))

    @torch.inference_mode()
    def read_region(
        self, ids: Tensor, real: Tensor, masked: Tensor, past: Memory, gates: Gates
    ) -> Tensor:
        """Read regions that attend in both directions inside and to all of their context.

        ids: (B, L) long. real, masked: (B, L) bool; padding on the right. `past` has one row or
        B rows. Returns the hidden states (B, L, d).
        """
        scores = _GatedScores(self._mask(real, past, causal=False), masked, gates)
        embedded = self.model.model.embed_tokens(ids)
        embedded = torch.where(masked[..., None], gates.embedding.to(embedded.dtype), embedded)
        start = past.real.sum(1, keepdim=True)
        position = (start + torch.arange(ids.shape[1])).expand(len(ids), -1)
        return self._layers(embedded, position, scores, _Store(past, keep=False))

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits (…, V) in float32 for hidden states (…, d)."""
        logits: Tensor = self.model.lm_head(hidden)
        return logits.float()

    def _left_to_right(
        self, ids: Tensor, real: Tensor, past: Memory | None, store: _Store
    ) -> Tensor:
        position = (real.long().cumsum(1) - 1).clamp(min=0)
        if past is not None:
            position = position + past.real.sum(1, keepdim=True)
        scores = _Scores(self._mask(real, past, causal=True))
        return self._layers(self.model.model.embed_tokens(ids), position, scores, store)

    def _mask(self, real: Tensor, past: Memory | None, causal: bool) -> Tensor:
        """Additive (B, 1, T, C + T): 0 where a key may be seen."""
        rows, length = real.shape
        seen = real[:, None, :].expand(rows, length, length)
        if causal:
            seen = seen & torch.ones(length, length, dtype=torch.bool).tril()
        # A padded query sees itself: a row without any key would be NaN and spread.
        seen = seen | torch.eye(length, dtype=torch.bool)
        if past is not None:
            before = past.real[:, None, :].expand(rows, length, -1)
            seen = torch.cat([before, seen], 2)
        return torch.zeros(seen.shape, dtype=self.dtype).masked_fill_(~seen, MINUS_INF)[:, None]

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


def build(config: LlamaConfig, state: Mapping[str, Tensor]) -> LlamaForCausalLM:
    """A frozen model around the tensors of `state`, which it does not copy.

    `state` may leave out "lm_head.weight" where it is tied to the embedding.
    """
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attend)
    config._attn_implementation = ATTENTION
    with torch.device("meta"):
        model: LlamaForCausalLM = LlamaForCausalLM(config)
    full: dict[str, Any] = {"lm_head.weight": state["model.embed_tokens.weight"], **state}
    model.load_state_dict(full, assign=True)
    model.model.rotary_emb = LlamaRotaryEmbedding(config)  # its buffer is not part of a state
    model.requires_grad_(False)
    model.train(False)
    return model
