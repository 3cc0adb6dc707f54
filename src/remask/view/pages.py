"""The HTML of `remask view`. Runs are shown by the templates of the report (runs.report)."""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, PackageLoader
from jinja2.meta import find_undeclared_variables

from remask.prompt import Prompt
from remask.runs.progress import describe_stage
from remask.runs.report import chart, html, summary
from remask.runs.report.compare_runs import compare_runs
from remask.runs.report.list_runs import RunSummary, name_state
from remask.runs.report.read_run import RunView
from remask.runs.word_diff import diff
from remask.sanitize import one_line
from remask.stats import Comparison

if TYPE_CHECKING:
    from remask.view.library import LivePage, RunPage

# The parts of report's run.html.j2, in its order; those of a run that has begun its search.
PARTS = (
    *("verdict", "head", "prompt_diff", "rows", "curve", "edits", "candidates"),
    *("cost", "settings", "limits"),
)
STARTED_PARTS = frozenset({"prompt_diff", "rows", "curve", "edits", "candidates"})
FILES = ("style.css", "view.js", "report.js")
NONCE = secrets.token_hex(16)  # stands in a page for the nonce of its answer
PAGE_ROWS = 100  # candidates on a page
MAX_PROMPTS = 150  # to choose from, of each run
LETTERS = "ABCDEF"  # of runs side by side; no more are compared
MAX_FLIPPED = 200  # rows of a comparison
OVERLAY_SIZES = {"wide": (900, 340), "narrow": (340, 300)}
SORTS = {
    "": "as proposed",
    "validation": "by validation score",
    "train": "by train score",
    "accepted": "accepted only",
}


@cache
def _templates() -> Environment:
    found = html.make_environment()
    assert found.loader is not None
    found.loader = ChoiceLoader([found.loader, PackageLoader("remask.view", "templates")])
    found.filters["signed"] = lambda value: f"{value:+.3f}"
    return found


def _render(template: str, /, **values: Any) -> str:
    return _templates().get_template(template).render(nonce=NONCE, **values)


def read_file(name: str) -> tuple[str, str]:
    """Return the media type and the text of a style sheet or a script."""
    if name == "report.js":
        return "text/javascript", html.read_script()
    own = resources.files("remask.view").joinpath("templates")
    if name == "view.js":
        return "text/javascript", own.joinpath("view.js").read_text(encoding="utf-8")
    style = _render("style.css.j2")
    return "text/css", style + own.joinpath("view.css").read_text(encoding="utf-8")


def render_message(sentence: str) -> str:
    """Return a page of one sentence."""
    return _render("view_message.html.j2", title="remask view", sentence=sentence)


def render_problem(sentence: str) -> Mapping[str, str]:
    """Return the piece that says why nothing more can be read."""
    return {"problem": _render("view_problem.html.j2", sentence=sentence)}


# -- the list -------------------------------------------------------------------------------------


def render_list(page: "LivePage", folder: Path) -> str:
    """Return the page of all runs."""
    pieces = {id: text for id, (text, _) in page.pieces.items()}
    return _render(
        "view_list.html.j2",
        title="Runs",
        folder=str(folder),
        pieces=pieces,
        order=page.order,
        stamp=page.stamp,
    )


def render_rows(runs: Sequence[RunSummary]) -> Iterator[tuple[str, str]]:
    """Yield the id of the element and the row of each run. All intervals have one scale."""
    tests = [run.test for run in runs if run.test]
    reach = max((max(abs(t.low), abs(t.high)) for t in tests), default=1.0) or 1.0
    for run in runs:
        bar = _scale_bar(run.test, reach) if run.test else None
        yield (
            f"run-{run.id}",
            _render(
                "view_row.html.j2",
                run=run,
                bar=bar,
                started=summary.format_time(run.created),
                spend=summary.format_cost(run.spend),
                search=one_line(" ".join((run.name, run.state, run.verdict, run.target, run.data))).lower(),
            ),
        )


def _scale_bar(test: Comparison, reach: float) -> dict[str, float]:
    """Return the places of an interval in a box of 100 × 16 whose middle is zero."""
    return {
        name: round(50 + 46 * value / reach, 1)
        for name, value in (("low", test.low), ("high", test.high), ("middle", test.difference))
    }


def render_counts(runs: Iterable[RunSummary]) -> Mapping[str, str]:
    """Return the pieces above the list: how many runs are in which state."""
    found: dict[str, int] = {}
    for run in runs:
        found[run.state] = found.get(run.state, 0) + 1
    return {"counts": _render("view_counts.html.j2", counts=found, total=sum(found.values())), "problem": ""}


# -- one run --------------------------------------------------------------------------------------


def render_run(page: "RunPage") -> str:
    """Return the page of one run."""
    pieces = {id: text for id, (text, _) in page.pieces.items()}
    name = page.folder.name or str(page.folder)
    ids = [f"part-{part}" for part in PARTS]
    return _render(
        "view_run.html.j2",
        title=name,
        id=page.id,
        pieces=pieces,
        parts=ids,
        stamp=page.stamp,
        folder=str(page.folder),
    )


Drawn = dict[str, tuple[tuple[Any, ...], str]]  # of each part: the values that it was made of, and its HTML


def render_run_pieces(seen: RunView, held: bool, drawn: Drawn) -> Mapping[str, str]:
    """Return the pieces of the page of a run. Only parts with other values than in `drawn` are made."""
    values = html.make_context(seen)
    state = name_state(held, seen.result)
    for part in PARTS if values["started"] else [part for part in PARTS if part not in STARTED_PARTS]:
        used = tuple(values.get(name) for name in _list_values(part))
        if part not in drawn or drawn[part][0] != used:
            drawn[part] = used, _templates().get_template(f"{part}.html.j2").render(values)
    found = {f"part-{part}": text for part, (_, text) in drawn.items()}
    status = _render(
        "view_status.html.j2",
        state=state,
        stage="" if seen.result else describe_stage(seen),
        events=len(seen.history),
        candidates=len(seen.state.proposals),
        spend=summary.format_spend(seen.spend),
    )
    return {**found, "status": status, "problem": ""}


@cache
def _list_values(part: str) -> tuple[str, ...]:
    """Return the names of the values that the template of a part uses."""
    loader = _templates().loader
    assert loader is not None
    source, _, _ = loader.get_source(_templates(), f"{part}.html.j2")
    return tuple(sorted(find_undeclared_variables(_templates().parse(source))))


def render_candidates(id: str, seen: RunView, number: int, sort: str) -> str:
    """Return a page of all candidates of a run."""
    rows = summary.list_candidates(seen.state)
    if sort == "accepted":
        rows = [row for row in rows if row.accepted]
    elif sort in ("validation", "train"):
        rows.sort(key=lambda row: -(getattr(row, sort) if getattr(row, sort) is not None else -1e9))
    last = max(1, -(-len(rows) // PAGE_ROWS))
    number = min(max(1, number), last)
    return _render(
        "view_candidates.html.j2",
        title=f"Candidates of {seen.run_dir.name}",
        id=id,
        name=seen.run_dir.name,
        rows=rows[(number - 1) * PAGE_ROWS : number * PAGE_ROWS],
        total=len(rows),
        number=number,
        last=last,
        sort=sort if sort in SORTS else "",
        sorts=SORTS,
        refined=seen.state.traces_read is not None,
        baseline=seen.state.baseline,
    )


# -- several runs ---------------------------------------------------------------------------------


def render_comparison(runs: Sequence[tuple[str, RunView]], chosen: tuple[str, str]) -> str:
    """Return the page of one or more runs side by side."""
    views = [seen for _, seen in runs]
    prompts = _list_prompts(views)
    texts = {id: text for seen in views for id, text in seen.state.prompts.items()}
    first, second = _choose(chosen, views, texts)
    overlay = {
        name: chart.build_overlay([_list_points(seen) for seen in views], size)
        for name, size in OVERLAY_SIZES.items()
    }
    return _render(
        "view_compare.html.j2",
        title="Compare" if len(views) != 1 else f"Prompts of {views[0].run_dir.name}",
        runs=[_describe_run(letter, id, seen) for letter, (id, seen) in zip(LETTERS, runs, strict=False)],
        settings=_list_differences(views),
        overlay=overlay if overlay["wide"] else {},
        prompts=prompts,
        chosen=(first, second),
        changes=_diff_prompts(texts, first, second),
        pairs=[(LETTERS[n], compare_runs(views[0], seen), MAX_FLIPPED) for n, seen in enumerate(views) if n],
    )


def _list_points(seen: RunView) -> tuple[list[summary.Point], int]:
    points = [p for p in summary.list_points(seen.history) if not p.kind.startswith("test")]
    return points, max([seen.spend.calls, *(p.calls for p in points)])


def _describe_run(letter: str, id: str, seen: RunView) -> dict[str, Any]:
    result = seen.result
    validation = summary.find_validation(seen.state, seen.state.incumbent)
    return {
        "letter": letter,
        "id": id,
        "name": seen.run_dir.name,
        "verdict": summary.format_verdict(result) if result else "no verdict yet",
        "kind": result.verdict if result else "",
        "validation": summary.format_score(validation),
        "test": result.test if result else None,
        "spend": summary.format_spend(seen.spend),
        "tokens": seen.state.tokens.get(seen.state.incumbent, 0),
    }


def _list_differences(views: Sequence[RunView]) -> list[tuple[str, list[str]]]:
    """Return (key, value in each run) of the settings that are not the same in all runs."""
    tables = [dict(summary.list_settings(seen.config)) for seen in views]
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = [(key, [table.get(key, "") for table in tables]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _list_prompts(views: Sequence[RunView]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the prompts to choose from: (run, (id, name) of its start, its edits and its best)."""
    found = []
    for letter, seen in zip(LETTERS, views, strict=False):
        state = seen.state
        if not state.baseline:
            continue
        accepted = [
            (e.id, f"accepted in round {e.round + 1}") for e in state.accepted if e.id != state.incumbent
        ]
        tried = {id for id, split in state.scores if split == "validation"}
        rounds = {id: number for number, id in state.proposals if id in tried}
        known = {state.baseline, state.incumbent, *(id for id, _ in accepted)}
        others = [(id, f"tried in round {n + 1}") for id, n in rounds.items() if id not in known]
        best = [(state.incumbent, "best so far" if seen.result is None else "best")]
        start = [(state.baseline, "start")]
        some = [*start, *(best if state.incumbent != state.baseline else []), *accepted[::-1], *others[::-1]]
        found.append((f"{letter}: {seen.run_dir.name}", some[:MAX_PROMPTS]))
    return found


def _choose(chosen: tuple[str, str], views: Sequence[RunView], texts: Mapping[str, str]) -> tuple[str, str]:
    """Return the ids of the two prompts to compare: the chosen ones, else those that one expects."""
    ends = [seen.state for seen in views if seen.state.baseline]
    if not ends:
        return "", ""
    usual = (ends[0].baseline if len(ends) == 1 else ends[0].incumbent, ends[-1].incumbent)
    first, second = (given if given in texts else other for given, other in zip(chosen, usual, strict=True))
    return first, second


def _diff_prompts(texts: Mapping[str, str], first: str, second: str) -> Any:
    if not first:
        return ()
    return diff(Prompt.parse(texts[first]).text, Prompt.parse(texts[second]).text)
