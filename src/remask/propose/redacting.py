"""A proposer that reads traces without secrets, so that none reaches a denoiser or a prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from remask.ports import NO_REWARDS, Attribution, Proposal, Proposer, Rewards
from remask.prompt import Prompt
from remask.types import Trace


@dataclass(frozen=True, slots=True)
class RedactingProposer:
    """Implements ports.Proposer around `inner`; `redact` removes secrets from a text."""

    inner: Proposer
    redact: Callable[[str], str]

    def count(self, text: str) -> int:
        """Count tokens as the denoiser does."""
        return self.inner.count(text)

    def propose(
        self, parent: Prompt, traces: Sequence[Trace], n: int, seed: int, rewards: Rewards = NO_REWARDS
    ) -> list[Proposal]:
        """Return `n` candidates of the inner proposer."""
        return self.inner.propose(parent, self._redact_all(traces), n, seed, rewards)

    def explain(self, proposal: Proposal, traces: Sequence[Trace]) -> tuple[Attribution, ...]:
        """Attribute an edit to traces, as the inner proposer does."""
        return self.inner.explain(proposal, self._redact_all(traces))

    def _redact_all(self, traces: Sequence[Trace]) -> list[Trace]:
        return [self._redact(trace) for trace in traces]

    def _redact(self, trace: Trace) -> Trace:
        return replace(
            trace,
            query=self.redact(trace.query),
            response=self.redact(trace.response),
            desired=None if trace.desired is None else self.redact(trace.desired),
            feedback=tuple(replace(note, text=self.redact(note.text)) for note in trace.feedback),
            parts={name: self._redact(part) for name, part in trace.parts.items()},
        )
