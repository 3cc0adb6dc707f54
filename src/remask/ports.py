"""The seams: what a denoiser, a target, a metric and a task promise. Free of torch.

What not every denoiser can do is a protocol of its own; what not every target can do has a default
in the class Target. Token ids never cross these seams: frozen text travels as text.
"""

from abc import ABC, abstractmethod
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


class DenoiserModel(Protocol):
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


class TargetModel(ABC):
    """The frozen model whose prompt is optimised.

    As it stands here: one attempt per call, only answers in its own words, nothing to close.
    """

    identity: str  # all that can change an answer (model, revision, decoding): in cache keys
    billed: bool = False  # whether a call that was cut off may have cost something
    max_attempts: int = 1  # of one call, retries included: what the meter reserves
    chooses: bool = False  # whether it can be asked to choose

    @abstractmethod
    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        """Answer each chat, in order. A failed call is a Reply with `error`, never an exception,
        except TargetRefused: no further call can succeed."""

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Reply]:
        """Force a choice by log-probability; `text` is the chosen option, `logps` of all. Only
        where `chooses`."""
        raise NotImplementedError(f"{self.identity} cannot choose")

    def limit_attempts(self, attempts: int) -> "TargetModel":
        """The same target with at most this many attempts per call. A target with a larger
        `max_attempts` than 1 has its own."""
        return self

    def close(self) -> None:  # noqa: B027
        """Close its connections; it is not asked again."""


@runtime_checkable
class Approximate(Protocol):
    """A denoiser that may reuse what has changed a little."""

    def describe_approximation(self) -> str:
        """How far its answers were from exact ones so far, one sentence; "" where they were
        exact."""
        ...


@runtime_checkable
class Remote(Protocol):
    """A denoiser behind an API: it asks a target, so that its calls can be metered."""

    @property
    def target(self) -> TargetModel: ...

    @property
    def max_output(self) -> int | None:
        """Tokens of one answer at most; None: unknown."""
        ...

    def with_target(self, target: TargetModel) -> DenoiserModel:
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
    violation: str = ""  # not empty: the guard forbids it, and why
    demo_rows: tuple[
        str, ...
    ] = ()  # rows whose answers it or its parent gives away: they rank nothing


@dataclass(frozen=True, slots=True)
class Attribution:
    """What the texts of an edit lose in log-probability where one trace is left out, nats."""

    trace: str  # its id
    each: tuple[float, ...]  # of every written text, in order; a deletion writes none

    @property
    def nats(self) -> float:
        return sum(self.each)


class Proposer(Protocol):
    """Where candidates come from."""

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        ...

    def propose(self, parent: Prompt, traces: Sequence[Trace], n: int, seed: int) -> list[Proposal]:
        """`n` candidates that edit `parent`; deterministic in its arguments."""
        ...

    def explain(self, proposal: Proposal, traces: Sequence[Trace]) -> tuple[Attribution, ...]:
        """Of up to three of `proposal.traces`, strongest first: those whose removal lowers the
        log-probability of the written text most. () where nobody can say."""
        ...


Choose = Callable[[Sequence[Trace], int, Callable[[str], int], np.random.Generator, int], Context]


def find_written_spans(proposal: Proposal) -> list[tuple[int, int]]:
    """Where the new texts stand in the candidate; a deletion leaves nothing to score."""
    spans, shift = [], 0
    for start, stop, text in sorted(proposal.edits):
        if text:
            spans.append((start + shift, start + shift + len(text)))
        shift += len(text) - (stop - start)
    return spans
