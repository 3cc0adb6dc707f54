"""The same-size autoregressive model as a writer of prompts: sampled answers, many at once."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from remask.backbone.model import Backbone
from remask.identity import seed_for


@dataclass(frozen=True, slots=True)
class Writer:
    """SmolLM2-135M-Instruct, asked in one user turn. The same weights as the frozen target, but
    its calls write prompts and are no target calls."""

    backbone: Backbone
    temperature: float = 0.8
    top_p: float = 0.95

    @torch.inference_mode()
    def write(
        self,
        message: str,
        n: int,
        seed: int,
        max_tokens: int = 64,
        begun: str = "",
        ended: Callable[[str], bool] = lambda text: False,
    ) -> list[str]:
        """`n` answers to `message`, which is cut at the front where it is too long. `begun`: how
        all of them begin; it is not part of what comes back. `ended`: whether an answer says
        enough as it stands, so that no more of it is written."""
        model = self.backbone
        room = model.window - max_tokens - 64
        message = model.decode(model.encode(message)[-room:])
        asked = [*model.turn("user", message), *model.opening("assistant"), *model.encode(begun)]
        ids = torch.tensor([asked])
        hidden, memory = model.read(ids, torch.ones_like(ids, dtype=torch.bool))
        memory, last = memory.select(torch.zeros(n, dtype=torch.long)), hidden[:, -1].expand(n, -1)
        stops = {model.token_id("<|im_end|>"), model.token_id("<|endoftext|>")}
        source = torch.Generator().manual_seed(seed_for(seed, "writer") % 2**62)
        written: list[list[int]] = [[] for _ in range(n)]
        done = [False] * n
        for _ in range(max_tokens):
            tokens = self._pick(model.logits(last), source)
            for row, token in enumerate(tokens.tolist()):
                done[row] = done[row] or token in stops
                if not done[row]:
                    written[row].append(token)
                    done[row] = ended(model.decode(written[row]))
            if all(done):
                break
            one = torch.ones(n, 1, dtype=torch.bool)
            states, memory = model.read(tokens[:, None], one, memory)
            last = states[:, 0]
        return [model.decode(row).strip() for row in written]

    def _pick(self, logits: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        """Nucleus sampling (arXiv 1904.09751): (N, V) logits to (N,) tokens."""
        chances, order = (logits.float() / self.temperature).softmax(-1).sort(-1, descending=True)
        chances = chances.masked_fill(chances.cumsum(-1) - chances > self.top_p, 0.0)
        place = torch.multinomial(chances, 1, generator=source)
        return order.gather(-1, place)[:, 0]
