"""List the runs of a folder, without reading all of their events."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from remask.errors import ConfigError
from remask.events import Accepted, Event, Proposed, RoundRejected, SearchEnded, Started, Tested
from remask.files import stamp
from remask.ids import content_id
from remask.runs import database
from remask.runs.budget import Spend
from remask.runs.lock import is_held
from remask.runs.report import summary
from remask.runs.report.read_run import read_created
from remask.runs.result import RESULT, Result, compare_tested, read_result
from remask.runs.reused_rows import list_run_folders
from remask.runs.store import RunReader, Store
from remask.sanitize import one_line
from remask.stats import Comparison

RunState = Literal["running", "stopped", "finished", "damaged"]
KEPT = 1024  # summaries of files that have not changed since


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a list of runs shows of one run. All text is untrusted."""

    id: str  # of the name; the same as long as the folder keeps its name
    name: str  # of the folder
    path: Path
    created: float  # seconds since 1970; of a damaged run, when its file was last written
    state: RunState
    problem: str  # of a damaged run, in one sentence
    kind: Literal["", "optimize", "refine"]  # "": damaged
    target: str  # "": no target is asked
    data: str  # the name of the file, of the task, or what stands for rows
    round: int  # the round that is running, or that was interrupted; else the number of rounds
    in_test: bool  # whether only the sealed test is left
    verdict: str  # "": there is none yet
    test: Comparison | None  # of the sealed test
    changed: bool  # whether the best prompt so far is another one than the first
    tokens_before: int | None  # length of the prompt, as the denoiser counts
    tokens_after: int | None  # length of the best prompt so far
    spend: Spend
    earlier_tests: int  # of the same test rows, in this folder


def list_runs(folder: Path) -> list[RunSummary]:
    """Return the runs in `folder`, newest first. Other folders in it are skipped.

    A damaged run is in the list with what is wrong with it. Raises ConfigError where the folder
    cannot be read.
    """
    if (folder / database.FILE).is_file():
        raise ConfigError(f"{folder} is one run, not a folder of runs; use `remask show {folder}`")
    try:
        found = [summarize_run(path) for path in list_run_folders(folder)]
    except FileNotFoundError:
        raise ConfigError(f"there is no folder {folder}; name the folder that has your runs") from None
    except NotADirectoryError:
        raise ConfigError(f"{folder} is a file; name the folder that has your runs") from None
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read ({error.strerror}); check its permissions") from None
    return sorted(found, key=lambda run: (-run.created, run.name))


def summarize_run(folder: Path) -> RunSummary:
    """Return the summary of one run. It is kept in memory until a file of the run changes."""
    held = is_held(folder)
    return _summarize(folder, held, tuple(stamp(folder / name) for name in _FILES))


_FILES = (database.FILE, f"{database.FILE}-wal", f"{database.FILE}-journal", RESULT)


@lru_cache(maxsize=KEPT)
def _summarize(folder: Path, held: bool, stamps: tuple[tuple[int, int], ...]) -> RunSummary:
    try:
        with Store.read(folder) as store:
            return _read_summary(folder, store, held)
    except (ConfigError, OSError) as error:
        problem = one_line(str(error))
    return RunSummary(
        id=_make_id(folder),
        name=folder.name,
        path=folder,
        created=stamps[0][0] / 1e9,
        state="damaged",
        problem=problem,
        kind="",
        target="",
        data="",
        round=0,
        in_test=False,
        verdict="",
        test=None,
        changed=False,
        tokens_before=None,
        tokens_after=None,
        spend=Spend(),
        earlier_tests=0,
    )


def _read_summary(folder: Path, store: RunReader, held: bool) -> RunSummary:
    config, result = store.config, read_result(folder)
    events = tuple(store.find_events("Started", "Accepted", "RoundRejected", "SearchEnded", "Tested"))
    started = next((event for event in events if isinstance(event, Started)), None)
    tested = next((event for event in events if isinstance(event, Tested)), None)
    _require_match(folder, result, tested)
    rounds = sum(isinstance(event, Accepted | RoundRejected) for event in events)
    ended = any(isinstance(event, SearchEnded) for event in events)
    after = result.best.tokens if result else _find_best_length(store, events)
    return RunSummary(
        id=_make_id(folder),
        name=folder.name,
        path=folder,
        created=read_created(store),
        state=name_state(held, result),
        problem="",
        kind="refine" if config.get("refine") else "optimize",
        target=summary.name_target(config),
        data=summary.name_data(config),
        round=rounds if result or ended else rounds + 1,
        in_test=ended and result is None,
        verdict="" if result is None else result.verdict,
        test=None if result is None else result.test,
        changed=any(isinstance(event, Accepted) for event in events),
        tokens_before=started.tokens if started else None,
        tokens_after=after,
        spend=store.get_spend() if result is None or held else result.spend,
        earlier_tests=tested.earlier_tests if tested else 0,
    )


def name_state(held: bool, result: Result | None) -> RunState:
    """Return the state of a run that can be read; held: a process works on it."""
    return "running" if held else "stopped" if result is None else "finished"


def _make_id(folder: Path) -> str:
    return content_id("run folder", folder.name.encode("utf-8", "backslashreplace").decode())


def _require_match(folder: Path, result: Result | None, tested: Tested | None) -> None:
    """Raise ConfigError where a result has other test scores than the events of its run."""
    if result is not None and result.test != (tested and compare_tested(tested)[0]):
        raise ConfigError(
            f"{folder / RESULT} does not match the events of its run; "
            f"run `remask resume {folder}` to write it again"
        )


def _find_best_length(store: RunReader, events: tuple[Event, ...]) -> int | None:
    """Return the tokens of the best prompt of a run that is not finished."""
    best = next((event.id for event in reversed(events) if isinstance(event, Started | Accepted)), "")
    found = store.find_events("Started", "Proposed", prompt=best) if best else ()
    return next((event.tokens for event in found if isinstance(event, Started | Proposed)), None)
