"""`remask refine`. Imports only click; the command imports the rest when it runs."""

from pathlib import Path
from typing import Any

import click

from remask.cli import options
from remask.cli.options import option


@click.command(cls=options.GroupedCommand)
@click.argument("source", metavar="PROMPT.MD | REMASK.TOML")
@option("Data", "--traces", "files", multiple=True, metavar="PATH",
        help="File of conversations that remask traces inspect can read, a folder of such files, or a "
        "pattern in quotes. May be repeated.")  # fmt: skip
@options.map_option
@options.scale_option
@option("Data", "--redact", type=click.Choice(["on", "off"]),
        help="Replace secrets and personal data. The result says so if it is off. Default: on.")  # fmt: skip
@options.refine_target_options
@options.denoiser_options
@option("Search", "--lock", type=click.Choice(["text", "numbers", "none"]),
        help="Part of the prompt that may not change. With text, sentences are only added. "
        "Default: numbers.")  # fmt: skip
@option("Search", "--iterations", type=int, help="Maximum number of iterations. Default: 8.")
@option("Search", "--candidates", type=int,
        help="Number of candidates in each iteration. Default: 8.")  # fmt: skip
@options.search_options
@options.budget_options
@options.workers_options
@options.run_dir_option
@option("Output", "--output", "-o", type=click.Path(path_type=Path), metavar="FILE",
        help="File for the refined prompt, with its [[keep]] marks.")  # fmt: skip
@option("Output", "--force", is_flag=True, help="Replace that file if it exists.")
@options.progress_options
def refine(source: str, output: Path | None, force: bool, plain: bool, json: bool, **flags: Any) -> None:
    """Refine a prompt by conversations, without labels or target calls.

    Edits are chosen by likelihood, and the result is not verified. With --target it is: both
    prompts answer conversations that the refinement has not seen. Corrections, well-rated
    responses or a judge score the answers.

    \b
    Example:
      remask refine prompt.md --traces conversations.jsonl -o refined.md
    """
    from remask.cli.optimize import new_run
    from remask.cli.settings import read_refinement
    from remask.cli.show import find_best_prompt
    from remask.files import require_free, write
    from remask.sanitize import make_visible

    if output is not None:
        require_free(output, force)
    result = new_run(read_refinement(source, flags), options.choose_mode(plain, json))
    if output is not None:
        write(output, find_best_prompt(Path(result.run_dir)).to_source() + "\n", force)
        click.echo(f"wrote {make_visible(str(output))}", err=json)
