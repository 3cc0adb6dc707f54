"""Prompts to train on, each with the conversations that it produced.

Two sources: rows of prompts with examples (`prompt`, `examples` of `input`, `output`, `feedback`,
`correct`), and conversations in any form that `remask traces inspect` reads, put together by
their system prompt. Knows files and traces; knows no tokens.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from remask.data.json_stream import read_values
from remask.data.messages import as_text
from remask.data.prompt_traces import trace_from_record
from remask.data.ratings import RatingStats, find_scales
from remask.data.redact.redact import Placeholders, redact_text
from remask.data.trace_reader import read_records
from remask.data.trace_record import Record, RejectedRecord, Value
from remask.errors import ConfigError, DataError
from remask.ids import content_id
from remask.types import Feedback, Trace

SHORTEST = 8  # words of a prompt
WRONG = 0.5  # share of examples that are shown with a wrong answer, where another one is known


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """One prompt and what is known of the conversations under it."""

    prompt: str
    traces: tuple[Trace, ...]
    licence: str = ""
    task: str = ""  # what the source calls it

    @property
    def id(self) -> str:
        """Of the prompt's text alone, so that a prompt is held out wherever it stands."""
        return content_id("prompt", self.prompt)


def read_cases(paths: Sequence[Path], leave_out: str = "") -> list[TrainingExample]:
    """The prompts of files, or of the JSONL files of folders; equal prompts are one case.

    leave_out: a regular expression; what it finds in a task's name or a prompt's text is left out.
    Raises DataError where nothing is left, ConfigError where `leave_out` is no expression.
    """
    try:
        never = re.compile(leave_out, re.IGNORECASE) if leave_out else None
    except re.error as error:
        raise ConfigError(f"{leave_out!r} is not a regular expression: {error}") from None
    joined: dict[str, list[TrainingExample]] = defaultdict(list)
    for file in _files(paths):
        for case in _rows(file) if _holds_prompts(file) else _conversations(file):
            known = never is not None and (never.search(case.task) or never.search(case.prompt))
            if len(case.prompt.split()) >= SHORTEST and not known:
                joined[case.prompt].append(case)
    if not joined:
        raise DataError(
            f"no prompt of {SHORTEST} words or more is in there; expected rows with prompt and "
            "examples, or conversations with a system prompt",
            paths[0],
        )
    return [_one(prompt, cases) for prompt, cases in joined.items()]


def hold_out(
    cases: Iterable[TrainingExample], n: int
) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """(kept, held out): of the cases with conversations those `n` whose ids come first, so that
    the same prompts are held out whatever else is in the corpus."""
    ranked = sorted((case for case in cases if case.traces), key=lambda case: case.id)
    held = ranked[:n]
    ids = {case.id for case in held}
    return [case for case in cases if case.id not in ids], held


def shown(case: TrainingExample, rng: np.random.Generator) -> list[Trace]:
    """The case's traces in a drawn order; some right answers with a wrong one in their place.

    In use the context is mostly failures: the target's answer, quoted as wrong, and the right
    one. So another example's answer plays the target's.
    """
    answers = sorted({trace.desired for trace in case.traces if trace.desired})
    made = []
    for i in rng.permutation(len(case.traces)):
        trace = case.traces[i]
        others = [text for text in answers if text != trace.desired]
        if trace.desired and trace.response == trace.desired and others and rng.random() < WRONG:
            other = others[int(rng.integers(len(others)))]
            trace = Trace(trace.id, trace.query, other, trace.desired, trace.feedback, 0.0)
        made.append(trace)
    return made


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = sorted(path.glob("*.jsonl"))
            if not found:
                raise DataError("this folder holds no .jsonl file", path)
            yield from found
        elif path.exists():
            yield path
        else:
            raise DataError("there is no such file or folder", path)


def _holds_prompts(file: Path) -> bool:
    first = next(read_values(file), None)
    row = first.data if isinstance(first, Value) else None
    return isinstance(row, dict) and isinstance(row.get("prompt"), str) and "examples" in row


def _rows(file: Path) -> Iterator[TrainingExample]:
    for value in read_values(file):
        if isinstance(value, RejectedRecord):
            raise DataError(value.reason, file, value.line)
        row, line = value.data, value.line
        try:
            prompt, examples = row["prompt"].strip(), row.get("examples") or []
            traces = tuple(_example(e, f"{line}.{i}") for i, e in enumerate(examples))
        except (KeyError, TypeError, AttributeError) as error:
            reason = f"not a row of prompt and examples with input and output ({error})"
            raise DataError(reason, file, line) from error
        yield TrainingExample(prompt, traces, as_text(row.get("license")), as_text(row.get("task")))


def _example(value: Mapping[str, Any], name: str) -> Trace:
    """A right answer is the desired one; a wrong one stands with what was said of it."""
    query, answer = as_text(value["input"]), as_text(value["output"])
    words = as_text(value.get("feedback") or None)
    notes = (Feedback("comment", words),) if words else ()
    if value.get("correct") is False:
        return Trace(name, query, answer, None, notes, 0.0)
    return Trace(name, query, answer, answer, notes, 1.0)


def _conversations(file: Path) -> Iterator[TrainingExample]:
    seen: dict[str, RatingStats] = defaultdict(RatingStats)
    records = []
    for item in read_records([file]):
        if isinstance(item, Record) and item.system:
            records.append(item)
            for rating in item.ratings:
                seen[rating.name].add(rating)
    scales, placeholders = find_scales(seen, {}), Placeholders()
    for record in records:
        trace = _hidden(trace_from_record(record, scales), placeholders)
        yield TrainingExample(redact_text(record.system or "", placeholders).strip(), (trace,))


def _hidden(trace: Trace, placeholders: Placeholders) -> Trace:
    """Without secrets and personal details: what is trained on can come out again."""
    return replace(
        trace,
        query=redact_text(trace.query, placeholders),
        response=redact_text(trace.response, placeholders),
        desired=None if trace.desired is None else redact_text(trace.desired, placeholders),
        feedback=tuple(replace(f, text=redact_text(f.text, placeholders)) for f in trace.feedback),
    )


def _one(prompt: str, cases: Sequence[TrainingExample]) -> TrainingExample:
    traces = {(t.query, t.response): t for case in cases for t in case.traces}
    licences = sorted({case.licence for case in cases if case.licence})
    return TrainingExample(prompt, tuple(traces.values()), ", ".join(licences), cases[0].task)
