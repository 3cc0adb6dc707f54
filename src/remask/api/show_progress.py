"""Draw the progress of a run: a panel for terminals and a display for notebooks.

The command line uses the panel; `open_progress` is the argument `progress` of the Python functions.
Text of models and users is drawn without control characters and without markup.
"""

import html
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from remask.api.job import Hooks, add_callback
from remask.events import Event, State
from remask.runs.budget import Spend, format_amount, format_usd
from remask.runs.progress import Follower, Progress, Workload
from remask.runs.report.summary import SELECTION, format_edit, format_score
from remask.runs.result import list_changes
from remask.sanitize import make_visible
from remask.stats import Estimate

if TYPE_CHECKING:
    from rich.panel import Panel

BAR_WIDTH = 32  # characters
REDRAW_SECONDS = 0.5  # between two drawings in a notebook


# --- words, for every face


def describe_work(now: Progress) -> str:
    """Describe the work of the phase: what is counted, how far it is, and the step of denoising."""
    parts = []
    if now.unit:
        parts.append(f"{now.done:,} of {now.total:,} {now.unit}" if now.total else f"{now.done:,} {now.unit}")
    if now.steps:
        parts.append(f"denoising step {now.step} of {now.steps}")
    if now.held:
        parts.append(f"the endpoint takes no more calls for {now.held} s")
    return ", ".join(parts)


def describe_round(now: Progress) -> str:
    """Describe the round: "2 of about 6"; "" before the first."""
    if not now.round:
        return ""
    return f"{now.round} of about {now.rounds}" if now.rounds >= now.round else str(now.round)


def describe_spend(now: Progress) -> list[str]:
    """Describe what is spent in each unit, with its limit."""
    spend, limits = now.spend, now.limits
    found = [_compare("calls", spend.calls, limits.calls)]
    if spend.tokens or limits.tokens:
        found.append(_compare("tokens", spend.tokens, limits.tokens))
    if spend.usd or limits.usd:
        found.append(format_usd(spend.usd) + (f" of {format_usd(limits.usd)}" if limits.usd else ""))
    if limits.minutes:
        found.append(f"{spend.seconds / 60:.1f} of {format_amount('minutes', limits.minutes)}")
    return found


def _compare(unit: str, spent: float, limit: float | None) -> str:
    return f"{spent:,.0f} of {limit:,.0f} {unit}" if limit else f"{spent:,.0f} {unit}"


def describe_left(now: Progress) -> str:
    """Describe the time that is left, which is only an estimate."""
    if now.seconds_left is None:
        return "not known yet"
    return format_duration(now.seconds_left)


def format_duration(seconds: float) -> str:
    """Format an estimated time: "under a minute", "about 14 minutes", "about 2.5 hours"."""
    if seconds < 60:
        return "under a minute"
    if seconds < 90 * 60:
        minutes = round(seconds / 60)
        return f"about {minutes} minute{'' if minutes == 1 else 's'}"
    return f"about {seconds / 3600:.1f} hours"


def describe_estimate(found: Estimate | None) -> str:
    """Describe a score with its 95 % interval."""
    if found is None:
        return format_score(None)
    return f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"


def format_clock(seconds: float) -> str:
    """Format a time that has passed: 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def measure_share(now: Progress) -> float:
    """Return the share of the bar, 0 to 1: of calls, else of rounds, else of the phase."""
    if now.seconds_left == 0:  # the search may have left calls over
        return 1.0
    if now.limits.calls:
        return min(1.0, now.spend.calls / now.limits.calls)
    if now.rounds:
        inside = now.candidate / now.candidates if now.candidates else 0.0
        return min(1.0, (max(0, now.round - 1) + inside / 2) / now.rounds)
    return min(1.0, now.done / now.total) if now.total else 0.0


def list_lines(now: Progress, state: State) -> Iterable[tuple[str, str]]:
    """List (name, value) of everything that a face shows; "" as a name goes on the line before."""
    yield "phase", now.phase
    if work := describe_work(now):
        yield "", work
    if number := describe_round(now):
        known = now.candidates and now.unit != "candidates"  # else the line above has them
        written = f"; {now.candidate} of {now.candidates} candidates written" if known else ""
        yield "round", number + written
    if state.traces_read is None and now.baseline is not None:
        best = f"best {describe_estimate(now.best)}, baseline {describe_estimate(now.baseline)}"
        yield "validation", f"{best}, {SELECTION}"
    if now.proposed:
        yield "accepted", f"{now.accepted} of {now.proposed} candidates"
    if state.accepted:
        yield "last edit", format_last_edit(state)
    yield "spent", ", ".join(describe_spend(now))
    left = "" if now.stopping else f"; left: {describe_left(now)}"
    yield "time", f"{format_clock(now.seconds)} so far{left}"


def format_last_edit(state: State) -> str:
    """Format the newest accepted edit in a line."""
    event = state.accepted[-1]
    return format_edit(list_changes(state, state.proposal(event.round, event.id)), 80)


# --- terminal


class ProgressPanel:
    """A panel with a bar. rich draws it again four times a second."""

    def __init__(self, follower: Follower, place: str = "", title: str = "remask") -> None:
        self._follower, self._place, self._title = follower, make_visible(place), title

    def __rich__(self) -> "Panel":
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        now, state = self._follower.progress, self._follower.state
        grid = Table.grid(padding=(0, 2))
        full = round(BAR_WIDTH * measure_share(now))
        bar = Text("━" * full, style="green") + Text("─" * (BAR_WIDTH - full), style="dim")
        grid.add_row(Text(""), bar)
        for name, value in list_lines(now, state):
            style = "bold yellow" if name == "phase" and now.stopping else ""
            grid.add_row(Text(name, style="dim"), Text(make_visible(value), style=style))
        subtitle = Text(self._place) if self._place else None
        return Panel(grid, title=Text(self._title), subtitle=subtitle, expand=False)


# --- Python


def is_notebook() -> bool:
    """Whether the program runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def open_progress(wanted: bool | None, hooks: Hooks, place: str = "") -> Iterator[Hooks]:
    """Show the progress of the block, and yield the hooks that tell it what happens.

    wanted: None for a terminal and a notebook only.
    """
    notebook = is_notebook()
    if wanted is False or (wanted is None and not notebook and not _is_terminal()):
        yield hooks
        return
    follower = Follower()
    if notebook:
        display = NotebookDisplay(follower)
        yield add_follower(hooks, follower, display.draw)
        display.draw(at_once=True)
        return
    from rich.console import Console
    from rich.live import Live

    panel = ProgressPanel(follower, place)
    with Live(panel, console=Console(stderr=True), refresh_per_second=4, transient=True):
        yield add_follower(hooks, follower)


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # replaced or closed
        return False


def add_follower(hooks: Hooks, follower: Follower, draw: Callable[[], None] = lambda: None) -> Hooks:
    """Return hooks that also tell a follower what happens, and then draw it."""
    before = hooks.step

    def step(what: str, done: int, total: int, spend: Spend) -> None:
        follower.step(what, done, total, spend)
        draw()
        before(what, done, total, spend)

    def watch(event: Event, state: State, spend: Spend) -> None:
        follower.event(event, state, spend)
        draw()

    def plan(workload: Workload, state: State, spend: Spend) -> None:
        follower.plan(workload, state, spend)
        draw()
        if hooks.plan is not None:
            hooks.plan(workload, state, spend)

    return replace(add_callback(hooks, watch), step=step, plan=plan)


class NotebookDisplay:
    """A display that is drawn again in its place, with the bar as HTML and the lines as text."""

    def __init__(self, follower: Follower, clock: Callable[[], float] = time.monotonic) -> None:
        from IPython.display import HTML, display  # there, where it runs

        self._follower, self._clock, self._html = follower, clock, HTML
        self._drawn = clock()
        self._handle: Any = display(HTML(self.render()), display_id=True)

    def draw(self, at_once: bool = False) -> None:
        """Draw it again, at most twice a second."""
        if at_once or self._clock() - self._drawn >= REDRAW_SECONDS:
            self._drawn = self._clock()
            self._handle.update(self._html(self.render()))

    def render(self) -> str:
        """Return the display as HTML."""
        return render_html(self._follower.progress, self._follower.state)


def render_html(now: Progress, state: State) -> str:
    """Render the progress as HTML, with all text of models and users escaped."""
    rows = "".join(
        f'<tr><td style="opacity:.65;text-align:left">{html.escape(name)}</td>'
        f'<td style="text-align:left">{html.escape(make_visible(value))}</td></tr>'
        for name, value in list_lines(now, state)
    )
    bar = f'<progress value="{measure_share(now):.4f}" max="1" style="width:24em"></progress>'
    return f'<div role="status"><b>remask</b> {bar}<table>{rows}</table></div>'
