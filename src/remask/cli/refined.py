"""Playing a refinement from the command line: its settings, a line for each iteration, the end."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import orjson

from remask.cli.interrupt import Interrupted, Watch
from remask.cli.settings import override
from remask.cli.show import diff_text
from remask.config import read_prompt, read_toml
from remask.errors import ConfigError
from remask.export.files import require_free, write
from remask.refined import Refined, changes
from remask.refinement import Round
from remask.refining import ITERATIONS, PAGE, VERIFICATION, Order, configured, play
from remask.report.markdown import facts, verdict
from remask.report.words import edit_line, one_line
from remask.result import RESULT
from remask.run import merged, new_run_dir

CLOSEST = 3  # proposals that were not accepted, shown at the end; the report has all


def refine_prompt(
    source: str, output: Path | None, force: bool, flags: Mapping[str, Any], mode: str
) -> None:
    """`remask refine`."""
    if output is not None:
        require_free(output, force)
    order = _order(source, flags)
    run_dir = Path(flags["run_dir"]) if flags["run_dir"] else new_run_dir()

    with Watch() as signals:

        def watch(found: Round) -> None:
            _say(found, mode)
            signals.gate()

        try:
            result = play(order, run_dir, watch, signals.gate)
        except (Interrupted, KeyboardInterrupt) as stop:
            click.echo(_cut(run_dir), err=True)
            sys.exit(stop.exit_code if isinstance(stop, Interrupted) else 130)
    if output is not None:
        write(output, result.marked + "\n", force)
    if mode == "json":
        click.echo(orjson.dumps({"kind": "Refined", **result.to_dict()}))
    else:
        _show(result, output, mode)


def _order(source: str, flags: Mapping[str, Any]) -> Order:
    """The settings of file and flags; flags win. Raises ConfigError and DataError."""
    path = Path(source)
    values = read_toml(path) if path.suffix.lower() == ".toml" else {"prompt": read_prompt(path)}
    values.pop("run_dir", None)
    if flags["judge"] and not flags["target"]:
        raise ConfigError("--judge grades the answers of a target; give --target too")
    override(values, flags)
    if flags["candidates"] is not None:
        values = merged(values, {"search": {"candidates": flags["candidates"]}})
    return Order(
        config=configured(values, source),
        files=tuple(flags["files"]),
        iterations=flags["iterations"] or ITERATIONS,
        columns=flags["columns"],
        scales=flags["scales"],
        hide=flags["redact"] == "on",
        lock=flags["lock"],
        verify=bool(flags["target"]),
    )


def _say(found: Round, mode: str) -> None:
    """One iteration, one line."""
    best = found.best
    if mode == "json":
        value = {
            "kind": "Round",
            "iteration": found.number + 1,
            "measured": len(found.judged),
            "refused": len(found.refused),
            "accepted": found.accepted is not None,
            "gain": None if best is None else best.gain,
            "gains": [] if best is None else best.gains,
            "changes": [] if best is None else changes(found.parent, best.proposal),
            "because": found.because,
        }
        click.echo(orjson.dumps(value))
        return
    line = f"iteration {found.number + 1}: {len(found.judged)} measured, "
    line += f"{len(found.refused)} refused by the guard"
    if best is not None:
        verb = "accepted" if found.accepted else "kept the prompt; best"
        edit = edit_line(changes(found.parent, best.proposal), 80)
        line += f"; {verb} ({best.gain:+.1f} nats): {edit}"
    click.echo(line)


def _show(result: Refined, output: Path | None, mode: str) -> None:
    click.echo()
    if result.edits:
        click.echo(diff_text(result.diff(), mode == "rich"))
    else:
        click.echo("the prompt is unchanged: no edit was supported")
    click.echo()
    line = verdict(result)
    click.echo(click.style(line, fg="yellow", bold=True) if mode == "rich" else line)
    closest = sorted(result.proposals, key=lambda edit: -edit.gain)[:CLOSEST]
    for edit in (*result.edits, *closest):
        name = "not accepted, best of" if edit in closest else "edit of"
        click.echo(
            f"{name} iteration {edit.iteration} ({edit.masker}, {edit.gain:+.1f} nats): "
            f"{edit_line(edit.changes, 120)}"
        )
        for one in edit.because:
            name, query = one_line(one.trace, 40), one_line(one.query, 120)
            click.echo(f"  because of {name} ({one.drop:.2f} nats): {query}")
    for fact in facts(result):
        click.echo(fact)
    if output is not None:
        click.echo(f"wrote {output}")
    for name, file in (("result", RESULT), ("report", PAGE)):
        click.echo(f"{name}: {Path(result.run_dir) / file}")


def _cut(run_dir: Path) -> str:
    if (run_dir / VERIFICATION).exists():
        return (
            f"stopped; the same command with --run-dir {run_dir} goes on, what was paid for is kept"
        )
    return "stopped; nothing was written"
