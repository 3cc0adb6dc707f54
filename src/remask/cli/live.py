"""Print a run while it runs: a panel on a terminal, plain lines, or JSON lines.

All three draw the one value `Progress`. show.py prints the result after the run. Text of models and
users is printed without control characters and without markup.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.live import Live

from remask import events
from remask.api.job import Hooks
from remask.api.show_progress import (
    ProgressPanel,
    add_follower,
    describe_left,
    describe_round,
    describe_spend,
    describe_work,
    format_clock,
    format_duration,
    format_last_edit,
)
from remask.cli.options import choose_side_mode
from remask.events import Event, State, encode
from remask.runs.budget import Spend
from remask.runs.progress import Follower, Workload
from remask.runs.report.summary import SELECTION, find_validation, format_score
from remask.sanitize import make_visible, one_line

FIRST_SECONDS = 0.9  # after which a first figure is printed where nothing else was
JSON_SECONDS = 1.0  # between two JSON events of the progress
PLAIN_SECONDS = 10.0  # between two plain lines of the progress
TICK_SECONDS = 0.25


def open_display(mode: str, follower: Follower, run_dir: Path | None) -> AbstractContextManager[Hooks]:
    """Open the display of a mode: json, plain or rich. Yields the hooks that tell it what happens."""
    if mode == "rich":
        return _open_panel(follower, run_dir)
    face = JsonLines(follower) if mode == "json" else PlainLines(follower, run_dir)
    return _open_lines(face, follower)


def open_side_display(json: bool, follower: Follower | None = None) -> AbstractContextManager[Hooks]:
    """Open a display on standard error, for a command whose output is something else."""
    follower = follower or Follower()
    mode = choose_side_mode(json)
    if mode == "rich":
        return _open_panel(follower, None, err=True)
    face = JsonLines(follower, err=True) if mode == "json" else PlainLines(follower, err=True)
    return _open_lines(face, follower)


@contextmanager
def _open_panel(follower: Follower, run_dir: Path | None, err: bool = False) -> Iterator[Hooks]:
    panel = ProgressPanel(follower, "" if run_dir is None else str(run_dir))
    with Live(panel, console=Console(stderr=err), refresh_per_second=4, transient=True):
        yield add_follower(Hooks(), follower)


@contextmanager
def _open_lines(face: "JsonLines | PlainLines", follower: Follower) -> Iterator[Hooks]:
    """Print lines: those of events at once, and those of the progress from a thread of its own.

    So a figure is printed also while one long step runs.
    """
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(TICK_SECONDS):
            with suppress(OSError, ValueError):  # nobody reads the output any more
                face.tick()

    thread = threading.Thread(target=tick, name="remask-progress", daemon=True)
    thread.start()
    try:
        yield add_follower(Hooks(watch=face.event, plan=face.plan), follower)
    finally:
        ended.set()
        thread.join()


# --- JSON


class JsonLines:
    """Prints each event as one JSON object, with the spend after it, and the progress between."""

    def __init__(
        self, follower: Follower, clock: Callable[[], float] = time.monotonic, err: bool = False
    ) -> None:
        self._follower, self._clock, self._err, self._lock = follower, clock, err, threading.RLock()
        self._printed, self._work = clock() + FIRST_SECONDS - JSON_SECONDS, -1

    def event(self, event: Event, state: State, spend: Spend) -> None:
        """Print an event."""
        self._write({**encode(event), "spend": spend})

    def plan(self, workload: Workload, state: State, spend: Spend) -> None:
        """Print nothing: the progress has what the plan says."""

    def tick(self) -> None:
        """Print the progress, at most once a second and only where some work was done."""
        with self._lock:
            if self._clock() - self._printed < JSON_SECONDS:
                return
            now = self._follower.progress
            if now.work != self._work or now.stopping:
                self._printed, self._work = self._clock(), now.work
                self._write(now.encode())

    def _write(self, value: object) -> None:
        with self._lock:
            click.echo(orjson.dumps(value), err=self._err)


# --- lines


class PlainLines:
    """Prints one line for each event that matters to the user, and the progress between.

    Prints nothing in the first second, since an error of the input may still follow.
    """

    def __init__(
        self,
        follower: Follower,
        run_dir: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        err: bool = False,
    ) -> None:
        self._follower, self._clock, self._err, self._lock = follower, clock, err, threading.RLock()
        self._header = "" if run_dir is None else f"run: {make_visible(str(run_dir))}"
        # Beside other output, on standard error, short work says nothing.
        self._printed = clock() if err else clock() + FIRST_SECONDS - PLAIN_SECONDS

    def event(self, event: Event, state: State, spend: Spend) -> None:
        """Print the line of an event, if it has one."""
        line = describe_event(event, state)
        self._print(f"[{spend.calls:,} calls] {line}" if line else "")

    def plan(self, workload: Workload, state: State, spend: Spend) -> None:
        """Print how long the run may take."""
        if line := describe_workload(workload):
            self._print(line)

    def tick(self) -> None:
        """Print the progress where nothing was printed for some time."""
        with self._lock:
            if self._clock() - self._printed >= PLAIN_SECONDS:
                click.echo(self._describe(), err=self._err)
                self._printed = self._clock()

    def _describe(self) -> str:
        now = self._follower.progress
        number = describe_round(now)
        parts = [f"round {number}" if number else "", now.phase, describe_work(now)]
        times = f"{format_clock(now.seconds)} so far, left: {describe_left(now)}"
        spent = f"[{describe_spend(now)[0]}] " if now.spend.calls or now.limits.calls else ""
        return spent + "; ".join(one_line(part) for part in (*parts, times) if part)

    def _print(self, line: str) -> None:
        with self._lock:
            if self._header:
                click.echo(self._header, err=self._err)
                self._header = ""
            if line:
                click.echo(line, err=self._err)
                self._printed = self._clock()


def describe_workload(load: Workload) -> str:
    """Say how long a run may take; "" where that is unknown."""
    seconds = load.estimate_seconds()
    if seconds is not None:
        return f"estimate: {format_duration(seconds)} in all, denoising included"
    if load.seconds_per_round is None:
        return ""
    each = format_duration(load.seconds_per_round)
    return f"estimate: {each} of denoising in each round; the time of calls is not known yet"


def describe_event(event: Event, state: State) -> str:
    """Describe an event in one line; "" for events that matter only together with a later one."""
    match event:
        case events.UnlabelledInputs(basis="prompt"):
            example = one_line(event.queries[0], 60)
            return (
                f"no data: the target wrote {len(event.queries)} messages of users, such as "
                f"{example!r}; metric: {event.metric}"
            )
        case events.UnlabelledInputs():
            return f"the data has no right answers; metric: {event.metric}"
        case events.TracesRead():
            seen = event.counts
            return (
                f"conversations: {seen.records} records, {seen.rejected} rejected; {seen.read} for "
                f"the denoiser to read, {seen.held} held out to measure candidates"
            )
        case events.Started():
            return f"start: the prompt has {event.tokens} tokens"
        case events.Scored(split="validation") if event.id == state.baseline:
            return f"baseline: {_format_validation(state, event.id)}"
        case events.Scored(split="validation"):
            best = format_score(find_validation(state, state.incumbent))
            score = _format_validation(state, event.id)
            return f"round {event.round + 1}: best candidate: {score}; best prompt so far: {best}"
        case events.Scored(split="guard"):
            whose = "seed prompt" if event.id == state.baseline else "best candidate"
            return f"round {event.round + 1}: {whose} scored on {len(event.rows)} guard rows"
        case events.Scored() if event.id == state.incumbent:
            done = f"round {event.round + 1}: scored {len(event.rows)} train rows"
            return f"{done}; the denoiser writes candidates"
        case events.Scored() if _is_first_candidate(event, state):
            written = sum(number == event.round for number, _ in state.proposals)
            return f"round {event.round + 1}: {written} candidates written; scoring them on train rows"
        case events.Accepted():
            nats, points = f"{event.gain:+.1f} nats", f"{event.gain:+.3f} ({SELECTION})"
            gain = points if state.traces_read is None else nats
            why = f" for {one_line(event.objective)}" if event.objective else ""
            return f"round {event.round + 1}: accepted{why} {gain}: {format_last_edit(state)}"
        case events.Chosen():
            return f"chosen: an accepted prompt that is better on {one_line(state.goals.prefer)}"
        case events.RoundRejected():
            return f"round {event.round + 1}: no candidate accepted ({event.reason})"
        case events.SearchEnded():
            tests = state.traces_read is None or (state.traces_read.metric and state.accepted)
            return f"search stopped: {event.reason}" + ("; next: the sealed test" if tests else "")
        case events.TestPostponed():
            return f"sealed test stopped: {event.failed} rows have no score ({event.reason})"
        case events.Tested():
            return "sealed test finished"
        case _:
            return ""


def _is_first_candidate(event: events.Scored, state: State) -> bool:
    """Whether the event is the first score of a candidate in its round."""
    ids = {id for number, id in state.proposals if number == event.round}
    scored = [rows for (id, split), rows in state.scores.items() if split == "train" and id in ids]
    return len(scored) == 1 and len(scored[0]) == len(event.rows)


def _format_validation(state: State, id: str) -> str:
    return f"validation {format_score(find_validation(state, id))} ({SELECTION})"
