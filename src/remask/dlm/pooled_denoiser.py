"""A denoiser on this machine whose batches are denoised by workers."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from remask.dlm.canvas import cut_batches
from remask.dlm.layout import Layout
from remask.dlm.reading import ApproximationError
from remask.ports import Canvas, Context, Executor, Fill, Item, ScoreRequest, wait_for
from remask.runs.executors.pool import gather


@dataclass(frozen=True, slots=True)
class DenoiserFacts:
    """What the driver must know of a denoiser that only workers load."""

    identity: str
    context_length: int
    layout: Layout  # its backbone has no weights


class PooledDenoiser:
    """A denoiser and scorer that hands batches of canvases, and texts to score, to workers.

    The batches are those of LocalDenoiser, so the fills are the same for any number of workers.
    """

    def __init__(self, executor: Executor) -> None:
        """Raises what loading the denoiser raises."""
        self._executor = executor
        facts: DenoiserFacts = wait_for(executor.submit(Item("denoiser", "describe")))
        self.identity, self.context_length = facts.identity, facts.context_length
        self._layout = facts.layout
        self._error = ApproximationError()

    def count(self, text: str) -> int:
        """Count the tokens of `text`."""
        return self._layout.count(text)

    def count_context(self, tokens: int, traces: int) -> int:
        """Return how many tokens may precede a prompt, with traces of so many tokens in all."""
        return self._layout.count_context(tokens, traces)

    def describe_approximation(self) -> str:
        """Describe the approximation error of all workers in one sentence; "" if there was none."""
        return self._error.describe()

    def infill(self, context: Context, canvases: Sequence[Canvas], seed: int) -> list[Fill]:
        """Fill every canvas under `context`; deterministic in (context, canvases, seed)."""
        batches = cut_batches(canvases)
        futures = [
            self._submit("infill_counted", context, [canvases[i] for i in batch], batch, seed)
            for batch in batches
        ]
        fills: dict[int, Fill] = {}
        found = gather(futures, "candidate", [len(batch) for batch in batches])
        for batch, (texts, error) in zip(batches, found, strict=True):
            fills |= zip(batch, texts, strict=True)
            self._error += error
        return [fills[number] for number in range(len(canvases))]

    def score(self, context: Context, text: str, spans: Sequence[tuple[int, int]]) -> list[float]:
        """Return the log-probability of each character span of `text`, given `context`, in nats."""
        nats: list[float] = wait_for(self._submit("score", context, text, spans))
        return nats

    def score_all(self, requests: Sequence[ScoreRequest]) -> list[list[float]]:
        """Return what `score` does for each request, in order."""
        futures = [self._submit("score", one.context, one.text, one.spans) for one in requests]
        return gather(futures, "text", [1] * len(requests))

    def _submit(self, method: str, *arguments: Any) -> Future[Any]:
        return self._executor.submit(Item("denoiser", method, arguments))
