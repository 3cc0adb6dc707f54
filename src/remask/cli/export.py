"""Writing the files of `remask export`: from a run or a prompt file to the rooms of `export`."""

import os
from dataclasses import dataclass
from pathlib import Path

import click

from remask.api.job import open_job
from remask.api.optimize import load_config
from remask.cli.show import best_prompt
from remask.errors import ConfigError, DataError
from remask.files import require_free, write
from remask.integrations import export as formats
from remask.integrations import promptfoo
from remask.prompt import Prompt
from remask.runs.report.read_run import view_run
from remask.runs.report.summary import SELECTION, format_verdict
from remask.sanitize import one_line


@dataclass(frozen=True, slots=True)
class ExportSource:
    """What is exported: a run or a prompt file, and of a run how much worse it may be for being
    shorter (points of 100 on validation; None: the best prompt)."""

    place: Path
    within: float | None = None

    def prompt(self, names: tuple[str, ...] | None = None) -> Prompt:
        if self.place.is_file():
            if self.within is not None:
                raise ConfigError(
                    f"--shortest-within chooses among the prompts of a run, and {self.place} is a "
                    "file; name a run's folder"
                )
            return formats.read(self.place, names)
        return best_prompt(self.place, self.within)

    @property
    def verdict(self) -> str:
        """What the sealed test says of the best prompt of a run."""
        if self.place.is_file():
            return ""
        result = view_run(self.place).result
        return f"; {format_verdict(result)}" if result else "; not tested, the run is not finished"

    @property
    def said(self) -> str:
        """What a reader should know of a prompt that is not the run's best."""
        if self.within is None:
            return ""
        return f"; chosen by length and validation score ({SELECTION}), not tested"


def choose_format(output: Path, kind: str | None, marked: bool, program: Path | None) -> str:
    """The format, by what was said or else by the file's name. ConfigError where both differ."""
    said = {*([kind] if kind else []), *(["marked"] if marked else [])}
    said |= {"dspy"} if program else set()
    if len(said) > 1:
        raise ConfigError(f"{' and '.join(sorted(said))} exclude each other; choose one format")
    if said:
        return said.pop()
    return "promptfoo" if output.name == promptfoo.CONFIG else formats.guess_format(output)


def write_prompt(
    source: ExportSource,
    output: Path,
    kind: str,
    name: str | None,
    names: tuple[str, ...] | None,
    force: bool,
) -> None:
    """One file for people or another tool."""
    order = formats.ExportOptions(name or output.name.partition(".")[0], names)
    write(output, formats.FORMATS[kind](source.prompt(names), order), force)
    click.echo(f"wrote {output} ({kind}){source.said}")


def register_prompt(source: ExportSource, name: str, names: tuple[str, ...] | None, uri: str) -> None:
    """A version in MLflow's prompt registry, whose message says what the run found."""
    template = formats.make_mlflow_template(source.prompt(names), names)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # remask sends nothing home
    from remask.integrations.mlflow import register

    message = formats.NOTE + (source.said or source.verdict)
    click.echo(f"registered {register(name, template, message, uri)} (mlflow){source.said}")


def write_program(
    source: ExportSource, output: Path, given: Path | None, predictor: str, force: bool
) -> None:
    """A DSPy program with the prompt in it; its own file may be the output."""
    if given is None:
        raise ConfigError("the format dspy needs --program FILE, the saved program to change")
    try:
        before = given.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{given} cannot be read: {error}; name a program in JSON") from None
    prompt = source.prompt()
    try:
        after = formats.replace_instructions(before, prompt, predictor)
    except ConfigError as error:
        raise DataError(str(error), given) from None
    write(output, after, force)
    click.echo(f"wrote {output} (dspy){source.said}")


def write_comparison(source: ExportSource, output: Path, force: bool) -> None:
    """A promptfoo folder around `output`: the run's first and best prompt on its test rows."""
    run = source.place
    if output.name != promptfoo.CONFIG:
        raise ConfigError(f"promptfoo reads {promptfoo.CONFIG}; give -o FOLDER/{promptfoo.CONFIG}")
    config = load_config(run)
    if not (config.data.path or config.data.train):
        raise ConfigError(f"{run}: no file holds its rows, so there are no tests to export")
    with open_job(config) as job:
        dataset = job.dataset
        if job.record["data_id"] != view_run(run).config["data_id"]:
            raise ConfigError(f"the data of {run} has changed since; put the old rows back")
    target = config.target
    found = promptfoo.compare(
        Prompt.parse(config.prompt),
        source.prompt(),
        [e for e in dataset.examples if e.split == "test"],
        promptfoo.PromptfooModel(
            target.model, target.base_url, target.api_key_env, target.temperature, target.max_tokens
        ),
        config.metric.name,
        config.metric.labels or dataset.labels,
        config.data.role,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    for name in found.files:
        require_free(output.with_name(name), force)
    for name, content in found.files.items():
        write(output.with_name(name), content, force)
    click.echo(f"wrote {', '.join(found.files)} in {output.parent} ({found.rows} test rows){source.said}")
    if found.left_out:
        click.echo(f"left out: {found.left_out} rows that promptfoo would read as templates")
    if not found.graded:
        click.echo(
            f"the metric {one_line(config.metric.name)} has no plain assertion; add your own to tests.json"
        )


FORMATS = (*("text", "marked", "messages", "f-string", "jinja"), *("langfuse", "mlflow", "dspy", "promptfoo"))


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
@click.option("--program", type=click.Path(path_type=Path), help="The DSPy program whose prompt is replaced.")
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

    source = ExportSource(place, within)
    if tracking_uri and not registered:
        raise ConfigError("--tracking-uri says where to --register NAME; give both")
    if output is not None:
        goal = choose_format(output, kind, marked, program)
        if goal == "promptfoo":
            write_comparison(source, output, force)
        elif goal == "dspy":
            write_program(source, output, program, predictor, force)
        else:
            write_prompt(source, output, goal, name, variables or None, force)
    elif not registered or kind or marked or program:
        raise ConfigError("no file is named: give -o FILE, or --register NAME alone for MLflow")
    if registered:
        register_prompt(source, registered, variables or None, tracking_uri or "")
