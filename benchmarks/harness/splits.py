"""Which rows a cell gets: 50 to train, 150 to validate, 300 withheld, the sealed test.

Train and validation rows come from the training file and differ from seed to seed; the withheld
rows come from the validation file and the test rows from the test file, the same for all seeds and
optimisers, so that rows can be paired.
"""

from collections.abc import Sequence
from pathlib import Path

from remask.identity import rng_for
from remask.task.dataset import Columns, load
from remask.trace import Example
from tasks import BenchTask, Row

TRAIN, VALIDATION, WITHHELD, TEST = 50, 150, 300, 500


def search_rows(task: BenchTask, data: Path, seed: int) -> tuple[Example, ...]:
    """The rows that an optimiser may see, with the splits train and validation."""
    rows = _drawn(task.read(data, "train"), TRAIN + VALIDATION, seed, task.name, "search")
    split = [{**row, "split": "train" if i < TRAIN else "validation"} for i, row in enumerate(rows)]
    return _examples(task, split)


def withheld_rows(task: BenchTask, data: Path) -> tuple[Example, ...]:
    """Rows for curves, which no search sees."""
    rows = _drawn(task.read(data, "validation"), WITHHELD, 0, task.name, "withheld")
    return _examples(task, [{**row, "split": "validation"} for row in rows])


def test_rows(task: BenchTask, data: Path) -> tuple[Example, ...]:
    """The sealed rows; read only when a finished search is scored."""
    rows = _drawn(task.read(data, "test"), TEST, 0, task.name, "test")
    return _examples(task, [{**row, "split": "test"} for row in rows])


def _drawn(rows: Sequence[Row], n: int, seed: int, *path: str) -> list[Row]:
    if len(rows) < n:
        raise SystemExit(f"{'/'.join(path)}: {len(rows)} rows, but {n} are needed")
    return [rows[i] for i in rng_for(seed, "bench", *path).permutation(len(rows))[:n]]


def _examples(task: BenchTask, rows: Sequence[Row]) -> tuple[Example, ...]:
    return tuple(load(rows, Columns(task.input, "label", "split"), (0.25, 0.25, 0.5)).examples)
