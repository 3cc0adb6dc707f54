"""The commands on traces: what they are called and take. Imports click only; see `survey`."""

from pathlib import Path

import click

MAP = click.option(
    "--map", "columns", multiple=True, metavar="FIELD=COLUMN,…",
    help="Which column of a table is what: input, output, expected, score, comment, …",
)  # fmt: skip
SCALE = click.option(
    "--scale", "scales", multiple=True, metavar="NAME=WORST..BEST",
    help="The scale of a rating, as in stars=1..5.",
)  # fmt: skip


@click.group()
def traces() -> None:
    """Look at files of conversations, and make a copy without secrets."""


@traces.command()
@click.argument("files", nargs=-1, required=True, type=click.Path())
@MAP
@SCALE
@click.option("--json", is_flag=True, help="One JSON object instead of lines.")
def inspect(
    files: tuple[str, ...], columns: tuple[str, ...], scales: tuple[str, ...], json: bool
) -> None:
    """Say what was recognised in FILES, and what was rejected and why."""
    from remask.cli.survey import inspect_files

    inspect_files(files, columns, scales, json)


@traces.command()
@click.argument("file", type=click.Path())
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path), help="The file to write."
)
@MAP
@click.option("--force", is_flag=True, help="Replace the file where it exists.")
def redact(file: str, output: Path, columns: tuple[str, ...], force: bool) -> None:
    """Write the records of FILE as plain chats, with secrets and personal details replaced."""
    from remask.cli.survey import redact_file

    redact_file(file, output, columns, force)
