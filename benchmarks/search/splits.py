"""Which rows a cell gets: to train, to validate, withheld, and the sealed test.

Train and validation rows come from the training file and differ from seed to seed; the withheld
rows come from the validation file and the test rows from the test file, the same for all seeds and
optimisers, so that rows can be paired. How many they are is part of the protocol.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.search.cells import Protocol
from benchmarks.tasks import BenchTask, Row
from remask.identity import rng_for
from remask.task.dataset import Columns, load
from remask.trace import Example, Split


def search_rows(task: BenchTask, data: Path, seed: int, sizes: Protocol) -> tuple[Example, ...]:
    """The rows that an optimiser may see, with the splits train and validation."""
    n = sizes.train + sizes.validation
    rows = _drawn(_enough(task, data, "train", n), n, seed, task.name, "search")
    return _examples(task, rows[: sizes.train], "train") + _examples(
        task, rows[sizes.train :], "validation"
    )


def withheld_rows(task: BenchTask, data: Path, sizes: Protocol) -> tuple[Example, ...]:
    """Rows for curves, which no search sees."""
    rows = _enough(task, data, "validation", sizes.withheld)
    drawn = _drawn(rows, sizes.withheld, 0, task.name, "withheld")
    return _examples(task, drawn, "validation")


def test_rows(task: BenchTask, data: Path, sizes: Protocol) -> tuple[Example, ...]:
    """The sealed rows; read only when a finished search is scored. All of a smaller file."""
    rows = _enough(task, data, "test", 1)
    return _examples(task, _drawn(rows, sizes.test, 0, task.name, "test"), "test")


def check_rows(task: BenchTask, data: Path, sizes: Protocol) -> None:
    """Whether a grid would have its rows, before its first call; the test file stays closed.

    Raises SystemExit.
    """
    search_rows(task, data, 0, sizes)
    withheld_rows(task, data, sizes)


def _enough(task: BenchTask, data: Path, file: str, n: int) -> list[Row]:
    """The different rows of a file, at least `n`."""
    rows = list({task.input.format(**row): row for row in task.read(data, file)}.values())
    if len(rows) < n:
        raise SystemExit(
            f"{task.name}: the {file} file has {len(rows)} different rows, but the protocol needs "
            f"{n}; give more rows, or ask for fewer (--train, --validation, --withheld)"
        )
    return rows


def _drawn(rows: Sequence[Row], n: int, seed: int, *path: str) -> list[Row]:
    return [rows[i] for i in rng_for(seed, "bench", *path).permutation(len(rows))[:n]]


def _examples(task: BenchTask, rows: Sequence[Row], split: Split) -> tuple[Example, ...]:
    marked = [{**row, "split": split} for row in rows]
    return tuple(load(marked, Columns(task.input, "label", "split")).examples)
