"""A Llama or Qwen model that reads tokens under explicit attention masks.

Knows token ids, padding, keys and values, and the ways of reading: by blocks (`read_blocks`, of
which left to right and both directions are the ends), left to right (`read`), and a gated region
that attends in both directions behind a left-to-right context (`read_region`). The layers are
those of the transformers library; only the attention call is ours. Memories are values: they are
never written to, so that one can be shared by many rows and calls. Token ids, `real` and `blocks`
may lie on any device; results lie on the model's. Knows nothing of prompts, traces, sampling or
scores, and holds no state between calls.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.func import functional_call
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from remask.models.backbone.attention import (
    ATTENTION,
    GatedScores,
    Gates,
    KeyValueStore,
    KVCache,
    Scores,
    additive,
    attend,
    grown,
    shared_prefix,
)
from remask.models.backbone.tokenizer import CHATML, Frame

Config = LlamaConfig | Qwen2Config | Qwen3Config
Model = LlamaForCausalLM | Qwen2ForCausalLM | Qwen3ForCausalLM

# Their layers take the same arguments and differ in biases and norms of queries and keys.
MODELS: dict[type[Config], Callable[[Any], Model]] = {
    LlamaConfig: LlamaForCausalLM,
    Qwen2Config: Qwen2ForCausalLM,
    Qwen3Config: Qwen3ForCausalLM,
}

# Under which name a layer takes its store. transformers 5.24 renamed `past_key_values`; the old
# name warns from then on and is announced to go in 5.40.
_LAYER_ARGUMENTS = inspect.signature(LlamaDecoderLayer.forward).parameters
STORE_ARGUMENT = "cache" if "cache" in _LAYER_ARGUMENTS else "past_key_values"


@dataclass(frozen=True, slots=True)
class Backbone:
    """Weights, tokenizer and chat frame of one frozen model.

    `identity` names them by content, with the numbers and the device in which they are computed;
    `content` without those. A model made of another one has its `content`.
    """

    model: Model = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    identity: str
    content: str = field(kw_only=True)
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

    def spare_id(self) -> int:
        """The first id behind those of all tokens; `size` or more where the model has no such."""
        return max(self.tokenizer.get_vocab().values()) + 1

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

    @torch.no_grad()
    def read(
        self, ids: Tensor, attention_mask: Tensor, past: KVCache | None = None
    ) -> tuple[Tensor, KVCache]:
        """Read left to right behind `past`.

        ids: (B, T) long. real: (B, T) bool, False at padding on either side. A past of one row
        is shared by all B rows. Positions of a row continue after its past's real length.
        Returns the hidden states (B, T, d), meaningless at padding, and the grown memory.
        """
        hidden, memory = self.read_blocks(ids, attention_mask, None, past, keep=True)
        assert memory is not None
        return hidden, memory

    @torch.no_grad()
    def read_hidden(
        self, ids: Tensor, attention_mask: Tensor, past: KVCache | None = None
    ) -> Tensor:
        """The hidden states of `read`, without the memory to keep its keys and values."""
        return self.read_blocks(ids, attention_mask, None, past)[0]

    @torch.no_grad()
    def read_blocks(
        self,
        ids: Tensor,
        attention_mask: Tensor,
        blocks: Tensor | None,
        past: KVCache | None = None,
        keep: bool = False,
    ) -> tuple[Tensor, KVCache | None]:
        """Read tokens that see their own block and those before it, and all of `past`.

        ids, blocks: (B, T) long; a query sees a key where blocks[key] <= blocks[query]. So
        position = left to right (as None), all 0 = both directions, position // size =
        block-causal.
        real: (B, T) bool, False at padding on either side; positions of a row count its real
        tokens and continue after its past's. A past of one row is shared by all B rows.
        Returns the hidden states (B, T, d), meaningless at padding, and with `keep` the grown
        memory. Keys and values of tokens that later ones would change are the caller's care.
        """
        ids, attention_mask, store = (
            ids.to(self.device),
            attention_mask.to(self.device),
            KeyValueStore(past, keep),
        )
        position = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
        seen = position if blocks is None else blocks.to(self.device)
        scores = self._scores(attention_mask, seen, past)
        if past is not None:
            position = position + past.attention_mask.sum(1, keepdim=True)
        hidden = self.layers(self.model.model.embed_tokens(ids), position, scores, store)
        return hidden, grown(store, attention_mask) if keep else None

    @torch.no_grad()
    def read_region(
        self, ids: Tensor, attention_mask: Tensor, masked: Tensor, past: KVCache, gates: Gates
    ) -> Tensor:
        """Read regions that attend in both directions inside and to all of their context.

        ids: (B, L) long. real, masked: (B, L) bool; padding on the right. `past` has one row or
        B rows. Returns the hidden states (B, L, d).
        """
        ids, attention_mask, masked = (
            tensor.to(self.device) for tensor in (ids, attention_mask, masked)
        )
        scores = GatedScores(
            self._scores(attention_mask, torch.zeros_like(ids), past), masked, gates
        )
        embedded, position = self.embed_region(ids, masked, past, gates)
        return self.layers(embedded, position, scores, KeyValueStore(past, keep=False))

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits (…, V) in float32 for hidden states (…, d)."""
        logits: Tensor = self.model.lm_head(hidden)
        return logits.float()

    def embed_region(
        self, ids: Tensor, masked: Tensor, past: KVCache, gates: Gates
    ) -> tuple[Tensor, Tensor]:
        """The embeddings (B, L, d) of regions, that of `gates` at masks, and the positions (B, L)
        behind `past`. Gradients flow to the gates."""
        start = past.attention_mask.sum(1, keepdim=True)
        position = (start + torch.arange(ids.shape[1], device=self.device)).expand(len(ids), -1)
        embedded = self.model.model.embed_tokens(ids)
        embedded = torch.where(masked[..., None], gates.embedding.to(embedded.dtype), embedded)
        return embedded, position

    def _scores(self, attention_mask: Tensor, blocks: Tensor, past: KVCache | None) -> Scores:
        """0 where a key may be seen, else minus infinity."""
        rows, length = attention_mask.shape
        seen = attention_mask[:, None, :] & (blocks[:, None, :] <= blocks[:, :, None])
        # A padded query sees itself: a row without any key would be NaN and spread.
        seen = seen | torch.eye(length, dtype=torch.bool, device=attention_mask.device)
        common = shared_prefix(past)
        if past is not None and common is None:
            before = past.attention_mask[:, None, :].expand(rows, length, -1)
            seen = torch.cat([before, seen], 2)
        return Scores(additive(seen, self.dtype)[:, None], common)

    def layers(
        self,
        embedded: Tensor,
        position: Tensor,
        scores: Scores,
        store: KeyValueStore,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The hidden states (B, T, d) for embeddings (B, T, d). `weights`: of the layers, by state
        name, in place of the model's own; gradients flow to them."""
        inner, hidden = self.model.model, embedded
        given = {
            "attention_mask": None,
            "position_embeddings": inner.rotary_emb(embedded, position_ids=position),
            STORE_ARGUMENT: store,
            "scores": scores,
        }
        for i, layer in enumerate(inner.layers):
            prefix = f"model.layers.{i}."
            own = {
                n.removeprefix(prefix): w
                for n, w in (weights or {}).items()
                if n.startswith(prefix)
            }
            hidden = (
                functional_call(layer, own, (hidden,), given) if own else layer(hidden, **given)
            )
        out: Tensor = inner.norm(hidden)
        return out


def skeleton(config: Config) -> Model:
    """A model without numbers: names and shapes of its weights."""
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
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
