"""A model with the layers of Llama, Qwen or GLM that reads tokens under explicit attention masks.

There are three ways to read: by blocks (`read_blocks`, which includes left to right and both
directions), left to right (`read`), and a gated region that attends in both directions after a
left-to-right context (`read_region`). The layers are those of the transformers library; only the
attention function is ours. A KVCache is never modified, so many rows and calls can share it. Token
ids, `attention_mask` and `blocks` may be on any device; results are on the model's device. There is
no state between calls.
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
    Glm4MoeConfig,
    Glm4MoeForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
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
    attend,
    extend_cache,
    find_shared_prefix,
    to_additive_mask,
)
from remask.models.backbone.tokenizer import CHATML, Frame

Config = LlamaConfig | Qwen2Config | Qwen3Config | Qwen3MoeConfig | Glm4MoeConfig
Model = LlamaForCausalLM | Qwen2ForCausalLM | Qwen3ForCausalLM | Qwen3MoeForCausalLM | Glm4MoeForCausalLM

# The layers of these models take the same arguments. They differ in biases, in norms of queries and
# keys, and the last two have mixtures of experts.
MODELS: dict[type[Any], Callable[[Any], Any]] = {
    LlamaConfig: LlamaForCausalLM,
    Qwen2Config: Qwen2ForCausalLM,
    Qwen3Config: Qwen3ForCausalLM,
    Qwen3MoeConfig: Qwen3MoeForCausalLM,
    Glm4MoeConfig: Glm4MoeForCausalLM,
}

HEAD, EMBEDDING = "lm_head.weight", "embed_tokens.weight"  # the second is the end of a name

# The name of the cache argument of a layer. transformers 5.24 renamed `past_key_values`; the old
# name is deprecated since then and will be removed in 5.40.
_LAYER_ARGUMENTS = inspect.signature(LlamaDecoderLayer.forward).parameters
STORE_ARGUMENT = "cache" if "cache" in _LAYER_ARGUMENTS else "past_key_values"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Backbone:
    """Weights, tokenizer and chat frame of one frozen model.

    `identity` contains a hash of their content, and the dtype and device of the computation;
    `content` leaves these two out. A model made by `with_weights` keeps its `content`.
    """

    model: Model = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    identity: str
    content: str = field(kw_only=True)
    frame: Frame = field(default=CHATML, kw_only=True)

    # -- text ---------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Encode untrusted text: "<|im_end|>" in it becomes five ordinary tokens."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Encode untrusted text; also return the character range [start, stop) of each token."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def decode(self, ids: Sequence[int]) -> str:
        """Decode `ids` to text, without special tokens."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def token_id(self, name: str) -> int:
        """Return the id of a special token such as "<|im_end|>". Raises KeyError."""
        found = self.tokenizer.token_to_id(name)
        if found is None:
            raise KeyError(name)
        return int(found)

    def encode_turn(self, role: str, text: str) -> list[int]:
        """Encode one complete chat turn. Only its frame contains special tokens."""
        frame = self.frame
        return [*self.encode_opening(role, text), self.token_id(frame.end), *self.encode(frame.after)]

    def encode_opening(self, role: str, text: str = "") -> list[int]:
        """Encode the beginning of a turn that the model continues."""
        frame = self.frame
        role = dict(frame.roles).get(role, role)
        start = self.token_id(frame.start)
        if not frame.middle:
            return [start, *self.encode(f"{role}{frame.gap}{text}")]
        middle = self.token_id(frame.middle)
        return [start, *self.encode(role), middle, *self.encode(f"{frame.gap}{text}")]

    def encode_start(self) -> list[int]:
        """Encode the token before the first turn of a chat; nothing in ChatML."""
        return [self.token_id(self.frame.first)] if self.frame.first else []

    def list_added_tokens(self) -> dict[str, int]:
        """Return the names and ids of all tokens that were added to the ordinary vocabulary."""
        added = self.tokenizer.get_added_tokens_decoder()
        return {token.content: int(i) for i, token in added.items()}

    def find_unused_id(self) -> int:
        """Return the first id after those of all tokens; `vocab_size` or more if there is none."""
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
    def vocab_size(self) -> int:
        """Number of logits; often larger than the number of the tokenizer's tokens."""
        return int(self.model.config.vocab_size)

    @property
    def context_length(self) -> int:
        """Largest number of tokens that the model can read at once."""
        config: Any = self.model.config
        rope = config.rope_parameters
        # From this position on, such a model scales its queries, which Llama's layers do not.
        scaled = "llama_4_scaling_beta" in rope
        limit = rope["original_max_position_embeddings"] if scaled else config.max_position_embeddings
        return int(limit)

    def with_weights(self, updates: Mapping[str, Tensor], identity: str) -> "Backbone":
        """Make a model that shares all weights with this one except `updates` (by state name).

        Raises KeyError for unknown names.
        """
        state = dict(self.model.state_dict())
        if unknown := sorted(set(updates) - set(state)):
            raise KeyError(f"not weights of this model: {unknown[:3]}")
        config = type(self.model.config).from_dict(self.model.config.to_dict())
        return replace(self, model=build_model(config, {**state, **updates}), identity=identity)

    @torch.no_grad()
    def read(
        self, ids: Tensor, attention_mask: Tensor, past: KVCache | None = None
    ) -> tuple[Tensor, KVCache]:
        """Read left to right after `past`.

        `ids` is (B, T) long; `attention_mask` (B, T) bool, False at padding on either side. A past
        of one row is shared by all B rows. The positions of a row continue after the unpadded
        length of its past. Returns the hidden states (B, T, d), undefined at padding, and the cache
        of past and ids.
        """
        hidden, cache = self.read_blocks(ids, attention_mask, None, past, keep=True)
        assert cache is not None
        return hidden, cache

    @torch.no_grad()
    def read_hidden(self, ids: Tensor, attention_mask: Tensor, past: KVCache | None = None) -> Tensor:
        """Return the hidden states of `read` without keeping keys and values."""
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
        """Read tokens that see their own block, the blocks before it, and all of `past`.

        `ids` and `blocks` are (B, T) long. A query sees a key if blocks[key] <= blocks[query]:

            blocks = position (or None)    left to right
            blocks = 0                     both directions
            blocks = position // size      block-causal

        `attention_mask` is (B, T) bool, False at padding on either side. Positions of a row count
        its unpadded tokens and continue after those of its past. A past of one row is shared by all
        B rows. Returns the hidden states (B, T, d), undefined at padding, and with `keep` the cache
        of past and ids. A cached token must not depend on tokens that are read later; the caller
        must make sure of that.
        """
        ids, attention_mask = ids.to(self.device), attention_mask.to(self.device)
        store = KeyValueStore(past, keep)
        position = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
        number = position if blocks is None else blocks.to(self.device)
        scores = self._make_scores(attention_mask, number, past)
        if past is not None:
            position = position + past.attention_mask.sum(1, keepdim=True)
        hidden = self.run_layers(self.model.model.embed_tokens(ids), position, scores, store)
        return hidden, extend_cache(store, attention_mask) if keep else None

    @torch.no_grad()
    def read_region(
        self, ids: Tensor, attention_mask: Tensor, masked: Tensor, past: KVCache, gates: Gates
    ) -> Tensor:
        """Read regions that attend in both directions inside, and to their whole context.

        `ids` is (B, L) long, padded on the right; `attention_mask` and `masked` are (B, L) bool.
        `past` has one row or B rows. Returns the hidden states (B, L, d).
        """
        tensors = (ids, attention_mask, masked)
        ids, attention_mask, masked = (tensor.to(self.device) for tensor in tensors)
        plain = self._make_scores(attention_mask, torch.zeros_like(ids), past)
        scores = GatedScores(plain, masked, gates)
        embedded, position = self.embed_region(ids, masked, past, gates)
        return self.run_layers(embedded, position, scores, KeyValueStore(past, keep=False))

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Return next-token logits (…, V) in float32 for hidden states (…, d)."""
        logits: Tensor = self.model.lm_head(hidden)
        return logits.float()

    def embed_region(self, ids: Tensor, masked: Tensor, past: KVCache, gates: Gates) -> tuple[Tensor, Tensor]:
        """Return the embeddings (B, L, d) of regions, with that of `gates` at masks, and the
        positions (B, L) after `past`. Gradients flow to the gates."""
        start = past.attention_mask.sum(1, keepdim=True)
        position = (start + torch.arange(ids.shape[1], device=self.device)).expand(len(ids), -1)
        embedded = self.model.model.embed_tokens(ids)
        embedded = torch.where(masked[..., None], gates.embedding.to(embedded.dtype), embedded)
        return embedded, position

    def _make_scores(self, attention_mask: Tensor, blocks: Tensor, past: KVCache | None) -> Scores:
        """Return scores that are 0 if a query sees a key, else -inf."""
        rows, length = attention_mask.shape
        seen = attention_mask[:, None, :] & (blocks[:, None, :] <= blocks[:, :, None])
        # A padded query sees itself, since a query without any key would be NaN and spread.
        seen = seen | torch.eye(length, dtype=torch.bool, device=attention_mask.device)
        shared = find_shared_prefix(past)
        if past is not None and shared is None:
            before = past.attention_mask[:, None, :].expand(rows, length, -1)
            seen = torch.cat([before, seen], 2)
        return Scores(to_additive_mask(seen, self.dtype)[:, None], shared)

    def run_layers(
        self,
        embedded: Tensor,
        position: Tensor,
        scores: Scores,
        store: KeyValueStore,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the hidden states (B, T, d) for embeddings (B, T, d).

        `weights` replace those of the layers, by state name; gradients flow to them.
        """
        inner, hidden = self.model.model, embedded
        arguments = {
            "attention_mask": None,
            "position_embeddings": inner.rotary_emb(embedded, position_ids=position),
            STORE_ARGUMENT: store,
            "scores": scores,
        }
        for i, layer in enumerate(inner.layers):
            prefix = f"model.layers.{i}."
            own = {n.removeprefix(prefix): w for n, w in (weights or {}).items() if n.startswith(prefix)}
            hidden = functional_call(layer, own, (hidden,), arguments) if own else layer(hidden, **arguments)
        out: Tensor = inner.norm(hidden)
        return out


def pad_rows(rows: Sequence[Sequence[int]], pad: int, left: bool = False) -> tuple[Tensor, Tensor]:
    """Pad rows of unequal length to ids (N, L) and an attention mask (N, L).

    Padding goes on the right, or with `left` on the left.
    """
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    attention_mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        columns = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, columns], attention_mask[i, columns] = torch.tensor(row), True
    return ids, attention_mask


def make_skeleton(config: Config) -> Model:
    """Make a model on the meta device, with the names and shapes of its weights but no values."""
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
    config._attn_implementation = ATTENTION
    with torch.device("meta"):
        model: Model = MODELS[type(config)](config)
        return model


def build_model(config: Config, state: Mapping[str, Tensor]) -> Model:
    """Build a frozen model around the tensors of `state`, without copying them.

    `state` may leave out "lm_head.weight" if it is tied to the embedding.
    """
    model = make_skeleton(config)
    embedding = next(tensor for name, tensor in state.items() if name.endswith(EMBEDDING))
    full: dict[str, Any] = {HEAD: embedding, **state}
    model.load_state_dict(full, assign=True)
    # Buffers that are not part of a state are created here.
    for module in model.modules():
        if hasattr(module, "rotary_emb"):
            rotary: Any = module.rotary_emb
            module.rotary_emb = type(rotary)(rotary.config).to(embedding.device)
        if hasattr(module, "scalar_embed_scale"):
            module.embed_scale = torch.tensor(module.scalar_embed_scale, device=embedding.device)
    model.requires_grad_(False)
    model.train(False)
    return model
