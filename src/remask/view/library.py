"""The runs of a folder as pages that grow: what changed since a version, and no more.

All of it works in one thread, so that the server answers while a large run is read, and so that
each database has one reader.
"""

import gc
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from remask.errors import ConfigError
from remask.runs import database
from remask.runs.lock import is_held
from remask.runs.report.list_runs import RunSummary, list_runs, summarize_run
from remask.runs.report.read_run import RunFollower, RunView
from remask.sanitize import one_line
from remask.view import pages

PAUSE_S = 0.4  # between two looks at the files
PAUSE_PER_COST = 4.0  # a page that takes long to make is made less often
MAX_OPEN = 32  # runs that are kept open: more than streams, or pages would close each other


@dataclass
class LivePage:
    """Pieces of a page by the id of their element, each with the version in which it last changed."""

    pieces: dict[str, tuple[str, int]] = field(default_factory=dict)
    order: tuple[str, ...] = ()  # of the pieces that come and go
    version: int = 1
    epoch: str = field(default_factory=lambda: secrets.token_hex(4))  # versions of another server differ
    next_look: float = 0.0

    def update(self, found: Mapping[str, str], order: Sequence[str] = ()) -> None:
        """Take new texts of the pieces."""
        changed = {id: html for id, html in found.items() if self.pieces.get(id, (None,))[0] != html}
        if not changed and self.pieces.keys() == found.keys() and self.order == tuple(order):
            return
        self.version += 1
        kept = {id: self.pieces[id] for id in found if id not in changed}
        self.pieces = {**kept, **{id: (html, self.version) for id, html in changed.items()}}
        self.order = tuple(order)

    def find_changes(self, since: str) -> tuple[str, dict[str, str]]:
        """Return the stamp of this version and the pieces that changed since another stamp."""
        epoch, _, number = since.partition("-")
        before = int(number) if epoch == self.epoch and number.isdecimal() and len(number) < 12 else 0
        changed = {id: html for id, (html, version) in self.pieces.items() if version > before}
        return self.stamp, changed

    @property
    def stamp(self) -> str:
        """The name of this version, which a browser sends when it comes back."""
        return f"{self.epoch}-{self.version}"

    def is_due(self) -> bool:
        """Whether enough time went by since the last look."""
        return time.monotonic() >= self.next_look

    def end_look(self, began: float) -> None:
        """Set the time of the next look, by what this one took."""
        now = time.monotonic()
        self.next_look = now + max(PAUSE_S, PAUSE_PER_COST * (now - began))


class RunPage(LivePage):
    """The page of one run."""

    def __init__(self, id: str, folder: Path) -> None:
        super().__init__()
        self.id, self.folder = id, folder
        self._run: RunFollower | None = None
        self._held: bool | None = None
        self._drawn: pages.Drawn = {}
        self._is_new = True  # what was read is not in the pieces yet
        self.problem = ""  # why the run cannot be read

    def close(self) -> None:
        """Close the database."""
        if self._run is not None:
            self._run.close()

    def look(self) -> None:
        """Read what is new, and make the pieces again where anything is."""
        if not self.is_due():
            return
        began = time.monotonic()
        try:
            held = is_held(self.folder)
            view = self.view()
            if not self._is_new and held == self._held and not self.problem:
                return
            self.update(pages.render_run_pieces(view, held, self._drawn))
            self._held, self.problem, self._is_new = held, "", False
        except (ConfigError, OSError) as error:
            self.problem = one_line(str(error))
            self.update(
                {**{id: html for id, (html, _) in self.pieces.items()}, **pages.render_problem(self.problem)}
            )
        finally:
            self.end_look(began)

    def view(self) -> RunView:
        """Return the run as it is now. Raises ConfigError."""
        if self._run is None:
            self._run = RunFollower(self.folder)
            gc.freeze()  # events have no cycles: looking through many of them costs more than it frees
        elif self._run.read_on():
            self._is_new = True
        return self._run.view()


class Library:
    """The folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: OrderedDict[str, RunPage] = OrderedDict()
        self._list = LivePage()

    def close(self) -> None:
        """Close all databases."""
        for page in self._open.values():
            page.close()

    def list_runs(self) -> list[RunSummary]:
        """Return all runs, newest first. Raises ConfigError where the folder cannot be read."""
        if (self.folder / database.FILE).is_file():
            return [summarize_run(self.folder)]
        return list_runs(self.folder)

    def look_at_list(self) -> LivePage:
        """Return the list of runs as it is now."""
        page = self._list
        if page.is_due():
            began = time.monotonic()
            try:
                runs = self.list_runs()
                rows = dict(pages.render_rows(runs))
                page.update({**rows, **pages.render_counts(runs)}, list(rows))
            except ConfigError as error:
                problem = pages.render_problem(one_line(str(error)))
                page.update({**{id: html for id, (html, _) in page.pieces.items()}, **problem}, page.order)
            page.end_look(began)
        return page

    def find(self, id: str) -> RunPage | None:
        """Return the page of a run; None where there is no such run."""
        if id not in self._open:
            folder = next((run.path for run in self.list_runs() if run.id == id), None)
            if folder is None:
                return None
            self._open[id] = RunPage(id, folder)
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(id)
        return self._open[id]
