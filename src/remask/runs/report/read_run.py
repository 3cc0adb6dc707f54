"""Read a run directory for display, without a lock, and write its reports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from remask.errors import ConfigError
from remask.events import Event, Fold, Proposed, Refused, State
from remask.files import stamp, write
from remask.runs.budget import Spend
from remask.runs.lock import is_held
from remask.runs.outcomes import RowResult, pair_outcomes, write_row_files
from remask.runs.result import RESULT, Result, compare_tested, read_result
from remask.runs.store import RunReader, Store
from remask.sanitize import one_line

REPORT = "report.html"
MARKDOWN_REPORT = "report.md"  # only of a refinement


@dataclass(frozen=True, slots=True)
class RunView:
    """The current state of a run."""

    run_dir: Path
    created: float  # when the run began, in seconds since 1970
    config: dict[str, Any]  # as stored
    history: tuple[tuple[int, Event], ...]  # (target calls so far, event)
    state: State
    spend: Spend
    result: Result | None  # None if not finished
    rows: tuple[RowResult, ...]  # with the answers of the baseline and the best prompt so far


def view_run(run_dir: Path) -> RunView:
    """Read a run. Raises ConfigError if there is none or if it is damaged."""
    with RunFollower(run_dir) as run:
        return run.view()


class RunFollower:
    """A run that may go on: each `read_on` reads only what is new. Raises ConfigError as `view_run`."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._store = Store.read(run_dir)
        self._fold = Fold()
        self._history: list[tuple[int, Event]] = []
        self._result: Result | None = None
        self._rows: tuple[RowResult, ...] | None = None  # None: to be read again
        self._seen: object = None  # what the files were like when they were last read
        try:
            self.read_on()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._store.close()

    @property
    def count(self) -> int:
        """How many events have been read."""
        return len(self._history)

    def read_on(self) -> bool:
        """Read what is new; return whether anything may be, which may be only what was spent."""
        seen = self._store.get_version(), stamp(self.run_dir / RESULT)
        if seen == self._seen:
            return False
        # The result comes after the last event, so it is read before the events.
        result = read_result(self.run_dir)
        before = self.count
        for entry in self._store.read_on(self._fold, before):  # one by one: reading may fail midway
            self._history.append(entry)
        new = self._history[before:]
        if result is not None and not _matches(result, self._fold.state):
            raise ConfigError(
                f"{self.run_dir / RESULT} does not match the events of its run; "
                f"run `remask resume {self.run_dir}` to write it again"
            )
        if result != self._result or not all(isinstance(event, Proposed | Refused) for _, event in new):
            self._rows = None
        self._result, self._seen = result, seen
        return True

    def view(self) -> RunView:
        """Return the run as it was last read."""
        state = self._fold.state
        if self._rows is None:
            self._rows = _pair_rows(self._store, state, self.run_dir)
        return RunView(
            run_dir=self.run_dir,
            created=read_created(self._store),
            config=self._store.config,
            history=tuple(self._history),
            state=state,
            spend=self._store.get_spend(),
            result=self._result,
            rows=self._rows,
        )


def read_created(store: RunReader) -> float:
    """Return when a run was created, in seconds since 1970. Raises ConfigError."""
    text = store.meta("created")
    try:
        created = float(text)
    except ValueError:
        created = -1.0
    if not 0 <= created < 1e11:  # also false for NaN
        raise ConfigError(
            f"{store.folder} is damaged: it was created at {one_line(text, 40)!r}; start a new run"
        )
    return created


def _pair_rows(store: RunReader, state: State, run_dir: Path) -> tuple[RowResult, ...]:
    try:
        return pair_outcomes(store.find_outcomes(state.baseline), store.find_outcomes(state.incumbent))
    except ValueError as error:
        raise ConfigError(f"{run_dir} is damaged: the outcome of a row {error}; start a new run") from None


def _matches(result: Result, state: State) -> bool:
    """Return whether a result has the prompt and the test scores of the events."""
    if not state.baseline or result.prompt != state.prompt(state.incumbent).text:
        return False
    return result.test == (state.tested and compare_tested(state.tested)[0])


def advise_waiting(run_dir: Path) -> str:
    """Say how a run that is not finished gets to its end: a running one must not be resumed."""
    if is_held(run_dir):
        return "it is running, so wait until it ends"
    return f"continue it with `remask resume {run_dir}`"


def write_report(run_dir: Path) -> Path:
    """Write report.html, rows.jsonl and rows.csv, and report.md of a refinement; return the first.

    Raises ConfigError if the run is not finished.
    """
    from remask.runs.report import html, markdown

    seen = view_run(run_dir)
    if seen.result is None:
        raise ConfigError(f"{run_dir} is not finished and has no report yet; {advise_waiting(run_dir)}")
    pages = {REPORT: html.render(seen)}
    if found := seen.result.refinement:
        pages[MARKDOWN_REPORT] = markdown.render(seen.result, found)
    write_row_files(seen.rows, run_dir)
    for name, page in pages.items():
        write(run_dir / name, page, force=True)
    return run_dir / REPORT
