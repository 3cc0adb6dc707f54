"""The report of a run as one self-contained HTML page.

All text is escaped. The page loads nothing, and its content security policy forbids loading.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from remask.events import State
from remask.runs.report import chart, summary
from remask.runs.result import Result
from remask.sanitize import make_visible, one_line
from remask.stats import format_level

MAX_ROWS = 300  # rows of candidates; with MAX_CELL_CHARS the page stays under 1 MB
MAX_CELL_CHARS = 200  # of a text in a table


def render(result: Result, state: State, points: Sequence[summary.Point], config: Mapping[str, Any]) -> str:
    """Render the page. points: see `list_points`. config: the stored configuration of the run."""
    templates = Environment(
        loader=PackageLoader("remask.runs.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["make_visible"] = make_visible
    templates.filters["cell"] = lambda text: one_line(text, MAX_CELL_CHARS)
    templates.filters["score"] = summary.format_score
    templates.filters["level"] = format_level
    rows = summary.list_candidates(state)
    return templates.get_template("page.html.j2").render(
        result=result,
        verdict=summary.format_verdict(result),
        curve=chart.build_curve(points, max((p.calls for p in points), default=0)),
        interval_bar=chart.build_interval_bar(result.test) if result.test else None,
        candidates=_select_rows(rows),
        candidates_left=max(0, len(rows) - MAX_ROWS),
        refusals=summary.count_refusals(state)[:40],
        settings=summary.list_settings(config),
        spend=summary.format_spend(result.spend),
        selection=summary.SELECTION,
        edits=[(summary.format_edit_title(e), e.changes, summary.list_edit_reasons(e)) for e in result.edits],
        facts=list(summary.list_refinement_facts(result)),
        area=(chart.LEFT, chart.RIGHT, chart.TOP, chart.BOTTOM),
    )


def _select_rows(rows: Sequence[summary.Candidate]) -> list[summary.Candidate]:
    """Select up to MAX_ROWS candidates: first accepted ones, then those with the most scores."""
    order = sorted(
        range(len(rows)),
        key=lambda i: (not rows[i].accepted, rows[i].validation is None, -rows[i].train_rows, i),
    )
    return [rows[i] for i in sorted(order[:MAX_ROWS])]
