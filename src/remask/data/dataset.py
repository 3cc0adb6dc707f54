"""Convert rows into examples: build the message from columns and assign the splits.

Ids and splits follow from the content of a row, so the same rows in another order or in another
file give the same examples.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from remask.data.placeholders import MESSAGE, list_variables, substitute
from remask.data.rows import SPLIT_NAMES, DataRow, RowProblems, list_column_rows, read_rows, rows_from_records
from remask.data.trace_record import UnreadableRecord
from remask.errors import ConfigError
from remask.ids import content_id
from remask.types import Example, Split

RowSource = str | Path | Iterable[Mapping[str, Any]]  # a file, or rows from Python
DataSource = RowSource | Mapping[str, RowSource]  # one place, or one per split

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FRACTIONS = (0.25, 0.25, 0.5)  # of SPLITS; the test split decides the verdict, so it gets half
_MAX_LISTED = 4  # names in a warning
NO_ANSWERS = "; without right answers, name a judge: --judge openai:MODEL --rubric 'a good answer …'"


@dataclass(frozen=True, slots=True)
class Columns:
    """The roles of columns.

    input: the name of a column, or a template such as "Premise: {premise}\\nClaim: {claim}", where
    {{ and }} are plain braces. Only {column} is replaced; nothing is evaluated. expected: the
    column with the right answer. split: the column with train, validation (val, valid, dev) or
    test. optional: whether the column `expected` may be missing in all rows. parse: checks a right
    answer and returns it in one form, or raises ValueError; it also reads blank ones, and of a chat
    the last message as JSON.
    """

    input: str = "input"
    expected: str | None = None
    split: str | None = None
    optional: bool = False
    parse: Callable[[str], str] | None = None


@dataclass(frozen=True, slots=True)
class LoadedDataset:
    """The examples of a data set. `labels` are the distinct right answers, sorted."""

    examples: tuple[Example, ...]
    warnings: tuple[str, ...] = ()  # one sentence each, for the user
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _LoadedRows:
    """Rows of one file or of one Python object, and the split that it was given for, if any."""

    name: str  # for errors
    split: Split | None
    rows: Sequence[DataRow]
    problems: RowProblems


Guards = tuple[str, Collection[str]]  # a column, and the guard sets that it names


@dataclass(frozen=True, slots=True)
class _Draft:
    """A row that becomes an Example once its split is known."""

    input: str
    expected: str | None
    row: Mapping[str, str]
    split: Split | None  # None: assigned by content hash
    place: str  # file:line

    @property
    def id(self) -> str:
        return content_id("example", self.input, self.expected)

    @property
    def normalized_input(self) -> str:
        return normalize_input(self.input)


def load(
    data: DataSource,
    columns: Columns,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    skip_invalid: bool = False,
    guards: Guards = ("", ()),
) -> LoadedDataset:
    """Load a data set from a path, from Python rows, or from a mapping of splits to one of these.

    The splits come from the mapping, else from `columns.split`, else from a content hash with the
    shares `fractions` (train, validation, test). `seed` gives other splits; it is not the seed of a
    run, because that must not change the test. `Example.row` has all columns except `expected` and
    `split`, so a prompt or a metric that uses columns cannot reveal the answer.

    Exact duplicates are dropped; of these a row of `guards` stays. If an input occurs in two splits,
    only the rows of the more protected split stay (test before validation before train). `warnings`
    report both.
    With `skip_invalid`, rows that cannot be used are left out, and a warning says how many.
    Raises ConfigError for a wrong setting and DataError for a malformed file.
    """
    sources = _read_sources(data, columns)
    rows = [row for source in sources for row in source.rows]
    if columns.optional and columns.expected and not any(row.has(columns.expected) for row in rows):
        columns = replace(columns, expected=None)
    if rows:
        names = _check_columns(columns, rows)
        drafts = [draft for source in sources for draft in _build_drafts(source, columns, names)]
    problems = [source.problems for source in sources if source.problems.count]
    if problems and not (skip_invalid and drafts):
        raise problems[0].make_error()
    if all(draft.split is None for draft in drafts):
        splits = split_by_hash((d.normalized_input for d in drafts), fractions, seed)
    else:
        splits = _choose_protected_splits(drafts)
    kept = [d for d in drafts if d.split in (None, splits[d.normalized_input])]
    unique: dict[str, Example] = {}
    for d in kept:
        split = splits[d.normalized_input]
        if d.id not in unique or (_is_guard(d.row, guards) and not _is_guard(unique[d.id].row, guards)):
            unique[d.id] = Example(d.id, split, d.input, d.expected, d.row, d.place)
    examples = tuple(unique.values())
    warnings = _list_warnings(len(drafts) - len(kept), len(kept) - len(unique), examples)
    warnings = (*(found.describe() for found in problems), *warnings)
    labels = tuple(sorted({e.expected for e in examples if e.expected is not None}))
    return LoadedDataset(examples, warnings, labels)


def _is_guard(row: Mapping[str, str], guards: Guards) -> bool:
    column, names = guards
    return row.get(column, "").strip() in names


def assign_guards(dataset: LoadedDataset, guards: Guards) -> LoadedDataset:
    """Mark the rows of guard sets.

    They are no part of the score and are never shown to a denoiser, so those of the train split
    join the validation split. Raises ConfigError where no row has the column.
    """
    column, names = guards
    if not any(column in e.row for e in dataset.examples):
        found = ", ".join(sorted({name for e in dataset.examples for name in e.row}))
        raise ConfigError(f"data.group (--group): no row has the column {column!r}; columns: {found}")

    def mark(example: Example) -> Example:
        if not _is_guard(example.row, guards):
            return example
        name = example.row[column].strip()
        return replace(example, guard=name, split="test" if example.split == "test" else "validation")

    others = [v for e in dataset.examples if (v := e.row.get(column, "").strip()) and v not in names]
    shown = ", ".join(map(repr, list(dict.fromkeys(others))[:_MAX_LISTED]))
    rows = "1 row has" if len(others) == 1 else f"{len(others)} rows have"
    note = f"{rows} another {column!r} ({shown}) than a guard set, so the score counts them"
    warnings = (*dataset.warnings, note) if others else dataset.warnings
    return replace(dataset, examples=tuple(map(mark, dataset.examples)), warnings=warnings)


def normalize_input(text: str) -> str:
    """Ignore case and spacing, so that such variants of an input share a split."""
    return " ".join(text.split()).casefold()


def _choose_protected_splits(drafts: Iterable[_Draft]) -> dict[str, Split]:
    """Return the most protected split of each input, which is the last one in SPLITS."""
    splits: dict[str, Split] = {}
    for draft in drafts:
        assert draft.split is not None  # set by the file or by the split column
        known = splits.get(draft.normalized_input, draft.split)
        splits[draft.normalized_input] = max(known, draft.split, key=SPLITS.index)
    return splits


def _list_warnings(leaked: int, equal: int, examples: Iterable[Example]) -> tuple[str, ...]:
    unclear = sum(n > 1 for n in Counter(e.input for e in examples).values())
    sentences = (
        (
            leaked,
            f"left out {_format_row_count(leaked)} whose input is also in a more protected split "
            "(test before validation before train)",
        ),
        (equal, f"left out {_format_row_count(equal)} that repeat an earlier row exactly"),
        (unclear, f"inputs with different right answers: {unclear}; check these rows"),
    )
    return tuple(sentence for count, sentence in sentences if count)


def _format_row_count(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def require_splits(examples: Iterable[Example], needed: Collection[Split] = SPLITS) -> None:
    """Raise ConfigError if a needed split has no rows."""
    counts = Counter(e.split for e in examples if not e.guard)
    empty = [split for split in SPLITS if split in needed and not counts[split]]
    if empty:
        found = ", ".join(f"{split} {counts[split]}" for split in SPLITS)
        raise ConfigError(
            f"the {' and the '.join(empty)} split has no rows ({found}); "
            "add rows, change the fractions or use a split column"
        )


def split_by_hash(
    inputs: Iterable[str], fractions: Sequence[float] = FRACTIONS, seed: int = 0
) -> dict[str, Split]:
    """Assign a split to every distinct input by its hash; the order of the inputs does not matter.

    The numbers of distinct inputs per split are exact (see `allocate_counts`).
    """
    order = sorted(set(inputs), key=lambda text: content_id("split", seed, text))
    splits = [split for split, n in zip(SPLITS, allocate_counts(len(order), fractions), strict=True)
              for _ in range(n)]  # fmt: skip
    return dict(zip(order, splits, strict=True))


def allocate_counts(total: int, fractions: Sequence[float]) -> tuple[int, ...]:
    """Divide `total` by `fractions` with the method of largest remainders.

    Each count differs by less than 1 from total * fraction, and they sum to `total`.
    """
    fine = len(fractions) == len(SPLITS) and all(0 <= f <= 1 for f in fractions)
    if not fine or abs(sum(fractions) - 1) > 1e-9:
        raise ConfigError(
            f"fractions {tuple(fractions)} must be three numbers from 0 to 1 that sum to 1, for "
            f"{', '.join(SPLITS)}"
        )
    exact = [total * f for f in fractions]
    whole = [int(x + 1e-9) for x in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: (whole[i] - exact[i], i))
    for i in by_rest[: total - sum(whole)]:
        whole[i] += 1
    return tuple(whole)


def render(template: str, values: Mapping[str, str]) -> str:
    """Replace {column} in `template` by values, and {{ and }} by braces. Nothing is evaluated.

    Raises KeyError for a column that `values` lacks.
    """
    return substitute(MESSAGE.read(template, None), values)


def find_columns(template: str) -> tuple[str, ...]:
    """Return the columns that a template names, each once, in order."""
    return tuple(dict.fromkeys(list_variables(MESSAGE.read(template, None))))


def _read_sources(data: DataSource, columns: Columns) -> list[_LoadedRows]:
    named = find_columns(columns.input) or (columns.input,)
    pair = (named[0], columns.expected or "label")  # the columns of (message, right answer)
    if not isinstance(data, Mapping):
        return [_read_source(data, "data", None, pair)]
    if not any(str(name).strip().lower() in SPLIT_NAMES for name in data):
        by_column = list_column_rows(data)
        if by_column is not None:
            return [_read_source([row for _, row in by_column], "data", None, pair)]
    if columns.split is not None:
        raise ConfigError(
            f"the splits are given both by separate files and by the column {columns.split!r}; "
            "use one of them"
        )
    sources: dict[Split, _LoadedRows] = {}
    for name, place in data.items():
        split = SPLIT_NAMES.get(name.strip().lower())
        if split is None:
            raise ConfigError(f"unknown split {name!r}; use one of {', '.join(SPLIT_NAMES)}")
        if split in sources:
            raise ConfigError(f"the {split} split is given twice; merge the two files")
        sources[split] = _read_source(place, name, split, pair)
    if not sources:
        raise ConfigError("the data has no split; give at least one")
    return list(sources.values())


def _read_source(place: RowSource, name: str, split: Split | None, pair: Sequence[str]) -> _LoadedRows:
    if isinstance(place, str | Path):
        problems = RowProblems(place)
        return _LoadedRows(str(place), split, read_rows(place, problems), problems)
    problems = RowProblems(name)
    rows = rows_from_records(place, name, pair, problems)
    if not rows and not problems.count:
        raise ConfigError(f"{name} has no rows; give at least one")
    return _LoadedRows(name, split, rows, problems)


def _check_columns(columns: Columns, rows: Sequence[DataRow]) -> tuple[str, ...]:
    """Return the columns of the input. Raises ConfigError if a column is unknown or leaks."""

    def known(name: str) -> bool:
        return any(row.has(name) for row in rows)

    def listed() -> str:
        return ", ".join(sorted({name for row in rows for name in row.list_columns()}))

    names = (columns.input,) if known(columns.input) else find_columns(columns.input)
    if not names:
        raise ConfigError(
            f"input {columns.input!r} is not a column and has no column in {{braces}}; the columns "
            f"are: {listed()}"
        )
    for role, name in (
        *(("input", n) for n in names),
        ("expected", columns.expected),
        ("split", columns.split),
    ):
        if name is not None and not known(name):
            hint = NO_ANSWERS if role == "expected" else ""
            raise ConfigError(
                f"{role}: no column {name!r}; the columns are: {listed()}; name one with --{role}{hint}"
            )
    holders = [n for n in names if columns.expected == n or f"{columns.expected}".startswith(f"{n}.")]
    if holders and not (columns.expected in names and rows[0].is_chat(holders[0])):
        raise ConfigError(f"input contains the right answer, column {columns.expected!r}; remove it")
    return names


def _build_drafts(source: _LoadedRows, columns: Columns, names: Sequence[str]) -> Iterator[_Draft]:
    """Yield the drafts of the rows that can be used; the others are added to the problems."""
    for number, row in enumerate(source.rows, 1):
        place = f"{Path(source.name).name}:{row.line}" if row.line else f"{source.name}:{number}"
        try:
            yield _build_draft(row, source.split, columns, names, place)
        except UnreadableRecord as error:
            source.problems.add(row.line, str(error))


def _read_answer(row: DataRow, name: str, parse: Callable[[str], str] | None) -> str:
    if parse is None:
        return row.read(name, "assistant").strip()
    try:
        return parse(row.read_message(name))
    except ValueError as error:
        raise UnreadableRecord(f"column {name!r}: {str(error).removeprefix(f'column {name!r}: ')}") from None


def _build_draft(
    row: DataRow, split: Split | None, columns: Columns, names: Sequence[str], place: str
) -> _Draft:
    """Build a draft. Raises UnreadableRecord if the row cannot be used."""
    texts = {name: row.read(name) for name in names}
    if not any(text.strip() for text in texts.values()):
        raise UnreadableRecord(f"the input is empty (column {', '.join(names)}); fill it")
    text = texts[columns.input] if columns.input in texts else render(columns.input, texts)
    expected = None
    if columns.expected is not None:
        expected = _read_answer(row, columns.expected, columns.parse)
        if not expected:
            raise UnreadableRecord(f"the right answer is empty (column {columns.expected}); fill it")
    if columns.split is not None or row.split:
        name = row.read(columns.split).strip() if columns.split is not None else row.split.strip()
        split = SPLIT_NAMES.get(name.lower())
        if split is None:
            raise UnreadableRecord(f"unknown split {name!r}; use one of {', '.join(SPLIT_NAMES)}")
    # A prompt can use the other columns, so what holds the right answer is left out: its column, a
    # column of which it is a part, and chats, which end with it.
    hidden = tuple(name for name in (columns.expected, columns.split) if name is not None)
    rest = {
        name: value
        for name, value in row.values.items()
        if not any(n == name or n.startswith(f"{name}.") for n in hidden) and not row.is_chat(name)
    }
    return _Draft(text, expected, rest, split, place)
