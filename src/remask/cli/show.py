"""Printing a run: its result, the word diff, the table of candidates; for people and as JSON.

Reads the run directory without locking it, so a run can be looked at while it goes on.
"""

from pathlib import Path
from typing import Any

import click
import orjson

from remask.errors import ConfigError
from remask.prompt import Change, Prompt, diff
from remask.report.files import REPORT, Look, look
from remask.report.words import (
    SELECTION,
    Candidate,
    candidates,
    edit_line,
    figure,
    front_lines,
    known,
    mean,
    one_line,
    selection_line,
    spend_line,
    verdict_line,
    visible,
)
from remask.result import RESULT, Result, shortest_within

STYLES = {
    "added": {"fg": "green", "underline": True},
    "removed": {"fg": "red", "strikethrough": True},
}
MARKS = {"added": ("{+", "+}"), "removed": ("[-", "-]")}
VERDICTS = {"improved": "green", "no evidence": "yellow", "worse": "red"}


def run_text(run_dir: Path, mode: str) -> None:
    """`remask show`."""
    seen = look(run_dir)
    if seen.result is not None:
        result_text(seen.result, mode)
    else:
        _unfinished(seen, run_dir, mode)
    rows = candidates(seen.state)
    if rows:
        click.echo()
        _table(rows, mode)


def run_json(run_dir: Path) -> None:
    """`remask show --json`: one object."""
    seen = look(run_dir)
    state = seen.state
    value = {
        "kind": "Run",
        "run_dir": str(run_dir),
        "finished": seen.result is not None,
        "result": None if seen.result is None else seen.result.to_dict(),
        "round": state.round,
        "prompt": state.prompts.get(state.incumbent),
        "validation": {
            "baseline": mean(known(state, state.baseline, "validation")),
            "best": mean(known(state, state.incumbent, "validation")),
        },
        "spend": seen.spend,
        "candidates": candidates(state),
    }
    click.echo(orjson.dumps(value))


def best_prompt(run_dir: Path, within: float | None = None) -> Prompt:
    """The incumbent of a run, finished or not, with its kept spans; or the shortest prompt that is
    at most `within` points of 100 worse on validation."""
    state = look(run_dir).state
    if not state.baseline:
        raise ConfigError(f"{run_dir} has no prompt yet; go on with `remask resume {run_dir}`")
    return state.prompt(state.incumbent if within is None else shortest_within(state, within))


def result_json(result: Result) -> None:
    """The last line of `--json`."""
    click.echo(orjson.dumps({"kind": "Result", **result.to_dict(), **_paths(result.run_dir)}))


def result_text(result: Result, mode: str) -> None:
    """What `remask optimize` ends with."""
    colour = mode == "rich"
    click.echo(diff_text(result.diff(), colour))
    click.echo()
    line = verdict_line(result)
    click.echo(click.style(line, fg=VERDICTS[result.verdict], bold=True) if colour else line)
    click.echo(selection_line(result))
    for edit in result.edits:
        click.echo(
            f"edit of round {edit.round + 1} ({edit.masker}, {edit.validation_gain:+.3f} on "
            f"validation, {SELECTION}): {edit_line(edit.changes, 120)}"
        )
        for query in edit.because:
            click.echo(f"  because of: {one_line(query, 120)}")
    if len(result.front) > 1:
        click.echo(f"score and length (validation, {SELECTION}):")
        for line in front_lines(result.front):
            click.echo(f"  {line}")
    for warning in result.warnings:
        click.echo(f"warning: {one_line(warning)}")
    click.echo(f"search ended: {one_line(result.stopped)}")
    click.echo(
        f"spent: {spend_line(result.spend)}; {result.candidates} candidates evaluated, "
        f"{result.rejected} stopped by the guard"
    )
    for name, path in {"run": result.run_dir, **_paths(result.run_dir)}.items():
        click.echo(f"{name}: {path}")


def diff_text(changes: tuple[Change, ...], colour: bool) -> str:
    """Words added and removed: green and red on a terminal, {+…+} and [-…-] elsewhere."""
    return "".join(_piece(change, colour) for change in changes)


def _piece(change: Change, colour: bool) -> str:
    text = visible(change.text)
    if change.kind == "same":
        return text
    if colour:
        style: dict[str, Any] = STYLES[change.kind]
        return click.style(text, **style)
    before, after = MARKS[change.kind]
    return f"{before}{text}{after}"


def _paths(run_dir: str) -> dict[str, str]:
    return {"result": str(Path(run_dir) / RESULT), "report": str(Path(run_dir) / REPORT)}


def _unfinished(seen: Look, run_dir: Path, mode: str) -> None:
    state = seen.state
    if not state.baseline:
        click.echo("nothing has happened in this run yet")
        return
    before, after = state.prompt(state.baseline).text, state.prompt(state.incumbent).text
    click.echo(diff_text(diff(before, after), mode == "rich"))
    click.echo()
    old, new = (
        figure(mean(known(state, id, "validation"))) for id in (state.baseline, state.incumbent)
    )
    click.echo(f"not finished, in round {state.round + 1}; there is no verdict yet")
    click.echo(f"validation ({SELECTION}, too good to quote): {old} → {new}")
    click.echo(f"spent: {spend_line(seen.spend)}")
    click.echo(f"go on with: remask resume {run_dir}")


def _table(rows: list[Candidate], mode: str) -> None:
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
    for title in ("round", "masker", "edit", "train (rows)", "validation", ""):
        table.add_column(title, justify="right" if title.startswith(("train", "valid")) else "left")
    for row in rows:
        cells = (
            str(row.round + 1),
            row.masker,
            edit_line(row.changes, 60),
            f"{figure(row.train)} ({row.train_rows})",
            figure(row.validation),
            "accepted" if row.accepted else "",
        )
        table.add_row(*map(Text, cells), style="green" if row.accepted and terminal else None)
    console.print(table)
    click.echo(f"train: means over few rows, they only rank; validation: {SELECTION}")
