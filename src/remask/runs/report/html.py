"""The report of a run as one self-contained HTML page.

All text is escaped. The page loads nothing, and its content security policy forbids loading; the
one script that it allows is ours, by the hash of its text. The live page of `remask view` includes
the same templates: `run.html.j2` with the values of `make_context`.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import chain
from typing import Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from remask.events import Proposed, State
from remask.ports import Pieces
from remask.runs.goal_results import list_goals
from remask.runs.outcomes import ROW_FILTERS, RowAnswer, RowResult
from remask.runs.progress import describe_stage
from remask.runs.report import chart, summary
from remask.runs.report.read_run import RunView
from remask.runs.result import Result, make_result
from remask.sanitize import clip, make_visible, one_line
from remask.stats import Comparison, format_level

T = TypeVar("T")

MAX_CELL_CHARS = 200  # of a text in a table
MAX_ANSWER_CHARS = 600  # of a message or an answer of a row
MAX_ROWS = {"won": 50, "lost": 50, "failed": 15, "same": 15}
# Bytes of each part of the page at most, so that it stays under 1 MB whatever a run holds.
MAX_ROW_BYTES, MAX_CANDIDATE_BYTES, MAX_EDIT_BYTES = 240_000, 180_000, 120_000
MAX_REFUSALS = 40
SIZES = {"wide": (800, 340), "narrow": (340, 320)}  # of the curve: on a screen and on a telephone
HEADLINES = {
    "improved": "Improved",
    "worse": "Worse",
    "no evidence": "No evidence of a difference",
    "unverified": "Unverified",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A large number of the verdict."""

    name: str
    value: str
    note: str
    gain: bool = False


@dataclass(frozen=True, slots=True)
class EditView:
    """An accepted edit as the page shows it."""

    title: str
    changes: tuple[tuple[str, str], ...]  # (before, after)
    evidence: tuple[str, ...]  # the conversations that support it most
    pieces: tuple[Pieces, ...]  # of the new texts, where the steps are known
    steps: int  # the last one; 0: unknown


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
    templates.filters["cell"] = _make_cell
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
    """Return the values of run.html.j2 for a run, finished or not."""
    state, result = seen.state, seen.result
    if result is None and state.baseline:
        result = make_result(state, {}, seen.spend, (), str(seen.run_dir))
    given, defaults = summary.split_settings(seen.config)
    found = {
        "name": seen.run_dir.name or str(seen.run_dir),
        "head": _list_head(seen),
        "finished": seen.result is not None,
        "started": bool(state.baseline),
        "selection": summary.SELECTION,
        "costs": summary.list_costs(seen.spend, seen.config, seen.result),
        "settings": given,
        "defaults": defaults,
        "test": None,
        "interval_bar": None,
        **_describe_verdict(seen, result),
    }
    return found if result is None else {**found, **_describe_result(seen, result)}


def _list_head(seen: RunView) -> list[tuple[str, str]]:
    return [("Started", summary.format_time(seen.created)), *summary.list_parts(seen.config)]


def _describe_verdict(seen: RunView, result: Result | None) -> dict[str, Any]:
    """Return the headline, its large numbers and the sentences below them."""
    if result is None or seen.result is None:
        scores = [
            summary.find_validation(seen.state, id) for id in (seen.state.baseline, seen.state.incumbent)
        ]
        note = f"validation, {summary.SELECTION}"
        names = ("Baseline", "Best prompt so far")
        figures = [
            Figure(name, summary.format_score(score), note)
            for name, score in zip(names, scores, strict=True)
            if score is not None
        ]
        stage = describe_stage(seen)
        return {"kind": "running", "headline": "Not finished", "figures": figures, "sentences": [stage]}
    unchanged = result.prompt == result.baseline.prompt
    sentences = [summary.format_verdict(result)]
    if unchanged and result.test:  # without a test the verdict says what to try
        sentences.append(summary.suggest_next(result))
    elif result.test:
        sentences.append(summary.describe_test(result.test))
    sentences += list_goals(result.objectives, result.guards, result.prefer, result.within)
    return {
        "kind": result.verdict.replace(" ", "-"),
        "headline": "Unchanged" if unchanged else HEADLINES[result.verdict],
        "figures": _list_figures(result.test, unchanged),
        "sentences": sentences,
    }


def _list_figures(test: Comparison | None, unchanged: bool) -> list[Figure]:
    if test is None:
        return []
    rows = f"{test.n} sealed test rows"
    figures = [Figure("Baseline", f"{test.baseline:.3f}", rows)]
    if unchanged:
        return figures
    return [
        *figures,
        Figure("Best prompt", f"{test.best:.3f}", rows),
        Figure(
            "Difference",
            f"{test.difference:+.3f}",
            f"{format_level(test.level)} interval {test.low:+.3f} to {test.high:+.3f}",
            gain=True,
        ),
    ]


def _describe_result(seen: RunView, result: Result) -> dict[str, Any]:
    winners, others = _rank_proposals(state := seen.state)
    room = MAX_CANDIDATE_BYTES
    shown_winners, room = _take(summary.describe_candidates(state, winners), _weigh_candidate, room)
    shown_others, _ = _take(summary.describe_candidates(state, others), _weigh_candidate, room)
    edits = list(_list_edits(state, result))
    shown_edits, _ = _take(edits, _weigh_edit, MAX_EDIT_BYTES)
    unchanged = result.prompt == result.baseline.prompt
    return {
        "result": result,
        "test": result.test,
        "interval_bar": chart.build_interval_bar(result.test) if result.test and not unchanged else None,
        "changes": result.diff(),
        "quotes": summary.describe_quotes(result),
        "unchanged": unchanged,
        "can_copy": make_visible(result.prompt) == result.prompt,  # else what is shown is not the text
        "edits": shown_edits,
        "edits_left": len(edits) - len(shown_edits),
        "facts": list(summary.list_refinement_facts(result)),
        "refused": summary.count_refusals(state)[:MAX_REFUSALS],
        "winners": shown_winners,
        "others": shown_others,
        "has_more_candidates": len(shown_winners) + len(shown_others) < len(state.proposals),
        "rows": _describe_rows(seen),
        **_describe_curve(seen),
    }


def _rank_proposals(state: State) -> tuple[list[Proposed], Iterable[Proposed]]:
    """Return the proposals with a validation score or accepted, and the others, most scored rows first."""
    taken = {(event.round, event.id) for event in state.accepted}
    rows = {id: len(scores) for (id, split), scores in state.scores.items() if split == "train"}
    validated = {id for id, split in state.scores if split == "validation"}
    known = validated | rows.keys() | {event.id for event in state.accepted}
    some = [(key, p) for key, p in state.proposals.items() if key[1] in known]
    best = [p for key, p in some if p.id in validated or key in taken]
    others = [p for key, p in some if p.id not in validated and key not in taken]
    # A page shows few of those without a score, so they are looked for only as far as it goes.
    rest = (p for (_, id), p in state.proposals.items() if id not in known)
    return best, chain(sorted(others, key=lambda p: -rows.get(p.id, 0)), rest)


def _describe_curve(seen: RunView) -> dict[str, Any]:
    points = summary.list_points(seen.history)
    budget = seen.config.get("budget")
    calls = (budget.get("calls") if isinstance(budget, Mapping) else None) or 0
    drawn = {name: chart.build_curve(tuple(points), calls, size) for name, size in SIZES.items()}
    used = max((p.calls for p in points), default=0)
    words = [chart.describe_point(point) for point in points]
    return {
        "curves": {name: curve for name, curve in drawn.items() if curve},
        "curve_points": words[:200],
        "curve_words": "validation score of the best prompt so far against target calls; "
        f"its {len(points)} points are in words below",
        "budget_calls": f"{calls:,}" if calls else "",
        "outside": calls > chart.MAX_BUDGET_SHARE * used,
    }


def _list_edits(state: State, result: Result) -> Iterator[EditView]:
    for edit, event in zip(result.edits, state.accepted, strict=False):
        pieces = tuple(p for p in state.proposal(event.round, event.id).pieces if p)
        yield EditView(
            title=_capitalise(summary.format_edit_title(edit)),
            changes=edit.changes,
            evidence=tuple(summary.list_evidence(edit, 160)),
            pieces=pieces,
            steps=max((step for one in pieces for _, step in one), default=0),
        )


def _describe_rows(seen: RunView) -> dict[str, Any]:
    """Return the test rows, or the validation rows before the test: counts, and those to show."""
    split = "test" if any(row.split == "test" for row in seen.rows) else "validation"
    rows = [row for row in seen.rows if row.split == split]
    counts = {name: sum(map(holds, rows)) for name, holds in ROW_FILTERS.items()}
    picked = [r for kind, most in MAX_ROWS.items() for r in [r for r in rows if r.change == kind][:most]]
    shown, _ = _take([_view_row(row) for row in picked], _weigh, MAX_ROW_BYTES)
    same = len(rows) - counts["won"] - counts["lost"] - counts["failed"]
    return {"split": split, "total": len(rows), "counts": {**counts, "same": same}, "shown": shown}


def _view_row(row: RowResult) -> dict[str, Any]:
    """Return the texts of a row, clipped and visible."""

    def view(text: str) -> str:
        return make_visible(clip(text, MAX_ANSWER_CHARS))

    def view_answer(name: str, answer: RowAnswer) -> dict[str, str]:
        score = "no score" if answer.score is None else summary.format_score(answer.score)
        note = ", no label found" if answer.unparsed else ", cut off" if answer.cut else ""
        said = answer.error if answer.score is None else answer.text
        return {"name": name, "score": score + note, "text": view(said), "feedback": view(answer.feedback)}

    return {
        "change": row.change,
        "unparsed": row.before.unparsed or row.after.unparsed,
        "place": _make_cell(row.place),
        "title": _make_cell(row.message, 110),
        "message": view(row.message),
        "expected": view(row.expected),
        "answers": [view_answer("Baseline", row.before), view_answer("Best prompt", row.after)],
    }


@lru_cache(maxsize=4096)  # a page that grows has mostly the cells that it had
def _make_cell(text: str, width: int = MAX_CELL_CHARS) -> str:
    """Return a text on one line and clipped. A long one is clipped first, because that is faster."""
    return one_line(clip(text, 4 * width), width)


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def _take(items: Iterable[T], weigh: Callable[[T], int], limit: int) -> tuple[list[T], int]:
    """Return the first items that together weigh at most `limit`, and what is left of it."""
    found: list[T] = []
    for item in items:
        limit -= weigh(item)
        if limit < 0:
            break
        found.append(item)
    return found, max(0, limit)


@lru_cache(maxsize=1024)
def _weigh_candidate(row: summary.Candidate) -> int:
    return 420 + sum(_weigh(_make_cell(text)) + 24 for pair in row.changes for text in pair)


def _weigh_edit(edit: EditView) -> int:
    texts = [_make_cell(text) for pair in edit.changes for text in pair] + list(edit.evidence)
    pieces = sum(90 + _weigh(make_visible(text)) for one in edit.pieces for text, _ in one)
    return 900 + _weigh(texts) + pieces


def _weigh(value: Any) -> int:
    """Return the bytes of all texts of a value on the page, with the tags around them, roughly."""
    if isinstance(value, str):
        return len(escape(value).encode())
    if isinstance(value, Mapping):
        return 200 + sum(map(_weigh, value.values()))
    return 30 * len(value) + sum(map(_weigh, value)) if isinstance(value, list) else 0
