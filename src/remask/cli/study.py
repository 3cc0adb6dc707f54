"""`remask study`: what it is called and takes. Imports click only; see `studied`."""

from pathlib import Path
from typing import Any

import click

from remask.cli.flags import eval_data_flags, study_flags, target_flags, task_flags


@click.group()
def study() -> None:
    """Measure how a setting of the denoiser changes what it writes, on your task."""


@study.command()
@click.argument(
    "source", metavar="[REMASK.TOML | PROMPT.MD | PROMPTFOOCONFIG.YAML]", required=False
)
@click.option(
    "--steps", default="1,2,4,8,16,32", show_default=True, metavar="N,N,…",
    help="Numbers of denoising steps to compare.",
)  # fmt: skip
@click.option("--candidates", type=int, default=8, show_default=True, help="Of each round.")
@click.option(
    "--rounds", type=int,
    help="Draws of traces and masks.  [default: up to 3, as --max-calls allows]",
)  # fmt: skip
@click.option(
    "--rows", type=int, default=60, show_default=True,
    help="Validation rows that score the best candidate, at most.",
)  # fmt: skip
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Takes steps.json, steps.svg and the paid answers; a cut study goes on there.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the outcome in that folder.")
@study_flags
@target_flags
@task_flags
@eval_data_flags
@click.option("--json", is_flag=True, help="One JSON object instead of a table.")
def steps(
    source: str | None, steps: str, output: Path | None, force: bool, json: bool, **flags: Any
) -> None:
    """Compare numbers of denoising steps: the same draws, filled in each of them.

    Says what it may cost in target calls before it starts and never passes that. Candidates are
    written under traces of train rows and scored on validation rows; test rows are not asked.
    """
    from remask.cli.studied import study_steps

    study_steps(source, steps, output, force, flags, json)
