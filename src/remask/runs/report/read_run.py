"""Read a run directory for display, without a lock, and write its reports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remask.errors import ConfigError
from remask.events import Event, State
from remask.files import write
from remask.runs.budget import Spend
from remask.runs.lock import is_held
from remask.runs.outcomes import RowResult, pair_outcomes, write_row_files
from remask.runs.result import RESULT, Result, compare_tested, read_result
from remask.runs.store import RunReader, Store

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
    with Store.read(run_dir) as store:
        history = tuple(store.history())
        state = history[-1][2] if history else State()
        result = read_result(run_dir)
        if result is not None and not _matches(result, state):
            raise ConfigError(
                f"{run_dir / RESULT} does not match the events of its run; "
                f"run `remask resume {run_dir}` to write it again"
            )
        return RunView(
            run_dir=run_dir,
            created=float(store.meta("created")),
            config=store.config,
            history=tuple((calls, event) for calls, event, _ in history),
            state=state,
            spend=store.get_spend(),
            result=result,
            rows=_pair_rows(store, state, run_dir),
        )


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
