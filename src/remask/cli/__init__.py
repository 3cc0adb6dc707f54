"""The command line: what each command is called, what it takes, and how it ends.

Imports click and the tree of errors, nothing else, so that `--help` answers at once; every command
imports its room when it runs. Exit codes are part of the interface: see EPILOG.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from remask import __version__
from remask.cli.adapt import adapt
from remask.cli.exports import export
from remask.cli.flags import (
    data_flags,
    eval_data_flags,
    run_flags,
    search_flags,
    show_flags,
    target_flags,
    task_flags,
    track_flag,
)
from remask.cli.refine import refine
from remask.cli.serve import serve
from remask.cli.study import study
from remask.cli.traces import traces
from remask.errors import RemaskError

if TYPE_CHECKING:
    from remask.trace import Split

EPILOG = """\b
Exit codes:
  0    finished, whatever the verdict
  1    internal error
  2    wrong input or set-up
  3    the target failed, or too many of its calls did
  4    another process has the run
  130  interrupted by Ctrl-C (143: by SIGTERM); go on with remask resume

REMASK_DEBUG=1 shows where an error came from. NO_COLOR=1 gives plain lines.
"""


class Commands(click.Group):
    """Turns errors that a user can mend into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RemaskError as error:
            if os.environ.get("REMASK_DEBUG"):
                raise
            from remask.report.words import one_line

            click.echo(f"error: {one_line(str(error))}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("stopped at once", err=True)
            ctx.exit(130)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="remask", message="%(prog)s %(version)s")
def main() -> None:
    """Optimise the system prompt of a frozen language model with a diffusion language model.

    Start with: remask check PROMPT.md --data rows.jsonl, then remask optimize with the same words.
    """


@main.command()
@click.argument("source", metavar="[REMASK.TOML | PROMPT.MD]", required=False)
@run_flags
@search_flags
@target_flags
@task_flags
@data_flags
@track_flag
@show_flags
def optimize(source: str | None, plain: bool, json: bool, track: str, **flags: Any) -> None:
    """Search for a better prompt, then compare it once with yours on the sealed test rows.

    Takes a remask.toml (the default, where the current folder has one) or a prompt file. Flags win
    over the file.
    """
    from remask.cli.play import new_run
    from remask.cli.settings import read

    new_run(read(source, flags), _mode(plain, json), track)


@main.command()
@click.argument("source", metavar="[REMASK.TOML | PROMPT.MD]", required=False)
@run_flags
@search_flags
@target_flags
@task_flags
@data_flags
@click.option("--json", is_flag=True, help="One JSON object instead of a table.")
def check(source: str | None, json: bool, **flags: Any) -> None:
    """Find what is wrong before a call is spent, and say what the run may cost."""
    from remask.cli.check import examine, show
    from remask.cli.settings import read

    report = examine(read(source, flags))
    show(report, json)
    sys.exit(0 if report.ok else 2)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@track_flag
@show_flags
def resume(run: Path, plain: bool, json: bool, track: str) -> None:
    """Go on with a run that was cut."""
    from remask.cli.play import continue_run

    continue_run(run, _mode(plain, json), track)


@main.command("eval")
@click.argument("source", metavar="[REMASK.TOML | PROMPT.MD]", required=False)
@click.option(
    "--split",
    "rows",
    type=click.Choice(["train", "validation", "test"]),
    default="validation",
    show_default=True,
    help="The rows to score on.",
)
@target_flags
@task_flags
@eval_data_flags
@click.option("--json", is_flag=True, help="One JSON object instead of lines.")
def evaluate(source: str | None, rows: "Split", json: bool, **flags: Any) -> None:
    """Score one prompt, with interval and cost; no search."""
    from remask.cli.play import score_prompt
    from remask.cli.settings import read

    score_prompt(read(source, flags), rows, json)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@show_flags
def show(run: Path, plain: bool, json: bool) -> None:
    """Show a run, finished or not: result, word diff, table of candidates."""
    from remask.cli.show import run_json, run_text

    if json:
        run_json(run)
    else:
        run_text(run, _mode(plain, False))


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
def report(run: Path) -> None:
    """Build the report.html of a finished run anew."""
    from remask.report.files import write_report

    click.echo(f"wrote {write_report(run)}")


for command in (adapt, export, refine, serve, study, traces):
    main.add_command(command)


def _mode(plain: bool, json: bool) -> str:
    """How a command speaks: json, plain or rich."""
    if json:
        return "json"
    dumb = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return "plain" if plain or dumb or not sys.stdout.isatty() else "rich"
