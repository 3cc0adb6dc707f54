"""`remask export`: what it takes. Imports click only; what it writes is in cli/exporting.py."""

from pathlib import Path

import click

from remask.errors import ConfigError

FORMATS = (
    *("text", "marked", "messages", "f-string", "jinja"),
    *("langfuse", "mlflow", "dspy", "promptfoo"),
)


@click.command()
@click.argument("place", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), help="The file to write.")
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
@click.option(
    "--register", "registered", metavar="NAME",
    help="Make it a new version of this prompt in MLflow's registry.",
)  # fmt: skip
@click.option(
    "--tracking-uri", metavar="URI",
    help="Of MLflow's server or database (default: as MLflow is set up).",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the file where it exists.")
def export(
    place: Path,
    output: Path | None,
    kind: str | None,
    variables: tuple[str, ...],
    name: str | None,
    program: Path | None,
    predictor: str,
    marked: bool,
    within: float | None,
    registered: str | None,
    tracking_uri: str | None,
    force: bool,
) -> None:
    """Write the best prompt of a run to a file, for people or for another tool.

    In place of a run it takes a prompt file too: text, or JSON that this command has written.
    With --register it goes to MLflow, and -o may be left out.
    """
    from remask.cli import exporting

    source = exporting.Source(place, within)
    if tracking_uri and not registered:
        raise ConfigError("--tracking-uri says where to --register NAME; give both")
    if output is not None:
        goal = exporting.choose(output, kind, marked, program)
        if goal == "promptfoo":
            exporting.comparison(source, output, force)
        elif goal == "dspy":
            exporting.program(source, output, program, predictor, force)
        else:
            exporting.prompt(source, output, goal, name, variables or None, force)
    elif not registered or kind or marked or program:
        raise ConfigError("no file is named: give -o FILE, or --register NAME alone for MLflow")
    if registered:
        exporting.register(source, registered, variables or None, tracking_uri or "")
