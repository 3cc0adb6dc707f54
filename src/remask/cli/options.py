"""The options that several commands share, in groups, and the commands that print these groups.

Imports only click, so that `--help` answers at once. settings.py defines what the options set.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Any], Any]
MASKERS = ("rewrite", "span", "sentence", "insert", "attribution", "anchor", "library", "delete")
PILOT_ROWS = 40  # where --pilot has no number
ROW_NAMES = ("won", "lost", "unparsed", "failed")  # of runs.outcomes.ROW_FILTERS


class GroupedOption(click.Option):
    """An option that `--help` prints under the heading `group`."""

    def __init__(self, *args: Any, group: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.group = group


class GroupedCommand(click.Command):
    """A command that prints its options in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each group of options under its heading. --help comes last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if row is not None:
                groups.setdefault(getattr(parameter, "group", "Options"), []).append(row)
        for heading in sorted(groups, key=lambda heading: heading == "Options"):
            with formatter.section(heading):
                formatter.write_dl(groups[heading])


class FullHelpGroup(click.Group):
    """A group of commands that prints their first sentences whole, where click cuts them off."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with its first sentence."""
        rows = [
            (name, command.get_short_help_str(1000))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def option(group: str, *names: str, **settings: Any) -> Decorator:
    """Make an option of a group, as `click.option` does."""
    return click.option(*names, cls=GroupedOption, group=group, **settings)


def combine(*options: Decorator) -> Decorator:
    """Make a decorator that gives a command these options, in this order."""

    def decorate(command: Any) -> Any:
        for one in reversed(options):
            command = one(command)
        return command

    return decorate


def _make_target_options(target_default: str, metric_default: str) -> Decorator:
    """Make the options of target and metric, which have other defaults in `remask refine`."""
    return combine(
        option("Target", "--target", metavar="MODEL",
               help="Target model: builtin, local:FOLDER, local:FILE.gguf, local:HUB_ID@REVISION, "
               "openai:MODEL, inspect:PROVIDER/MODEL (Anthropic, Bedrock, Google, Mistral, Azure, "
               "Ollama and all others that Inspect knows), or FILE.py:FUNCTION. "
               f"Default: {target_default}."),
        option("Target", "--base-url", metavar="URL",
               help="Base URL of the server of openai: or inspect:. Default: the provider's own."),
        option("Target", "--temperature", metavar="NUMBER|omit",
               help="Sampling temperature; omit does not send the field. Default: 0."),
        option("Target", "--answer-tokens", metavar="NUMBER|omit",
               help="Most tokens of one answer, thoughts included. Default: 256."),
        option("Target", "--concurrency", type=int,
               help="Calls in flight at a time, of an endpoint. Default: 8."),
        option("Target", "--revision", metavar="COMMIT",
               help="Full commit id of the model that is local:HUB_ID: of --target or --denoiser. For "
               "both, write local:HUB_ID@REVISION."),
        option("Target", "--extra", metavar="KEY=VALUE", multiple=True,
               help="Further field of each request, such as reasoning_effort=low. May be repeated."),
        option("Metric", "--metric", metavar="NAME",
               help="Metric: label, exact, contains, f1, json, number, tool_call, judge, promptfoo, or "
                    "FILE.py:FUNCTION. "
               f"Default: {metric_default}."),
        option("Metric", "--judge", metavar="MODEL",
               help="Model that scores the answers, named like a target. Needs --rubric."),
        option("Metric", "--rubric", metavar="TEXT", help="Description of a good answer, for the judge."),
        option("Metric", "--judge-scale", metavar="LOW..HIGH",
               help="Worst and best score of the judge. Default: 0..10."),
        option("Metric", "--answer", metavar="TEMPLATE",
               help="Text of an answer, with {label}. Default: {label}."),
        option("Metric", "--label", metavar="TEXT", multiple=True,
               help="Allowed label. May be repeated. Default: the labels of the data."),
    )  # fmt: skip


_data_options = (
    option("Data", "--data", metavar="FILE",
           help="File with the rows: JSONL, JSON, CSV, TSV, or a promptfooconfig.yaml."),
    option("Data", "--input", metavar="TEMPLATE",
           help='User message: a column, or a template such as "{question}". Default: {input}.'),
    option("Data", "--expected", metavar="COLUMN", help="Column of the right answer. Default: label."),
    option("Data", "--skip-invalid", is_flag=True, default=None,
           help="Leave out rows that cannot be used, in place of an error that lists them."),
)  # fmt: skip
_SPLIT_HELP = "Column with train, validation or test. Default: rows are split by their content."
_task_options = combine(
    option("Data", "--task", metavar="NAME",
           help="Inspect task in place of rows: PACKAGE/TASK or FILE.py@TASK."),
    option("Data", "--task-arg", "-T", metavar="KEY=VALUE", multiple=True,
           help="Argument of the Inspect task. May be repeated."),
    option("Data", "--role", metavar="ROLE=MODEL", multiple=True,
           help="Another model of the Inspect task, such as user=PROVIDER/MODEL. May be repeated."),
    option("Data", "--component", metavar="NAME=PLACE", multiple=True,
           help="Text of a program, such as system=agent.md or 'tool:*=tools.json', in place of a prompt. "
           "May be repeated."),
    option("Data", "--prompt", "prompt_file", metavar="FILE",
           help="Prompt file, in place of that of remask.toml or as the argument."),
    option("Data", "--prompt-from", type=click.Choice(["system", "components"]),
           help="Optimise the system message of the Inspect task; components: also the descriptions of "
           "its tools."),
)  # fmt: skip
target_options = _make_target_options("builtin", "label")
refine_target_options = _make_target_options(
    "none, so the result is not verified", "label or f1, depending on the right answers"
)
denoiser_options = combine(
    option("Denoiser", "--denoiser", metavar="MODEL",
           help="Diffusion language model: builtin[:ADAPTER], local:FOLDER, local:HUB_ID (downloaded "
           "once; needs --revision), mercury, chat:MODEL or inspect:PROVIDER/MODEL (these three not "
           "for refine). Default: builtin."),
    option("Denoiser", "--adapter", metavar="FILE",
           help="Adapter of remask adapt for the base model of --denoiser local:FOLDER or local:HUB_ID."),
    option("Denoiser", "--denoiser-steps", type=int,
           help="Maximum number of denoising steps. Default: one for each token that is written, and at "
           "most 8 (built-in and adapters) or 24."),
    option("Denoiser", "--denoiser-temperature", type=float,
           help="Sampling temperature of the denoiser. Default: 0.3 (built-in and adapters), 0.7 (other "
           "local models), or that of the API."),
)  # fmt: skip
_masker_option = option(
    "Search", "--masker", type=click.Choice(MASKERS), multiple=True,
    help="Kind of edit. May be repeated. Default: all but rewrite; those that win get more candidates.",
)  # fmt: skip
_seed_option = option("Search", "--seed", type=int, help="Seed of all random choices. Default: 0.")
search_options = combine(_masker_option, _seed_option)
budget_options = combine(
    option("Budget", "--max-calls", type=int,
           help="Maximum number of target calls, the sealed test included. Default: 2000."),
    option("Budget", "--max-minutes", type=float, help="Maximum time in minutes."),
    option("Budget", "--max-usd", type=float,
           help="Maximum cost in US dollars. Needs prices in remask.toml."),
    option("Budget", "--max-total-tokens", type=int, help="Maximum number of input and output tokens."),
)  # fmt: skip
workers_options = combine(
    option("Workers", "--workers", type=int,
           help="Number of workers that denoise, ask models on this machine and parse conversations. "
           "Default: none, this process does all."),
    option("Workers", "--executor", metavar="NAME",
           help="What the workers are: process, ray, or ray://HOST:PORT. Default: process."),
)  # fmt: skip
run_dir_option = option(
    "Output", "--run-dir", metavar="FOLDER", help="Folder of the run. Default: runs/DATE-TIME."
)
track_option = option(
    "Output", "--track", default="", metavar="mlflow[:URI]",
    help="Log the run to MLflow: to its default store, or to a server or store.",
)  # fmt: skip
gate_options = combine(
    option("Gate", "--fail-unless", metavar="GATE", multiple=True,
           help="Exit with code 5 unless the gate holds: improved, not-worse or score>=NUMBER, by the "
           "sealed test; of eval, by its rows (the first two need --against). May be repeated."),
    option("Gate", "--junit", type=click.Path(path_type=Path), metavar="FILE",
           help="Write the gates and the figures as JUnit XML."),
    option("Gate", "--summary", type=click.Path(path_type=Path), metavar="FILE",
           help="Append a summary in Markdown, such as to $GITHUB_STEP_SUMMARY."),
)  # fmt: skip
plain_option = option(
    "Output", "--plain", is_flag=True,
    help="Print plain lines, as where the output is not a terminal.",
)  # fmt: skip
json_option = option("Output", "--json", is_flag=True, help="Print one JSON object.")
progress_options = combine(
    plain_option,
    option("Output", "--json", is_flag=True,
           help="Print one JSON object per line, the result in the last one."),
)  # fmt: skip
map_option = option(
    "Data", "--map", "columns", multiple=True, metavar="FIELD=COLUMN,…",
    help="Column of a field: input, output, expected, score, comment and others.",
)  # fmt: skip
scale_option = option(
    "Data", "--scale", "scales", multiple=True, metavar="NAME=WORST..BEST",
    help="Scale of a rating, such as stars=1..5. May be repeated.",
)  # fmt: skip


def _read_pilot_rows(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Return the rows of a pilot. click takes the word after --pilot for them, whatever it is."""
    if value is None or value.isdecimal():
        return None if value is None else int(value)
    raise click.BadParameter(f"{value!r} is not a number of rows; write --pilot {PILOT_ROWS}")


pilot_option = option(
    "Pilot", "--pilot", callback=_read_pilot_rows, is_flag=False, flag_value=f"{PILOT_ROWS}",
    metavar="[ROWS]",
    help="Ask the target so many train rows under up to six very different prompts. These calls cost "
    f"money, and the cost is printed before. Default: none; without a number: {PILOT_ROWS}.",
)  # fmt: skip
_goal_options = (
    option("Objectives", "--objective", metavar="NAME", multiple=True,
           help="Measure this beside the score: prompt_tokens, output_tokens, usd, latency, or a metric. May "
           "be repeated."),
    option("Objectives", "--prefer", metavar="NAME",
           help="Of prompts with about the same score, prefer the shortest, cheapest or fastest, or the "
           "best on an objective. Default: the score alone counts."),
    option("Objectives", "--within", type=float, metavar="POINTS",
           help="Points of score, of 100, that may be lost for --prefer. Default: 1."),
    option("Objectives", "--max-drop", metavar="NAME=POINTS", multiple=True,
           help="Guard set and the points of 100 that it may lose, such as safety=0. May be repeated."),
    option("Objectives", "--group", metavar="COLUMN",
           help="Column that names the guard set of a row. Its rows are not in the score."),
)  # fmt: skip
# All options that say what is optimised, and how.
job_options = combine(
    *_data_options,
    option("Data", "--split-column", metavar="COLUMN", help=_SPLIT_HELP),
    option("Data", "--queries", type=int,
           help="Number of user messages that the target writes as rows where there is no --data; a "
           "judge scores the answers (--judge, --rubric). Default: 80."),
    _task_options,
    target_options,
    denoiser_options,
    search_options,
    option("Search", "--max-tokens", type=int,
           help="Maximum length of the prompt in tokens. Longer candidates are not tried."),
    option("Search", "--demos", type=int,
           help="Maximum number of train rows to add to the prompt as examples. Default: 8 where "
           "train rows have right answers, else 0."),
    *_goal_options,
    budget_options,
    workers_options,
    run_dir_option,
)  # fmt: skip
# As `job_options`, where --split chooses the rows to score.
eval_options = combine(
    *_data_options,
    option("Data", "--split-column", metavar="COLUMN", help=_SPLIT_HELP),
    _task_options,
    target_options,
    workers_options,
)


def choose_mode(plain: bool, json: bool) -> str:
    """Return how a command prints: json, plain or rich."""
    if json:
        return "json"
    dumb = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return "plain" if plain or dumb or not sys.stdout.isatty() else "rich"


def choose_side_mode(json: bool) -> str:
    """Return how a command shows its progress on standard error, beside what it prints."""
    if json:
        return "json"
    dumb = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return "plain" if dumb or not sys.stderr.isatty() else "rich"
