"""An autoregressive model of the denoiser's size rewrites the whole prompt; remask searches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks.optimisers.remask import search_with
from benchmarks.search.lab import Lab
from remask.ids import rng_for, seed_for
from remask.models.backbone.builtin_weights import load_base
from remask.models.backbone.transformer import Backbone
from remask.ports import NO_REWARDS, Attribution, Proposal, Rewards
from remask.prompt import Prompt
from remask.propose.guard import Gram, find_ngrams, find_violation
from remask.propose.select_traces import select
from remask.types import Trace

# Chosen among a dozen wordings on train rows of SST-2 and letters. A model of this size comments on
# the examples, repeats them, or answers one, unless its answer begins as an instruction does.
ASK = """Write a clear instruction for an assistant. So far it says: {prompt}

Inputs and right answers:
```
{examples}
```"""
BEGUN = 'The instruction is: "'
EXAMPLES = 4
EXAMPLE_TOKENS = 300


@dataclass(frozen=True, slots=True)
class Writer:
    """SmolLM2-135M-Instruct, asked in one user turn. It has the weights of the frozen target, but
    its calls write prompts and are not counted as target calls."""

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
        """Sample `n` answers to `message`, which is cut at the front where it is too long.

        begun: the beginning of every answer, which is not returned. ended: whether an answer is
        complete, so that writing it stops.
        """
        model = self.backbone
        room = model.context_length - max_tokens - 64
        message = model.decode(model.encode(message)[-room:])
        asked = [
            *model.encode_turn("user", message),
            *model.encode_opening("assistant"),
            *model.encode(begun),
        ]
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


@dataclass(frozen=True, slots=True)
class Rewriter:
    """A Proposer of whole prompts, with the same guard as remask's."""

    lab: Lab
    writer: Writer

    def count(self, text: str) -> int:
        return len(self.writer.backbone.encode(text))

    def propose(
        self, parent: Prompt, traces: Sequence[Trace], n: int, seed: int, rewards: Rewards = NO_REWARDS
    ) -> list[Proposal]:
        rng = rng_for(seed, "context")
        context = select(traces, EXAMPLE_TOKENS, self.count, rng, EXAMPLES)
        shown = "\n".join(f"{' '.join(t.query.split())} => {t.desired or t.response}" for t in context)
        ask = ASK.format(examples=shown, prompt=parent.text)
        written = self.writer.write(ask, n, seed, begun=BEGUN, ended=lambda text: '"' in text)
        texts = map(extract_instruction, written)
        say = self.lab.bench.answer
        own = find_ngrams(say.replace("{label}", label) for label in self.lab.bench.labels)
        untrusted = find_ngrams(x for t in context for x in (t.query, t.desired or "")) - own
        return [
            self._proposal(parent, text, untrusted, tuple(t.id for t in context))
            for text in dict.fromkeys(texts)
            if text
        ]

    def explain(self, proposal: Proposal, traces: Sequence[Trace]) -> tuple[Attribution, ...]:
        return ()

    def _proposal(
        self, parent: Prompt, text: str, untrusted: frozenset[Gram], traces: tuple[str, ...]
    ) -> Proposal:
        prompt, whole = Prompt(text), len(parent.text)
        growth = self.lab.config.search.max_growth
        return Proposal(
            prompt=prompt,
            masker="rewrite",
            masks=((0, whole, self.count(text)),),
            edits=((0, whole, text),),
            traces=traces,
            logp=0.0,
            violation=find_violation(prompt, self.lab.start, untrusted, parent, max_growth=growth),
        )


def extract_instruction(text: str) -> str:
    """The text before the closing quote; without one, the text up to the end of the last sentence.

    'Say the name." Here I' → 'Say the name.'; 'Say the name. Then the' → 'Say the name.'
    """
    inside, quote, _ = text.partition('"')
    return (inside if quote else inside[: inside.rfind(".") + 1] or inside).strip()


def rewriter(lab: Lab) -> None:
    """Run remask's search with the rewriter as proposer."""
    search_with(lab, Rewriter(lab, Writer(load_base())), lab.seed)
