"""The command line: what each command is called, what it takes, and how it ends.

Imports click and the tree of errors, nothing else, so that `--help` answers at once; every command
imports its room when it runs. Exit codes are part of the interface: see EPILOG.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from remask import __version__
from remask.cli.options import (
    eval_data_flags,
    job_flags,
    show_flags,
    show_mode,
    target_flags,
    task_flags,
    track_flag,
)
from remask.errors import RemaskError, name_missing_extra

if TYPE_CHECKING:
    from remask.types import Split

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


# Commands whose file imports rooms: they are imported when they are called, and the first line of
# their help stands here for `remask --help`.
LATER = {
    "adapt": "Teach a diffusion model your prompts, or make one for prompts of another base.",
    "export": "Write the best prompt of a run to a file, for people or for another tool.",
    "refine": "Refine a prompt by conversations alone: no labels, no target calls.",
    "traces": "Look at files of conversations, and make a copy without secrets.",
}


class Commands(click.Group):
    """Imports a command when it is called, and turns errors that a user can mend into one line and
    an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *LATER})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in LATER:
            return super().get_command(ctx, name)
        command: click.Command = getattr(import_module(f"remask.cli.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            here = super().get_command(ctx, name)
            rows.append((name, LATER[name] if here is None else here.get_short_help_str(100)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with name_missing_extra():
                return super().invoke(ctx)
        except RemaskError as error:
            if os.environ.get("REMASK_DEBUG"):
                raise
            from remask.sanitize import one_line

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
@job_flags
@track_flag
@show_flags
def optimize(source: str | None, plain: bool, json: bool, track: str, **flags: Any) -> None:
    """Search for a better prompt, then compare it once with yours on the sealed test rows.

    Takes a remask.toml (the default, where the current folder has one) or a prompt file. Flags win
    over the file.
    """
    from remask.cli.optimize import new_run
    from remask.cli.settings import read

    new_run(read(source, flags), show_mode(plain, json), track)


@main.command()
@click.argument("source", metavar="[REMASK.TOML | PROMPT.MD]", required=False)
@job_flags
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
    from remask.cli.optimize import continue_run

    continue_run(run, show_mode(plain, json), track)


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
    from remask.cli.optimize import evaluate_prompt
    from remask.cli.settings import read

    evaluate_prompt(read(source, flags), rows, json)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@show_flags
def show(run: Path, plain: bool, json: bool) -> None:
    """Show a run, finished or not: result, word diff, table of candidates."""
    from remask.cli.show import run_json, run_text

    if json:
        run_json(run)
    else:
        run_text(run, show_mode(plain, False))


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
def report(run: Path) -> None:
    """Build the report.html of a finished run anew."""
    from remask.runs.report.read_run import write_report

    click.echo(f"wrote {write_report(run)}")
