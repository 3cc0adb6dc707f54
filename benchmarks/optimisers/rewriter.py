"""The autoregressive model of the DLM's size writes the prompt anew; the search is remask's."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.lab import Lab
from harness.writer import Writer
from optimisers.searching import search_with
from remask import guard
from remask.backbone.weights import load_base
from remask.condition import select
from remask.identity import rng_for
from remask.ports import Drop, Proposal
from remask.prompt import Prompt
from remask.trace import Trace

# Chosen on train rows of SST-2 and letters among a dozen wordings: a model of this size talks about
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
class Rewriter:
    """A Proposer of whole prompts that passes the same guard as remask's."""

    lab: Lab
    writer: Writer

    def count(self, text: str) -> int:
        return len(self.writer.backbone.encode(text))

    def propose(self, parent: Prompt, traces: Sequence[Trace], n: int, seed: int) -> list[Proposal]:
        rng = rng_for(seed, "context")
        context = select(traces, EXAMPLE_TOKENS, self.count, rng, EXAMPLES)
        shown = "\n".join(
            f"{' '.join(t.query.split())} => {t.desired or t.response}" for t in context
        )
        ask = ASK.format(examples=shown, prompt=parent.text)
        written = self.writer.write(ask, n, seed, begun=BEGUN, ended=lambda text: '"' in text)
        texts = map(instruction, written)
        say = self.lab.bench.answer
        own = guard.ngrams(say.replace("{label}", label) for label in self.lab.bench.labels)
        untrusted = guard.ngrams(x for t in context for x in (t.query, t.desired or "")) - own
        return [
            self._proposal(parent, text, untrusted, tuple(t.id for t in context))
            for text in dict.fromkeys(texts)
            if text
        ]

    def explain(self, proposal: Proposal, traces: Sequence[Trace]) -> tuple[Drop, ...]:
        return ()

    def _proposal(
        self, parent: Prompt, text: str, untrusted: frozenset[guard.Gram], traces: tuple[str, ...]
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
            objection=guard.objection(prompt, self.lab.start, untrusted, parent, max_growth=growth),
        )


def instruction(text: str) -> str:
    """What stands before the closing quote; without one, up to the end of the last sentence."""
    inside, quote, _ = text.partition('"')
    return (inside if quote else inside[: inside.rfind(".") + 1] or inside).strip()


def optimise(lab: Lab) -> None:
    search_with(lab, Rewriter(lab, Writer(load_base())), lab.seed)
