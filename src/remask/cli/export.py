"""`remask export`: write the prompt of a run, or of a prompt file, for another tool."""

import os
from dataclasses import dataclass
from pathlib import Path

import click

from remask.api.job import open_job
from remask.api.optimize import load_config
from remask.cli.options import GroupedCommand, option
from remask.cli.show import find_best_prompt
from remask.data.places import write_places
from remask.errors import ConfigError, DataError
from remask.files import require_free, write
from remask.integrations import export as formats
from remask.integrations import promptfoo
from remask.prompt import Prompt, split_components
from remask.runs.report.read_run import view_run
from remask.runs.report.summary import SELECTION, format_verdict
from remask.sanitize import make_visible, one_line


@dataclass(frozen=True, slots=True)
class ExportSource:
    """The source of an export: a run or a prompt file.

    `within`: of a run, take the shortest prompt that is at most so many points of 100 worse on
    validation; None: the best prompt.
    """

    place: Path
    within: float | None = None

    def read_prompt(self, names: tuple[str, ...] | None = None) -> Prompt:
        """Read the prompt. `names`: of its variables, in a file of another tool."""
        if self.place.is_file():
            if self.within is not None:
                raise ConfigError(
                    f"--shortest-within chooses a prompt of a run, and {self.place} is a file; "
                    "name the folder of a run"
                )
            return formats.read(self.place, names)
        return find_best_prompt(self.place, self.within)

    @property
    def verdict(self) -> str:
        """The verdict on the best prompt of a run; "" for a prompt file."""
        if self.place.is_file():
            return ""
        result = view_run(self.place).result
        return f"; {format_verdict(result)}" if result else "; not tested: the run is not finished"

    @property
    def note(self) -> str:
        """A note on a prompt that is not the best one of the run; else ""."""
        if self.within is None:
            return ""
        return f"; chosen by length and validation score ({SELECTION}), not tested"


def choose_format(output: Path, kind: str | None, marked: bool, program: Path | None) -> str:
    """Choose the format by the options, else by the name of the file.

    Raises ConfigError where options ask for different formats.
    """
    wanted = {*([kind] if kind else []), *(["marked"] if marked else [])}
    wanted |= {"dspy"} if program else set()
    if len(wanted) > 1:
        raise ConfigError(f"{' and '.join(sorted(wanted))} exclude each other; choose one format")
    if wanted:
        return wanted.pop()
    return "promptfoo" if output.name == promptfoo.CONFIG else formats.guess_format(output)


def write_prompt(
    source: ExportSource,
    output: Path,
    kind: str,
    name: str | None,
    names: tuple[str, ...] | None,
    force: bool,
) -> None:
    """Write the prompt as one file."""
    options = formats.ExportOptions(name or output.name.partition(".")[0], names)
    prompt = source.read_prompt(names)
    formats.require_format(prompt, kind)
    write(output, formats.FORMATS[kind](prompt, options), force)
    click.echo(f"wrote {make_visible(str(output))} ({kind}){source.note}")


def write_in_place(source: ExportSource) -> None:
    """Write the texts of the components into the files that they came from."""
    config = load_config(source.place)
    if not config.components:
        raise ConfigError(
            f"the prompt of {source.place} did not come from places in files ([components]); give -o FILE"
        )
    spec = {name: section.place for name, section in config.components.items()}
    before, start = split_components(config.prompt), Prompt.parse(config.prompt).components
    after = {
        name: before[name] if part.id == start[name].id else part.to_source()
        for name, part in source.read_prompt().components.items()
    }
    changed = write_places(spec, after, before=before)
    shown = ", ".join(make_visible(str(path)) for path in changed) or "nothing: the texts are unchanged"
    click.echo(f"wrote {shown}{source.note}")


def register_prompt(source: ExportSource, name: str, names: tuple[str, ...] | None, uri: str) -> None:
    """Register the prompt in MLflow as a new version, whose message contains the verdict."""
    prompt = source.read_prompt(names)
    formats.require_format(prompt, "mlflow")
    template = formats.make_mlflow_template(prompt, names)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # remask sends no usage data
    from remask.integrations.mlflow import register

    message = formats.NOTE + (source.note or source.verdict)
    click.echo(f"registered {register(name, template, message, uri)} (mlflow){source.note}")


def write_program(
    source: ExportSource, output: Path, given: Path | None, predictor: str, force: bool
) -> None:
    """Write the DSPy program `given` with the prompt in it. `output` may be the same file."""
    if given is None:
        raise ConfigError("the format dspy needs --program FILE, the saved program to change")
    try:
        before = given.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{given} cannot be read: {error}; name a program that was saved as JSON") from None
    prompt = source.read_prompt()
    formats.require_format(prompt, "dspy")
    try:
        after = formats.replace_instructions(before, prompt, predictor)
    except ConfigError as error:
        raise DataError(str(error), given) from None
    write(output, after, force)
    click.echo(f"wrote {make_visible(str(output))} (dspy){source.note}")


def write_comparison(source: ExportSource, output: Path, force: bool) -> None:
    """Write a promptfoo folder that compares the first and the best prompt on the test rows."""
    run = source.place
    formats.require_format(source.read_prompt(), "promptfoo")
    if output.name != promptfoo.CONFIG:
        raise ConfigError(
            f"promptfoo needs a file named {promptfoo.CONFIG}; give -o FOLDER/{promptfoo.CONFIG}"
        )
    config = load_config(run)
    if not (config.data.path or config.data.train):
        raise ConfigError(f"{run} has no rows in files, so there are no tests to export")
    with open_job(config) as job:
        dataset = job.dataset
        if job.record["data_id"] != view_run(run).config["data_id"]:
            raise ConfigError(f"the data of {run} has changed since the run; restore the old rows")
    target = config.target
    found = promptfoo.compare(
        Prompt.parse(config.prompt),
        source.read_prompt(),
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
    place = make_visible(str(output.parent))
    click.echo(f"wrote {', '.join(found.files)} in {place} ({found.rows} test rows){source.note}")
    if found.left_out:
        click.echo(f"left out: {found.left_out} rows that promptfoo would read as templates")
    if not found.graded:
        click.echo(
            f"promptfoo has no assertion for the metric {one_line(config.metric.name)}; add your "
            "own assertions to tests.json"
        )


FORMATS = (
    *("text", "marked", "components", "messages", "f-string", "jinja"),
    *("langfuse", "mlflow", "dspy", "promptfoo"),
)


@click.command(cls=GroupedCommand)
@click.argument("place", metavar="RUN | PROMPT.MD", type=click.Path(path_type=Path))
@option("Prompt", "--shortest-within", type=click.FloatRange(0, 100), metavar="POINTS",
        help="Export the shortest prompt of the run that is at most so many points of 100 worse on "
        "validation.")  # fmt: skip
@option("Format", "--format", "kind", type=click.Choice(FORMATS),
        help="Format of the file. Default: by its name, else text.")  # fmt: skip
@option("Format", "--marked", is_flag=True, help="Write the [[keep]] marks: the format marked.")
@option("Format", "--variable", "variables", multiple=True, metavar="NAME",
        help="Name of a variable. May be repeated. Default: every plain {name}.")  # fmt: skip
@option("Format", "--name", metavar="NAME",
        help="Name of the prompt in Langfuse or MLflow. Default: the name of the file.")  # fmt: skip
@option("Format", "--program", type=click.Path(path_type=Path), metavar="FILE",
        help="Saved DSPy program in which to replace the prompt.")  # fmt: skip
@option("Format", "--predictor", default="", metavar="NAME",
        help="Predictor of that program, if it has several.")  # fmt: skip
@option("Output", "--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="File to write.")
@option("Output", "--in-place", is_flag=True,
        help="Write the texts of the components into the files that they came from.")  # fmt: skip
@option("Output", "--register", "registered", metavar="NAME",
        help="Register the prompt in MLflow as a new version of this name.")  # fmt: skip
@option("Output", "--tracking-uri", metavar="URI",
        help="Server or database of MLflow. Default: as MLflow is configured.")  # fmt: skip
@option("Output", "--force", is_flag=True, help="Replace the file if it exists.")
def export(
    place: Path,
    output: Path | None,
    in_place: bool,
    kind: str | None,
    variables: tuple[str, ...],
    name: str | None,
    program: Path | None,
    predictor: str,
    marked: bool,
    shortest_within: float | None,
    registered: str | None,
    tracking_uri: str | None,
    force: bool,
) -> None:
    """Write the best prompt of a run to a file, for people or for another tool.

    The source is the folder of a run or a prompt file: text, or a file that this command wrote.
    Give -o, --in-place or --register.

    \b
    Example:
      remask export runs/20260101-120000 -o best.md
    """
    source = ExportSource(place, shortest_within)
    if tracking_uri and not registered:
        raise ConfigError("--tracking-uri needs --register NAME; give both")
    if in_place and (output or kind or marked or program):
        raise ConfigError("--in-place writes the files of the components; give it without -o and a format")
    if in_place:
        write_in_place(source)
    elif output is not None:
        goal = choose_format(output, kind, marked, program)
        if goal == "messages" and kind is None and source.read_prompt().components:
            goal = "components"
        if goal == "promptfoo":
            write_comparison(source, output, force)
        elif goal == "dspy":
            write_program(source, output, program, predictor, force)
        else:
            write_prompt(source, output, goal, name, variables or None, force)
    elif not registered or kind or marked or program:
        raise ConfigError("no output is given; give -o FILE, --in-place, or --register NAME for MLflow")
    if registered:
        register_prompt(source, registered, variables or None, tracking_uri or "")
