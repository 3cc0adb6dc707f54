"""`remask refine`: what it is called and takes. Imports click only; the rest when it runs."""

from pathlib import Path
from typing import Any

import click

from remask.cli.options import MAP, SCALE, run_flags, show_flags, show_mode, target_flags


@click.command()
@click.argument("source", metavar="PROMPT.MD | REMASK.TOML")
@click.option(
    "--traces", "files", multiple=True, metavar="FILE",
    help="Conversations, in any form that remask traces inspect reads; repeatable.",
)  # fmt: skip
@MAP
@SCALE
@click.option(
    "--redact", type=click.Choice(["on", "off"]),
    help="Replace secrets and personal details; off is stamped on the result.  [default: on]",
)  # fmt: skip
@click.option(
    "--lock", type=click.Choice(["text", "numbers", "none"]),
    help="What of the prompt may not change; text: sentences are only added.  [default: numbers]",
)  # fmt: skip
@click.option("--iterations", type=click.IntRange(1), help="At most.  [default: 8]")
@click.option("--candidates", type=click.IntRange(1), help="Of each iteration.  [default: 8]")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path),
    help="The file for the refined prompt, [[keep]] marks included.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace that file where it exists.")
@run_flags
@target_flags
@show_flags
def refine(source: str, output: Path | None, force: bool, plain: bool, json: bool, **flags: Any) -> None:
    """Refine a prompt by conversations alone: no labels, no target calls.

    Edits are chosen by likelihood and are not verified. With --target they are: both prompts answer
    conversations that the refinement has not seen, and are compared with their corrections and
    well-rated responses, or by a judge.
    """
    from remask.cli.optimize import new_run
    from remask.cli.settings import read_refinement
    from remask.cli.show import best_prompt
    from remask.files import require_free, write

    if output is not None:
        require_free(output, force)
    result = new_run(read_refinement(source, flags), show_mode(plain, json))
    if output is not None:
        write(output, best_prompt(Path(result.run_dir)).to_source() + "\n", force)
        click.echo(f"wrote {output}", err=json)
