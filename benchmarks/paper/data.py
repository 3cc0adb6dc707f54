"""The rows of the four classification tasks: their layout on disk, how they are fetched and drawn.

A folder of data has a folder for each task (sst2, sst5, snli, mrpc), each with train.jsonl,
validation.jsonl and test.jsonl. A line is an object with the columns of the task and `label`, the
label in words.

The test splits of GLUE have no labels. So `fetch_task` takes the test rows of SST-2 and MRPC from
GLUE's validation split, and their validation rows from its train split. SST-5 and SNLI have labels
in all their splits, and keep them.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import write_whole
from benchmarks.tasks import BenchTask, Row, load_task
from remask.ids import rng_for

CLASSIFICATION = ("sst2", "sst5", "snli", "mrpc")
IN_OWN_WORDS = {"sst2": "reviews", "sst5": "sst5_free", "snli": "snli_free", "mrpc": "mrpc_free"}
SPLITS = ("train", "validation", "test")
VALIDATION_ROWS = 1000  # that are cut from a train split, at most
VALIDATION_SHARE = 0.2  # of it, at most
NO_LABEL = -1  # of the hub: a row on which annotators did not agree, or whose label is secret
MISSING = "--fetch needs the Hugging Face datasets library; run: pip install datasets"


@dataclass(frozen=True, slots=True)
class Source:
    """A data set of the Hugging Face hub."""

    hub_id: str
    config: str  # "": it has only one
    columns: Mapping[str, str]  # of the hub -> of the task
    test: str  # the split of the hub whose rows become the test rows
    validation: str  # the same for validation; "": they are cut from its train split


SOURCES = {
    "sst2": Source("nyu-mll/glue", "sst2", {"sentence": "input"}, test="validation", validation=""),
    "sst5": Source("SetFit/sst5", "", {"text": "input"}, test="test", validation="validation"),
    "snli": Source(
        "stanfordnlp/snli", "", {"premise": "premise", "hypothesis": "hypothesis"},
        test="test", validation="validation",
    ),
    "mrpc": Source(
        "nyu-mll/glue", "mrpc", {"sentence1": "sentence1", "sentence2": "sentence2"},
        test="validation", validation="",
    ),
}  # fmt: skip
Load = Callable[..., Mapping[str, Any]]  # as load_dataset: (hub id[, config]) -> rows by split


# -- fetching -------------------------------------------------------------------------------------


def fetch_task(name: str, data: Path, load: Load | None = None) -> dict[str, int]:
    """Download a task to `data`/`name`; returns the number of rows by split.

    load: by default `datasets.load_dataset`. Raises SystemExit where the library or the network is
    missing, or where the hub's rows are not as they were.
    """
    source = SOURCES[name]
    load = load or _import_loader()
    try:
        found = load(source.hub_id, source.config) if source.config else load(source.hub_id)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SystemExit(f"{source.hub_id} cannot be fetched from the hub ({reason})") from None
    splits = split_rows(name, {split: convert_rows(name, found[split]) for split in _list_splits(source)})
    for split, rows in splits.items():
        lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        write_whole(data / name / f"{split}.jsonl", lines)
    return {split: len(rows) for split, rows in splits.items()}


def _import_loader() -> Load:
    try:
        from datasets import load_dataset
    except ImportError:
        raise SystemExit(MISSING) from None
    loader: Load = load_dataset
    return loader


def _list_splits(source: Source) -> list[str]:
    return list(dict.fromkeys(filter(None, ("train", source.validation, source.test))))


def convert_rows(name: str, rows: Any) -> list[Row]:
    """Convert rows of the hub to those of a task; a row without a label is left out.

    Raises SystemExit where the hub's names of the labels are not those of the task.
    """
    source, labels = SOURCES[name], load_task(name).labels
    label = getattr(rows, "features", {}).get("label")
    names = getattr(label, "names", None)
    if names is not None and tuple(names) != labels:
        raise SystemExit(f"{source.hub_id}: its labels are {list(names)}, and not {list(labels)}")
    return list(_convert(source, labels, rows))


def _convert(source: Source, labels: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    for row in rows:
        number = row["label"]
        if number == NO_LABEL:
            continue
        if not 0 <= number < len(labels):
            raise SystemExit(f"{source.hub_id}: a row has the label {number}, of {len(labels)} labels")
        word = labels[number]
        if row.get("label_text", word) != word:
            raise SystemExit(f"{source.hub_id}: label {number} is {row['label_text']!r}, and not {word!r}")
        texts = {ours: str(row[theirs]).strip() for theirs, ours in source.columns.items()}
        yield {**texts, "label": word}


def split_rows(name: str, found: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """Make the three splits of the rows of the hub, by its own splits. No text is in two of them.

    A text that is in several stays in the test rows, else in the validation rows.
    """
    source = SOURCES[name]
    train = list(found["train"])
    if source.validation:
        validation = list(found[source.validation])
    else:
        order = rng_for(0, "paper", "validation", name).permutation(len(train))
        count = min(VALIDATION_ROWS, int(VALIDATION_SHARE * len(train)))
        validation = [train[i] for i in sorted(order[:count])]
    seen: set[tuple[str, ...]] = set()
    splits = {"test": list(found[source.test]), "validation": validation, "train": train}
    distinct = {split: list(_leave_out_known(rows, seen)) for split, rows in splits.items()}
    if empty := [split for split in SPLITS if not distinct[split]]:
        raise SystemExit(f"{source.hub_id}: no labelled rows are left for {', '.join(empty)}")
    return {split: distinct[split] for split in SPLITS}


def _leave_out_known(rows: Iterable[Row], seen: set[tuple[str, ...]]) -> Iterator[Row]:
    for row in rows:
        text = tuple(row[column] for column in row if column != "label")
        if text not in seen:
            seen.add(text)
            yield row


# -- drawing --------------------------------------------------------------------------------------


def choose_task(name: str, own_words: bool) -> BenchTask:
    """The task by forced choice, or with answers in the target's own words."""
    return load_task(IN_OWN_WORDS[name] if own_words else name)


def draw_rows(bench: BenchTask, data: Path, counts: Mapping[str, int], seed: int) -> dict[str, list[Row]]:
    """Draw the rows of a run: by `seed` to train and validate, and for all seeds the same to test.

    All rows of a smaller split are taken. Raises SystemExit where a file or a column is missing.
    """
    return {split: _draw(bench, data, split, counts[split], 0 if split == "test" else seed)
            for split in SPLITS}  # fmt: skip


def _draw(bench: BenchTask, data: Path, split: str, count: int, seed: int) -> list[Row]:
    rows = bench.read(data, split)
    order = rng_for(seed, "paper", "rows", split).permutation(len(rows))
    drawn = [rows[i] for i in order[:count]]
    if unknown := {str(row.get("label")) for row in drawn} - set(bench.labels):
        raise SystemExit(f"{data}: {split} rows have unknown labels: {', '.join(sorted(unknown))}")
    return drawn
