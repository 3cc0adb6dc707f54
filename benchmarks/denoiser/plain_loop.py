"""The plain loop that the denoiser's speed is compared with, and a checkpoint in LLaDA's layout.

`Plain` is the loop of the public samplers: it reads all tokens of all candidates again at every
step. As in ours, the head is computed only at masks. `write_as_llada` writes the built-in base in
LLaDA's layout, so that the error of a bidirectional family is measured on real weights.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from remask.dlm.bidirectional import Bidirectional
from remask.dlm.reading import ApproximationError, DenoisingPass, Ids, PrefixLM, predict
from remask.dlm.sampler import CanvasBatch
from remask.models.backbone.checkpoint_formats import LLADA
from remask.models.backbone.transformer import Backbone

# The tokens of LLaDA's chats and masks take the places of tokens that SmolLM2 never saw in text.
RENAMED = {
    "<|endoftext|>": "<|startoftext|>",
    "<|im_start|>": "<|start_header_id|>",
    "<|im_end|>": "<|eot_id|>",
    "<repo_name>": "<|end_header_id|>",
    "<empty_output>": "<|mdm_mask|>",
}


@dataclass(frozen=True, slots=True)
class Plain:
    """An AttentionMode that reuses nothing."""

    reading: PrefixLM | Bidirectional
    approximation_error = ApproximationError()  # nothing is approximated

    @property
    def identity(self) -> str:
        return f"plain/{self.reading.identity}"

    def reread(self, length: int) -> int:
        return self.reading.reread(length)

    def begin(self, context: Ids, shared: int, attention_mask: Tensor) -> DenoisingPass:
        return _PlainPass(self.reading, context, attention_mask)

    def score(self, context: Ids, shared: int, ids: Ids, wanted: Sequence[int]) -> list[float]:
        return self.reading.score(context, shared, ids, wanted)


@dataclass(frozen=True, slots=True)
class _PlainPass:
    reading: PrefixLM | Bidirectional
    context: Ids
    attention_mask: Tensor

    def logits(self, ids: Tensor) -> Tensor:
        family = self.reading.family
        masked = ids == family.mask
        before = torch.tensor([self.context] * len(ids))
        there = torch.ones_like(before, dtype=torch.bool)
        if isinstance(self.reading, PrefixLM):
            _, past = self.reading.base.read(before, there)
            backbone = self.reading.adapted
            hidden = backbone.read_region(ids, self.attention_mask, masked, past, self.reading.gates)
        else:
            backbone = self.reading.backbone
            joint = torch.cat([before, ids], 1)
            attention_mask = torch.cat([there, self.attention_mask], 1)
            hidden = backbone.read_blocks(joint, attention_mask, torch.zeros_like(joint))[0]
            hidden = hidden[:, before.shape[1] :]
        return predict(backbone, family, hidden, masked)

    def sum_log_probs(self, ids: Tensor, canvases: CanvasBatch, logp: Tensor) -> Tensor:
        return logp.sum(1)


def write_as_llada(base: Backbone, folder: Path) -> None:
    """Write `base` (SmolLM2) as config.json, tokenizer.json and safetensors in LLaDA's layout."""
    config = base.model.config
    settings = {
        "architectures": [LLADA.architecture],
        "model_type": LLADA.model_type,
        "d_model": config.hidden_size,
        "embedding_size": config.vocab_size,
        "mlp_hidden_size": config.intermediate_size,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "max_sequence_length": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_parameters["rope_theta"],
        "weight_tying": True,
        "mask_token_id": base.token_id("<empty_output>"),
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(settings))
    tokenizer = base.tokenizer.to_str()
    for name, new in RENAMED.items():
        tokenizer = tokenizer.replace(json.dumps(name), json.dumps(new))
    (folder / "tokenizer.json").write_text(tokenizer)
    theirs = {ours: name for name, ours in LLADA.weights.items()}
    state = {}
    for name, tensor in base.model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        layer = name.split(".")[2]
        known = theirs.get(name) or theirs[name.replace(f".{layer}.", ".{}.", 1)].format(layer)
        state[known] = tensor.to(torch.bfloat16)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
