"""The tasks of the search benchmark: rows, a terse seed prompt, a metric, human templates.

A task names no path of a machine: the folder of the data sets is an argument. The order of NAMES is
the order of the grid.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from remask.ports import Metric

CHOICE = ("sst2", "letters", "reviews", "snli", "mrpc", "sst5")  # labels by forced choice, and two others
FREE = ("reviews", "sst5_free", "snli_free", "mrpc_free", "letters")  # answers in the target's own words
DRAWN = ("subject", "hidden_a", "hidden_b")  # one more of generation, and rules that only traces show
NAMES = tuple(dict.fromkeys((*CHOICE, *FREE, *DRAWN)))
Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BenchTask:
    """A task that every optimiser gets in the same form."""

    name: str
    seed_prompt: str  # terse on purpose
    input: str  # template over the columns of a row: the user message
    answer: str  # the sentence in which the target would say a label
    templates: tuple[str, ...]  # prompts that people wrote for the task
    read: Callable[[Path, str], list[Row]]  # (folder of the data sets, file) -> all its rows
    labels: tuple[str, ...] = ()  # empty: the task is one of generation
    free: bool = False  # the target answers in its own words instead of choosing a label
    metric: str | Metric = "label"
    max_tokens: int = 8  # of an answer that is generated


def load_task(name: str) -> BenchTask:
    from benchmarks.tasks import classification, hidden, letters, subject  # here: they need BenchTask

    drawn = {task.name: task for task in (letters.TASK, subject.TASK)}
    return {**classification.TASKS, **drawn, **hidden.TASKS}[name]


def jsonl(folder: str, data: Path, file: str) -> list[Row]:
    """The rows of `data`/folder/file.jsonl; each has the column label."""
    path = data / folder / f"{file}.jsonl"
    if not path.is_file():
        raise SystemExit(f"{path}: there is no such file; give the folder of the data with --data")
    rows = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise SystemExit(f"{path}, line {number}: no JSON ({error})") from None
            if not isinstance(row, dict):
                raise SystemExit(f"{path}, line {number}: no JSON object with columns and label")
            rows.append(row)
    return rows
