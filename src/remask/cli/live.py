"""Print the events of a run while it is running: a panel on a terminal, plain lines, or JSON lines.

show.py prints the result after the run. Text of models and users is printed without control
characters and without markup.
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
from remask.sanitize import make_visible, one_line


def open_display(mode: str, config: Config, run_dir: Path) -> AbstractContextManager[OnEvent]:
    """Open the display of a mode: json, plain or rich."""
    displays = {"json": _open_json, "plain": _open_plain, "rich": _open_panel}
    return displays[mode](config, run_dir)


# --- JSON


@contextmanager
def _open_json(config: Config, run_dir: Path) -> Iterator[OnEvent]:
    """Print each event as one JSON object, with the spend after it."""

    def write(event: Event, state: State, spend: Spend) -> None:
        sys.stdout.write(orjson.dumps({**encode(event), "spend": spend}).decode() + "\n")
        sys.stdout.flush()

    yield write


# --- lines


class PlainLines:
    """Prints one line for each event that matters to the user.

    Prints nothing before the first event, since an error of the input may still follow.
    """

    def __init__(self, run_dir: Path) -> None:
        self._header = f"run: {make_visible(str(run_dir))}"

    def event(self, event: Event, state: State, spend: Spend) -> None:
        """Print the line of an event, if it has one."""
        if self._header:
            click.echo(self._header)
            self._header = ""
        if line := describe_event(event, state):
            click.echo(f"[{spend.calls:,} calls] {line}")


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
            best = format_score(average(list_scores(state, state.incumbent, "validation")))
            score = _format_validation(state, event.id)
            return f"round {event.round + 1}: best candidate: {score}; best prompt so far: {best}"
        case events.Scored() if event.id == state.incumbent:
            done = f"round {event.round + 1}: scored {len(event.rows)} train rows"
            return f"{done}; the denoiser writes candidates"
        case events.Scored() if _is_first_candidate(event, state):
            written = sum(proposal.round == event.round for proposal in state.proposals)
            return f"round {event.round + 1}: {written} candidates written; scoring them on train rows"
        case events.Accepted():
            nats, points = f"{event.gain:+.1f} nats", f"{event.gain:+.3f} ({SELECTION})"
            gain = points if state.traces_read is None else nats
            return f"round {event.round + 1}: accepted {gain}: {_format_edit(event, state)}"
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
    ids = {proposal.id for proposal in state.proposals if proposal.round == event.round}
    scored = [rows for (id, split), rows in state.scores.items() if split == "train" and id in ids]
    return len(scored) == 1 and len(scored[0]) == len(event.rows)


def _format_validation(state: State, id: str) -> str:
    return f"validation {format_score(average(list_scores(state, id, 'validation')))} ({SELECTION})"


def _format_edit(event: events.Accepted, state: State) -> str:
    return format_edit(list_changes(state, state.proposal(event.round, event.id)), 80)


@contextmanager
def _open_plain(config: Config, run_dir: Path) -> Iterator[OnEvent]:
    yield PlainLines(run_dir).event


# --- panel


class LivePanel:
    """A panel that shows the state of the run; it is redrawn after each event."""

    def __init__(self, config: Config, run_dir: Path, clock: Callable[[], float]) -> None:
        self._limit = config.budget.calls
        self._place = make_visible(str(run_dir))
        self._clock = clock
        self._began = clock()
        self._phase = "loading models"
        self._state = State()
        self._spend = Spend()

    def event(self, event: Event, state: State, spend: Spend) -> None:
        """Update the panel."""
        self._state, self._spend = state, spend
        self._phase = describe_phase(event, state)

    def __rich__(self) -> Panel:
        state, spend = self._state, self._spend
        grid = Table.grid(padding=(0, 2))
        for name, value in (
            ("phase", self._phase),
            *([("validation", self._format_scores())] if state.traces_read is None else []),
            ("accepted", f"{len(state.accepted)} of {len(state.proposals)} candidates"),
            ("last edit", _format_edit(state.accepted[-1], state) if state.accepted else "none"),
            ("calls", f"{spend.calls:,}" + (f" of {self._limit:,}" if self._limit else "")),
            ("elapsed", _format_minutes(self._clock() - self._began)),
        ):
            grid.add_row(Text(name, style="dim"), Text(value))
        return Panel(grid, title=Text("remask"), subtitle=Text(self._place), expand=False)

    def _format_scores(self) -> str:
        state = self._state
        best = average(list_scores(state, state.incumbent, "validation"))
        baseline = average(list_scores(state, state.baseline, "validation"))
        return f"best {format_score(best)}, baseline {format_score(baseline)} ({SELECTION})"


def describe_phase(event: Event, state: State) -> str:
    """Describe what the run does after an event."""
    match event:
        case events.TracesRead():
            return "loading the diffusion model"
        case _ if state.traces_read is not None:
            return _describe_refinement_phase(event, state)
        case events.UnlabelledInputs() | events.Started():
            return "scoring the baseline on validation rows"
        case events.Scored(split="train") if event.id == state.incumbent:
            return f"round {event.round + 1}: the denoiser writes candidates"
        case events.Scored(split="train") | events.Proposed():
            return f"round {event.round + 1}: scoring candidates on train rows"
        case events.SearchEnded():
            return "sealed test of baseline and best prompt"
        case events.Tested():
            return "writing the result"
        case _:
            return f"round {state.round + 1}: scoring train rows"


def _describe_refinement_phase(event: Event, state: State) -> str:
    match event:
        case events.Proposed() | events.Refused():
            return f"round {event.round + 1}: measuring candidates on held-out conversations"
        case events.Measured() | events.Attributed():
            return f"round {event.round + 1}: finding the evidence for the best candidate"
        case events.SearchEnded():
            return "sealed test of both prompts, if there is a target"
        case events.Tested():
            return "writing the result"
        case _:
            return f"round {state.round + 1}: proposing edits"


def _format_minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@contextmanager
def _open_panel(config: Config, run_dir: Path) -> Iterator[OnEvent]:
    panel = LivePanel(config, run_dir, time.monotonic)
    with Live(panel, console=Console(), refresh_per_second=4, transient=True):
        yield panel.event
