"""`remask export`: what it takes. Imports click only; what it writes is in cli/exporting.py."""

from pathlib import Path

import click

FORMATS = (
    *("text", "marked", "messages", "f-string", "jinja"),
    *("langfuse", "mlflow", "dspy", "promptfoo"),
)


@click.command()
@click.argument("place", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path), help="The file to write."
)
@click.option(
    "--format", "kind", type=click.Choice(FORMATS),
    help="Default: by the file's name, else text.",
)  # fmt: skip
@click.option(
    "--variable", "variables", multiple=True, metavar="NAME",
    help="What is a variable; repeatable (default: every plain {name}).",
)  # fmt: skip
@click.option("--name", help="Of the prompt in Langfuse or MLflow (default: as the file).")
@click.option(
    "--program", type=click.Path(path_type=Path), help="The DSPy program whose prompt is replaced."
)
@click.option("--predictor", default="", help="Of that program, where it has several.")
@click.option("--marked", is_flag=True, help="Put the [[keep]] marks back; the format marked.")
@click.option(
    "--shortest-within", "within", type=click.FloatRange(0, 100), metavar="POINTS",
    help="The shortest prompt of the run at most so much worse on validation.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the file where it exists.")
def export(
    place: Path,
    output: Path,
    kind: str | None,
    variables: tuple[str, ...],
    name: str | None,
    program: Path | None,
    predictor: str,
    marked: bool,
    within: float | None,
    force: bool,
) -> None:
    """Write the best prompt of a run to a file, for people or for another tool.

    In place of a run it takes a prompt file too: text, or JSON that this command has written.
    """
    from remask.cli import exporting

    chosen = exporting.choose(output, kind, marked, program)
    source = exporting.Source(place, within)
    if chosen == "promptfoo":
        exporting.comparison(source, output, force)
    elif chosen == "dspy":
        exporting.program(source, output, program, predictor, force)
    else:
        exporting.prompt(source, output, chosen, name, variables or None, force)
