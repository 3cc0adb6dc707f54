"""The command line: the commands with their options, and how errors end them.

Imports only click and the exceptions, so that `--help` answers at once. Each command imports what
it needs when it runs. The exit codes are part of the interface: see EPILOG.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from remask import __version__
from remask.cli import options
from remask.errors import RemaskError, name_missing_extra
from remask.sanitize import make_visible, one_line

if TYPE_CHECKING:
    from remask.types import Split

EPILOG = """\b
Exit codes:
  0    finished, whatever the verdict (without --fail-unless)
  1    internal error
  2    wrong input or setup
  3    the target failed, too many of its calls did, or time ran out in the sealed test;
       continue with remask resume
  4    another process uses the run
  5    finished, but a gate of --fail-unless failed
  6    remask watch left a proposal (7: it found drift, but no better prompt)
  130  interrupted by Ctrl-C (143: by SIGTERM, 129: by SIGHUP); continue with remask resume

REMASK_DEBUG=1 prints where an error came from. NO_COLOR=1 prints plain lines.
"""

# Commands whose modules import other rooms. They are imported when they are called, so the first
# sentence of their help is repeated here for `remask --help`.
LATER = {
    "init": "Write the files of a new project: settings, a prompt and sample rows.",
    "runs": "List the runs of a folder, newest first.",
    "compare": "Compare two runs: settings, cost, prompts and shared test rows.",
    "export": "Write the best prompt of a run to a file, for people or for another tool.",
    "view": "Show the runs of a folder in the browser, live.",
    "traces": "Inspect files of conversations, or copy them without secrets.",
    "refine": "Refine a prompt by conversations, without labels or target calls.",
    "watch": "Read new conversations, and propose a new prompt where they have drifted.",
    "adapt": "Train the diffusion model on your own prompts.",
}
# The order of `remask --help`: that in which most users meet the commands.
ORDER = (
    *("init", "check", "optimize", "shorten", "resume", "show", "runs", "compare", "view", "report", "eval"),
    *("export", "traces", "refine", "watch", "adapt", "models"),
)
# click prints the help for a group without a command by raising this, from version 8.2 on.
_NoArgsIsHelp: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


class Commands(click.Group):
    """Imports commands when they are called, and prints errors of users as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order of `remask --help`."""
        return list(ORDER)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return a command, which is imported where it is in LATER."""
        if name not in LATER:
            return super().get_command(ctx, name)
        command: click.Command = getattr(import_module(f"remask.cli.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their first sentences, without importing those in LATER."""
        rows = []
        for name in self.list_commands(ctx):
            here = super().get_command(ctx, name)
            rows.append((name, LATER[name] if here is None else here.get_short_help_str(100)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def make_context(self, *args: Any, **settings: Any) -> click.Context:
        """Parse the options of `remask` itself."""
        try:
            return super().make_context(*args, **settings)
        except click.UsageError as error:
            _fail(error)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, and print an error of the user as one line."""
        try:
            with name_missing_extra():
                return super().invoke(ctx)
        except click.UsageError as error:
            _fail(error)
        except RemaskError as error:
            if os.environ.get("REMASK_DEBUG"):
                raise
            click.echo(f"error: {one_line(str(error))}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt as stop:
            click.echo("stopped at once", err=True)
            ctx.exit(getattr(stop, "exit_code", 130))


def _fail(error: click.UsageError) -> NoReturn:
    """Print a wrong command line as one line, and exit with code 2."""
    if isinstance(error, _NoArgsIsHelp):
        raise error
    message = one_line(error.format_message()).rstrip(".")
    command = error.ctx.command_path if error.ctx else "remask"
    text = f"error: {message[:1].lower()}{message[1:]}; see {command} --help"
    click.echo(text, err=True)
    raise click.exceptions.Exit(2)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="remask", message="%(prog)s %(version)s")
def main() -> None:
    """Optimise the system prompt of a frozen language model with a diffusion language model.

    \b
    Example:
      remask check prompt.md --data rows.jsonl
      remask optimize prompt.md --data rows.jsonl
    """


@main.command(cls=options.GroupedCommand)
@click.argument("source", metavar="[REMASK.TOML | PROMPT.MD]", required=False)
@options.job_options
@options.track_option
@options.gate_options
@options.progress_options
def optimize(source: str | None, plain: bool, json: bool, track: str, **flags: Any) -> None:
    """Search for a better prompt, then compare it with yours on the sealed test rows.

    Takes a remask.toml (the default, if the current folder has one) or a prompt file. An option
    overrides the same key of the file.

    \b
    Example:
      remask optimize prompt.md --data rows.jsonl --input "{question}" --expected answer
    """
    from remask.cli.gate import describe_result, finish, make_outputs
    from remask.cli.optimize import new_run
    from remask.cli.settings import read

    outputs = make_outputs(flags, compares=True)
    result = new_run(read(source, flags), options.choose_mode(plain, json), track)
    finish(outputs, describe_result(result))


@main.command(cls=options.GroupedCommand)
@click.argument("source", metavar="[REMASK.TOML | PROMPT.MD]", required=False)
@options.job_options
@options.track_option
@options.gate_options
@options.progress_options
def shorten(source: str | None, plain: bool, json: bool, track: str, **flags: Any) -> None:
    """Search for a shorter prompt that scores no worse, then compare both on the sealed test rows.

    Takes the arguments of remask optimize. An edit is accepted where the prompt gets shorter and
    the score loses at most --within points, as far as validation rows can show it. The verdict is
    improved where the prompt is shorter and the sealed test excludes a larger loss.

    \b
    Example:
      remask shorten prompt.md --data rows.jsonl --input "{question}" --expected answer --within 2
    """
    from remask.cli.gate import describe_result, finish, make_outputs
    from remask.cli.optimize import new_run
    from remask.cli.settings import read_shortening

    outputs = make_outputs(flags, compares=True)
    result = new_run(read_shortening(source, flags), options.choose_mode(plain, json), track)
    finish(outputs, describe_result(result, "shorten"))


@main.command(cls=options.GroupedCommand)
@click.argument("source", metavar="[REMASK.TOML | PROMPT.MD]", required=False)
@options.job_options
@options.pilot_option
@options.json_option
def check(source: str | None, pilot: int | None, json: bool, **flags: Any) -> None:
    """Check settings, data and models before the first call, and estimate the cost of a run.

    Takes the arguments of remask optimize. Exit code 2 where a problem was found. With --pilot it
    then asks the target some train rows under very different prompts, and says whether prompts
    matter here, how noisy answers are, and what the sealed test could show.

    \b
    Example:
      remask check prompt.md --data rows.jsonl --input "{question}" --expected answer --pilot
    """
    from remask.cli.check import check_run
    from remask.cli.settings import read

    sys.exit(0 if check_run(read(source, flags), json, pilot) else 2)


@main.command(cls=options.GroupedCommand)
@click.argument("run", type=click.Path(path_type=Path))
@options.workers_options
@options.track_option
@options.gate_options
@options.progress_options
def resume(run: Path, plain: bool, json: bool, track: str, **flags: Any) -> None:
    """Continue an interrupted run.

    \b
    Example:
      remask resume runs/20260101-120000
    """
    from remask.cli.gate import describe_result, finish, make_outputs
    from remask.cli.optimize import continue_run
    from remask.cli.settings import read_workers

    outputs = make_outputs(flags, compares=True)
    result = continue_run(run, read_workers(flags), options.choose_mode(plain, json), track)
    finish(outputs, describe_result(result, "resume"))


@main.command("eval", cls=options.GroupedCommand)
@click.argument("source", metavar="[REMASK.TOML | PROMPT.MD]", required=False)
@options.option(
    "Data", "--split", "rows", type=click.Choice(["train", "validation", "test"]),
    default="validation", help="Rows to score. Default: validation.",
)  # fmt: skip
@options.option(
    "Data", "--against", type=click.Path(path_type=Path), metavar="PROMPT.MD",
    help="Score this prompt on the same rows, too, and compare: it is the baseline.",
)  # fmt: skip
@options.eval_options
@options.gate_options
@options.json_option
def evaluate(source: str | None, rows: "Split", against: Path | None, json: bool, **flags: Any) -> None:
    """Score one prompt on rows, with a 95 % interval, without a search.

    \b
    Example:
      remask eval prompt.md --data rows.jsonl --split test
    """
    from remask.cli.gate import describe_evaluation, finish, make_outputs
    from remask.cli.optimize import evaluate_prompt
    from remask.cli.settings import read

    outputs = make_outputs(flags, compares=against is not None)
    found = evaluate_prompt(read(source, flags), rows, json, against)
    finish(outputs, describe_evaluation(found, rows))


@main.command(cls=options.GroupedCommand)
@click.argument("run", type=click.Path(path_type=Path))
@options.option(
    "Output", "--rows", type=click.Choice(["all", *options.ROW_NAMES]),
    help="Show validation and test rows with both answers: all, or those the best prompt won or lost, "
    "those without a label in an answer, or those where a call failed.",
)  # fmt: skip
@options.plain_option
@options.json_option
def show(run: Path, rows: str | None, plain: bool, json: bool) -> None:
    """Show a run, finished or not: its result, the word diff and a table of the candidates.

    \b
    Example:
      remask show runs/20260101-120000 --rows lost
    """
    from remask.cli.show import print_rows, print_run, print_run_json

    if rows:
        print_rows(run, rows, json, options.choose_mode(plain, False))
    elif json:
        print_run_json(run)
    else:
        print_run(run, options.choose_mode(plain, False))


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
def report(run: Path) -> None:
    """Write the report of a finished run again.

    \b
    Example:
      remask report runs/20260101-120000
    """
    from remask.runs.report.read_run import write_report

    click.echo(f"wrote {make_visible(str(write_report(run)))}")


@main.command(cls=options.GroupedCommand)
@options.json_option
def models(json: bool) -> None:
    """List targets and denoisers with licence, memory, context and the line to use.

    \b
    Example:
      remask models
    """
    from remask.cli.list_models import print_models

    print_models(json)
