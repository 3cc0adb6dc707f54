"""The protocols of denoisers, targets, metrics, tasks and proposers, and the values they exchange.

What only some denoisers can do is a protocol of its own. What only some targets can do has a
default in the class TargetModel. Prompts are passed as text, never as token ids, so that a
tokenizer cannot change frozen text. This module does not import torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from remask.prompt import Prompt
from remask.types import Chat, Example, Outcome, Score, Split, Trace


@dataclass(frozen=True, slots=True)
class Hole:
    """A span of the prompt to replace by `tokens` tokens; the old text may have another number."""

    old: str  # the text to replace; "" where text is inserted
    tokens: int  # masks to denoise; 0 deletes the old text


Canvas = tuple[str | Hole, ...]  # the whole prompt: fixed text and holes, in order
Context = tuple[Trace, ...]  # the traces that a denoiser reads, selected and cleaned
# How a text was written: (piece, denoising step that wrote it, from 1). The pieces make up the text.
Pieces = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Fill:
    """The texts for the holes of one canvas, in order."""

    texts: tuple[str, ...]
    logp: float  # mean log-probability of the tokens at the step that committed them, nats
    pieces: tuple[Pieces, ...] = ()  # of each text; () where the steps are unknown


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of a target, or the error of a failed call."""

    text: str
    error: str = ""  # not empty: the call failed, and `text` has no meaning
    input_tokens: int = 0
    output_tokens: int = 0
    logps: tuple[float, ...] = ()  # nats of each option in order, where the target chose one
    cut: bool = False  # the answer ends where the limit of tokens cut it off
    attempts: int = 1  # that may be billed, retries included; the ledger counts them as calls
    key: str = field(default="", compare=False)  # of the answer in the store of a run
    seconds: float = field(default=0.0, compare=False)  # its latency; 0: unknown
    grade: Mapping[str, Any] | None = None  # stored with an answer that is stored without its secrets


OnStep = Callable[[str, int, int], None]  # (what a step is, steps done, steps in all)
_STEP_HOOK: ContextVar[OnStep] = ContextVar("STEP_HOOK", default=lambda what, done, total: None)


# Steps that only report how far the work is. Stopping between them would gain nothing or lose what
# is paid, and what they count is checked or booked elsewhere.
ONLY_REPORTED = frozenset(("call", "reply", "row", "candidate", "text", "held"))
HELD = "held"  # a step that counts seconds: calls wait until the endpoint takes more
POLL_SECONDS = 0.1  # between two looks at signals and limits
WAITING = "waiting"  # a step that counts nothing: code of the user is running


def report_step(what: str, done: int, total: int) -> None:
    """Say that a step of long work is done. Raises what the hook raises to stop the work."""
    _STEP_HOOK.get()(what, done, total)


@contextmanager
def watch_steps(hook: OnStep) -> Iterator[None]:
    """Call `hook` between the steps of long work in the block; it may raise to stop the work."""
    token = _STEP_HOOK.set(hook)
    try:
        yield
    finally:
        _STEP_HOOK.reset(token)


@dataclass(frozen=True, slots=True)
class Item:
    """A piece of pure work for a worker: a method of one of its models, and the arguments.

    The result depends on these values and on the settings of the run, not on the worker. Arguments
    and results can be pickled.
    """

    role: str  # the model: "denoiser" or "target"; or "reader", of files
    method: str
    arguments: tuple[Any, ...] = ()


class Executor(Protocol):
    """Workers that build their models from the settings of the run."""

    @property
    def workers(self) -> int:
        """The number of items that are worked on at the same time."""

    def submit(self, item: Item, again: bool = True) -> Future[Any]:
        """Hand an item to the next free worker.

        If its worker is lost, the item is done once more, unless `again` is False. The future raises
        what the method raises, and WorkerLost.
        """

    def close(self) -> None:
        """End the workers; items that are not done are given up."""


def wait_for(future: "Future[Any]") -> Any:
    """Return the result of a future. Signals and limits are looked at while it is not there."""
    while not future.done():
        wait([future], timeout=POLL_SECONDS)
        if not future.done():
            report_step(WAITING, 0, 0)
    return future.result()


class DenoiserModel(Protocol):
    """A diffusion language model that fills holes of a prompt under traces."""

    def count(self, text: str) -> int:
        """Count the tokens of `text`."""

    def infill(self, context: Context, canvases: Sequence[Canvas], seed: int) -> list[Fill]:
        """Fill every canvas, given `context`; deterministic in its arguments."""


@runtime_checkable
class Scorer(Protocol):
    """A denoiser that gives log-probabilities. Only local models do."""

    def score(self, context: Context, text: str, spans: Sequence[tuple[int, int]]) -> list[float]:
        """Return the log-probability of each character span of `text`, given `context`, in nats."""


class CallBook:
    """Where single attempts of calls are booked. This one books nothing.

    All methods are called on the thread that called `respond`.
    """

    def group(self) -> AbstractContextManager[object]:
        """Return a block whose bookings are committed at once, at its end."""
        return nullcontext()

    def limit_flight(self, concurrency: int, left: int) -> int:
        """Return how many attempts may be in flight, where `left` calls have not been sent yet."""
        return concurrency

    def check(self) -> None:
        """Raise to stop: no further attempt is started."""

    def start(self, call: int, left: int) -> None:
        """Book one attempt before it is sent; `left` calls have not been sent yet.

        Raises BudgetSpent where it would pass a limit.
        """

    def finish(self, call: int, reply: Reply) -> None:
        """Book what a finished attempt cost, an error included, and keep its answer."""

    def drop(self, call: int) -> None:
        """Take an attempt back that is known to cost nothing."""

    def lose(self, call: int) -> None:
        """Book an attempt as uncertain, whose worker ended before it answered."""


class TargetModel(ABC):
    """The frozen model whose prompt is optimised.

    The defaults are those of a target that makes one attempt per call, cannot choose between
    options and has no connections to close.
    """

    identity: str  # all that can change an answer (model, revision, decoding); part of cache keys
    billed: bool = False  # whether an interrupted call may cost money
    max_attempts: int = 1  # of one call, retries included; the meter reserves so many
    chooses: bool = False  # whether `choose` is available
    books_attempts: bool = False  # whether `respond` takes a CallBook

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user on how the model was asked."""
        return ()

    @abstractmethod
    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        """Answer each chat, in order. `repeat` numbers repeated calls of the same chats.

        A failed call is a Reply with an `error`, not an exception. Raises only TargetRefused, where
        no further call can succeed.
        """

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Reply]:
        """Choose the most probable option for each chat, where `chooses` is true.

        Reply.text is the chosen option, Reply.logps holds the log-probability of every option.
        """
        raise NotImplementedError(f"{self.identity} cannot choose")

    def keep_grades(self, grades: Sequence[tuple[Reply, Mapping[str, Any]]]) -> None:  # noqa: B027
        """Store the grades of answers that must not be stored as they are. Others are left out."""

    def limit_attempts(self, attempts: int) -> "TargetModel":
        """Return the same target with at most this many attempts per call.

        A target whose `max_attempts` is above 1 must override this.
        """
        return self

    def close(self) -> None:  # noqa: B027
        """Close its connections. It is not called again."""


@runtime_checkable
class Parallel(Protocol):
    """A target that answers several requests at the same time."""

    @property
    def workers(self) -> int:
        """The number of requests."""

    def start(self, method: str, *arguments: Any) -> Future[list[Reply]]:
        """Begin a request: `respond` or `choose` of TargetModel, with its arguments."""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """The arguments of Scorer.score."""

    context: Context
    text: str
    spans: tuple[tuple[int, int], ...]


@runtime_checkable
class BatchScorer(Protocol):
    """A scorer that answers several requests at once."""

    def score_all(self, requests: Sequence[ScoreRequest]) -> list[list[float]]:
        """Return what `Scorer.score` does for each request, in order."""


def score_all(scorer: Scorer, requests: Sequence[ScoreRequest]) -> list[list[float]]:
    """Score each request, at once where the scorer can; reports each as a step "text"."""
    if isinstance(scorer, BatchScorer):
        return scorer.score_all(requests)
    found = []
    for number, one in enumerate(requests, 1):
        found.append(scorer.score(one.context, one.text, one.spans))
        report_step("text", number, len(requests))
    return found


@runtime_checkable
class Approximate(Protocol):
    """A denoiser that may reuse computations that have changed slightly."""

    def describe_approximation(self) -> str:
        """Say in one sentence how far its answers were from exact ones; "" for exact answers."""


@runtime_checkable
class Limited(Protocol):
    """A denoiser that reads only so many tokens at once."""

    @property
    def context_length(self) -> int:
        """The tokens that it reads at once, at most."""

    def count_context(self, tokens: int, traces: int) -> int:
        """Return how many tokens may precede a prompt, with traces of so many tokens in all."""


@runtime_checkable
class Remote(Protocol):
    """A denoiser behind an API. It calls a target, so that its calls can be metered."""

    @property
    def target(self) -> TargetModel:
        """The target that it calls."""

    @property
    def max_output(self) -> int | None:
        """The maximum number of tokens of one answer; None: unknown."""

    def with_target(self, target: TargetModel) -> DenoiserModel:
        """Return the same denoiser, which calls `target` instead."""


class Metric(Protocol):
    """Scores one response, from 0 to 1."""

    def __call__(self, example: Example, response: str) -> float | Score:
        """Return the score of `response` to `example`."""


class Task(Protocol):
    """The rows of a run, and how prompts are scored on them."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that responses may name; empty where the answers are not labels."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the scores so far, in sentences for the user."""

    def ids(self, split: Split) -> tuple[str, ...]:
        """Return the ids of the rows of a split, in a fixed order, without those of guard sets."""

    def evaluate(self, prompt: Prompt, ids: Sequence[str]) -> list[Outcome]:
        """Score the prompt on rows. Returns one Outcome per id, in order.

        Raises BudgetSpent before a call that would pass a limit, and TargetRefused where no call
        can succeed.
        """


@runtime_checkable
class BatchTask(Protocol):
    """A task that scores several prompts at once, so that their calls do not wait for each other."""

    def evaluate_all(self, prompts: Sequence[Prompt], ids: Sequence[str]) -> list[list[Outcome]]:
        """Score each prompt on all rows, as `Task.evaluate` does. Returns the outcomes by prompt."""


def evaluate_all(task: Task, prompts: Sequence[Prompt], ids: Sequence[str]) -> list[list[Outcome]]:
    """Score each prompt on all rows, at once where the task can. Returns the outcomes by prompt."""
    if isinstance(task, BatchTask):
        return task.evaluate_all(prompts, ids)
    return [task.evaluate(prompt, ids) for prompt in prompts]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate prompt and how it was made."""

    prompt: Prompt
    masker: str
    masks: tuple[tuple[int, int, int], ...]  # (start, stop, tokens) in the parent's text
    edits: tuple[tuple[int, int, str], ...]  # (start, stop, new text) in the parent's text
    traces: tuple[str, ...]  # ids of the traces that were read
    logp: float  # mean log-probability of the written tokens, nats
    violation: str = ""  # why the guard forbids it; "" where it is allowed
    # Rows whose answers the prompt or its parent shows. They must not rank it.
    demo_rows: tuple[str, ...] = ()
    pieces: tuple[Pieces, ...] = ()  # of the new text of each edit; () where the steps are unknown
    components: tuple[str, ...] = ()  # that it edits; () where the prompt is one text


@dataclass(frozen=True, slots=True)
class Attribution:
    """How much log-probability the texts of an edit lose where one trace is left out, in nats."""

    trace: str  # its id
    each: tuple[float, ...]  # of every written text, in order; a deletion writes none

    @property
    def nats(self) -> float:
        """Return the sum over all written texts."""
        return sum(self.each)


# Source of candidates (a masker, or "demos") -> how far its candidates of earlier rounds went in the
# search, as a factor of the mean over all sources. So also for the components of a prompt, by
# `name_reward`. Empty in the first round.
Rewards = Mapping[str, float]
NO_REWARDS: Rewards = MappingProxyType({})
NOT_DENOISED = frozenset(("library", "delete"))  # maskers whose text is not written by the denoiser


def name_reward(component: str) -> str:
    """Return the key of a component in Rewards. No masker has such a name."""
    return f"component {component}"


class Proposer(Protocol):
    """Proposes candidates that edit a prompt."""

    def count(self, text: str) -> int:
        """Count the tokens of `text`."""

    def propose(
        self, parent: Prompt, traces: Sequence[Trace], n: int, seed: int, rewards: Rewards = NO_REWARDS
    ) -> list[Proposal]:
        """Return `n` candidates that edit `parent`; deterministic in its arguments."""

    def explain(self, proposal: Proposal, traces: Sequence[Trace]) -> tuple[Attribution, ...]:
        """Return up to three traces that support the edit, strongest first.

        Without them the log-probability of the written text drops most. Returns () where that is
        unknown.
        """


# Selects traces: (traces, limit in tokens, count, rng, max_traces) -> Context
Choose = Callable[[Sequence[Trace], int, Callable[[str], int], np.random.Generator, int], Context]


def fit_pieces(pieces: Pieces, text: str) -> Pieces:
    """Return the pieces of a text that was changed to `text`: clipped, or with other marks and capitals.

    A character that no piece had belongs to the piece before it, or to the first one.

    >>> fit_pieces((("be", 2), (" brief", 1)), "Be brief.")
    (('Be', 2), (' brief.', 1))
    """
    owners = [number for number, (piece, _) in enumerate(pieces) for _ in piece]
    if not owners:
        return ()
    old = "".join(piece for piece, _ in pieces)
    # Lower case may have another length: then only the first letters differ, and no more is lost.
    match = SequenceMatcher(None, _fold(old), _fold(text), autojunk=False)
    found: list[int | None] = [None] * len(text)
    for a, b, size in match.get_matching_blocks():
        found[b : b + size] = owners[a : a + size]
    number = next((n for n in found if n is not None), owners[0])
    out: list[tuple[str, int]] = []
    last = -1
    for char, owner in zip(text, found, strict=True):
        number = number if owner is None else owner
        if number == last:
            out[-1] = (out[-1][0] + char, out[-1][1])
        else:
            out.append((char, pieces[number][1]))
        last = number
    return tuple(out)


def _fold(text: str) -> str:
    lower = text.lower()
    return lower if len(lower) == len(text) else text


def find_written_spans(proposal: Proposal) -> list[tuple[int, int]]:
    """Return the spans of the new texts in the candidate. A deletion has none."""
    return find_new_spans(proposal.edits)


def find_new_spans(edits: Iterable[tuple[int, int, str]]) -> list[tuple[int, int]]:
    """Return the spans of the new texts of edits (start, stop, text) in the changed text.

    >>> find_new_spans([(0, 2, "One"), (5, 5, " new"), (9, 12, "")])
    [(0, 3), (6, 10)]
    """
    spans, shift = [], 0
    for start, stop, text in sorted(edits):
        if text:
            spans.append((start + shift, start + shift + len(text)))
        shift += len(text) - (stop - start)
    return spans
