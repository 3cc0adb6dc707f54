"""DiffusionGemma without its vision tower: a context is read left to right, then a canvas.

The layers are those of the transformers library; the masks and the keys and values are ours. One
stack of layers reads both: an encoder reads the context left to right, and a decoder reads the
canvas, in which every token sees every other token and the context. The two differ in one number
per layer. In some layers a token of the context sees only the tokens that are near, and the canvas
only the end of the context.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from transformers import DiffusionGemmaConfig, DiffusionGemmaTextConfig
from transformers.models.diffusion_gemma.modeling_diffusion_gemma import DiffusionGemmaDecoderModel

from remask.errors import BackendError
from remask.models.backbone.attention import KVCache, Scores, to_additive_mask
from remask.models.backbone.transformer import MODELS, Backbone

SLIDING = "sliding_attention"
MAX_SIZE = 1 << 22  # larger numbers would take hours before the weights are compared with them
REQUIRED = ("num_experts", "top_k_experts", "moe_intermediate_size")
COUNTS = (  # the library has a value for those that are missing and not required
    *REQUIRED,
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "sliding_window", "max_position_embeddings"),
)


def read_text_config(settings: dict[str, Any], place: str) -> DiffusionGemmaTextConfig:
    """Convert the part of config.json that is about text. Raises BackendError."""
    text = settings.get("text_config")
    if not isinstance(text, dict):
        raise BackendError(f"{place}: config.json has no text_config")
    tied = settings.get("tie_word_embeddings", True) and text.get("tie_word_embeddings", True)
    if not tied or text.get("use_bidirectional_attention") == "all":
        raise BackendError(
            f"{place}: config.json has encoder and decoder with weights of their own, or an encoder that "
            "reads in both directions, which remask does not read"
        )
    for key in COUNTS:
        if key not in text and key not in REQUIRED:
            continue
        if type(text.get(key)) is not int or not 0 < text[key] <= MAX_SIZE:
            raise BackendError(
                f"{place}: text_config of config.json has {key} = {text.get(key)!r}; it must be a positive "
                f"whole number up to {MAX_SIZE}"
            )
    try:
        return DiffusionGemmaTextConfig(**text)
    except Exception as error:  # the library has exceptions of its own for each kind of wrong value
        first = str(error).strip().partition("\n")[0]
        raise BackendError(f"{place}: text_config of config.json cannot be read ({first})") from error


class _EncoderLayer(nn.Module):
    """The only weight of the encoder that the decoder does not share."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("layer_scalar", torch.ones(1))


class DiffusionGemmaText(nn.Module):
    """The weights of decoder, encoder and head, by the names that checkpoints give them."""

    def __init__(self, config: DiffusionGemmaTextConfig) -> None:
        super().__init__()
        self.config = config
        attention = config._attn_implementation  # which the next line would reset
        whole = DiffusionGemmaConfig(text_config=config)
        whole._attn_implementation = attention
        self.model = nn.Module()
        self.model.decoder = DiffusionGemmaDecoderModel(whole)
        self.model.encoder = nn.Module()
        self.model.encoder.language_model = nn.Module()
        layers = [_EncoderLayer() for _ in range(config.num_hidden_layers)]
        self.model.encoder.language_model.layers = nn.ModuleList(layers)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        config._experts_implementation = whole._experts_implementation  # which the library chose


MODELS[DiffusionGemmaTextConfig] = DiffusionGemmaText


class _CachingScores(Scores):
    """Attention to a past and to the new tokens, with a mask for each type of layer.

    It also collects the keys and values of the new tokens, if there is to be a cache.
    """

    def __init__(self, masks: dict[str, Tensor], types: list[str], past: KVCache | None) -> None:
        """`masks` are (B, 1, T, C + T)."""
        self.masks = masks
        self.types = types
        self.past = past
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, layer: int) -> Tensor:
        if self.past is not None:
            rows = (len(key), -1, -1, -1)
            key = torch.cat([self.past.keys[layer].expand(rows), key], 2)
            value = torch.cat([self.past.values[layer].expand(rows), value], 2)
        self.keys.append(key)
        self.values.append(value)
        mask = self.masks[self.types[layer]]
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=True)


@dataclass(frozen=True, slots=True)
class DiffusionGemmaBackbone(Backbone):
    """Weights, tokenizer and chat frame of one DiffusionGemma."""

    @property
    def _config(self) -> Any:
        return self.model.config

    @torch.no_grad()
    def read_blocks(
        self,
        ids: Tensor,
        attention_mask: Tensor,
        blocks: Tensor | None,
        past: KVCache | None = None,
        keep: bool = False,
    ) -> tuple[Tensor, KVCache | None]:
        """Read a context (1, T) left to right after `past`; `blocks` must be its positions, or None."""
        ids, attention_mask = ids.to(self.device), attention_mask.to(self.device)
        seen = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=self.device).tril()
        start = 0
        if past is not None:
            start = past.attention_mask.shape[1]
            seen = torch.cat([seen.new_ones(len(seen), start), seen], 1)
        position = torch.arange(start, start + ids.shape[1], device=self.device)[None]
        distance = position[0][:, None] - torch.arange(seen.shape[1], device=self.device)
        near = seen & (distance < self._config.sliding_window)
        decoder = self.model.model.decoder
        scalars = [layer.layer_scalar for layer in self.model.model.encoder.language_model.layers]
        hidden, scores = self._run(decoder.embed_tokens(ids), position, seen, near, past, scalars)
        mask = attention_mask if past is None else torch.cat([past.attention_mask, attention_mask], 1)
        cache = KVCache(tuple(scores.keys), tuple(scores.values), mask) if keep else None
        return hidden, cache

    @torch.no_grad()
    def read_canvas(
        self, ids: Tensor, attention_mask: Tensor, past: KVCache | None, soft: Tensor | None = None
    ) -> Tensor:
        """Read canvases (B, L) after a past of one row; returns the hidden states (B, L, d).

        `attention_mask` is False at padding on the right. `soft` (B, L, d) are the embeddings that
        the last step expected (`expect_embeddings`); None before the first step.
        """
        ids, attention_mask = ids.to(self.device), attention_mask.to(self.device)
        decoder = self.model.model.decoder
        embedded = decoder.embed_tokens(ids)
        embedded = decoder.self_conditioning(embedded, torch.zeros_like(embedded) if soft is None else soft)
        start = 0 if past is None else past.attention_mask.shape[1]
        position = torch.arange(start, start + ids.shape[1], device=self.device)[None]
        rows, length = ids.shape
        # A padded token sees itself, since a query without any key would be NaN and spread.
        canvas = attention_mask[:, None, :] | torch.eye(length, dtype=torch.bool, device=self.device)
        seen = torch.cat([canvas.new_ones(rows, length, start), canvas], 2)
        near = seen.clone()
        near[:, :, : max(0, start - self._config.sliding_window + 1)] = False
        hidden, _ = self._run(embedded, position.expand(rows, -1), seen, near, past, None)
        out: Tensor = decoder.norm(hidden)
        return out

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (…, V) in float32 for the hidden states (…, d) of a canvas."""
        bound = self._config.final_logit_softcapping
        logits: Tensor = torch.tanh(self.model.lm_head(hidden).float() / bound) * bound
        return logits

    @torch.no_grad()
    def expect_embeddings(self, logits: Tensor) -> Tensor:
        """Return the mean embedding (…, d) of the tokens that `logits` (…, V) expect."""
        embed = self.model.model.decoder.embed_tokens
        mean = logits.softmax(-1).to(embed.weight.dtype) @ embed.weight
        out: Tensor = mean * embed.embed_scale.to(mean.dtype)
        return out

    def _run(
        self,
        hidden: Tensor,
        position: Tensor,
        seen: Tensor,
        near: Tensor,
        past: KVCache | None,
        scalars: list[Tensor] | None,
    ) -> tuple[Tensor, _CachingScores]:
        """Run the layers of the encoder, whose `scalars` are given, or of the decoder.

        `seen` and `near` are bool, (T, C + T) or (B, T, C + T): which keys a query sees, and which
        in layers of type SLIDING.
        """
        decoder, types = self.model.model.decoder, self._config.layer_types
        masks = {
            kind: to_additive_mask(near if kind == SLIDING else seen, hidden.dtype).view(
                -1, 1, *seen.shape[-2:]
            )
            for kind in set(types)
        }
        turned = {kind: decoder.rotary_emb(hidden, position, kind) for kind in set(types)}
        scores = _CachingScores(masks, types, past)
        for i, layer in enumerate(decoder.layers):
            arguments = {"position_embeddings": turned[types[i]], "attention_mask": None, "scores": scores}
            if scalars is None:
                hidden = layer(hidden, **arguments)
            else:
                hidden = functional_call(layer, {"layer_scalar": scalars[i]}, (hidden,), arguments)
        return hidden, scores
