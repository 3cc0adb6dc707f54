"""Run an Inspect task as the task of a search: its samples are the rows, its scorers the metric.

The models are passed in, metered and with the prompt under test in place (models.InspectModels). The
code of the task is not changed: solver, tools, sandboxes and scorers run as Inspect runs them.
"""

import asyncio
import contextlib
import json
import math
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import inspect_ai
from inspect_ai import Task as InspectDefinition
from inspect_ai import task_with
from inspect_ai._eval.loader import load_tasks
from inspect_ai._util._async import run_coroutine
from inspect_ai._util.error import PrerequisiteError
from inspect_ai._util.platform import platform_init
from inspect_ai._util.registry import registry_params
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalSampleSummary, read_eval_log_sample_summaries
from inspect_ai.scorer import Score, value_to_float
from inspect_ai.util._display import init_display_type

from remask.data.dataset import LoadedDataset, normalize_input, split_by_hash
from remask.errors import BackendError, ConfigError
from remask.ids import content_id
from remask.models.requests import GRACE_SECONDS, POLL_SECONDS
from remask.prompt import Prompt
from remask.runs.ledger import never_stop
from remask.tasks.inspect.models import InspectModels, SampleRecord
from remask.types import Example, Feedback, Outcome, Split, Trace

MAX_SAMPLES_PER_EVALUATION = 32
# Words that Inspect converts to numbers.
SCORE_WORDS = {"C", "I", "P", "N", "yes", "no", "true", "false"}
_to_float = value_to_float()


@dataclass(frozen=True, slots=True)
class Suite:
    """A loaded Inspect task: its definition, and its samples by the id of their example."""

    name: str
    definition: InspectDefinition
    samples: Mapping[str, Sample]
    dataset: LoadedDataset


def load_suite(name: str, args: Mapping[str, Any], fractions: Sequence[float]) -> Suite:
    """Load the task `name`, written as for `inspect eval`: package/task or file.py@task.

    Inspect has no splits, so they are derived from the content of the samples; equal inputs are in
    the same split. `fractions`: train, validation and test. Raises ConfigError.
    """
    definition = _load_definition(name, args)
    samples = [sample.model_copy(deep=True) for sample in definition.dataset]
    if not samples:
        raise ConfigError(f"the Inspect task {name} has no samples")
    texts = _strip_common_lines([_read_input(sample) for sample in samples])
    splits = split_by_hash((normalize_input(text) for text in texts), fractions)
    version = f"inspect_ai {inspect_ai.__version__}, version {definition.version}"
    examples: dict[str, Example] = {}
    known: dict[str, Sample] = {}
    for sample, text in zip(samples, texts, strict=True):
        id = content_id("sample", version, _serialise(sample))
        if sample.id is None:
            sample.id = id
        target = sample.target if isinstance(sample.target, str) else "\n".join(sample.target)
        split, place = splits[normalize_input(text)], f"sample {sample.id}"
        examples[id] = Example(id, split, text, target or None, place=place)
        known[id] = sample
    twice = len(samples) - len(examples)
    warnings = (f"left out {twice} samples that repeat an earlier one exactly",) if twice else ()
    return Suite(name, definition, known, LoadedDataset(tuple(examples.values()), warnings))


@dataclass(frozen=True, slots=True)
class SampleTask:
    """Implements ports.Task over a suite.

    `epochs`: runs of each sample, whose scores are averaged. `scorer`: NAME, or NAME/KEY for one
    value of a score with several values; "" is the first scorer. `log_dir`: for the logs of
    Inspect.
    """

    suite: Suite
    models: InspectModels
    epochs: int
    scorer: str
    concurrency: int
    log_dir: Path
    labels: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def ids(self, split: Split) -> tuple[str, ...]:
        """Return the samples of a split, ordered by id, since a task may shuffle its samples."""
        return tuple(sorted(e.id for e in self.suite.dataset.examples if e.split == split))

    def evaluate(self, prompt: Prompt, ids: Sequence[str]) -> list[Outcome]:
        """Score the prompt on samples. Returns one Outcome per id, in order.

        A sample that was scored before is not run again. Raises KeyError for an unknown id,
        BudgetSpent, TargetRefused, and BackendError where Inspect cannot run the task.
        """
        keys = {id: self._make_key(prompt, id) for id in ids}
        known = self.models.load_values(list(keys.values()))
        outcomes = {id: _decode(id, known[key]) for id, key in keys.items() if key in known}
        left = [id for id in keys if id not in outcomes]
        for at in range(0, len(left), MAX_SAMPLES_PER_EVALUATION):
            # Reserve for all remaining samples, since a part of the rows cannot rank prompts.
            self.models.begin(prompt, self.epochs * (len(left) - at))
            for outcome in self._run(left[at : at + MAX_SAMPLES_PER_EVALUATION]):
                outcomes[outcome.example] = outcome
                if outcome.status == "scored":
                    self.models.save_value(keys[outcome.example], _encode(outcome))
            self.models.end()
        return [outcomes[id] for id in ids]

    def _make_key(self, prompt: Prompt, id: str) -> str:
        parts = (self.models.identity, id, prompt.text, self.epochs, self.scorer)
        return content_id("inspect outcome", *parts)

    def _run(self, ids: Sequence[str]) -> Iterator[Outcome]:
        samples = {id: self.suite.samples[id].model_copy(deep=True) for id in ids}
        runs = run_inspect(
            self.suite,
            list(samples.values()),
            self.models.open_models,
            log_dir=self.log_dir,
            checkpoint=self.models.ledger.checkpoint,
            epochs=self.epochs,
            max_samples=self.concurrency,
        )
        for id, sample in samples.items():
            own = [run for run in runs if str(run.id) == str(sample.id)]
            yield _average_epochs(id, [self._make_outcome(id, sample, run) for run in own])

    def _make_outcome(self, id: str, sample: Sample, run: EvalSampleSummary) -> Outcome:
        record = self.models.find_record(str(run.id), run.epoch)
        error = record.error or (run.error or "")
        if not error and not record.chat:
            error = f"none of the {record.calls} calls of the model contained the prompt"
        if error:
            return Outcome(id, "failed", error=error)
        value, words = read_score(run.scores or {}, self.scorer)
        if isinstance(value, str):
            return Outcome(id, "failed", error=value)
        return Outcome(id, "scored", value, value, trace=_make_trace(id, sample, record, value, words))


def run_inspect(
    suite: Suite,
    samples: Sequence[Sample],
    open_models: Callable[[], AbstractAsyncContextManager[tuple[Any, Mapping[str, Any]]]],
    *,
    log_dir: Path,
    checkpoint: Callable[[], None] = never_stop,
    **options: Any,
) -> list[EvalSampleSummary]:
    """Evaluate samples with Inspect and return the summary of each run of a sample.

    `open_models` gives the model under test and the models of the roles; `options` are passed to
    Inspect. An error of a sample stays in its summary. Output of the task goes to stderr, since
    remask prints results to stdout. Soon after `checkpoint` raises, the evaluation is cancelled,
    whatever it waits for, and the exception is raised here. Raises BackendError, and
    KeyboardInterrupt where the user cancelled the evaluation.
    """
    definition = task_with(suite.definition, dataset=MemoryDataset(list(samples), suite.name))

    async def evaluate() -> Any:
        # Not inspect_ai.eval: connections must be closed in the event loop that opened them.
        async with open_models() as (model, roles):
            return await _stop_at_checkpoint(
                inspect_ai.eval_async(
                    definition,
                    model=model,
                    model_roles=dict(roles),
                    log_dir=str(log_dir),
                    log_level="error",
                    log_realtime=False,
                    log_header_only=True,
                    log_model_api=False,
                    fail_on_error=False,
                    score_display=False,
                    ctl_server=False,
                    **options,
                ),
                checkpoint,
            )

    platform_init()
    init_display_type("none")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            log = run_coroutine(evaluate())[0]
    except PrerequisiteError as error:
        raise BackendError(f"Inspect cannot run {suite.name}: {error.message}") from error
    if log.status == "cancelled":
        raise KeyboardInterrupt
    if log.status == "error":
        why = log.error.message if log.error else "no reason given"
        raise BackendError(f"Inspect cannot run {suite.name}: {why}")
    # Summaries hold scores and explanations. Whole samples of an agent with a database are
    # megabytes each, and reading them takes as long as running them.
    return read_eval_log_sample_summaries(log.location)


async def _stop_at_checkpoint(evaluation: Coroutine[Any, Any, Any], checkpoint: Callable[[], None]) -> Any:
    """Await an evaluation; GRACE_SECONDS after `checkpoint` raises, cancel it and raise the same."""
    running = asyncio.ensure_future(evaluation)
    while not running.done():
        await asyncio.wait([running], timeout=POLL_SECONDS)
        try:
            checkpoint()
        except BaseException:
            await asyncio.wait([running], timeout=GRACE_SECONDS)
            running.cancel()
            await asyncio.wait([running])
            raise
    return running.result()


def _load_definition(name: str, args: Mapping[str, Any]) -> InspectDefinition:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            found = load_tasks([name], dict(args))
    except (PrerequisiteError, ImportError, LookupError, OSError) as error:
        raise ConfigError(f"the Inspect task {name!r} cannot be loaded: {error}") from error
    except (TypeError, ValueError) as error:  # raised by the task's own function
        raise ConfigError(f"the Inspect task {name!r} refuses its arguments: {error}") from error
    if len(found) != 1:
        what = f"{len(found)} tasks" if found else "no task of Inspect"
        raise ConfigError(
            f"{name!r} is {what}; give PACKAGE/TASK, such as inspect_evals/tau2_airline, or FILE.py@TASK"
        )
    taken = registry_params(found[0])
    if unknown := sorted(set(args) - set(taken)):
        raise ConfigError(f"the Inspect task {name} has no argument {unknown[0]!r}")
    return found[0]


# --- samples as rows


def _read_input(sample: Sample) -> str:
    if isinstance(sample.input, str):
        return sample.input
    return "\n".join(message.text for message in sample.input)


def _strip_common_lines(texts: Sequence[str]) -> list[str]:
    """Return the inputs without the lines that all of them begin with, such as a preamble."""
    lines = [text.splitlines() for text in texts]
    common = takewhile(lambda row: len(set(row)) == 1, zip(*lines, strict=False))
    same = sum(1 for _ in common) if len(texts) > 1 else 0
    return ["\n".join(part[same:]) or text for part, text in zip(lines, texts, strict=True)]


def _serialise(sample: Sample) -> str:
    """Return everything of a sample that can change its run, as JSON.

    Inspect draws new ids of messages each time, so they are left out.
    """
    value = sample.model_dump(exclude_none=True)
    if isinstance(value["input"], list):
        for message in value["input"]:
            message.pop("id", None)
    return json.dumps(value, ensure_ascii=True, sort_keys=True, default=str)


# --- scores and conversations as outcomes


def read_score(scores: Mapping[str, Score], wanted: str) -> tuple[float | str, str]:
    """Return the value of a score, or an error message in its place, and the explanation."""
    name, _, part = wanted.partition("/")
    score = scores.get(name) if name else next(iter(scores.values()), None)
    if score is None:
        known = ", ".join(scores) or "none"
        return f"there is no score {name or 'of this sample'!r}; scores: {known}", ""
    value: Any = score.value
    if part and isinstance(value, dict):
        value = value.get(part)
    if isinstance(value, dict | list) or value is None:
        keys = f" ({', '.join(map(str, value))})" if isinstance(value, dict) else ""
        return f"its score has several values{keys}; set task.scorer = NAME/KEY", ""
    if isinstance(value, str) and value not in SCORE_WORDS and not _is_number(value):
        return f"its score {value!r} is not a number", ""
    number = _to_float(value)
    if not math.isfinite(number) or not 0 <= number <= 1:
        return f"its score {number} is not between 0 and 1", ""
    words = (score.explanation or "").strip()
    return number, "" if words == (score.answer or "").strip() else words


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _make_trace(id: str, sample: Sample, record: SampleRecord, score: float, words: str) -> Trace:
    """Make a trace of the first user message and of all that the model wrote and called.

    The target of the sample is the right response only in a conversation of one response.
    """
    queries = [m.content for m in record.chat if m.role == "user"]
    responses = [m.content for m in record.chat if m.role == "assistant" and m.content]
    target = sample.target if isinstance(sample.target, str) else ""
    return Trace(
        id=id,
        query=queries[0] if queries else "",
        response="\n".join(responses),
        desired=target if target and len(responses) == len(queries) == 1 else None,
        feedback=(Feedback("comment", words),) if words else (),
        score=score,
    )


def _average_epochs(id: str, tries: Sequence[Outcome]) -> Outcome:
    """Average the scores of all epochs. The trace is that of the worst epoch."""
    failed = [t for t in tries if t.status == "failed"]
    if failed or not tries:
        return failed[0] if failed else Outcome(id, "failed", error="Inspect did not run it")
    score = sum(t.score for t in tries) / len(tries)
    worst = min(tries, key=lambda t: t.score)
    return Outcome(id, "scored", score, score, trace=worst.trace)


def _encode(outcome: Outcome) -> dict[str, Any]:
    trace = outcome.trace
    assert trace is not None  # every scored outcome has one
    return {
        "score": outcome.score,
        "query": trace.query,
        "response": trace.response,
        "desired": trace.desired,
        "feedback": [note.text for note in trace.feedback],
        "worst": trace.score,
    }


def _decode(id: str, stored: Mapping[str, Any]) -> Outcome:
    notes = tuple(Feedback("comment", text) for text in stored["feedback"])
    trace = Trace(id, stored["query"], stored["response"], stored["desired"], notes, score=stored["worst"])
    return Outcome(id, "scored", stored["score"], stored["score"], trace=trace)
