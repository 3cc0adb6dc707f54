"""What came of each validation and test row, before and after the search.

The search records the answers of a prompt as they are scored; pairs of them, of the baseline and
the best prompt, are the rows of reports. The rows of the result are files in the run directory:
rows.jsonl, and rows.csv for spreadsheets. Of train rows only the answers of incumbents are recorded:
these are the traces that the denoiser reads, and `remask adapt --from-runs` learns from them.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import orjson

from remask.errors import ConfigError
from remask.files import write
from remask.ports import Task, evaluate_all
from remask.prompt import Prompt
from remask.runs.store import Store
from remask.sanitize import clip
from remask.types import Example, Feedback, Outcome, Split, Trace

ROWS = "rows.jsonl"  # in the run directory
ROWS_CSV = "rows.csv"
MAX_TEXT_CHARS = 20_000  # of a message or an answer; a longer text is clipped
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # of cells that a spreadsheet would compute

Change = Literal["won", "lost", "same", "failed"]


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """What one prompt got on a row. All text is untrusted, and without secrets."""

    score: float | None  # None: the call or the metric failed
    text: str  # the answer
    feedback: str
    error: str  # why there is no score
    unparsed: bool  # the answer names no allowed label
    cut: bool  # the answer was cut off at the limit of tokens
    values: Mapping[str, float] = field(default_factory=dict)  # of the objectives that were measured


@dataclass(frozen=True, slots=True)
class RowResult:
    """A row with the answers of two prompts."""

    id: str
    split: Split
    place: str  # where the data has it: file:line; "": unknown
    message: str
    expected: str  # the right answer; "": the data has none
    before: RowAnswer
    after: RowAnswer
    guard: str = ""  # the guard set that it belongs to; "": it counts in the score

    @property
    def change(self) -> Change:
        """Whether the second prompt won or lost the row; "failed" without both scores."""
        if self.before.score is None or self.after.score is None:
            return "failed"
        gain = self.after.score - self.before.score
        return "won" if gain > 1e-12 else "lost" if gain < -1e-12 else "same"


# The rows that `--rows` of the command line can show.
ROW_FILTERS: Mapping[str, Callable[[RowResult], bool]] = {
    "won": lambda row: row.change == "won",
    "lost": lambda row: row.change == "lost",
    "unparsed": lambda row: row.before.unparsed or row.after.unparsed,
    "failed": lambda row: row.change == "failed",
}


@dataclass(frozen=True, slots=True)
class RecordingTask:
    """Implements ports.Task around `inner`, and stores what comes of rows.

    Train rows are stored only under prompts for which `is_parent` holds, by id.
    """

    inner: Task
    store: Store
    list_examples: Callable[[], Iterable[Example]]  # those of the target may come later
    redact: Callable[[str], str]
    is_parent: Callable[[str], bool] = lambda prompt: False

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the inner task."""
        return self.inner.labels

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of the inner task."""
        return self.inner.warnings

    def ids(self, split: Split) -> tuple[str, ...]:
        """Return the ids of the rows of a split."""
        return self.inner.ids(split)

    def evaluate(self, prompt: Prompt, ids: Sequence[str]) -> list[Outcome]:
        """Score the prompt as the inner task does."""
        return self.evaluate_all([prompt], ids)[0]

    def evaluate_all(self, prompts: Sequence[Prompt], ids: Sequence[str]) -> list[list[Outcome]]:
        """Score the prompts as the inner task does."""
        scored = evaluate_all(self.inner, prompts, ids)
        for prompt, outcomes in zip(prompts, scored, strict=True):
            self._keep(prompt, outcomes)
        return scored

    def _keep(self, prompt: Prompt, outcomes: Sequence[Outcome]) -> None:
        wanted = {o.example: o for o in outcomes}
        kept = {}
        for e in self.list_examples():
            outcome = wanted.get(e.id)
            if outcome and e.split != "train":
                kept[e.id] = self._describe(e, outcome)
            elif outcome and outcome.trace and self.is_parent(prompt.id):
                kept[e.id] = self._describe_trace(outcome.trace)
        if kept:
            self.store.keep_outcomes(prompt.id, kept)

    def _describe(self, example: Example, outcome: Outcome) -> dict[str, Any]:
        trace = outcome.trace
        feedback = "\n".join(note.text for note in trace.feedback if note.text) if trace else ""
        return {
            "split": example.split,
            "place": example.place,
            "message": self._clean(example.input),
            "expected": self._clean(example.expected or ""),
            "score": outcome.score if outcome.status == "scored" else None,
            "text": self._clean(trace.response if trace else ""),
            "feedback": self._clean(feedback),
            "error": self._clean(outcome.error),
            "unparsed": outcome.unparsed,
            "cut": outcome.cut,
            **({"values": dict(outcome.values)} if outcome.values else {}),
            **({"guard": example.guard} if example.guard else {}),
        }

    def _describe_trace(self, trace: Trace) -> dict[str, Any]:
        return {
            "split": "train",
            "trace": trace.id,
            "message": self._clean(trace.query),
            "text": self._clean(trace.response),
            "desired": None if trace.desired is None else self._clean(trace.desired),
            "feedback": self._clean("\n".join(note.text for note in trace.feedback if note.text)),
            "score": trace.score,
        }

    def _clean(self, text: str) -> str:
        # Redacted first: of a secret that was cut in two, no rule would know the rest.
        return clip(self.redact(text), MAX_TEXT_CHARS)


def pair_outcomes(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> tuple[RowResult, ...]:
    """Pair the stored outcomes of two prompts on the rows that both have, without train rows: test
    rows first, in the order of the data.

    Raises ValueError where a stored outcome has a missing or an odd value.
    """
    try:
        both = [id for id in after if id in before and after[id]["split"] != "train"]
        rows = [_make_row(id, before[id], after[id]) for id in both]
    except (KeyError, TypeError) as error:
        raise ValueError(f"lacks a value or has one of a wrong type ({error})") from None
    return tuple(sorted(rows, key=_order))


def find_traces(outcomes: Mapping[str, Mapping[str, Any]]) -> dict[str, Trace]:
    """Return the traces of a prompt by id, from its stored outcomes of train rows.

    Raises ValueError where a stored outcome has a missing or an odd value.
    """
    found = {}
    for stored in outcomes.values():
        if stored.get("split") != "train":
            continue
        try:
            id, query, text, note = (stored[key] for key in ("trace", "message", "text", "feedback"))
            for value in (id, query, text, note):
                _require(value, str)
            desired = _require(stored["desired"], str, type(None))
            score = _require(stored["score"], float, int, type(None))
        except (KeyError, TypeError) as error:
            raise ValueError(f"lacks a value or has one of a wrong type ({error})") from None
        feedback = (Feedback("comment", note),) if note else ()
        found[id] = Trace(id, query, text, desired, feedback, score)
    return found


def _order(row: RowResult) -> tuple[bool, str, int, str]:
    """Order rows by split, file and line, so that "rows.csv:9" comes before "rows.csv:10"."""
    name, _, line = row.place.rpartition(":")
    return row.split != "test", name, int(line) if line.isdecimal() else 0, row.id


def _make_row(id: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> RowResult:
    if after["split"] not in ("validation", "test"):
        raise TypeError(after["split"])
    texts = (after["place"], after["message"], after["expected"])
    for text in texts:
        _require(text, str)
    guard = _require(after.get("guard", ""), str)
    return RowResult(id, after["split"], *texts, _read_answer(before), _read_answer(after), guard)


def _read_answer(stored: Mapping[str, Any]) -> RowAnswer:
    return RowAnswer(
        score=_require(stored["score"], float, type(None)),
        text=_require(stored["text"], str),
        feedback=_require(stored["feedback"], str),
        error=_require(stored["error"], str),
        unparsed=_require(stored["unparsed"], bool),
        cut=_require(stored["cut"], bool),
        values={name: _require(value, float, int) for name, value in stored.get("values", {}).items()},
    )


def _require(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise TypeError(type(value).__name__)
    return value


def row_to_dict(row: RowResult) -> dict[str, Any]:
    """Return the values of a row by name, for orjson, which writes the answers as objects."""
    return {"change": row.change, **{f.name: getattr(row, f.name) for f in fields(row)}}


def write_row_files(rows: Sequence[RowResult], folder: Path) -> None:
    """Write rows.jsonl and rows.csv."""
    lines = b"".join(orjson.dumps(row_to_dict(row), option=orjson.OPT_APPEND_NEWLINE) for row in rows)
    write(folder / ROWS, lines, force=True)
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(CSV_COLUMNS)
    for row in rows:
        table.writerow([_protect(cell) for cell in _list_cells(row)])
    # Excel reads UTF-8 only with the mark at the start.
    write(folder / ROWS_CSV, ("\ufeff" + text.getvalue()).encode(), force=True)


CSV_COLUMNS = (
    *("split", "place", "change", "message", "expected", "score_before", "score_after"),
    *("answer_before", "answer_after", "feedback_before", "feedback_after", "error_before", "error_after"),
)


def _list_cells(row: RowResult) -> list[Any]:
    a, b = row.before, row.after
    return [
        *(row.split, row.place, row.change, row.message, row.expected, a.score, b.score),
        *(a.text, b.text, a.feedback, b.feedback, a.error, b.error),
    ]


def _protect(cell: Any) -> Any:
    """Put an apostrophe before text that a spreadsheet would compute. A score stays a number."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell


def read_row_file(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of rows.jsonl. Raises ConfigError where there is none or it is damaged."""
    path = folder / ROWS
    try:
        return [orjson.loads(line) for line in path.read_bytes().splitlines()]
    except FileNotFoundError:
        raise ConfigError(f"{folder} has no {ROWS}; `remask report {folder}` writes it") from None
    except (OSError, orjson.JSONDecodeError) as error:
        advice = f"`remask report {folder}` writes it again"
        raise ConfigError(f"{path} cannot be read ({error}); {advice}") from None
