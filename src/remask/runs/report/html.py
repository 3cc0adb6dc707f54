"""The report of a run as one self-contained HTML page.

All text is escaped. The page loads nothing, and its content security policy forbids loading; the
one script that it allows is ours, by the hash of its text. The live page of `remask view` includes
the same templates: `run.html.j2` with the values of `make_context`.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from remask.events import State
from remask.runs.outcomes import ROW_FILTERS, RowResult
from remask.runs.report import chart, summary
from remask.runs.report.read_run import RunView
from remask.runs.result import Result, make_result
from remask.sanitize import clip, make_visible, one_line
from remask.stats import format_level

MAX_WINNERS = 100  # candidates that are shown unfolded
MAX_CANDIDATES = 400  # of all; with the limits below the page stays under 1 MB
MAX_ROWS = 50  # of the rows won, and of those lost; half as many of others
MAX_CELL_CHARS = 200  # of a text in a table
MAX_ANSWER_CHARS = 600  # of a message or an answer of a row
SIZES = {"wide": (680, 300), "narrow": (340, 300)}  # of the curve, in pixels: screen and telephone


@dataclass(frozen=True, slots=True)
class EditView:
    """An accepted edit as the page shows it."""

    title: str
    changes: tuple[tuple[str, str], ...]  # (before, after)
    reasons: tuple[str, ...]  # the conversations that support it


def render(seen: RunView) -> str:
    """Render the whole page of a run, finished or not."""
    script = read_script()
    values = {**make_context(seen), "script": Markup(script), "script_hash": hash_script(script)}
    return make_environment().get_template("page.html.j2").render(values)


def make_environment() -> Environment:
    """Return the environment of the templates. It escapes all values."""
    templates = Environment(
        loader=PackageLoader("remask.runs.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["make_visible"] = make_visible
    templates.filters["cell"] = lambda text: one_line(text, MAX_CELL_CHARS)
    templates.filters["answer"] = lambda text: make_visible(clip(text, MAX_ANSWER_CHARS))
    templates.filters["score"] = summary.format_score
    templates.filters["level"] = format_level
    return templates


def read_script() -> str:
    """Return the script of the page. No value of a run is ever put into it."""
    return resources.files("remask.runs.report").joinpath("report.js").read_text(encoding="utf-8")


def hash_script(script: str) -> str:
    """Return the source that allows exactly this inline script in a content security policy."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def make_context(seen: RunView) -> dict[str, Any]:
    """Return the values of run.html.j2 for a run, finished or not.

    A run that has not scored anything has only the values of its head.
    """
    state = seen.state
    result = seen.result
    if result is None and state.baseline:
        result = make_result(state, {}, seen.spend, (), str(seen.run_dir))
    return {
        "name": seen.run_dir.name or str(seen.run_dir),
        "run_dir": str(seen.run_dir),
        "head": _list_head(seen),
        "finished": seen.result is not None,
        "stage": "" if seen.result else summary.describe_stage(state),
        "started": bool(state.baseline),
        "selection": summary.SELECTION,
        "spend": summary.format_spend(seen.spend),
        "settings": summary.list_settings(seen.config),
        **(_describe_result(seen, result) if result else {}),
    }


def _list_head(seen: RunView) -> list[tuple[str, str]]:
    started = datetime.fromtimestamp(seen.created).strftime("%Y-%m-%d %H:%M")
    return [("started", started), *summary.list_parts(seen.config)]


def _describe_result(seen: RunView, result: Result) -> dict[str, Any]:
    state = seen.state
    candidates = summary.list_candidates(state)
    return {
        "result": result,
        "test": result.test,
        "verdict": summary.format_verdict(result) if seen.result else "",
        "interval_bar": chart.build_interval_bar(result.test) if result.test else None,
        "changes": result.diff(),
        "unchanged": result.prompt == result.baseline.prompt,
        "curves": _build_curves(seen),
        "edits": _list_edits(state, result),
        "facts": list(summary.list_refinement_facts(result)),
        "refused": summary.count_refusals(state)[:40],
        "candidates": _select_candidates(candidates),
        "candidates_left": max(0, len(candidates) - MAX_CANDIDATES),
        "rows": _select_rows(seen.rows),
        "row_counts": {name: sum(map(test, seen.rows)) for name, test in ROW_FILTERS.items()},
    }


def _build_curves(seen: RunView) -> dict[str, chart.Curve]:
    points = summary.list_points(seen.history)
    end = max((p.calls for p in points), default=0)
    drawn = {name: chart.build_curve(points, end, size) for name, size in SIZES.items()}
    return {name: curve for name, curve in drawn.items() if curve}


def _list_edits(state: State, result: Result) -> list[EditView]:
    return [
        EditView(summary.format_edit_title(edit), edit.changes, tuple(summary.list_edit_reasons(edit)))
        for edit in result.edits
    ]


def _select_candidates(rows: Sequence[summary.Candidate]) -> list[summary.Candidate]:
    """Select up to MAX_CANDIDATES: first accepted ones, then those with the most scores."""
    order = sorted(
        range(len(rows)),
        key=lambda i: (not rows[i].accepted, rows[i].validation is None, -rows[i].train_rows, i),
    )
    return [rows[i] for i in sorted(order[:MAX_CANDIDATES])]


def _select_rows(rows: Sequence[RowResult]) -> list[RowResult]:
    """Select the first MAX_ROWS of each kind of change, in the order of the rows."""
    left = {"won": MAX_ROWS, "lost": MAX_ROWS, "same": MAX_ROWS // 2, "failed": MAX_ROWS // 2}
    found = []
    for row in rows:
        left[row.change] -= 1
        if left[row.change] >= 0:
            found.append(row)
    return found
