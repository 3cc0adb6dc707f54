"""Print a run as text or JSON: its result, the word diff and the table of candidates.

Reads the run directory without a lock, so that a running run can be shown.
"""

from pathlib import Path
from typing import Any

import click
import orjson

from remask.errors import ConfigError
from remask.prompt import Prompt
from remask.runs.lock import is_held
from remask.runs.outcomes import ROW_FILTERS, RowResult, row_to_dict
from remask.runs.progress import describe_stage
from remask.runs.report import summary
from remask.runs.report.read_run import MARKDOWN_REPORT, REPORT, RunView, advise_waiting, view_run
from remask.runs.result import RESULT, AcceptedEdit, RefinedEdit, Result, find_shortest_within
from remask.runs.word_diff import Change, diff
from remask.sanitize import make_visible, one_line

STYLES = {"added": {"fg": "green"}, "removed": {"fg": "red"}}
MARKS = {"added": ("{+", "+}"), "removed": ("[-", "-]")}
VERDICT_COLOURS = {"improved": "green", "no evidence": "yellow", "unverified": "yellow", "worse": "red"}
CHANGE_COLOURS = {"won": "green", "lost": "red", "same": None, "failed": "yellow"}
NEXT_WIDTH = 44  # characters of a command that is proposed next
MAX_ROW_CHARS = 300  # of a message or an answer
MAX_REJECTED_EDITS = 3  # of a refinement, shown after the accepted ones


def print_run(run_dir: Path, mode: str) -> None:
    """Print a run, finished or not, with its candidates: `remask show`."""
    seen = view_run(run_dir)
    if seen.result is not None:
        print_result(seen.result, mode)
    else:
        _print_unfinished(seen, run_dir, mode)
    rows = summary.list_candidates(seen.state)
    if rows:
        click.echo()
        _print_candidates(rows, mode)


def print_run_json(run_dir: Path) -> None:
    """Print a run as one JSON object: `remask show --json`."""
    seen = view_run(run_dir)
    state = seen.state
    value = {
        "kind": "Run",
        "run_dir": str(run_dir),
        "finished": seen.result is not None,
        "running": is_held(run_dir),
        "result": None if seen.result is None else seen.result.to_dict(),
        "round": state.round if state.stopped else state.round + 1,
        "prompt": state.prompts.get(state.incumbent),
        "validation": {
            "baseline": summary.find_validation(state, state.baseline),
            "best": summary.find_validation(state, state.incumbent),
        },
        "spend": seen.spend,
        "candidates": summary.list_candidates(state),
    }
    click.echo(orjson.dumps(value))


def print_rows(run_dir: Path, name: str, as_json: bool, mode: str) -> None:
    """Print the rows of a filter, "all" or one of ROW_FILTERS, with both answers: `--rows`."""
    rows = [row for row in view_run(run_dir).rows if name == "all" or ROW_FILTERS[name](row)]
    if as_json:
        for row in rows:
            click.echo(orjson.dumps(row_to_dict(row)))
        return
    for row in rows:
        _print_row(row, mode == "rich")
    what = "rows" if name == "all" else f"rows, {name}"
    by_split = ", ".join(f"{sum(row.split == s for row in rows)} {s}" for s in ("test", "validation"))
    click.echo(f"{what}: {len(rows)} ({by_split})")


def _print_row(row: RowResult, colour: bool) -> None:
    guard = f"  guard set {one_line(row.guard)}" if row.guard else ""
    title = f"{row.change}  {row.split}  {make_visible(row.place)}{guard}"
    click.echo(click.style(title, fg=CHANGE_COLOURS[row.change], bold=True) if colour else title)
    click.echo(f"  message   {one_line(row.message, MAX_ROW_CHARS)}")
    if row.expected:
        click.echo(f"  expected  {one_line(row.expected, MAX_ROW_CHARS)}")
    for name, answer in (("before", row.before), ("after", row.after)):
        score = "no score" if answer.score is None else summary.format_score(answer.score)
        note = ", no label" if answer.unparsed else ", cut off" if answer.cut else ""
        said = answer.error if answer.score is None else answer.text
        click.echo(f"  {name:<9} {score}{note}: {one_line(said, MAX_ROW_CHARS)}")
        if answer.feedback:
            click.echo(f"            {one_line(answer.feedback, MAX_ROW_CHARS)}")


def find_best_prompt(run_dir: Path, within: float | None = None) -> Prompt:
    """Return the best prompt of a run, finished or not.

    `within`: return the shortest prompt that is at most so many points of 100 worse on validation.
    Raises ConfigError where the run has no prompt or no validation scores.
    """
    state = view_run(run_dir).state
    if not state.baseline:
        raise ConfigError(f"{run_dir} has no prompt yet; {advise_waiting(run_dir)}")
    if within is not None and state.traces_read is not None:
        raise ConfigError(
            f"--shortest-within needs validation scores, and {run_dir} has none, since its edits "
            "were chosen by likelihood; leave the option out"
        )
    return state.prompt(state.incumbent if within is None else find_shortest_within(state, within))


def print_result_json(result: Result) -> None:
    """Print a result as the last line of `--json`."""
    click.echo(orjson.dumps({"kind": "Result", **result.to_dict(), **_list_files(result)}))


def print_result(result: Result, mode: str) -> None:
    """Print the result of a finished run."""
    colour = mode == "rich"
    found = result.refinement
    line = summary.format_verdict(result)
    click.echo(click.style(line, fg=VERDICT_COLOURS[result.verdict], bold=True) if colour else line)
    click.echo()
    if found is not None and result.prompt == result.baseline.prompt:
        click.echo("the prompt is unchanged, because no edit was accepted")
    else:
        click.echo(format_diff(result.diff(), colour))
    click.echo()
    for fact in summary.list_facts(result):
        click.echo(fact)
    for edit in result.edits:
        _print_edit(f"edit of {summary.format_edit_title(edit)}", edit)
    rejected = sorted(found.proposals, key=lambda e: -e.log_likelihood_gain) if found else []
    for edit in rejected[:MAX_REJECTED_EDITS]:
        _print_edit(f"not accepted: best edit of {summary.format_edit_title(edit)}", edit)
    if len(result.pareto_front) > 1:
        beside = ", ".join(one_line(one.name) for one in result.objectives) or "length"
        click.echo(f"score and {beside} (validation, {summary.SELECTION}):")
        for line in summary.list_front(result.pareto_front):
            click.echo(f"  {line}")
    for line in summary.list_refinement_facts(result):
        click.echo(line)
    for warning in result.warnings:
        click.echo(f"warning: {one_line(warning)}")
    for name, path in {"run": result.run_dir, **_list_files(result)}.items():
        click.echo(f"{name}: {_link(Path(path)) if colour else one_line(str(path))}")
    click.echo("next:")
    for command, what in summary.list_next_commands(result):
        click.echo(f"  {command:<{NEXT_WIDTH}}  {what}")


def _link(path: Path) -> str:
    """Return a path as a link of the terminal (OSC 8). The address holds no control characters."""
    shown = one_line(str(path))
    try:
        address = path.resolve().as_uri()  # percent-encodes all but letters, digits and _.-~/
    except (OSError, ValueError, RuntimeError):
        return shown
    return f"\x1b]8;;{address}\x1b\\{shown}\x1b]8;;\x1b\\"


def _print_edit(title: str, edit: AcceptedEdit | RefinedEdit) -> None:
    click.echo(f"{title}: {summary.format_edit(edit.changes, 120)}")
    for line in summary.list_evidence(edit, 120):
        click.echo(f"  evidence: {line}")


def format_diff(changes: tuple[Change, ...], colour: bool) -> str:
    """Mark added and removed words as {+added+} and [-removed-], with `colour` also green and red."""
    return "".join(_format_change(change, colour) for change in changes)


def _format_change(change: Change, colour: bool) -> str:
    text = make_visible(change.text)
    if change.kind == "same":
        return text
    before, after = MARKS[change.kind]
    marked = f"{before}{text}{after}"
    style: dict[str, Any] = STYLES[change.kind]
    return click.style(marked, **style) if colour else marked


def _list_files(result: Result) -> dict[str, str]:
    page = REPORT if result.refinement is None else MARKDOWN_REPORT
    return {"result": str(Path(result.run_dir) / RESULT), "report": str(Path(result.run_dir) / page)}


def _print_unfinished(seen: RunView, run_dir: Path, mode: str) -> None:
    state, held = seen.state, is_held(run_dir)
    if not state.baseline:
        click.echo("the run is running and loads its models" if held else "the run has no events yet")
        return
    before, after = state.prompt(state.baseline).text, state.prompt(state.incumbent).text
    click.echo(format_diff(diff(before, after), mode == "rich"))
    click.echo()
    if held:
        click.echo(f"the run is running: {describe_stage(seen)}")
    else:
        click.echo(f"the run was stopped; there is no verdict yet; where it was: {describe_stage(seen)}")
    if state.traces_read is None:
        old, new = (
            summary.format_score(summary.find_validation(state, id))
            for id in (state.baseline, state.incumbent)
        )
        click.echo(f"validation ({summary.SELECTION}, not a result): {old} → {new}")
    click.echo(f"spent: {summary.format_spend(seen.spend)}")
    if not held:
        click.echo(f"continue with: remask resume {make_visible(str(run_dir))}")


def _print_candidates(rows: list[summary.Candidate], mode: str) -> None:
    """Print the candidates as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = mode == "rich"
    console = Console(
        force_terminal=None if terminal else False,
        color_system="auto" if terminal else None,
        width=None if terminal else 140,
    )
    table = Table(box=box.SIMPLE if terminal else None, pad_edge=False)
    by_likelihood = any(row.gain is not None for row in rows)
    numbers = ("gain in nats",) if by_likelihood else ("train (rows)", "validation")
    for title in ("round", "masker", "edit", *numbers, ""):
        table.add_column(title, justify="right" if title in numbers else "left")
    for row in rows:
        gain = "–" if row.gain is None else f"{row.gain:+.1f}"
        train = (
            f"{summary.format_score(row.train)} ({row.train_rows})",
            summary.format_score(row.validation),
        )
        cells = (
            str(row.round),
            row.masker,
            summary.format_edit(row.changes, 60),
            *((gain,) if by_likelihood else train),
            "accepted" if row.accepted else "",
        )
        table.add_row(*map(Text, cells), style="green" if row.accepted and terminal else None)
    console.print(table)
    if by_likelihood:
        click.echo("gain: in log-probability of held-out conversations; no target was called")
    else:
        click.echo(f"train: mean over a few rows, used to rank candidates; validation: {summary.SELECTION}")
