"""The seams: what a denoiser, a target, a metric and a task promise. Free of torch.

A weaker backend implements fewer protocols; nobody asks by flag or `hasattr` on a method.
Token ids never cross these seams: frozen text travels as text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from remask.prompt import Prompt
from remask.types import Chat, Example, Outcome, Score, Split, Trace


@dataclass(frozen=True, slots=True)
class Hole:
    """A span of the prompt to write anew. Lengths are elastic: `tokens` is the canvas length."""

    old: str  # the text that stands there now ("" where text is inserted)
    tokens: int  # masks to denoise; 0 deletes the old text


Canvas = tuple[str | Hole, ...]  # the whole prompt: fixed text and holes, in order
Context = tuple[Trace, ...]  # the traces a denoiser reads, selected and sanitised


@dataclass(frozen=True, slots=True)
class Fill:
    """One denoised canvas: a text for every hole, in order."""

    texts: tuple[str, ...]
    logp: float  # mean log-probability of the written tokens when they were committed, nats


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of a target, or why there is none."""

    text: str
    error: str = ""  # not empty: the call failed and `text` means nothing
    input_tokens: int = 0
    output_tokens: int = 0
    logps: tuple[float, ...] = ()  # of each option in order, where the target chose; nats
    attempts: int = 1  # that may be billed, retries included: what the ledger books


class Denoiser(Protocol):
    """A diffusion language model that fills holes of a prompt under traces."""

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        ...

    def infill(self, context: Context, canvases: Sequence[Canvas], seed: int) -> list[Fill]:
        """Denoise every canvas under `context`; deterministic in (context, canvases, seed)."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Only local models have it."""

    def score(self, context: Context, text: str, spans: Sequence[tuple[int, int]]) -> list[float]:
        """Log-probability (nats) of each character span of the prompt `text` under `context`."""
        ...


class Target(Protocol):
    """The frozen model whose prompt is optimised."""

    @property
    def identity(self) -> str:
        """Everything that can change an answer (model, revision, decoding): part of cache keys."""
        ...

    @property
    def billed(self) -> bool:
        """Whether a call that was cut off may have cost something (true for remote models)."""
        ...

    @property
    def max_attempts(self) -> int:
        """Attempts that one call may take at most, retries included: what the meter reserves."""
        ...

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        """Answer each chat, in order. A failed call is a Reply with `error`, never an exception,
        except TargetRefused: no further call can succeed."""
        ...


@runtime_checkable
class Approximate(Protocol):
    """A denoiser that may reuse what has changed a little."""

    def approximation(self) -> str:
        """How far its answers were from exact ones so far, one sentence; "" where they were
        exact."""
        ...


@runtime_checkable
class Retrying(Protocol):
    """A target whose calls may take several attempts (max_attempts > 1)."""

    def limited(self, attempts: int) -> Target:
        """The same target with at most this many attempts per call."""
        ...


@runtime_checkable
class Closing(Protocol):
    """A target that holds connections."""

    def close(self) -> None:
        """Close them; the target is not asked again."""
        ...


@runtime_checkable
class Chooser(Protocol):
    """A target that can be asked which of a few answers it finds most probable."""

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Reply]:
        """Force a choice by log-probability; `text` is the chosen option, `logps` of all."""
        ...


@runtime_checkable
class Remote(Protocol):
    """A denoiser behind an API: it asks a target, so that its calls can be metered."""

    @property
    def target(self) -> Target: ...

    @property
    def max_output(self) -> int | None:
        """Tokens of one answer at most; None: unknown."""
        ...

    def through(self, target: Target) -> Denoiser:
        """The same denoiser, asking `target`."""
        ...


class Metric(Protocol):
    def __call__(self, example: Example, response: str) -> float | Score: ...


class Task(Protocol):
    """What "better" means: rows, and how a prompt does on them."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The right answers that a response must name; empty where there are no such."""
        ...

    def ids(self, split: Split) -> tuple[str, ...]:
        """The rows of a split, in a fixed order."""
        ...

    def evaluate(self, prompt: Prompt, ids: Sequence[str]) -> list[Outcome]:
        """One Outcome per id, in order. Raises BudgetSpent before a call that would pass a limit
        and TargetRefused where no call can succeed."""
        ...


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate prompt and how it came about."""

    prompt: Prompt
    masker: str
    masks: tuple[tuple[int, int, int], ...]  # (start, stop, tokens) in the parent's text
    edits: tuple[tuple[int, int, str], ...]  # (start, stop, new text) in the parent's text
    traces: tuple[str, ...]  # ids of the traces that were read
    logp: float
    objection: str = ""  # not empty: the guard forbids it, and why
    shown: tuple[str, ...] = ()  # rows whose answers it or its parent gives away: they rank nothing


class Proposer(Protocol):
    """Where candidates come from."""

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        ...

    def propose(self, parent: Prompt, traces: Sequence[Trace], n: int, seed: int) -> list[Proposal]:
        """`n` candidates that edit `parent`; deterministic in its arguments."""
        ...


@dataclass(frozen=True, slots=True)
class Drop:
    """What the texts of an edit lose in log-probability where one trace is left out, nats."""

    trace: str  # its id
    each: tuple[float, ...]  # of every written text, in order; a deletion writes none

    @property
    def nats(self) -> float:
        return sum(self.each)


@runtime_checkable
class Explainer(Protocol):
    """A proposer that can say which traces speak for an edit."""

    def explain(self, proposal: Proposal, traces: Sequence[Trace]) -> tuple[Drop, ...]:
        """Of up to three of `proposal.traces`, strongest first: those whose removal lowers the
        log-probability of the written text most."""
        ...


Choose = Callable[[Sequence[Trace], int, Callable[[str], int], np.random.Generator, int], Context]


def written(proposal: Proposal) -> list[tuple[int, int]]:
    """Where the new texts stand in the candidate; a deletion leaves nothing to score."""
    spans, shift = [], 0
    for start, stop, text in sorted(proposal.edits):
        if text:
            spans.append((start + shift, start + shift + len(text)))
        shift += len(text) - (stop - start)
    return spans
