"""Playing a study from the command line: its settings, a line for each cell, table and picture."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import orjson

from remask.cli.interrupt import Interrupted, Watch
from remask.cli.settings import read
from remask.errors import ConfigError
from remask.export.files import require_free, write
from remask.report.steps import HEAD, cells, picture, remarks
from remask.study import Cell, Study
from remask.studying import CALLS, Order, play, prepared
from remask.text import one_line

FILES = ("steps.json", "steps.svg")


def study_steps(
    source: str | None,
    steps: str,
    output: Path | None,
    force: bool,
    flags: Mapping[str, Any],
    json: bool,
) -> None:
    """`remask study steps`. What goes on is told on standard error."""
    if output is not None:
        for name in FILES:
            require_free(output / name, force)
    order = Order(
        config=read(source, flags).config,
        steps=_numbers(steps),
        candidates=flags["candidates"],
        rounds=flags["rounds"],
        rows=flags["rows"],
    )
    ready = prepared(order)
    click.echo(ready.sentence, err=True)
    with Watch() as signals:

        def watch(cell: Cell) -> None:
            click.echo(_line(cell), err=True)
            signals.gate()

        try:
            study = play(ready, output, watch, signals.gate)
        except (Interrupted, KeyboardInterrupt) as stop:
            again = "; the same command goes on, what was paid for is kept" if output else ""
            click.echo(f"stopped{again}", err=True)
            sys.exit(stop.exit_code if isinstance(stop, Interrupted) else 130)
    if output is not None:
        content = orjson.dumps(study.to_dict(), option=orjson.OPT_INDENT_2).decode() + "\n"
        for name, text in zip(FILES, (content, picture({"": study})), strict=True):
            write(output / name, text, force)
    if json:
        click.echo(orjson.dumps({"kind": "Study", **study.to_dict()}))
    else:
        _show(study, output)


def _numbers(text: str) -> tuple[int, ...]:
    """Whole numbers between commas or blanks."""
    words = [word for word in re.split(r"[,\s]+", text) if word]
    if wrong := [word for word in words if not re.fullmatch(r"[0-9]{1,6}", word)]:
        raise ConfigError(f"--steps: {one_line(wrong[0], 40)!r} is no number; write 1,2,4,8")
    return tuple(map(int, words))


def _line(cell: Cell) -> str:
    refused = sum(bool(one.objection) for one in cell.candidates)
    return (
        f"round {cell.round + 1}, {cell.steps} steps: {cell.seconds:.1f} s, {refused} of "
        f"{len(cell.candidates)} refused by the guard, best {cell.validation:.3f} on validation"
    )


def _show(study: Study, output: Path | None) -> None:
    rows = [HEAD, *cells(study)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    for row in rows:
        click.echo("  ".join(word.rjust(width) for word, width in zip(row, widths, strict=True)))
    click.echo()
    for remark in remarks(study):
        click.echo(one_line(remark))
    click.echo(f"spent: {study.calls:,} of at most {study.most_calls:,} target calls")
    if output is not None:
        for name in (*FILES, CALLS):
            click.echo(f"{name}: {output / name}")
