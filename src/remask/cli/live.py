"""How a run is followed while it goes on: a panel on a terminal, plain lines, or JSON lines.

Knows events and how to say them. Does not know where they come from; the result comes after, from
show.py. Everything a model or a user wrote is made visible and carries no markup.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from remask import events
from remask.api.job import OnEvent
from remask.config import Config
from remask.events import Event, State, encode
from remask.runs.budget import Spend
from remask.runs.report.summary import SELECTION, average, format_edit, format_score, list_scores
from remask.runs.result import list_changes
from remask.sanitize import one_line


def display(mode: str, config: Config, run_dir: Path) -> AbstractContextManager[OnEvent]:
    """Who tells of a run as it goes on. mode: json, plain or rich."""
    return {"json": _json, "plain": _plain, "rich": _rich}[mode](config, run_dir)


# --- JSON


@contextmanager
def _json(config: Config, run_dir: Path) -> Iterator[OnEvent]:
    """Each event as it is stored, with the spend after it."""

    def write(event: Event, state: State, spend: Spend) -> None:
        sys.stdout.write(orjson.dumps({**encode(event), "spend": spend}).decode() + "\n")
        sys.stdout.flush()

    yield write


# --- lines


class PlainLines:
    """One line for every event that says something by itself.

    Nothing is said before the first event: until then wrong input may still come to light.
    """

    def __init__(self, run_dir: Path) -> None:
        self._header = f"run: {run_dir}"

    def event(self, event: Event, state: State, spend: Spend) -> None:
        if self._header:
            click.echo(self._header)
            self._header = ""
        if line := sentence(event, state):
            click.echo(f"[{spend.calls:,} calls] {line}")


def sentence(event: Event, state: State) -> str:
    """What an event means for the run; empty for those that only lead to another."""
    match event:
        case events.UnlabelledInputs(basis="prompt"):
            example = one_line(event.queries[0], 60)
            return (
                f"no data: asked the target for messages of users and goes on with "
                f"{len(event.queries)}, such as {example!r}; the metric {event.metric} scores"
            )
        case events.UnlabelledInputs():
            return f"no right answers: starts from inputs alone, the metric {event.metric} scores"
        case events.TracesRead():
            seen = event.counts
            read = f"{seen.records} records, {seen.rejected} rejected; {seen.read} read"
            return f"conversations: {read}, {seen.held} held out to measure"
        case events.Started():
            return f"start: a prompt of {event.tokens} tokens"
        case events.Scored(split="validation") if event.id == state.baseline:
            return f"baseline: {_validation(state, event.id)}"
        case events.Scored(split="validation"):
            now = format_score(average(list_scores(state, state.incumbent, "validation")))
            return f"round {event.round + 1}: winner {_validation(state, event.id)}, best so far {now}"
        case events.Scored() if event.id == state.incumbent:
            return f"round {event.round + 1}: read {len(event.rows)} train rows, proposing edits"
        case events.Accepted():
            nats, points = f"{event.gain:+.1f} nats", f"{event.gain:+.3f} ({SELECTION})"
            gain = points if state.traces_read is None else nats
            return f"round {event.round + 1}: accepted {gain}: {_edit(event, state)}"
        case events.RoundRejected():
            return f"round {event.round + 1}: nothing accepted ({event.reason})"
        case events.SearchEnded():
            tests = state.traces_read is None or (state.traces_read.metric and state.accepted)
            return f"search stopped: {event.reason}" + ("; next: the sealed test" if tests else "")
        case events.Tested():
            return "sealed test done"
        case _:
            return ""


def _validation(state: State, id: str) -> str:
    return f"validation {format_score(average(list_scores(state, id, 'validation')))} ({SELECTION})"


def _edit(event: events.Accepted, state: State) -> str:
    return format_edit(list_changes(state, state.proposal(event.round, event.id)), 80)


@contextmanager
def _plain(config: Config, run_dir: Path) -> Iterator[OnEvent]:
    yield PlainLines(run_dir).event


# --- panel


class LivePanel:
    """A compact panel that is drawn anew; what was accepted stays above it."""

    def __init__(self, config: Config, run_dir: Path, clock: Callable[[], float]) -> None:
        self._limit = config.budget.calls
        self._run_dir = run_dir
        self._clock = clock
        self._began = clock()
        self._phase = "loading models"
        self._state = State()
        self._spend = Spend()

    def event(self, event: Event, state: State, spend: Spend) -> None:
        self._state, self._spend = state, spend
        self._phase = phase(event, state)

    def __rich__(self) -> Panel:
        state, spend = self._state, self._spend
        grid = Table.grid(padding=(0, 2))
        for name, value in (
            ("phase", self._phase),
            *([("validation", self._scores())] if state.traces_read is None else []),
            ("accepted", f"{len(state.accepted)} of {len(state.proposals)} candidates"),
            ("last edit", _edit(state.accepted[-1], state) if state.accepted else "none yet"),
            ("calls", f"{spend.calls:,}" + (f" of {self._limit:,}" if self._limit else "")),
            ("elapsed", _minutes(self._clock() - self._began)),
        ):
            grid.add_row(Text(name, style="dim"), Text(value))
        return Panel(grid, title=Text("remask"), subtitle=Text(str(self._run_dir)), expand=False)

    def _scores(self) -> str:
        state = self._state
        best = average(list_scores(state, state.incumbent, "validation"))
        baseline = average(list_scores(state, state.baseline, "validation"))
        return f"best {format_score(best)}, baseline {format_score(baseline)} ({SELECTION})"


def phase(event: Event, state: State) -> str:
    """What the run does next, as far as `event` tells."""
    match event:
        case events.TracesRead():
            return "loading the diffusion model"
        case _ if state.traces_read is not None:
            return _refinement_phase(event, state)
        case events.UnlabelledInputs() | events.Started():
            return "scoring the baseline on validation rows"
        case events.Scored(split="train") if event.id == state.incumbent:
            return f"round {event.round + 1}: proposing edits"
        case events.Scored(split="train") | events.Proposed():
            return f"round {event.round + 1}: trying candidates on train rows"
        case events.SearchEnded():
            return "sealed test of baseline and best"
        case events.Tested():
            return "writing the result"
        case _:
            return f"round {state.round + 1}: reading train rows"


def _refinement_phase(event: Event, state: State) -> str:
    match event:
        case events.Proposed() | events.Refused():
            return f"round {event.round + 1}: measuring candidates by held-out conversations"
        case events.Measured() | events.Attributed():
            return f"round {event.round + 1}: what the best candidate rests on"
        case events.SearchEnded():
            return "sealed test of baseline and best, where a target is named"
        case events.Tested():
            return "writing the result"
        case _:
            return f"round {state.round + 1}: proposing edits"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@contextmanager
def _rich(config: Config, run_dir: Path) -> Iterator[OnEvent]:
    panel = LivePanel(config, run_dir, time.monotonic)
    with Live(panel, console=Console(), refresh_per_second=4, transient=True):
        yield panel.event
