"""Demonstrations: train rows with their right answers, as a frozen block at the end of a prompt.

`DemoProposer` wraps another proposer. Some of its candidates add, change or remove the block. The
others come from the inner proposer, which reads and edits only the prompt before the block, and
whose candidates the guard compares with the baseline as usual. So a denoiser cannot change a
demonstration, and only a demonstration can pass the guard as one. The rows come from the traces
that a search passes to `propose`, which are those of train rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from remask.data.redact.redact import PLACEHOLDER
from remask.ids import rng_for
from remask.ports import NO_REWARDS, Attribution, Proposal, Proposer, Rewards
from remask.prompt import MARKER, Prompt
from remask.propose import guard
from remask.propose.portfolio import clip_reward
from remask.propose.select_traces import alternate_labels
from remask.types import Trace

BLOCK_HEADING = "Examples:"
DEMO_SEPARATOR = "\n\n"  # before the block, and between demonstrations
MAX_DEMO_TOKENS = 160  # of one demonstration; longer rows are not shown
MAX_BLOCK_TOKENS = 1200  # of all demonstrations
INSERT_SHARE = 0.5  # of the candidates of a prompt without a block: they add one
CHANGE_SHARE = 1 / 3  # of the candidates of a prompt with a block: they change it
MAX_SHARE = 2 / 3  # of the candidates, however much the block has won
SOURCE = "demos"  # the name of this source, with which the maskers of its candidates begin
# The changes of a block, in turn: exchange one row, choose all rows again, remove the block.
BLOCK_CHANGES = ("exchange", "others", "out")


@dataclass(frozen=True, slots=True)
class DemoProposer:
    """Implements ports.Proposer around `inner`, with up to `max_demos` demonstrations.

    `max_tokens` limits a whole candidate.
    """

    baseline: Prompt
    inner: Proposer
    max_demos: int
    max_tokens: int | None = None

    def count(self, text: str) -> int:
        """Count tokens as the denoiser does."""
        return self.inner.count(text)

    def propose(
        self, parent: Prompt, traces: Sequence[Trace], n: int, seed: int, rewards: Rewards = NO_REWARDS
    ) -> list[Proposal]:
        """Return `n` candidates, some of which differ from `parent` in the block.

        Every second candidate that adds a block also edits the text before it.
        """
        body, block = split_block(parent, self.baseline)
        usable = [trace for trace in traces if self._can_show(trace)]
        # A search may try only the first candidates, so both kinds alternate.
        own = self._choose_own(n, bool(block), rewards) if usable or block else [False] * n
        own_numbers = [i for i, is_own in enumerate(own) if is_own]
        both = set() if block else set(own_numbers[1::2])
        others = iter(self.inner.propose(body, traces, n - len(own_numbers) + len(both), seed, rewards))
        shown = find_shown_rows(block, traces)
        proposals = []
        for i, is_own in enumerate(own):
            if not is_own:
                proposals.append(self._append_parent_block(next(others), block, shown))
            else:
                edit = next(others) if i in both else None
                number = own_numbers.index(i)
                proposals.append(self._change_block(parent, body, block, usable, number, seed, edit))
        return proposals

    def _choose_own(self, n: int, has_block: bool, rewards: Rewards) -> list[bool]:
        """Return for each candidate whether it changes the block."""
        share = CHANGE_SHARE if has_block else INSERT_SHARE
        odds = share / (1 - share) * clip_reward(rewards.get(SOURCE, 1.0))
        share = min(MAX_SHARE, odds / (1 + odds))
        return [int((i + 1) * share + 0.5) > int(i * share + 0.5) for i in range(n)]

    def explain(self, proposal: Proposal, traces: Sequence[Trace]) -> tuple[Attribution, ...]:
        """Attribute an edit before the block to traces. Returns () for a change of the block."""
        if proposal.masker.startswith(f"{SOURCE} "):
            return ()
        body, _ = split_block(proposal.prompt, self.baseline)
        return self.inner.explain(replace(proposal, prompt=body), traces)

    def _can_show(self, trace: Trace) -> bool:
        """Return whether a row may be shown: it has a right answer, is short and is harmless.

        Marks and secrets must not enter a prompt, and without a secret a row makes no sense. Braces
        would be filled from another row.
        """
        if trace.desired is None or not trace.query.strip() or not trace.desired.strip():
            return False
        text = format_demo(trace)
        if (
            PLACEHOLDER.search(text)
            or set("{}") & set(text)
            or MARKER.search(text)
            or guard.find_demo_violation(text)
        ):
            return False
        return self.count(text) <= MAX_DEMO_TOKENS

    def _change_block(
        self,
        parent: Prompt,
        body: Prompt,
        block: str,
        usable: Sequence[Trace],
        i: int,
        seed: int,
        edit: Proposal | None = None,
    ) -> Proposal:
        """Return the i-th candidate with another block, after the text that `edit` has written."""
        rng = rng_for(seed, "demos", i)
        name = BLOCK_CHANGES[i % len(BLOCK_CHANGES)] if block else "in"
        demos = block.split(DEMO_SEPARATOR)[1:] if block else []
        if name == "exchange":
            demos = _exchange_demo(demos, usable, rng)
        else:
            demos = [] if name == "out" else self._draw_demos(usable, rng)
        new = DEMO_SEPARATOR.join((BLOCK_HEADING, *demos)) if demos else ""
        prompt = append_block(edit.prompt if edit else body, new)
        start = len(body.text)
        text = (DEMO_SEPARATOR if new else "") + new
        rows = {*find_shown_rows(block, usable), *find_shown_rows(new, usable)}
        same = prompt.id == parent.id
        return Proposal(
            prompt=prompt,
            masker=f"{SOURCE} {name}" + (f", {edit.masker}" if edit else ""),
            masks=(*(edit.masks if edit else ()), (start, len(parent.text), self.count(text))),
            edits=(*(edit.edits if edit else ()), (start, len(parent.text), text)),
            traces=find_shown_rows(new, usable),
            logp=edit.logp if edit else 0.0,
            violation=(edit.violation if edit else "")
            or ("nothing to change" if same else self._check_length(prompt)),
            demo_rows=tuple(sorted(rows)),
            pieces=(*edit.pieces, ()) if edit and edit.pieces else (),
        )

    def _draw_demos(self, usable: Sequence[Trace], rng: np.random.Generator) -> list[str]:
        """Draw one to `max_demos` demonstrations in random order, with labels balanced."""
        size = self.max_demos if self.max_demos == 1 else int(rng.integers(2, self.max_demos + 1))
        turns = alternate_labels([usable[i] for i in rng.permutation(len(usable))])
        texts: list[str] = []
        for trace in turns[:size]:
            if self.count(DEMO_SEPARATOR.join([*texts, format_demo(trace)])) <= MAX_BLOCK_TOKENS:
                texts.append(format_demo(trace))
        return [texts[i] for i in rng.permutation(len(texts))]

    def _append_parent_block(self, proposal: Proposal, block: str, shown: tuple[str, ...]) -> Proposal:
        """Return the same edit with the block of its parent after it."""
        if not block:
            return proposal
        prompt = append_block(proposal.prompt, block)
        violation = proposal.violation or self._check_length(prompt)
        return replace(proposal, prompt=prompt, violation=violation, demo_rows=shown)

    def _check_length(self, prompt: Prompt) -> str:
        return guard.check_length(prompt.text, self.count, self.max_tokens)


def count_block_tokens(max_demos: int) -> int:
    """Return the most tokens that `max_demos` demonstrations add, as the denoiser counts them."""
    return min(max_demos * MAX_DEMO_TOKENS, MAX_BLOCK_TOKENS)


def format_demo(trace: Trace) -> str:
    """Write a row as its query and, on the next line, its right answer.

    Blank lines separate demonstrations, so they are removed from the texts.
    """
    lines = f"{trace.query}\n{trace.desired}".splitlines()
    return "\n".join(line.rstrip() for line in lines if line.strip())


def append_block(body: Prompt, block: str) -> Prompt:
    """Return `body` with the block after it, as a `[[keep]]` region."""
    if not block:
        return body
    text = body.text + DEMO_SEPARATOR + block
    return Prompt(text, (*body.kept, (len(text) - len(block), len(text))))


def split_block(prompt: Prompt, baseline: Prompt) -> tuple[Prompt, str]:
    """Split a prompt into the part before its block, and the block ("" where it has none).

    A block is the kept region that the baseline does not have: no edit of the inner proposer adds
    or removes a kept region.
    """
    if len(prompt.kept) == len(baseline.kept):
        return prompt, ""
    start, _ = prompt.kept[-1]
    return Prompt(prompt.text[: start - len(DEMO_SEPARATOR)], prompt.kept[:-1]), prompt.text[start:]


def find_shown_rows(block: str, traces: Sequence[Trace]) -> tuple[str, ...]:
    """Return the ids of the traces whose right answers the block shows."""
    texts = set(block.split(DEMO_SEPARATOR))
    return tuple(t.id for t in traces if t.desired is not None and format_demo(t) in texts)


def _exchange_demo(demos: Sequence[str], usable: Sequence[Trace], rng: np.random.Generator) -> list[str]:
    """Replace one of the demonstrations by a row that is not among them."""
    new = [text for t in usable if (text := format_demo(t)) not in demos]
    if not new:
        return list(demos)
    at, other = int(rng.integers(len(demos))), new[int(rng.integers(len(new)))]
    return [*demos[:at], other, *demos[at + 1 :]]
