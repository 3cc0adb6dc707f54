"""Demonstrations: train rows with their right answers, as a frozen block at the end of a prompt.

A Proposer around another one. Some of its candidates put a block in, exchange it or take it out;
the others are those of the inner proposer, which never sees the block: it reads and edits the
prompt in front of it, and the guard compares that with the baseline as ever. So no denoiser can
touch a demonstration and nothing but a demonstration passes the guard as one. The rows come from
the traces that a search hands to `propose`, which are those of train rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from remask.ids import rng_for
from remask.ports import Attribution, Proposal, Proposer
from remask.prompt import MARKER, Prompt
from remask.propose import guard
from remask.propose.select_traces import in_turns
from remask.types import Trace

HEAD = "Examples:"
GAP = "\n\n"  # before the block, and between demonstrations
DEMO_TOKENS = 160  # of one demonstration; longer rows are not shown
BLOCK_TOKENS = 1200  # of all of them
INSERTING = 0.5  # share of the candidates that put a block into a prompt without one …
CHANGING = 1 / 3  # … and of those that change the block of a prompt with one
MOVES = ("exchange", "others", "out")  # what these do, in turn


@dataclass(frozen=True, slots=True)
class DemoProposer:
    """`most`: demonstrations at most. `max_tokens`: of a whole candidate."""

    baseline: Prompt
    inner: Proposer
    most: int
    max_tokens: int | None = None

    def count(self, text: str) -> int:
        return self.inner.count(text)

    def propose(self, parent: Prompt, traces: Sequence[Trace], n: int, seed: int) -> list[Proposal]:
        body, block = parted(parent, self.baseline)
        fit = [trace for trace in traces if self._fits(trace)]
        share = CHANGING if block else INSERTING
        every = round(1 / share) if fit or block else n + 1
        own = [self._moved(parent, body, block, fit, i, seed) for i in range(n // every)]
        kept = shown_in(block, traces)
        others = self.inner.propose(body, traces, n - len(own), seed)
        found = [self._behind(p, body, block, kept) for p in others]
        for i, proposal in enumerate(own):  # in turns: a search takes the first ones
            found.insert(i * every, proposal)
        return found

    def explain(self, proposal: Proposal, traces: Sequence[Trace]) -> tuple[Attribution, ...]:
        """Of an edit in front of the block; a block names its rows itself."""
        if proposal.masker.startswith("demos "):
            return ()
        body, _ = parted(proposal.prompt, self.baseline)
        return self.inner.explain(replace(proposal, prompt=body), traces)

    def _fits(self, trace: Trace) -> bool:
        """Whether a row may be shown: it has a right answer, is short, and holds nothing that a
        prompt must not: marks, secrets, or braces that would be filled from another row."""
        if trace.desired is None or not trace.query.strip() or not trace.desired.strip():
            return False
        text = demo(trace)
        if set("{}") & set(text) or MARKER.search(text) or guard.unfit(text):
            return False
        return self.count(text) <= DEMO_TOKENS

    def _moved(
        self, parent: Prompt, body: Prompt, block: str, fit: Sequence[Trace], i: int, seed: int
    ) -> Proposal:
        """The i-th candidate that differs from its parent in the block alone."""
        rng = rng_for(seed, "demos", i)
        name = MOVES[i % len(MOVES)] if block else "in"
        now = block.split(GAP)[1:] if block else []
        if name == "exchange":
            shown = _exchanged(now, fit, rng)
        else:
            shown = [] if name == "out" else self._drawn(fit, rng)
        new = GAP.join((HEAD, *shown)) if shown else ""
        prompt = joined(body, new)
        start = len(body.text)
        text = prompt.text[start:]
        rows = {*shown_in(block, fit), *shown_in(new, fit)}
        same = prompt.id == parent.id
        return Proposal(
            prompt=prompt,
            masker=f"demos {name}",
            masks=((start, len(parent.text), self.count(text)),),
            edits=((start, len(parent.text), text),),
            traces=shown_in(new, fit),
            logp=0.0,
            violation="nothing to change" if same else self._too_long(prompt),
            demo_rows=tuple(sorted(rows)),
        )

    def _drawn(self, fit: Sequence[Trace], rng: np.random.Generator) -> list[str]:
        """One to `most` demonstrations, of labels about as many of each, in random order."""
        size = self.most if self.most == 1 else int(rng.integers(2, self.most + 1))
        turns = in_turns([fit[i] for i in rng.permutation(len(fit))])
        texts: list[str] = []
        for trace in turns[:size]:
            if self.count(GAP.join([*texts, demo(trace)])) <= BLOCK_TOKENS:
                texts.append(demo(trace))
        return [texts[i] for i in rng.permutation(len(texts))]

    def _behind(
        self, proposal: Proposal, body: Prompt, block: str, shown: tuple[str, ...]
    ) -> Proposal:
        """The same edit with the parent's block behind it."""
        if not block:
            return proposal
        prompt = joined(proposal.prompt, block)
        violation = proposal.violation or self._too_long(prompt)
        return replace(proposal, prompt=prompt, violation=violation, demo_rows=shown)

    def _too_long(self, prompt: Prompt) -> str:
        return guard.too_long(prompt.text, self.count, self.max_tokens)


def block_tokens(most: int) -> int:
    """What `most` demonstrations add to a prompt, at most, as the denoiser counts."""
    return min(most * DEMO_TOKENS, BLOCK_TOKENS)


def demo(trace: Trace) -> str:
    """How a row is shown: the query and, on the next line, the right answer; without blank lines,
    which separate demonstrations."""
    lines = f"{trace.query}\n{trace.desired}".splitlines()
    return "\n".join(line.rstrip() for line in lines if line.strip())


def joined(body: Prompt, block: str) -> Prompt:
    """`body` with the block behind it, which is kept as a `[[keep]]` region is."""
    if not block:
        return body
    text = body.text + GAP + block
    return Prompt(text, (*body.kept, (len(text) - len(block), len(text))))


def parted(prompt: Prompt, baseline: Prompt) -> tuple[Prompt, str]:
    """The prompt without its block, and the block ("" where it has none). A block is the one kept
    region more than the baseline has: no edit of the inner proposer adds or removes one."""
    if len(prompt.kept) == len(baseline.kept):
        return prompt, ""
    start, _ = prompt.kept[-1]
    return Prompt(prompt.text[: start - len(GAP)], prompt.kept[:-1]), prompt.text[start:]


def shown_in(block: str, traces: Sequence[Trace]) -> tuple[str, ...]:
    """The ids of those traces whose answers the block gives away."""
    texts = set(block.split(GAP))
    return tuple(t.id for t in traces if t.desired is not None and demo(t) in texts)


def _exchanged(now: Sequence[str], fit: Sequence[Trace], rng: np.random.Generator) -> list[str]:
    """One demonstration of the block replaced by one that it does not have."""
    new = [text for t in fit if (text := demo(t)) not in now]
    if not new:
        return list(now)
    at, other = int(rng.integers(len(now))), new[int(rng.integers(len(new)))]
    return [*now[:at], other, *now[at + 1 :]]
