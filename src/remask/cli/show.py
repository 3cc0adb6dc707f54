"""Printing a run: its result, the word diff, the table of candidates; for people and as JSON.

Reads the run directory without locking it, so a run can be looked at while it goes on.
"""

from pathlib import Path
from typing import Any

import click
import orjson

from remask.errors import ConfigError
from remask.prompt import Prompt
from remask.runs.report import summary
from remask.runs.report.read_run import MARKDOWN_REPORT, REPORT, RunView, view_run
from remask.runs.result import RESULT, AcceptedEdit, RefinedEdit, Result, find_shortest_within
from remask.runs.word_diff import Change, diff
from remask.sanitize import make_visible, one_line

STYLES = {"added": {"fg": "green", "underline": True}, "removed": {"fg": "red", "strikethrough": True}}
MARKS = {"added": ("{+", "+}"), "removed": ("[-", "-]")}
VERDICTS = {"improved": "green", "no evidence": "yellow", "unverified": "yellow", "worse": "red"}
CLOSEST = 3  # proposals of a refinement that were not accepted, shown at the end


def run_text(run_dir: Path, mode: str) -> None:
    """`remask show`."""
    seen = view_run(run_dir)
    if seen.result is not None:
        result_text(seen.result, mode)
    else:
        _unfinished(seen, run_dir, mode)
    rows = summary.list_candidates(seen.state)
    if rows:
        click.echo()
        _table(rows, mode)


def run_json(run_dir: Path) -> None:
    """`remask show --json`: one object."""
    seen = view_run(run_dir)
    state = seen.state
    value = {
        "kind": "Run",
        "run_dir": str(run_dir),
        "finished": seen.result is not None,
        "result": None if seen.result is None else seen.result.to_dict(),
        "round": state.round,
        "prompt": state.prompts.get(state.incumbent),
        "validation": {
            "baseline": summary.average(summary.list_scores(state, state.baseline, "validation")),
            "best": summary.average(summary.list_scores(state, state.incumbent, "validation")),
        },
        "spend": seen.spend,
        "candidates": summary.list_candidates(state),
    }
    click.echo(orjson.dumps(value))


def best_prompt(run_dir: Path, within: float | None = None) -> Prompt:
    """The incumbent of a run, finished or not, with its kept spans; or the shortest prompt that is
    at most `within` points of 100 worse on validation."""
    state = view_run(run_dir).state
    if not state.baseline:
        raise ConfigError(f"{run_dir} has no prompt yet; go on with `remask resume {run_dir}`")
    if within is not None and state.traces_read is not None:
        raise ConfigError(
            f"--shortest-within compares validation scores, and {run_dir} has none: its edits were "
            "chosen by likelihood"
        )
    return state.prompt(state.incumbent if within is None else find_shortest_within(state, within))


def result_json(result: Result) -> None:
    """The last line of `--json`."""
    click.echo(orjson.dumps({"kind": "Result", **result.to_dict(), **_paths(result)}))


def result_text(result: Result, mode: str) -> None:
    """What `remask optimize` ends with."""
    colour = mode == "rich"
    found = result.refinement
    unchanged = found is not None and result.prompt == result.baseline.prompt
    click.echo(
        "the prompt is unchanged: no edit was supported" if unchanged else diff_text(result.diff(), colour)
    )
    click.echo()
    line = summary.format_verdict(result)
    click.echo(click.style(line, fg=VERDICTS[result.verdict], bold=True) if colour else line)
    if found is None:
        click.echo(summary.format_selection(result))
    for edit in result.edits:
        _edit(f"edit of {summary.format_edit_title(edit)}", edit)
    for edit in (
        sorted(found.proposals, key=lambda edit: -edit.log_likelihood_gain)[:CLOSEST] if found else ()
    ):
        _edit(f"not accepted, best of {summary.format_edit_title(edit)}", edit)
    if len(result.pareto_front) > 1:
        click.echo(f"score and length (validation, {summary.SELECTION}):")
        for line in summary.list_front(result.pareto_front):
            click.echo(f"  {line}")
    for line in summary.list_refinement_facts(result):
        click.echo(line)
    for warning in result.warnings:
        click.echo(f"warning: {one_line(warning)}")
    click.echo(f"Search stopped: {one_line(result.stopped)}.")
    counts = f"; {result.candidates} candidates evaluated, {result.rejected} stopped by the guard"
    click.echo(f"spent: {summary.format_spend(result.spend)}{'' if found else counts}")
    for name, path in {"run": result.run_dir, **_paths(result)}.items():
        click.echo(f"{name}: {path}")


def _edit(title: str, edit: AcceptedEdit | RefinedEdit) -> None:
    click.echo(f"{title}: {summary.format_edit(edit.changes, 120)}")
    for reason in summary.list_edit_reasons(edit):
        click.echo(f"  {reason}")


def diff_text(changes: tuple[Change, ...], colour: bool) -> str:
    """Words added and removed: green and red on a terminal, {+…+} and [-…-] elsewhere."""
    return "".join(_piece(change, colour) for change in changes)


def _piece(change: Change, colour: bool) -> str:
    text = make_visible(change.text)
    if change.kind == "same":
        return text
    if colour:
        style: dict[str, Any] = STYLES[change.kind]
        return click.style(text, **style)
    before, after = MARKS[change.kind]
    return f"{before}{text}{after}"


def _paths(result: Result) -> dict[str, str]:
    page = REPORT if result.refinement is None else MARKDOWN_REPORT
    return {"result": str(Path(result.run_dir) / RESULT), "report": str(Path(result.run_dir) / page)}


def _unfinished(seen: RunView, run_dir: Path, mode: str) -> None:
    state = seen.state
    if not state.baseline:
        click.echo("nothing has happened in this run yet")
        return
    before, after = state.prompt(state.baseline).text, state.prompt(state.incumbent).text
    click.echo(diff_text(diff(before, after), mode == "rich"))
    click.echo()
    click.echo(f"not finished, in round {state.round + 1}; there is no verdict yet")
    if state.traces_read is None:
        old, new = (
            summary.format_score(summary.average(summary.list_scores(state, id, "validation")))
            for id in (state.baseline, state.incumbent)
        )
        click.echo(f"validation ({summary.SELECTION}, not a result): {old} → {new}")
    click.echo(f"spent: {summary.format_spend(seen.spend)}")
    click.echo(f"go on with: remask resume {run_dir}")


def _table(rows: list[summary.Candidate], mode: str) -> None:
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
    ranked = any(row.gain is not None for row in rows)  # by likelihood
    figures = ("gain in nats",) if ranked else ("train (rows)", "validation")
    for title in ("round", "masker", "edit", *figures, ""):
        table.add_column(title, justify="right" if title in figures else "left")
    for row in rows:
        gain = "–" if row.gain is None else f"{row.gain:+.1f}"
        train = (
            f"{summary.format_score(row.train)} ({row.train_rows})",
            summary.format_score(row.validation),
        )
        cells = (
            str(row.round + 1),
            row.masker,
            summary.format_edit(row.changes, 60),
            *((gain,) if ranked else train),
            "accepted" if row.accepted else "",
        )
        table.add_row(*map(Text, cells), style="green" if row.accepted and terminal else None)
    console.print(table)
    if ranked:
        click.echo("gain: of the log-probability of held-out conversations; no target was asked")
    else:
        click.echo(f"train: means over few rows, they only rank; validation: {summary.SELECTION}")
