"""Read the prompts to train on, each with the conversations that it produced.

There are two sources: rows of prompts with examples (`prompt`, `examples` of `input`, `output`,
`feedback`, `correct`), and conversations in any form that `remask traces inspect` reads, joined by
their system prompt.
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
from remask.data.ratings import RatingStats, find_scales
from remask.data.record_to_trace import trace_from_record
from remask.data.redact.redact import Placeholders, redact_text
from remask.data.trace_reader import read_records
from remask.data.trace_record import Record, RejectedRecord, Value
from remask.errors import ConfigError, DataError
from remask.ids import content_id
from remask.types import Feedback, Trace

MIN_PROMPT_WORDS = 8
# Share of right answers that are replaced by a wrong one, if another example's answer is known.
WRONG_ANSWER_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """One prompt and the conversations under it."""

    prompt: str
    traces: tuple[Trace, ...]
    licence: str = ""
    task: str = ""  # the name of the prompt in its source

    @property
    def id(self) -> str:
        """A hash of the prompt's text only, so a prompt is held out from every source."""
        return content_id("prompt", self.prompt)


def read_examples(paths: Sequence[Path], leave_out: str = "") -> list[TrainingExample]:
    """Read the prompts of files, or of JSONL files in folders; equal prompts become one example.

    `leave_out` is a regular expression. Prompts are left out if it matches their task's name or
    their text. Raises DataError if no prompt is left, ConfigError if `leave_out` is invalid.
    """
    try:
        excluded = re.compile(leave_out, re.IGNORECASE) if leave_out else None
    except re.error as error:
        raise ConfigError(f"{leave_out!r} is not a regular expression: {error}") from None
    by_prompt: dict[str, list[TrainingExample]] = defaultdict(list)
    for file in _list_files(paths):
        for example in _read_rows(file) if _holds_prompts(file) else _read_conversations(file):
            texts = (example.task, example.prompt)
            drop = excluded is not None and any(excluded.search(text) for text in texts)
            if len(example.prompt.split()) >= MIN_PROMPT_WORDS and not drop:
                by_prompt[example.prompt].append(example)
    if not by_prompt:
        raise DataError(
            f"there is no prompt of {MIN_PROMPT_WORDS} words or more; expected rows with prompt "
            "and examples, or conversations with a system prompt",
            paths[0],
        )
    return [_merge_examples(prompt, examples) for prompt, examples in by_prompt.items()]


def hold_out(
    examples: Iterable[TrainingExample], n: int
) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """Split examples into (kept, held out).

    Held out are the `n` examples with conversations whose ids sort first, so the same prompts are
    held out from any corpus that contains them.
    """
    ranked = sorted((example for example in examples if example.traces), key=lambda e: e.id)
    held = ranked[:n]
    ids = {example.id for example in held}
    return [example for example in examples if example.id not in ids], held


def draw_traces(example: TrainingExample, rng: np.random.Generator) -> list[Trace]:
    """Return the example's traces in a drawn order, with a wrong response in some of them.

    In use most traces of the context are failures: the target's answer, quoted as wrong, and the
    right one. So the answer of another trace takes the place of the target's.
    """
    answers = sorted({trace.desired for trace in example.traces if trace.desired})
    traces = []
    for i in rng.permutation(len(example.traces)):
        trace = example.traces[i]
        others = [text for text in answers if text != trace.desired]
        is_right = trace.desired and trace.response == trace.desired
        if is_right and others and rng.random() < WRONG_ANSWER_SHARE:
            other = others[int(rng.integers(len(others)))]
            trace = Trace(trace.id, trace.query, other, trace.desired, trace.feedback, 0.0)
        traces.append(trace)
    return traces


def _list_files(paths: Sequence[Path]) -> Iterator[Path]:
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
    """Return whether the first row of `file` has a prompt with examples."""
    first = next(read_values(file), None)
    row = first.data if isinstance(first, Value) else None
    return isinstance(row, dict) and isinstance(row.get("prompt"), str) and "examples" in row


def _read_rows(file: Path) -> Iterator[TrainingExample]:
    for value in read_values(file):
        if isinstance(value, RejectedRecord):
            raise DataError(value.reason, file, value.line)
        row, line = value.data, value.line
        try:
            prompt, items = row["prompt"].strip(), row.get("examples") or []
            traces = tuple(_parse_example(item, f"{line}.{i}") for i, item in enumerate(items))
        except (KeyError, TypeError, AttributeError) as error:
            reason = f"not a row of prompt and examples with input and output ({error})"
            raise DataError(reason, file, line) from error
        yield TrainingExample(prompt, traces, as_text(row.get("license")), as_text(row.get("task")))


def _parse_example(value: Mapping[str, Any], name: str) -> Trace:
    """Make a trace; the output is the desired answer unless it is marked as wrong."""
    query, answer = as_text(value["input"]), as_text(value["output"])
    comment = as_text(value.get("feedback") or None)
    feedback = (Feedback("comment", comment),) if comment else ()
    if value.get("correct") is False:
        return Trace(name, query, answer, None, feedback, 0.0)
    return Trace(name, query, answer, answer, feedback, 1.0)


def _read_conversations(file: Path) -> Iterator[TrainingExample]:
    seen: dict[str, RatingStats] = defaultdict(RatingStats)
    records = []
    for item in read_records([file]):
        if isinstance(item, Record) and item.system:
            records.append(item)
            for rating in item.ratings:
                seen[rating.name].add(rating)
    scales, placeholders = find_scales(seen, {}), Placeholders()
    for record in records:
        trace = _redact_trace(trace_from_record(record, scales), placeholders)
        yield TrainingExample(redact_text(record.system or "", placeholders).strip(), (trace,))


def _redact_trace(trace: Trace, placeholders: Placeholders) -> Trace:
    """Remove secrets and personal data, since a trained model can repeat its training text."""
    return replace(
        trace,
        query=redact_text(trace.query, placeholders),
        response=redact_text(trace.response, placeholders),
        desired=None if trace.desired is None else redact_text(trace.desired, placeholders),
        feedback=tuple(replace(f, text=redact_text(f.text, placeholders)) for f in trace.feedback),
    )


def _merge_examples(prompt: str, examples: Sequence[TrainingExample]) -> TrainingExample:
    traces = {(t.query, t.response): t for example in examples for t in example.traces}
    licences = sorted({example.licence for example in examples if example.licence})
    return TrainingExample(prompt, tuple(traces.values()), ", ".join(licences), examples[0].task)
