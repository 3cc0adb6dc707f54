"""The flags that several commands share. Knows click only; what they mean is in settings.py."""

import os
import sys
from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]
MASKERS = ("rewrite", "span", "sentence", "insert", "attribution")

_RUN = (
    click.option("--denoiser", help="builtin[:ADAPTER], local:PLACE, mercury, or chat:MODEL."),
    click.option("--max-calls", type=int, help="Target calls in all, sealed test included."),
    click.option("--adapter", help="For --denoiser local:PLACE: what remask adapt made for that base."),
    click.option("--max-minutes", type=float, help="Minutes of computing and waiting."),
    click.option("--max-usd", type=float, help="US dollars; needs prices in remask.toml."),
    click.option("--max-total-tokens", type=int, help="Input and output tokens in all."),
    click.option("--seed", type=int, help="Other seeds draw other candidates."),
    click.option("--masker", multiple=True, type=click.Choice(MASKERS), help="Where to edit; repeatable."),
    click.option("--run-dir", help="Folder for the run (default: runs/DATE-TIME)."),
)
_SEARCH = (
    click.option("--max-tokens", type=int, help="Of the prompt; longer candidates are not tried."),
    click.option("--demos", type=int, help="Up to so many train rows may be shown as examples."),
)
_TARGET = (
    click.option("--target", help="builtin, openai:MODEL, or inspect:PROVIDER/MODEL."),
    click.option("--base-url", help="Of another OpenAI-compatible server."),
    click.option("--metric", help="label, exact, contains, f1, or judge."),
    click.option("--judge", help="A model that scores the answers, such as openai:MODEL."),
    click.option("--rubric", help="What a good answer is, for the judge."),
    click.option("--answer", help="How the target says a label: a template with {label}."),
    click.option("--label", multiple=True, help="An allowed label; repeatable (default: as data)."),
)
_TASK = (
    click.option("--task", help="A task of Inspect in place of rows: PACKAGE/TASK, FILE.py@TASK."),
    click.option("--task-arg", "-T", multiple=True, metavar="KEY=VALUE", help="For that task."),
    click.option("--role", multiple=True, metavar="ROLE=MODEL", help="Its other models, as user=…"),
    click.option("--prompt", "prompt_file", help="The prompt file, as the argument does."),
    click.option("--prompt-from", type=click.Choice(["system"]), help="The task's own system message."),
)
_DATA = (
    click.option("--data", help="JSONL or CSV file with the rows."),
    click.option("--input", help="User message: a column, or a template with {columns}."),
    click.option("--expected", help="Column of the right answer."),
)
_SPLIT_HELP = "Column that says train, validation or test."
_SHOW = (
    click.option("--plain", is_flag=True, help="Plain lines, as where the output is no terminal."),
    click.option("--json", is_flag=True, help="One JSON object a line, the result last."),
)


MAP = click.option(
    "--map", "columns", multiple=True, metavar="FIELD=COLUMN,…",
    help="Which column of a table is what: input, output, expected, score, comment, …",
)  # fmt: skip

SCALE = click.option(
    "--scale", "scales", multiple=True, metavar="NAME=WORST..BEST",
    help="The scale of a rating, as in stars=1..5.",
)  # fmt: skip


def _group(*options: Any) -> Callable[[Command], Command]:
    """A decorator that gives a command these options, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


run_flags = _group(*_RUN)
search_flags = _group(*_SEARCH)
target_flags = _group(*_TARGET)
task_flags = _group(*_TASK)
show_flags = _group(*_SHOW)
data_flags = _group(
    *_DATA,
    click.option("--split-column", "--split", "split_column", help=_SPLIT_HELP),
    click.option("--queries", type=int, help="Without data: messages to ask the target for.  [default: 80]"),
)


def job_flags(command: Command) -> Command:
    """All that says what is optimised, and how."""
    return run_flags(search_flags(target_flags(task_flags(data_flags(command)))))


# As `data_flags`, where --split says which rows are scored.
eval_data_flags = _group(*_DATA, click.option("--split-column", help=_SPLIT_HELP))
track_flag = click.option(
    "--track", default="", metavar="mlflow[:URI]",
    help="Log the run to MLflow: its default place, or a server or store.",
)  # fmt: skip


def show_mode(plain: bool, json: bool) -> str:
    """How a command speaks: json, plain or rich."""
    if json:
        return "json"
    dumb = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return "plain" if plain or dumb or not sys.stdout.isatty() else "rich"
