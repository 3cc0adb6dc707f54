"""List the runs of a folder: `remask runs`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
import orjson

from remask.cli import options
from remask.cli.show import VERDICT_COLOURS
from remask.runs.report.list_runs import RunSummary, list_runs
from remask.runs.report.summary import format_cost, format_time
from remask.runs.reused_rows import describe_earlier_tests
from remask.sanitize import make_visible, one_line
from remask.stats import LEVEL, format_level

STATE_COLOURS = {"running": "cyan", "stopped": "yellow", "damaged": "red"}
PLAIN_WIDTH = 160  # of the table where the output is not a terminal


@click.command(cls=options.GroupedCommand)
@click.argument("folder", type=click.Path(path_type=Path), default="runs")
@options.plain_option
@options.json_option
def runs(folder: Path, plain: bool, json: bool) -> None:
    """List the runs of a folder, newest first.

    Shows state, verdict, gain with its interval, length of the prompt and cost. FOLDER is runs where
    it is not given. A damaged run is listed with what is wrong with it.

    \b
    Example:
      remask runs
    """
    found = list_runs(folder)
    if json:
        rows = [{**asdict(run), "path": str(run.path)} for run in found]
        click.echo(orjson.dumps({"kind": "Runs", "folder": str(folder), "runs": rows}))
    elif not found:
        click.echo(f"no runs in {make_visible(str(folder))}")
    else:
        _print_table(found, options.choose_mode(plain, False) == "rich")


def _print_table(found: Sequence[RunSummary], terminal: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(
        force_terminal=None if terminal else False,
        color_system="auto" if terminal else None,
        width=None if terminal else PLAIN_WIDTH,
    )
    table = Table(box=box.SIMPLE if terminal else None, pad_edge=False)
    for title in ("run", "begun", "state", "verdict", "gain (interval)", "tokens", "spent", "target", "data"):
        table.add_column(title)
    for run in found:
        styles = {2: STATE_COLOURS.get(run.state, ""), 3: VERDICT_COLOURS.get(run.verdict, "")}
        cells = _list_cells(run)
        table.add_row(*(Text(cell, style=styles.get(i, "")) for i, cell in enumerate(cells)))
    console.print(table)
    for run in found:
        if run.problem:
            click.echo(f"{one_line(run.name)}: {one_line(run.problem)}")
        elif text := describe_earlier_tests(run.earlier_tests):
            click.echo(f"{one_line(run.name)}: {text}")


def _list_cells(run: RunSummary) -> list[str]:
    """Return the cells of a run in the table. Text is made visible."""
    begun = format_time(run.created)
    if run.state == "damaged":
        return [one_line(run.name, 60), begun, run.state, *[""] * 6]
    place = "sealed test" if run.in_test else f"round {run.round}"
    state = run.state if run.state == "finished" else f"{run.state}, {place}"
    gain, length = "", ""
    if run.test is not None and not run.changed:
        gain = "unchanged"
    elif run.test is not None:
        level = "" if run.test.level == LEVEL else f", {format_level(run.test.level)}"
        gain = f"{run.test.difference:+.3f} ({run.test.low:+.3f} to {run.test.high:+.3f}{level})"
    if run.tokens_before is not None and run.tokens_after is not None:
        length = f"{run.tokens_before} → {run.tokens_after}"
    spent = format_cost(run.spend)
    names = one_line(run.target or "none", 40), one_line(run.data, 40)
    return [one_line(run.name, 60), begun, state, run.verdict, gain, length, spent, *names]
